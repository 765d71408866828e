import contextlib
import errno
import itertools
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from campaigns import ordinary
from pkt.errors import PktError
from pkt.sandbox import LAYERS, Child, Outcome, confine, library, programs, run_programs, syscalls, verdict

HOOK = ("audit", "interpreter")
IN_A_FOLDER = tuple(layer for layer in LAYERS if layer != "namespaces")  # without a disk of their own
ENDLESS = (
    "endless",
    "sleeps_for_ever",
    "endless_and_deaf",
    "waits_for_a_thread",
    "deadlock",
    "leaves_at_once",
)
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel layers are Linux's")


@pytest.fixture(scope="module")
def child():
    with Child() as running:
        running.run("pass", 30)
        yield running


@pytest.fixture(scope="module")
def hooked():
    with Child(layers=HOOK) as running:
        yield running


def run(child, source, timeout=30.0):
    return child.run(textwrap.dedent(source), timeout)


def test_a_program_may_have_as_many_threads_as_it_is_promised(child):
    source = """
        import threading
        go = threading.Event()
        threads = [threading.Thread(target=go.wait) for _ in range({})]
        for thread in threads:
            thread.start()
        go.set()
    """
    assert run(child, source.format(64)) is Outcome.PASS
    assert (
        run(child, "from concurrent.futures import *\nlist(ThreadPoolExecutor(32).map(sum, [[]] * 99))")
        == "pass"
    )
    assert (
        run(child, "import threading\nthreading.stack_size(2**27)" + textwrap.dedent(source.format(1)))
        == "pass"
    )


def test_interrupts_are_the_same_however_pkt_was_started():
    source = "import signal\ntry:\n    signal.raise_signal(2)\nexcept KeyboardInterrupt:\n    done = 1\nassert done"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        with Child() as started:
            assert run(started, source) is Outcome.PASS
            assert (
                run(started, "import _thread, time\n_thread.interrupt_main()\ntime.sleep(1)") is Outcome.FAIL
            )
    finally:
        signal.signal(signal.SIGINT, before)


def test_right_wrong_and_broken_programs(child):
    assert run(child, "def f(x):\n    return x + 1\nassert f(1) == 2") is Outcome.PASS
    assert run(child, "def f(x):\n    return x\nassert f(1) == 2") is Outcome.FAIL
    assert run(child, "def f(:") is Outcome.FAIL
    assert run(child, "def f(): f()\nf()") is Outcome.FAIL
    assert run(child, "x = '\0'") is Outcome.FAIL
    assert run(child, "x = '\udc80'") is Outcome.FAIL


@pytest.mark.parametrize(
    "exit_early",
    ["import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt", "import os; os._exit(0)"],
)
def test_leaving_before_the_asserts_is_no_pass(child, exit_early):
    assert run(child, f"{exit_early}\nassert False") in (Outcome.FAIL, Outcome.CRASH)


def test_guessing_at_the_channel_is_no_pass(child):
    source = """
        import os
        for fd in range(64):
            try: os.write(fd, b'0123456789abcdef')
            except OSError: pass
        os._exit(0)
    """
    assert run(child, source) is Outcome.CRASH


def test_endless_loop_times_out(child):
    start = time.monotonic()
    assert run(child, "while True: pass", 0.3) is Outcome.TIMEOUT
    assert run(child, "import time\ntime.sleep(60)", 0.3) is Outcome.TIMEOUT
    assert time.monotonic() - start < 50  # and not when the sleep is over


def test_memory_bomb_ends_at_the_limit(child):
    assert run(child, "x = bytearray(4 * 2**30)") in (Outcome.FAIL, Outcome.CRASH)


def test_threads_can_be_started_and_no_process(child):
    bomb = """
        import os
        for _ in range(20):          # a small one, so that a failure of this test hurts nobody
            if os.fork() == 0:
                os._exit(0)
    """
    assert run(child, bomb) in (Outcome.FAIL, Outcome.REFUSED)
    assert (
        run(child, "import threading\nfor _ in range(8): threading.Thread(target=print).start()")
        is Outcome.PASS
    )


def test_a_signal_to_the_parent_goes_nowhere(child):
    before = child._process.pid
    run(child, "import os\nos.kill(os.getppid(), 9)")
    run(child, "import os\nos.kill(1, 9)")
    assert run(child, "pass") is Outcome.PASS
    assert child._process.pid == before


@LINUX
def test_network_is_out_of_reach(child):
    source = "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run(child, source.format(port=server.getsockname()[1])) in (Outcome.FAIL, Outcome.REFUSED)


def test_files_are_written_in_the_own_folder_only(child, tmp_path):
    target = tmp_path / "outside"
    tmp_path.chmod(0o777)
    assert run(child, "open('inside', 'w').write('x')") is Outcome.PASS
    assert run(child, "import os\nassert os.listdir() == []") is Outcome.PASS
    assert run(child, f"open({str(target)!r}, 'w').write('x')") in (Outcome.FAIL, Outcome.REFUSED)
    assert not target.exists()
    assert run(child, "open('big', 'wb').write(b'x' * 2**25)") in (Outcome.FAIL, Outcome.CRASH)


def test_output_goes_nowhere_and_the_environment_is_empty(child, capfd):
    assert run(child, "print('x' * 10**7)") is Outcome.PASS
    assert (
        run(child, "import os\nassert 'HOME' not in os.environ and 'PATH' not in os.environ") is Outcome.PASS
    )
    assert capfd.readouterr() == ("", "")


def test_audit_hook_stands_in_for_missing_layers(hooked, tmp_path):
    assert run(hooked, "open('inside', 'w').write('x')") is Outcome.PASS
    assert hooked.layers == ()
    for refused in (
        "import socket\nsocket.socket()",
        "import os\nos.kill(os.getppid(), 9)",
        f"open({str(tmp_path / 'x')!r}, 'w')",
        f"import os\nos.mkdir({str(tmp_path / 'd')!r})",
        "import ctypes\nctypes.CDLL(None)",
        "import os\nos.system('true')",
    ):
        assert run(hooked, refused) in (Outcome.FAIL, Outcome.REFUSED), refused
    assert list(tmp_path.iterdir()) == []


def test_a_dead_server_is_no_verdict_and_starts_anew():
    with Child() as running:
        assert running.run("pass", 30) is Outcome.PASS
        running._process.kill()
        running._process.wait()
        assert running.run("pass", 30) is Outcome.ERROR
        assert "server ended" in running.reason
        assert running.run("pass", 30) is Outcome.PASS


def test_equal_programs_run_once_and_order_is_kept(monkeypatch):
    ran = []
    monkeypatch.setattr(Child, "run", lambda self, program, timeout: ran.append(program) or Outcome(program))
    monkeypatch.setattr(Child, "well", lambda self: True)
    programs = ["pass", "fail", "pass", "crash", "fail"]
    assert run_programs(programs, timeout=1.0) == programs
    assert sorted(ran) == ["crash", "fail", "pass"]
    assert run_programs([], timeout=1.0) == []


def test_run_programs_end_to_end():
    assert run_programs(["assert True", "assert False"], timeout=30.0) == [Outcome.PASS, Outcome.FAIL]


def test_what_is_refused_is_told_apart_from_what_fails(child):
    assert run(child, "open('/etc/passwd')") is Outcome.REFUSED
    assert run(child, "raise PermissionError") is Outcome.REFUSED
    assert run(child, "raise OSError") is Outcome.FAIL


def test_modules_of_everyday_programs_can_be_imported(child, hooked):
    source = """
        import bisect, cmath, collections, copy, datetime, functools, hashlib, heapq, itertools, json, math, operator
        import random, re, statistics, string, sys, textwrap, time, typing, unittest
        from collections import namedtuple
        from dataclasses import dataclass
        from enum import Enum
        Point = namedtuple("Point", "x y")
        @dataclass
        class Place:
            x: int = 0
        assert Point(1, 2).y == 2 and Place().x == 0 and sys._getframe().f_back is not None
    """
    assert run(child, source) is Outcome.PASS
    assert run(hooked, source) is Outcome.PASS


def test_a_full_disk_of_its_own_is_the_programs_fault():
    source = "for n in range(8):\n open(f'f{n}', 'wb').write(bytes(2**20))\nimport time\ntime.sleep(60)"
    for layers, outcome in ((LAYERS, (Outcome.FAIL, Outcome.CRASH)), (IN_A_FOLDER, (Outcome.CRASH,))):
        with Child(disk=2**21, layers=layers) as running:
            assert running.run(source, 60) in outcome
            assert running.run("open('f', 'wb').write(bytes(2**10))", 30) is Outcome.PASS


def test_the_message_when_no_child_starts(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(PktError, match=r"cannot be judged.*gave no answer.*whose answers are programs"):
        run_programs(["pass"], timeout=1.0)


# The same verdict as `code_eval`, whose verdicts the corpus holds (scripts/reliability.py programs compares them anew).


@pytest.mark.parametrize(
    "layers", [LAYERS, pytest.param(IN_A_FOLDER, marks=pytest.mark.slow)], ids=["own-disk", "folder"]
)
def test_right_programs_of_unusual_shape_pass(layers):
    with Child(layers=layers) as running:
        found = {name: (running.run(source, 30), running.reason) for name, source in ordinary.PASSES.items()}
    assert {name: ended for name, ended in found.items() if ended[0] is not Outcome.PASS} == {}


def test_wrong_programs_of_unusual_shape_do_not(child):
    wrong = {name: source for name, source in ordinary.FAILS.items() if name not in ENDLESS}
    assert [name for name, source in wrong.items() if run(child, source) is Outcome.PASS] == []


def test_a_verdict_repeats():
    order = "assert list({'a', 'b', 'c', 'd'}) == %r"
    with Child() as one:
        known = next(
            o for o in itertools.permutations("abcd") if one.run(order % list(o), 30) is Outcome.PASS
        )
    with Child() as another:
        assert another.run(order % list(known), 30) is Outcome.PASS


# The machine's faults are no verdict.


def test_a_fault_is_tried_once_more_and_then_stops_everything(monkeypatch):
    monkeypatch.setattr(Child, "well", lambda self: True)
    answers = iter([Outcome.ERROR, Outcome.FAIL])
    monkeypatch.setattr(Child, "run", lambda *_: next(answers))
    assert run_programs(["x"], timeout=1.0) == [Outcome.FAIL]
    monkeypatch.setattr(Child, "run", lambda *_: Outcome.ERROR)
    with pytest.raises(PktError, match="tried twice, and nothing is scored"):
        run_programs(["x", "y", "z"], timeout=1.0)


def test_what_did_not_pass_counts_only_if_a_right_program_passes_after_it(monkeypatch):
    ran, well = [], iter([False, True])
    monkeypatch.setattr(Child, "run", lambda self, program, _: ran.append(program) or Outcome.FAIL)
    monkeypatch.setattr(Child, "well", lambda _: next(well))
    assert run_programs(["x", "y"], timeout=1.0, workers=1) == [Outcome.FAIL] * 2
    assert ran == ["x", "y", "x", "y"]
    monkeypatch.setattr(Child, "well", lambda _: False)
    with pytest.raises(PktError, match="cannot be judged"):
        run_programs(["x"], timeout=1.0)


def test_a_library_that_cannot_be_read_is_told_before_the_first_program(monkeypatch):
    monkeypatch.setattr(programs, "RIGHT", "import a_part_of_the_library_that_is_gone")
    with pytest.raises(PktError, match=r"a right program ends in fail: ModuleNotFoundError.*library"):
        run_programs(["pass"], timeout=1.0)


def test_the_whole_library_can_be_imported_whoever_may_read_it(child):
    names = "logging pathlib tempfile sqlite3 asyncio unittest.mock wsgiref.util colorsys json.tool encodings.cp1250"
    assert run(child, f"import {', '.join(names.split())}") is Outcome.PASS, child.reason


def test_the_library_in_memory(tmp_path, monkeypatch):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("from pack.inner import x")
    (tmp_path / "pack" / "inner.py").write_text("x = 3")
    held = library.Library(str(tmp_path))
    shutil.rmtree(tmp_path / "pack")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, held])
    try:
        import pack

        assert pack.x == 3
        assert pack.__path__ == [f"{tmp_path}/pack"]
    finally:
        sys.modules.pop("pack", None)
        sys.modules.pop("pack.inner", None)


@LINUX
def test_a_temporary_folder_that_is_swept(child):
    with Child(layers=IN_A_FOLDER) as running:
        assert running.run("open('f', 'w').close()", 30) is Outcome.PASS
        shutil.rmtree(running._folder.name)
        assert running.run("open('f', 'w').close()", 30) is Outcome.ERROR
        running.close()
        assert running.run("open('f', 'w').close()", 30) is Outcome.PASS


@pytest.fixture
def small(monkeypatch):
    """A temporary folder on a disk of 8 MB."""
    with tempfile.TemporaryDirectory() as folder:
        how = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
        if os.geteuid() or subprocess.run(how, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a disk")
        monkeypatch.setattr(tempfile, "tempdir", folder)
        Path(folder).chmod(0o1777)
        yield Path(folder)
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_temporary_folder_is_told(small):
    writes = "open('f', 'wb').write(bytes(2**20))"
    wrong = "assert 1 == 2"
    (small / "filler").write_bytes(bytes(8 * 2**20 - 2**16))
    with (
        Child(layers=IN_A_FOLDER) as running,
        pytest.raises(PktError, match=r"less than 64 MB left|No space left"),
    ):
        running.run(writes, 30)
    (small / "filler").unlink()
    with Child(layers=IN_A_FOLDER, disk=2**23) as running:
        assert running.run(writes, 30) is Outcome.PASS
        (small / "filler").write_bytes(bytes(8 * 2**20 - 2**16))
        assert running.run(writes, 30) is Outcome.ERROR
        assert running.run(wrong, 30) is Outcome.ERROR  # it may be wrong for that reason: nobody knows
        assert "less than 8 MB left" in running.reason
    with Child() as running:
        if "disk" in running.layers:
            assert running.run(writes, 30) is Outcome.PASS  # a disk of its own is not concerned


@LINUX
def test_a_server_without_handles_is_no_verdict():
    import resource

    with Child() as running:
        assert running.run("pass", 30) is Outcome.PASS
        first = running._process.pid
        inner = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        resource.prlimit(int(inner[0]) if inner else first, resource.RLIMIT_NOFILE, (4, 4))
        assert running.run("pass", 30) is Outcome.ERROR
        assert "Too many open files" in running.reason


def test_other_systems_are_left_without_layers_of_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")

    class Native:
        def call(self, *_):
            raise AssertionError("a call of Linux's")

    assert (
        confine.namespaces(Native(), 1)
        == confine.landlock(Native(), "/")
        == syscalls.filter_calls(Native())
        == set()
    )
    confine.die_with_parent(Native())


def test_a_program_has_no_handles_but_its_own(child):
    source = """
        import os
        found = []
        for handle in range(100):
            try:
                found.append((handle, os.fstat(handle).st_mode >> 12))
            except OSError:
                pass
        assert [kind for handle, kind in found[:3]] == [2, 2, 2]   # /dev/null
        assert [kind for handle, kind in found[3:]] == [1, 1], found   # where the word waits, where it is said
    """
    assert run(child, source) is Outcome.PASS, child.reason


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM, errno.EAGAIN, errno.EIO])
def test_a_program_cannot_blame_the_machine(child, code):
    assert run(child, f"raise OSError({code}, 'it was not me')") is Outcome.FAIL
    assert run(child, f"import os\nos.write(2, b'{{}}')\nraise MemoryError({code})") is Outcome.FAIL


@LINUX
def test_who_ended_a_program():
    with Child(layers=("interpreter", "audit", "user")) as running:
        assert running.run("import os\nos.abort()", 30) is Outcome.CRASH
    with Child() as running:
        assert running.run("import signal\nsignal.raise_signal(9)", 30) is Outcome.REFUSED
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    os.close(writer)
    os.kill(child, 9)
    with pytest.raises(verdict.HostError, match="killed from outside"):
        verdict.judged(child, reader, b"n" * 16, 5.0, "", lambda: False)
    os.close(reader)


@pytest.mark.parametrize(
    ("gaps", "waits", "used"),
    [
        ((0.1, 0.1), (0.0, 0.0), 0.2),  # it ran
        ((0.1, 0.1), (0.05, 0.1), 0.1),  # it waited for a processor
        ((0.1, 9.0), (0.0, 0.0), 0.3),  # the machine stood still
        ((9.0, 0.1), (9.0, 9.0), 0.1),  # both
    ],
)
def test_a_programs_own_time(monkeypatch, gaps, waits, used):
    now, waited = iter(itertools.accumulate((1.0, *gaps))), iter((0.0, *waits))
    monkeypatch.setattr(verdict.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(verdict.Clock, "_waiting", lambda _: next(waited))
    clock = verdict.Clock("1")
    for _ in gaps:
        clock.look()
    assert clock.used == pytest.approx(used)


@pytest.mark.slow
@LINUX
def test_a_busy_machine_is_not_the_programs_fault():
    work = "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.4: pass"
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))
    ]
    try:
        with Child() as running:
            start = time.monotonic()
            assert running.run(work, 0.8) is Outcome.PASS
            assert time.monotonic() - start > 0.4
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


# The filter of system calls.

HEADERS = {
    0: ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)"),
    1: ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
}


@pytest.mark.parametrize("column", HEADERS)
def test_numbers_of_system_calls(column):
    path, pattern = HEADERS[column]
    if not Path(path).exists():
        pytest.skip(f"needs {path}")
    known = {name: int(number) for name, number in re.findall(pattern, Path(path).read_text())}
    known.setdefault("newfstatat", known.get("fstatat", -1))
    listed = syscalls.FREE | syscalls.GUARDED
    wrong = {n: c[column] for n, c in listed.items() if c[column] is not None and known.get(n) != c[column]}
    assert wrong == {}
    assert [name for name, pair in listed.items() if pair[column] is None and name in known] == []


def verdict_of(code: bytes, machine: int, number: int, arguments=()) -> int:
    """Run a filter as the kernel does: the slow reference."""
    data = struct.pack("=IIQ", number, machine, 0) + struct.pack(
        "=6Q", *arguments, *(0,) * (6 - len(arguments))
    )
    steps = [struct.unpack_from("=HBBI", code, 8 * at) for at in range(len(code) // 8)]
    at = held = 0
    while True:
        kind, yes, no, value = steps[at]
        at += 1
        if kind == syscalls.RETURN:
            return value
        if kind == syscalls.LOAD:
            (held,) = struct.unpack_from("=I", data, value)
        elif kind == syscalls.AND:
            held &= value
        else:
            at += yes if (held == value if kind == syscalls.EQUAL else held >= value) else no


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_every_system_call_is_decided_as_listed(machine):
    column, name = syscalls.MACHINES[machine]
    code = syscalls.program(column, name, 77)
    allow, refuse, absent = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    free = {pair[column] for pair in syscalls.FREE.values()}
    guarded = {pair[column] for pair in syscalls.GUARDED.values()}
    for number in set(range(600)) - guarded:
        assert verdict_of(code, name, number) == (allow if number in free else refuse), number
    assert verdict_of(code, name + 1, 0) == verdict_of(code, name, 0x40000000) == refuse
    assert verdict_of(code, name, 435) == absent
    cases = {
        ("mmap", (0, 4096, 3)): allow, ("mmap", (0, 4096, 7)): refuse, ("mprotect", (0, 1, 5)): refuse,
        ("clone", (0x3D0F00,)): allow, ("clone", (17,)): refuse, ("clone", (0x1200011,)): refuse,
        ("fcntl", (3, 8)): refuse, ("fcntl", (3, 10)): refuse, ("fcntl", (3, 1030)): allow,
        ("ioctl", (0, 0x5412)): refuse, ("ioctl", (0, 0x5401)): allow,
        ("socketpair", (1, 0x80001)): allow, ("socketpair", (1, 2)): refuse, ("socketpair", (2, 1)): refuse,
        ("sendto", (3, 1, 1, 0, 0)): allow,
        ("sendto", (3, 1, 1, 0, 2**32)): refuse, ("sendto", (3, 1, 1, 0, 5)): refuse,
        ("kill", (77, 10)): allow, ("kill", (78, 10)): refuse,
        ("kill", (77, 9)): refuse, ("kill", (2**32 - 1, 0)): refuse,
        ("tgkill", (77, 80, 6)): allow, ("tgkill", (1, 1, 6)): refuse, ("tgkill", (77, 80, 19)): refuse,
        ("prlimit64", (0,)): allow, ("prlimit64", (1,)): refuse, ("setpriority", (0, 1)): refuse,
        ("setpriority", (0, 0)): allow, ("setpriority", (2, 0)): refuse,
        ("prctl", (1,)): refuse, ("prctl", (15,)): allow,
    }  # fmt: skip
    found = {case: verdict_of(code, name, syscalls.GUARDED[case[0]][column], case[1]) for case in cases}
    assert found == cases


@LINUX
@pytest.mark.skipif(platform.machine() not in syscalls.MACHINES, reason="no filter for this processor")
def test_no_native_code_comes_in(child):
    with contextlib.suppress(ImportError):
        import _json

        source = f"""
            import importlib.machinery as m
            spec = m.ModuleSpec('other', None, origin={_json.__file__!r})
            m.ExtensionFileLoader('other', {_json.__file__!r}).create_module(spec)
        """
        assert run(child, source) in (Outcome.FAIL, Outcome.REFUSED)
    assert (
        run(child, "import mmap\nmmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)")
        is Outcome.REFUSED
    )
