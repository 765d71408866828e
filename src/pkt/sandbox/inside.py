"""What a program finds inside its interpreter: the library, the calls that are gone, and the way to a verdict.

The namespace, the module name, the streams and the calls that are None are those of Hugging Face's `code_eval`
(after OpenAI's human-eval), so that a right program passes here if it passes there.

Standard library only, loaded by the sandbox's child with builtins of its own, which a program cannot change.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import os
import sys
import types
from typing import Any, NoReturn

# loaded before the first fork: a program loads no native code, and its user may lack the right to read the library
LIBRARY = (
    "abc argparse array ast asyncio atexit base64 binascii bisect bz2 calendar cmath cmd code codecs "
    "collections collections.abc concurrent.futures.thread configparser contextlib contextvars copy copyreg "
    "csv dataclasses datetime decimal difflib dis doctest email.message encodings.idna encodings.latin_1 "
    "encodings.ascii encodings.utf_16 enum errno faulthandler fcntl fileinput fnmatch fractions functools "
    "gettext glob graphlib grp gzip hashlib heapq hmac html html.parser http.client importlib.machinery "
    "importlib.resources importlib.util inspect io ipaddress itertools json keyword linecache locale logging "
    "lzma mailbox marshal math mimetypes mmap multiprocessing multiprocessing.pool ntpath numbers opcode "
    "operator optparse pathlib pdb pickle pickletools pkgutil platform plistlib pprint profile cProfile pwd "
    "queue quopri random re reprlib resource runpy sched secrets select selectors shelve shlex shutil signal "
    "socket sqlite3 ssl stat statistics string stringprep struct subprocess symtable sysconfig tarfile "
    "tempfile termios textwrap threading time timeit token tokenize tomllib trace traceback tracemalloc types "
    "typing unicodedata unittest unittest.mock urllib.parse urllib.request uuid warnings wave weakref "
    "xml.dom.minidom xml.etree.ElementTree zipfile zlib zoneinfo"
)
NATIVE = (
    "_bisect _blake2 _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw _csv _datetime "
    "_decimal _elementtree _hashlib _heapq _json _lsprof _md5 _multibytecodec _opcode _pickle "
    "_posixsubprocess _queue _random _sha1 _sha2 _sha256 _sha3 _sha512 _socket _statistics _struct _typing "
    "_uuid _zoneinfo audioop pyexpat xxsubtype"
)
# calls of `code_eval`'s guard, which sets them to None, existing or not
NONE = {
    "os": "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames truncate "
    "replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir",
    "shutil": "rmtree move chown",
    "subprocess": "Popen",
    "builtins": "exit quit help",
}
HIDDEN = ("ipdb", "joblib", "resource", "psutil", "tkinter")
# calls that no program needs: other processes, the heap, native code, bytecode
GONE = {
    "posix": "fork forkpty posix_spawn posix_spawnp execv execve system kill killpg setpriority sched_setaffinity "
    "sched_setscheduler sched_setparam pidfd_open memfd_create unshare setns",
    "os": "posix_spawn posix_spawnp execv execve setpriority sched_setaffinity sched_setscheduler sched_setparam "
    "pidfd_open memfd_create unshare setns",
    "_posixsubprocess": "fork_exec",
    "subprocess": "_fork_exec",
    "_signal": "pidfd_send_signal",
    "signal": "pidfd_send_signal",
    "gc": "get_objects get_referrers get_referents freeze unfreeze set_debug",
    "marshal": "load loads",
    "sys": "_current_frames _current_exceptions _settraceallthreads",
    "_multiprocessing": "SemLock sem_unlink",
    "_imp": "create_dynamic create_builtin get_frozen_object",
}
KEPT = 2**24  # characters of output
STACK = (
    2**22
)  # bytes of a thread's stack: of 64 threads with the system's 8 MB the address space would be full
FAILED, REFUSED = b"fail", b"refused"


def preload() -> None:
    """Load the library; modules that this Python lacks are left out."""
    for name in f"{LIBRARY} {NATIVE}".split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.implementation.cache_tag = None  # type: ignore[assignment]  # modules come from source: bytecode may be forged


class Swallowed(io.StringIO):
    """Standard output, error and input: takes any text, keeps what was written first, gives none."""

    def write(self, text: str) -> int:
        """Take a text."""
        return super().write(text) if self.tell() < KEPT else len(text)

    def read(self, *_: Any) -> str:
        """Refuse, as `readline` and `readlines` do."""
        raise OSError("no input")

    readline = readlines = read  # type: ignore[assignment]

    def readable(self) -> bool:
        """Return False."""
        return False


def detach(*spaces: dict[str, Any]) -> None:
    """Give modules of the sandbox an `os` that keeps the calls which programs lose."""
    own = types.SimpleNamespace(**vars(os))
    for space in spaces:
        space["os"] = own


def strip() -> None:
    """Take away the calls in `GONE`; what remains of the ways to make processes, native code or bytecode is refused."""
    for module, names in GONE.items():
        held = vars(sys.modules[module]) if module in sys.modules else {}
        for name in names.split():
            if held.pop(name, None) is not None and module == "_imp":
                held[name] = _refuse_import
    sys.settrace = _trace


def _trace(function: Any) -> None:
    """Stand in for `sys.settrace`: end tracing, which the library does here and there, but begin none."""
    if function is not None:
        raise PermissionError("the sandbox refuses tracing")


def _refuse_import(*_: Any) -> NoReturn:
    raise ImportError("the sandbox has this module not loaded, and refuses to load native code")


def furnish() -> None:
    """Leave the interpreter as `code_eval` does, with an empty main module, no arguments and no environment."""
    for module, names in NONE.items():
        for name in names.split():
            setattr(sys.modules[module], name, None)
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    dict.clear(os.environ._data)  # type: ignore[attr-defined]
    os.environ._data[b"OMP_NUM_THREADS"] = b"1"  # type: ignore[attr-defined]
    sys.stdout = sys.stderr = sys.stdin = Swallowed()
    sys.modules["threading"].stack_size(STACK)
    own = sys.modules["signal"]
    own.signal(own.SIGINT, own.default_int_handler)  # ignored where pkt was started in the background


def judge(source: str, folder: str, gate: int, answer: int) -> NoReturn:
    """Run a program, then answer with the word that waits behind the gate if its last statement was reached.

    The word is read before the program runs and kept on the interpreter's stack, where no frame shows it.
    """
    read, write, leave, denied, anything = os.read, os.write, os._exit, PermissionError, BaseException
    described, failed, refused = _described, FAILED, REFUSED
    sys.modules["tempfile"].tempdir = folder  # type: ignore[attr-defined]
    sys.modules.update(dict.fromkeys(HIDDEN))  # type: ignore[arg-type]  # the fork server itself needs some
    try:
        write(answer, read(gate, 16) + _completed(source))
    except denied as error:  # the kernel's and the audit hook's
        write(answer, refused + described(error))
    except anything as error:  # SystemExit and KeyboardInterrupt are failures too
        write(answer, failed + described(error))
    finally:
        leave(0)


def _completed(source: str) -> bytes:
    """Run a program, and return only if it reaches its end."""
    exec(compile(source, "<string>", "exec", dont_inherit=True), {"__builtins__": vars(builtins)})
    return b""


def _described(error: BaseException) -> bytes:
    kind = type(error)
    try:
        return f" {kind.__name__}: {error}"[:300].encode("utf-8", "replace")
    except BaseException:  # a program's exception may refuse to say what it is
        return b""
