"""Reach the Hugging Face hub, or say in one message why it cannot be reached and what to do.

`reach` asks the hub once, with a short timeout, before transformers does: without a network, transformers' own retries
take over twenty seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants

from pkt import console
from pkt.errors import PktError, RequestError, first_line
from pkt.foreign import foreign, machine_fault, network_errors
from pkt.models.source import Source, pickles_only

log = logging.getLogger(__name__)

SECONDS = 5.0  # timeout of the first answer
PATIENCE = 60.0  # seconds for which a refusal is believed: somebody may log in meanwhile
_ANSWERS: dict[tuple[str, str, bool], Answer] = {}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the hub said of a model.

    Attributes:
        problem: why it cannot be had there; None where it can.
        commit: that its revision stands for.
        at: when.
    """

    problem: str | None
    commit: str | None
    at: float


def commit(source: Source) -> str | None:
    """Return the commit that a hub source is loaded from in this process: the hub's, else the local cache's.

    A branch may move while a process runs, so that the first answer holds.
    """
    return _answer(source).commit or cached_commit(source)


def cached_commit(source: Source) -> str | None:
    """Return the commit that the local cache holds for a hub source's revision, or None."""
    folder = _cached(source)
    return folder.name if folder is not None else None


def reach(source: Source) -> dict[str, Any]:
    """Return the arguments with which transformers should load a hub source.

    Without a network, a source in the local cache is used as it is, as a folder: transformers would still ask
    the hub for it, even with `local_files_only`, and wait.

    Raises:
        PktError: it can be had neither from the hub nor from the cache.
        RequestError: no such revision, or pickled weights only.
    """
    cached = _cached(source)
    answer = _answer(source)
    if answer.problem is None:
        return {"pretrained_model_name_or_path": source.name, "revision": answer.commit or source.revision}
    if cached is None:
        raise PktError(missing(source, answer.problem))
    log.debug("%s from the local cache: %s", source.name, answer.problem)
    return {"pretrained_model_name_or_path": str(cached), "local_files_only": True}


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn the many errors of transformers and what it calls into one message about a checkpoint.

    Raises:
        PktError: a hub source could not be loaded, or the machine lacks something.
        RequestError: a file of the checkpoint is damaged, or does not fit the others.
    """
    local = source.path or _cached(source)
    with foreign(f"model.{source.who}.checkpoint={source.name}", local, "try another checkpoint"):
        try:
            yield
        except network_errors() as error:
            if source.kind == "hub" and machine_fault(error) is None:
                raise PktError(missing(source, first_line(error))) from error
            raise


def missing(source: Source, problem: str) -> str:
    """Say what is missing and the ways to supply it."""
    who, name = source.who, source.name
    ways = {
        "hf auth login": f"for a gated model, also accept its licence: {constants.ENDPOINT}/{name}",
        f"model.{who}.checkpoint=/path/to/folder": "with config.json, tokenizer files and *.safetensors",
        "HF_HOME=/path/to/a/filled/cache": f"filled where there is a network: hf download {name}",
    }
    lines = [f"  {way:<42}{note}" for way, note in ways.items()]
    return "\n".join(
        [
            f"the {who} '{name}' (revision {source.revision}) is not available: {problem}",
            "Supply it in one of these ways:",
            *lines,
        ]
    )


def _cached(source: Source) -> Path | None:
    config = huggingface_hub.try_to_load_from_cache(source.name, "config.json", revision=source.revision)
    return Path(config).parent if isinstance(config, str) else None


def _answer(source: Source) -> Answer:
    """Return what the hub says of a model: what it gave once, for as long as the process lives.

    A refusal is asked again later, but not where the local cache was taken instead: keys have its commit.
    """
    asked = (source.name, source.revision, constants.HF_HUB_OFFLINE)
    known = _ANSWERS.get(asked)
    refused = known is not None and known.problem is not None and _cached(source) is None
    if known is None or (refused and time.monotonic() - known.at > PATIENCE):
        problem, found = _asked(source.who, *asked)
        known = _ANSWERS[asked] = Answer(problem=problem, commit=found, at=time.monotonic())
    return known


def _asked(who: str, name: str, revision: str, offline: bool) -> tuple[str | None, str | None]:
    """Ask the hub for a model's description: why it is not given, and the commit of its revision."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if offline:
        return "HF_HUB_OFFLINE is set and the local cache does not hold it.", None
    console.note(
        f"pkt: asking the hub for the {who} '{name}'"
    )  # without a network the answer may take half a minute
    try:
        info = huggingface_hub.HfApi().model_info(name, revision=revision, timeout=SECONDS)
    except RevisionNotFoundError as error:
        raise RequestError(
            f"model.{who}.revision={revision}: '{name}' has no such revision; use main, a tag, or a commit."
        ) from error
    except GatedRepoError:
        return "its licence has not been accepted with your account, or you are not logged in.", None
    except RepositoryNotFoundError:
        return "the hub knows no such model, or it is private and you are not logged in.", None
    except HfHubHTTPError as error:
        return f"the hub answered: {first_line(error)}", None
    except Exception as error:  # whichever network error the HTTP library of the day raises
        return f"the hub cannot be reached ({first_line(error)}).", None
    files = [sibling.rfilename for sibling in info.siblings or []]
    if any(f.endswith(".bin") for f in files) and not any(f.endswith(".safetensors") for f in files):
        raise RequestError(pickles_only(name, who))
    return None, info.sha
