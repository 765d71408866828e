"""More programs that a sandbox has to withstand: other processes' limits, signals, memory and sockets.

The names in ``$...`` are those of hostile.py.
"""

from __future__ import annotations

import textwrap


def _table(**programs: str) -> dict[str, str]:
    return {name: textwrap.dedent(source).strip() + "\n" for name, source in programs.items()}


LIMITS = _table(
    files_of_the_server="""
        import posix, sys
        resource = sys.modules.pop('resource') or __import__('resource')
        resource.prlimit(posix.getppid(), resource.RLIMIT_NOFILE, (3, 3))
    """,
    memory_of_a_neighbour="""
        import sys
        sys.modules.pop('resource', None)
        import resource
        resource.prlimit($bystander, resource.RLIMIT_AS, (2**20, 2**20))
    """,
    priority_of_the_server="import posix; posix.setpriority(0, posix.getppid(), 19)",
    priority_of_all="import posix; posix.setpriority(2, posix.getuid(), 19)",
    priority_of_a_neighbour="""
        import posix; posix.setpriority(0, $bystander, 19); assert posix.getpriority(0, $bystander) == 19
    """,
    processors_of_the_server="import posix; posix.sched_setaffinity(posix.getppid(), {0})",
    processors_of_a_neighbour="import posix; posix.sched_setaffinity($bystander, {0})",
    schedule_of_the_server="""
        import posix; posix.sched_setscheduler(posix.getppid(), posix.SCHED_IDLE, posix.sched_param(0))
    """,
    schedule_of_itself="import posix; posix.sched_setscheduler(0, posix.SCHED_FIFO, posix.sched_param(1))",
    many_threads="""
        import threading, time
        threading.stack_size(32768)
        for _ in range(5000):
            threading.Thread(target=time.sleep, args=(99,)).start()
    """,
    threads_that_eat="""
        import threading
        def work():
            hoard = []
            while True: hoard.append(bytearray(2**20))
        for _ in range(8): threading.Thread(target=work).start()
        threading.Event().wait()
    """,
)

SIGNALS = _table(
    owner_of_a_pipe="""
        import fcntl, os, posix
        reader, writer = posix.pipe()
        fcntl.fcntl(reader, fcntl.F_SETOWN, $bystander)
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writer, b'x')
        raise SystemExit
    """,
    owner_by_the_parent="""
        import fcntl, os, posix, socket
        one, other = socket.socketpair()
        fcntl.fcntl(one, fcntl.F_SETOWN, posix.getppid())
        fcntl.fcntl(one, 10, 9)
        fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC)
        other.send(b'x')
        raise SystemExit
    """,
    owner_by_ioctl="""
        import fcntl, socket, struct
        one, other = socket.socketpair()
        fcntl.ioctl(one, 0x8901, struct.pack('i', $bystander))
        fcntl.ioctl(one, 0x5452, struct.pack('i', 1))
        other.send(b'x')
        raise SystemExit
    """,
    lease="import fcntl; fcntl.fcntl(open('f', 'w'), 1024, 1); assert False",
    notify="import fcntl, posix; fcntl.fcntl(posix.open('.', 0), 1026, 0x7fffffff); assert False",
    handle_of_a_neighbour="import posix; posix.pidfd_open($bystander)",
    kill_by_posix="import posix; posix.kill($bystander, 9)",
    kill_group_by_posix="import posix; posix.killpg(0, 9)",
    kill_all_by_posix="import posix; posix.kill(-1, 9)",
    kill_the_parent_by_posix="import posix; posix.kill(posix.getppid(), 9)",
    looks_as_if_out_of_memory="import signal; signal.raise_signal(9)",
    looks_as_if_out_of_memory_by_thread="import signal, threading; signal.pthread_kill(threading.get_ident(), 9)",
    stops_itself="import signal; signal.raise_signal(19); assert False",
    fork_by_posix="import posix\nif posix.fork() == 0:\n    while True: pass",
    fork_by_terminal="import posix\nif posix.forkpty()[0] == 0:\n    while True: pass",
    fork_by_subprocess="""
        import _posixsubprocess as p, os
        def stay():
            while True: pass
        args = [(b'x',), [b'/bin/true'], True, (), None, None, -1, -1, -1, -1, -1, -1, *os.pipe(), True, False, -1]
        p.fork_exec(*args, None, None, None, -1, stay, True)
    """,
    spawn_by_posix="import posix; posix.posix_spawn('/bin/sh', ['sh', '-c', 'echo x > $outside/new'], {})",
    become_the_loader="import posix; posix.execv('/lib64/ld-linux-x86-64.so.2', ['ld', '/bin/true'])",
    session="import posix; posix.setsid(); assert False",
)

MEMORY = _table(
    shared_memory="""
        from multiprocessing import shared_memory
        shared_memory.SharedMemory('pkt-left-over', create=True, size=4096)
    """,
    shared_memory_by_path="open('/dev/shm/pkt-left-over', 'w').write('x')",
    semaphore="""
        import _multiprocessing
        _multiprocessing.SemLock(0, 1, 1, '/pkt-left-over', False)
    """,
    anonymous_file="import posix; posix.memfd_create('x')",
    other_namespaces="import posix; posix.unshare(0x10000000)",
    memory_that_runs="""
        import mmap
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)[:1] = b'x'
        assert False
    """,
    memory_of_the_server="import posix; open(f'/proc/{posix.getppid()}/mem', 'r+b')",
    limits_by_proc="import posix; open(f'/proc/{posix.getppid()}/oom_score_adj', 'w').write('1000')",
    core_pattern="open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/true')",
    truncate_by_posix="import posix; posix.truncate('$outside/victim', 0)",
    chmod_by_posix="import posix; posix.chmod('$outside/victim', 0)",
    unlink_by_posix="import posix; posix.unlink('$outside/victim')",
    rename_by_posix="import posix; posix.rename('$outside/victim', 'mine')",
    leave_beside_the_folder="""
        import posix; posix.mkdir('../beside'); open('../beside/f', 'w').write('x'); raise SystemExit
    """,
    link_beside_the_folder="import posix; posix.symlink('$outside', '../beside'); raise SystemExit",
)

SOCKETS = _table(
    datagram_by_a_pair="""
        import socket
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b'x', '$gram')
    """,
    message_by_a_pair="""
        import socket
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendmsg([b'x'], [], 0, '$gram')
    """,
    stream_by_a_pair="import socket\none, other = socket.socketpair()\none.sendto(b'x', '$unix')",
    packets_by_a_pair="""
        import socket
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.sendto(b'x', '$unix')
    """,
    connect_a_pair="import socket\none, other = socket.socketpair()\none.connect('$unix')\none.send(b'x')",
    hand_over_a_file="""
        import array, socket
        one, other = socket.socketpair()
        one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])
    """,
    listen_on_a_name="import socket; socket.socket(socket.AF_UNIX).bind('\\0pkt-left-over')",
    raw="import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    kernel_by_netlink="import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    kernel_by_crypto="import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    address_by_http="import urllib.request; urllib.request.urlopen('http://127.0.0.1:$tcp', timeout=1)",
)

PROGRAMS: dict[str, str] = LIMITS | SIGNALS | MEMORY | SOCKETS
