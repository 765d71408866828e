"""Refuse values of the typed root that have the right type and make no sense, before any work."""

from __future__ import annotations

import re
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from pkt.config import Config
from pkt.errors import RequestError, nearest

STAGES = ("extract", "align", "transfer", "eval", "analyze")
PARTS = ("resolution", "cka", "attribution", "maps")
MODELS = ("teacher", "student", "transferred")
CHOICES: dict[str, tuple[str, ...]] = {
    "optim.schedule": ("cosine", "linear", "constant"),
    "optim.keep": ("last", "best"),
    "optim.precision": ("float32", "bfloat16"),
    "analyze.interface": ("mlp", "attention", "residual", "block"),
    "analyze.positions": ("all", "answer"),
    "analyze.split": ("extract", "align", "train", "validation"),
    "tracker.name": ("wandb", "none"),
    "tracker.mode": ("offline", "online", "disabled"),
    "eval.split": ("test", "validation"),
    "model.teacher.init": ("load",),
    "model.student.init": ("load", "prune"),
    "model.teacher.dtype": ("auto", "float32", "bfloat16", "float16"),
    "model.student.dtype": ("auto", "float32", "bfloat16", "float16"),
}
# key -> (lowest, whether the lowest itself is allowed); None values are left to their meaning
BOUNDS: dict[str, tuple[float, bool]] = {
    "seed": (0, True),
    "threads": (0, True),
    "optim.lr": (0, False),
    "optim.epochs": (0, True),  # 0: no step, the student stays as it is
    "optim.batch_size": (1, True),
    "optim.micro_batch_size": (1, True),
    "optim.weight_decay": (0, True),
    "optim.warmup": (0, True),
    "optim.max_grad_norm": (0, True),
    "optim.validate_every": (0, True),
    "optim.save_every": (0, True),
    "eval.limit": (1, True),
    "eval.batch_size": (1, True),
    "eval.max_new_tokens": (1, True),
    "eval.timeout": (0, False),
    "eval.samples": (1, True),
    "eval.temperature": (0, True),
    "eval.top_p": (0, False),
    "tracker.examples": (0, True),
    "analyze.rows": (1, True),
    "data.max_length": (2, True),
    "data.sizes.extract": (1, True),
    "data.sizes.align": (1, True),
    "data.sizes.train": (1, True),
    "data.sizes.validation": (1, True),
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
    OmegaConf.merge(
        OmegaConf.structured(Config), OmegaConf.create(OmegaConf.to_container(cfg))
    )  # `+key=` forces
    missing = sorted(str(key) for key in OmegaConf.missing_keys(cfg))
    if missing:
        raise RequestError(
            f"not set: {', '.join(missing)}; add {missing[0]}=... to the command or to a config file"
        )
    OmegaConf.to_container(
        cfg, resolve=True
    )  # an interpolation that leads nowhere is found here, not after an hour
    for key, allowed in CHOICES.items():
        _one_of(key, OmegaConf.select(cfg, key), allowed)
    for stage in cfg.refresh:
        _one_of("refresh", stage, STAGES)
    for key in ("eval.models", "analyze.models"):
        for model in OmegaConf.select(cfg, key):
            _one_of(key, model, MODELS)
    check_parts(cfg.analyze.parts)
    for key, (lowest, inclusive) in BOUNDS.items():
        _at_least(key, OmegaConf.select(cfg, key), lowest, inclusive)
    if not _DEVICE.match(cfg.device):
        raise RequestError(f"device: got '{cfg.device}'; allowed: auto, cpu, cuda, cuda:N, mps")
    for name, lr in cfg.optim.lr_by_method.items():
        _at_least(f"optim.lr_by_method.{name}", lr, 0, False)
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


def _one_of(key: str, value: object, allowed: Iterable[str]) -> None:
    if value is not None and value not in (choices := list(allowed)):
        raise RequestError(
            f"{key}: got '{value}'; allowed: {', '.join(choices)}{nearest(str(value), choices)}"
        )


def _at_least(key: str, value: float | None, lowest: float, inclusive: bool) -> None:
    if value is None or value > lowest or (inclusive and value == lowest):
        return
    raise RequestError(
        f"{key}: a value {'from' if inclusive else 'above'} {lowest:g} is expected, got {value}"
    )
