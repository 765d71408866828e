"""What the files of a request's models say, remembered beside the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from pkt.config import CheckpointSpec, Config
from pkt.models.fingerprint import fingerprint
from pkt.models.load import load_generation
from pkt.models.outline import known_of

if TYPE_CHECKING:
    from pkt.methods.workbench import Workbench


def known(bench: Workbench, what: str, role: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the files of a model say, see `known_of`.

    Args:
        bench: of the request.
        what: kind of fact.
        role: teacher, student or transferred; a transferred student has the student's files unless it was saved.
        find: reads the files.
    """
    teacher, student, saved = _specs(bench.config)
    if role == "transferred" and saved is not None:
        spec, identity = saved, fingerprint(saved)
    else:
        spec = teacher if role == "teacher" or student.init == "prune" else student
        identity = bench.teacher_fingerprint if role == "teacher" else bench.student_fingerprint
    return known_of(what, spec, identity, bench.cache_dir.with_name("models"), find)


def generation_of(config: Config, role: str) -> dict[str, Any]:
    """Read the generation settings of a model; see `known` for the roles."""
    teacher, student, saved = _specs(config)
    if role == "transferred" and saved is not None:
        found = load_generation(saved)
    else:
        found = load_generation(teacher) if role == "teacher" else load_generation(student, teacher=teacher)
    return cast(dict[str, Any], json.loads(found.to_json_string()))


def _specs(config: Config) -> tuple[CheckpointSpec, CheckpointSpec, CheckpointSpec | None]:
    saved = config.eval.checkpoint
    return (
        config.model.teacher,
        config.model.student,
        None if saved is None else CheckpointSpec(checkpoint=saved),
    )
