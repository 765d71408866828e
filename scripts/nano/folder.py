"""A nano model as a Hugging Face folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from nano.family import CONTEXT, EOS_ID, PAD_ID
from nano.tokenizer import EOS, PAD, train_tokenizer

SHIPPED_DTYPE = torch.float16


def load_tokenizer(folder: Path, kind: str) -> Tokenizer:
    """Read a tokenizer, or train it and write it there."""
    path = folder / f"tokenizer_{kind}.json"
    if not path.exists():
        partial = path.with_suffix(".partial")
        train_tokenizer(kind).save(str(partial))
        partial.replace(path)
    return Tokenizer.from_file(str(path))


def save_model(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, generation config, half-precision weights and tokenizer."""
    shipped = copy.deepcopy(model).to(SHIPPED_DTYPE)
    shipped.generation_config = GenerationConfig(
        eos_token_id=EOS_ID, pad_token_id=PAD_ID, do_sample=False, max_new_tokens=32
    )
    shipped.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def load_model(folder: Path) -> Any:
    """Read a shipped model in float32, ready to be scored."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
