"""A tiny random model of every causal decoder that transformers knows, and the module roles that a user would declare.

    model type -> its default config, with small numbers -> random model -> roles, read from the module tree

The roles are a careful user's, made from the names of modules alone: nothing here knows what pkt makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from pkt.models.quiet import quiet_transformers

DEPTH = 6
LARGEST = 2_000_000  # parameters; what stays larger has parts beside the decoder
VOCABULARY = 1280  # of the nano tokenizer

_SMALL: dict[int, str] = {
    32: "hidden_size d_model n_embd embedding_size word_embed_proj_dim lru_width attention_hidden_size emb_dim "
    "embedding_dim input_embedding_size output_embedding_size mamba_d_ssm",
    DEPTH: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers num_blocks "
    "num_layers_per_stack encoder_layers num_encoder_layers",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads attention_heads "
    "num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads mamba_n_heads n_mamba_heads "
    "mamba_num_heads linear_num_value_heads index_n_heads num_experts n_routed_experts num_local_experts "
    "moe_num_experts",
    2: "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_experts_per_tok "
    "num_experts_per_token moe_topk moe_k num_query_groups cross_attn_k index_topk_blocks num_kv_shared_layers "
    "layer_group_size global_attn_every_n_layers first_k_dense_replace num_dense_layers",
    8: "head_dim swa_head_dim global_head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim kv_lora_rank q_lora_rank "
    "dim_head d_head attention_head_dim attention_head_size linear_key_head_dim linear_value_head_dim "
    "linear_head_dim kv_channels rotary_dim query_pre_attn_scalar index_head_dim mamba_d_state ssm_state_size "
    "state_size mamba_chunk_size chunk_size gated_norm_rank o_lora_rank laurel_rank sliding_window window_size "
    "attention_window_size sliding_window_size local_attention_window_len mamba_dt_rank time_step_rank adapter_rank "
    "router_hidden_size hidden_size_per_layer_input ple_embed_dim hc_lowrank index_topk index_block_size "
    "keep_window_size attention_chunk_size d_rel block_size local_attention",
    16: "qk_head_dim moe_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size "
    "shared_expert_intermediate_size mamba_d_head mamba_head_dim mamba_headdim conv_dim rel_extent",
    64: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dff dim_ff "
    "shared_intermediate_size shared_experts_intermediate_size intermediate_size_mlp dense_intermediate_size "
    "d_inner feed_forward_size prompt_mid_dim n_inner",
    VOCABULARY: "vocab_size decoder_vocab_size unpadded_vocab_size vocab_size_per_layer_input",
    128: "max_position_embeddings n_positions n_ctx max_seq_len model_max_length context_length "
    "max_target_positions",
    1: "topk_group n_group num_expert_group n_shared_experts num_shared_experts moe_num_shared_experts "
    "mamba_n_groups n_groups mamba_ngroups num_mem_blocks o_groups zero_expert_num",
}
SIZES = {name: size for size, names in _SMALL.items() for name in names.split()}
_FULL = "full_attention"
UNUSUAL = {
    "residual_multiplier": 0.5,
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
}  # released models have such
SPECIAL: dict[str, dict[str, Any]] = {  # what small numbers alone leave inconsistent
    "bamba": {"attn_layer_indices": [2, 4]},
    "cohere_compass_text": {"layer_types": ["sliding_attention", _FULL] * 3},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 3]], "window_size": 8},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", _FULL] * 3},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16]},
    "roc_bert": {"pronunciation_vocab_size": 8, "shape_vocab_size": 8},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "mamba"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
_DEFAULTED = ("head_dim", "num_key_value_heads", "num_experts_per_tok", "attention_head_dim")  # often None


def model_types() -> list[str]:
    """Return every model type that transformers maps to a causal language model."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Return a model type's own default config with small numbers: kinds and orders of layers stay.

    Args:
        model_type: of transformers.
        changes: other values of it.
    """
    kind = CONFIG_MAPPING[model_type]
    try:
        known: dict[str, Any] = kind().to_dict()
    except Exception:  # a default that its own class refuses
        known = {}
    size: dict[str, Any] = {
        name: _small(name, known) for name in known if name in SIZES and _counts(name, known[name])
    }
    size |= {name: value for name, value in UNUSUAL.items() if name in known}
    size |= {"is_decoder": True} if "is_decoder" in known else {}
    size |= {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    return kind(**(size | SPECIAL.get(model_type, {}) | changes))


def _counts(name: str, value: Any) -> bool:
    if value is None:
        return name in _DEFAULTED
    return isinstance(value, int) and not isinstance(value, bool) and value != 0


def _small(name: str, known: dict[str, Any]) -> int:
    """Return a small number; a family without grouped keys and values keeps as many as heads."""
    if name == "num_key_value_heads" and known[name] in (None, known.get("num_attention_heads")):
        return SIZES["num_attention_heads"]
    return SIZES[name]


def tiny_family(model_type: str, *, seed: int = 0, **changes: Any) -> Any:
    """Return a random model in eval mode whose norms and biases are not at their neutral values.

    Raises:
        ValueError: it cannot be made small.
    """
    config = tiny_config(model_type, **changes)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > LARGEST:
            raise ValueError(f"{size:,} parameters with small numbers: it has parts beside the decoder")
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * (0.05 if parameter.dim() > 1 else 0.1))
    return model


def is_causal(model: Any) -> bool:
    """Return whether a token changes no logits before it."""
    ids = torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, 9:] = (other[:, 9:] + 5) % VOCABULARY
    with torch.no_grad():
        first, second = (model(input_ids=x, use_cache=False).logits[:, :9] for x in (ids, other))
    return bool((first - second).abs().max() < 1e-3 * first.abs().max())


def generates(model: Any) -> None:
    """Let a model continue a batch of two padded rows, as transformers does: an exception says that it cannot."""
    ids = torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    model.generate(ids, attention_mask=mask, max_new_tokens=2, do_sample=False)


_ATTENTIONS = ("attn", "attention", "mixer", "mamba", "conv", "time_mix", "temporal_block", "ssm", "mlstm")
_MLPS = ("mlp", "ffn", "feed_forward", "moe", "ffw", "feedforward", "channel_mix", "sparse", "expert")
_NAMES = {
    "q": ("q_proj", "query", "q", "q_lin", "wq"),
    "k": ("k_proj", "key", "k", "k_lin", "wk"),
    "v": ("v_proj", "value", "v", "v_lin", "wv"),
    "qkv": ("qkv_proj", "c_attn", "query_key_value", "Wqkv", "qkv", "att_proj"),
    "o": ("o_proj", "out_proj", "dense", "c_proj", "o", "out_lin", "wo", "Wo", "attn_out"),
    "gate": ("gate_proj", "w1", "gate"),
    "up": ("up_proj", "c_fc", "fc1", "fc_in", "dense_h_to_4h", "w3", "Wi", "lin1", "dense_in", "wi"),
    "down": ("down_proj", "c_proj", "fc2", "fc_out", "dense_4h_to_h", "w2", "Wo", "lin2", "dense_out", "wo"),
}


def guessed_roles(model: Any, depth: int = DEPTH) -> dict[str, Any]:
    """Return the roles that a careful user reads off the module tree.

    Raises:
        ValueError: there is no list of layers, or no two sublayers in a layer.
    """
    stacks = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    }
    if not stacks or model.get_output_embeddings() is None:
        raise ValueError("no list of layers, or no head")
    layers = max(stacks, key=lambda name: sum(p.numel() for p in stacks[name].parameters()))
    paths = {module: name for name, module in model.named_modules()}
    embed, head = paths[model.get_input_embeddings()], paths[model.get_output_embeddings()]
    decoder = _ancestor(layers, embed)
    layer = stacks[layers][0]
    attention, mlp = _sublayer(layer, _ATTENTIONS), _sublayer(layer, _MLPS)
    if attention is None:
        raise ValueError(f"no sublayers among {[name for name, _ in layer.named_children()]}")
    found: dict[str, Any] = {
        "decoder": decoder,
        "layers": layers,
        "embed": embed,
        "head": head,
        "final_norm": _final_norm(model, decoder, layers),
        "attention": attention,
        "mlp": mlp,
        "projections": dict(_projections(layer, attention, mlp)),
    }
    if mlp is None:
        found["mlp_out"] = _last_map(layer, attention)
    children = dict(layer.named_children())
    if "post_feedforward_layernorm" in children:
        found |= {"mlp_out": "post_feedforward_layernorm", "attention_out": "post_attention_layernorm"}
    return found


def _ancestor(layers: str, embed: str) -> str:
    """Return the path of the innermost module around both the layers and the embedding."""
    common = []
    for own, other in zip(layers.split(".")[:-1], embed.split("."), strict=False):
        if own != other:
            break
        common.append(own)
    return ".".join(common)


def _sublayer(layer: nn.Module, words: tuple[str, ...]) -> str | None:
    named = [(name, child) for name, child in layer.named_children() if "norm" not in name.lower()]
    for word in words:
        for name, child in named:
            if (
                word in name.lower()
                and any(True for _ in child.parameters())
                and not isinstance(child, nn.Linear)
            ):
                return name
    return None


def _final_norm(model: Any, decoder: str, layers: str) -> str | None:
    around = model.get_submodule(decoder)
    inner = model.get_submodule(layers.rpartition(".")[0])
    names = [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in ((layers.rpartition(".")[0], inner), (decoder, around))
        for name, child in module.named_children()
        if "norm" in type(child).__name__.lower() and "emb" not in name
    ]
    return names[-1] if names else None


def _projections(layer: nn.Module, attention: str, mlp: str | None) -> Iterator[tuple[str, str]]:
    maps = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    for role, names in _NAMES.items():
        inside = attention if role in ("q", "k", "v", "qkv", "o") else mlp
        for path in maps:
            beside = path.partition(".")[0] == inside or (inside is None and "." not in path)
            if beside and path.rpartition(".")[2] in names and "expert" not in path:
                yield role, path
                break


def _last_map(layer: nn.Module, attention: str) -> str:
    maps = [n for n, m in layer.named_modules() if isinstance(m, nn.Linear) and not n.startswith(attention)]
    return maps[-1] if maps else attention  # Mamba has one sublayer
