"""Leave a process the system calls that Python needs, for good, by a seccomp filter written without a library.

This also works where namespaces are refused (many containers). What is not listed is refused (EPERM), and so are other
arguments of some calls: no executable memory, so that no native code can be loaded; no signal, limit or priority of
another process; no socket but a connected pair. `clone3`, whose arguments a filter cannot see, does not exist (ENOSYS);
the C library then makes threads by `clone`.

Standard library only, loaded by the sandbox's child.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from collections.abc import Iterable
from typing import Any

SET_SECCOMP, SET_NO_NEW_PRIVILEGES = 22, 38
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, the kernel's name
_Number = int | None
# system call -> number on x86-64, on AArch64 (None: not there)
FREE: dict[str, tuple[_Number, _Number]] = {
    # bytes and files: what may be opened is Landlock's matter
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62), "pread64": (17, 67), "pwrite64": (18, 68),
    "readv": (19, 65), "writev": (20, 66), "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286),
    "pwritev2": (328, 287), "open": (2, None), "openat": (257, 56), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "close_range": (436, 436), "pipe": (22, None), "pipe2": (293, 59), "sendfile": (40, 71),
    "splice": (275, 76), "copy_file_range": (326, 285), "ftruncate": (77, 46), "fallocate": (285, 47),
    "fadvise64": (221, 223), "fsync": (74, 82), "fdatasync": (75, 83), "flock": (73, 32), "umask": (95, 166),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "statfs": (137, 43), "fstatfs": (138, 44), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33),
    # memory, time, waiting, threads of its own
    "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216), "msync": (26, 227), "madvise": (28, 233),
    "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
    "sched_yield": (24, 124), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "alarm": (37, None), "pause": (34, None), "getitimer": (36, 102), "setitimer": (38, 103),
    "timerfd_create": (283, 85), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87), "eventfd": (284, None),
    "eventfd2": (290, 19), "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    # questions
    "getrandom": (318, 278), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158),
    "getresuid": (118, 148), "getresgid": (120, 150), "getpgrp": (111, None), "getpgid": (121, 155),
    "getsid": (124, 156), "uname": (63, 160), "sysinfo": (99, 179), "getrlimit": (97, 163),
    "setrlimit": (160, 164), "getrusage": (98, 165), "getpriority": (140, 141),
    "sched_getaffinity": (204, 123), "sched_getscheduler": (145, 120),
    "sched_getparam": (143, 121), "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168), "wait4": (61, 260), "recvfrom": (45, 207), "shutdown": (48, 210),
    "getsockname": (51, 204), "getpeername": (52, 205), "getsockopt": (55, 209),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
GUARDED: dict[str, tuple[_Number, _Number]] = {
    "mmap": (9, 222), "mprotect": (10, 226), "clone": (56, 220), "fcntl": (72, 25), "ioctl": (16, 29),
    "socketpair": (53, 199), "sendto": (44, 206), "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261),
    "setpriority": (141, 140), "prctl": (157, 167), "clone3": (435, 435),
}  # fmt: skip
EXECUTE, ANY = 4, 0xFFFFFFFF
_SELF = 0x7ABCDEF7  # stands for the number of the process that the filter is for
THREAD = (0x3D0F00, 0x7D0F00)  # the flags by which glibc and musl start a thread: everything shared
FCNTL = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    36,
    37,
    38,
    1030,
    1032,
)  # duplicate, flags, locks; no owner, signal, lease, seal
IOCTL = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # is it a terminal, its size, bytes left, blocking, at exec
NO_STOP = tuple(number for number in range(65) if number not in (9, 19))  # a kill from outside is the host's


def _rules(pid: int) -> dict[str, tuple[tuple[int, int, tuple[int, ...]], ...]]:
    """Return what the arguments of guarded calls must be: (argument, mask, values), for all of them."""
    own = (0, ANY, (pid,))
    return {
        "mmap": ((2, EXECUTE, (0,)),),
        "mprotect": ((2, EXECUTE, (0,)),),
        "clone": ((0, ANY, THREAD),),
        "fcntl": ((1, ANY, FCNTL),),
        "ioctl": ((1, ANY, IOCTL),),
        "socketpair": ((0, ANY, (1,)), (1, 0xF, (1,))),  # of Unix streams: datagrams could be sent elsewhere
        "sendto": ((4, ANY, (0,)), (4 + 6, ANY, (0,))),  # to no address; + 6: the upper half of an argument
        "kill": (own, (1, ANY, NO_STOP)),
        "tgkill": (own, (2, ANY, NO_STOP)),
        "prlimit64": ((0, ANY, (0, pid)),),
        "setpriority": ((0, ANY, (0,)), (1, ANY, (0, pid))),
        "prctl": ((0, ANY, (15, 16)),),  # the name of a thread
    }


_Step = tuple[int, int, int, int]
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
ALLOW, REFUSE, ABSENT = (RETURN, 0, 0, 0x7FFF0000), (RETURN, 0, 0, 0x00050001), (RETURN, 0, 0, 0x00050026)


def _block(number: int, rules: tuple[tuple[int, int, tuple[int, ...]], ...]) -> list[_Step]:
    """Return the steps for one guarded call; the call's number is loaded before and, if it is another, still after."""
    steps: list[_Step] = []
    for argument, mask, values in rules:
        low = 16 + 8 * argument if argument < 6 else 16 + 8 * (argument - 6) + 4
        steps += [(LOAD, 0, 0, low), (AND, 0, 0, mask)]
        steps += [(EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
        steps.append(REFUSE)
    return [(EQUAL, 0, len(steps) + 1, number), *steps, ALLOW]


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the numbers as ranges without gaps, each with its end, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


@functools.cache  # built before the first fork; a process then puts in its own number
def program(column: int, machine: int, pid: int = _SELF) -> bytes:
    """Return the filter: another architecture or x32 is refused, then guarded calls are checked, then free ones."""
    steps = [
        (LOAD, 0, 0, 4),
        (EQUAL, 1, 0, machine),
        REFUSE,
        (LOAD, 0, 0, 0),
        (AT_LEAST, 0, 1, 0x40000000),
        REFUSE,
    ]
    for name, rules in _rules(pid).items():
        number = GUARDED[name][column]
        assert number is not None
        steps += _block(number, rules)
    steps += [(EQUAL, 0, 1, GUARDED["clone3"][column] or 0), ABSENT]
    for first, end in _ranges(number for pair in FREE.values() if (number := pair[column]) is not None):
        steps += [(AT_LEAST, 1, 0, first), REFUSE, (AT_LEAST, 1, 0, end), ALLOW]
    return b"".join(struct.pack("=HBBI", *step) for step in (*steps, REFUSE))


def filter_calls(native: Any) -> set[str]:
    """Let the kernel refuse every call but the listed ones, for this process and for good.

    Returns:
        ``{"network", "signals", "metadata", "code"}`` if the kernel supports it (Linux on x86-64 and AArch64), else
        nothing.
    """
    machine = MACHINES.get(os.uname().machine)
    if not sys.platform.startswith("linux") or machine is None:
        return set()
    code = program(*machine).replace(struct.pack("=I", _SELF), struct.pack("=I", os.getpid()))
    held, place = native.address(code)
    header = struct.pack("HxxxxxxQ", len(code) // 8, place)
    try:
        native.call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        native.call("prctl", SET_SECCOMP, 2, header, 0, 0)
    except OSError:
        return set()
    del held
    return {"network", "signals", "metadata", "code"}
