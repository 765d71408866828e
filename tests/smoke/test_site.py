"""The documentation as a site: every link leads somewhere, nothing is fetched, and what is generated is up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_what_the_code_says():
    assert reference.main(["--check"]) == 0, "run: python scripts/reference.py"


def test_the_reference_has_every_key_and_option():
    text = reference.PAGE.read_text(encoding="utf-8")
    for key in ("optim.lr", "data.columns", "model.student.cut.every", "eval.limit", "tracker.name"):
        assert f"| `{key}` |" in text
    for option in ("semalign_joint", "llama-7b-to-1b", "ridge_trained", "about_7b"):
        assert f"- **`{option}`**" in text


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("*.html")}
    assert {"index.html", "when.html", "reference.html", "api.html", "data.html"} <= pages.keys()
    for name, text in pages.items():
        fetched = re.findall(r'<(?:img|script|link)[^>]*(?:src|href)="https?://[^"]*"', text)
        assert [one for one in fetched if 'rel="canonical"' not in one] == [], name
    assert 'id="pkt.api.sweep"' in pages["api.html"]
    assert 'id="pkt.blocks.layer_loss"' in pages["api.html"]
