"""The package of docs/extending.md, installed: every chapter runs on the nano pair, and what breaks it is told."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import mostly_slow
from extending import files, install, write
from pkt import plugins
from tiny import tiny_model, tiny_tokenizer

FAST = ["debug=tiny", "tracker=none", "threads=1"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Install the package once, into a folder of its own."""
    root = tmp_path_factory.mktemp("mylab")
    write(root / "source")
    install(root / "source", root / "site")
    return root / "site"


@pytest.fixture
def installed(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a copy of the installed package on the path of this process, which forgets it afterwards."""
    copy = shutil.copytree(site, tmp_path / "site")
    forget()
    monkeypatch.syspath_prepend(str(copy))
    yield copy
    forget()


def forget() -> None:
    """Forget what this process knows of plugins, as a new one would."""
    plugins.installed.cache_clear()
    plugins._origin.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def refused(result, *parts: str, code: int = 2) -> None:
    assert result.code == code, (result.code, result.err)
    (line,) = result.err.strip().splitlines()
    for part in parts:
        assert part in line, line


def test_every_option_on_the_page_is_run_here():
    options = {name for name in files() if "/conf/" in name}
    assert options == {f"mylab/conf/{name}.yaml" for name in RUN}


def test_a_new_process_finds_the_installed_package(site: Path, tmp_path: Path):
    """Through PYTHONPATH and the entry point; help names its options, and composing imports none of its code."""
    code = f"import sys; sys.path.append({str(site)!r}); from pkt.cli import main; code = main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; assert 'mylab' not in sys.modules", "run", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    listed = next(line for line in done.stdout.splitlines() if line.startswith("mapping: "))
    assert "mylab/blend" in listed.split(": ")[1].split(", ")


def olmo(folder: Path) -> list[str]:
    """Return words for a random OLMo 2 pair, which pkt does not know."""
    sizes = {"teacher": {"depth": 6, "width": 48, "seed": 1}, "student": {"depth": 4, "seed": 2}}
    for who, size in sizes.items():
        tiny_model("olmo2", num_key_value_heads=2, intermediate_size=64, **size).save_pretrained(folder / who)
        tiny_tokenizer().save_pretrained(folder / who)
    return [f"model.{who}.checkpoint={folder / who}" for who in sizes] + ["model.teacher.dtype=float32"]


TERM = "term@objective.terms.layer=mylab/{}"
# option -> a request that uses it (the architecture's folders are added below)
RUN = {
    "term/mylab/contrast": ["transfer", "method=hidden_kd", TERM.format("contrast"), "benchmark=nano_math"],
    "term/mylab/bank_contrast": [
        "transfer",
        "method=semalign_joint",
        TERM.format("bank_contrast"),
        "benchmark=nano_math",
    ],
    "task/mylab/sort": [
        "run",
        "method=sft",
        "benchmark.train=[mylab/sort]",
        "benchmark.tasks=[nano_math,mylab/sort]",
    ],
    "mapping/mylab/blend": ["transfer", "method=hidden_kd", "mapping=mylab/blend", "benchmark=nano_math"],
    "method/mylab/surgical": ["run", "method=mylab/surgical", "method.block=last", "benchmark=nano_math"],
    "model/mylab/olmo": ["transfer", "model=mylab/olmo", "method=semalign", "benchmark=nano_math"],
}


@pytest.mark.parametrize(
    "option", mostly_slow(RUN, lambda option: option.partition("/")[0] in ("task", "method", "term"))
)
def test_each_chapter_runs(pkt, installed: Path, tmp_path: Path, option: str):
    words = olmo(tmp_path) if option.startswith("model/") else []
    done = pkt(*RUN[option], *words, *FAST)
    assert done.code == 0, done.err
    assert "computed" in done.out


def test_the_pages_own_test_passes(installed: Path):
    checks: dict[str, Any] = {}
    exec(files()["tests/test_contrast.py"], checks)
    checks["test_contrast_is_the_textbook_loop"]()


def test_the_bank_holds_the_other_rows_as_they_were_last_seen(installed: Path):
    from mylab.contrast import BankContrast

    from pkt.objectives.needs import RowIds, States
    from pkt.objectives.view import Pair, Sizes, View

    term = BankContrast(temperature=0.5)
    own = term.modules(Sizes(states={2: 4}, targets={2: 4}, rows=3))
    draw = torch.Generator().manual_seed(0)
    bank: dict[int, torch.Tensor] = {}
    for rows in ([0, 0, 2], [2, 0, 0]):
        h_ND, target_ND = torch.randn(2, 3, 4, generator=draw)
        given = {States: [Pair(layer=2, states_ND=h_ND, targets_ND=target_ND)], RowIds: torch.tensor(rows)}
        later: list[Any] = []
        found = term(View(count=3, given=given, own=own, later=later.append))
        expected = torch.zeros(())
        for n, row in enumerate(rows):
            candidates = [target_ND[n], *(entry for other, entry in bank.items() if other != row)]
            cosines = torch.stack([torch.cosine_similarity(h_ND[n], c, dim=0) for c in candidates]) / 0.5
            expected += cosines.logsumexp(0) - cosines[0]
        torch.testing.assert_close(found.total, expected[None])
        for change in later:
            change()
        for row in set(rows):
            mine = [target_ND[n] / target_ND[n].norm() for n in range(3) if rows[n] == row]
            bank[row] = torch.stack(mine).sum(0)


@pytest.mark.slow
def test_the_mixing_mapping_goes_with_what_reads_mixtures_and_with_nothing_else(pkt, installed: Path):
    for method in ("semalign_fisher", "semalign_geometry"):
        words = ["extract", f"method={method}", "mapping=mylab/blend", "benchmark=nano_math", *FAST]
        refused(pkt(*words), "exactly one teacher layer", "1+2+3")
    done = pkt("extract", "method=semalign_joint", "mapping=mylab/blend", "benchmark=nano_math", *FAST)
    assert done.code == 0, done.err


@pytest.mark.slow
def test_an_edit_recomputes_what_the_code_decides_and_nothing_else(pkt, installed: Path):
    words = ["transfer", *RUN["method/mylab/surgical"][1:], *FAST]
    assert states(pkt(*words)) == {"transfer": "computed"}
    assert states(pkt(*words)) == {"transfer": "reused"}
    own = ["transfer", "method=sft", "benchmark=nano_math", *FAST]
    assert states(pkt(*own)) == {"transfer": "computed"}
    module = installed / "mylab" / "surgical.py"
    module.write_text(module.read_text().replace("-(-depth // 3)", "-(-depth // 2)"))
    forget()
    assert states(pkt(*words)) == {"transfer": "computed"}
    assert states(pkt(*own)) == {"transfer": "reused"}


def states(done) -> dict[str, str]:
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    return {words[0]: words[1] for words in lines if words[1:2] in (["computed"], ["reused"])}


def test_what_is_not_installed_or_broken_is_told_and_does_no_harm_to_others(
    pkt, site: Path, installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (installed / "mylab" / "surgical.py").write_text("import nothing_of_this_name\n")
    refused(pkt("transfer", "method=mylab/surgical", *FAST), "nothing_of_this_name", "pip install", code=1)
    (installed / "mylab" / "surgical.py").write_text("x = 1 / 0\n")
    forget()
    where = f"ZeroDivisionError: division by zero ({installed / 'mylab/surgical.py'}, line 1)"
    refused(pkt("transfer", "method=mylab/surgical", *FAST), "mylab.surgical cannot be imported", where)
    refused(pkt("transfer", "plugins=[mylab.surgical]", *FAST), where)
    done = pkt("extract", "method=hidden_kd", "mapping=mylab/blend", "benchmark=nano_math", *FAST)
    assert done.code == 0, done.err
    shutil.rmtree(installed)
    forget()
    refused(pkt("transfer", "method=mylab/surgical", *FAST), "no plugin 'mylab'", "plugins=[<module>]")
    refused(pkt("transfer", "plugins=[mylab]", *FAST), "there is no package 'mylab'")
    package = shutil.copytree(site / "mylab", tmp_path / "beside" / "mylab")
    monkeypatch.syspath_prepend(str(package.parent))
    forget()
    words = ["extract", "method=hidden_kd", "mapping=mylab/blend", "benchmark=nano_math", *FAST]
    refused(pkt(*words), "no plugin 'mylab'")
    done = pkt(*words, "plugins=[mylab]")
    assert done.code == 0, done.err
