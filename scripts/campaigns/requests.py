"""Wrong requests: each ends in one message with exit code 2 (1 where the machine refuses), at once, leaving nothing.

Everything happens in this process, with pkt's own command line; the stages of a request that is accepted are not run.
Right requests run beside the wrong ones: what refuses everything would pass otherwise.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

from campaigns.bad_requests import Request, bad, good, sound_model
from campaigns.trials import Trial, Verdict
from pkt.cli import main
from pkt.words import hydra_words

COUNT, CONTROLS = 300, 30
SECONDS = 20.0  # of a processor, for one request; imports that none before it has made count


class AcceptedError(BaseException):
    """A request came as far as its first stage."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one command line."""

    code: int | None  # None: it was accepted
    out: str
    err: str
    seconds: float
    left: tuple[str, ...]
    lost: tuple[str, ...]


def trials(count: int | None, seed: int) -> Iterable[Trial]:
    """Return wrong requests, drawn over all kinds, and a tenth as many right ones.

    Args:
        count: how many wrong ones; None: 300.
        seed: of the draw.
    """
    draw, wanted = random.Random(seed), count or COUNT
    right = list(good())
    kinds: dict[str, list[Request]] = {}
    for request in bad():
        kinds.setdefault(request.name.split()[0], []).append(request)
    shuffled = [draw.sample(kind, len(kind)) for kind in kinds.values()]
    in_turn = [request for row in zip_longest(*shuffled) for request in row if request is not None]
    chosen = in_turn[:wanted]
    controls = draw.sample(right, min(max(1, wanted * CONTROLS // COUNT), len(right)))
    return [Trial(name=request.name, attempt=partial(attempt, request)) for request in (*chosen, *controls)]


def attempt(request: Request, run: Callable[[list[str]], int] = main) -> tuple[Verdict, str]:
    """Try one request and judge its answer.

    Args:
        request: the request.
        run: the command line.
    """
    with _working_folder(request) as folder:
        answer = answered(request, folder, run)
    if answer.lost:
        return Verdict.LOST, f"gone or changed: {', '.join(answer.lost)}"
    if "Traceback" in answer.err:
        return Verdict.TRACEBACK, answer.err
    if problem := _problem(request, answer):
        return Verdict.WRONG, f"{problem}; it said: {answer.err or answer.out[:200]}"
    return (Verdict.REFUSED if request.code else Verdict.WORKS), answer.err.strip()


def _problem(request: Request, answer: Answer) -> str | None:
    """Say what is not as it should be."""
    messages = [line for line in answer.err.splitlines() if re.match(r"pkt: (?!warning)", line)]
    unreadable = [command for command in re.findall(r"`pkt ([^`]+)`", answer.err) if not _parses(command)]
    problems = {
        f"exit code {answer.code} instead of {request.code}": answer.code != request.code,
        f"{len(messages)} messages": len(messages) != bool(request.code) and "-m" not in request.words,
        f"{answer.seconds:.0f} seconds": answer.seconds > SECONDS,
        f"left {', '.join(answer.left)}": bool(answer.left),
        f"'unexpected' in {messages}": any("pkt: unexpected" in message for message in messages),
        f"no command: {unreadable}": bool(unreadable),
    }
    return next((problem for problem, holds in problems.items() if holds), None)


def _parses(command: str) -> bool:
    """Return whether a command of a remedy can be read; what stands in angle brackets is the user's."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    verb, *words = re.sub(r"<[^>]*>", "x", command).replace(" key=value ...", "").split()
    try:
        overrides = [word for word in hydra_words(verb, words) if not word.startswith("-")]
        OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException:
        return False
    return True


def answered(request: Request, folder: Path, run: Callable[[list[str]], int]) -> Answer:
    """Give a request to the command line, in its folder and environment."""
    before = _content(folder)
    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with _surroundings(request, folder), redirect_stdout(out), redirect_stderr(err), _no_stages():
        try:
            code: int | None = run([word.replace("$W", str(folder)) for word in request.words])
        except AcceptedError:
            code = None
    seconds = time.process_time() - started
    after = _content(folder)
    return Answer(
        code=code,
        out=out.getvalue(),
        err=err.getvalue(),
        seconds=seconds,
        left=tuple(sorted(after.keys() - before.keys())),
        lost=tuple(sorted(name for name, content in before.items() if after.get(name) != content)),
    )


def _content(folder: Path) -> dict[str, bytes]:
    """Return every file of the working folder and of the folder of outputs beside it."""
    files = [
        file
        for file in folder.parent.rglob("*")
        if file.is_file() and "model/model.safetensors" not in str(file)
    ]
    return {str(file.relative_to(folder.parent)): file.read_bytes() for file in files}


@contextmanager
def _working_folder(request: Request) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pkt-requests-") as root:
        folder = Path(root).resolve() / "work"
        folder.mkdir()
        for name, text in request.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        if request.model is not None:
            shutil.copytree(sound_model(), folder / "model")
        for name, content in (request.model or {}).items():
            (folder / "model" / name).unlink(missing_ok=True)
            if content is not None:
                (folder / "model" / name).write_bytes(content)
        yield folder


@contextmanager
def _surroundings(request: Request, folder: Path) -> Iterator[None]:
    """Set the working folder and the environment, and forget Hydra's last request afterwards."""
    from hydra.core.hydra_config import HydraConfig

    before, here = dict(os.environ), Path.cwd()
    own = {"PKT_OUTPUT_DIR": str(folder.parent / "out"), "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    for name in [name for name in os.environ if name.startswith(("PKT_", "HYDRA_"))]:
        del os.environ[name]
    os.environ.update(
        own | {name: text.replace("$W", str(folder)) for name, text in request.variables.items()}
    )
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
        HydraConfig.instance().cfg = None


@contextmanager
def _no_stages() -> Iterator[None]:
    """Stop a request that is accepted where its first stage would begin."""
    from pkt import pipeline

    def stop(_session: object) -> None:
        raise AcceptedError

    before = dict(pipeline.VERBS)
    pipeline.VERBS.update(dict.fromkeys(before, stop))
    try:
        yield
    finally:
        pipeline.VERBS.update(before)
