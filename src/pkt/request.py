"""One request of Hydra: composed, checked, run; what goes wrong is raised as one of pkt's errors.

    verb + words -> hydra.main(conf/<verb>.yaml) -> task -> pipeline.run_verb(cfg, run_dir) -> Answer(code, folder)

The command line and the Python interface both ask here. Only the pipeline imports torch, so help, completion and
config errors answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pkt import console, processes, secrets
from pkt.errors import PktError, RequestError, first_line, listed
from pkt.interrupts import stop_if_heard
from pkt.marked import marked
from pkt.words import named_conf_dir, named_plugins, named_search_path

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a request ended that raised nothing.

    Attributes:
        code: 0; of flags such as ``--cfg`` the code of Hydra; of a sweep that of a failed job, whose message was shown.
        folder: of the run or sweep; None where there was none.
    """

    code: int = 0
    folder: Path | None = None


class JobFailedError(Exception):
    """One job of a multirun failed and its message has been shown; the other jobs go on."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"this job ended with exit code {self.exit_code}; its message is above and in its run folder"


def ask(verb: str, words: Sequence[str]) -> Answer:
    """Hand one request to Hydra.

    Args:
        verb: one of `verbs.COMPOSED`.
        words: as `words.hydra_words` returns them.

    Raises:
        RequestError: the request is wrong.
        PktError: it is not, and failed.
        BrokenPipeError: nobody reads what Hydra prints.
    """
    import hydra

    from pkt import places, plugins
    from pkt.callbacks import CarriedError, Guard
    from pkt.explain import CONFIG_ERRORS, check_choices, explain
    from pkt.refused_words import all_faults
    from pkt.searchpath import builtin_conf_dir, check_conf_dirs, mode_by_flags, register, shadowed

    sys.argv = [sys.argv[0], *words]
    Guard.folder, code = None, 0
    try:
        plugins.ask_for(named_plugins(words))
        own_dir = named_conf_dir(words)
        check_conf_dirs(own_dir, named_search_path(words))
        register()
        check_choices(words)
        if shadows := shadowed():
            console.warn(shadows)
        mode = mode_by_flags(words, own_dir)
        with _raw_errors(), _one_run_dir(), _closed_logs(), _sweep_table(), marked(words), mode:
            try:
                hydra.main(version_base="1.3", config_path=str(builtin_conf_dir()), config_name=verb)(task)()
            finally:
                sys.stdout.flush()  # what cannot be written is told here, and not when the interpreter ends
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        code = 2 if code == 1 and "--cfg" in words else code  # `-p` names no part of the config
    except CarriedError as carried:
        raise _told(carried.error) from carried.error
    except JobFailedError as failed:
        code = failed.exit_code
    except (PktError, BrokenPipeError):
        raise
    except (*CONFIG_ERRORS, RecursionError) as error:
        raise RequestError(listed(all_faults(verb, words, explain(error)))) from error
    except OSError as error:
        stop_if_heard(error)
        raise _unwritten(error) from error
    except Exception as error:  # of Hydra's flags and group values (ValueError), and of a sweeper
        raise _stopped(error) from error
    finally:
        places.release()
        plugins.ask_for(())  # another request of this process asks for its own
        Guard.checked = False
    return Answer(code=code, folder=Guard.folder)


def task(cfg: DictConfig) -> float | None:
    """Run one job; an error that pkt did not foresee is written down here, where the job's folder is known.

    Args:
        cfg: the composed request.

    Returns:
        What a sweeper may optimise: the mean share of the gap closed on validation rows, where it was measured.

    Raises:
        CarriedError: the job failed (single run).
        JobFailedError: the job failed, and its message was shown (multirun: Hydra goes on with the others).
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from pkt.callbacks import CarriedError, Guard
    from pkt.explain import CONFIG_ERRORS, explain
    from pkt.foreign import machine_fault

    settings = HydraConfig.get()
    run_dir = Path(settings.runtime.output_dir)
    try:
        return _work(cfg, run_dir)
    except PktError as error:
        stop_if_heard(error)
        failed, cause = error, error.__cause__
    except CONFIG_ERRORS as error:
        failed, cause = RequestError(explain(error)), error
    except Exception as error:
        stop_if_heard(error)
        failed, cause = PktError(machine_fault(error) or _crashed(error, run_dir)), error
    failed.__cause__ = cause
    if settings.mode != RunMode.MULTIRUN:
        raise CarriedError(failed)
    if console.debugging():
        traceback.print_exception(failed)
    console.fail("as the job before" if str(failed) == Guard.told else str(failed))
    Guard.told = str(failed)
    raise JobFailedError(failed.exit_code)


def _work(cfg: DictConfig, run_dir: Path) -> float | None:
    if cfg.verb == "report":
        from pkt.reporting.page.write import answer_request

        answer_request(cfg)
        return None
    from pkt import plugins
    from pkt.callbacks import Guard
    from pkt.gate import check_request
    from pkt.sweeps import check_sweeper, checked_objective

    if not Guard.checked:  # a job of a sweep, or a user's config without pkt's callback
        check_request(cfg)
    plugins.load_asked()
    check_sweeper(cfg)
    if cfg.verb == "plan":
        from pkt.planning.answer import answer

        answer(cfg, run_dir)
        return None
    from pkt.pipeline import run_verb

    return checked_objective(run_verb(cfg, run_dir))


def _crashed(error: Exception, run_dir: Path) -> str:
    """Keep the traceback of an error that pkt did not foresee, and say where it is."""
    log = run_dir / "error.log"
    try:
        log.write_text(secrets.without(traceback.format_exc()), encoding="utf-8")
        where = f"the traceback is in {log}"
    except OSError as unwritable:
        where = f"the traceback could not be kept ({unwritable}); PKT_DEBUG=1 shows it"
    first = next(iter(str(error).splitlines()), "")
    return f"unexpected {type(error).__name__}: {first}; {where}"


def _told(error: Exception) -> PktError:
    """Return pkt's own error for one that ended a request."""
    from pkt.explain import CONFIG_ERRORS, explain
    from pkt.foreign import machine_fault

    if isinstance(error, PktError):
        return error
    if isinstance(error, (*CONFIG_ERRORS, RecursionError)):
        return RequestError(explain(error))
    return PktError(machine_fault(error) or f"{type(error).__name__}: {first_line(error)}")


def _unwritten(error: OSError) -> PktError:
    """Say what could not be written."""
    if error.filename is None:  # Hydra prints configs
        console.silence(sys.stdout)
        return PktError(f"cannot write to standard output: {error.strerror or error}; send it elsewhere")
    return PktError(
        f"cannot write the run folder: {error}; set output_dir or PKT_OUTPUT_DIR to a writable place"
    )


def _stopped(error: Exception) -> PktError:
    """Say why Hydra or its sweeper stopped."""
    from pkt.explain import explain
    from pkt.sweeps import no_best_trial

    stop_if_heard(error)
    if message := no_best_trial(error):
        return PktError(message)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    package = str(frames[-1].f_globals.get("__name__")).partition(".")[0]
    if isinstance(error, ValueError) or package in ("hydra", "omegaconf"):
        return RequestError(explain(error))
    return PktError(f"{type(error).__name__} in {package}: {first_line(error)} (PKT_DEBUG=1 shows where)")


@contextmanager
def _raw_errors() -> Iterator[None]:
    """Let Hydra raise instead of printing and leaving with exit code 1."""
    before = {name: os.environ.get(name) for name in ("HYDRA_FULL_ERROR", "PKT_DEBUG")}
    os.environ["PKT_DEBUG"] = before["PKT_DEBUG"] or ("1" if before["HYDRA_FULL_ERROR"] == "1" else "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        _set_again(before)


@contextmanager
def _closed_logs() -> Iterator[None]:
    """Put the log's handlers and level back that Hydra exchanges, and close the files that it leaves open.

    A second request in one process would pile them up, and write to a terminal that is gone.
    """
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in [h for h in root.handlers if h not in before]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)


@contextmanager
def _sweep_table() -> Iterator[None]:
    """End a sweep with the table over its jobs, also when some of them failed."""
    from pkt.sweeps import show_table

    try:
        yield
    except Exception:  # of a job, of composing its config, or of a sweeper that got nothing to optimise
        show_table()
        raise
    show_table()


@contextmanager
def _one_run_dir() -> Iterator[None]:
    """Let the main one of several processes have the run's folder, and talk; the others get a folder that goes."""
    if not processes.rank():
        yield
        return
    console.only_errors(f"process {processes.rank()}")
    before = {"PKT_RUN_DIR": os.environ.get("PKT_RUN_DIR")}
    with tempfile.TemporaryDirectory(prefix="pkt-", ignore_cleanup_errors=True) as folder:
        os.environ["PKT_RUN_DIR"] = str(Path(folder) / "run")
        try:
            yield
        finally:
            _set_again(before)


def _set_again(before: dict[str, str | None]) -> None:
    """Give variables of the environment the values back that they had."""
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
