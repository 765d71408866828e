"""What a run leaves beside its results: which of them it used or made, and a note on what is what in its outputs."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

from pkt.durable import write_atomically
from pkt.run_files import RUN_STAGES
from pkt.stages.session import Session

NOTE = "README.md"
OURS = {"runs", "store", "paper"}


def keep(session: Session) -> None:
    """Write down which results a run has computed or reused, and where they are.

    Args:
        session: a request that has been carried out.
    """
    content = {"store": os.path.relpath(session.store.root, session.run_dir), "stages": session.reports}
    write_atomically(session.run_dir / RUN_STAGES, json.dumps(content, indent=1) + "\n")
    outputs = Path(session.bench.config.output_dir).resolve()
    if session.bench.processes.main and session.run_dir.resolve().is_relative_to(outputs):
        _explain(outputs)


def _explain(folder: Path) -> None:
    """Leave a note in a folder that holds nothing but pkt's outputs, and that may be written to."""
    if os.access(folder, os.W_OK) and {path.name for path in folder.iterdir()} <= OURS:
        text = (files("pkt") / "assets" / "outputs.md").read_text(encoding="utf-8")
        write_atomically(folder / NOTE, text)
