"""What of a model's own generation settings goes into its answers: nothing (neutral), or all of it (model).

    generation_config.json -> own -> neutral: left out, and told | model: applied, as stock lm-eval does

A model's folder may ask for penalties, suppressed or forced tokens, a least length or beams. transformers applies them
to greedy decoding too, also where the caller set none. With ``neutral`` an answer is the likeliest continuation, token
by token, for every model that is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NEUTRAL, MODEL = "neutral", "model"
DRAWING = ("temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Settings that are read only where answers are drawn, in the order in which transformers applies them."""
BEAMS = ("length_penalty", "early_stopping", "diversity_penalty", "num_beam_groups", "renormalize_logits")
"""Settings that are read only where there are several beams."""
STOCK_TOP_K = 50  # transformers' own, where answers are drawn and nobody says another
NONE = {
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "guidance_scale": 1.0,
    "length_penalty": 1.0,
    "num_beam_groups": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "typical_p": 1.0,
}
"""Values that change nothing, beside those that are null, false, 0 or empty."""
PLUMBING = frozenset([
    "max_length", "max_new_tokens", "max_time", "eos_token_id", "pad_token_id", "bos_token_id",
    "decoder_start_token_id", "do_sample", "num_return_sequences", "return_dict_in_generate",
    "remove_invalid_values", "output_attentions", "output_hidden_states", "output_scores", "output_logits",
    "transformers_version", "use_cache", "use_mtp", "cache_implementation", "cache_config", "max_cache_len",
    "low_memory", "prefill_chunk_size", "compile_config", "disable_compile", "continuous_batching_config",
    "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
    "assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight",
    "prompt_lookup_num_tokens", "max_matching_ngram_size", "speculation_type",
])  # fmt: skip
"""Settings that the evaluation decides itself, or that change how an answer is computed and not which it is."""


def own(config: Any, *, drawn: bool) -> dict[str, Any]:
    """Return those settings of a loaded model that change its answers, see `effective`; `config`: transformers' own."""
    return effective(json.loads(config.to_json_string()), drawn=drawn)


def effective(settings: Mapping[str, Any], *, drawn: bool) -> dict[str, Any]:
    """Return those of transformers' generation settings that change an answer.

    Args:
        settings: of a model.
        drawn: whether answers are drawn; greedy decoding does not read `DRAWING`.
    """
    unread = PLUMBING | (frozenset() if drawn else frozenset(DRAWING))
    if (settings.get("num_beams") or 1) == 1:
        unread |= frozenset(BEAMS)
    return {
        name: value
        for name, value in sorted(settings.items())
        if name not in unread and not name.startswith("_") and value and value != NONE.get(name)
    }
