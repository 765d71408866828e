"""Try on a loaded model what pkt relies on: a few tokens, every layer, and a number for each check.

    model ──> tokens embedding runs finite                                 does it compute anything?
          ──> causal logits final_norm norm_weight               is what pkt reads what the model does?
          ──> block residual mlp attention sequential            what the taps give adds up, and a write counts
          ──> start stop                                         a pass may start from cached states, and end early

What does not hold is refused where it is needed (`Probe.require`), or the feature is off. A check that could not be
tried is an error of pkt's, and never a verdict on the model: it says so, and what it guards is used as if nobody had
looked, but for starting from cached states, which is only worth seconds and is off then.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pkt import console
from pkt.errors import first_line
from pkt.late import torch, transformers
from pkt.models import sublayers
from pkt.models.architecture import Architecture
from pkt.models.cuts import cuts
from pkt.models.findings import Check, Probe
from pkt.models.readings import (
    Sample,
    causal,
    embedding,
    final_norm,
    finite,
    logits,
    norm_weight,
    runs,
    tokens,
)
from pkt.remembered import recall, remember

log = logging.getLogger(__name__)

FIRST = ("runs", "finite")  # without these there is nothing to try
UNTRIED = "could not be tried"


def probe(arch: Architecture, tokenizer: Any = None) -> Probe:
    """Try everything on a model, which is left as it was.

    Args:
        arch: a loaded model.
        tokenizer: its tokenizer; None leaves out the check of token ids.
    """
    sample, checks, bound = Sample.of(arch), list[Check](), list[int]()

    def cut() -> tuple[Check, ...]:
        found, layers = cuts(arch, sample)
        bound.extend(layers)
        return found

    judges: dict[tuple[str, ...], Callable[[], Check | tuple[Check, ...]]] = {
        ("tokens",): lambda: tokens(arch, tokenizer),
        ("embedding",): lambda: embedding(arch),
        ("runs",): lambda: runs(sample),
        ("finite",): lambda: finite(sample),
        ("causal",): lambda: causal(sample),
        ("logits",): lambda: logits(sample),
        ("final_norm",): lambda: final_norm(sample),
        ("norm_weight",): lambda: norm_weight(arch),
        ("block",): lambda: sublayers.whole(arch, sample, "block"),
        ("residual",): lambda: sublayers.whole(arch, sample, "residual"),
        ("mlp", "attention"): lambda: sublayers.parts(arch, sample),
        ("sequential",): lambda: sublayers.sequential(arch, sample),
        ("start", "stop"): cut,
    }
    with _still(arch):
        for names, judge in judges.items():
            broken = [check.name for check in checks if check.name in FIRST and check.holds is False]
            checks += (
                _untried(names, f"not tried, because of '{broken[0]}'") if broken else _judged(names, judge)
            )
    return Probe(model_type=arch.model.config.model_type, checks=tuple(checks), bound=tuple(bound))


def _judged(names: Sequence[str], judge: Callable[[], Check | tuple[Check, ...]]) -> Sequence[Check]:
    try:
        found = judge()
    except Exception as error:
        log.debug("a check of the probe failed", exc_info=True)
        return _untried(names, f"{UNTRIED} ({type(error).__name__}: {first_line(error)})")
    return found if isinstance(found, tuple) else (found,)


def _untried(names: Sequence[str], why: str) -> Sequence[Check]:
    return [Check(name=name, holds=None, number=None, sentence=why) for name in names]


def probed(arch: Architecture, tokenizer: Any, identity: str, folder: Path | None) -> Probe:
    """Return a model's probe, kept from an earlier load where there is one, and say what is off.

    Args:
        arch: the loaded model.
        tokenizer: its tokenizer.
        identity: its fingerprint.
        folder: where probes are kept; None keeps nothing.
    """
    file = folder / f"{_key(arch, identity)}.json" if folder is not None else None
    found = _kept(file) if file is not None else None
    if found is None:
        found = probe(arch, tokenizer)
        if file is not None and not any(check.sentence.startswith(UNTRIED) for check in found.checks):
            remember(file, asdict(found))
    off = [
        check.sentence
        for check in found.checks
        if check.name in ("start", "stop") and check.holds is not True
    ]
    for sentence in dict.fromkeys(off):
        console.note(f"{found.model_type}: {sentence}")
    return found


def _key(arch: Architecture, identity: str) -> str:
    """Return the name under which a probe is kept: of the model as it is loaded, and of the code that judged it."""
    parts = [identity, str(arch.dtype), arch.device.type, repr(arch.roles), *_code()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@cache
def _code() -> tuple[str, ...]:
    """Return what a verdict depends on beside the model: the modules of this package, torch and transformers."""
    own = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))
    return own.hexdigest(), torch.__version__, transformers.__version__


def _kept(file: Path) -> Probe | None:
    """Return the probe in a file; None where it is damaged, or was kept of another model."""
    if (content := recall(file, "the model is probed again")) is None:
        return None
    checks = tuple(Check(**check) for check in content["checks"])
    return Probe(model_type=content["model_type"], checks=checks, bound=tuple(content["bound"]))


@contextmanager
def _still(arch: Architecture) -> Iterator[None]:
    """Put a model into eval mode without gradients of parameters, and leave the global generators alone."""
    modes = {module: module.training for module in arch.model.modules()}
    wanted = [parameter for parameter in arch.model.parameters() if parameter.requires_grad]
    devices = [arch.device] if arch.device.type == "cuda" else []
    try:
        arch.model.eval()
        for parameter in wanted:
            parameter.requires_grad_(False)
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training
