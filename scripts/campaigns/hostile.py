"""Programs that a sandbox has to withstand: name -> source. Each reaches its end only if what it tries succeeds.

``$outside`` is a folder that anyone may write, with files ``victim`` and ``secret``; ``$bystander`` the id of a process
of the same user; ``$tcp``, ``$udp`` ports on 127.0.0.1, ``$unix`` and ``$gram`` sockets' paths where someone listens.
"""

from __future__ import annotations

import textwrap

from campaigns import hostile_inside, hostile_outside


def _table(**programs: str) -> dict[str, str]:
    return {name: textwrap.dedent(source).strip() + "\n" for name, source in programs.items()}


RESOURCES = _table(
    fork_bomb="""
        import os
        while True:
            os.fork()
    """,
    daemon="""
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    pass
            os._exit(0)
    """,
    memory_bomb="""
        hoard = []
        while True:
            hoard.append(bytearray(2**24))
    """,
    one_huge_object="x = bytearray(2**36)",
    zip_bomb="""
        import zlib
        bomb = zlib.compress(bytes(2**26), 9)
        opened = [zlib.decompress(bomb) for _ in range(64)]
    """,
    endless_loop="while True: pass",
    endless_loop_that_catches_all="""
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """,
    endless_sleep="import time; time.sleep(10**6)",
    endless_c_code="x = 7 ** 10**8 % 10",
    slow_regex="import re; re.match('(a+)+$$', 'a' * 64 + 'b')",
    deaf_to_signals="""
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            pass
    """,
    threads_that_never_end="""
        import threading
        def work():
            while True: pass
        some = [threading.Thread(target=work) for _ in range(4)]
        for thread in some:
            thread.start()
        for thread in some:
            thread.join()
    """,
    recursion_bomb="def f(): f()\nf()",
    parser_recursion="eval('(' * 10**5 + ')' * 10**5)",
    higher_limits="""
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    """,
    more_processes="""
        import resource
        resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))
    """,
    huge_output="""
        import os, sys
        for _ in range(200):
            print('x' * 10**6)
            sys.__stdout__.write('y' * 10**6)
            os.write(1, b'z' * 10**6)
        raise SystemExit
    """,
    huge_errors="""
        import os, sys
        for _ in range(200):
            sys.stderr.write('x' * 10**6)
            os.write(2, b'z' * 10**6)
        raise SystemExit
    """,
    disk_filler="""
        number = 0
        while True:
            number += 1
            with open(f'f{number}', 'wb') as file:
                file.write(bytes(2**23))
    """,
    one_large_file="open('large', 'wb').write(bytes(2**27))",
    sparse_file="""
        with open('sparse', 'wb') as file:
            file.seek(2**40)
            file.write(b'x')
    """,
    countless_files="""
        number = 0
        while True:
            number += 1
            open(f'f{number}', 'w').close()
    """,
    countless_handles="""
        hoard = []
        while True:
            hoard.append(open('f', 'w'))
    """,
    bottomless_folder="""
        import os
        for _ in range(3000):
            os.mkdir('d')
            os.chdir('d')
        raise SystemExit
    """,
    unreadable_folder="""
        import os
        os.mkdir('d')
        open('d/f', 'w').close()
        os.chmod('d', 0)
        os.chmod('.', 0)
        raise SystemExit
    """,
)

FILES = _table(
    delete="import os; os.remove('$outside/victim')",
    delete_folder="""
        import os
        for name in os.listdir('$outside'):
            os.unlink('$outside/' + name)
        assert not os.path.exists('$outside/victim')
    """,
    write="open('$outside/new', 'w').write('x')",
    append="open('$outside/victim', 'a').write('x')",
    cut="import os; os.open('$outside/victim', os.O_WRONLY | os.O_TRUNC)",
    truncate="import os; os.truncate('$outside/victim', 0)",
    rename="import os; os.rename('$outside/victim', '$outside/moved')",
    move_in="import os; os.rename('$outside/victim', 'mine')",
    permissions="import os; os.chmod('$outside/victim', 0)",
    times="import os; os.utime('$outside/victim', (0, 0))",
    extended_attributes="import os; os.setxattr('$outside/victim', 'user.x', b'x')",
    make_folder="import os; os.mkdir('$outside/folder')",
    make_pipe="import os; os.mkfifo('$outside/pipe')",
    follow_a_link="import os; os.symlink('$outside/victim', 'link'); open('link', 'w').write('x')",
    hard_link="import os; os.link('$outside/victim', 'link'); open('link', 'w').write('x')",
    by_a_folders_handle="""
        import os
        handle = os.open('$outside', os.O_RDONLY)
        os.write(os.open('new', os.O_WRONLY | os.O_CREAT, dir_fd=handle), b'x')
    """,
    by_a_relative_path="open('../' * 20 + '$outside/victim', 'w').write('x')",
    from_another_folder="import os; os.chdir('$outside'); open('victim', 'w').write('x')",
    database="import sqlite3; sqlite3.connect('$outside/new.db').execute('create table t (x)')",
    read_a_secret="assert open('$outside/secret').read() == 'token'",
    list_a_folder="import os; assert 'secret' in os.listdir('$outside')",
    read_the_home_folder="""
        import os
        names = os.listdir(os.path.expanduser('~'))
        names = names or os.listdir('/root')
    """,
    read_the_password_file="open('/etc/passwd').read()",
    read_the_environment="import os; assert os.environ['PKT_TEST_TOKEN']",
    read_the_parents_environment="""
        import os
        assert b'PKT_TEST_TOKEN' in open(f'/proc/{os.getppid()}/environ', 'rb').read()
    """,
    read_a_neighbours_environment="assert b'PKT_TEST_TOKEN' in open('/proc/$bystander/environ', 'rb').read()",
)

OTHERS = _table(
    tcp="import socket; socket.create_connection(('127.0.0.1', $tcp), 1).sendall(b'x')",
    udp="""
        import socket
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', $udp))
    """,
    dns="import socket; socket.getaddrinfo('example.com', 80)",
    listen="import socket; socket.create_server(('127.0.0.1', 0))",
    unix_socket="""
        import socket
        talk = socket.socket(socket.AF_UNIX)
        talk.connect('$unix')
        talk.sendall(b'x')
    """,
    kill_the_parent="import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    stop_the_parent="import os, signal; os.kill(os.getppid(), signal.SIGSTOP)",
    kill_a_neighbour="import os, signal; os.kill($bystander, signal.SIGKILL)",
    kill_all="import os, signal; os.kill(-1, signal.SIGKILL)",
    kill_the_own_group="import os, signal; os.killpg(0, signal.SIGKILL)",
    kill_the_parents_group="import os, signal; os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)",
    kill_by_handle="""
        import os, signal
        signal.pidfd_send_signal(os.pidfd_open($bystander), signal.SIGKILL)
    """,
    kill_by_ctypes="import ctypes; assert ctypes.CDLL(None).kill($bystander, 9) == 0",
    stop_itself="import os, signal; os.kill(os.getpid(), signal.SIGSTOP); assert False",
    abort="import os; os.abort()",
    segmentation_fault="""
        import sys
        sys.setrecursionlimit(10**8)
        def f(_):
            return sorted([0], key=f)
        f(0)
    """,
    null_pointer="import ctypes; ctypes.string_at(0)",
    shell="import os; assert os.system('echo x > $outside/new') == 0",
    subprocess_shell="import subprocess; subprocess.run('echo x > $outside/new', shell=True, check=True)",
    become_a_shell="import os; os.execve('/bin/sh', ['sh', '-c', 'echo x > $outside/new'], {})",
    spawn="import os; os.posix_spawn('/bin/sh', ['sh', '-c', 'echo x > $outside/new'], {})",
    root_again="import os; os.setuid(0); open('$outside/new', 'w').write('x')",
)


def _wrong(beginning: str) -> str:
    """Return a hostile beginning with a test after it that a wrong answer fails."""
    return textwrap.dedent(beginning) + "\nassert (lambda x: x)(1) == 2\n"


_FORGE = """
        import os
        def forge(words):
            for word in words:
                for handle in range(64):
                    try:
                        os.write(handle, word)
                    except OSError:
                        pass
            os._exit(0)
"""
CHECKER = _table(
    exit_at_once="import os; os._exit(0)",
    exit_politely="import sys; sys.exit(0)",
    system_exit="raise SystemExit(0)",
    interrupt="raise KeyboardInterrupt",
    at_exit=_wrong("import atexit, os; atexit.register(os._exit, 0)"),
    other_exception_hook=_wrong("import sys; sys.excepthook = lambda *_: None"),
    other_builtins=_wrong("""
        import builtins
        builtins.AssertionError = type('Silent', (BaseException,), {})
        builtins.BaseException = builtins.Exception = OSError
        builtins.exec = builtins.compile = builtins.isinstance = lambda *_: True
    """),
    other_os=_wrong("""
        import os
        write, leave = os.write, os._exit
        os.write = lambda handle, word: write(handle, b'pass')
        os._exit = lambda code: leave(0)
    """),
    other_unittest=_wrong("""
        import unittest
        for name in dir(unittest.TestCase):
            if name.startswith('assert'):
                setattr(unittest.TestCase, name, lambda *_, **__: None)
    """),
    no_asserts=_wrong("import sys; sys.flags = None; globals()['__debug__'] = False"),
    jump_over_the_test="""
        import sys
        def jump(frame, event, arg):
            if event == 'line':
                frame.f_lineno = 11
            return jump
        sys._getframe().f_trace = jump
        sys.settrace(jump)
        assert False
        assert False
        assert False
        x = 1
    """,
    guess_the_word=_FORGE
    + "        forge([bytes(16), b'0123456789abcdef', b'pass', b'{\"outcome\": \"pass\"}'])",
    echo_the_channel=_FORGE
    + """
        import select
        words = []
        for handle in range(64):
            try:
                if select.select([handle], [], [], 0)[0]:
                    words.append(os.read(handle, 16))
            except (OSError, ValueError):
                pass
        forge(words)
    """,
    search_the_frames=_FORGE
    + """
        import sys
        words, frame = [], sys._getframe()
        try:
            raise ValueError
        except ValueError as error:
            frames = [error.__traceback__.tb_frame]
        while frame:
            frames.append(frame)
            frame = frame.f_back
        for frame in frames:
            for value in [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]:
                words += [value] if isinstance(value, bytes) else []
        forge(words)
    """,
    search_the_heap=_FORGE
    + """
        import gc
        words = [
            value for thing in gc.get_objects() for value in gc.get_referents(thing)
            if isinstance(value, bytes) and len(value) == 16
        ]
        forge(words)
    """,
    search_the_memory="""
        for line in open('/proc/self/maps'):
            pass
        open('/proc/self/mem', 'rb').read(1)
    """,
    search_the_parents_memory="import os; open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    trace_the_parent="""
        import ctypes, os
        assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0
    """,
    move_memory="""
        import sys
        import ctypes
        word = ctypes.create_string_buffer(16)
        ctypes.memmove(word, id(b'x'), 16)
    """,
    another_interpreter="""
        import _xxsubinterpreters
        _xxsubinterpreters.run_string(_xxsubinterpreters.create(), 'pass')
    """,
    close_everything="import os; os.closerange(0, 256)",
    swallow_the_test="text = '''\nassert False\n",
    unfinished="if True:\n    x = 1 \\\nassert False\n",
)

PROGRAMS: dict[str, str] = (
    RESOURCES | FILES | OTHERS | CHECKER | hostile_inside.PROGRAMS | hostile_outside.PROGRAMS
)

# What checking by asserts cannot see, here and elsewhere: these count as right.
ADMITTED = _table(
    equal_to_everything="""
        class Agreeable:
            def __eq__(self, other):
                return True
        def f(x):
            return Agreeable()
        assert f(1) == 2
    """,
    redefined_names="""
        def abs(x):
            return 0
        def f(x):
            return 0.0
        assert abs(f(1) - 2.0) < 1e-6
    """,
)
