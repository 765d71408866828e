"""pkt from Python: the verbs of the command line as functions, with the same words and the same results.

    pkt.run("method=sft", "model=nano") -> request.ask -> run folder -> Result
    pkt.sweep("method=sft,kd", "seed=0,1")             -> sweep folder -> Sweep

What a request changes in the process (seeds, threads, environment, Hydra's state) is as it was when a function returns.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pkt import interrupts
from pkt.errors import PktError, RequestError
from pkt.late import torch
from pkt.request import Answer, ask
from pkt.results import Result, Sweep
from pkt.verbs import RUNS
from pkt.words import hydra_words


def run(*words: str) -> Result:
    """Run all stages: what a method needs of the teacher, the training, the scores, the table and the page.

    Args:
        words: as after `pkt run`: ``"method=sft"``, ``"optim.lr=1e-3"``.

    Raises:
        RequestError: the request is wrong.
        PktError: it is not, and failed.
        KeyboardInterrupt: Ctrl-C; the same call goes on where it was.
    """
    return _result("run", words)


def extract(*words: str) -> Result:
    """Find out what to take from the teacher: scores of its layers, layer pairs; see `run`."""
    return _result("extract", words)


def align(*words: str) -> Result:
    """Make the map into the student's space, and the mapped states; see `run`."""
    return _result("align", words)


def transfer(*words: str) -> Result:
    """Train the student, after the stages before; `Result.checkpoint` is its folder; see `run`."""
    return _result("transfer", words)


def evaluate(*words: str) -> Result:
    """Score teacher, untouched student and transferred student (`pkt eval`); see `run`."""
    return _result("eval", words)


def analyze(*words: str) -> Result:
    """Look inside: resolution of semantics, CKA, attribution, maps; see `run`."""
    return _result("analyze", words)


def plan(*words: str) -> Result:
    """Say what all stages would take, before any weight is read (`Result.plan`); see `run`."""
    return _result("plan", words)


def sweep(*words: str, verb: str = "run") -> Sweep:
    """Run one job for every combination of values: ``"method=sft,kd", "seed=0,1"``.

    Args:
        words: as after `pkt <verb> -m`.
        verb: what each job does.

    Raises:
        RequestError: the request is wrong.
        PktError: a job failed; its message was printed, and the others went on.
    """
    answer = _asked(verb, ["--multirun", *_texts(words)])
    if answer.code:
        raise PktError(f"a job of the sweep in {answer.folder} failed; its message is above")
    assert answer.folder is not None, "a sweep has a folder"
    return Sweep(folder=answer.folder)


def _result(verb: str, words: tuple[str, ...]) -> Result:
    if many := {"-m", "--multirun"} & set(_texts(words)):
        raise RequestError(f"{many.pop()} asks for a sweep: call pkt.sweep(...)")
    answer = _asked(verb, list(words))
    if answer.folder is None:
        raise RequestError(f"{' '.join(words)}: this prints something and runs nothing: use the command line")
    return Result(folder=answer.folder)


def _texts(words: tuple[Any, ...]) -> tuple[str, ...]:
    """Return words, if they are texts: a list of them, say, is one mistake that nothing below would name."""
    if wrong := [word for word in words if not isinstance(word, str)]:
        raise RequestError(
            f"got {wrong[0]!r}; words are texts, as after `pkt` on the command line: pkt.run('method=sft', 'seed=1')"
        )
    return words


def _asked(verb: str, words: list[str]) -> Answer:
    if verb not in RUNS:
        raise RequestError(f"verb={verb}; allowed: {', '.join(RUNS)}")
    with _as_before(), interrupts.heard():
        return ask(verb, hydra_words(verb, words))


@contextmanager
def _as_before() -> Iterator[None]:
    """Put back what a request changes in the process."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    words, environment, numbers = sys.argv, dict(os.environ), _numbers()
    own, known = GlobalHydra.instance(), HydraConfig.instance()
    state = own.hydra, known.cfg
    own.hydra = known.cfg = None  # of a program that uses Hydra itself
    try:
        yield
    finally:
        sys.argv = words
        os.environ.clear()
        os.environ.update(environment)
        # Hydra may have put others in their place
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = state
        _put_back(numbers)


def _numbers() -> dict[str, Any]:
    """Return the state of the generators of random numbers, and how torch computes."""
    import numpy as np

    cudnn = torch.backends.cudnn
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "cudnn": (cudnn.benchmark, cudnn.deterministic),
    }


def _put_back(numbers: dict[str, Any]) -> None:
    import numpy as np

    random.setstate(numbers["python"])
    np.random.set_state(numbers["numpy"])
    torch.set_rng_state(numbers["torch"])
    if numbers["cuda"] is not None:
        torch.cuda.set_rng_state_all(numbers["cuda"])
    torch.set_num_threads(numbers["threads"])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = numbers["cudnn"]
