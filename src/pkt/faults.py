"""What is wrong with the files of a model, found by looking at them: the standard library only, no weights are read.

    folder or GGUF file -> every file: empty | a git-lfs pointer | a web page | not readable
                        -> *.json, *.jinja      text, JSON of the right shape, a template that parses
                        -> *.safetensors        header and length agree; the index and its shards agree
                        -> the folder           a config, weights, no adapter beside them, nothing quantised

A request looks before anything heavy is imported, and `pkt.foreign` looks again when a library has failed.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FETCH = "fetch or copy it anew"
_LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one
_PAGE = "a web page, not the file itself; download the file behind it"
_INSTEAD = {  # first bytes, in small letters -> what stands in a file's place, and what to do
    b"version https://git-lfs": "a git-lfs pointer, not the file itself; run `git lfs pull` in its folder",
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
}
_OTHERS = {b"PK\x03\x04": "a pickle of torch.save", b"\x80\x02": "a pickle", b"GGUF": "a GGUF file"}
_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
}
_BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64}
_BITS |= {"F64": 64, "I64": 64, "U64": 64}
_READ = (  # what transformers reads in a folder beside weights; other files may hold anything
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
)
_TEMPLATE = "chat_template.jinja"


def faults(path: Path, *, templates: bool = True) -> list[str]:
    """Say what is wrong with a model's folder or file, each fault with its file and a remedy; empty: nothing found.

    Args:
        path: a folder in transformers' format, or a file of it, or a GGUF file.
        templates: whether chat templates count.
    """
    if not path.is_dir():
        return [*_of_file(path)]
    names = [*_READ, *([_TEMPLATE] if templates else ())]
    indices = sorted(path.glob("*.safetensors.index.json"))
    files = [*(path / name for name in names), *indices, *_weights(path, indices)]
    found = [fault for file in files if file.is_file() for fault in _of_file(file)]
    return found or [*_of_folder(path, indices, templates)]


def _weights(folder: Path, indices: list[Path]) -> list[Path]:
    """Return the files of weights that transformers would read."""
    whole = folder / "model.safetensors"
    found = sorted(folder.glob("*.safetensors"))
    if whole in found:
        return [whole]
    named = {str(name) for index in indices for name in _places(index).values()}
    return [file for file in found if file.name in named or not named]


def _places(index: Path) -> dict[str, Any]:
    """Return which file an index names for each tensor; empty where it has a fault."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, RecursionError, KeyError, TypeError, OSError):
        return {}
    return places if isinstance(places, dict) else {}


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a safetensors file that has no fault."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def _of_file(file: Path) -> Iterator[str]:
    """Yield the first fault of one file."""
    if not os.access(file, os.R_OK):
        yield f"{file} cannot be read: it is not yours to read; change its permissions (chmod)"
        return
    with file.open("rb") as stream:
        start = stream.read(64)
    if not start:
        yield f"{file} is empty; {FETCH}"
        return
    if instead := stands_instead(start):
        yield f"{file} is {instead}"
        return
    if problem := _CHECKS.get(file.suffix, _anything)(file):
        yield f"{file} {problem}"


def stands_instead(start: bytes) -> str | None:
    """Say what stands in the place of a file that was meant, such as a web page, and what to do; None: it may be it.

    Args:
        start: the file's first bytes.
    """
    small = start.lstrip().lower()
    return next((what for beginning, what in _INSTEAD.items() if small.startswith(beginning)), None)


def _anything(_file: Path) -> str | None:
    return None


def _text(file: Path) -> str | None:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return f"is no UTF-8 text (byte {error.start}); {FETCH}"
    return None


def _json(file: Path) -> str | None:
    """Say why a JSON file is no object of JSON."""
    if problem := _text(file):
        return problem
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return f"is not JSON, or cut off ({error}); {FETCH}"
    if not isinstance(content, dict):
        return f"holds a {type(content).__name__} of JSON where an object is expected; {FETCH}"
    return None


def _template(file: Path) -> str | None:
    """Say why a chat template cannot be compiled."""
    return _text(file) or template_problem(file.read_text(encoding="utf-8"))


def template_problem(text: str) -> str | None:
    """Say where a chat template breaks Jinja's rules; None where it does not."""
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """The tag with which transformers finds answers again; what it encloses is an ordinary part."""

        tags = {"generation"}  # noqa: RUF012  # as its base class has it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        ImmutableSandboxedEnvironment(extensions=[Generation, jinja2.ext.loopcontrols]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        return f"has a chat template that breaks Jinja's rules in its line {error.lineno}: {error.message}; mend it"
    return None


def _gguf(file: Path) -> str | None:
    with file.open("rb") as stream:
        start = stream.read(24)
    if start[:4] != b"GGUF":
        return f"is no GGUF file: it begins with {start[:4]!r}; {FETCH}"
    if len(start) < 24:
        return f"is cut off after {len(start)} bytes; {FETCH}"
    return None


def _safetensors(file: Path) -> str | None:
    """Say how header and length of a safetensors file disagree."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        (length,) = struct.unpack("<Q", start.ljust(8, b"\0"))
        for beginning, what in _OTHERS.items():
            if start.startswith(beginning):
                return f"is {what}, not safetensors; convert it, or use a checkpoint that has safetensors"
        if size < 8 or 8 + length > size:
            return f"is cut off, or no safetensors file: {size:,} bytes do not hold its header; {FETCH}"
        if length > _LONGEST_HEADER:
            return f"is no safetensors file: its header would have {length:,} bytes; {FETCH}"
        try:
            header = json.loads(stream.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            problem = _layout(entries, size - 8 - length)
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            return f"has a damaged header; {FETCH}"
    return f"{problem}; {FETCH}" if problem else None


def _layout(entries: dict[str, Any], held: int) -> str | None:
    """Say where tensors do not fill the bytes after the header one after the other."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        size = math.prod(entry["shape"]) * _BITS.get(entry["dtype"], 0) / 8
        if begin != end or stop < begin or (entry["dtype"] in _BITS and size != stop - begin):
            return f"has a damaged header: the place of {name} does not fit its shape"
        end = stop
    if end > held:
        return f"is cut off: {end - held:,} of {end:,} bytes of weights are missing"
    return f"has {held - end:,} bytes more than its header describes" if end < held else None


def _of_folder(folder: Path, indices: list[Path], templates: bool) -> Iterator[str]:
    """Yield what is wrong with files that are each in order."""
    for problem in (
        adapter_beside_weights(folder),
        _quantised(folder),
        *_shards(folder, indices),
        _vocabulary(folder),
    ):
        if problem:
            yield problem
    if templates and (problem := _template_in_config(folder)):
        yield problem


def adapter_beside_weights(folder: Path) -> str | None:
    """Say that a folder holds an adapter beside a whole model, which transformers would follow to another model."""
    config = folder / "adapter_config.json"
    if not config.is_file() or not (folder / "config.json").is_file():
        return None
    return (
        f"{config} is a PEFT adapter beside a whole model, and transformers would load the adapter's base model "
        "instead of these weights; move the adapter (adapter_*) out of the folder, or merge it (merge_and_unload)"
    )


def _quantised(folder: Path) -> str | None:
    content = _read(folder / "config.json").get("quantization_config")
    if not isinstance(content, dict):
        return None
    method = content.get("quant_method", "of a kind it does not name")
    return (
        f"{folder / 'config.json'} says that the weights are quantised ({method}): pkt reads and trains plain weights; "
        "take the model's original checkpoint, or dequantise this one and save that"
    )


def _vocabulary(folder: Path) -> str | None:
    """Say that there is no sign of a tokenizer."""
    names = (
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
        "spiece.model",
    )
    if any((folder / name).is_file() for name in (*names, "tekken.json")):
        return None
    return (
        f"{folder} has no tokenizer (such as tokenizer.json); copy the files of the model's tokenizer into it"
    )


def _template_in_config(folder: Path) -> str | None:
    file = folder / "tokenizer_config.json"
    template = _read(file).get("chat_template")
    named = template if isinstance(template, list) else [{"template": template}]
    texts = [entry.get("template") for entry in named if isinstance(entry, dict)]
    problems = [template_problem(text) for text in texts if isinstance(text, str)]
    return next((f"{file} {problem}" for problem in problems if problem), None)


def _shards(folder: Path, indices: list[Path]) -> Iterator[str]:
    """Yield the shards that an index names and the folder lacks, and tensors that the shards lack."""
    if (folder / "model.safetensors").is_file():
        return
    for index in indices:
        places = _places(index)
        if not places or not all(isinstance(name, str) for name in places.values()):
            yield f"{index} has no weight_map from tensors to files; {FETCH}"
            continue
        files = sorted(set(places.values()))
        if absent := [name for name in files if not (folder / name).is_file()]:
            yield (
                f"{folder} lacks {len(absent)} of the {len(files)} files that {index.name} names: "
                f"{', '.join(absent[:3])}; fetch them"
            )
            continue
        held = {name: shapes(folder / name) for name in files}
        if lost := sorted(tensor for tensor, name in places.items() if tensor not in held[name]):
            yield (
                f"{index} names {len(lost)} tensors that its files do not hold, such as {lost[0]} in "
                f"{places[lost[0]]}; fetch index and files of the same revision"
            )
    shards = sorted(folder.glob("*-of-*.safetensors"))
    other = sorted(file for file in folder.glob("*.safetensors") if file not in shards)
    if other and not shards and not indices:
        yield f"{folder} has weights in {other[0].name}, and transformers reads model.safetensors; rename the file"
    if shards and not indices:
        yield f"{folder} has {shards[0].name} but no model.safetensors.index.json, which says what is where; fetch it"


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file that has no fault; empty where there is no such file."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content if isinstance(content, dict) else {}


_CHECKS = {".json": _json, ".safetensors": _safetensors, ".gguf": _gguf, ".jinja": _template}
_CHECKS |= {".txt": _text}
