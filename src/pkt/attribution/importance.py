"""What matters of a model on some rows: its layers, and the heads and channels of its widths.

rows ──> block norms per position: massive ones are left out
     ──> layers: residual | cka | attribution        what each layer adds to what enters it
     ──> widths: heads | mlp | hidden                 how large the activations are

Shape suffixes: L layers, N positions (n of a batch), D width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from pkt.attribution.layer import layer_attribution
from pkt.attribution.similarity import Grams
from pkt.data.batching import Batch, collate, sorted_batches
from pkt.data.encoding import Encoded
from pkt.errors import PktError, RequestError
from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, entering_state, first_output
from pkt.semantics.massive import MASSIVE, ordinary_norms

VERSION = 1  # raised when the same rows give other numbers
BATCH = 8  # rows per forward pass, whatever the request trains with: its last bits are in the choice
COMPARED = 2048  # positions at most whose Gram matrices CKA compares

Importance = list[float] | list[list[float]]
"""One number per layer or channel, or per layer and channel."""


def measure(what: str, arch: Architecture, encoded: Encoded) -> Importance:
    """Measure what matters of a model.

    Args:
        what: a key of `MEASURES`.
        arch: a model in eval mode.
        encoded: the rows.

    Raises:
        RequestError: no rows, or a model without the parts that are measured.
        PktError: a number that is not finite.
    """
    if not encoded.lengths:
        raise RequestError(
            "importance is measured on extract rows, and there are none; raise data.sizes.extract."
        )
    with torch.no_grad():
        found = MEASURES[what](arch, encoded)
    if not bool(found.isfinite().all()):
        raise PktError(
            f"the importance of the teacher's {what} is NaN or infinite, so that nothing can be chosen by it; load the "
            "teacher in float32 (model.teacher.dtype=float32)."
        )
    importance: Importance = found.double().cpu().tolist()
    return importance


def residual(arch: Architecture, encoded: Encoded) -> Tensor:
    """Return 1 - cos(h_in, h_out) of every layer, a mean over positions, (L): how little of its input is left.

    Source: block influence in "ShortGPT" (Men et al., arXiv 2403.03853).
    """
    kept_N, change_LN = _blocks(arch, encoded)
    return change_LN[:, kept_N].mean(1)


def cka(arch: Architecture, encoded: Encoded) -> Tensor:
    """Return 1 - linear CKA of what enters and what leaves a layer, (L), on at most `COMPARED` positions."""
    kept_N, _ = _blocks(arch, encoded)
    where_M = kept_N.nonzero()[:, 0]
    count = min(COMPARED, len(where_M))
    chosen_N = torch.zeros_like(kept_N)
    chosen_N[where_M[torch.arange(count) * len(where_M) // count]] = True
    sums = [Grams() for _ in range(arch.depth)]
    for slots, (in_LBTD, out_LBTD), mask_BT in _layers(arch, encoded):
        take_n = chosen_N[slots]
        for own, before, after in zip(sums, in_LBTD, out_LBTD, strict=True):
            own.add(*(side[mask_BT][take_n.to(side.device)].float()[None] for side in (before, after)))
    return torch.stack([1.0 - own.similarity()[0][0, 0] for own in sums])


def attribution(arch: Architecture, encoded: Encoded) -> Tensor:
    """Return gradient x activation of what each layer adds, (L): to first order, the loss that it takes away."""
    batches = (batch.to(arch.device) for _, batch in _batches(encoded))
    return layer_attribution(arch, batches, Interface.residual)


def heads(arch: Architecture, encoded: Encoded) -> Tensor:
    """Return the mean length of what each query head gives the output projection, (L, heads), see `mlp`."""
    count = int(arch.model.config.get_text_config().num_attention_heads)
    entering = {k: arch.projection(k, "o") for k in range(1, arch.depth + 1)}
    sizes = _means(
        arch, encoded, entering, lambda x_nC: x_nC.reshape(*x_nC.shape[:-1], count, -1).norm(dim=-1)
    )
    return torch.stack(list(sizes.values()))


def mlp(arch: Architecture, encoded: Encoded) -> Tensor:
    """Return the mean size of each intermediate channel's activation, (L, C): what enters the down projection.

    Source: Muralidharan et al., "Compact Language Models via Pruning and Knowledge Distillation" (arXiv 2407.14679):
    one forward pass over a few rows scores heads by the length of their output, intermediate and embedding channels by
    their activations. Ours: means of absolute values over all positions that are no padding and not massive, in place
    of a mean over positions and an L2 norm over rows.
    """
    entering = {k: arch.projection(k, "down") for k in range(1, arch.depth + 1)}
    return torch.stack(list(_means(arch, encoded, entering, torch.abs).values()))


def hidden(arch: Architecture, encoded: Encoded) -> Tensor:
    """Return the mean size of each channel of the residual stream, (D), see `mlp`.

    It is read behind the norms, where every sublayer and the head read it, and each of them counts the same.
    """
    first = "q" if "q" in arch.projection_names() else "qkv"
    entering: dict[Any, nn.Module] = {
        (k, name): arch.projection(k, name) for k in range(1, arch.depth + 1) for name in (first, "up")
    }
    return torch.stack(list(_means(arch, encoded, entering, torch.abs).values())).mean(0)


MEASURES: Mapping[str, Callable[[Architecture, Encoded], Tensor]] = {
    "residual": residual,
    "attribution": attribution,
    "cka": cka,
    "heads": heads,
    "mlp": mlp,
    "hidden": hidden,
}


def _means(
    arch: Architecture, encoded: Encoded, modules: Mapping[Any, nn.Module], size: Callable[[Tensor], Tensor]
) -> dict[Any, Tensor]:
    """Return the mean size of what enters each module, over the positions that count, float64."""
    kept_N, _ = _blocks(arch, encoded)
    entered: dict[Any, Tensor] = {}
    sums: dict[Any, Tensor] = {}
    with ExitStack() as stack:
        for key, module in modules.items():
            stack.callback(module.register_forward_pre_hook(_keeping(entered, key), with_kwargs=True).remove)
        for slots, batch in _batches(encoded):
            own = batch.to(arch.device)
            decode(arch, own.input_ids, own.attention_mask)
            mask_BT, take_n = batch.attention_mask.bool(), kept_N[slots]
            for key, state_BTC in entered.items():
                sized = size(state_BTC.reshape(*mask_BT.shape, -1))  # OPT's MLP flattens its rows
                chosen_nC = sized[mask_BT.to(sized.device)][take_n.to(sized.device)]
                sums[key] = sums.get(key, 0.0) + chosen_nC.double().sum(0).cpu()
    return {key: sums[key] / int(kept_N.sum()) for key in modules}


def _keeping(entered: dict[Any, Tensor], key: Any) -> Callable[..., None]:
    def hook(_m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[key] = args[0] if args else next(iter(kwargs.values()))

    return hook


def _blocks(arch: Architecture, encoded: Encoded) -> tuple[Tensor, Tensor]:
    """Return which positions count, (N): massive in no layer; and how much each layer changes its input, (L, N)."""
    total = sum(encoded.lengths)
    norm_LN, change_LN = (torch.zeros(arch.depth, total) for _ in range(2))
    for slots, (in_LBTD, out_LBTD), mask_BT in _layers(arch, encoded):
        for index, (before, after) in enumerate(zip(in_LBTD, out_LBTD, strict=True)):
            own = mask_BT.to(after.device)
            x_nD, y_nD = before[own].float(), after[own].float()
            norm_LN[index, slots] = y_nD.norm(dim=-1).cpu()
            change_LN[index, slots] = 1.0 - torch.cosine_similarity(x_nD, y_nD, dim=-1).cpu()
    return ordinary_norms(norm_LN, MASSIVE), change_LN


def _layers(
    arch: Architecture, encoded: Encoded
) -> Iterator[tuple[Tensor, tuple[list[Tensor], list[Tensor]], Tensor]]:
    """Yield, per batch: its positions in a numbering of all, what enters and leaves each layer, and the mask."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    with ExitStack() as stack:
        for layer in arch.layers:
            # a copy: some layers write into what enters them
            enter = layer.register_forward_pre_hook(
                lambda _m, args, kwargs: before.append(entering_state(args, kwargs).clone()), with_kwargs=True
            )
            leave = layer.register_forward_hook(lambda _m, _args, out: after.append(first_output(out)))
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        for slots, batch in _batches(encoded):
            before.clear()
            after.clear()
            own = batch.to(arch.device)
            decode(arch, own.input_ids, own.attention_mask)
            yield slots, (before, after), batch.attention_mask.bool()


def _batches(encoded: Encoded) -> Iterator[tuple[Tensor, Batch]]:
    starts = [0]
    for length in encoded.lengths:
        starts.append(starts[-1] + length)
    for rows in sorted_batches(encoded.lengths, BATCH):
        yield torch.cat([torch.arange(starts[row], starts[row + 1]) for row in rows]), collate(encoded, rows)
