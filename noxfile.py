"""`nox` builds the wheel, and installs and tries it with every Python that pkt is for and that is here.

pip install nox && nox
"""

from __future__ import annotations

from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Install the wheel, as a user would, and run what needs no network."""
    folder = Path(session.create_tmp()).resolve()
    session.run("python", "-m", "pip", "wheel", ".", "--no-deps", "-q", "-w", str(folder))
    newest = max(folder.glob("*.whl"), key=lambda file: file.stat().st_mtime)
    session.install("-c", "constraints.txt", str(newest))
    with session.chdir(folder):
        session.run("pkt", "--version")
        session.run("pkt", "list", "models")
        session.run("pkt", "run", "method=sft", "optim.steps=5", "eval.limit=5", "tracker=none", "threads=1")
