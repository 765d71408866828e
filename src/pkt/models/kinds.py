"""Which kinds of models are of use here: causal language models that transformers has the code of."""

from __future__ import annotations

from typing import Any

from pkt.errors import RequestError
from pkt.late import transformers

_WANTED = "pkt takes causal language models (Llama, Qwen, GPT-2 and the like)"


def check_kind(config: Any, where: str) -> None:
    """Refuse a model that is no causal decoder.

    Args:
        config: as transformers reads it.
        where: the first words of the message.

    Raises:
        RequestError: an encoder, a model of encoder and decoder, or one of images or sounds.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise RequestError(f"{where}: '{kind}' is a model of an encoder and a decoder; {_WANTED}")
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        inner = (
            "its language model is one part of it: save that alone" if _composed(config) else "take another"
        )
        raise RequestError(
            f"{where}: '{kind}' is no causal language model in transformers; {_WANTED}; {inner}"
        )
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers < 1:
        raise RequestError(
            f"{where}: its config.json has num_hidden_layers={layers}; take one that fits the weights"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise RequestError(
            f"{where}: by its config.json the weights are quantised; pkt reads and trains plain ones: take the original"
        )
    if type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        raise RequestError(
            f"{where}: '{kind}' is an encoder, whose positions see those after them; {_WANTED}"
        )


def _composed(config: Any) -> bool:
    """Return whether a language model is inside, beside parts for images or sounds."""
    return config.get_text_config() is not config
