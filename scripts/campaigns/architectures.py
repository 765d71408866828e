"""Every causal decoder of the installed transformers, from declared roles to a saved student that is scored again.

    tiny random teacher -> pkt run (student cut from it) -> saved folder -> plain transformers -> the same numbers
                                                            -> pkt eval, pkt analyze of that folder

What "works" means is measured without pkt: the cut student gives the logits of a teacher in which the other layers are
bypassed; the validation loss that pkt reports is that of the saved folder; what a layer-wise method read in a layer is
what that module returned, and what it adds reaches the layer's output. Anything else has to be refused in words.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from campaigns.family import EndedError, Family, plain, prepare
from campaigns.tiny_families import generates, guessed_roles, is_causal, model_types, tiny_family
from campaigns.trials import Trial, Verdict
from pkt.config import CheckpointSpec, PairConfig
from pkt.models.architecture import Architecture
from pkt.models.pair import load_student
from pkt.models.taps import tap

WAYS = (  # method and what trains; a family takes the next one
    ("sft", "lora"),
    ("semalign_joint", "full"),
    ("semalign", "lora"),
    ("hidden_kd", "full"),
    ("pissa", "lora"),
    ("sft", "full"),
    ("seeking", "lora"),
    ("semalign_joint", "lora"),
    ("semalign_fisher", "full"),
    ("laten", ""),
)
READS = {  # where a method reads layers
    "semalign": "mlp",
    "semalign_joint": "block",
    "hidden_kd": "block",
    "semalign_fisher": "block",
}
COUNT = 95  # every second type: minutes; `--seed 1` tries the others
AFTER = ("eval", "analyze", "again")
CUTS = ([1, 3, 4, 6], [2, 3, 5], [1, 2, 5, 6])
TOLERANCE = 2e-3  # of losses and logits, relative: float32 through other kernels
IDS = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))


def trials(count: int | None, seed: int) -> Iterable[Trial]:
    """Yield trials of every second model type, or of about `count` types, spread over all."""
    types = model_types()
    step = max(1, round(len(types) / (count or COUNT)))
    for place, model_type in enumerate(types[seed % step :: step][:count]):
        method, kind = WAYS[(place + seed) % len(WAYS)]
        layers, after = CUTS[place // len(AFTER) % len(CUTS)], AFTER[place % len(AFTER)]
        if method == "laten" and after == "again":
            after = "eval"  # what it changes, it does not train with the optimiser that takes no steps
        yield Trial(
            name=f"{model_type} {method} {kind} {after}",
            attempt=partial(attempt, model_type, method, kind, layers, after),
        )


def attempt(
    model_type: str, method: str, kind: str, layers: Sequence[int], after: str
) -> tuple[Verdict, str]:
    """Try one family.

    Args:
        model_type: of transformers.
        method: of pkt.
        kind: what trains: ``lora``, ``full``, or nothing.
        layers: of the teacher that the student keeps.
        after: what is asked of the saved folder then: one of `AFTER`.
    """
    gc.freeze()  # pkt frees models by collecting garbage; imported modules need not be looked through each time
    try:
        teacher = tiny_family(model_type)
        causal = is_causal(teacher)
        generates(teacher)
    except Exception as error:  # whatever a foreign config or model says of small numbers
        return Verdict.SKIPPED, f"no tiny model: {type(error).__name__}: {str(error)[:160]}"
    try:
        roles = guessed_roles(teacher)
    except ValueError as error:
        return Verdict.SKIPPED, f"no roles to declare: {error}"
    root = Path(tempfile.mkdtemp(prefix="pkt-architectures-"))
    try:
        family = prepare(root, teacher, roles, layers)
        return _tried(family, method, kind, after, causal=causal)
    except EndedError as end:
        return end.verdict, end.detail
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _tried(family: Family, method: str, kind: str, after: str, *, causal: bool) -> tuple[Verdict, str]:
    update = [f"method.update.kind={kind}"] if kind and method not in ("seeking", "pissa") else []
    adapters = _adapters(family, method) if kind == "lora" else []
    chosen = [f"method={method}", *update, *adapters]
    try:
        _request(family, "run", *chosen)
    except EndedError as end:
        if "model.student.init=load" not in end.detail:
            raise
        family.load_a_student()  # the remedy that the refusal names
        _request(family, "run", *chosen)
    if not causal:
        return Verdict.WRONG, "it is no causal model, and was trained as one"
    folder = family.transferred()
    _check_loss(family, folder)
    if method in READS:
        _check_taps(family, READS[method])
    before = _scores(family)
    if after == "eval":
        _request(family, "eval", *chosen, f"eval.checkpoint={folder}", "eval.models=[transferred]")
        if _scores(family) != before:
            return Verdict.WRONG, "the saved folder has other scores than the transferred student"
    elif after == "analyze":
        _request(family, "analyze", "cka", *chosen, f"eval.checkpoint={folder}", "analyze.rows=2")
    else:  # the saved folder is the next request's student, without declared roles
        again = [
            "optim.epochs=0",
            "model.student.init=load",
            "model.student.layers=null",
            f"model.student.checkpoint={folder}",
        ]
        _request(family, "transfer", *chosen, last=again)
        _same(plain(folder), plain(family.transferred()), "a student that nothing trained has changed")
    if family.layers:
        _check_cut(family)
    return Verdict.WORKS, ""


def _adapters(family: Family, method: str) -> list[str]:
    """Return the words for adapters on what the layers have: what the refusal of the default targets says to set."""
    own = family.roles["projections"]
    usual = [name for name in ("up", "down", "v", "o") if name in own]
    targets = [f"method.update.targets=[{','.join(usual or own)}]"] if own else []
    recipe = ["method.recipe=null"] if method == "seeking" and own else []
    return ["method.update.rank=4", "method.update.alpha=4", *targets, *recipe]


def _request(family: Family, *words: str, last: Sequence[str] = ()) -> None:
    """Make a request that has to go through; `last` overrides the family's own words."""
    code = family.pkt(*words, last=last)
    told = family.said.strip().splitlines()
    begins = [i for i, line in enumerate(told) if line.startswith("pkt: ") and "warning" not in line]
    message = f"`pkt {' '.join(words[:4])}`: {' '.join(told[begins[-1] if begins else 0 :])}"
    if "unexpected " in family.said or "Traceback" in family.said:
        logs = sorted(family.root.glob("outputs/runs/**/error.log"))
        raise EndedError(Verdict.TRACEBACK, message + (logs[-1].read_text()[-1500:] if logs else ""))
    if code:
        raise EndedError(Verdict.REFUSED, message)


def _scores(family: Family) -> Any:
    """Return the score of the newest transferred student."""
    found = max(
        (p for p in family.root.glob("outputs/runs/*/*/scores.json")), key=lambda p: p.stat().st_mtime_ns
    )
    text = json.loads(found.read_text(encoding="utf-8"))
    return [score for score in _leaves(text) if score[0].startswith("transferred")]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, node


def _check_loss(family: Family, folder: Path) -> None:
    """Compare the validation loss that pkt reports with that of the saved folder in plain transformers."""
    validations = json.loads((folder.parent / "metrics.json").read_text())["history"]["validations"]
    if not validations or "cross_entropy" not in validations[-1]:
        return
    model, tokenizer = plain(folder), AutoTokenizer.from_pretrained(folder)
    losses: list[float] = []
    for line in (family.root / "validation.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompt, answer = (
            tokenizer(row[part], add_special_tokens=False).input_ids for part in ("prompt", "answer")
        )
        ids = torch.tensor([[*prompt, *answer, tokenizer.eos_token_id]])
        with torch.no_grad():
            logs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        places = range(len(prompt) - 1, ids.shape[1] - 1)
        losses += [-float(logs[place, ids[0, place + 1]]) for place in places]
    own, reported = sum(losses) / len(losses), validations[-1]["cross_entropy"]
    if not abs(own - reported) <= TOLERANCE * abs(own):
        raise EndedError(Verdict.WRONG, f"validation loss {reported:.6g}, the saved folder has {own:.6g}")


class _Bypassed(nn.Module):
    """A layer of the teacher whose output is what enters it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        """Decoders ask layers for their kind."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer for the form of its output, and give back what entered."""
        entering = args[0] if args else kwargs["hidden_states"]
        out = self.layer(
            *(a.clone() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args), **kwargs
        )
        return type(out)([entering, *out[1:]]) if isinstance(out, tuple | list) else entering


def _check_cut(family: Family) -> None:
    """Compare the untouched cut student with a teacher whose other layers are bypassed."""
    layers = family.teacher.get_submodule(family.roles["layers"])
    for index in range(len(layers)):
        if index + 1 not in family.layers:
            layers[index] = _Bypassed(layers[index])
    roles = {name: dict(v) if isinstance(v, Mapping) else v for name, v in family.roles.items()}
    whole = CheckpointSpec(checkpoint=str(family.root / "teacher"), dtype="float32", roles=roles)
    own = CheckpointSpec(init="prune", layers=list(family.layers), dtype="float32")
    student = load_student(PairConfig(name="cut", teacher=whole, student=own), None, "cpu").model
    _same(family.teacher, student, "the cut student is not the teacher's layers")


def _same(one: Any, other: Any, otherwise: str) -> None:
    """Compare the logits of two models."""
    with torch.no_grad():
        expected, found = (model(input_ids=IDS, use_cache=False).logits.float() for model in (one, other))
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= TOLERANCE:
        raise EndedError(Verdict.WRONG, f"{otherwise}: relative error {error:.3g}")


def _check_taps(family: Family, interface: str) -> None:
    """Check that a tap keeps what the module returned, and that what a sublayer returns is what its layer adds."""
    arch = Architecture.of(family.teacher, family.roles)
    for number in range(1, arch.depth + 1):
        kept: list[Tensor] = []
        module = arch.layer(number) if interface == "block" else arch.sublayer_out(number, interface)
        with torch.no_grad(), tap(arch, [number], interface) as states:
            handle = module.register_forward_hook(partial(_keep, kept))
            family.teacher(input_ids=IDS, use_cache=False)
            handle.remove()
        if not torch.equal(states[number].reshape(kept[-1].shape), kept[-1]):
            raise EndedError(
                Verdict.WRONG, f"the {interface} state of layer {number} changed after it was read"
            )
        if interface == "mlp":
            _check_added(family, arch, number, module)


def _check_added(family: Family, arch: Architecture, number: int, module: nn.Module) -> None:
    """A shift of the MLP's output has to shift the layer's output by as much."""
    shift = torch.linspace(-1, 1, arch.width)
    outputs: list[Tensor] = []
    for moved in (0.0, 1.0):

        def change(_m: nn.Module, _a: Any, out: Any, by: float = moved) -> Any:
            state = _first(out) + by * shift
            return (state, *out[1:]) if isinstance(out, tuple) else state

        handles = [
            module.register_forward_hook(change),
            arch.layer(number).register_forward_hook(partial(_keep, outputs)),
        ]
        with torch.no_grad():
            family.teacher(input_ids=IDS, use_cache=False)
        for handle in handles:
            handle.remove()
    got = outputs[-1] - outputs[0]
    if not torch.allclose(got, shift.expand_as(got), atol=1e-3):
        factor = float((got * shift).mean() / shift.square().mean())
        raise EndedError(
            Verdict.WRONG, f"layer {number} adds {factor:.3g} times what its {type(module).__name__} returns"
        )


def _keep(kept: list[Tensor], _m: nn.Module, _args: Any, output: Any) -> None:
    kept.append(_first(output).clone())


def _first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple | list) else output
    return found
