"""Hostile programs in one sandbox, run by one user: what each of them did beyond what it may.

Run as ``python -m campaigns.party <options as JSON>`` by the user who is to be tried; prints a line of JSON
per program.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns import hostile, ordinary
from pkt.sandbox import Child, Outcome

TIMEOUT = 0.5  # seconds; a program that ends by itself needs some hundredths
SLACK = 20.0  # seconds that ending a program and removing its files may take on a busy machine
HARMLESS = "assert 1 + 1 == 2\nopen('f', 'w').close()"
LEFT_OVER = Path("/dev/shm/pkt-left-over"), Path("/dev/shm/sem.pkt-left-over")
KINDS = (
    (socket.AF_INET, socket.SOCK_STREAM),
    (socket.AF_INET, socket.SOCK_DGRAM),
    (socket.AF_UNIX, socket.SOCK_STREAM),
    (socket.AF_UNIX, socket.SOCK_DGRAM),
)


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What hostile programs aim at."""

    folder: Path
    bystander: subprocess.Popen[bytes]
    listeners: Sequence[socket.socket]

    def fill(self, source: str) -> str:
        """Put its names into a program."""
        tcp, udp, unix, gram = (listener.getsockname() for listener in self.listeners)
        names = {"outside": self.folder, "bystander": self.bystander.pid, "unix": unix, "gram": gram}
        return string.Template(source).substitute(names, tcp=tcp[1], udp=udp[1])

    def seen(self) -> dict[str, object]:
        """Return all that a program could have changed."""
        files = {
            path.name: (path.read_text(), path.stat().st_mode, path.stat().st_mtime_ns)
            for path in self.folder.glob("[!u]*")
        }
        status = Path(f"/proc/{self.bystander.pid}/stat").read_text().rpartition(")")[2].split()
        return {
            "files": files,
            "stopped": status[0] == "T",
            "ended": self.bystander.poll(),
            "heard": self.heard(),
            "priority": status[16],
            "processors": sorted(os.sched_getaffinity(self.bystander.pid)),
            "limits": Path(f"/proc/{self.bystander.pid}/limits").read_text(),
            "left": [str(path) for path in LEFT_OVER if path.exists()],
        }

    def heard(self) -> int:
        """Count the messages that came."""
        count = 0
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(16)
                else:
                    listener.accept()[0].close()
                count += 1
        return count


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Make what hostile programs aim at."""
    os.environ["PKT_TEST_TOKEN"] = "token"
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o777)
        for file, text in (("victim", "here"), ("secret", "token")):
            (folder / file).write_text(text)
            (folder / file).chmod(0o666)
        listeners = [stack.enter_context(socket.socket(*kind)) for kind in KINDS]
        for number, listener in enumerate(listeners):
            inet = listener.family == socket.AF_INET
            listener.bind(("127.0.0.1", 0) if inet else str(folder / f"u{number}"))
            listener.setblocking(False)
            if listener.type == socket.SOCK_STREAM:
                listener.listen()
            if not inet:
                (folder / f"u{number}").chmod(0o777)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"]) as bystander:
            yield Outside(folder=folder, bystander=bystander, listeners=listeners)
            bystander.send_signal(signal.SIGKILL)


def processes(mark: str) -> int:
    """Count the processes that a sandbox's child has become or forked, wherever they went: they keep its arguments."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            count += mark.encode() in path.read_bytes()
    return count


def limits(child: Child) -> list[str]:
    """Return the limits, priority and processors of a sandbox's servers."""
    assert child._process is not None
    first = child._process.pid
    inner = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    found = []
    for number in (str(first), *inner):
        status = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        found += [
            Path(f"/proc/{number}/limits").read_text(),
            status[16],
            str(os.sched_getaffinity(int(number))),
        ]
    return found


def faults(child: Child, name: str, target: Outside) -> list[str]:
    """Run one hostile program and return what it did that it must not."""
    child.run(HARMLESS, 30)
    server, mark, held = child._process, json.dumps(child.options), limits(child)
    before, seen, start = processes(mark), target.seen(), time.monotonic()
    outcome = child.run(target.fill(hostile.PROGRAMS[name]), TIMEOUT)
    wrong = [str(outcome)] if outcome in (Outcome.PASS, Outcome.ERROR) else []
    if (seconds := time.monotonic() - start) > TIMEOUT * 20 + SLACK:
        wrong.append(f"{seconds:.1f} s")
    if child.run(HARMLESS, 30) is not Outcome.PASS:
        wrong.append(f"the next program does not pass: {child.reason}")
    if child._process is not server:
        return [*wrong, "brought the server down"]
    if processes(mark) != before:
        wrong.append("left a process")
    if limits(child) != held:
        wrong.append("changed the server's limits")
    if child._folder and list(Path(child._folder.name).iterdir()):
        wrong.append("left files")
    now = target.seen()
    return wrong + [f"changed {key}: {now[key]}" for key in seen if now[key] != seen[key]]


def main(options: dict[str, list[str]]) -> None:
    """Try hostile programs, then ordinary ones, in sandboxes with the same layers."""
    with outside() as target, Child(layers=options["layers"]) as child:
        for name in options["hostile"]:
            print(json.dumps([name, faults(child, name, target), list(child.layers)]), flush=True)
        for name in options["ordinary"]:
            source = (ordinary.PASSES | ordinary.FAILS)[name]
            outcome = child.run(source, 3.0 if name in ordinary.PASSES else 0.5)
            right = (outcome is Outcome.PASS) == (name in ordinary.PASSES)
            wrong = [] if right else [f"{outcome} {child.reason}"]
            print(json.dumps([name, wrong, list(child.layers)]), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
