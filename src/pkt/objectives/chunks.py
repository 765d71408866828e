"""Sum a term over chunks of positions, so that logits never exist for all positions at once."""

from __future__ import annotations

from collections.abc import Callable

from pkt.late import Tensor, torch

CHUNK = 2048  # positions whose V-wide numbers are alive at once


def over_chunks(
    term: Callable[..., Tensor], states_ND: Tensor, *aligned: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Return the sum of ``term(states_nD, *aligned_n)`` over chunks of positions.

    The intermediate numbers of a chunk are dropped, and recomputed in the backward pass, unless there is only one.

    Args:
        term: (n, D) states and the same positions of every aligned tensor to a scalar sum.
        states_ND: states of at least one position; the gradient flows here.
        aligned: tensors with one entry per position.
        chunk: positions per chunk.

    Raises:
        ValueError: no position, or a chunk below 1.
    """
    return torch.stack(_of_chunks(term, states_ND, *aligned, chunk=chunk)).sum()


def each_over_chunks(
    term: Callable[..., Tensor], states_ND: Tensor, *aligned: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Return what ``term(states_nD, *aligned_n)`` gives of each position, chunk by chunk; see `over_chunks`."""
    return torch.cat(_of_chunks(term, states_ND, *aligned, chunk=chunk))


def _of_chunks(term: Callable[..., Tensor], states_ND: Tensor, *aligned: Tensor, chunk: int) -> list[Tensor]:
    check_positions(states_ND)
    if chunk < 1:
        raise ValueError(f"chunk is a number of positions, at least 1, got {chunk}")
    parts = list(zip(*(torch.split(tensor, chunk) for tensor in (states_ND, *aligned)), strict=True))
    if len(parts) == 1 or not torch.is_grad_enabled():  # one chunk may as well be kept
        return [term(*part) for part in parts]
    return [
        torch.utils.checkpoint.checkpoint(term, *part, use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ]


def check_positions(states_ND: Tensor) -> None:
    """Refuse states of no position.

    Raises:
        ValueError: not (N, D) with N of at least 1.
    """
    if states_ND.dim() != 2 or len(states_ND) == 0:
        raise ValueError(
            f"states of at least one position are needed, as (N, D); got shape {tuple(states_ND.shape)}"
        )


def check_pairs(states_ND: Tensor, targets_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return states and targets if they belong together.

    Raises:
        ValueError: no position, or shapes that differ.
    """
    if states_ND.shape != targets_ND.shape:
        raise ValueError(
            f"states {tuple(states_ND.shape)} and targets {tuple(targets_ND.shape)} differ in shape"
        )
    check_positions(states_ND)
    return states_ND, targets_ND


def check_labels(states_ND: Tensor, labels_N: Tensor) -> None:
    """Refuse labels that do not belong to the states.

    Raises:
        ValueError: no position, or not one label per state.
    """
    check_positions(states_ND)
    if labels_N.shape != states_ND.shape[:1]:
        raise ValueError(
            f"one label per state is needed: {len(states_ND)} states, labels of {tuple(labels_N.shape)}"
        )
