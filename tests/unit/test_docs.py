"""What README.md, CONTRIBUTING.md and docs/*.md name is there: commands, links, files, targets of make."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from documented import COMMAND, PAGES, PLUGINS, ROOT, code, commands, first_values
from pkt.checks import check
from pkt.searchpath import builtin_conf_dir, register
from pkt.verbs import COMPOSED, PLAIN
from pkt.words import hydra_words


@functools.cache
def composes(root: str, environment: tuple[str, ...], overrides: frozenset[str]) -> None:
    """Compose a request; a request of other words with the same meaning is not composed again."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PKT_CONFIG_DIR", "PKT_OUTPUT_DIR", "PKT_LAUNCHER"):
            patch.delenv(name, raising=False)
        for word in environment:
            patch.setenv(*word.split("=", 1))
        patch.chdir(ROOT)
        register()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
            cfg = compose(root, overrides=sorted(overrides))
        if root != "report":  # it has a small root of its own
            check(cfg)


@pytest.mark.slow  # tests/smoke/test_documented.py, which is too, runs most of them
@pytest.mark.parametrize("command", commands())
def test_every_command_composes(command: str):
    found = COMMAND.match(command)
    assert found
    verb, *words = shlex.split(
        found["words"].replace("model=mine", "model=llama-7b-to-1b")
    )  # what it is a copy of
    if "..." in command or "<" in command:
        pytest.skip("it stands for several commands")
    if "mylab" in command:
        pytest.skip(
            "its options are a plugin's; tests/smoke/test_extending.py installs the plugin and runs them"
        )
    if verb.startswith("-") or verb in PLAIN:
        return
    assert verb in COMPOSED
    overrides = [word for word in hydra_words(verb, words) if re.match(r"[^-].*=|[+~]", word)]  # and no flags
    environment = tuple(found["env"].split())
    for word in PLUGINS.keys() & {*environment, *overrides}:
        pytest.importorskip(PLUGINS[word], reason=f"{word} needs a plugin of Hydra's that is not installed")
    plain = frozenset(first_values(overrides)) - {"threads=1", "seed=0"}
    composes("report" if verb == "report" else "run", environment, plain)


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8"))
    for path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in slugs(target), f"{path}#{anchor}"


def files_named(page: Path) -> set[str]:
    """Return the files of this repository that a page names by a path; `mylab` and names in <> are the reader's."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r' title="[^"]+"', "", text)  # files of the reader's package
    named = re.findall(r"(?<![\w/.])(?:src|tests|scripts|conf)/[\w./*<>-]*\w", text)
    for line in code(page):
        named += re.findall(r"(?<![\w/<.])(?:\w+/)+\w+\.py\b|^test_[\w*]+$", line)
    return {name for name in named if "mylab" not in name and "<" not in name}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_named_exists(page: Path):
    roots = (ROOT, ROOT / "src" / "pkt", ROOT / "src", ROOT / "tests" / "unit")
    missing = {
        name
        for name in files_named(page)
        if not any(list(root.glob(name + end)) for root in roots for end in ("", ".py"))
    }
    assert not missing


def test_every_target_of_make_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w -]*):", makefile, re.MULTILINE))
    known = {target for line in targets for target in line.split()}
    lines = [line.split("#")[0] for page in PAGES for line in code(page)]
    named = [word for line in lines if line.startswith("make ") for word in line.split()[1:]]
    unknown = {word for word in named if re.fullmatch(r"[a-z][\w-]*", word)} - known
    assert not unknown
