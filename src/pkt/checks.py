"""Refuse settings of the right type that make no sense, before any work is done.

The values that a setting may have stand beside it in `pkt.config`; rules between several settings stand here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pkt import settings
from pkt.config import PARTS, Config
from pkt.errors import RequestError, nearest

# key of an earlier version -> what to write instead
MOVED = {
    f"objective.{old}": new
    for old, new in {
        "layer": "term@objective.terms.layer=cosine, mean_square, fisher or geometry (none: ~objective.terms.layer)",
        "layer_weight": "objective.terms.layer.weight",
        "positions": "objective.terms.layer.positions",
        "output": "another objective, such as objective=ce, or +term@objective.terms.<name>=ce, kl or output_cosine "
        "(none: ~objective.terms.kl ~objective.terms.ce, or objective=layer)",
        "output_weight": "objective.terms.kl.weight and objective.terms.ce.weight",
        "divergence": "objective.terms.kl.kind",
        "temperature": "objective.terms.kl.temperature",
        "label_share": "objective.terms.ce.weight, and objective.terms.kl.weight for what was one minus it",
        "teacher": "objective.terms.kl.teacher",
        "top_k": "objective.terms.kl.top_k, and objective.terms.layer.top_k of the Fisher term",
        "relation": "objective.terms.layer.relation",
        "scope": "objective.terms.layer.scope",
    }.items()
}
_DEVICE = re.compile(r"^(auto|cpu|cuda(:\d+)?|mps)$")


def check(cfg: DictConfig) -> None:
    """Check the composed request.

    Args:
        cfg: the composed config, typed by `pkt.config.Config`.

    Raises:
        RequestError: a value is missing, not one of its choices, or out of range.
        OmegaConfBaseException: a key that `+key=` forced in, or an interpolation that leads nowhere.
    """
    for key in MOVED:  # it may come from `+objective.x=`, or from a file of the user's
        if OmegaConf.select(cfg, key) is not None:
            raise RequestError(replaced(key))
    # keys that `+key=` forced in are not in the schema
    OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(OmegaConf.to_container(cfg)))
    missing = sorted(str(key) for key in OmegaConf.missing_keys(cfg))
    if missing:
        raise RequestError(
            f"not set: {', '.join(missing)}; add {missing[0]}=... to the command or to a config file"
        )
    OmegaConf.to_container(cfg, resolve=True)  # finds interpolations that lead nowhere
    _check_node(cfg, OmegaConf.structured(Config), "")
    if cfg.model.teacher.init != "load":
        raise settings.not_allowed("model.teacher.init", cfg.model.teacher.init, ["load"])
    check_parts(cfg.analyze.parts)
    if not _DEVICE.match(cfg.device):
        raise RequestError(f"device: got '{cfg.device}'; allowed: auto, cpu, cuda, cuda:N, mps")
    _check_time(cfg.model.chat_time)
    _check_optim(cfg)


def replaced(key: str) -> str:
    """Return the message about a key of `MOVED`."""
    return f"'{key}' has been replaced: use {MOVED[key]}"


def _check_node(node: Any, schema: Any, path: str) -> None:
    """Check every leaf of a node against what its field allows; strategies check themselves when they are built."""
    for field in dataclasses.fields(cast(type[Config], OmegaConf.get_type(schema))):
        at = f"{path}.{field.name}" if path else field.name
        value, inner = node[field.name], schema._get_node(field.name)
        if dataclasses.is_dataclass(OmegaConf.get_type(inner)):
            _check_node(value, inner, at)
        else:
            settings.check(at, value, settings.known(field))


def _check_time(text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestError(
            f"model.chat_time: a date or a date with a time is expected (2024-07-26T12:00:00), got '{text}'"
        ) from error


def _check_optim(cfg: DictConfig) -> None:
    if cfg.optim.lr is None and not {cfg.method.name, "default"} & set(cfg.optim.lr_by_method):
        raise RequestError(
            f"optim.lr is null, and optim.lr_by_method names neither {cfg.method.name} nor default: set optim.lr"
        )
    if cfg.optim.warmup >= 1:
        raise RequestError(
            f"optim.warmup is a share of all steps: 0 <= warmup < 1 is expected, got {cfg.optim.warmup}"
        )
    if len(cfg.optim.betas) != 2 or not all(0 <= beta < 1 for beta in cfg.optim.betas):
        raise RequestError(f"optim.betas: two numbers in [0, 1) are expected, got {list(cfg.optim.betas)}")


def check_parts(parts: Iterable[str]) -> None:
    """Check the parts that `pkt analyze` is asked for.

    Raises:
        RequestError: none, or an unknown one.
    """
    named = list(parts)
    if not named:
        raise RequestError(f"analyze.parts is empty: name some of {', '.join(PARTS)}")
    for part in named:
        if part not in PARTS:
            raise RequestError(
                f"analyze: no part '{part}'; allowed: {', '.join(PARTS)}{nearest(part, PARTS)}, "
                "comma-separated: `pkt analyze resolution,cka key=value ...`"
            )
