"""What a causal language model is made of, read from the model itself.

    model.config.model_type -> Roles (dotted module paths) -> Architecture (the modules, by role)

Layers are numbered from 1, here and in everything built on it; only this package indexes `model.layers`.
Shape suffixes: N positions, D width, V vocabulary rows of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pkt.errors import RequestError
from pkt.models.roles import Roles, roles_of


class Architecture:
    """The parts of one causal language model, by role.

    Attributes:
        model: the transformers model; of a PEFT model the one inside.
        roles: the paths of its modules.
        width: D, size of the residual stream.
        vocab_size: V, rows of the head (padding rows included).
        tied: whether head and input embedding are one tensor.
        logit_softcap: logits become c * tanh(logits / c) (Gemma 2), or None.
        logit_scale: factor on the logits (Cohere's `logit_scale`, one over Granite's `logits_scaling`).
    """

    def __init__(self, model: Any, roles: Roles) -> None:
        self.model = model
        self.roles = roles
        config = model.config.get_text_config()
        self.width = int(config.hidden_size)
        self.logit_softcap: float | None = getattr(config, "final_logit_softcapping", None)
        scale = getattr(config, "logit_scale", None) or 1.0
        self.logit_scale = float(scale) / float(getattr(config, "logits_scaling", None) or 1.0)
        self._check()
        weight = _weight(self.head)
        self.vocab_size = int(weight.shape[0])
        self.tied = weight is _weight(self.embedding)

    @classmethod
    def of(cls, model: Any, declared: Mapping[str, Any] | None = None) -> Architecture:
        """Read a model's architecture.

        Args:
            model: a transformers causal language model, or a PEFT model around one.
            declared: module roles for a model type that pkt does not know (fields of `Roles`); for a known
                type, replacements.

        Raises:
            RequestError: unknown model type without declared roles, or a role that points nowhere.
        """
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        return cls(model, roles_of(model.config, declared))

    def _check(self) -> None:
        for role, path in self.roles.model_paths():
            _resolve(self.model, path, role)
        for role, path in self.roles.layer_paths():
            _resolve(self.layers[0], path, role)
        columns = _weight(self.head).shape[1]
        if columns != self.width:
            raise RequestError(
                f"the head of this {self.model.config.model_type} model reads {columns} channels of a "
                f"residual stream of {self.width} (as in OPT-350m, which projects in between); pkt supports "
                "heads that read the residual stream directly. Choose another checkpoint."
            )

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers; `layers[0]` is layer 1."""
        layers = self.model.get_submodule(self.roles.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def layer(self, number: int) -> nn.Module:
        """Return a layer by its number, from 1.

        Raises:
            RequestError: no such layer.
        """
        if not 1 <= number <= self.depth:
            raise RequestError(f"layer {number} does not exist: layers are numbered from 1 to {self.depth}.")
        return self.layers[number - 1]

    @property
    def decoder(self) -> nn.Module:
        """Embeddings, layers and final norm, without the head."""
        return self._module(self.roles.decoder)

    @property
    def embedding(self) -> nn.Module:
        """The input embedding."""
        return self._module(self.roles.embed)

    @property
    def final_norm(self) -> nn.Module:
        """The norm before the head; an identity where the model has none."""
        return self._module(self.roles.final_norm) if self.roles.final_norm else nn.Identity()

    @property
    def head(self) -> nn.Module:
        """The LM head."""
        return self._module(self.roles.head)

    @property
    def head_bias(self) -> Tensor | None:
        """Bias on the logits (V), or None."""
        bias = getattr(_base(self.head), "bias", None)
        return bias if isinstance(bias, Tensor) else None

    @property
    def device(self) -> torch.device:
        """The device of the inputs: the first one, if the model is spread over several."""
        return _weight(self.embedding).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's states (of its embedding: layers that train may be kept in float32)."""
        return _weight(self.embedding).dtype

    def head_weight(self) -> Tensor:
        """Return W, (V, D)."""
        return _materialised(_weight(self.head), "LM head")

    def embedding_weight(self) -> Tensor:
        """Return the input embedding, (V, D)."""
        return _materialised(_weight(self.embedding), "input embedding")

    def norm_weight(self) -> Tensor | None:
        """Return what the final norm multiplies a state with, (D), or None where it has no weight."""
        weight = getattr(self.final_norm, "weight", None)
        return weight + self.roles.norm_offset if isinstance(weight, Tensor) else None

    def sublayer_out(self, number: int, sublayer: str) -> nn.Module:
        """Return the module whose output a layer adds to the residual stream.

        Args:
            number: layer, from 1.
            sublayer: ``mlp`` or ``attention``.
        """
        assert sublayer in ("mlp", "attention")
        path = self.roles.mlp_out if sublayer == "mlp" else self.roles.attention_out
        return self.layer(number).get_submodule(path)

    def projection_names(self) -> tuple[str, ...]:
        """Name the linear maps of a layer: some of q k v qkv o gate up down."""
        return tuple(self.roles.projections)

    def projection_path(self, name: str) -> str:
        """Return the module path of a projection inside its layer.

        Raises:
            RequestError: the family has no such projection.
        """
        if name not in self.roles.projections:
            allowed = ", ".join(self.projection_names()) or "none: declare roles.projections"
            raise RequestError(
                f"{self.model.config.model_type} layers have no projection '{name}'; they have {allowed}."
            )
        return self.roles.projections[name]

    def projection(self, number: int, name: str) -> nn.Module:
        """Return one linear map of a layer (`nn.Linear`; `Conv1D` in GPT-2; a PEFT layer if wrapped)."""
        return self.layer(number).get_submodule(self.projection_path(name))

    def read_out(self, states_ND: Tensor) -> Tensor:
        """Return logits (..., V) of final-normed states (..., D): scale * softcap(W h + b)."""
        logits: Tensor = self.head(states_ND.to(_weight(self.head).dtype))
        if self.logit_softcap is not None:
            logits = torch.tanh(logits / self.logit_softcap) * self.logit_softcap
        return logits if self.logit_scale == 1.0 else logits * self.logit_scale

    def _module(self, path: str) -> nn.Module:
        module: nn.Module = self.model.get_submodule(path)
        return module


def _base(module: nn.Module) -> nn.Module:
    """Look through a PEFT wrapper."""
    base = getattr(module, "base_layer", module)
    assert isinstance(base, nn.Module)
    return base


def _weight(module: nn.Module) -> Tensor:
    weight = _base(module).weight
    assert isinstance(weight, Tensor)
    return weight


def _materialised(weight: Tensor, what: str) -> Tensor:
    if weight.is_meta:
        raise RequestError(
            f"the {what} was offloaded by device_map and has no values in memory; pkt reads it. "
            "Give device_map more memory, or leave it out."
        )
    return weight


def _resolve(root: nn.Module, path: str, role: str) -> None:
    try:
        root.get_submodule(path)
    except AttributeError:
        raise RequestError(
            f"role '{role}' points to '{path}', which {type(root).__name__} does not have. "
            "Set it to the right path: model.<teacher|student>.roles." + f"{role}=..."
        ) from None
