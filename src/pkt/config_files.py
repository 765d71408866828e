"""Read config files: within bounds, and with file and line in whatever is wrong with them.

    file -> bytes (bounded) -> UTF-8 -> events of YAML (depth and size with aliases written out, bounded) -> config

Hydra reads every folder of its search path through `FileConfigSource`, so that this holds for whatever a request
includes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pkt.errors import RequestError

MOST_BYTES = 200_000  # of a file; the largest of pkt's has 3,000
MOST_NODES = 50_000  # keys and values, each alias counted as what it stands for
MOST_LEVELS = 40  # of lists and mappings in each other
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_HINTS = {
    r"'\t'": "indent with spaces, not tabs",
    "constructor for the tag": "plain values are enough; take the tag out",
}


def read_config(file: Path) -> DictConfig:
    """Return the content of a YAML file of settings; empty where the file is.

    Raises:
        RequestError: it cannot be read, or is no mapping within the bounds; the message names file and line.
    """
    return parsed(_text(file), file)


def _of_another_group(base: Any) -> bool:
    """Return whether an entry of `defaults` chooses an option of another group, which says nothing of this one."""
    return isinstance(base, Mapping | DictConfig) and all(str(key).startswith("override ") for key in base)


def read_option(name: str, files: Mapping[str, Path]) -> DictConfig:
    """Return an option of a config group, upon the group's options that its `defaults` name.

    What these choose of other groups is left out.

    Args:
        name: of the option.
        files: of the group's options.

    Raises:
        RequestError: as `read_config`; or its `defaults` hold what is no other option of the group.
    """
    content = read_config(files[name])
    order = [base for base in content.pop("defaults", ()) if not _of_another_group(base)]
    order += ["_self_"] * ("_self_" not in order)  # as Hydra has it: what the file says itself comes last
    others = {other: file for other, file in files.items() if other != name}
    if strange := [base for base in order if base not in ("_self_", *others)]:
        raise RequestError(
            f"{files[name]}: defaults name {strange[0]}; an option of its own group is expected: {', '.join(others)}"
        )
    parts = (content if base == "_self_" else read_option(base, others) for base in order)
    return cast(DictConfig, OmegaConf.merge(*parts))


def parsed(text: str, file: Path) -> DictConfig:
    """Return the settings in a text.

    Args:
        text: YAML.
        file: where it is from, for messages.

    Raises:
        RequestError: as `read_config`.
    """
    try:
        _check_size(text, file)
        content = _loaded(text)
    except yaml.YAMLError as error:
        raise RequestError(_explained(error, file)) from error
    except (OmegaConfBaseException, ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise RequestError(f"{file}: {first}; a file of settings holds keys with plain values") from error
    if not isinstance(content, DictConfig):
        raise RequestError(f"{file}: a list is at its top, where `key: value` is expected")
    return content


def _loaded(text: str) -> Any:
    """Return what OmegaConf makes of a text, by YAML's parser in C; its own loader says what is wrong with a text."""
    try:
        plain = yaml.load(text, Loader=_loader()) if _is_fast(text) else None
    except yaml.YAMLError:
        plain = None
    return OmegaConf.create(plain) if isinstance(plain, dict | list) else OmegaConf.load(io.StringIO(text))


def _is_fast(text: str) -> bool:
    """Return whether YAML's parser in C can read a text; the other refuses some tabs and `?` that it lets pass."""
    return bool(yaml.__with_libyaml__) and not {"\t", "?"} & set(text)


@cache
def _loader() -> type[Any]:
    """Return OmegaConf's loader with the parser in C."""
    from omegaconf._utils import get_yaml_loader

    own: Any = get_yaml_loader()
    parser: Any = vars(yaml.cyaml)["CParser"]  # of PyYAML's extension, of which its types know nothing

    class Loader(parser, own):  # type: ignore[misc]
        def __init__(self, text: str) -> None:
            parser.__init__(self, text)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader


def _text(file: Path) -> str:
    """Return a file's text, at most `MOST_BYTES` of it."""
    try:
        if not file.is_file():
            raise RequestError(f"{file}: no file of settings (a folder, a pipe or a device)")
        if (size := file.stat().st_size) > MOST_BYTES:
            raise RequestError(
                f"{file}: {size:,} bytes, and a file of settings may have {MOST_BYTES:,}; is it another kind of file?"
            )
        content = file.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RequestError(f"{file}, line {line}: no UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise RequestError(
            f"{file}: cannot be read ({error.strerror}); change its permissions, or move it"
        ) from error


def _events(text: str) -> Iterable[Any]:
    """Return what YAML's parser finds in a text."""
    try:
        return list(yaml.parse(text, Loader=yaml.CSafeLoader if _is_fast(text) else yaml.SafeLoader))
    except yaml.YAMLError:
        return yaml.parse(text, Loader=yaml.SafeLoader)  # for its message, if nothing else is wrong before


def _check_size(text: str, file: Path) -> None:
    """Count what a text would become, without making it: a few lines of aliases may stand for billions of nodes."""
    open_nodes: list[tuple[str | None, int]] = []  # anchor of each unfinished collection, and nodes before it
    sizes: dict[str, int] = {}
    nodes = 0
    for event in _events(text):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise RequestError(f"{file}, line {line}: *{event.anchor} stands inside what it stands for")
            nodes += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: nodes - before} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            if not open_nodes and event.value not in ("", "~", "null"):
                raise RequestError(f"{file}, line {line}: a mere value, where `key: value` is expected")
            _check_number(event, file, line)
            nodes += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        if len(open_nodes) > MOST_LEVELS or nodes > MOST_NODES:
            what = (
                f"more than {MOST_LEVELS} levels"
                if nodes <= MOST_NODES
                else f"more than {MOST_NODES:,} values"
            )
            raise RequestError(
                f"{file}, line {line}: {what}; settings are smaller: is it another kind of file?"
            )


def _check_number(event: yaml.ScalarEvent, file: Path, line: int) -> None:
    """Refuse numbers that YAML reads as others: 1:30 as 90 (sixties), 010 as 8 (eights)."""
    if not event.style and _OTHER_BASE.fullmatch(event.value):
        raise RequestError(
            f"{file}, line {line}: YAML reads {event.value} as another number; write it in tens, or in quotes as text"
        )


def _explained(error: yaml.YAMLError, file: Path) -> str:
    """Return one line about a YAML error."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    hint = next((f"; {hint}" for words, hint in _HINTS.items() if words in what), "")
    return f"{file}{f', line {mark.line + 1}' if mark else ''}: {what}{hint}"


def line_of(file: Path, key: str) -> int | None:
    """Return the number of the first line that sets a key; None where no line does so plainly."""
    pattern = re.compile(rf"""^[\s-]*["']?{re.escape(key)}["']?\s*:""")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((number for number, line in enumerate(lines, start=1) if pattern.match(line)), None)


class FileConfigSource(ConfigSource):  # type: ignore[misc]  # hydra is followed as Any
    """A folder of config files; takes the place of Hydra's own source of that scheme, and has its name.

    A job in another process (joblib, submitit) gets the registry as it is here, and Hydra then registers its own
    sources there again: it passes over a name that it knows, and fails on another one of the same scheme.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path if "://" in path else f"{self.scheme()}://{path}")

    @staticmethod
    def scheme() -> str:
        """Return the scheme of its entries in the search path."""
        return "file"

    def available(self) -> bool:
        """Return whether the folder is there."""
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        """Return whether a path is a folder."""
        return (Path(self.path) / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Return whether a path (without `.yaml`) is a file."""
        return (Path(self.path) / str(self._normalize_file_name(config_path))).is_file()

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file."""
        file = (Path(self.path) / self._normalize_file_name(config_path)).resolve()
        if not file.exists():
            raise ConfigLoadError(f"Config not found : {file}")
        text = _text(file)
        try:
            header = self._get_header_dict(text[:512])
        except ValueError as error:
            raise RequestError(
                f"{file}: its header cannot be read: {error}; such as `# @package _global_`"
            ) from error
        return ConfigResult(
            config=parsed(text, file),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Name the files or folders in a group."""
        found: list[str] = []
        for entry in sorted((Path(self.path) / config_path).iterdir()):
            self._list_add_result(
                files=found,
                file_path=str(Path(config_path) / entry.name),
                file_name=entry.name,
                results_filter=results_filter,
            )
        return found
