"""Where a request may write: the one place that resolves its folders, refuses some, and clears up after a refusal.

    output_dir ─┬─ store/                  artifacts (pkt.store)
                └─ runs/<verb>/<stamp>/    a run's folder, or PKT_RUN_DIR, or hydra.run.dir
                   runs/<verb>/multirun/   a sweep's folder, or hydra.sweep.dir, with a folder per job

A run or a sweep gets a folder that is new, empty, or was a run's before: files that are not pkt's are never
overwritten. What a refused request leaves is removed file by file, and only what this process wrote.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pkt import secrets
from pkt.errors import PktError, RequestError
from pkt.verbs import RUNS

_SIGN = "_target_: pkt."  # in the files that Hydra leaves in every run's and sweep's folder
_LOG = re.compile(r"\$\{hydra[.:]runtime\.output_dir\}/")
_NAME = re.compile(r"[\w.=,+@ -]+")


@dataclass(kw_only=True)
class RunFolder:
    """A run's folder, with what was there before the run.

    Attributes:
        path: the folder.
        before: what lay in it before.
        missing: the folders that this process makes: `path` and those above it, the innermost first.
        written: files, and folders with all that is in them, that this process has put there.
    """

    path: Path
    before: frozenset[Path]
    missing: tuple[Path, ...]
    written: list[Path] = field(default_factory=list)

    @classmethod
    def find(cls, path: Path) -> RunFolder:
        """Look at a folder before anything is written to it."""
        path = path.resolve()
        missing = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        return cls(path=path, before=frozenset(path.rglob("*")), missing=missing)

    def clear(self) -> None:
        """Remove what this process has written, and the folders that it made, as far as they are empty then."""
        for place in self.written:
            inside = sorted(place.rglob("*"), reverse=True) if place.is_dir() else []
            for path in (*inside, place):
                if path not in self.before and path.is_relative_to(self.path):
                    _remove(path)
        for folder in {path.parent for path in self.written} - {self.path}:
            if folder.is_relative_to(self.path) and folder not in self.before:
                _remove(folder)
        for folder in self.missing:
            _remove(folder)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # not there, not empty, or on a disk that takes no writes
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def output_dir(text: str) -> Path:
    """Return the folder of the store and of all runs, as a whole path.

    Args:
        text: what the request says.

    Raises:
        RequestError: no folder, the root of the file system, or `~`, which only a shell understands.
        PktError: a file is in its place.
    """
    folder = _folder(text, "output_dir", "output_dir (PKT_OUTPUT_DIR)", "; the default is outputs")
    for below in ("runs", "store"):
        _check_no_file(folder / below, "output_dir (PKT_OUTPUT_DIR)")
    return folder


def _folder(text: str, key: str, remedy: str, more: str = "") -> Path:
    """Return a folder that a request names, as a whole path.

    Args:
        text: its path.
        key: what sets it.
        remedy: the same, as a user would set it.
        more: end of the message about an empty name.

    Raises:
        RequestError: no folder, the root of the file system, or `~`, which only a shell understands.
        PktError: a file is in its place, or a link that leads nowhere.
    """
    if not text.strip() or "\0" in text:
        raise RequestError(f"{key}: the name of a folder is expected, got {text!r}{more}")
    if text.startswith("~"):
        raise RequestError(
            f"{key}={text}: write the whole path, such as {Path.home() / text.lstrip('~/')}; "
            "the shell reads ~ at the beginning of a word only"
        )
    try:
        folder = Path(text).resolve()
    except RuntimeError as error:  # a symbolic link to itself
        raise PktError(f"cannot write {text}: {error}; set {remedy} to a folder") from error
    if folder == Path(folder.anchor):
        raise RequestError(f"{key}={text} is the root of the file system: name a folder for results")
    if Path(text).is_symlink() and not folder.exists():
        raise PktError(f"cannot write {text}: it is a link to {folder}, which is not there; set {remedy}")
    _check_no_file(folder, remedy)
    return folder


def _check_no_file(folder: Path, remedy: str) -> None:
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise PktError(f"cannot write {folder}: {path} is a file; set {remedy} to a folder")


def run_folder(config: DictConfig) -> RunFolder:
    """Return the folder of a single run; nothing is written.

    Args:
        config: the composed request with its `hydra` node.

    Raises:
        RequestError: the folder may not be a run's.
    """
    outputs = _outputs(config)
    named = "PKT_RUN_DIR" if os.environ.get("PKT_RUN_DIR") else "hydra.run.dir"
    return _own(str(config.hydra.run.dir), outputs, _store(config, outputs), named)


def sweep_folder(config: DictConfig) -> RunFolder:
    """Return the folder of a sweep, checked; nothing is written.

    Args:
        config: the composed request with its `hydra` node; values that are swept are not in it.

    Raises:
        RequestError: the folder may not be a sweep's, or its jobs could leave it.
    """
    words = [str(word) for word in config.hydra.overrides.task]
    for override in OverridesParser.create().parse_overrides(words):
        if override.is_sweep_override() and override.key_or_group in ("verb", "output_dir"):
            raise RequestError(f"{override.key_or_group} cannot be swept over: all jobs of a sweep share one")
    outputs = _outputs(config)
    _check_subdir(config, words)
    return _own(str(config.hydra.sweep.dir), outputs, _store(config, outputs), "hydra.sweep.dir")


def _check_subdir(config: DictConfig, words: list[str]) -> None:
    """Refuse a name of jobs' folders that leads out of the sweep's, also by what it is made of.

    Raises:
        RequestError: it does.
    """
    subdir = str(OmegaConf.to_container(config.hydra.sweep)["subdir"])  # type: ignore[index, call-overload]
    texts = [subdir, *(words if "override_dirname" in subdir else ())]
    with contextlib.suppress(OmegaConfBaseException, RecursionError):  # made of what each job has of its own
        job = copy.deepcopy(config)
        OmegaConf.set_readonly(job.hydra, False)
        OmegaConf.update(job, "hydra.job.num", 0)
        OmegaConf.update(job, "hydra.job.id", "0")
        job.hydra.sweep.subdir = subdir.replace("${hydra:", "${hydra.")
        texts.append(str(job.hydra.sweep.subdir))
    for override in OverridesParser.create().parse_overrides(words):
        if f"${{{override.key_or_group}}}" in subdir:
            texts += re.sub(r"""[\\'"() ]""", "", override.input_line.partition("=")[2]).split(",")
    if any(text.startswith("/") or ".." in re.split(r"[/=,]", text) for text in texts):
        raise RequestError(f"hydra.sweep.subdir={subdir}: a folder inside the sweep's is expected")
    if any(secrets.hide_word(text) != text for text in texts):
        raise RequestError(
            f"hydra.sweep.subdir={subdir}: a credential would be in the name of a folder; name folders by other "
            "settings, such as ${hydra.job.num}"
        )


def _outputs(config: DictConfig) -> Path:
    """Check all that a run's place is made of, and return the resolved `output_dir`."""
    if config.verb not in RUNS:
        raise RequestError(f"verb: got '{config.verb}'; allowed: {', '.join(RUNS)}")
    if config.hydra.job.chdir:
        raise RequestError(
            "hydra.job.chdir=true would make relative paths lead elsewhere: leave it false; "
            "run folders are named by output_dir and PKT_RUN_DIR"
        )
    names = {
        "hydra.output_subdir": config.hydra.output_subdir,
        "hydra.job.name": config.hydra.job.name,
    }
    for key, name in names.items():
        if name is not None and (not _NAME.fullmatch(str(name)) or str(name) in (".", "..")):
            raise RequestError(f"{key}: a name without slashes is expected, got '{name}'")
    _logs_stay(config)
    return output_dir(str(config.output_dir))


def _store(config: DictConfig, outputs: Path) -> Path:
    """Return the resolved folder of the store."""
    if not config.store_dir:
        return outputs / "store"
    return _folder(
        str(config.store_dir), "store_dir", "store_dir (PKT_STORE_DIR)", "; null: store/ in output_dir"
    )


def _logs_stay(config: DictConfig) -> None:
    """Refuse log files outside the run's folder, where a file of the user's may be."""
    for key in ("job_logging", "hydra_logging"):
        content: Any = OmegaConf.to_container(config.hydra[key])
        for name, handler in (content.get("handlers") or {}).items():
            file = str(handler.get("filename", ""))
            if file and (not _LOG.match(file) or ".." in Path(file).parts):
                raise RequestError(
                    f"hydra.{key}.handlers.{name}.filename={file}: log files are kept in the run's folder: "
                    "${hydra.runtime.output_dir}/<name>.log"
                )


def _own(text: str, outputs: Path, store: Path, named: str) -> RunFolder:
    """Return a folder for a run or a sweep.

    Args:
        text: its path.
        outputs: the resolved `output_dir`.
        store: the resolved folder of the store.
        named: what sets it, for messages.
    """
    remedy = f"set {named} to a new folder, or leave it out"
    if not text.strip():
        raise RequestError(f"{named} is empty: {remedy}")
    path = _folder(text, named, named)
    if path == outputs or path in outputs.parents:
        raise RequestError(f"{named}={text} holds output_dir ({outputs}), and more than one run: {remedy}")
    if path.is_relative_to(outputs / "store") or path.is_relative_to(store):
        raise RequestError(f"{named}={text} is inside the store: {remedy}")
    if path.is_dir() and any(path.iterdir()) and not _signed(path):
        raise RequestError(f"{named}={text} holds files that are not of a run of pkt: {remedy}")
    return RunFolder.find(path)


def _signed(folder: Path) -> bool:
    """Return whether Hydra has left its record of a request of pkt in a folder."""
    for name in (".hydra/hydra.yaml", "multirun.yaml"):
        with contextlib.suppress(OSError, UnicodeDecodeError):  # another's file, which says nothing
            if _SIGN in (folder / name).read_text(encoding="utf-8"):
                return True
    return False


_FOUND: dict[Path, RunFolder] = {}
_HELD: list[int] = []  # handle of the folder that this process runs in


def hold(folder: RunFolder) -> None:
    """Make a run's or sweep's folder, and keep other processes out of it until the request ends.

    Two processes would write over each other, and one that is refused would clear up after the other.

    Raises:
        PktError: another process runs there, or the folder cannot be made.
    """
    release()
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        _HELD.append(os.open(folder.path, os.O_RDONLY))
    except OSError as error:
        raise PktError(
            f"cannot write the run folder: {error}; set output_dir or PKT_OUTPUT_DIR to a writable place"
        ) from error
    try:
        fcntl.flock(_HELD[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PktError(
            f"another process runs in {folder.path}: give this one another folder, or wait for the other"
        ) from error
    except OSError:  # a file system without locks
        return


def release() -> None:
    """Let other processes into the folder of a request that has ended."""
    while _HELD:
        os.close(_HELD.pop())


def begin(folder: RunFolder) -> None:
    """Remember what was there before a run, until the run asks for it."""
    _FOUND.clear()  # of an earlier request of this process
    _FOUND[folder.path] = folder


def begun(path: Path) -> RunFolder:
    """Return what is known of a run's folder; where nothing is, what lies in it now counts as there before."""
    if path.resolve() not in _FOUND:
        begin(RunFolder.find(path))
    return _FOUND[path.resolve()]
