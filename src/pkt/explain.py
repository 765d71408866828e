"""Turn an exception of Hydra or OmegaConf into one message: what was got, what is allowed, what to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from pkt import plugins
from pkt.checks import MOVED, replaced
from pkt.config_files import line_of, read_config
from pkt.errors import RequestError, nearest
from pkt.searchpath import builtin_conf_dir, conf_dirs, groups, option_files

# options of Hydra's plugins -> the extra of pkt that installs them
EXTRAS = {
    "optuna": "sweep",
    "joblib": "launchers",
    "submitit_local": "launchers",
    "submitit_slurm": "launchers",
}
CONFIG_ERRORS = (HydraException, OmegaConfBaseException)

# lines for developers of Hydra
_NOISE = re.compile(
    r"^(full_key:|object_type=|reference_type=|To append to your|See https?:|Config search path|provider=|"
    r"Set the environment|Available options)"
)
_KINDS = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false", "String": "a string"}
_KINDS |= {"bool": _KINDS["Boolean"]}


def explain(error: BaseException) -> str:
    """Return the message for an exception that composing, overriding or reading the config raised."""
    if isinstance(error, RecursionError):
        return _explain_recursion()
    if isinstance(error, MissingConfigException):
        return _explain_missing(error)
    if isinstance(error, OverrideParseException):
        return _explain_override(error)
    text = str(error)
    if "Config group override must be" in text:
        return "a config group takes the name of one of its options (experiment=none: no overlay)"
    if ambiguous := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", text):
        key, value = ambiguous.groups()
        as_list = "" if key in groups() else f", or {key}=[{value}] if it takes a list"
        return (
            f"{key}={value}: several values; to try each of them, sweep (--multirun): "
            f"`pkt run -m {key}={value}`{as_list}"
        )
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error.__context__
    if isinstance(cause, OmegaConfBaseException):
        return _place(text, cause) + _explain_value(error, cause)
    unmatched = re.search(r"Could not override '([^']+)'\.", text)
    if unmatched and unmatched[1].startswith("term"):
        return (
            f"'{unmatched[1]}' names no term of this objective: term@objective.terms.<name>=<option> exchanges one, "
            f"+term@objective.terms.<name>=<option> adds one; options: {_listed(groups()['term'])}"
        )
    if unmatched and "No match in the defaults list" in text:
        if unmatched[1] == "task":
            return (
                "'task' is no choice of its own: benchmark.tasks=[...] scores, benchmark.train=[...] trains"
            )
        known = sorted(groups().keys() - {"task", "term"})
        hint = nearest(unmatched[1].partition("@")[0], known)
        return f"'{unmatched[1]}' is not a config group in use; groups: {_listed(known)}{hint}"
    return _clean(text)


def check_choices(words: Sequence[str]) -> None:
    """Refuse options of config groups that Hydra would pass over in silence, or compose into each other.

    An `optional` group of a user's own config takes any name, and `method=[sft,kd]` is kd with what it leaves of sft.

    Args:
        words: flags and overrides of the command line.

    Raises:
        RequestError: an option that is not there, or several where one is meant.
        OverrideParseException: a word that is no override.
    """
    known, overlays = groups(), ("experiment", "debug")
    chosen = {folder.name for folder in builtin_conf_dir().iterdir()} - {"task", "term", "hydra"}
    overrides = [word for word in words if not word.startswith("-") and "=" in word]
    for override in OverridesParser.create().parse_overrides(overrides):
        group, word = override.key_or_group, override.input_line
        if override.is_sweep_override():
            _check_sweep(override, known.get(group, []))
        elif group in known and override.package is None and not override.is_delete():
            value = override.value()
            if isinstance(value, list) and group not in overlays:
                listed = ",".join(map(str, value))
                raise RequestError(
                    f"{word}: one option is expected; to try each of them, sweep: `pkt run -m {group}={listed}`"
                )
            if override.is_add() and group in chosen:
                raise RequestError(
                    f"{word}: there is a choice of {group} already; write {group}={value}, without '+'"
                )
            own = group not in chosen and "hydra.searchpath" not in str(words) and "/" not in str(value)
            if (
                isinstance(value, int | float)
                or value in ("", {}, None)
                or (own and value not in known[group])
            ):
                raise RequestError(
                    f"{word}: a config group takes the name of one of its options; allowed: "
                    f"{_listed(known[group])}{nearest(str(value), known[group])}"
                )


def _check_sweep(override: Override, options: Sequence[str]) -> None:
    """Refuse a sweep over nothing, which would end at once and say that all is well."""
    empty = override.is_range_sweep() and next(iter(override.sweep_iterator()), None) is None
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        named = [*options, *plugins.options(override.key_or_group)]
        empty = not override.value().filter(named)
    elif override.is_choice_sweep() and options and override.package is None:
        names = [str(name) for name in override.sweep_iterator()]
        if lost := [name for name in names if name not in options and "/" not in name]:
            raise RequestError(
                f"{override.key_or_group}={lost[0]}: no such option; allowed: {_listed(options)}"
                f"{nearest(lost[0], options)}"
            )
    if empty:
        among = f"; options: {_listed(options)}" if options else ""
        raise RequestError(f"{override.input_line}: a sweep over nothing: no value is meant by it{among}")


def _explain_missing(error: MissingConfigException) -> str:
    """Say which option or config is not there, and what is nearest to it."""
    parts = str(error.missing_cfg_file).split("/")
    depth = 2 if parts[0] == "hydra" else 1  # of the group; a plugin's option has a slash of its own
    group, option = "/".join(parts[:depth]), "/".join(parts[depth:])
    known = error.options if error.options is not None else groups().get(group)
    if not option or known is None:
        primary = re.search(r"Cannot find primary config '([^']+)'", str(error))
        if primary is None:
            return _clean(str(error))
        names = sorted({file.stem for folder in conf_dirs() for file in folder.glob("[!_]*.yaml")})
        return f"-cn {primary[1]}: no such config; there are: {_listed(names)}{nearest(primary[1], names)}"
    asked_by = re.match(r"In '([^']+)'", str(error))
    file = config_file(asked_by[1]) if asked_by and known is not error.options else None
    hint = plugins.unknown(option) or nearest(option, known)
    if option in EXTRAS:
        hint = f"; {option} comes with an extra, {EXTRAS[option]}{_needed(EXTRAS[option])}"
    return f"{f'{file}: ' if file else ''}{group}={option}: no such option; allowed: {_listed(known)}{hint}"


def _needed(extra: str) -> str:
    """Return how an extra of pkt is installed, for packages that pip finds where it does not find pkt itself."""
    try:
        lines = requires("pkt-llm") or ()
    except PackageNotFoundError:  # pkt is on the path and not installed
        return ""
    ends = f'extra == "{extra}"'
    known = (line.partition(";") for line in lines)
    names = [shlex.quote(name.strip()) for name, _, marker in known if ends in marker.replace("'", '"')]
    return f": pip install {' '.join(names)}" if names else ""


def _explain_override(error: OverrideParseException) -> str:
    """Say how an override is written."""
    word = error.override
    if re.fullmatch(r"[\w./@]+", word):
        known = groups()
        return f"cannot read '{word}': a setting is written {word}=<value>{nearest(word, known)}; the verb comes first"
    return f"cannot read the override '{word}': {_first(error.message)}; special characters need quotes: 'key=\"...\"'"


def _explain_recursion() -> str:
    """Name the config file that includes itself, directly or through others."""
    for folder in conf_dirs():
        for file in sorted(folder.rglob("*.yaml")):
            name = file.relative_to(folder).with_suffix("").as_posix()
            if path := _back_to(name, (name,)):
                return (
                    f"{file}: its defaults list includes itself ({' -> '.join(path)}); take one of them out"
                )
    return "the request is nested too deeply; put it into a config file with fewer levels"


def _back_to(name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return how a config includes itself; None where it does not."""
    for inner in _included(path[-1]):
        if inner == name:
            return (*path, inner)
        if inner not in path and (found := _back_to(name, (*path, inner))):
            return found
    return None


def _included(name: str) -> list[str]:
    """Return the configs that a config's defaults list names, as far as they can be told from the list alone."""
    file = config_file(name)  # pkt's own do not
    listed = read_config(file).get("defaults", []) if file and not _is_own(file) else []
    group = name.rpartition("/")[0]
    found = []
    for entry in listed if isinstance(listed, ListConfig) else ():
        pairs = entry.items() if isinstance(entry, DictConfig) else [("", entry)]
        for key, option in pairs:
            words = str(key).split()[-1:] or [""]
            inner = "/".join(filter(None, (words[0].partition("@")[0], str(option).partition("@")[0])))
            found.append(inner.lstrip("/") if inner.startswith("/") or not group else f"{group}/{inner}")
    return found


def _is_own(file: Path) -> bool:
    return file.is_relative_to(builtin_conf_dir())


def config_file(name: str) -> Path | None:
    """Return the file of a config, such as ``model/mine``; None where it lies in no folder that is known here."""
    files = [folder / f"{name}.yaml" for folder in conf_dirs()]
    return next((file for file in files if file.is_file()), None)


def _place(text: str, cause: OmegaConfBaseException) -> str:
    """Return file and line of a value that does not fit the schema; empty for a value of the command line."""
    found = re.match(r"In '([^']+)': \w+ raised while", text)
    file = config_file(found[1]) if found else None
    if file is None or _is_own(file):  # then it is the command line that does not fit
        return ""
    key = str(cause.key if cause.key is not None else "")
    line = line_of(file, key) if key else None
    return f"{file}{f', line {line}' if line else ''}: "


def _explain_value(error: BaseException, cause: OmegaConfBaseException) -> str:
    text = str(cause)
    key = _overridden(error) or cause.full_key or ""
    parent: Any = cause.parent_node
    if re.search(r"Key '.*' (is )?not in ", text):
        name = key.rpartition(".")[2]
        if key in MOVED:
            return replaced(key)
        allowed = (
            sorted(str(k) for k in parent)
            if isinstance(parent, DictConfig) and not parent._is_missing()
            else []
        )
        if "." not in key and "method" in allowed:  # the root of a run, not of a report
            allowed = sorted({*allowed, *groups()})
        return (
            f"unknown key '{key}'; allowed here: {_listed(allowed)}{nearest(name, allowed)}{_elsewhere(key)}"
        )
    typed = re.search(
        r"Value '(.*)' (?:of type '.*' (?:could not be converted to|is not compatible with type)|is not a valid) "
        r"'?(\w+)",
        text,
    )
    if typed:
        return f"{key}: {_KINDS.get(typed[2], typed[2])} is expected, got '{typed[1]}'"
    if "to Dict[" in text:
        return (
            f"{key or 'a setting'}: a mapping is expected, in quotes, so that the shell leaves it whole: "
            f"'{key or '<key>'}={{<name>: <value>, <name>: <value>}}'{_got(error)}"
        )
    if "is not a ListConfig" in text or "is not a subclass of" in text:
        what = "a list" if "ListConfig" in text else "a group of settings"
        set_so = f"{key}=[a,b]" if "ListConfig" in text else f"{key}.<name>=..."
        return f"{key}: {what} is expected, such as {set_so}{_got(error)}"
    if "Missing mandatory value" in text or "MissingMandatoryValue" in type(cause).__name__:
        return f"{key or 'a value'} is not set: add {key or 'it'}=... to the command or to a config file"
    where = f"{key}: " if key and key not in text else ""
    return where + _clean(text)


def _elsewhere(key: str) -> str:
    """Return which other options of a group have a setting, as the end of a message; nothing where none has."""
    group, _, name = key.rpartition(".")
    files = option_files(group) if group in groups() else {}
    having = [option for option, file in files.items() if line_of(file, name)]
    return f"; it is a setting of {group}={', '.join(having)}" if having else ""


def _got(error: BaseException) -> str:
    """Return what the command line says, as the end of a message; nothing where a file is meant."""
    found = re.search(r"Error merging override (\S+)", str(error))
    return f"; got {found[1]}" if found else ""


def _overridden(error: BaseException) -> str | None:
    found = re.search(r"(?:Could not override|Error merging override) '?([\w./@]+)", str(error))
    return found[1] if found else None


def _listed(names: Any) -> str:
    return ", ".join(sorted(str(name) for name in names)) or "nothing"


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _clean(text: str) -> str:
    """Return a message of Hydra on one line, with the file it is about and without the lines meant for developers."""
    about = re.match(r"In '([^']+)': ", text)
    if about and (file := config_file(about[1])):
        text = f"{file}: {text[about.end() :]}"
    kept = [line.strip() for line in text.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    return " ".join(kept) or "the config cannot be composed"
