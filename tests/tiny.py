"""Tiny random models of every supported family, and a tokenizer trained in memory: no file, no network.

Weights are larger than a real initialisation, and norms and biases are not at their neutral values, so that a
forgotten norm, bias, or scale shows in the numbers.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from pkt.data.chat import Chat

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "opt")
VOCABULARY = 320
CHAT = Chat(time=datetime(2024, 7, 26, 12))
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def tiny_config(
    family: str = "llama",
    *,
    depth: int = 4,
    width: int = 32,
    vocab: int = VOCABULARY,
    tied: bool = False,
    context: int = 128,
    **changes: Any,
) -> Any:
    """Return a transformers config of a family; `changes` are passed on to it."""
    size: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if family in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"):
        size |= {"num_key_value_heads": 2, "intermediate_size": 2 * width, "head_dim": width // 4}
    if family == "qwen2":
        del size["head_dim"]
    if family == "mistral":
        size |= {"sliding_window": 8}
    if family.startswith("gemma"):
        kinds = ["sliding_attention", "full_attention"] * depth
        size |= {"sliding_window": 8, "query_pre_attn_scalar": width // 4, "layer_types": kinds[:depth]}
        size |= {"attn_implementation": "eager"}
    if family == "gpt_neox":
        size |= {"intermediate_size": 2 * width, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    if family == "opt":
        size |= {"ffn_dim": 2 * width, "word_embed_proj_dim": width}
    return AutoConfig.for_model(family, **(size | changes))


def tiny_model(family: str = "llama", *, seed: int = 0, **sizes: Any) -> PreTrainedModel:
    """Return a random float32 model in eval mode.

    Args:
        family: One of `FAMILIES`.
        seed: Of the weights; the global generator is left as it was.
        sizes: `depth`, `width`, `vocab`, `tied`, `context`, or any key of the family's config.
    """
    config = tiny_config(family, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter)
                parameter.add_(noise * (0.1 if parameter.dim() > 1 else 0.2))
    return model


def _corpus() -> list[str]:
    names, things = ("Ada", "Ben", "Cleo", "Dan"), ("apples", "books", "coins", "dogs")
    lines = [f"{n} has {k} {t}. How many {t} has {n}?" for n in names for t in things for k in range(12)]
    code = [f"def f{k}(x):\n    return x + {k} * {k * k}\n" for k in range(40)]
    return lines + code + ["The answer is: yes or no, red, green, blue."]


@lru_cache(maxsize=8)
def _trained(vocab: int, bos: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    return tokenizer.to_str()


def tiny_tokenizer(
    vocab: int = VOCABULARY, *, bos: bool = False, chat: bool = True
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with <pad>=0, <s>=1, </s>=2.

    Args:
        vocab: Number of tokens, at least 259 (a larger one extends a smaller one).
        bos: Whether it puts <s> before every text.
        chat: Whether it has a chat template.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(vocab, bos)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE if chat else None,
    )


_GQA = {"num_key_value_heads": 2, "intermediate_size": 64}
_LIKE_LLAMA = {"like": "llama"}
_GPT = {
    "decoder": "transformer",
    "layers": "transformer.h",
    "embed": "transformer.wte",
    "final_norm": "transformer.ln_f",
}
_GPT |= {"attention": "attn", "mlp": "mlp"}
_BLOOM = {"decoder": "transformer", "layers": "transformer.h", "embed": "transformer.word_embeddings"}
_BLOOM |= {"final_norm": "transformer.ln_f", "attention": "self_attention", "mlp": "mlp"}
_MPT = {"decoder": "transformer", "layers": "transformer.blocks", "embed": "transformer.wte"}
_MPT |= {"final_norm": "transformer.norm_f", "attention": "attn", "mlp": "ffn"}
_HYBRID = {"decoder": "model", "layers": "model.layers", "embed": "model.embed_tokens"}
_HYBRID |= {"final_norm": "model.final_layernorm", "attention": "self_attn", "mlp": "feed_forward"}
_MAMBA = {"mamba_d_state": 8, "mamba_expand": 2}
_SHARING = {
    "head_dim": 8, "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "sliding_window": 8,
}  # fmt: skip
_DEEPSEEK = {
    "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "first_k_dense_replace": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "head_dim": 4, "intermediate_size": 64,
}  # fmt: skip
# what architectures do that Llama does not: family, changes of its config, declared roles
QUIRKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "scale in the config that nobody uses": ("llama", {"logit_scale": 0.25} | _GQA, {}),
    "scale in the config that is text": ("mpt", {"logit_scale": "inv_sqrt_d_model"}, _MPT),
    "attention added in place": ("falcon", {"num_kv_heads": 4}, _BLOOM),
    "residual inside both sublayers": ("bloom", {}, _BLOOM),
    "residual inside the MLP": ("mpt", {}, _MPT),
    "multipliers": (
        "granite",
        {"residual_multiplier": 0.22, "logits_scaling": 8.0, "embedding_multiplier": 12.0} | _GQA,
        _LIKE_LLAMA,
    ),
    "scaled logits, parallel": ("cohere", {"logit_scale": 0.0625} | _GQA, _LIKE_LLAMA),
    "one plus the weight": ("gemma", _GQA | {"head_dim": 8}, _LIKE_LLAMA),
    "soft cap": ("gemma2", {"final_logit_softcapping": 5.0}, {}),
    "norms after the sublayers": ("olmo2", _GQA, _LIKE_LLAMA),
    "no weight in the norm": ("olmo", _GQA, _LIKE_LLAMA),
    "parallel, bias on the head": ("gptj", {"rotary_dim": 4}, _GPT),
    "parallel, fused": ("codegen", {"rotary_dim": 4}, _GPT),
    "local and global": (
        "gpt_neo",
        {"num_heads": 4, "attention_types": [[["global", "local"], 2], [["global"], 1]], "window_size": 8},
        _GPT,
    ),
    "Mamba beside attention": (
        "bamba",
        {"attn_layer_indices": [1, 3], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1} | _GQA | _MAMBA,
        _HYBRID,
    ),
    "Mamba, attention and experts": (
        "jamba",
        {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 0, "num_experts": 2}
        | {"num_experts_per_tok": 1, "use_mamba_kernels": False} | _GQA | _MAMBA,
        _HYBRID,
    ),
    "dense layers first, then experts": ("deepseek_v3", _DEEPSEEK, _LIKE_LLAMA),
    "keys and values of earlier layers": ("gemma4_text", _SHARING | _GQA, _LIKE_LLAMA),
    "several streams": (
        "gemma3n_text",
        _SHARING | _GQA | {"altup_num_inputs": 2, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 5},
        _LIKE_LLAMA,
    ),
}  # fmt: skip


def quirky(name: str, **changes: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return a random model with a quirk, of five layers unless `changes` say otherwise, and the roles to declare."""
    family, config, roles = QUIRKS[name]
    return tiny_model(family, **({"depth": 5} | config | changes)), roles
