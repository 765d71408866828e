"""Every loss and fit at the edge: random norms, types, shapes and odd cases, in value and gradient against float64.

    number of the trial -> term, Scene (states, targets, head, labels) -> fast value and gradient ┐
                                                                       -> slow_losses, float64    ┴-> verdict

Gradients are compared as g * |h|, which has no unit, against the largest of all positions.
Shape suffixes: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor

from campaigns import slow_losses as slow
from campaigns.trials import Trial, Verdict
from pkt.attribution.similarity import Grams, Moments
from pkt.objectives import (
    Cosine,
    CrossEntropy,
    Distributions,
    Divergence,
    Fisher,
    Geometry,
    Head,
    Labels,
    MeanSquare,
    OutputCosine,
    Outputs,
    Pair,
    Sequences,
    States,
    TokenDistribution,
    View,
    token_distribution,
)
from pkt.semantics import HeadView, Procrustes, Ridge, quality_card
from pkt.semantics.paired import moments
from pkt.semantics.ridge import leave_one_out

COUNT = 2000
VALUE, GRADIENT = 2e-4, 2e-3  # relative errors that float32 may have
HALF = 2e-2  # of a gradient that is handed on in bfloat16
FLOOR = 3e-6  # absolute error of what has no unit
EDGES = ("plain", "plain", "one", "equal", "zero", "massive", "matched", "deficient", "sharp")
Found = tuple[Verdict, str]


@dataclass(frozen=True, kw_only=True)
class Spot:
    """The read-out that terms see: a linear head in float32, or one with soft-capped logits."""

    weight_VD: Tensor
    is_linear: bool = True

    @property
    def gram_DD(self) -> Tensor:
        """W^T W."""
        return self.weight_VD.T @ self.weight_VD

    def read_out(self, h_ND: Tensor) -> Tensor:
        """Logits, in float32; in float64 of float64 states."""
        h_ND = h_ND if h_ND.dtype == torch.float64 else h_ND.float()
        logits_NV = h_ND @ self.weight_VD.to(h_ND.dtype).T
        return logits_NV if self.is_linear else 30 * torch.tanh(logits_NV / 30)

    def read_shared(self, h_ND: Tensor, _temperature: float) -> Tensor:
        """Logits: both models have every token."""
        return self.read_out(h_ND)

    lens = read_out


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What one trial is about.

    Attributes:
        edge: what is odd.
        norm: of the states.
        spread: standard deviation of the logits.
        states: h, in the type of the trial.
        targets: h*, of another norm.
        head: the read-out.
        teacher: logits of the teacher.
        labels: y.
        counts: tokens per sequence.
        unread: how much longer than the rest the part of a state is that the head does not read.
    """

    edge: str
    norm: float
    spread: float
    states: Tensor
    targets: Tensor
    head: Spot
    teacher: Tensor
    labels: Tensor
    counts: list[int]
    unread: float

    @classmethod
    def drawn(cls, random: Random) -> Scene:
        """Draw one."""
        generator = torch.Generator().manual_seed(random.getrandbits(32))
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        edge, norm, other = random.choice(EDGES), *(10 ** random.uniform(-6, 6) for _ in range(2))
        width, vocabulary = random.choice((3, 8, 24)), random.choice((5, 40))
        spread = 100.0 if edge == "sharp" else 10 ** random.uniform(-1, 2)
        counts = (
            [1] if edge == "one" else [random.choice((1, 2, 5, 17)) for _ in range(random.choice((1, 3)))]
        )
        states, targets = (draw(sum(counts), width) / width**0.5 for _ in range(2))
        weight, unread = draw(vocabulary, width) * spread / norm, 1.0
        match edge:
            case "equal":
                states = states[:1].expand(sum(counts), -1)
            case "zero":
                states[random.randrange(sum(counts))] = 0
            case "massive":
                states[0], targets[0] = (side[0] * 10 ** random.uniform(1, 2.5) for side in (states, targets))
            case "matched":
                targets = states + 10 ** random.uniform(-4, -1) * targets
            case "deficient":
                unread, turn = 10 ** random.uniform(0, 3), torch.linalg.qr(draw(width, width)).Q
                states[:, -1] *= unread
                states, weight = states @ turn, torch.cat([weight[:, :-1], 0 * weight[:, -1:]], 1) @ turn
        return cls(
            edge=edge,
            norm=norm,
            spread=spread,
            states=(norm * states).to(random.choice((torch.float32, torch.float32, torch.bfloat16))),
            targets=(other * targets).float(),
            head=Spot(weight_VD=weight.float()),
            teacher=(spread * draw(sum(counts), vocabulary)).float(),
            labels=torch.randint(vocabulary, (sum(counts),), generator=generator),
            counts=counts,
            unread=unread,
        )

    @property
    def readable(self) -> Tensor:
        """The targets at the states' norm, where the head reads them."""
        return self.targets * (self.norm / max(float(self.targets.norm(dim=-1).median()), 1e-30))

    def view(self, states_ND: Tensor, more: Mapping[Any, Any]) -> View:
        """Return what terms see; ``more`` may put other things in place of the scene's."""
        sequence_N = torch.repeat_interleave(torch.arange(len(self.counts)), torch.tensor(self.counts))
        given = {Sequences: sequence_N, Head: self.head, Labels: self.labels, "targets": self.targets, **more}
        given[States] = [Pair(layer=1, states_ND=states_ND, targets_ND=given.pop("targets"))]
        return View(count=len(states_ND), given=given, final=states_ND)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A term and its slow twin.

    Attributes:
        fast: the term.
        twin: float64 states and the scene to the mean that the term stands for.
        more: what else it sees of a scene.
        unit: whether the value has no unit (1 is much), so that an absolute error counts.
        reads: whether it reads logits, whose own rounding grows with them and with what the head does not read.
    """

    fast: Any
    twin: Callable[[Tensor, Scene], Tensor]
    more: Callable[[Scene], dict[Any, Any]] = lambda _scene: {}
    unit: bool = True
    reads: bool = False

    def judge(self, scene: Scene) -> Found:
        """Compare value and gradient."""
        states, exact = scene.states.clone().requires_grad_(), scene.states.double().requires_grad_()
        sums = self.fast(scene.view(states, self.more(scene)))
        value, wanted = (sums.total / max(sums.count, 1)).mean(), self.twin(exact, scene)
        got, right = (
            torch.autograd.grad(total, leaf)[0] for total, leaf in ((value, states), (wanted, exact))
        )
        if not (value.isfinite() and got.isfinite().all()):
            return (
                Verdict.WRONG,
                f"not finite: value {float(value.detach())}, wanted {float(wanted.detach())}",
            )
        size = scene.unread * max(1.0, float(scene.head.read_out(scene.states).abs().max()))
        floor = FLOOR * (size if self.reads else 1.0) if self.unit else 0.0
        number, should = float(value.detach()), float(wanted.detach())
        if (off := abs(number - should)) > VALUE * abs(should) + floor:
            return Verdict.WRONG, f"value {number:.6g}, wanted {should:.6g}, off by {off:.2g}"
        lengths_N1 = exact.detach().norm(dim=-1, keepdim=True)
        got, right = got.double() * lengths_N1, right * lengths_N1
        share = GRADIENT if scene.states.dtype == torch.float32 else HALF
        if (off := float((got - right).abs().max())) > share * float(right.abs().max()) + floor * max(
            1.0, should
        ):
            return Verdict.WRONG, f"gradient off by {off:.2g} of {float(right.abs().max()):.2g}"
        return Verdict.WORKS, f"value {number:.6g}"


def _divergence(kind: Any, temperature: float, top_k: int | None) -> Loss:
    def taught(scene: Scene) -> dict[Any, Any]:
        found = token_distribution(scene.teacher, top_k=top_k, temperature=temperature)
        if found.tokens_nK is None or found.log_tail_n is None:
            whole = Distributions(
                tensors=(found.log_probs_nK,), read=lambda p: TokenDistribution(log_probs_nK=p)
            )
            return {Outputs: whole}
        return {
            Outputs: Distributions(
                tensors=(found.log_probs_nK, found.tokens_nK, found.log_tail_n),
                read=lambda p, ids, rest: TokenDistribution(log_probs_nK=p, tokens_nK=ids, log_tail_n=rest),
            )
        }

    def twin(h_ND: Tensor, scene: Scene) -> Tensor:
        logits_NV, teacher_NV = scene.head.read_out(h_ND), scene.teacher.double()
        return slow.divergence(logits_NV, teacher_NV, kind=kind, temperature=temperature, top_k=top_k)

    return Loss(
        fast=Divergence(kind=kind, temperature=temperature, top_k=top_k), twin=twin, more=taught, reads=True
    )


def _fisher(top_k: int | None) -> Loss:
    def twin(h_ND: Tensor, scene: Scene) -> Tensor:
        return slow.fisher(scene.head.read_out(h_ND), scene.head.read_out(scene.readable.double()), top_k)

    return Loss(fast=Fisher(top_k=top_k), twin=twin, more=lambda s: {"targets": s.readable}, reads=True)


def _geometry(relation: Any) -> Loss:
    def twin(h_ND: Tensor, scene: Scene) -> Tensor:
        return slow.geometry(h_ND, scene.targets.double(), scene.counts, relation)

    return Loss(fast=Geometry(relation=relation), twin=twin)


def _capped(scene: Scene) -> Spot:
    return replace(scene.head, is_linear=False)


LOSSES: dict[str, Loss] = {
    "cosine": Loss(fast=Cosine(), twin=lambda h, s: slow.cosine(h, s.targets.double())),
    "mean_square": Loss(
        fast=MeanSquare(), twin=lambda h, s: slow.mean_square(h, s.targets.double()), unit=False
    ),
    "geometry cka": _geometry("cka"),
    "geometry cosine": _geometry("cosine"),
    "fisher": _fisher(None),
    "fisher top_k=3": _fisher(3),
    "output_cosine": Loss(
        fast=OutputCosine(), twin=lambda h, s: slow.output_cosine(s.head.read_out(h), s.labels), reads=True
    ),
    "output_cosine capped": Loss(
        fast=OutputCosine(),
        twin=lambda h, s: slow.output_cosine(_capped(s).read_out(h), s.labels),
        more=lambda s: {Head: _capped(s)},
        reads=True,
    ),
    "ce": Loss(
        fast=CrossEntropy(), twin=lambda h, s: slow.cross_entropy(s.head.read_out(h), s.labels), reads=True
    ),
    **{
        f"kl {kind} tau={tau:g} top_k={top_k}": _divergence(kind, tau, top_k)
        for kind in ("forward", "reverse", "js")
        for tau, top_k in ((1.0, None), (2.0, 3), (0.3, 4))
    },
}


def _paired(random: Random) -> tuple[Tensor, Tensor, list[int]]:
    """Draw paired states of any norms, with massive positions among them, and say which are not."""
    generator = torch.Generator().manual_seed(random.getrandbits(32))
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    count, width, other = random.choice((9, 40)), random.choice((4, 12)), random.choice((3, 8))
    x = draw(count, width) * torch.logspace(0, -1, width, dtype=torch.float64) + 0.2
    y = x @ draw(width, other) + 0.3 * draw(count, other)
    scales = [10 ** random.uniform(-6, 6) for _ in range(2)]
    massive = random.sample(range(count), random.choice((0, 1, 2)))
    for position in massive:
        side = random.choice((x, y))
        side[position] *= 10 ** random.uniform(2.5, 4) / side[position].norm() * side.norm(dim=-1).median()
    return x * scales[0], y * scales[1], [i for i in range(count) if i not in massive]


def _close(got: Tensor, wanted: Tensor, share: float, what: str) -> Found:
    off, size = float((got.double() - wanted).abs().max()), float(wanted.abs().max())
    return (
        (Verdict.WORKS, "")
        if off <= share * size
        else (Verdict.WRONG, f"{what} off by {off:.2g} of {size:.2g}")
    )


def _ridge(random: Random) -> Found:
    x, y, kept = _paired(random)
    alpha = 10 ** random.uniform(-5, 1)
    fitted = Ridge(alpha=alpha).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    if fitted.info["left_out"] != len(x) - len(kept):
        return Verdict.WRONG, f"{fitted.info['left_out']} of {len(x) - len(kept)} massive positions left out"
    matrix, mean_x, mean_y = slow.ridge(x[kept], y[kept], alpha)
    return _close(fitted(x[kept]), (x[kept] - mean_x) @ matrix.T + mean_y, 1e-4, "prediction")


def _procrustes(random: Random) -> Found:
    x, y, kept = _paired(random)
    fitted = Procrustes(scale=False).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    matrix = fitted.weight.double()
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    cross = (y[kept] - y[kept].mean(0)).T @ (x[kept] - x[kept].mean(0))
    best = torch.linalg.eigvalsh(cross @ cross.T).clamp_min(0).sqrt().sum()
    verdict, detail = _close(small, torch.eye(len(small), dtype=torch.float64), 1e-5, "M M^T")
    return (
        _close((matrix * cross).sum(), best, 1e-5, "<M, Y^T X>")
        if verdict is Verdict.WORKS
        else (verdict, detail)
    )


def _left_out(random: Random) -> Found:
    x, y, kept = _paired(random)
    found = moments((x, y), "ridge", centred=True)
    penalty = 10 ** random.uniform(-4, 1) * float(found.xx_DD.diagonal().mean())
    return _close(
        leave_one_out(found, [penalty])[0], slow.left_out_error(x[kept], y[kept], penalty), 1e-5, "error"
    )


def _cka(random: Random) -> Found:
    x, y, kept = _paired(random)
    sums = random.choice((Moments, Grams))()
    for part in torch.split(torch.tensor(kept), 7):
        sums.add(x[part][None].float(), y[part][None].float())
    wanted = slow.cka(x[kept].float().double(), y[kept].float().double())
    return _close(sums.similarity()[0][0, 0], wanted, 1e-6, "CKA")


def _card(random: Random) -> Found:
    x, y, kept = _paired(random)
    fitted = Ridge(alpha=10 ** random.uniform(-3, 0)).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    card, mapped = quality_card(fitted, x.float(), y.float()), fitted(x.float())[kept].double()
    if (card.positions, card.left_out) != (len(kept), len(x) - len(kept)):
        return Verdict.WRONG, f"{card.left_out} of {len(x) - len(kept)} massive positions left out"
    found = torch.tensor([card.explained_variance, card.cosine])
    own = y[kept].float().double()
    return _close(
        found, torch.stack([slow.explained(mapped, own), 1 - slow.cosine(mapped, own)]), 1e-4, "card"
    )


NOWHERE = HeadView(weight=torch.zeros(1, 1))
FITS: dict[str, Callable[[Random], Found]] = {
    "ridge": _ridge,
    "procrustes": _procrustes,
    "leave_one_out": _left_out,
    "cka": _cka,
    "card": _card,
}


def trials(count: int | None = None, seed: int = 0) -> Iterable[Trial]:
    """Yield trials: every loss and fit in turn, with what is drawn for it.

    Args:
        count: how many; None: `COUNT`.
        seed: of what is drawn.
    """
    names = [*LOSSES, *FITS]
    for number in range(COUNT if count is None else count):
        name = names[number % len(names)]
        random = Random(f"{seed}/{number}")
        yield Trial(name=f"{number} {name}", attempt=partial(_attempt, name, random))


def _attempt(name: str, random: Random) -> Found:
    if name in FITS:
        return FITS[name](random)
    scene = Scene.drawn(random)
    verdict, detail = LOSSES[name].judge(scene)
    about = f"{scene.edge}, norm {scene.norm:.1e}, spread {scene.spread:.2g}, {scene.states.dtype}, {scene.counts}"
    return verdict, f"{detail} ({about})"
