"""One family on disk (a random teacher, rows, words of a request) and the requests that are made of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from transformers import AutoModelForCausalLM, AutoTokenizer

import pkt
from campaigns.tiny_families import tiny_family
from campaigns.trials import Verdict
from pkt.cli import main
from pkt.models.quiet import quiet_transformers

NANO = Path(pkt.__file__).parent / "assets" / "nano" / "teacher"  # whose tokenizer all families get


class EndedError(Exception):
    """A request did not go through, or gave something else than the truth."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.verdict, self.detail = verdict, detail


@dataclass(kw_only=True)
class Family:
    """One family on disk, and the requests that are made of it.

    Attributes:
        root: folder of everything that is written.
        teacher: the random teacher.
        roles: as declared.
        layers: that the student keeps.
        words: of every request.
        said: what the last request printed.
    """

    root: Path
    teacher: Any
    roles: Mapping[str, Any]
    layers: Sequence[int]
    words: list[str] = field(default_factory=list)
    said: str = ""

    def pkt(self, *words: str, last: Sequence[str] = ()) -> int:
        """Make a request in this process and return its exit code; `last` are the words behind the family's own."""
        kept = io.StringIO()
        environment = {"PKT_OUTPUT_DIR": str(self.root / "outputs"), "WANDB_MODE": "disabled"}
        with (
            mock.patch.dict(os.environ, environment),
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(kept),
            contextlib.redirect_stderr(kept),
        ):
            try:
                code = main([*words, *self.words, *last])
            except SystemExit as stop:
                code = int(stop.code or 0)
        self.said = kept.getvalue()
        return code

    def load_a_student(self) -> None:
        """Let the student be another random model of the family instead of a part of the teacher."""
        student = tiny_family(self.teacher.config.model_type, seed=1)
        with quiet_transformers():
            student.save_pretrained(self.root / "student")
        AutoTokenizer.from_pretrained(NANO).save_pretrained(self.root / "student")
        self.layers = []
        self.words += ["model.student.init=load", "model.student.layers=null"]
        self.words += [f"model.student.checkpoint={self.root / 'student'}", *declared(self.roles, "student")]

    def transferred(self) -> Path:
        """Return the folder of the newest transferred student."""
        found = self.root.glob("outputs/store/transfer/*/model/config.json")
        return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def prepare(root: Path, teacher: Any, roles: Mapping[str, Any], layers: Sequence[int]) -> Family:
    """Write teacher and rows, and make the words of a request."""
    with quiet_transformers():
        teacher.save_pretrained(root / "teacher")
    AutoTokenizer.from_pretrained(NANO).save_pretrained(root / "teacher")
    rows = [
        {"id": str(i), "prompt": f"Ada has {i % 12} apples.\nResult:", "answer": f" {i % 12}"}
        for i in range(40)
    ]
    for name, some in (("train", rows[:24]), ("validation", rows[24:32]), ("test", rows[32:])):
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    words = [
        f"model.teacher.checkpoint={root / 'teacher'}",
        "model.teacher.dtype=float32",
        "model.student.dtype=float32",
        "model.student.checkpoint=null",
        "model.student.init=prune",
        f"model.student.layers={list(layers)}",
        "benchmark=custom",
        *(f"data.{name}={root / name}.jsonl" for name in ("train", "validation", "test")),
        "data.sizes.extract=4",
        "data.sizes.align=6",
        "data.sizes.train=12",
        "optim.epochs=1",
        "optim.batch_size=6",
        "optim.lr=1e-3",
        "eval.limit=4",
        "eval.max_new_tokens=3",
        "tracker=none",
        "threads=1",
        *declared(roles),
    ]
    teacher = plain(root / "teacher")  # as a file has it: some classes tie or round what is saved
    return Family(root=root, teacher=teacher, roles=roles, layers=layers, words=words)


def declared(roles: Mapping[str, Any], who: str = "teacher") -> Iterator[str]:
    """Yield the words that declare roles."""
    for role, value in roles.items():
        if isinstance(value, Mapping):
            inside = ",".join(f"{name}:{path}" for name, path in value.items())
            yield f"model.{who}.roles.{role}={{{inside}}}"
        else:
            yield f"model.{who}.roles.{role}={'null' if value is None else value}"


def plain(folder: Path) -> Any:
    """Load a folder with transformers alone; all weights have to be there, and no others."""
    with quiet_transformers():
        model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        raise EndedError(Verdict.WRONG, f"the saved folder does not fit its config: {report}")
    return model.eval()
