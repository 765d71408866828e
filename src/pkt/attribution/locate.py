"""Locate the layers and neurons of a model that decide a row's answer, from one forward pass per row.

    row: prompt | answer EOS  ->  context = all before y  ->  insides of every layer at the context's last position
                                  y = the answer's last token     -> layer scores, neuron scores (means over rows)

y is the last token of the answer's text (the letter of a choice, the last digit of a number). It is not the EOS that
pkt puts behind every answer: EOS follows any answer, so it says nothing about the task.
Shape suffixes: R rows, N neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from pkt.attribution.neurons import ReadOut, neuron_gains, norm_divisor, state_gains
from pkt.data.batching import collate, sorted_batches
from pkt.data.encoding import Encoded
from pkt.errors import PktError, RequestError
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.internals import Internals, internals, neuron_shape
from pkt.models.sparse_delta import weight_by_neuron

Kind = Literal["ffn", "attention"]
ROWS_AT_ONCE = 8
ATTENTION_NUMBERS = 2**27  # eager attention holds rows x heads x length^2 weights: 512 MB in float32


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The internals of a model's layers (layer 1 first) at R rows, and its read-out there."""

    layers: tuple[Internals, ...]
    read_out: ReadOut


def observe(
    arch: Architecture,
    encoded: Encoded,
    *,
    legacy_norm: bool = False,
    listen: Callable[[int, int], None] | None = None,
) -> Observed:
    """Run the model over the rows' contexts, once.

    Args:
        arch: a model that `check_neurons` accepts, in eval mode.
        encoded: rows that end in EOS.
        legacy_norm: see `norm_divisor`.
        listen: called after each pass with its numbers of rows and tokens.

    Raises:
        RequestError: no rows, or an answer without a token.
    """
    contexts, targets = _contexts(encoded)
    seen: list[list[Internals]] = []
    finals: list[Tensor] = []
    plan = sorted_batches(contexts.lengths, affordable_rows(arch, max(contexts.lengths)))
    for rows in plan:
        batch = collate(contexts, rows).to(arch.device)
        last_B = batch.attention_mask.sum(1) - 1
        layers, final_BD = internals(arch, batch.input_ids, batch.attention_mask, last_B)
        seen.append([_on_cpu(layer) for layer in layers])
        finals.append(final_BD.to(arch.device))
        if listen is not None:
            listen(len(rows), int(batch.attention_mask.sum()))
    target_R = torch.tensor([targets[row] for rows in plan for row in rows], device=arch.device)
    read_out = _read_out(arch, torch.cat(finals), target_R, legacy_norm)
    return Observed(layers=tuple(_stacked(layers) for layers in zip(*seen, strict=True)), read_out=read_out)


def _contexts(encoded: Encoded) -> tuple[Encoded, list[int]]:
    """Return each row up to y, and y."""
    if not encoded.input_ids:
        raise RequestError("there are no rows to locate neurons with: the extract split is empty.")
    for row, (length, prompt) in enumerate(zip(encoded.lengths, encoded.prompt_lengths, strict=True)):
        if length - prompt < 2:
            raise RequestError(
                f"row {row + 1} of the extract split: its answer has no token besides EOS, so there is nothing to "
                "attribute. Give the row an answer, or drop it."
            )
    contexts = Encoded(
        input_ids=[ids[:-2] for ids in encoded.input_ids], prompt_lengths=encoded.prompt_lengths
    )
    return contexts, [ids[-2] for ids in encoded.input_ids]


def affordable_rows(arch: Architecture, length: int) -> int:
    """Return how many rows of a length can go through eager attention at once."""
    weights = neuron_shape(arch.model.config).heads * length**2
    return min(max(ATTENTION_NUMBERS // weights, 1), ROWS_AT_ONCE)


def _read_out(arch: Architecture, final_RD: Tensor, target_R: Tensor, legacy_norm: bool) -> ReadOut:
    weight_VD, norm_D, bias_V = arch.head_weight().detach().float(), arch.norm_weight(), arch.head_bias
    assert norm_D is not None
    eps = float(arch.model.config.get_text_config().rms_norm_eps)
    device = weight_VD.device
    return ReadOut(
        weight_VD=weight_VD * norm_D.detach().float().to(device),
        divisor_R=norm_divisor(final_RD, eps=eps, legacy=legacy_norm).to(device),
        target_R=target_R.to(device),
        bias_V=bias_V.detach() if bias_V is not None else None,
    )


def _on_cpu(layer: Internals) -> Internals:
    return Internals(**{field.name: getattr(layer, field.name).cpu() for field in fields(Internals)})


def _stacked(layers: Sequence[Internals]) -> Internals:
    return Internals(
        **{
            field.name: torch.cat([getattr(layer, field.name) for layer in layers])
            for field in fields(Internals)
        }
    )


@torch.no_grad()
def layer_scores(observed: Observed, kind: Kind) -> tuple[float, ...]:
    """Return I_attn or I_ffn of every layer, mean over rows; layer 1 first.

    I_attn = log p(y | x + a) - log p(y | x), I_ffn = log p(y | r + f) - log p(y | r), with r = x + a.

    Raises:
        PktError: a score that is not finite.
    """
    device = observed.read_out.weight_VD.device
    gains = []
    for layer in observed.layers:
        before_RD, added_RD = _before(layer, kind), layer.ffn_BD if kind == "ffn" else layer.attention_BD
        gains.append(state_gains(observed.read_out, before_RD.to(device), added_RD.to(device)).mean())
    return tuple(_finite(torch.stack(gains)).tolist())


@torch.no_grad()
def neuron_scores(arch: Architecture, observed: Observed, number: int, kind: Kind) -> Tensor:
    """Return the score of every neuron of a layer, mean over rows, (N) float32 on the CPU.

    FFN neuron j: log p(y | r + m_j W_down[:, j]) - log p(y | r); attention neuron (h, j):
    log p(y | x + s W_o[:, h d + j]) - log p(y | x), s = (weight of the position on itself in head h) * v_j.

    Args:
        arch: the model.
        observed: what `observe` saw of it.
        number: layer, from 1.
        kind: which neurons.

    Raises:
        PktError: a score that is not finite.
    """
    device = observed.read_out.weight_VD.device
    layer = observed.layers[number - 1]
    activations_RN = layer.ffn_neurons_BI if kind == "ffn" else layer.own_values_BK
    scores_N = neuron_gains(
        observed.read_out,
        _before(layer, kind).to(device),
        weight_by_neuron(arch, number, "down" if kind == "ffn" else "o").to(device),
        activations_RN.to(device),
    )
    return _finite(scores_N).cpu()


def _before(layer: Internals, kind: Kind) -> Tensor:
    """Return the residual stream that a sublayer adds to: x, or r = x + a."""
    return layer.entering_BD + layer.attention_BD if kind == "ffn" else layer.entering_BD


def _finite(scores_N: Tensor) -> Tensor:
    if not bool(scores_N.isfinite().all()):
        raise PktError(
            "an attribution score is NaN or infinite, so nothing can be located; load the models in float32 "
            "(model.teacher.dtype=float32 model.student.dtype=float32)."
        )
    return scores_N
