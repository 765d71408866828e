"""Find a task by its name: in ``conf/task/<name>.yaml``, in the user's folder of lm-eval tasks, or in lm-eval."""

from __future__ import annotations

import difflib
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pkt.build import build
from pkt.errors import RequestError, nearest
from pkt.searchpath import option_files
from pkt.tasks import lm_eval, lm_eval_index
from pkt.tasks.base import Task


def find(name: str, task_path: str | None = None) -> Task:
    """Return a task.

    Args:
        name: of a file in ``conf/task`` (the user's config folders first), or of a task, group or tag of lm-eval's.
        task_path: the user's folder of lm-eval tasks; its names come before lm-eval's own.

    Raises:
        RequestError: there is no such task, or its file does not describe one.
    """
    files = option_files("task", [name])
    if name in files:
        return _built(name, files[name])
    if task_path is not None and (found := lm_eval.of_folder(name, task_path)):
        return found
    similar = difflib.get_close_matches(name, files, cutoff=0.8)
    if similar and not lm_eval_index.has_file(name):  # a typing error should not cost ten seconds of indexing
        raise _unknown(name, files)
    index = lm_eval_index.folders()
    if name not in index:
        raise _unknown(name, [*files, *index])
    return lm_eval.LmEvalTask(name=name, folders=index[name])


def known() -> list[str]:
    """Return the names of the tasks that have a file."""
    return list(option_files("task"))


def _built(name: str, file: Path) -> Task:
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise RequestError(f"task {name}: {file} cannot be read ({error})") from error
    if not isinstance(content, dict) or "_target_" not in content:
        raise RequestError(
            f"task {name}: {file} names no class; write `_target_: pkt.tasks.<module>.<Class>` into it"
        )
    return build(OmegaConf.create({"task": {"name": name, **content}}).task, Task)  # type: ignore[type-abstract]  # a Protocol


def _unknown(name: str, names: list[str] | dict[str, Path]) -> RequestError:
    return RequestError(
        f"no task '{name}'{nearest(name, names)}; tasks are {', '.join(known())}; `lm-eval ls tasks` lists others, and "
        "benchmark.task_path=<folder> adds your own."
    )
