"""The wheel carries the config folder and the built-in models."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_wheel_works_unpacked(tmp_path: Path):
    here = importlib.util.find_spec("hatchling") is not None
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-w", str(tmp_path), "-q"]
    subprocess.run([*command, *(["--no-build-isolation"] if here else [])], check=True, timeout=280)
    (wheel,) = tmp_path.glob("pkt_llm-*.whl")
    unpacked = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    own = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert own == {p.relative_to(unpacked / "pkt/conf") for p in (unpacked / "pkt/conf").rglob("*.yaml")}
    assert (unpacked / "pkt" / "py.typed").is_file()
    pages = unpacked / "pkt" / "reporting" / "templates"
    assert {file.name for file in pages.iterdir()} == {"page.css", "page.html", "page.js"}
    env = {k: v for k, v in os.environ.items() if not k.startswith("PKT_")} | {"PYTHONPATH": str(unpacked)}
    code = "import pkt, sys; from pkt.cli import main; print(pkt.__file__); sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "run", "--cfg", "job", "-p", "optim"]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert str(unpacked) in done.stdout
    assert "lr:" in done.stdout
