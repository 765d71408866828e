import sys
import textwrap
import time

import pytest

from pkt.errors import PktError
from pkt.sandbox import Child, Outcome, run_programs

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel layers are Linux's")


@pytest.fixture(scope="module")
def child():
    with Child() as running:
        running.run("pass", 30)
        yield running


@pytest.fixture(scope="module")
def hooked():
    with Child(kernel=()) as running:
        yield running


def run(child, source, timeout=30.0):
    return child.run(textwrap.dedent(source), timeout)


def test_right_wrong_and_broken_programs(child):
    assert run(child, "def f(x):\n    return x + 1\nassert f(1) == 2") is Outcome.PASS
    assert run(child, "def f(x):\n    return x\nassert f(1) == 2") is Outcome.FAIL
    assert run(child, "def f(:") is Outcome.FAIL
    assert run(child, "def f(): f()\nf()") is Outcome.FAIL
    assert run(child, "x = '\0'") is Outcome.FAIL
    assert run(child, "x = '\udc80'") in (Outcome.PASS, Outcome.FAIL)


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


def test_no_process_and_no_thread_can_be_started(child):
    bomb = """
        import os
        for _ in range(20):          # a small one, so that a failure of this test hurts nobody
            if os.fork() == 0:
                os._exit(0)
    """
    assert run(child, bomb) in (Outcome.FAIL, Outcome.REFUSED)
    assert run(child, "import _thread\n_thread.start_new_thread(print, ())") is Outcome.FAIL


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
    assert run(child, f"open({str(target)!r}, 'w').write('x')") is Outcome.REFUSED
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


def test_a_dead_child_is_a_crash_and_starts_anew():
    with Child() as running:
        assert running.run("pass", 30) is Outcome.PASS
        running._process.kill()
        running._process.wait()
        assert running.run("pass", 30) is Outcome.CRASH
        assert running.run("pass", 30) is Outcome.PASS


def test_equal_programs_run_once_and_order_is_kept(monkeypatch):
    ran = []
    monkeypatch.setattr(Child, "run", lambda self, program, timeout: ran.append(program) or Outcome(program))
    programs = ["pass", "fail", "pass", "crash", "fail"]
    assert run_programs(programs, timeout=1.0) == programs
    assert sorted(ran) == ["crash", "fail", "pass"]
    assert run_programs([], timeout=1.0) == []


def test_run_programs_end_to_end():
    assert run_programs(["assert True", "assert False"], timeout=30.0) == [Outcome.PASS, Outcome.FAIL]


def test_what_is_refused_is_told_apart_from_what_fails(child):
    assert run(child, "import os\nos.system('true')") is Outcome.REFUSED
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


def test_a_full_disk_is_a_crash():
    with Child(disk=2**20) as running:
        source = "for n in range(8):\n open(f'f{n}', 'wb').write(bytes(2**20))\nwhile True: pass"
        assert running.run(source, 60) is Outcome.CRASH
        assert running.run("open('f', 'wb').write(bytes(2**10))", 30) is Outcome.PASS


def test_the_message_when_no_child_starts(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(PktError, match=r"did not start.*whose answers are programs"):
        run_programs(["pass"], timeout=1.0)
