"""Check a whole request before anything heavy is imported.

    composed config -> settings (`pkt.checks`) -> plugins -> models, rows and folders that it names

A model's files are looked at as far as the standard library can (`pkt.faults`); loading it finds the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pkt import console, plugins
from pkt.checks import check
from pkt.config import SPLITS, BenchmarkConfig, CheckpointSpec, DataConfig, PairConfig
from pkt.config_files import read_config
from pkt.data.prompts import from_file, is_file
from pkt.data.sources import HUB, holds_rows
from pkt.errors import FILE_LIKENESS, RequestError, nearest, together
from pkt.faults import faults
from pkt.models.kept import Sizes, counts
from pkt.models.source import check_one_source, check_weights, locate
from pkt.searchpath import option_files

FILES = (*SPLITS, "test")  # of `data`, which name files of rows
ROWS: dict[str, Any] = {
    **{f"data.{split}": None for split in FILES},
    "data.columns": {},
    "data.supervise": DataConfig.supervise,
    "benchmark.data_dir": BenchmarkConfig.data_dir,
    "benchmark.code_set": BenchmarkConfig.code_set,
}
"""Settings that say which rows a task reads, with what they are where nobody sets them."""
_SUITE = ("benchmark.data_dir",)
_OWN = "package:pkt/"  # models that ship with pkt
READ_BY = {
    "custom": tuple(key for key in ROWS if key.startswith("data.")),
    **dict.fromkeys(("gsm8k", "mbpp", "mmlu"), _SUITE),
    "humaneval": (*_SUITE, "benchmark.code_set"),
}
"""Those of them that tasks of pkt's read, by the module of their class, whose import takes longer than a refusal may; a
test compares both."""
LOOKING = ("doctor", "analyze", "rows")  # verbs that neither train nor score


def check_request(cfg: DictConfig) -> None:
    """Check settings, plugins and files of a request.

    Args:
        cfg: the composed request.

    Raises:
        RequestError: one message about all that is wrong.
        OmegaConfBaseException: see `pkt.checks.check`.
    """
    check(cfg)
    plugins.ask_for(cfg.plugins)
    together(_checks(cfg))
    if cfg.verb not in LOOKING:
        _tell_of_nano(cfg)
        _tell_of_cut(cfg)


def _tell_of_nano(cfg: DictConfig) -> None:
    """Warn where other models than the nano family's get its rows and rates, which are what is taken by default."""
    loaded = [cfg.model[who].checkpoint for who in ("teacher", "student") if cfg.model[who].init == "load"]
    if cfg.benchmark.name.startswith("nano") and not all(str(name).startswith(_OWN) for name in loaded):
        console.warn(
            f"model={cfg.model.name} with benchmark={cfg.benchmark.name}: rows of the built-in models of a million "
            "parameters, and their learning rates where optim names no others. Choose another (pkt list benchmarks), "
            "or rows of your own: benchmark=custom data.train=<file> data.test=<file>"
        )


def _tell_of_cut(cfg: DictConfig) -> None:
    """Name the method for cut students where nobody has chosen one: other pairs than the shipped have the default."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    chosen = any(word.startswith("method=") for word in words)
    if cfg.model.student.init == "prune" and cfg.method.name == "semalign_joint" and not chosen:
        console.note(
            "pkt: the student is cut from its teacher; method=semalign_cut is made for that, and this is "
            "method=semalign_joint, the default of other pairs"
        )


def _checks(cfg: DictConfig) -> Iterator[Callable[[], None]]:
    for who in ("teacher", "student"):
        spec = cast(CheckpointSpec, OmegaConf.to_object(cfg.model[who]))
        yield partial(check_one_source, spec)
        if spec.init == "load":
            yield partial(_check_model, spec, who, templates=cfg.model.chat_template)
    if cfg.model.student.init == "prune":
        yield partial(_check_cut, cast(PairConfig, OmegaConf.to_object(cfg.model)))
    for split in FILES:
        yield partial(_check_rows, f"data.{split}", cfg.data[split], "a file of rows")
    yield partial(_check_read, cfg)
    if cfg.data.unlabelled is not None and is_file(
        cfg.data.unlabelled, option_files("task", [cfg.data.unlabelled])
    ):
        yield partial(_check_prompts, cfg.data.unlabelled, dict(cfg.data.columns))
    yield partial(
        _check_there, "benchmark.task_path", cfg.benchmark.task_path, "a folder of tasks", Path.is_dir
    )
    yield partial(
        _check_there, "benchmark.data_dir", cfg.benchmark.data_dir, "a file or folder of rows", Path.exists
    )
    if cfg.benchmark.code_set.startswith((".", "/", "~")):
        yield partial(
            _check_there, "benchmark.code_set", cfg.benchmark.code_set, "a set of code", Path.exists
        )
    if cfg.eval.checkpoint is not None:
        yield partial(_check_saved, cfg.eval.checkpoint)


def _check_read(cfg: DictConfig) -> None:
    """Refuse settings of rows that no task of the request reads; a task of somebody's own may read any."""
    named = [key for key, default in ROWS.items() if OmegaConf.select(cfg, key) != default]
    if not named:
        return
    prompts = cfg.data.unlabelled  # of a task too, or of a file with columns of its own
    tasks = [*cfg.benchmark.tasks, *(cfg.benchmark.train or ()), *(cfg.data.extract_tasks or ())]
    of = dict.fromkeys([*tasks, *([prompts] if prompts else [])])
    known = {key for task in of for key in _read_by(task)} | ({"data.columns"} if prompts else set())
    if idle := [f"{key}={OmegaConf.select(cfg, key)}" for key in named if key not in known]:
        raise RequestError(
            f"{', '.join(idle)}: benchmark={cfg.benchmark.name} ({', '.join(dict.fromkeys(tasks))}) does not read "
            "that. For rows of your own add benchmark=custom; to train on them and to score these tasks, also "
            f"benchmark.tasks=[{','.join(cfg.benchmark.tasks)}]"
        )


def _read_by(task: str) -> Collection[str]:
    """Return the settings of rows that a task reads, all of them where it is somebody's own class."""
    file = option_files("task", [task]).get(task)
    if file is None:
        return ()  # lm-eval's, or a file of prompts
    target = str(read_config(file).get("_target_", ""))
    return READ_BY.get(target.split(".")[2], ()) if target.startswith("pkt.tasks.") else ROWS


def _check_rows(key: str, named: str | None, what: str) -> None:
    if named is not None and not named.startswith(HUB):
        _check_there(key, named, f"{what}, or a folder of datasets' save_to_disk,", holds_rows)


def _check_prompts(named: str, columns: dict[str, str]) -> None:
    _check_rows("data.unlabelled", named, "a file of prompts")
    if (
        Path(named).expanduser().is_file()
    ):  # the others take a library that a wrong request should not wait for
        from_file(named, columns)


def _check_model(spec: CheckpointSpec, who: str, *, templates: bool) -> None:
    source = locate(spec, who)
    if source.path is None:
        return
    if source.kind == "folder":
        check_weights(source.path, source.name, who)
    _refuse(f"model.{who}.checkpoint={source.name}", source.path, templates)


def _check_cut(pair: PairConfig) -> None:
    """Refuse to keep more of a teacher than its config says that there is, where that is a file here."""
    try:
        source = locate(pair.teacher, "teacher")
        text = (source.local / "config.json").read_text(encoding="utf-8") if source.kind == "folder" else "{}"
        content = json.loads(text)
        own = Sizes.read(content.get("text_config", content).get)
    except (AttributeError, OSError, RequestError, ValueError):
        return  # it is told by the check of the teacher's files
    if own is not None:
        counts(pair.student.cut, own)


def _check_saved(named: str) -> None:
    folder = Path(named).expanduser()
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        hint = (
            " There is a PEFT adapter: merge it into its base model (merge_and_unload) and save that."
            if adapter
            else ""
        )
        raise RequestError(f"eval.checkpoint={named}: no model folder there (config.json is missing).{hint}")
    _refuse(f"eval.checkpoint={named}", folder, templates=False)


def _refuse(what: str, path: Path, templates: bool) -> None:
    if found := faults(path, templates=templates):
        raise RequestError(f"{what}: " + "\n    ".join(found))


def _check_there(key: str, named: str | None, what: str, there: Callable[[Path], bool]) -> None:
    if named is None:
        return
    path = Path(named).expanduser()
    if not there(path):
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = " (that is a folder)" if path.is_dir() else nearest(path.name, names, FILE_LIKENESS)
        raise RequestError(f"{key}={named}: {what} is expected, there is none at {path.absolute()}{hint}")
