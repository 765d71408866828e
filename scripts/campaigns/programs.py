"""Campaign `programs`: hostile, right and wrong programs in the sandbox, by two users, with each layer missing in turn.

    trials -> per user and missing layer one process of that user (party.py) -> one sandbox -> every program in turn
           -> ordinary programs also through Hugging Face's `code_eval`, or as it runs them
           -> run_programs on a machine that fails: full or swept folder, killed server, no time

`code_eval` is run where the environment variable CODE_EVAL names its folder (``metrics/code_eval`` in a clone of
huggingface/evaluate); elsewhere the programs are run by ``exec`` as it does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pkt
from campaigns import hostile, ordinary
from campaigns.trials import Trial, Verdict
from pkt.errors import PktError
from pkt.sandbox import LAYERS, Outcome, run_programs

ORDINARY = 61999  # a user who owns nothing
KERNEL = ("namespaces", "landlock", "seccomp", "user")
MISSING: dict[str, tuple[str, ...]] = {
    "nothing": (),
    **{layer: (layer,) for layer in (*KERNEL, "audit")},
    "every layer of the kernel": KERNEL,
}
# what is open, or closed to right programs too, where a layer is missing (SECURITY.md)
KNOWN = {
    "audit": (
        "other_constants",
        "new_code",
        "names_of_the_hook",
        "builtins_of_the_hook",
        "no_recursion_left",
    ),
    "seccomp": ("raises_a_signal",),
    "landlock": ("files", "own_database"),
    "every layer of the kernel": ("raises_a_signal", "files", "own_database"),
}
SECONDS = 3.0
AS_CODE_EVAL = """
import sys, tempfile
from pkt.sandbox import inside
inside.preload()
tempfile.gettempdir()  # by then `code_eval` has made a folder for the program, and knows where
inside.furnish()
sys.modules.update(dict.fromkeys(inside.HIDDEN))
try:
    exec(SOURCE, {})
except BaseException:
    pass
else:
    import os
    os.write(1, b"passed")
os._exit(0)
"""


def trials(count: int | None, seed: int) -> Iterable[Trial]:
    """Return the trials.

    Args:
        count: so many hostile and so many ordinary programs per sandbox, drawn; None: all.
        seed: of the draw.
    """
    names = _drawn(list(hostile.PROGRAMS), count, seed)
    plain = _drawn([*ordinary.PASSES, *ordinary.FAILS], count, seed)
    for user in ("root", "ordinary user"):
        for missing in MISSING:
            for name in (*names, *plain):
                party = functools.partial(_party, user, missing, tuple(names), tuple(plain))
                yield Trial(
                    name=f"{user}, without {missing}: {name}", attempt=functools.partial(_try, party, name)
                )
    for name in plain:
        yield Trial(name=f"as code_eval: {name}", attempt=functools.partial(_compare, name))
    for name in _drawn([*ordinary.DEVIATES, *hostile.ADMITTED], count, seed):
        yield Trial(name=f"on purpose: {name}", attempt=functools.partial(_on_purpose, name))
    for name, attempt in FAULTS.items():
        yield Trial(name=f"machine: {name}", attempt=attempt)


def _drawn(names: list[str], count: int | None, seed: int) -> list[str]:
    return names if count is None else random.Random(seed).sample(names, min(count, len(names)))


Found = dict[str, tuple[list[str], list[str]]]


def _try(party: functools.partial[Found | str], name: str) -> tuple[Verdict, str]:
    found, missing = party(), party.args[1]
    if isinstance(found, str):
        return Verdict.SKIPPED, found
    if name not in found:
        return Verdict.LOST, "the sandbox or its user ended before this program"
    faults, layers = found[name]
    if faults and name in KNOWN.get(missing, ()):
        return Verdict.SKIPPED, f"known without this layer (SECURITY.md): {'; '.join(faults)}"
    return (Verdict.WRONG, "; ".join(faults)) if faults else (Verdict.WORKS, " ".join(layers))


@functools.cache
def _party(user: str, missing: str, names: Sequence[str], plain: Sequence[str]) -> Found | str:
    """Run all programs of one sandbox; return the faults and layers of each, or why it cannot be tried."""
    root = os.geteuid() == 0
    if user == "root" and not root:
        return "needs root"
    number = ORDINARY if root and user != "root" else None
    with _readable() as folder:
        python = _python(number)
        if python is None:
            return "no Python that an ordinary user may read"
        layers = [layer for layer in LAYERS if layer not in MISSING[missing]]
        options = json.dumps({"layers": layers, "hostile": names, "ordinary": plain})
        done = subprocess.run(
            [python, "-m", "campaigns.party", options],
            cwd=folder,
            env={"PYTHONPATH": str(folder), "TMPDIR": tempfile.gettempdir()},
            stdout=subprocess.PIPE,
            check=False,
            **_as(number),
        )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (faults, held) for name, faults, held in lines}


def _as(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def _python(user: int | None) -> str | None:
    """Return a Python that a user can run."""
    for path in (
        sys.executable,
        *(shutil.which(f"python3{minor}") for minor in ("", ".11", ".12", ".13")),
        "/usr/bin/python3",
    ):
        test = [str(path), "-c", "import sys, sqlite3; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if (
                path
                and subprocess.run(test, capture_output=True, cwd="/", check=False, **_as(user)).returncode
                == 0
            ):
                return str(path)
    return None


@contextlib.contextmanager
def _readable() -> Iterator[Path]:
    """Copy what a party needs to where every user can read it."""
    source = Path(pkt.__file__).parent
    with tempfile.TemporaryDirectory(prefix="pkt-party-") as name:
        folder = Path(name)
        shutil.copytree(source / "sandbox", folder / "pkt" / "sandbox")
        shutil.copytree(Path(__file__).parent, folder / "campaigns")
        shutil.copy(source / "errors.py", folder / "pkt")
        (folder / "pkt" / "__init__.py").touch()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield folder


def _compare(name: str) -> tuple[Verdict, str]:
    """Run an ordinary program as `code_eval` does; the corpus says what pkt says, which the parties check."""
    source = (ordinary.PASSES | ordinary.FAILS)[name]
    expected = name in ordinary.PASSES
    seconds = 60.0 if expected else SECONDS  # theirs is the wall clock, also on a busy machine
    found = (_code_eval if "CODE_EVAL" in os.environ else _as_code_eval)(source, seconds)
    return (Verdict.WORKS if found == expected else Verdict.WRONG), f"passes there: {found}"


def _code_eval(source: str, seconds: float) -> bool:
    """Return the verdict of Hugging Face's own code."""
    path = Path(os.environ["CODE_EVAL"]) / "execute.py"
    spec = importlib.util.spec_from_file_location("code_eval_execute", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return bool(module.check_correctness(source, seconds, 0, 0)["passed"])


def _as_code_eval(source: str, seconds: float) -> bool:
    """Return whether a program passes by ``exec`` in an empty namespace, with the same calls gone."""
    program = AS_CODE_EVAL.replace("SOURCE", ascii(source))
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": str(Path(pkt.__file__).parents[1])}
        try:
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=folder,
                env=env,
                capture_output=True,
                timeout=seconds + 5,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.stdout == b"passed"


def _on_purpose(name: str) -> tuple[Verdict, str]:
    """Check what SECURITY.md says: which programs pass elsewhere and not here, and which pass though they are wrong."""
    (found,) = run_programs([(ordinary.DEVIATES | hostile.ADMITTED)[name]], timeout=SECONDS)
    expected = name in hostile.ADMITTED
    return (Verdict.WORKS if (found is Outcome.PASS) == expected else Verdict.WRONG), str(found)


RIGHT, WRONG_ONE = "open('f', 'w').write('x')\nassert 1 + 1 == 2", "assert 1 + 1 == 3"
EXPECTED = [Outcome.PASS, Outcome.FAIL]


def _fair(seconds: float = SECONDS, work: str = RIGHT) -> tuple[Verdict, str]:
    found = run_programs([work, WRONG_ONE], timeout=seconds)
    return (Verdict.WORKS if found == EXPECTED else Verdict.WRONG), str(found)


def _temporary_folder(ruin: str) -> tuple[Verdict, str]:
    """Judge while the folder for temporary files is full or gone; a message in words will do as well."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
        )
        if ruin == "full" and mounted.returncode:
            return Verdict.SKIPPED, "needs the right to mount a disk"
        before, tempfile.tempdir = tempfile.tempdir, folder if ruin == "full" else f"{folder}/gone"
        try:
            if ruin == "full":
                (Path(folder) / "filler").write_bytes(bytes(2**20))
            return _fair()
        except PktError as error:
            return Verdict.REFUSED, str(error)
        finally:
            tempfile.tempdir = before
            subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def _killed_server() -> tuple[Verdict, str]:
    """Kill the servers of the sandbox while they judge; each program is judged again."""

    def kill() -> None:
        time.sleep(1.5)
        for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
            for number in path.read_text().split():
                if b"forkserver.py" in Path(f"/proc/{number}/cmdline").read_bytes():
                    os.kill(int(number), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        return _fair(30.0, "import time\ntime.sleep(3)")
    finally:
        killer.join()


def _busy() -> tuple[Verdict, str]:
    """Judge a program that needs half of its time while eight others want each processor."""
    hog = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(hog) for _ in range(8 * (os.cpu_count() or 1))]
    try:
        return _fair(1.0, "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.5: pass")
    finally:
        for process in hogs:
            process.kill()
            process.wait()


FAULTS: dict[str, Callable[[], tuple[Verdict, str]]] = {
    "full temporary folder": functools.partial(_temporary_folder, "full"),
    "no temporary folder": functools.partial(_temporary_folder, "gone"),
    "killed server": _killed_server,
    "busy processors": _busy,
}
