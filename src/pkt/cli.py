"""The command `pkt <verb> key=value ...`: asks, and turns exceptions into one message and an exit code.

    argv -> verb + flags first -> request.ask(verb, words) -> exit code

Exit codes: 0 done, 1 the task failed, 2 the request was wrong, 130 stopped by Ctrl-C, 141 nobody read on (`| head`).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pkt import console, interrupts, processes
from pkt.errors import PktError, RequestError, nearest
from pkt.request import ask
from pkt.verbs import COMPOSED, PLAIN
from pkt.words import hydra_words

INTERRUPTED = 130
CLOSED_PIPE = 141  # as shells tell SIGPIPE
_MODES = {long: long for long in ("--multirun", "--run", "--cfg", "--info")}
_MODES |= {"-m": "--multirun", "-r": "--run", "-c": "--cfg", "-i": "--info"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: the words after `pkt`; the process's own when omitted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    console.accept_any_text()
    try:
        with interrupts.heard():
            return _answer(words)
    except PktError as error:
        return _failed(str(error), error.exit_code)
    except BrokenPipeError:  # Hydra prints configs; pkt's own output goes on without a reader
        console.silence(sys.stdout)
        return CLOSED_PIPE
    except KeyboardInterrupt as stop:
        console.fail(interrupts.stopped(*map(str, stop.args)))
        return INTERRUPTED


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
    return ask(verb, hydra_words(verb, rest)).code


def _plain(verb: str, words: list[str]) -> int:
    """Do what composes no config."""
    if verb == "env":
        from pkt import environment

        environment.answer(words)
        return 0
    if verb in ("list", "copy"):
        from pkt import options

        return {"list": options.show, "copy": options.copy}[verb](words)
    if verb == "push":
        from pkt import push

        return push.main(words)
    if verb == "diff":
        from pkt import diff

        return diff.main(words)
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
    return ask(verb, words).code


def _failed(message: str, code: int) -> int:
    if console.debugging():
        traceback.print_exc()
    console.fail(message)
    return code
