"""The commands that README.md, CONTRIBUTING.md and docs/*.md show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Transformer

from pkt.searchpath import groups

ROOT = Path(__file__).resolve().parents[1]
ALONE = ("README.md", "CONTRIBUTING.md", "examples/README.md")
PAGES = [*(ROOT / name for name in ALONE), *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?P<env>(?:[A-Z_]+=\S+ )*)pkt (?P<words>.+)$")
# word of a command -> the package of a plugin of Hydra's that composing it takes
PLUGINS = {
    "experiment=tune": "hydra_plugins.hydra_optuna_sweeper",
    "PKT_LAUNCHER=joblib": "hydra_plugins.hydra_joblib_launcher",
    "PKT_LAUNCHER=submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "PKT_LAUNCHER=slurm": "hydra_plugins.hydra_submitit_launcher",
}


def code(page: Path) -> Iterator[str]:
    """Yield the lines of a page's blocks of code, and its code between backticks."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```.*?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield from block.splitlines()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"^    (\S.*)$", prose, re.MULTILINE)
    yield from (" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose))


def commands() -> dict[str, None]:
    """Return every command line of pkt's that the pages show, without comments."""
    pages = [page for page in PAGES if page.name != "LOG.md"]  # whose commands are of their day
    lines = [part.strip() for page in pages for line in code(page) for part in line.split("#")[0].split(";")]
    return dict.fromkeys(line for line in lines if COMMAND.match(line))


def first_values(overrides: list[str]) -> list[str]:
    """Return overrides without sweeps: the first value of each; the others of a group have to be its options."""
    found = []
    for override in OverridesParser.create().parse_overrides(overrides):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, IntervalSweep):
            found.append(f"{key}={value.start}")
        elif isinstance(value, ChoiceSweep):
            values = [Transformer.str(one) for one in value.list]
            assert key not in groups() or set(values) <= set(groups()[key]), override.input_line
            found.append(f"{key}={values[0]}")
        elif not isinstance(value, Glob):
            found.append(override.input_line)
    return found
