"""Which of the student's parameters train, and how they end up in plain weights.

Everything that is not declared here is frozen. Weights that train are float32 whatever the student's dtype:
AdamW's steps at these learning rates are smaller than a bfloat16 weight can resolve. A float16 student is float32
altogether while it trains, since gradients leave the range of float16. What is saved has the student's own dtype.

Adapters start at zero, or from given factors (`pkt.training.lora_start`); the student's function at the beginning
is its own either way.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pkt import console
from pkt.config import UpdateKind
from pkt.errors import RequestError
from pkt.late import nn, peft, torch, transformers
from pkt.models.architecture import Architecture
from pkt.models.quiet import quiet_transformers
from pkt.models.surgery import left_out, lora_config, sites, wrap
from pkt.settings import Bounded, setting
from pkt.training.lora_start import TRAINED, LoraStart, begin, folded, joined


def _adapts(own: Update, _choice: object) -> bool:
    return own.kind == "lora"


@dataclass(frozen=True, kw_only=True)
class Update(Bounded):
    """What trains in a layer.

    Attributes:
        kind: ``lora`` (adapters), or ``full`` (every parameter of the layer).
        rank: LoRA rank.
        alpha: LoRA alpha; the update is scaled by alpha / rank.
        targets: projection roles that get an adapter; ``embed`` and ``head`` may be among them.
        dropout: on the adapters' input while training; peft has none on an embedding.
    """

    kind: UpdateKind = "lora"
    rank: int = setting(16, when=_adapts, at_least=1)
    alpha: float = setting(16.0, when=_adapts)
    targets: list[str] = setting(factory=lambda: ["up", "down", "v", "o"], when=_adapts)
    dropout: float = setting(0.0, when=_adapts, at_least=0, below=1)

    @property
    def trains_head(self) -> bool:
        """Whether the LM head gets an adapter."""
        return self.kind == "lora" and "head" in self.targets

    @property
    def trains_embeddings(self) -> bool:
        """Whether the embeddings get an adapter, so that the states that enter every layer change in training."""
        return self.kind == "lora" and "embed" in self.targets


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """The parameters that train, by name, and the adapter that holds them (None when whole layers train).

    Attributes:
        model: the student; in eval mode but for the adapters' dropout.
        parameters: what trains.
        adapter: the PEFT model around it.
        dtypes: of all parameters, before some became float32.
        has_start: whether the adapter started from a `LoraStart`.
    """

    model: transformers.PreTrainedModel
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    adapter: peft.PeftModel | None = None
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    has_start: bool = False

    @property
    def count(self) -> int:
        """Number of scalars that train."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def dropouts(self) -> tuple[nn.Module, ...]:
        """The adapters' dropout, the only modules in training mode; of the layers that are in the model now."""
        return () if self.adapter is None else _dropouts(self.adapter)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch the adapters' dropout off, for validation."""
        dropouts = self.dropouts
        before = [dropout.training for dropout in dropouts]
        try:
            for dropout in dropouts:
                dropout.eval()
            yield
        finally:
            for dropout, training in zip(dropouts, before, strict=True):
                dropout.train(training)

    def save_adapter(self, folder: Path, base: str) -> None:
        """Save a PEFT adapter for the untouched student (nothing for `update=full`).

        An adapter with a start becomes one of twice the rank, [B, -B0] [A; A0], since W keeps its values
        there. Call it before `merged`.

        Args:
            folder: of the adapter.
            base: the student's checkpoint, for the adapter's config.
        """
        if self.adapter is None:
            return
        config = self.adapter.peft_config[TRAINED]
        config.base_model_name_or_path = base
        if not self.has_start:
            # False: the vocabulary never changes, and peft would look for the base model on the hub to find out
            self.adapter.save_pretrained(str(folder), save_embedding_layers=False)
            return
        both = copy.copy(config)
        both.r, both.lora_alpha = 2 * config.r, 2 * config.lora_alpha  # the same scale
        both.inference_mode = True
        folder.mkdir(parents=True, exist_ok=True)
        both.save_pretrained(str(folder))
        from safetensors.torch import save_file

        save_file(joined(self.adapter), folder / "adapter_model.safetensors", metadata={"format": "pt"})

    @torch.no_grad()
    def merged(self) -> transformers.PreTrainedModel:
        """Fold the trained weights into the student, in its own dtype, and return it; call once, last."""
        plain = self.model
        if self.adapter is not None:
            plain = folded(self.adapter) if self.has_start else self.adapter.merge_and_unload()
        for name, parameter in plain.named_parameters():
            parameter.data = parameter.data.to(self.dtypes.get(name, parameter.dtype))
        return plain


def make_trainable(
    arch: Architecture,
    update: Update,
    layers: Sequence[int],
    *,
    seed: int = 0,
    start: LoraStart | None = None,
) -> Trainable:
    """Freeze the student and declare what trains.

    Args:
        arch: the student; changed in place.
        update: what trains in each of the layers.
        layers: layer numbers, from 1.
        seed: of the adapters' start.
        start: where the adapters start; None: peft's default (A random, B zero). The function of the student
            is the same either way.

    Raises:
        RequestError: a start or dropout with ``full``; see `pkt.models.surgery.lora_config`.
    """
    model = arch.model
    model.requires_grad_(False)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    if torch.float16 in dtypes.values():
        model.float()
    if update.kind == "full":
        if start is not None or update.dropout > 0:
            raise RequestError(
                "update.kind=full has no adapters that could have a start or dropout; use update.kind=lora "
                "or set dropout to 0."
            )
        return _whole_layers(arch, layers, dtypes)
    config = lora_config(
        arch, layers, update.targets, rank=update.rank, alpha=update.alpha, dropout=update.dropout
    )
    if lacking := left_out(arch, layers, update.targets):
        console.warn(f"adapters go to the projections that a layer has: {lacking}")
    torch.manual_seed(seed)  # peft draws the adapters' start from the global generator
    with quiet_transformers(), warnings.catch_warnings():
        # GPT-2's head is a Linear beside its Conv1D: peft corrects the flag per module, and says so
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        places = sites(arch, layers, update.targets).keys()
        adapter = wrap(arch, config, places)
        if start is not None:
            assert start.factors.keys() == places, "a start names each adapted module, and no other"
            begin(adapter, config, start)
    adapter.eval()  # peft's own modules start in training mode
    for dropout in _dropouts(adapter):
        dropout.train()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return Trainable(
        model=model,
        parameters=parameters,
        adapter=adapter,
        dtypes=dtypes,
        has_start=start is not None,
    )


def _dropouts(adapter: peft.PeftModel) -> tuple[nn.Module, ...]:
    named = adapter.named_modules()
    return tuple(m for name, m in named if isinstance(m, nn.Dropout) and ".lora_dropout." in name)


def _whole_layers(arch: Architecture, layers: Sequence[int], dtypes: Mapping[str, torch.dtype]) -> Trainable:
    chosen = {id(p) for layer in layers for p in arch.layer(layer).parameters()}
    parameters = {name: p for name, p in arch.model.named_parameters() if id(p) in chosen}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return Trainable(model=arch.model, parameters=parameters, dtypes=dtypes)
