"""Hostile programs in the sandbox: none counts as right, none reaches anything outside, none outlives its time."""

from __future__ import annotations

import os
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import hostile
from pkt.sandbox import KERNEL, Child, Outcome

LINUX = sys.platform.startswith("linux")
TIMEOUT = 0.5  # seconds; a program that ends by itself needs some hundredths
PARTS = 6  # at a time: most of the time is waiting
SLACK = 15.0  # seconds that ending a program and removing its files may take on a busy machine
pytestmark = pytest.mark.skipif(not LINUX, reason="looks at /proc; kernel layers are Linux's")


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What hostile programs aim at."""

    folder: Path
    bystander: subprocess.Popen[bytes]
    listeners: Sequence[socket.socket]

    def fill(self, source: str) -> str:
        tcp, udp, unix = (listener.getsockname() for listener in self.listeners)
        names = {"outside": self.folder, "bystander": self.bystander.pid, "unix": unix}
        return string.Template(source).substitute(names, tcp=tcp[1], udp=udp[1])

    def seen(self) -> dict[str, object]:
        """Return all that a program could have changed."""
        files = {
            path.name: (path.read_text(), path.stat().st_mode, path.stat().st_mtime_ns)
            for path in self.folder.glob("[!u]*")
        }
        running = Path(f"/proc/{self.bystander.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return {
            "files": files,
            "stopped": running == "T",
            "ended": self.bystander.poll(),
            "heard": self.heard(),
        }

    def heard(self) -> int:
        count = 0
        for listener in self.listeners:
            try:
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(16)
                else:
                    listener.accept()[0].close()
                count += 1
            except BlockingIOError:
                pass
        return count


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    monkeypatch.setenv("PKT_TEST_TOKEN", "token")
    with (
        tempfile.TemporaryDirectory() as name,
        ExitStack() as stack,
    ):  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o777)
        for file, text in (("victim", "here"), ("secret", "token")):
            (folder / file).write_text(text)
            (folder / file).chmod(0o666)
        listeners = [stack.enter_context(socket.socket(*kind)) for kind in (
            (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM),
            (socket.AF_UNIX, socket.SOCK_STREAM))]  # fmt: skip
        for listener, place in zip(
            listeners, (("127.0.0.1", 0), ("127.0.0.1", 0), str(folder / "u")), strict=True
        ):
            listener.bind(place)
            listener.setblocking(False)
            if listener.type == socket.SOCK_STREAM:
                listener.listen()
        (folder / "u").chmod(0o777)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
            yield Outside(folder=folder, bystander=bystander, listeners=listeners)
            bystander.send_signal(signal.SIGKILL)


def processes(folder: str) -> int:
    """Count the processes that a sandbox's child has become or forked, wherever they went: they keep its arguments."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += folder.encode() in path.read_bytes()
        except OSError:
            continue
    return count


def trial(names: Sequence[str], outside: Outside, kernel: Sequence[str]) -> list[str]:
    """Run programs one after another in one sandbox, and return what went wrong."""
    wrong = []
    with Child(kernel=kernel) as child:
        assert child.run("pass", 10) is Outcome.PASS
        server = child._process
        folder = child._folder.name
        before = processes(folder)
        for name in names:
            start = time.monotonic()
            outcome = child.run(outside.fill(hostile.PROGRAMS[name]), TIMEOUT)
            seconds = time.monotonic() - start
            if outcome is Outcome.PASS:
                wrong.append(f"{name}: pass")
            if seconds > TIMEOUT + SLACK:
                wrong.append(f"{name}: {seconds:.1f} s")
            if child.run("assert 1 + 1 == 2\nopen('f', 'w').close()", 10) is not Outcome.PASS:
                wrong.append(f"{name}: the next program does not pass")
            if child._process is not server:
                wrong.append(f"{name}: brought the child down")
                server, folder = child._process, child._folder.name
            if processes(folder) != before:
                wrong.append(f"{name}: left a process")
            if list(Path(folder).iterdir()):
                wrong.append(f"{name}: left files")
    return wrong


@pytest.mark.parametrize(
    "kernel", [KERNEL, ("landlock", "seccomp"), ()], ids=["all", "no-namespaces", "hook"]
)
def test_hostile_programs(kernel: Sequence[str], outside: Outside, capfd: pytest.CaptureFixture[str]):
    before = outside.seen()
    names = list(hostile.PROGRAMS)
    with ThreadPoolExecutor(PARTS) as pool:
        wrong = list(pool.map(lambda part: trial(names[part::PARTS], outside, kernel), range(PARTS)))
    assert [line for part in wrong for line in part] == []
    assert outside.seen() == before
    assert before["heard"] == 0
    assert capfd.readouterr() == ("", "")


def test_the_corpus_is_a_threat(outside: Outside):
    """Some of these programs, run without a sandbox, do what they try: the corpus is not harmless by mistake."""
    harmless = []
    for name in (
        "write",
        "read_a_secret",
        "tcp",
        "unix_socket",
        "shell",
        "read_the_password_file",
        "by_a_folders_handle",
    ):
        source = outside.fill(hostile.PROGRAMS[name])
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, cwd=outside.folder, check=False
        )
        harmless += [name] if done.returncode else []
    assert harmless == []
    assert outside.heard() == 2


def test_what_asserts_cannot_see_counts_as_right():
    with Child() as child:
        assert {name: child.run(source, 5) for name, source in hostile.ADMITTED.items()} == dict.fromkeys(
            hostile.ADMITTED, Outcome.PASS
        )


def test_the_layers_here():
    """Which layers hold depends on the machine; those that are asked for and those that hold are told."""
    with Child(kernel=("seccomp",)) as child:
        child.run("pass", 10)
        assert set(child.layers) <= {"seccomp"}
    with Child(kernel=()) as child:
        child.run("pass", 10)
        assert child.layers == ()
    assert os.getpid() > 0
