"""`pkt push`: a checkpoint goes to the hub, after a look at what would go.

pkt push checkpoint=outputs/runs/run/<stamp> repo=org/name     a run's student; or the folder of a model or adapter
pkt push checkpoint=... repo=org/name private=true --dry-run   only say what would go

words -> the folder -> what is wrong with it, what its card lacks -> huggingface_hub
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pkt import console
from pkt.errors import PktError, RequestError, first_line, nearest
from pkt.foreign import network_errors
from pkt.models.ancestry import front_matter
from pkt.models.source import is_hub_id
from pkt.results import Result
from pkt.run_files import ADAPTER, CHECKPOINT, RUN_STAGES

KEYS = ("checkpoint", "repo", "private")
_HERE = re.compile(r"(?:(?<=[\s'\"=`,(])|^)(?:~|/[\w.-]+)/[\w./-]+|package:[\w./-]+")  # of this machine


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What goes to the hub.

    Attributes:
        folder: of a model or adapter.
        repo: ``org/name``.
        private: whether only its owner is to see it; None: as the hub has it, or makes it.
    """

    folder: Path
    repo: str
    private: bool | None

    @property
    def files(self) -> dict[str, int]:
        """Name -> bytes."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in found}

    def lacking(self) -> list[str]:
        """Say what a reader on the hub will miss, or should not see; none of it stops the push."""
        file = self.folder / "README.md"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        head = front_matter(text)
        found = [] if text else ["there is no card (README.md)"]
        if text and "license" not in head:
            found.append(
                "the card names no license: add `license: ...` to its head, as that of the base model allows"
            )
        if text and "base_model" not in head:
            found.append("the card names no base model, since that is not on the hub")
        if named := sorted(set(_HERE.findall(text))):
            found.append(f"the card names files of this machine: {', '.join(named[:3])}")
        return found


def main(words: Sequence[str]) -> int:
    """Push, or say what would go.

    Args:
        words: the command line after ``pkt push``.

    Raises:
        RequestError: no such folder, or it cannot be loaded elsewhere.
        PktError: the hub does not take it.
    """
    if {"-h", "--help"} & set(words):
        console.say((__doc__ or "").rpartition("\n\n")[0])
        return 0
    dry, parcel = "--dry-run" in words, _parcel([word for word in words if word != "--dry-run"])
    for name, size in parcel.files.items():
        console.say(f"{size / 1e6:>10,.1f} MB  {name}")
    console.say(f"{sum(parcel.files.values()) / 1e6:>10,.1f} MB  in all, from {parcel.folder}")
    for sentence in parcel.lacking():
        console.warn(sentence)
    if dry:
        console.say(f"nothing was sent; without --dry-run it goes to {parcel.repo}")
        return 0
    console.say(_sent(parcel))
    return 0


def _parcel(words: Sequence[str]) -> Parcel:
    settings: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise RequestError(
                f"pkt push: '{word}'{nearest(key, KEYS)}; it takes checkpoint=<folder> repo=org/name, and "
                "private=true, --dry-run"
            )
        settings[key] = value
    if missing := [key for key in ("checkpoint", "repo") if not settings.get(key)]:
        raise RequestError(
            f"pkt push: not set: {', '.join(missing)}; pkt push checkpoint=<folder> repo=org/name"
        )
    if not is_hub_id(settings["repo"]):
        raise RequestError(f"repo={settings['repo']}: org/name is expected, as on the hub")
    private = settings.get("private")
    if private not in ("true", "false", None):
        raise RequestError(f"private={private}: true or false is expected")
    folder = _folder(settings["checkpoint"])
    _check_base(folder)
    return Parcel(
        folder=folder, repo=settings["repo"], private=None if private is None else private == "true"
    )


def _folder(named: str) -> Path:
    """Return the folder of a model or adapter that a run's folder, an artifact or the folder itself names."""
    given = Path(named).expanduser()
    places = [given, given / CHECKPOINT]
    if (given / RUN_STAGES).is_file() and (found := Result(folder=given).checkpoint):
        places.append(found)
    for folder in places:
        if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            if not any(folder.glob("*.safetensors")):
                raise RequestError(f"checkpoint={named}: no weights (*.safetensors) in {folder}")
            return folder
    raise RequestError(
        f"checkpoint={named}: no model and no adapter there; name a run's folder, or the one that pkt calls checkpoint"
    )


def _check_base(folder: Path) -> None:
    """Refuse an adapter whose base model nobody else could load."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    content: Mapping[str, object] = json.loads(file.read_text(encoding="utf-8"))
    base = str(content.get("base_model_name_or_path"))
    if not is_hub_id(base) or Path(base).exists():
        raise RequestError(
            f"checkpoint={folder}: this {ADAPTER} is for {base}, which is not on the hub. Push the model that it is "
            f"merged into ({CHECKPOINT}/ beside it), or set base_model_name_or_path in "
            "adapter_config.json to an id on the hub"
        )


def _check_seen(parcel: Parcel, is_private: bool) -> None:
    """Refuse to send to a repository that was there before, and that others see than was asked for."""
    if parcel.private not in (None, is_private):
        seen = "private" if is_private else "public"
        raise RequestError(
            f"private={str(parcel.private).lower()}: {parcel.repo} is there, and {seen}: change that on the hub first, "
            "or name another; nothing was sent"
        )


def _sent(parcel: Parcel) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    remedy = "Log in with a token that may write (hf auth login, or HF_TOKEN), and look at the name"
    hub = HfApi(library_name="pkt")
    try:
        hub.create_repo(parcel.repo, private=parcel.private, exist_ok=True)
        _check_seen(parcel, bool(hub.repo_info(parcel.repo).private))
        return str(
            hub.upload_folder(repo_id=parcel.repo, folder_path=parcel.folder, commit_message="Add the model")
        )
    except OfflineModeIsEnabled as error:
        raise PktError("HF_HUB_OFFLINE is set: unset it, or look with --dry-run") from error
    except network_errors(LocalTokenNotFoundError) as error:
        raise PktError(f"the hub did not take {parcel.repo}: {first_line(error)}. {remedy}.") from error
