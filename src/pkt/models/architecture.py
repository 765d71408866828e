"""What a causal language model is made of, read from the model itself.

    model.config.model_type -> Roles (dotted module paths) -> Architecture (the modules, by role)
                                                           -> Behaviour (what they do, measured)

Layers are numbered from 1, here and in everything built on it; only this package indexes `model.layers`.
Shape suffixes: N positions, D width, V vocabulary rows of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pkt.errors import RequestError, first_line
from pkt.late import Tensor, nn, torch
from pkt.models.behaviour import Norm, Reading, logits_of, norm_of, reading_of, returned_by_layers
from pkt.models.findings import Probe
from pkt.models.roles import Roles, roles_of


class Architecture:
    """The parts of one causal language model, by role.

    Attributes:
        model: the transformers model; of a PEFT model the one inside.
        roles: the paths of its modules.
        width: D, size of the residual stream.
        vocab_size: V, rows of the head (padding rows included).
        rows: of the input embedding.
        tied: whether head and input embedding are one tensor.
        probe: what was found when the model was loaded; None where nobody looked.
    """

    def __init__(self, model: Any, roles: Roles) -> None:
        self.model = model
        self.roles = roles
        self.probe: Probe | None = None
        for role, path in roles.model_paths():
            _resolve(model, path, role)
        for role, path in roles.sublayer_paths():
            if not self.layers_with(path):
                _resolve(self.layers[0], path, role)
        weight = _matrix(self.head, "head", roles.head)
        self.vocab_size = int(weight.shape[0])
        embedding = _matrix(self.embedding, "embed", roles.embed)
        self.tied, self.rows = weight is embedding, int(embedding.shape[0])
        self.width = int(getattr(model.config.get_text_config(), "hidden_size", weight.shape[1]))
        self._check_head(weight.shape[1])

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
        arch = cls(model, roles_of(model.config, declared))
        for name, path in arch.roles.projections.items():
            if "projections" in (declared or {}) and not arch.layers_with(path):
                _resolve(arch.layers[0], path, f"projections.{name}")
        return arch

    def _check_head(self, columns: int) -> None:
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
        if not isinstance(layers, nn.ModuleList) or not len(layers):
            raise RequestError(
                f"role 'layers' points to '{self.roles.layers}', a {type(layers).__name__} and no list of layers. "
                "Set it to the path of the nn.ModuleList: model.<teacher|student>.roles.layers=..."
            )
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

    def layers_with(self, path: str) -> list[int]:
        """Return the numbers of the layers that have a module at a path: hybrids and mixtures differ by layer."""
        return [number for number, layer in enumerate(self.layers, 1) if _has(layer, path)]

    def starts_at(self, number: int) -> bool:
        """Return whether a pass may start at a layer, from the states that enter it."""
        return self.probe is None or self.probe.starts_at(number)

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
        """Return the input embedding, (V, D).

        Raises:
            RequestError: the probe found that the model reads tokens elsewhere.
        """
        if self.probe is not None:
            self.probe.require("embedding")
        return _materialised(_weight(self.embedding), "input embedding")

    @cached_property
    def norm(self) -> Norm:
        """What the final norm does, measured.

        Raises:
            RequestError: it cannot be run on a state.
        """
        try:
            return norm_of(self.final_norm, self.width, self.device, self.dtype)
        except RuntimeError as error:
            raise RequestError(
                f"the final norm ({self.roles.final_norm}) cannot be run on a state of {self.width} channels "
                f"({first_line(error)}): the role final_norm points to the wrong module"
            ) from error

    def norm_weight(self) -> Tensor | None:
        """Return what the final norm multiplies a state with, (D), or None where it has no weight.

        A family's norm may multiply with its weight, or with one plus it (Gemma): what the norm does decides.
        """
        if self.roles.final_norm is None:
            return None
        return self.norm.gain(getattr(self.final_norm, "weight", None))

    def sublayer_out(self, number: int, sublayer: str) -> nn.Module:
        """Return the module whose output a layer adds to the residual stream.

        Args:
            number: layer, from 1.
            sublayer: ``mlp`` or ``attention``.

        Raises:
            RequestError: this layer has none, as in models that mix layers of several kinds.
        """
        assert sublayer in ("mlp", "attention")
        path = self.roles.mlp_out if sublayer == "mlp" else self.roles.attention_out
        return self._inside(number, path, sublayer, "another interface (method.interface=block or residual)")

    def _inside(self, number: int, path: str | None, what: str, remedy: str) -> nn.Module:
        layer = self.layer(number)
        if path is not None and _has(layer, path):
            return layer.get_submodule(path)
        having = ", ".join(map(str, self.layers_with(path))) if path is not None else "none"
        raise RequestError(
            f"layer {number} of this {self.model.config.model_type} model has no {what} ({path}); layers that have it: "
            f"{having}. Choose among these, or {remedy}."
        )

    def projection_names(self) -> tuple[str, ...]:
        """Name the linear maps that layers have: some of q k v qkv o gate up down.

        A type that is declared to be like another one need not have all of that one's.
        """
        return tuple(name for name, path in self.roles.projections.items() if self.layers_with(path))

    def projection_path(self, name: str) -> str:
        """Return the module path of a projection inside its layer.

        Raises:
            RequestError: the family has no such projection.
        """
        if name not in self.projection_names():
            allowed = ", ".join(self.projection_names()) or "none: declare roles.projections"
            raise RequestError(
                f"{self.model.config.model_type} layers have no projection '{name}'; they have {allowed}. Where "
                "experts share it out, or it is part of a larger matrix, it cannot be taken by itself: name one of "
                "these, or take a model that has it."
            )
        return self.roles.projections[name]

    def projection(self, number: int, name: str) -> nn.Module:
        """Return one linear map of a layer (`nn.Linear`; `Conv1D` in GPT-2; a PEFT layer if wrapped).

        Raises:
            RequestError: this layer has none.
        """
        path = self.projection_path(name)
        return self._inside(number, path, f"projection '{name}'", "another projection")

    @cached_property
    def reading(self) -> Reading:
        """How the model makes logits of final-normed states, measured."""
        return reading_of(self.model, self.decoder, self.head, self.width)

    def read_out(self, states_ND: Tensor) -> Tensor:
        """Return logits (..., V) of final-normed states (..., D), as the model itself makes them.

        Raises:
            RequestError: the probe found that these are not the model's logits.
        """
        if self.probe is not None:
            self.probe.require("logits")
        states_ND = states_ND.to(_weight(self.head).dtype)
        if self.reading.plain:
            logits: Tensor = self.head(states_ND)
            return logits
        return logits_of(self.model, self.decoder, states_ND)

    @cached_property
    def layer_returns(self) -> int | None:
        """How many things a layer returns in a tuple; None: the state alone."""
        return returned_by_layers(self.decoder, self.layers[0], self.device)

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


def _matrix(module: nn.Module, role: str, path: str) -> Tensor:
    weight = getattr(_base(module), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise RequestError(
            f"role '{role}' points to '{path}', a {type(module).__name__} without a weight matrix, which pkt reads. "
            f"Set it to the linear map or embedding itself: model.<teacher|student>.roles.{role}=..."
        )
    return weight


def _has(layer: nn.Module, path: str) -> bool:
    try:
        layer.get_submodule(path)
    except AttributeError:
        return False
    return True


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
