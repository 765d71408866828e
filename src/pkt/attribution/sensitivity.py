"""Sensitivity of single weights, summed on disk as the gradients are computed.

    row -> loss -> backward: as each gradient is ready, |theta * g| is added to a file and the gradient is freed

One gradient exists at a time and sums are on disk, so that memory holds the weights, the activations of one row and
about one matrix. A call that was interrupted goes on from its last checkpoint and ends with the same bits (on the CPU;
on CUDA the sums of an embedding's gradient have no fixed order).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pkt.attribution.disk_sums import DiskSums
from pkt.data.batching import Batch, answer_labels
from pkt.errors import PktError, RequestError
from pkt.late import Tensor, functional, nn, torch
from pkt.models.architecture import Architecture
from pkt.models.taps import decode


def sensitivity(
    arch: Architecture,
    row: Callable[[int], Batch],
    rows: int,
    *,
    keep: Collection[str],
    folder: Path,
    save_every: float = 60.0,
    listen: Callable[[int], None] | None = None,
) -> DiskSums:
    """Compute S(theta) = sum_n |theta * d L_n / d theta|, L_n the mean answer-token cross-entropy of row n.

    Everything is elementwise, and the absolute value is taken per row. Products and sums are float32, a parameter's
    total is float64. Parameters outside the layers take part only if they are kept. The model has to be in eval mode;
    it is left as it was.

    Args:
        arch: the model.
        row: index -> that row alone, as a batch of one on the model's device; a row without a supervised position
            is left out.
        rows: number of rows.
        keep: names of the parameters whose S is kept element by element, in `folder`: eight bytes a weight.
        folder: of the sums and of resumable state; goes on where an interrupted call stopped.
        save_every: seconds between checkpoints; 0: after each row.
        listen: called with the number of rows done since the last call.

    Raises:
        RequestError: no row with a supervised position.
        PktError: a loss or a sum that is not finite, or not enough room in `folder`.

    Source: Zhong et al., "Seeking Neural Nuggets" (ICLR 2024), equations 2 and 3.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(arch, keep, folder)
    shapes = {name: tuple(p.shape) for name, p in arch.model.named_parameters() if name in keep}
    assert len(shapes) == len(set(keep)), f"no such parameters: {sorted(set(keep) - shapes.keys())}"
    sums = DiskSums(folder=folder, shapes=shapes)
    sums.resume()
    done, saved_at = sums.done, time.monotonic()
    if listen is not None and done:
        listen(done)
    with _hooked(arch, sums), torch.enable_grad():
        for index in range(done, rows):
            if not _backward(arch, row(index), index):
                sums.skipped.append(index)
            if index + 1 == rows or time.monotonic() - saved_at >= save_every:
                sums.checkpoint(index + 1)
                saved_at = time.monotonic()
            if listen is not None:
                listen(1)
    if rows == len(sums.skipped):
        raise RequestError(
            f"sensitivity has no row to learn from: of {rows} extract rows, {len(sums.skipped)} have no answer "
            "token to predict. Give rows with an answer, or raise data.sizes.extract."
        )
    return sums


def _check_room(arch: Architecture, keep: Collection[str], folder: Path) -> None:
    """Refuse a folder without enough room for the sums, before the first row."""
    kept = [parameter for name, parameter in arch.model.named_parameters() if name in keep]
    there = sum(path.stat().st_size for path in folder.glob("*.f32"))
    needed, free = 8 * sum(parameter.numel() for parameter in kept), shutil.disk_usage(folder).free
    if needed > there + free:
        raise PktError(
            f"the sensitivity of {len(kept)} matrices takes {needed / 1e9:.1f} GB in {folder} (two float32 numbers "
            f"a weight), but {free / 1e9:.1f} GB are free. Make room, set PKT_OUTPUT_DIR to a larger disk, or name "
            "fewer matrices (method.recipe=laten)."
        )


def parameter_name(arch: Architecture, module: nn.Module) -> str:
    """Return the name under which the model lists a module's weight (once, if it is shared)."""
    names = [name for name, value in arch.model.named_parameters() if value is module.weight]
    assert len(names) == 1
    return str(names[0])


@contextmanager
def _hooked(arch: Architecture, sums: DiskSums) -> Iterator[None]:
    """Give every parameter of a layer, and every kept one, a hook that takes its gradient away."""
    named = dict(arch.model.named_parameters())
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    handles = []

    def hook(name: str) -> Callable[[Tensor], None]:
        def take(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            sums.add(name, parameter, gradient)

        return take

    try:
        for name, parameter in named.items():
            wanted = name in sums.shapes or name.startswith(f"{arch.roles.layers}.")
            parameter.requires_grad_(wanted)
            if wanted:
                handles.append(parameter.register_post_accumulate_grad_hook(hook(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in named.items():
            parameter.requires_grad_(before[name])
            parameter.grad = None


def _backward(arch: Architecture, batch: Batch, index: int) -> bool:
    """Run forward and backward of one row's loss; False where it has no supervised position."""
    assert len(batch.input_ids) == 1, "the absolute value is per row: one row at a time"
    if not bool(batch.supervised.any()):
        return False
    final_BTD = decode(arch, batch.input_ids, batch.attention_mask)
    logits_nV = arch.read_out(final_BTD[batch.supervised.to(final_BTD.device)]).float()
    labels_n = answer_labels(batch).to(logits_nV.device)
    loss = functional.cross_entropy(logits_nV, labels_n)
    if not math.isfinite(float(loss.detach())):
        raise PktError(
            f"the loss of extract row {index} is {float(loss.detach())}; load the teacher in float32 "
            "(model.teacher.dtype=float32), or drop the row."
        )
    torch.autograd.backward(loss)
    return True
