"""What Hydra calls around a request: check it and its folders before anything is written, and take note of what is.

on_run_start, on_multirun_start: nothing is written yet ──> refused here, or the folder is known
on_job_start: Hydra has written its record into the folder ──> without credentials
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pkt import places, secrets
from pkt.durable import write_atomically
from pkt.gate import check_request


class CarriedError(BaseException):
    """Carries an error past Hydra, which makes a warning of any `Exception` of a callback, and prints one of a job.

    Attributes:
        error: why the request ends.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CarriedError(error) from error


class Guard(Callback):  # type: ignore[misc]  # hydra has no types here
    """Refuses requests before anything is written, and keeps credentials out of Hydra's files.

    Attributes:
        sweep: the folder of the sweep that has begun, until its table is shown.
        folder: of the run or sweep that has begun, until the next request.
        checked: whether the request that runs has been checked, as that of a single run.
        told: why the job before failed, in a sweep.
    """

    sweep: ClassVar[Path | None] = None
    folder: ClassVar[Path | None] = None
    checked: ClassVar[bool] = False
    told: ClassVar[str] = ""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check a single run's request and folder."""
        secrets.forget()
        with _refusing(), _hydra_known(config):
            folder = places.run_folder(config)
            check_request(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
            places.begin(folder)
            places.hold(folder)
            Guard.checked, Guard.folder = True, folder.path
        _forget_words()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check a sweep's folder, and make the one that a study's database goes to."""
        secrets.forget()
        _learn(config)
        with _refusing():
            places.hold(places.sweep_folder(config))
            if "storage" in config.hydra.sweeper:
                places.output_dir(str(config.output_dir)).mkdir(parents=True, exist_ok=True)
        Guard.sweep = Guard.folder = Path(str(config.hydra.sweep.dir))
        Guard.told = ""
        _forget_words()

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Take note of the files that Hydra has written, without credentials."""
        _learn(config)
        with _refusing():
            folder = places.begun(Path(str(config.hydra.runtime.output_dir)))
            own = folder.path / str(config.hydra.output_subdir)
            files = sorted(own.glob("*.yaml"))
            folder.written += [*files, *_log_files()]
            for file in (*files, Path(str(config.hydra.sweep.dir)) / "multirun.yaml"):
                _hide(file)


@contextmanager
def _hydra_known(config: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` be read, as Hydra does for the job itself."""
    known = HydraConfig.instance()
    before = known.cfg
    known.set_config(config)
    try:
        yield
    finally:
        known.cfg = before


def _log_files() -> list[Path]:
    handlers = logging.getLogger().handlers
    return [Path(handler.baseFilename) for handler in handlers if isinstance(handler, logging.FileHandler)]


def _learn(config: DictConfig) -> None:
    """Remember the credentials in a request's settings; one that cannot be resolved is refused elsewhere."""
    for resolve in (False, True):
        with suppress(OmegaConfBaseException, RecursionError, ValueError):
            content: Any = OmegaConf.to_container(
                copy.deepcopy(config), resolve=resolve
            )  # a failed one leaves marks
            secrets.learn({key: node for key, node in content.items() if key != "hydra"})
    for word in config.hydra.overrides.task:
        name, _, value = str(word).partition("=")
        secrets.learn([part.strip("'\"") for part in (value, *value.split(","))], name.lstrip("+~"))


def _hide(file: Path) -> None:
    """Rewrite a file of Hydra's that holds credentials."""
    if file.is_file():
        content = OmegaConf.to_container(OmegaConf.load(file))
        if (hidden := secrets.hide(content)) != content:
            write_atomically(file, OmegaConf.to_yaml(OmegaConf.create(hidden)))


def _forget_words() -> None:
    """Hide credentials in the process's own words, which libraries write down; Hydra has read them."""
    sys.argv = [secrets.hide_word(word) for word in sys.argv]
