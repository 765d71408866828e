"""Neuron attribution by a recomputation of the layer by hand, one neuron at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def by_hand(model: Any, ids: list[int]) -> tuple[list[tuple[Any, ...]], Tensor]:
    """Per layer: x, a, f at the last position, and a list of (column, activation) of each kind of neuron."""
    model.set_attn_implementation("eager")
    config = model.config
    out = model(
        input_ids=torch.tensor([ids], device=model.device), output_hidden_states=True, output_attentions=True
    )
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    layers = []
    for layer, entering, weights in zip(model.model.layers, out.hidden_states, out.attentions, strict=False):
        normed = layer.input_layernorm(entering)
        values = layer.self_attn.v_proj(normed)[0]
        size = values.shape[-1] // shared
        output, attention_neurons = [], []
        for head in range(heads):
            row = head // (heads // shared)
            value = values[:, row * size : (row + 1) * size]
            output.append(weights[0, head, -1] @ value)
            for j in range(size):
                column = layer.self_attn.o_proj.weight[:, head * size + j]
                attention_neurons.append((column, weights[0, head, -1, -1] * value[-1, j]))
        attention = layer.self_attn.o_proj(torch.cat(output))
        residual = entering[0, -1] + attention
        at = layer.post_attention_layernorm(residual)
        activation = functional.silu(layer.mlp.gate_proj(at)) * layer.mlp.up_proj(at)
        ffn_neurons = [(layer.mlp.down_proj.weight[:, j], m) for j, m in enumerate(activation)]
        ffn = layer.mlp.down_proj(activation)
        layers.append((entering[0, -1], attention, ffn, attention_neurons, ffn_neurons))
    final = layers[-1][0] + layers[-1][1] + layers[-1][2]
    return layers, final


def log_p(model: Any, state: Tensor, final: Tensor, target: int, legacy: bool = False) -> Tensor:
    """The read-out by hand: the head on the state, divided as the final norm divides the final state."""
    final = final.float()
    divisor = final.std().sqrt() if legacy else (final.pow(2).mean() + model.config.rms_norm_eps).sqrt()
    logits = model.lm_head.weight.float() @ (state.float() / divisor * model.model.norm.weight.float())
    return torch.log_softmax(logits, -1)[target]


@torch.no_grad()
def slow(model: Any, rows: Any, legacy: bool = False) -> list[list[Tensor]]:
    """Scores of every layer and neuron, by loops: lists of I_attn, I_ffn, attention and FFN neurons."""
    totals = None
    for ids in rows.input_ids:
        layers, final = by_hand(model, ids[:-2])
        y = ids[-2]
        scores = []
        for x, a, f, attention_neurons, ffn_neurons in layers:
            base_x, base_r = (log_p(model, s, final, y, legacy) for s in (x, x + a))
            i_attn = (base_r - base_x)[None]
            i_ffn = (log_p(model, x + a + f, final, y, legacy) - base_r)[None]
            neurons = [
                torch.stack([log_p(model, base + s * w, final, y, legacy) - log_base for w, s in found])
                for base, log_base, found in ((x, base_x, attention_neurons), (x + a, base_r, ffn_neurons))
            ]
            scores.append([i_attn, i_ffn, *neurons])
        totals = (
            scores
            if totals is None
            else [[p + q for p, q in zip(s, t, strict=True)] for s, t in zip(scores, totals, strict=True)]
        )
    return [[score / len(rows.input_ids) for score in layer] for layer in totals]
