"""Turn an exception of Hydra or OmegaConf into one message: what was got, what is allowed, what to do."""

from __future__ import annotations

import re
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pkt import plugins
from pkt.checks import MOVED, replaced
from pkt.errors import nearest
from pkt.searchpath import groups

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
    if isinstance(error, MissingConfigException) and error.options is not None:
        parts = str(error.missing_cfg_file).split("/")
        depth = 2 if parts[0] == "hydra" else 1  # of the group; a plugin's option has a slash of its own
        group, option = "/".join(parts[:depth]), "/".join(parts[depth:])
        hint = plugins.unknown(option) or nearest(option, error.options)
        if option in EXTRAS:
            hint = f"; {option} comes with an extra: pip install 'pkt-llm[{EXTRAS[option]}]'"
        return f"{group}={option}: no such option; allowed: {_listed(error.options)}{hint}"
    if isinstance(error, OverrideParseException):
        return f"cannot read the override '{error.override}': {_first(error.message)}"
    if "Config group override must be" in str(error):
        return "a config group takes the name of one of its options (experiment=none: no overlay)"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _explain_value(error, cause)
    unmatched = re.search(r"Could not override '([^']+)'\.", str(error))
    if unmatched and unmatched[1].startswith("term"):
        return (
            f"'{unmatched[1]}' names no term of this objective: term@objective.terms.<name>=<option> exchanges one, "
            f"+term@objective.terms.<name>=<option> adds one; options: {_listed(groups()['term'])}"
        )
    if unmatched and "No match in the defaults list" in str(error):
        return f"'{unmatched[1]}' is not a config group in use; groups: {_listed(groups())}"
    return _clean(str(error))


def _explain_value(error: BaseException, cause: OmegaConfBaseException) -> str:
    text = str(cause)
    key = cause.full_key or _overridden(error) or ""
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
        return f"unknown key '{key}'; allowed here: {_listed(allowed)}{nearest(name, allowed)}"
    typed = re.search(
        r"Value '(.*)' (?:of type '.*' (?:could not be converted to|is not compatible with type)|is not a valid) "
        r"'?(\w+)",
        text,
    )
    if typed:
        return f"{key}: {_KINDS.get(typed[2], typed[2])} is expected, got '{typed[1]}'"
    if "Missing mandatory value" in text or "MissingMandatoryValue" in type(cause).__name__:
        return f"{key or 'a value'} is not set: add {key or 'it'}=... to the command or to a config file"
    where = f"{key}: " if key and key not in text else ""
    return where + _clean(text)


def _overridden(error: BaseException) -> str | None:
    found = re.search(r"(?:Could not override|Error merging override) '?([\w./@]+)", str(error))
    return found[1] if found else None


def _listed(names: Any) -> str:
    return ", ".join(sorted(str(name) for name in names)) or "nothing"


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _clean(text: str) -> str:
    """Return a message of Hydra on one line, without the lines meant for developers."""
    kept = [line.strip() for line in text.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    return " ".join(kept) or "the config cannot be composed"
