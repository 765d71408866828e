"""Stage 3: change the student, and leave a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pkt.methods.base import Transferred
from pkt.models.ancestry import address
from pkt.models.finite import check_finite
from pkt.models.kept import told
from pkt.models.quiet import quiet_transformers
from pkt.run_files import ADAPTER, CHECKPOINT, REQUEST
from pkt.stages import steps
from pkt.stages.card import card, dropped
from pkt.stages.session import Job, Session

_OF_HERE = ("is_local", "local_files_only")  # what transformers notes of how a tokenizer was found


def run(job: Job) -> Mapping[str, Any]:
    """Let the method change the student, and save it."""
    job.count_on()
    with steps.kept(job):
        transferred = job.method.transfer(job.bench, job.taken(), job.scratch)
    if job.writes:
        _save(job, transferred)
    job.bench.release("student", "teacher")
    return {
        "layers": list(transferred.layers),
        "budget": transferred.budget,
        **dropped(job.session),
        **job.counted(),
    }


def _save(job: Job, transferred: Transferred) -> None:
    session, folder = job.session, job.folder
    student = session.bench.student
    with quiet_transformers():
        transferred.trainable.save_adapter(folder / ADAPTER, _base(session))
        merged = transferred.trainable.merged()
        check_finite(
            merged, "the trained student", "Lower optim.lr, or load it in float32 (model.student.dtype)."
        )
        merged.save_pretrained(str(folder / CHECKPOINT))
        student.tokenizer.save_pretrained(str(folder / CHECKPOINT))
        _forget_here(folder / CHECKPOINT / "tokenizer_config.json")
    steps.store(job)
    metrics = {"history": asdict(transferred.history), "budget": transferred.budget}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (folder / REQUEST).write_text(session.resolved_config, encoding="utf-8")
    made = {"layers": transferred.layers, "budget": transferred.budget}
    for place in (CHECKPOINT, ADAPTER):
        if (folder / place).is_dir():
            (folder / place / "README.md").write_text(card(session, folder, made, place), encoding="utf-8")


def _base(session: Session) -> str:
    """Return what an adapter's config calls the model that it belongs to: where there is one, what peft can load."""
    pair = session.bench.config.model
    if pair.student.init == "prune":
        kept = told(session.bench.pair.student)
        return f"{pair.teacher.checkpoint} ({kept}), which is kept nowhere: load ../{CHECKPOINT} instead"
    return address(pair.student, "student")


def _forget_here(file: Path) -> None:
    """Leave out what is true on this machine alone."""
    if file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        rest = {name: value for name, value in content.items() if name not in _OF_HERE}
        file.write_text(json.dumps(rest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
