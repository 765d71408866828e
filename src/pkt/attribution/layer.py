"""Layer Gradient x Activation of the supervised loss, for all layers in a single backward pass.

    batch -> decoder (taps keep h of every layer) -> supervised positions -> head, chunked
          -> d loss / d final state -> one backward pass -> g of every layer -> sum of g*h per example -> mean

Shape suffixes: B rows, T positions, D width, N supervised positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

from pkt.data.batching import Batch, answer_labels
from pkt.errors import RequestError, nearest
from pkt.late import Tensor, functional, nn, torch
from pkt.models.architecture import Architecture
from pkt.models.precision import compute_device
from pkt.models.taps import Interface, decode, tap

Reduction = Literal["example", "signed", "abs", "l2"]
REDUCTIONS = get_args(Reduction)
CHUNK = 2048  # positions whose V-wide numbers are alive at once


def layer_attribution(
    teacher: Architecture,
    batches: Iterable[Batch],
    interface: Interface | str,
    *,
    reduce: str = "example",
) -> Tensor:
    """Score every layer by gradient x activation of each example's mean answer-token cross-entropy.

    With g = d loss_n / d h at the supervision interface of a layer, summed over positions t and channels d:

    - ``example`` (default, our reading): mean_n |sum_td g h|
    - ``signed``: mean_n sum_td g h
    - ``abs``: mean_n sum_td |g h|
    - ``l2``: mean_n sqrt(sum_td (g h)^2)

    Examples do not interact, so the gradient of the sum of their losses holds each one's own; batch size and
    padding do not matter. The model has to be in eval mode; its parameters are frozen while this runs.

    Args:
        teacher: the model.
        batches: rows on the model's device.
        interface: where in a layer h is read.
        reduce: see above.

    Returns:
        (L_T) float64 on the CPU; layer 1 first.

    Raises:
        RequestError: an unknown reduction, no batch, or an example without a supervised position.

    Source: SemAlign v1 (arXiv 2510.24208); captum's LayerGradientXActivation per layer.
    """
    if reduce not in REDUCTIONS:
        allowed = ", ".join(REDUCTIONS)
        raise RequestError(f"reduce={reduce} is not one of {allowed}{nearest(reduce, REDUCTIONS)}.")
    totals, examples = torch.zeros(teacher.depth, dtype=torch.float64), 0
    for reduced in _batches(teacher, batches, interface, (reduce,)):
        for index, own_B in enumerate(reduced[reduce]):
            totals[index] += own_B.sum()
        examples += len(reduced[reduce][0])
    if examples == 0:
        raise RequestError("attribution has no rows: the extract split is empty; raise data.sizes.extract.")
    return totals / examples


def row_attribution(
    model: Architecture, batches: Iterable[Batch], interface: Interface | str
) -> dict[str, Tensor]:
    """Score every layer on every example, with all `REDUCTIONS`; the means are what `layer_attribution` returns.

    Args:
        model: teacher or student.
        batches: rows on the model's device.
        interface: where in a layer h is read.

    Returns:
        reduction -> (R, L) float64 on the CPU, rows in the order of the batches.

    Raises:
        RequestError: no batch, or an example without a supervised position.
    """
    parts: dict[str, list[Tensor]] = {reduce: [] for reduce in REDUCTIONS}
    for reduced in _batches(model, batches, interface, REDUCTIONS):
        for reduce, columns in reduced.items():
            parts[reduce].append(torch.stack(columns, dim=1))
    if not parts["example"]:
        raise RequestError("attribution has no rows to be measured on.")
    return {reduce: torch.cat(blocks) for reduce, blocks in parts.items()}


def _batches(
    model: Architecture,
    batches: Iterable[Batch],
    interface: Interface | str,
    reductions: Sequence[str],
) -> Iterator[dict[str, list[Tensor]]]:
    """Yield, per batch, reduction -> the reduced products of its examples (B) for each layer, layer 1 first."""
    layers = range(1, model.depth + 1)
    for batch in batches:
        tapped = tap(model, layers, interface, retain_grad=True)
        with _frozen(model.model), torch.enable_grad(), tapped as states:
            _backward(model, batch)
        reduced: dict[str, list[Tensor]] = {reduce: [] for reduce in reductions}
        for layer in layers:
            product_BN = _products(states.pop(layer), batch.attention_mask)
            for reduce, columns in reduced.items():
                columns.append(_reduced(product_BN, reduce))
        yield reduced


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Freeze the parameters, so that the graph holds activations only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _backward(teacher: Architecture, batch: Batch) -> None:
    """Run forward and backward of the sum of the examples' losses."""
    counts_B = batch.supervised.sum(1)
    if not bool((counts_B > 0).all()):
        empty = (counts_B == 0).nonzero()[:, 0].tolist()
        raise RequestError(
            f"rows {empty} of an extract batch have no answer token to predict; give every row an answer."
        )
    final_BTD = decode(teacher, batch.input_ids, batch.attention_mask)
    supervised_BT = batch.supervised.to(final_BTD.device)
    labels_N = answer_labels(batch).to(final_BTD.device)
    shares_N = (1.0 / counts_B)[batch.supervised.nonzero()[:, 0]].to(final_BTD.device)
    final_ND = final_BTD[supervised_BT]
    torch.autograd.backward(final_ND, _head_gradient(teacher, final_ND.detach(), labels_N, shares_N))


def _head_gradient(teacher: Architecture, final_ND: Tensor, labels_N: Tensor, shares_N: Tensor) -> Tensor:
    """Return d (sum_n share_n * cross-entropy_n) / d final state, a chunk of logits at a time."""
    gradients: list[Tensor] = []
    for start in range(0, len(final_ND), CHUNK):
        part = slice(start, start + CHUNK)
        leaf_nD = final_ND[part].requires_grad_(True)
        logits_nV = teacher.read_out(leaf_nD).float()
        losses_n = functional.cross_entropy(logits_nV, labels_N[part].to(logits_nV.device), reduction="none")
        weighted = (losses_n * shares_N[part].to(losses_n.device)).sum()
        gradients += torch.autograd.grad(weighted, leaf_nD)
    return torch.cat(gradients)


def _products(state_BTD: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Return g h of one layer per example, flat over positions and channels, in float64; it is 0 at padding."""
    assert state_BTD.grad is not None, "a tapped state is part of every forward pass"
    device = compute_device(state_BTD)
    state, gradient = (side.detach().to(device).double() for side in (state_BTD, state_BTD.grad))
    mask_BT1 = attention_mask_BT.to(device).bool()[..., None]
    return torch.where(mask_BT1, gradient * state, 0.0).flatten(1)


def _reduced(product_BN: Tensor, reduce: str) -> Tensor:
    """Return the reduced products of each example, (B) float64 on the CPU."""
    if reduce == "abs":
        return product_BN.abs().sum(1).cpu()
    if reduce == "l2":
        length_B: Tensor = product_BN.norm(dim=1)
        return length_B.cpu()
    total_B = product_BN.sum(1)
    return (total_B.abs() if reduce == "example" else total_B).cpu()
