"""Read what layers compute at one position of each row: sublayer inputs and outputs, and neurons.

    x = what enters, a = attention output, r = x + a, f = FFN output, what leaves = r + f
    f = sum_j m_j W_down[:, j]                       m = act(gate) * up: the FFN neurons
    a = sum_hj (sum_t A_h[t] v_t,hj) W_o[:, hj]      A_h = attention weights: the attention neurons (h, j)

This holds for gated pre-norm layers with RMSNorm (Llama, Mistral, Qwen); `check_neurons` refuses others.
Shape suffixes: B rows, T positions, D width, I FFN neurons, H heads, K attention neurons (H * head size).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pkt.errors import RequestError
from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture
from pkt.models.roles import Roles
from pkt.models.taps import Interface, decode, entering_state, first_output

NEEDED = ("gate", "up", "down", "v", "o")
SUM_TOLERANCE = 0.03  # bfloat16 rounds each of the two additions by up to 2^-8 of what it returns


@dataclass(frozen=True, kw_only=True)
class NeuronShape:
    """How many neurons a layer has.

    Attributes:
        ffn: I, FFN neurons.
        attention: K = heads * head size, attention neurons.
        heads: attention heads.
        group: heads that share one key and value head.
    """

    ffn: int
    attention: int
    heads: int
    group: int

    def value_rows(self, neurons: Tensor) -> Tensor:
        """Return the row of W_v of attention neurons (h, j): (h // group) * head size + j."""
        size = self.attention // self.heads
        head, channel = neurons // size, neurons % size
        return (head // self.group) * size + channel


@dataclass(frozen=True, kw_only=True)
class Internals:
    """One layer at one position of each row, float32.

    Attributes:
        entering_BD: x.
        attention_BD: a.
        ffn_BD: f.
        ffn_neurons_BI: m, what enters W_down.
        own_values_BK: per attention neuron (h, j), A_h[t] * v_hj, where A_h[t] is the weight that the position puts on
            itself: its own share of what enters W_o.
    """

    entering_BD: Tensor
    attention_BD: Tensor
    ffn_BD: Tensor
    ffn_neurons_BI: Tensor
    own_values_BK: Tensor


def neuron_shape(config: Any) -> NeuronShape:
    """Read the numbers of neurons from a transformers config; no weights are needed."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    shared = int(getattr(text, "num_key_value_heads", None) or heads)
    return NeuronShape(
        ffn=int(text.intermediate_size), attention=heads * size, heads=heads, group=heads // shared
    )


def check_neurons(config: Any, roles: Roles, who: str) -> None:
    """Refuse a model whose layers are not sums of neurons read out by an RMSNorm and a linear head.

    Args:
        config: its transformers config.
        roles: its module roles.
        who: ``teacher`` or ``student``, for the message.

    Raises:
        RequestError: no gated MLP, fused projections, or a norm after a sublayer. What only the loaded model can
            tell is refused by `internals`: a parallel residual, scaled residuals, another norm or read-out.
    """
    text = config.get_text_config()
    missing = [name for name in NEEDED if name not in roles.projections]
    reasons = {
        f"its layers have no projection {', '.join(missing)} (a gated MLP and separate v and o are needed)": bool(
            missing
        ),
        "a norm follows its sublayers, so a neuron's column is not what reaches the residual stream": (
            roles.attention_out != roles.attention or roles.mlp_out != roles.mlp
        ),
        "its config names no rms_norm_eps, which the read-out through an RMSNorm needs": (
            getattr(text, "rms_norm_eps", None) is None
        ),
    }
    _refuse(reasons, f"the {who} ({config.model_type})")


def _check_measured(arch: Architecture) -> None:
    """Refuse a loaded model whose layers or read-out do not do what `check_neurons` assumes of their names.

    Raises:
        RequestError: see `check_neurons`.
    """
    probe = arch.probe
    reasons = {
        "its final norm is not an RMSNorm": arch.norm.centres or arch.norm.shifts,
        "its logits are not those of its head (they are soft-capped or scaled)": not arch.reading.plain,
        "attention and MLP read the same state": probe is not None and not probe.check("sequential").holds,
    }
    _refuse(reasons, f"this {arch.model.config.model_type} model")
    if probe is not None:
        for interface in (Interface.mlp, Interface.attention):
            probe.require_interface(interface)


def _refuse(reasons: Mapping[str, bool], who: str) -> None:
    for reason, applies in reasons.items():
        if applies:
            raise RequestError(
                f"{who} has no neurons that can be located: {reason}. Choose a Llama, Mistral or Qwen model, or a "
                "method that works on layers (method=semalign)."
            )


@torch.no_grad()
def internals(
    arch: Architecture, input_ids_BT: Tensor, attention_mask_BT: Tensor, position_B: Tensor
) -> tuple[list[Internals], Tensor]:
    """Run the decoder once and read every layer at one position of each row.

    Attention runs in its eager form, the only one that returns its weights; those of one layer, (B, H, T, T), exist at
    a time.

    Args:
        arch: a model that `check_neurons` accepts, in eval mode.
        input_ids_BT: right-padded tokens.
        attention_mask_BT: 0 at padding.
        position_B: the position that is read, per row.

    Returns:
        One `Internals` per layer (layer 1 first), and what enters the final norm, (B, D) float32.

    Raises:
        RequestError: the model does not return attention weights, or its layers do not add up to x + a + f; see
            `check_neurons`.
    """
    _check_measured(arch)
    rows_B = torch.arange(len(position_B), device=position_B.device)
    readers = [_Reader(arch, number, (rows_B, position_B)) for number in range(1, arch.depth + 1)]
    with _eager(arch.model), ExitStack() as stack:
        for reader in readers:
            stack.enter_context(reader.listening())
        decode(arch, input_ids_BT, attention_mask_BT)
    return [reader.result() for reader in readers], readers[-1].seen["leaving"]


class _Reader:
    """The hooks that read one layer."""

    def __init__(self, arch: Architecture, number: int, place: tuple[Tensor, Tensor]) -> None:
        self.number, self.place = number, place
        self.layer = arch.layer(number)
        self.attention = arch.sublayer_out(number, "attention")
        self.mlp = arch.sublayer_out(number, "mlp")
        self.down, self.value = arch.projection(number, "down"), arch.projection(number, "v")
        self.shape = neuron_shape(arch.model.config)
        self.seen: dict[str, Tensor] = {}

    def _keep(self, name: str, state_BTX: Tensor) -> None:
        rows_B, position_B = (index.to(state_BTX.device) for index in self.place)
        # a layer's parts may be on several devices; what is kept of them meets on one
        self.seen[name] = state_BTX[rows_B, position_B].to(self.place[0].device, torch.float32)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Fill `seen` while a forward pass runs."""

        def on_attention(_m: nn.Module, _args: Any, output: Any) -> None:
            if not isinstance(output, tuple) or not isinstance(output[1], Tensor):
                raise RequestError(
                    f"{type(self.attention).__name__} returns no attention weights in its eager form, which "
                    "locating attention neurons needs. Choose a Llama, Mistral or Qwen model."
                )
            self._keep("attention", output[0])
            self._keep("weights", output[1].diagonal(dim1=2, dim2=3).transpose(1, 2))

        handles = [
            self.layer.register_forward_pre_hook(
                lambda _m, args, kwargs: self._keep("entering", entering_state(args, kwargs)),
                with_kwargs=True,
            ),
            self.attention.register_forward_hook(on_attention),
            self.value.register_forward_hook(lambda _m, _args, output: self._keep("value", output)),
            self.down.register_forward_pre_hook(lambda _m, args: self._keep("neurons", args[0])),
            self.mlp.register_forward_hook(lambda _m, _args, output: self._keep("ffn", output)),
            self.layer.register_forward_hook(
                lambda _m, _args, output: self._keep("leaving", first_output(output))
            ),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def result(self) -> Internals:
        """Return what was read, once it is clear that the layer adds up."""
        seen = self.seen
        total_BD = seen["entering"] + seen["attention"] + seen["ffn"]
        error = (seen["leaving"] - total_BD).norm() / seen["leaving"].norm()
        if not error <= SUM_TOLERANCE:
            raise RequestError(
                f"layer {self.number} is not the sum of what enters, attention and FFN (relative error "
                f"{float(error):.2g}), so its neurons cannot be read out. Choose a Llama, Mistral or Qwen model."
            )
        heads, group = self.shape.heads, self.shape.group
        value_BHd = seen["value"].view(len(seen["value"]), heads // group, -1).repeat_interleave(group, dim=1)
        own_BHd = seen["weights"][..., None] * value_BHd
        return Internals(
            entering_BD=seen["entering"],
            attention_BD=seen["attention"],
            ffn_BD=seen["ffn"],
            ffn_neurons_BI=seen["neurons"],
            own_values_BK=own_BHd.flatten(1),
        )


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Run attention in its eager form; the model's own form is restored, also when the body raises."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
