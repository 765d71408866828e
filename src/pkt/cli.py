"""The command `pkt <verb> key=value ...`: hands the verb to Hydra, turns exceptions into one message and an exit code.

    argv -> verb + flags first -> hydra.main(conf/<verb>.yaml) -> task -> pipeline.run_verb(cfg, run_dir)

Exit codes: 0 done, 1 the task failed, 2 the request was wrong, 130 stopped by Ctrl-C, 141 nobody read on (`| head`).
Only the pipeline imports torch, so help, completion and config errors answer at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pkt import console, processes, secrets
from pkt.errors import PktError, RequestError, first_line, nearest
from pkt.verbs import COMPOSED, PLAIN
from pkt.words import hydra_words, named_conf_dir, named_plugins, named_search_path

if TYPE_CHECKING:
    from omegaconf import DictConfig

INTERRUPTED = 130
CLOSED_PIPE = 141  # as shells tell SIGPIPE
_interrupts: list[int] = []  # signals of this request
_MODES = {long: long for long in ("--multirun", "--run", "--cfg", "--info")}
_MODES |= {"-m": "--multirun", "-r": "--run", "-c": "--cfg", "-i": "--info"}


class JobFailedError(Exception):
    """One job of a multirun failed and its message has been shown; the other jobs go on."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"this job ended with exit code {self.exit_code}; its message is above and in its run folder"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: the words after `pkt`; the process's own when omitted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    console.accept_any_text()
    try:
        with _heard_interrupts():
            return _answer(words)
    except PktError as error:
        return _failed(str(error), error.exit_code)
    except BrokenPipeError:  # Hydra prints configs; pkt's own output goes on without a reader
        console.silence(sys.stdout)
        return CLOSED_PIPE
    except KeyboardInterrupt:
        console.fail("stopped; the same command resumes")
        return INTERRUPTED


@contextmanager
def _heard_interrupts() -> Iterator[None]:
    """Remember a Ctrl-C: libraries turn the exception into one of their own (transformers: a missing module)."""
    _interrupts.clear()
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()

    def hear(number: int, frame: FrameType | None) -> None:
        _interrupts.append(number)
        signal.default_int_handler(number, frame)

    if ours:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    except Exception as error:
        _stop_if_interrupted(error)
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _stop_if_interrupted(error: Exception) -> None:
    if _interrupts:
        raise KeyboardInterrupt from error


def _answer(words: list[str]) -> int:
    """Do what a command line asks for."""
    try:
        Path.cwd()
    except OSError as error:
        raise PktError("the working folder has been removed; go to one that is there (cd)") from error
    if "-sc" in words or "--shell-completion" in words:
        return _complete(words)
    if not words or words[0] in ("-h", "--help", "help"):
        console.usage(COMPOSED | PLAIN)
        return 0
    if words[0] in ("--version", "-V", "version"):
        console.version()
        return 0
    verb, rest = words[0], words[1:]
    if verb in PLAIN:
        return _plain(verb, rest)
    if verb not in COMPOSED:
        allowed = [*COMPOSED, *PLAIN]
        raise RequestError(f"unknown verb '{verb}'; allowed: {', '.join(allowed)}{nearest(verb, allowed)}")
    modes = sorted({_MODES[word.partition("=")[0]] for word in rest if word.partition("=")[0] in _MODES})
    if len(modes) > 1:
        raise RequestError(f"{' and '.join(modes)} cannot be combined; give one of them")
    if processes.count() > 1 and "--multirun" in modes:
        raise RequestError("a sweep is one process: give each of its jobs its own torchrun (hydra.launcher)")
    if verb == "report" and ("--multirun" in modes or any("hydra.mode=" in word for word in rest)):
        raise RequestError("report is one request over all its folders: give runs=a,b without -m")
    return _request(verb, hydra_words(verb, rest))


def _plain(verb: str, words: list[str]) -> int:
    """Do what composes no config."""
    if verb == "env":
        from pkt import environment

        environment.answer(words)
        return 0
    if verb in ("list", "copy"):
        from pkt import options

        return {"list": options.show, "copy": options.copy}[verb](words)
    from pkt import store_commands

    return store_commands.main(words)


def _complete(words: list[str]) -> int:
    """Answer the shell's completion: verbs ourselves, everything after the verb by Hydra."""
    verb = "run"
    if any(word.startswith("query=") for word in words):
        line = os.environ.get("COMP_LINE", "").split(" ")
        if len(line) <= 2:
            console.say(
                " ".join(
                    name for name in (*COMPOSED, *PLAIN) if name.startswith(line[1] if len(line) > 1 else "")
                )
            )
            return 0
        verb = line.pop(1)
        if verb not in COMPOSED:
            return 0
        os.environ["COMP_LINE"] = " ".join(line)
    return _request(verb, words)


def _request(verb: str, words: list[str]) -> int:
    """Hand one request to Hydra and turn whatever comes back into an exit code."""
    import hydra

    from pkt import places, plugins
    from pkt.callbacks import Guard, RefusedError
    from pkt.explain import CONFIG_ERRORS, check_choices, explain
    from pkt.searchpath import builtin_conf_dir, check_conf_dirs, mode_by_flags, register, shadowed

    sys.argv = [sys.argv[0], *words]
    try:
        plugins.ask_for(named_plugins(words))
        own_dir = named_conf_dir(words)
        check_conf_dirs(own_dir, named_search_path(words))
        register()
        check_choices(words)
        if shadows := shadowed():
            console.warn(shadows)
        mode = mode_by_flags(words, own_dir)
        with _raw_errors(), _one_run_dir(), _closed_logs(), _sweep_table(), mode:
            try:
                hydra.main(version_base="1.3", config_path=str(builtin_conf_dir()), config_name=verb)(task)()
            finally:
                sys.stdout.flush()  # what cannot be written is told here, and not when the interpreter ends
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return 2 if code == 1 and "--cfg" in words else code  # `-p` names no part of the config
    except RefusedError as refused:
        return _refused(refused.refusal)
    except JobFailedError as failed:
        return failed.exit_code
    except (PktError, BrokenPipeError):
        raise
    except (*CONFIG_ERRORS, RecursionError) as error:
        return _failed(explain(error), 2)
    except OSError as error:
        _stop_if_interrupted(error)
        if error.filename is None:  # Hydra prints configs
            console.silence(sys.stdout)
            return _failed(
                f"cannot write to standard output: {error.strerror or error}; send it elsewhere", 1
            )
        return _failed(
            f"cannot write the run folder: {error}; set output_dir or PKT_OUTPUT_DIR to a writable place", 1
        )
    except Exception as error:  # of Hydra's flags and group values (ValueError), and of a sweeper
        return _stopped(error)
    finally:
        places.release()
        plugins.ask_for(())  # another request of this process asks for its own
        Guard.checked = False
    return 0


def task(cfg: DictConfig) -> float | None:
    """Run one job; its errors are reported here, where the job's folder is known.

    Args:
        cfg: the composed request.

    Returns:
        What a sweeper may optimise: the mean share of the gap closed on validation rows, where it was measured.

    Raises:
        SystemExit: the job failed (single run).
        JobFailedError: the job failed (multirun: Hydra goes on with the others).
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from pkt.explain import CONFIG_ERRORS, explain
    from pkt.foreign import machine_fault

    settings = HydraConfig.get()
    run_dir = Path(settings.runtime.output_dir)
    try:
        return _work(cfg, run_dir)
    except PktError as error:
        _stop_if_interrupted(error)
        code = _failed(str(error), error.exit_code)
    except CONFIG_ERRORS as error:
        code = _failed(explain(error), 2)
    except Exception as error:
        _stop_if_interrupted(error)
        lacking = machine_fault(error)
        code = _failed(lacking, 1) if lacking else _crashed(error, run_dir)
    raise JobFailedError(code) if settings.mode == RunMode.MULTIRUN else SystemExit(code)


def _work(cfg: DictConfig, run_dir: Path) -> float | None:
    if cfg.verb == "report":
        from pkt.reporting.page.write import answer_request

        answer_request(cfg)
        return None
    from pkt import plugins
    from pkt.callbacks import Guard
    from pkt.gate import check_request
    from pkt.sweep import check_sweeper, checked_objective

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


def _failed(message: str, code: int) -> int:
    if console.debugging():
        traceback.print_exc()
    console.fail(message)
    return code


def _crashed(error: Exception, run_dir: Path) -> int:
    """Keep the traceback of an error that pkt did not foresee, and say where it is."""
    log = run_dir / "error.log"
    try:
        log.write_text(secrets.without(traceback.format_exc()), encoding="utf-8")
        where = f"the traceback is in {log}"
    except OSError as unwritable:
        where = f"the traceback could not be kept ({unwritable}); PKT_DEBUG=1 shows it"
    first = next(iter(str(error).splitlines()), "")
    return _failed(f"unexpected {type(error).__name__}: {first}; {where}", 1)


def _refused(error: Exception) -> int:
    """Say why a single run did not begin."""
    from pkt.explain import CONFIG_ERRORS, explain
    from pkt.foreign import machine_fault

    if isinstance(error, CONFIG_ERRORS):
        return _failed(explain(error), 2)
    if not isinstance(error, PktError):
        raise PktError(machine_fault(error) or f"{type(error).__name__}: {first_line(error)}") from error
    raise error


def _stopped(error: Exception) -> int:
    """Say why Hydra or its sweeper stopped."""
    from pkt.explain import explain
    from pkt.sweep import no_best_trial

    _stop_if_interrupted(error)
    if message := no_best_trial(error):
        return _failed(message, 1)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    package = str(frames[-1].f_globals.get("__name__")).partition(".")[0]
    if isinstance(error, ValueError) or package in ("hydra", "omegaconf"):
        return _failed(explain(error), 2)
    return _failed(f"{type(error).__name__} in {package}: {first_line(error)} (PKT_DEBUG=1 shows where)", 1)


@contextmanager
def _raw_errors() -> Iterator[None]:
    """Let Hydra raise instead of printing and leaving with exit code 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["PKT_DEBUG"] = os.environ.get("PKT_DEBUG") or ("1" if before == "1" else "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _closed_logs() -> Iterator[None]:
    """Put the log's handlers back that Hydra exchanges, and close the files that it leaves open.

    A second request in one process would pile them up, and write to a terminal that is gone.
    """
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        yield
    finally:
        for handler in [h for h in root.handlers if h not in before]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = before


@contextmanager
def _sweep_table() -> Iterator[None]:
    """End a sweep with the table over its jobs, also when some of them failed."""
    from pkt.sweep import show_table

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
    before = os.environ.get("PKT_RUN_DIR")
    with tempfile.TemporaryDirectory(prefix="pkt-", ignore_cleanup_errors=True) as folder:
        os.environ["PKT_RUN_DIR"] = str(Path(folder) / "run")
        try:
            yield
        finally:
            os.environ.pop("PKT_RUN_DIR")
            if before is not None:
                os.environ["PKT_RUN_DIR"] = before


if __name__ == "__main__":
    sys.exit(main())
