"""Take system calls away from a process for good, by a seccomp filter that is written without a library.

This also works where namespaces are refused (many containers). Standard library only, loaded by the sandbox's child.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

SET_SECCOMP, SET_NO_NEW_PRIVILEGES = 22, 38
# system calls that a program has no use for -> number on x86-64, on AArch64 (None: not there)
CALLS: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "execve": (59, 221),
    "execveat": (322, 281),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # its rings do what other calls do, past this filter
    "memfd_create": (319, 279),  # files that no limit on the disk sees
    "shmget": (29, 194),
    "msgget": (68, 186),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "chmod": (90, None),  # from here on: what Landlock leaves to the owner of a file
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of CALLS, the kernel's name


def filter_calls() -> set[str]:
    """Let the kernel answer EPERM to the system calls in `CALLS`, for this process and for good.

    Returns:
        ``{"network", "signals", "metadata"}`` if the kernel supports it (Linux on x86-64 and AArch64), else nothing.
    """
    machine = MACHINES.get(os.uname().machine)
    if not sys.platform.startswith("linux") or machine is None:
        return set()
    column, name = machine
    refused = [pair[column] for pair in CALLS.values() if pair[column] is not None]
    allow, refuse = (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)  # BPF_RET with the kernel's verdicts
    steps = [(0x20, 0, 0, 4), (0x15, 0, len(refused) + 3, name)]  # load the architecture; another one: refuse
    steps += [(0x20, 0, 0, 0), (0x35, len(refused) + 1, 0, 0x40000000)]  # load the number; x32's: refuse
    steps += [(0x15, len(refused) - at, 0, number) for at, number in enumerate(refused) if number is not None]
    code = b"".join(struct.pack("=HBBI", *step) for step in (*steps, allow, refuse))
    program = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(program)), 16
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = libc.prctl(SET_SECCOMP, 2, header, 0, 0) == 0
    return {"network", "signals", "metadata"} if done else set()
