"""Refuse settings of the right type that make no sense, before any work is done.

The values that a setting may have stand beside it in `pkt.config`; rules between several settings stand here.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_args

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pkt import settings
from pkt.config import PARTS, Config, UpdateKind
from pkt.errors import RequestError, first_line, nearest, together
from pkt.rates import learning_rate, update_kind

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
_DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
_DEVICE = re.compile(r"(auto|cpu|cuda(:[0-9]{1,3})?|mps)\Z")


def check(cfg: DictConfig) -> None:
    """Check the composed request.

    Args:
        cfg: the composed config, typed by `pkt.config.Config`.

    Raises:
        RequestError: a value is missing, not one of its choices, or out of range.
        OmegaConfBaseException: a key that `+key=` forced in.
    """
    together(partial(_check_interpolation, cfg, *leaf) for leaf in _texts(OmegaConf.to_container(cfg), ""))
    for key in MOVED:  # it may come from `+objective.x=`, or from a file of the user's
        if OmegaConf.select(cfg, key) is not None:
            raise RequestError(replaced(key))
    # keys that `+key=` forced in are not in the schema
    OmegaConf.merge(_schema(), OmegaConf.create(OmegaConf.to_container(cfg)))
    missing = sorted(str(key) for key in OmegaConf.missing_keys(cfg))
    if missing:
        raise RequestError(
            f"not set: {', '.join(missing)}; add {missing[0]}=... to the command or to a config file"
        )
    together(
        [
            *(partial(_check_leaf, *leaf) for leaf in _leaves(cfg, _schema(), "")),
            partial(_check_teacher, cfg.model.teacher.init),
            *(partial(_check_cut, who, cfg.model[who]) for who in ("teacher", "student")),
            partial(check_parts, cfg.analyze.parts),
            partial(_check_device, cfg.device),
            partial(_check_threads, cfg.threads),
            partial(_check_time, cfg.model.chat_time),
            partial(_check_optim, cfg),
            partial(_check_labelled, cfg),
            *(
                partial(_check_drawn, cfg, node, what)
                for node, what in (("eval", "row"), ("answer", "prompt"))
            ),
            *(partial(_check_backend, cfg, node) for node in ("eval", "answer")),
        ]
    )


@cache
def _schema() -> DictConfig:
    """Return the request's types and defaults; nobody writes into it."""
    return cast(DictConfig, OmegaConf.structured(Config))


def replaced(key: str) -> str:
    """Return the message about a key of `MOVED`."""
    return f"'{key}' has been replaced: use {MOVED[key]}"


def _leaves(node: Any, schema: Any, path: str) -> Iterator[tuple[str, Any, settings.Setting]]:
    """Yield key, value and setting of every leaf; strategies check their own when they are built."""
    for field in dataclasses.fields(cast(type[Config], OmegaConf.get_type(schema))):
        at = f"{path}.{field.name}" if path else field.name
        if field.name not in node:
            raise RequestError(
                f"'~{at}' takes out a setting that every request has; leave it, or give it a value: {at}=..."
            )
        value, inner = node[field.name], schema._get_node(field.name)
        if dataclasses.is_dataclass(OmegaConf.get_type(inner)):
            yield from _leaves(value, inner, at)
        else:
            yield at, value, settings.known(field)


def _texts(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield key and text of every value that refers to others."""
    if isinstance(node, str):
        if "${" in node and not ("${hydra:" in node and not HydraConfig.initialized()):
            yield path, node
    elif isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts(inner, f"{path}.{key}" if path else str(key))


def _check_interpolation(cfg: DictConfig, key: str, text: str) -> None:
    try:
        OmegaConf.select(cfg, key)
    except OmegaConfBaseException as error:
        wanted = re.search(r"Interpolation key '([^']+)'", str(error))
        parent = OmegaConf.select(cfg, wanted[1].rpartition(".")[0]) if wanted and "." in wanted[1] else cfg
        known = [str(name) for name in parent] if wanted and isinstance(parent, DictConfig) else []
        hint = nearest(wanted[1].rpartition(".")[2], known) if wanted else ""
        raise RequestError(
            f"{key}={text}: {first_line(error)}{hint}; name a key that has a value (${{seed}}), or write the value"
        ) from error


# the bounds of a strategy's numbers stand in its class, which is imported to build it: here, those of the largest
_STRATEGY = settings.Setting(at_most=settings.MOST_SEED)


def _check_leaf(key: str, value: Any, about: settings.Setting) -> None:
    strategy = isinstance(value, DictConfig) and "_target_" in value
    settings.check(key, value, _STRATEGY if strategy else about)
    texts = [value] if isinstance(value, str) else value if isinstance(value, ListConfig) else ()
    for text in texts:  # names of files, folders, tasks and runs
        if str(text).startswith("~"):
            _check_home(key, text)
        if isinstance(text, str) and (control := re.search(r"[\x00-\x1f\x7f]", text)):
            raise RequestError(f"{key}: one line of text is expected, got {text!r} (with {control[0]!r})")


def _check_home(key: str, text: str) -> None:
    try:
        Path(text).expanduser()
    except RuntimeError as error:
        raise RequestError(
            f"{key}={text}: nobody here has that home folder; write the path from / on"
        ) from error


def _check_teacher(init: str) -> None:
    if init == "prune":  # another value is refused as none of the choices
        raise settings.not_allowed("model.teacher.init", init, ["load"])


def _check_cut(who: str, spec: DictConfig) -> None:
    """Refuse settings of a cut that cuts nothing, or that say twice which layers stay."""
    key = f"model.{who}.cut"
    asked = [name for name, value in spec.cut.items() if name != "by" and value is not None]
    if asked and spec.init != "prune":
        remedy = (
            "a teacher is always whole: set it to null, or cut the student"
            if who == "teacher"
            else "set model.student.init=prune and model.student.checkpoint=null, or set it to null"
        )
        raise RequestError(
            f"{key}.{asked[0]}={spec.cut[asked[0]]} cuts a student from its teacher, and model.{who}.init={spec.init} "
            f"loads a checkpoint: {remedy}"
        )
    if who == "student" and spec.init == "prune" and not asked and spec.layers is None:
        raise RequestError(
            f"model.{who}.init=prune says nothing of what stays of the teacher: set model.{who}.layers or one of {key}."
            "{every,layers,heads,mlp,hidden} (docs/cutting.md)"
        )
    layers = [f"{key}.{name}" for name in ("every", "layers") if name in asked]
    layers += [f"model.{who}.layers"] if spec.layers is not None and spec.init == "prune" else []
    if len(layers) > 1:
        raise RequestError(
            f"{' and '.join(layers)} each say which layers stay: set all but one of them to null"
        )
    for name in asked:
        value = spec.cut[name]
        if isinstance(value, float) and value >= 1:
            raise RequestError(
                f"{key}.{name}={value}: a whole number, or a share of the teacher's below 1, is expected"
            )


def _check_device(device: str) -> None:
    if not _DEVICE.match(device):
        raise RequestError(
            f"device: got '{device}'; allowed: auto, cpu, cuda, cuda:N, mps{nearest(device, _DEVICES)}"
        )


def _check_threads(threads: int) -> None:
    """Refuse more threads than any machine's library starts: the process would end without a word."""
    processors = os.cpu_count() or 1
    if threads > (most := max(64, processors)):
        raise RequestError(
            f"threads: up to {most} are allowed, got {threads}; this machine has {processors} processors, and more "
            "threads than that make nothing faster (0: torch's own choice)"
        )


def _check_time(text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestError(
            f"model.chat_time: a date or a date with a time is expected (2024-07-26T12:00:00), got '{text}'"
        ) from error


def _check_optim(cfg: DictConfig) -> None:
    method = str(cfg.method.name)
    kinds = get_args(UpdateKind)
    if unknown := sorted(set(cfg.optim.lr_by_update) - set(kinds)):
        raise RequestError(
            f"optim.lr_by_update: {' and '.join(kinds)} are expected, got {', '.join(unknown)}"
        )
    if cfg.optim.lr is None and learning_rate(cfg.optim, method, update_kind(cfg.method)) is None:
        raise RequestError(
            f"optim.lr is null, and optim.lr_by_method names neither {method} nor default, nor optim.lr_by_update what "
            "it trains: set optim.lr"
        )
    known = {method, "default"} & set(cfg.optim.epochs_by_method)
    if cfg.optim.epochs is None and cfg.optim.steps is None and not known:
        raise RequestError(
            f"optim.epochs is null, and optim.epochs_by_method names neither {method} nor default: set optim.epochs"
        )
    if cfg.optim.warmup >= 1:
        raise RequestError(
            f"optim.warmup is a share of all steps: 0 <= warmup < 1 is expected, got {cfg.optim.warmup}"
        )
    if len(cfg.optim.betas) != 2 or not all(0 <= beta < 1 for beta in cfg.optim.betas):
        raise RequestError(f"optim.betas: two numbers in [0, 1) are expected, got {list(cfg.optim.betas)}")


def _check_labelled(cfg: DictConfig) -> None:
    data, sizes = cfg.data, cfg.data.sizes
    if sizes.labelled is not None and sizes.labelled > sizes.train:
        raise RequestError(
            f"data.sizes.labelled={sizes.labelled}: these are some of the data.sizes.train={sizes.train} rows, so at "
            "most as many; raise data.sizes.train, or set data.sizes.labelled=null for all of them"
        )
    if data.unlabelled == "train" and sizes.labelled in (None, sizes.train):
        raise RequestError(
            f"data.unlabelled=train are the prompts of the data.sizes.train={sizes.train} rows but those with labels, "
            f"and data.sizes.labelled={'null' if sizes.labelled is None else sizes.labelled} leaves none: lower it"
        )
    named = [split for split in ("extract", "align") if data[split] is not None]
    if sizes.labelled is not None and named:
        raise RequestError(
            f"data.{named[0]}={data[named[0]]} has labels beyond data.sizes.labelled={sizes.labelled}, which is the "
            "number of all but those of validation: leave it null, and its rows are the first of the labelled ones"
        )


def _check_drawn(cfg: DictConfig, node: str, what: str) -> None:
    own = cfg[node]
    if own.temperature == 0 and own.samples > 1:
        raise RequestError(
            f"{node}.samples={own.samples} with {node}.temperature=0: greedy answers to a {what} are all the same; set "
            f"{node}.temperature (0.7, say), or {node}.samples=1"
        )
    if own.temperature == 0 and own.top_p < 1:
        raise RequestError(
            f"{node}.top_p={own.top_p} with {node}.temperature=0: a greedy answer is not drawn; set {node}.temperature"
        )


def _check_backend(cfg: DictConfig, node: str) -> None:
    if cfg[node].backend != "vllm":
        return
    if find_spec("vllm") is None:
        raise RequestError(
            f"{node}.backend=vllm needs the package vllm, which is not installed: pip install vllm, on a machine with "
            f"a GPU that it supports, or set {node}.backend=hf"
        )


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
