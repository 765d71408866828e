"""What to set where a stage does not fit into memory: settings that lower its peak, tried on the closed form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from omegaconf import DictConfig, OmegaConf

Peak = Callable[[DictConfig], float]
LOWERS = 0.98  # a setting is named if it brings the peak below this share


def remedy(cfg: DictConfig, peak: Peak, limit: float) -> tuple[list[str], float]:
    """Return settings that together bring a peak below a limit, or as low as they can, and the peak that is left.

    Args:
        cfg: the request.
        peak: of a request, in bytes.
        limit: bytes.
    """
    words: dict[str, object] = {}
    useless: set[str] = set()
    now, least = cfg, peak(cfg)
    for key, value in _changes(cfg):
        if least <= limit:
            break
        if key in useless:
            continue
        changed = copy.deepcopy(now)
        OmegaConf.update(changed, key, value, force_add=True)
        if (lower := peak(changed)) < LOWERS * least:
            words[key], now, least = value, changed, lower
        else:
            useless.add(key)
    return [f"{key}={str(value).lower() if value is True else value}" for key, value in words.items()], least


def _changes(cfg: DictConfig) -> Iterator[tuple[str, object]]:
    """Yield settings to try, those that change results least first."""
    optim, update = cfg.optim, cfg.method.get("update")  # `update` is a method of the node too
    micro = optim.micro_batch_size or optim.batch_size
    while micro > 1:
        micro //= 2
        yield "optim.micro_batch_size", micro
    if not optim.checkpointing:
        yield "optim.checkpointing", True
    for role in ("teacher", "student"):
        if cfg.model[role].dtype == "float32":
            yield f"model.{role}.dtype", "bfloat16"
    if cfg.device != "cpu" and cfg.plan.processes > 1:
        yield "model.teacher.device_map", "auto"
    if update is not None and cfg.plan.processes > 1:
        yield "plan.shards", True
    if update is not None and update.kind == "full":
        yield "method.update.kind", "lora"
    halved = {"eval.batch_size": cfg.eval.batch_size, "answer.batch_size": cfg.answer.batch_size}
    halved |= {"optim.batch_size": optim.batch_size}
    halved |= {f"data.sizes.{split}": cfg.data.sizes[split] for split in ("align", "train")}
    for key, size in halved.items():
        while size > 1:
            size //= 2
            yield key, size
