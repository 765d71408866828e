"""Errors of other people's code in pkt's words: which file is damaged, or what the machine lacks, and what to do.

    with foreign("the teacher", folder): <calls of transformers, safetensors, tokenizers, gguf, peft, datasets>

        the disk is full, a file is not ours, no memory     PktError: exit code 1
        a file of the folder is damaged, or does not fit    RequestError: exit code 2; found by looking at the files
        anything else                                       PktError with the library's own words

What failed is found in the files and in the system's error numbers, never in the wording of a library's message.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pkt.errors import PktError, RequestError, first_line, system_number
from pkt.faults import FETCH, faults, shapes

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WHY = {
    errno.EACCES: "permission is denied; change the permissions, or name another place",
    errno.EPERM: "permission is denied; change the permissions, or name another place",
    errno.EROFS: "it lies on a file system that can only be read; name another place",
    errno.EIO: "the disk (or the network it lies on) reports an input/output error; check it, and try again",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n 4096)",
    errno.ENFILE: "too many files are open on this machine; close some programs",
    errno.ENAMETOOLONG: "a path is too long for this file system; use a shorter output_dir",
    errno.ENOMEM: "the machine has no memory left; use a smaller model, batch_size or max_length",
    errno.ESTALE: "the network file system has lost the file; mount it anew, and try again",
}
_AS_IT_IS = {"local_files_only": True, "trust_remote_code": False}
_OWN_CODE = (
    "the model brings code of its own, which pkt does not run; take one of a type that transformers knows"
)
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|std::bad_alloc", re.IGNORECASE
)
_GONE = re.compile(r"(?i)connection (closed|reset) by peer|gloo/transport|nccl.*(remote|abort)")


@contextmanager
def foreign(what: str, path: Path | str | None = None, remedy: str = "") -> Iterator[None]:
    """Turn exceptions of other people's code into one message; pkt's own pass as they are.

    Keep the block small: a bug of pkt's inside it would be told as the library's failure.

    Args:
        what: what is being done, or with what: the first words of the message (``the teacher 'x'``).
        path: the folder or file that is read or written; it is searched for what is damaged.
        remedy: what to do where no fault is found.

    Raises:
        PktError: the machine lacks something, or the library failed for a reason that cannot be told.
        RequestError: a file is damaged or does not fit.
    """
    try:
        yield
    except PktError:
        raise
    except Exception as error:
        place = Path(path).expanduser() if path is not None else None
        if lacking := machine_fault(error, place):
            raise PktError(f"{what}: {lacking}") from error
        if place is not None and place.exists() and (found := faults(place) or unreadable(place)):
            raise RequestError(f"{what}: " + "\n  ".join(found)) from error
        raise PktError(f"{what}: {_words(error)}{f'; {remedy}' if remedy else ''}") from error


def machine_fault(error: BaseException, place: Path | None = None) -> str | None:
    """Say what the machine lacks where an exception, or one that it came from, says so; else None.

    Args:
        error: any exception.
        place: what was being read or written, for errors that name no file.
    """
    for cause in _chain(error):
        if isinstance(cause, MemoryError) or _is_out_of_memory(cause):
            return _WHY[errno.ENOMEM] + f" ({first_line(cause)})"
        if _is_of_another(cause):
            return (
                "another process of this request has ended, and what it or its launcher says is the reason; the same "
                "command goes on from here, also with another number of processes"
            )
        number = system_number(cause)
        named = getattr(cause, "filename", None) or place
        at = f"{named}: " if named else ""
        if number in _FULL:
            return f"{at}no space is left on the disk{_free(named)}; free some, or set output_dir to another disk"
        if number in _WHY:
            return at + _WHY[number]
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, each once."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or link.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch could not allocate: on a GPU it has a class for that, on a CPU only words."""
    gpu = any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__)
    return gpu or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


def _is_of_another(error: BaseException) -> bool:
    """Return whether a collective operation failed because a process that takes part in it is gone."""
    of_torch = any(cls.__name__ == "DistError" for cls in type(error).__mro__)
    return of_torch or (isinstance(error, RuntimeError) and bool(_GONE.search(str(error))))


def _free(place: Path | str | None) -> str:
    """Say what is free where a place is; nothing where it is not known which disk is full."""
    if place is None:
        return ""
    try:
        folder = next(folder for folder in (Path(place), *Path(place).parents) if folder.is_dir())
        return f" ({shutil.disk_usage(folder).free / 2**20:,.0f} MB free)"
    except (OSError, StopIteration, ValueError):
        return ""


def _words(error: BaseException) -> str:
    """Return a library's own words, and whose they are."""
    package = type(error).__module__.partition(".")[0]
    whose = "" if package == "builtins" else f" of {package}"
    text = " ".join(str(error).split()) or "without a word"
    return f"{type(error).__name__}{whose}: {text[:300]} (PKT_DEBUG=1 shows where)"


def unreadable(path: Path) -> list[str]:
    """Say which file of a model a library cannot read although it looks in order: each is given to its reader alone.

    Args:
        path: a folder in transformers' format, or a GGUF file.
    """
    for file, reader in _readers(path):
        if file.is_file():
            try:
                reader(file)
            except Exception as error:
                if '"auto_map"' in file.read_text(encoding="utf-8", errors="replace"):
                    return [f"{file}: {_OWN_CODE} ({first_line(error)})"]
                if file.name == "tokenizer_config.json" and not (path / "tokenizer.json").is_file():
                    return [
                        f"{path} has no tokenizer.json, and without it its tokenizer cannot be made; copy it too"
                    ]
                return [f"{file} cannot be read: {_words(error)}; {FETCH}"]
    return _misfits(path)


def _readers(path: Path) -> Iterator[tuple[Path, Callable[[Path], Any]]]:
    """Yield files of a model, each with what reads it and nothing else, the ones that others need first."""
    import tokenizers
    import transformers

    if path.suffix == ".gguf":
        import gguf

        yield path, gguf.GGUFReader
        return
    yield path / "config.json", lambda file: transformers.AutoConfig.from_pretrained(file.parent, **_AS_IT_IS)
    yield (
        path / "generation_config.json",
        lambda file: transformers.GenerationConfig.from_pretrained(file.parent),
    )
    yield path / "tokenizer.json", lambda file: tokenizers.Tokenizer.from_file(str(file))
    yield (
        path / "tokenizer_config.json",
        lambda file: transformers.AutoTokenizer.from_pretrained(file.parent, **_AS_IT_IS),
    )


def _misfits(folder: Path) -> list[str]:
    """Name a tensor whose shape is not the one that the folder's config describes."""
    import torch
    import transformers

    file = folder / "config.json"
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **_AS_IT_IS)
        with torch.device("meta"):
            expected = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    except Exception as error:
        return [
            f"{file} describes a model that cannot be made: {_words(error)}; take a config that fits the weights"
        ]
    for file in sorted(folder.glob("*.safetensors")):
        for name, shape in shapes(file).items():
            if name in expected and tuple(expected[name].shape) != shape:
                wanted = "x".join(map(str, expected[name].shape))
                return [
                    f"{folder / 'config.json'} does not fit {file.name}: {name} is {'x'.join(map(str, shape))}, and by "
                    f"the config {wanted}; take both from the same model"
                ]
    return []


def network_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what a request to the hub raises, and more: what the system says, and what the client's HTTP library does.

    Which library that is depends on the client's version; the client's own error is made of its base class.
    """
    from huggingface_hub.errors import HfHubHTTPError

    own = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception) and kind is not Exception)
    return (*own, OSError, *more)
