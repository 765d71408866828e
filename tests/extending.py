"""The package of docs/extending.md, taken from the page and installed as a stranger would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
_BLOCK = re.compile(r'^```\w+ title="(?P<name>[^"]+)"\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE)


def files() -> dict[str, str]:
    """Return the files that the page shows, by their paths."""
    return {found["name"]: found["text"] for found in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}


def write(root: Path) -> None:
    """Write the package's files."""
    for name, text in files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def install(source: Path, target: Path) -> None:
    """Install a package into a folder, which then belongs on PYTHONPATH; no network."""
    words = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    subprocess.run(
        [sys.executable, "-m", *words, "--target", str(target), str(source)], check=True, timeout=120
    )
