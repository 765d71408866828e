"""Checks of the supervision interfaces: what the taps give adds up, and a write there moves the output.

    x + attention + mlp = what leaves, in every layer           (see `pkt.models.probe`)

Where that fails, the layer's other modules are looked through for outputs that do add up, so that the refusal can say
which roles would be right.
Shape suffixes: B rows, T positions, N positions that are no padding, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture
from pkt.models.behaviour import exact, tolerance
from pkt.models.findings import Check
from pkt.models.readings import Sample
from pkt.models.taps import Interface, entering_state, first_output, tap

ROUNDINGS = 4  # of the stream, in units of its dtype's precision, that a sum of three may be off


def whole(arch: Architecture, sample: Sample, interface: str) -> Check:
    """Check an interface whose states are made of a layer's input and output: their shape, and that a write counts."""
    if sentence := _odd(arch, sample, interface):
        return Check(name=interface, holds=False, number=None, sentence=sentence)
    return _written(arch, sample, interface, list(range(1, arch.depth + 1)), error=0.0)


@torch.no_grad()
def _odd(arch: Architecture, sample: Sample, interface: str) -> str | None:
    """Say which layers have states that are no (batch, positions, width), or nothing."""
    layers = range(1, arch.depth + 1)
    with tap(arch, layers, interface) as states:
        sample.decode()
    expected = (*sample.ids_BT.shape, arch.width)
    odd = [k for k in layers if tuple(states[k].shape) != expected]
    if not odd:
        return None
    shape = tuple(states[odd[0]].shape)
    return f"layers {_listed(odd)} have states of shape {shape}, not {expected} (batch, positions, width)"


def parts(arch: Architecture, sample: Sample) -> tuple[Check, ...]:
    """Check the interfaces ``mlp`` and ``attention``: the sum in every layer, and that a write counts."""
    if sentence := _odd(arch, sample, "block"):
        return tuple(
            Check(name=name, holds=False, number=None, sentence=sentence) for name in ("mlp", "attention")
        )
    sums = _sums(arch, sample)
    return tuple(_part(arch, sample, sublayer, sums) for sublayer in ("mlp", "attention"))


@torch.enable_grad()
def sequential(arch: Architecture, sample: Sample) -> Check:
    """Check that a layer's MLP reads what its attention wrote, which is not so where both read the same state."""
    both = [k for k in having(arch, "mlp") if k in having(arch, "attention")]
    with (
        tap(arch, both, Interface.attention, retain_grad=True) as attention,
        tap(arch, both, Interface.mlp) as mlp,
    ):
        sample.decode()
    parallel = [k for k in both if not _moves(mlp[k], attention[k])]
    sentence = "the MLP reads the stream after attention"
    if parallel:
        sentence = f"attention and MLP read the same state in layers {_listed(parallel)}"
    elif not both:
        sentence = "no layer has both attention and MLP"
    holds = not parallel if both else None
    return Check(name="sequential", holds=holds, number=float(len(parallel)), sentence=sentence)


def having(arch: Architecture, sublayer: str) -> list[int]:
    """Return the layers that have a sublayer."""
    path = arch.roles.mlp_out if sublayer == "mlp" else arch.roles.attention_out
    return arch.layers_with(path) if path is not None else []


def _moves(of: Tensor, by: Tensor) -> bool:
    if not of.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(
        (of.float() * _weights(of)).sum(), by, retain_graph=True, allow_unused=True
    )
    return gradient is not None and bool(gradient.abs().max() > 0)


def _weights(like: Tensor) -> Tensor:
    """Return fixed random weights, so that no symmetry of a norm makes a sum's gradient vanish."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(like.device)


@torch.enable_grad()
def _written(arch: Architecture, sample: Sample, interface: str, layers: list[int], *, error: float) -> Check:
    """Check that the output depends on what is written at a tap: a state that is read may be a dead copy."""
    with tap(arch, layers, interface, retain_grad=True) as states:
        final_BTD = sample.decode()
    if not final_BTD.requires_grad:
        sentence = f"what is written there in layers {_listed(layers)} does not change the output"
        return Check(name=interface, holds=False, number=error, sentence=sentence)
    weights = _weights(final_BTD) * sample.mask_BT[..., None].to(final_BTD.device)
    (final_BTD.float() * weights).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {k: states[k].grad for k in layers}
    dead = [k for k, gradient in gradients.items() if gradient is None or not gradient.abs().max() > 0]
    sentence = "what is read adds up, and what is written counts"
    if dead:
        sentence = f"what is written there in layers {_listed(dead)} does not change the output"
    return Check(name=interface, holds=not dead, number=error, sentence=sentence)


def _part(arch: Architecture, sample: Sample, sublayer: str, sums: Mapping[int, Sum]) -> Check:
    layers = having(arch, sublayer)
    if not layers:
        return Check(name=sublayer, holds=None, number=None, sentence=f"no layer has a module for {sublayer}")
    error = max(sums[k].error for k in layers)
    if wrong := [k for k in layers if sublayer in sums[k].wrong]:
        found = sums[wrong[0]]
        given = getattr(arch.roles, f"{sublayer}_out")
        sentence = f"in layers {_listed(wrong)} x + attention + mlp is not what leaves (off by {error:.2g}): "
        sentence += f"'{given}' is not what they add to the stream{found.hint}"
        return Check(name=sublayer, holds=False, number=error, sentence=sentence)
    check = _written(arch, sample, sublayer, layers, error=error)
    if check.holds and len(layers) < arch.depth:
        sentence = f"{check.sentence}, in layers {_listed(layers)}; the others have none"
        return Check(name=sublayer, holds=True, number=error, sentence=sentence)
    return check


@dataclass(frozen=True, kw_only=True)
class Sum:
    """Whether one layer adds up.

    Attributes:
        error: of x + attention + mlp against what leaves, relative to what the layer adds.
        wrong: the sublayers whose module is not what is added.
        hint: what would be right, as text to append.
    """

    error: float
    wrong: tuple[str, ...] = ()
    hint: str = ""


@torch.no_grad()
def _sums(arch: Architecture, sample: Sample) -> dict[int, Sum]:
    """Look at every layer of one pass."""
    found: dict[int, Sum] = {}
    with (
        tap(arch, having(arch, "attention"), Interface.attention) as attention,
        tap(arch, having(arch, "mlp"), Interface.mlp) as mlp,
    ):

        def judge(number: int, watched: _Layer) -> None:
            given = {"attention": attention.get(number), "mlp": mlp.get(number)}
            found[number] = _sum(watched, given, sample)

        with _watching(arch, judge):
            sample.decode()
    return found


@dataclass(kw_only=True)
class _Layer:
    """What one layer got, gave, and computed in between, at one pass.

    Attributes:
        entering_BTD: x.
        leaving_BTD: what leaves.
        inside: first outputs of its modules that are as large as x, by path.
    """

    entering_BTD: Tensor
    leaving_BTD: Tensor | None = None
    inside: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def _watching(arch: Architecture, judge: Any) -> Iterator[None]:
    """Call `judge` with each layer as it ends; nothing of it is kept after."""
    handles = []
    now: dict[int, _Layer] = {}

    def enter(number: int) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            now[number] = _Layer(entering_BTD=entering_state(args, kwargs).clone())

        return hook

    def leave(number: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            layer = now.pop(number)
            layer.leaving_BTD = first_output(output)
            judge(number, layer)

        return hook

    def within(number: int, path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            out = first_output(output)
            if number in now and isinstance(out, Tensor) and out.numel() == now[number].entering_BTD.numel():
                now[number].inside[path] = out.reshape(now[number].entering_BTD.shape).clone()

        return hook

    try:
        for number, layer in enumerate(arch.layers, 1):
            handles.append(layer.register_forward_pre_hook(enter(number), with_kwargs=True))
            handles.append(layer.register_forward_hook(leave(number)))
            for path, module in layer.named_modules():
                if path:
                    handles.append(module.register_forward_hook(within(number, path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sum(layer: _Layer, given: Mapping[str, Tensor | None], sample: Sample) -> Sum:
    assert layer.leaving_BTD is not None
    x_ND, out_ND = (exact(sample.real(state)) for state in (layer.entering_BTD, layer.leaving_BTD))
    dtype = layer.leaving_BTD.dtype
    added_ND, near = out_ND - x_ND, tolerance(dtype)
    size = added_ND.norm() + out_ND.norm() * ROUNDINGS * torch.finfo(dtype).eps / near

    def off(*states: Tensor | None) -> float:
        total = sum((exact(sample.real(state)) for state in states if state is not None), -added_ND)
        return float(total.norm() / size.clamp_min(1e-30))

    attention, mlp = given["attention"], given["mlp"]
    error = off(attention, mlp)
    if error <= near:
        return Sum(error=error)
    for one, other in (("attention", "mlp"), ("mlp", "attention")):
        for path, state in layer.inside.items():
            if given[other] is not None and (rest := off(state, given[other])) <= near:
                if given[one] is None:  # some other kind of mixer, in a model of several
                    return Sum(error=rest)
                return Sum(error=error, wrong=(one,), hint=f"; {one}_out={path} (role) would be")
    for (a, of_a), (b, of_b) in product(layer.inside.items(), repeat=2):
        if off(of_a, of_b) <= near:
            hint = f"; the roles attention_out={a} and mlp_out={b} would be"
            return Sum(error=error, wrong=("attention", "mlp"), hint=hint)
    return Sum(error=error, wrong=("attention", "mlp"), hint=_scaled(added_ND, given, sample, near))


def _scaled(added_ND: Tensor, given: Mapping[str, Tensor | None], sample: Sample, near: float) -> str:
    """Say so if a layer adds multiples of its sublayers (Granite), else nothing."""
    states = [exact(sample.real(state)).flatten() for state in given.values() if state is not None]
    columns = torch.stack(states, dim=1)
    factors = torch.linalg.lstsq(columns, added_ND.flatten()[:, None]).solution
    if (columns @ factors - added_ND.flatten()[:, None]).norm() > near * added_ND.norm():
        return ""
    return f" (they add {' and '.join(f'{factor:.4g}' for factor in factors[:, 0].tolist())} times it)"


def _listed(numbers: list[int]) -> str:
    """Return layer numbers as text, shortened."""
    shown = ", ".join(map(str, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown}, ... ({len(numbers)} layers)"
