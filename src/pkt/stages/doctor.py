"""`pkt doctor`: what was found out about both models, and whether training's shortcuts give what the long way gives.

    teacher, student ──> probe of each         (pkt.models.probe)
    model as its own teacher ──> layer loss 0  kept states, cached prefix
    teacher ──> outputs kept = outputs live
    student ──> adapter = adapter folded into the weights
    both tokenizers ──> rows, padding, special tokens, shared ids

It is no stage: the store gets nothing but the probes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pkt import console
from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.durable import write_atomically
from pkt.errors import PktError, RequestError, first_line
from pkt.late import torch
from pkt.methods.base import Method
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.behaviour import distance, tolerance
from pkt.models.findings import INTERFACES, Check, Probe
from pkt.models.probe import UNTRIED
from pkt.models.readings import PADDED, Sample
from pkt.models.taps import Interface
from pkt.objectives import Cosine, Objective, OutputHead
from pkt.training.capture import advance, capture, capture_all
from pkt.training.forward import Targets, TransferLoss
from pkt.training.passes import Pass, Prefix, Read, ReadOut
from pkt.training.teacher import LiveTeacher, TopRows
from pkt.training.trainable import Update, make_trainable

log = logging.getLogger(__name__)

# without these nothing is right; other checks that do not hold only take a feature away
NEEDED = (
    "tokens",
    "runs",
    "finite",
    "causal",
    "logits",
    "interfaces",
    "identity",
    "cached",
    "merged",
    "vocabulary",
    "ends",
)
PROMPT = 2  # tokens of each row that are no answer
NOISE = 0.05  # size of the adapter's weights: enough to change every logit


def show(bench: Workbench, method: Method, folder: Path) -> None:
    """Print what was found about both models of a pair, with numbers, and write it to `doctor.json`.

    Args:
        bench: the pair.
        method: of the request; its adapters are tried.
        folder: of the run.

    Raises:
        PktError: something that pkt relies on does not hold.
    """
    found: dict[str, list[Check]] = {}
    for role in ("teacher", "student"):
        arch: Architecture = getattr(bench, role).arch
        assert arch.probe is not None
        found[role] = [
            *arch.probe.checks,
            *_interfaces(arch.probe),
            *_tried("identity", partial(identity, arch)),
        ]
        _print(f"{role}: {arch.model.config.model_type}, {arch.depth} layers of {arch.width}", found[role])
    found["pair"] = [
        *_tried("vocabulary", partial(vocabulary, bench)),
        *_ends(bench.student.tokenizer),
        *_tried("cached", partial(cached, bench)),
        *_tried("merged", partial(merged, bench, getattr(method, "update", Update()))),
    ]
    _print(f"pair: {bench.config.model.name}", found["pair"])
    console.table("tokenizers", ("", "teacher", "student"), list(tokenizers(bench)))
    bench.release("student")  # it has an adapter now
    listed = {
        who: [asdict(check) | {"state": _state(check)} for check in checks] for who, checks in found.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "doctor.json", json.dumps(listed, indent=1) + "\n")
    _sum_up(found)


def _sum_up(found: Mapping[str, Sequence[Check]]) -> None:
    named = [(f"{who} {check.name}", check) for who, checks in found.items() for check in checks]
    if wrong := [f"{name}: {check.sentence}" for name, check in named if _state(check) == "wrong"]:
        raise PktError(f"{len(wrong)} of these are wrong: {'; '.join(wrong)}")
    untried = [name for name, check in named if check.sentence.startswith(UNTRIED)]
    console.say(f"nothing is wrong, but {UNTRIED}: {', '.join(untried)}" if untried else "all is well")


def _print(title: str, checks: Sequence[Check]) -> None:
    rows = [(check.name, _state(check), _number(check), check.sentence) for check in checks]
    console.table(title, ("check", "", "number", "what was found"), rows)


def _state(check: Check) -> str:
    if check.holds is None:
        return "-"
    return "ok" if check.holds else "wrong" if check.name in NEEDED else "off"


def _number(check: Check) -> str:
    return "" if check.number is None else f"{check.number:.2g}"


def _tried(name: str, judge: Callable[[], Check]) -> list[Check]:
    """Return a check; what is refused by name is off, and an error of pkt's own is no verdict."""
    try:
        return [judge()]
    except RequestError as error:
        return [
            Check(
                name=name,
                holds=False if name == "vocabulary" else None,
                number=None,
                sentence=str(error),
            )
        ]
    except Exception as error:
        log.debug("a check of the doctor failed", exc_info=True)
        failed = f"{UNTRIED} ({type(error).__name__}: {first_line(error)})"
        return [Check(name=name, holds=None, number=None, sentence=failed)]


def _interfaces(probe: Probe) -> Iterator[Check]:
    """Say so if a model has no interface at all."""
    if all(probe.check(name).holds is False for name in INTERFACES):
        sentence = "no interface can be used, so no method that reads states of layers can"
        yield Check(name="interfaces", holds=False, number=None, sentence=sentence)


def _ends(tokenizer: Any) -> Iterator[Check]:
    """Say so if nothing can end the student's answers: every transfer is refused then."""
    if tokenizer.eos_token_id is None:
        sentence = "the student's tokenizer has no EOS token, which ends every answer; set one"
        yield Check(name="ends", holds=False, number=None, sentence=sentence)


def _rows(arch: Architecture) -> Encoded:
    """Return the probe's tokens as rows with an answer."""
    sample = Sample.of(arch)
    ids = sample.ids_BT.tolist()
    ids[-1] = ids[-1][:-PADDED]
    return Encoded(input_ids=ids, prompt_lengths=[PROMPT] * len(ids))


def identity(arch: Architecture) -> Check:
    """Check that a model that is its own teacher has no layer loss, with cached states below the upper half."""
    assert arch.probe is not None
    interface = next((name for name in INTERFACES if arch.probe.check(name).holds is not False), "block")
    first = arch.depth // 2 + 1
    encoded, layers = _rows(arch), range(first, arch.depth + 1)
    targets = capture(
        arch,
        encoded,
        {k: Read(layers=(k,), width=arch.width) for k in layers},
        interface=Interface(interface),
        positions="all",
        batch_size=1,
    )
    starts = first > 1 and arch.starts_at(first)
    prefix: Prefix | None = advance(arch, encoded, first - 1, None, batch_size=2) if starts else None
    loss = TransferLoss(
        arch=arch,
        objective=Objective(terms={"layer": Cosine(positions="all")}),
        interface=Interface(interface),
        targets=Targets.kept(targets, positions="all"),
        prefix=prefix,
        head=OutputHead(arch=arch),
    )
    batch = collate(encoded, [0, 1]).to(arch.device)
    with torch.no_grad():
        error = float(loss(batch)["loss_layer"].abs().max()) / loss.counts(batch)["loss_layer"]
    how = f"from cached states at layer {first}" if starts else "from the tokens"
    sentence = f"as its own teacher its layer loss is {error:.1g} ({interface}, layers {first} to {arch.depth}, {how})"
    return Check(name="identity", holds=error <= tolerance(arch.dtype), number=error, sentence=sentence)


def cached(bench: Workbench) -> Check:
    """Check that the teacher's kept distributions are those of the live teacher."""
    arch = bench.teacher.arch
    read_out, encoded = ReadOut(shared=bench.pair_report.teacher_ids), _rows(arch)
    live = LiveTeacher(arch=arch, read_out=read_out)
    columns = capture_all(Pass(arch=arch, encoded=encoded, outputs=read_out), batch_size=1)
    kept = TopRows(log_probs=columns["log_probs"])
    batch = collate(encoded, [1, 0]).to(arch.device)
    found, expected = (source.of(batch) for source in (kept, live))
    shares = [made.read(*made.tensors).log_probs_nK.float().exp().cpu() for made in (found, expected)]
    error = float((shares[0] - shares[1]).abs().max())
    sentence = f"kept and live probabilities of the teacher differ by at most {error:.1g}"
    return Check(name="cached", holds=error <= tolerance(arch.dtype), number=error, sentence=sentence)


@torch.no_grad()
def merged(bench: Workbench, update: Update) -> Check:
    """Check that an adapter and the weights into which it is folded are the same function; changes the student."""
    arch = bench.student.arch
    sample = Sample.of(arch)
    lora = Update(rank=4, alpha=4.0, targets=list(update.targets))
    with torch.random.fork_rng():
        trainable = make_trainable(arch, lora, range(1, arch.depth + 1), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainable.parameters.items():
        if "lora_B" in name or "lora_embedding_B" in name:
            parameter.copy_(NOISE * torch.randn(parameter.shape, generator=generator))
    before = sample.decode()
    trainable.merged()
    after = sample.decode()
    error = distance(sample.real(after), sample.real(before))
    where = ", ".join(lora.targets)
    sentence = f"an adapter on {where} of every layer, folded into the weights, changes states by {error:.1g}"
    return Check(name="merged", holds=error <= 10 * tolerance(arch.dtype), number=error, sentence=sentence)


def vocabulary(bench: Workbench) -> Check:
    """Check that both models give the same ids to the same tokens."""
    shared = len(bench.pair_report.teacher_ids)
    notes = "".join(f"; {note}" for note in bench.pair_report.warnings)
    return Check(
        name="vocabulary", holds=shared > 0, number=float(shared), sentence=f"{shared} shared ids{notes}"
    )


def tokenizers(bench: Workbench) -> Iterator[tuple[str, ...]]:
    """Yield what a reader wants to know of both vocabularies: a name, the teacher's, the student's."""
    models = [bench.teacher, bench.student]
    tokens = [len(model.tokenizer.get_vocab()) for model in models]
    rows = [model.arch.rows for model in models]
    padding = [max(row - token, 0) for row, token in zip(rows, tokens, strict=True)]
    yield "tokens", *map(str, tokens)
    yield "rows of the embedding", *map(str, rows)
    yield "padding rows", *map(str, padding)
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        found = [(getattr(m.tokenizer, name), getattr(m.tokenizer, f"{name}_id")) for m in models]
        yield name, *(f"{token} ({index})" if token is not None else "none" for token, index in found)
    yield "chat template", *("yes" if model.tokenizer.chat_template else "no" for model in models)
