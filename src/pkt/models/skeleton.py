"""A model without weights: what its shapes are, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from pkt.models.architecture import Architecture
from pkt.models.load import quiet


def skeleton(config: Any, declared: Mapping[str, Any] | None = None) -> Architecture:
    """Return the architecture that a config describes, its parameters on the meta device.

    Shapes, layers and roles are those of the real model; a module's path may differ where the checkpoint is a
    multimodal one around the language model.

    Args:
        config: a transformers config, as `pkt.models.load.load_config` returns it.
        declared: module roles, see `Architecture.of`.
    """
    with quiet(), torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return Architecture.of(model, declared or None)
