"""A model as vLLM gets it: by its folder or its name on the hub."""

from __future__ import annotations

from pathlib import Path

from pkt.config import CheckpointSpec
from pkt.evaluation.engines import Served
from pkt.methods.workbench import Workbench
from pkt.models.load import context_length, load_config, load_generation, place


def served(bench: Workbench, role: str, folder: Path | None, scratch: Path) -> Served:
    """Return a model of the request.

    Args:
        bench: of the request.
        role: ``teacher``, ``student`` or ``transferred``.
        folder: of a student that was trained; None: the model as it is before.
        scratch: folder for a student that is cut from its teacher, and that is in no file yet.
    """
    pair = bench.pair
    spec = pair.teacher if role == "teacher" else pair.student
    dtype = "auto" if folder is not None else bench.dtype(role)
    if folder is None and spec.init == "prune":
        folder = scratch / "student"
        bench.student.model.save_pretrained(folder)
        bench.tokenizer.save_pretrained(folder)
        bench.release("student")
    if folder is not None:
        spec = CheckpointSpec(checkpoint=str(folder))
    where, revision = place(spec, cache_dir=bench.cache_dir)
    config = load_config(spec, cache_dir=bench.cache_dir)
    return Served(
        where=where,
        revision=revision,
        dtype=dtype,
        generation=load_generation(spec),
        context=context_length(config),
        vocabulary=int(config.vocab_size),
        arguments=bench.config.vllm,
    )
