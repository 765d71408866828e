"""Which module plays which role, per model family.

The interface of a sublayer is the module whose output is *added to the residual stream*: in Gemma 2 and 3
that is the norm after the sublayer, in OPT the second linear map of the MLP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pkt.errors import RequestError, nearest


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Dotted module paths of one model family.

    Attributes:
        decoder: embeddings, layers and final norm, without the head.
        layers: the ModuleList of layers.
        embed: input embedding.
        final_norm: norm before the head; None where there is none.
        head: LM head.
        attention, mlp: sublayers, relative to a layer (mlp is None where a layer holds its maps directly).
        attention_out, mlp_out: modules whose output is added to the residual stream, relative to a layer; None
            where layers have no such sublayer.
        projections: linear maps by name (q k v qkv o gate up down), relative to a layer.

    What is relative to a layer need not be in every one: hybrids and mixtures of experts have layers of several kinds.
    """

    decoder: str
    layers: str
    embed: str
    final_norm: str | None
    attention: str | None
    attention_out: str | None
    mlp: str | None
    mlp_out: str | None
    head: str = "lm_head"
    projections: Mapping[str, str] = field(default_factory=dict)

    def model_paths(self) -> Iterator[tuple[str, str]]:
        """Yield (role, path) of the modules found from the model."""
        for role in ("decoder", "layers", "embed", "final_norm", "head"):
            if (path := getattr(self, role)) is not None:
                yield role, path

    def sublayer_paths(self) -> Iterator[tuple[str, str]]:
        """Yield (role, path) of the sublayers, found from a layer."""
        for role in ("attention", "attention_out", "mlp", "mlp_out"):
            if (path := getattr(self, role)) is not None:
                yield role, path


_LLAMA = Roles(
    decoder="model",
    layers="model.layers",
    embed="model.embed_tokens",
    final_norm="model.norm",
    attention="self_attn",
    attention_out="self_attn",
    mlp="mlp",
    mlp_out="mlp",
    projections={
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
)
_GEMMA = replace(
    _LLAMA,
    attention_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
)
ROLES: dict[str, Roles] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gemma3": replace(
        _GEMMA,
        decoder="model.language_model",
        layers="model.language_model.layers",
        embed="model.language_model.embed_tokens",
        final_norm="model.language_model.norm",
    ),
    "gpt2": Roles(
        decoder="transformer",
        layers="transformer.h",
        embed="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_out="attn",
        mlp="mlp",
        mlp_out="mlp",
        projections={
            "qkv": "attn.c_attn",
            "o": "attn.c_proj",
            "up": "mlp.c_fc",
            "down": "mlp.c_proj",
        },
    ),
    "gpt_neox": Roles(
        decoder="gpt_neox",
        layers="gpt_neox.layers",
        embed="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attention_out="attention",
        mlp="mlp",
        mlp_out="mlp",
        projections={
            "qkv": "attention.query_key_value",
            "o": "attention.dense",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
    ),
    "opt": Roles(
        decoder="model.decoder",
        layers="model.decoder.layers",
        embed="model.decoder.embed_tokens",
        final_norm="model.decoder.final_layer_norm",
        attention="self_attn",
        attention_out="self_attn",
        mlp=None,
        mlp_out="fc2",
        projections={
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.out_proj",
            "up": "fc1",
            "down": "fc2",
        },
    ),
}

KEPT_ROLES = "pkt_roles"  # a saved model's config keeps the declared roles under this name
_REQUIRED = ("decoder", "layers", "embed", "final_norm", "attention", "mlp")


def roles_of(config: Any, declared: Mapping[str, Any] | None = None) -> Roles:
    """Return the module roles of a model.

    Args:
        config: the model's transformers config.
        declared: fields of `Roles` that the user gives, else those that the config keeps; `attention_out` and
            `mlp_out` default to the sublayers. `like`: a model type whose roles are taken for those that are not given.

    Raises:
        RequestError: an unknown role, or an unknown model type without the roles that it takes.
    """
    given = dict(declared or getattr(config, KEPT_ROLES, None) or {})
    model_type = given.pop("like", config.model_type)
    allowed = [f.name for f in fields(Roles)]
    for role in given:
        if role not in allowed:
            raise RequestError(
                f"'{role}' is not a module role{nearest(role, allowed)}; roles are {', '.join(allowed)} (and like)."
            )
    for role in ("decoder", "layers", "embed", "head"):
        if not isinstance(given.get(role, ""), str):
            raise RequestError(
                f"role '{role}' is {given[role]!r}; a dotted module path is expected, like model.layers."
            )
    if model_type in ROLES:
        return _without_missing_norm(replace(ROLES[model_type], **given), config)
    missing = [role for role in _REQUIRED if role not in given]
    if missing:
        raise RequestError(
            f"pkt does not know the model type '{model_type}' (it knows {', '.join(ROLES)}), and these "
            f"module roles are not declared: {', '.join(missing)}. Name a type with the same modules "
            "(model.teacher.roles.like=llama; model.student.roles for a student), or declare each as a dotted path, "
            "like model.teacher.roles.layers=model.layers; attention and mlp are relative to a layer."
        )
    if given["mlp"] is None and "mlp_out" not in given:
        raise RequestError("roles.mlp is null, so roles.mlp_out has to name the module that ends the MLP.")
    return Roles(**{"attention_out": given["attention"], "mlp_out": given["mlp"]} | given)


def _without_missing_norm(roles: Roles, config: Any) -> Roles:
    """Leave the final norm out for OPT checkpoints that have none (from before transformers 4.20.1)."""
    post_norm = not getattr(config, "do_layer_norm_before", True)
    if config.model_type == "opt" and (post_norm or config._remove_final_layer_norm):
        return replace(roles, final_norm=None)
    return roles
