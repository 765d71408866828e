"""The oracle of `pkt plan`: the real training step of a student, run under fake tensors with a memory tracker.

Nothing is allocated, so that a model of 7 billion parameters takes seconds. What depends on the values of tensors is
given: positions, labels and kept states are those of rows that are all alike. `MemTracker` is private to torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoConfig, AutoModelForCausalLM

from pkt.data.batching import Batch
from pkt.models.architecture import Architecture
from pkt.models.behaviour import Reading
from pkt.models.taps import Interface
from pkt.objectives import Objective, OutputHead, output_cosine
from pkt.semantics import AlignmentMap
from pkt.semantics.learning_map import LearningMap
from pkt.training import forward
from pkt.training.forward import Positions, Seen, Targets, TransferLoss
from pkt.training.passes import LOG_PROBS, LOG_TAIL, TOKENS, Prefix
from pkt.training.states import RowStates
from pkt.training.teacher import Given, distributions
from pkt.training.trainable import Update, make_trainable

KEPT = 64  # tokens of the teacher's distributions


class Tracker(MemTracker):  # type: ignore[misc]
    """Tracks memory as a whole; a head that reads several chunks would confuse the accounts of modules."""

    def _pre_fw_hook(self, *_: Any) -> None: ...

    def _post_fw_hook(self, *_: Any) -> None: ...

    def _pre_bw_hook(self, *_: Any) -> None: ...

    def _post_bw_hook(self, *_: Any) -> None: ...


def llama(
    width: int, layers: int, mlp: int, heads: int, groups: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    """Return a config as its file would have it."""
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
    }
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": groups, "model_type": "llama"}
    return sizes | {"tie_word_embeddings": False, "max_position_embeddings": 4096} | more


def step_bytes(
    config: Mapping[str, Any],
    objective: Objective,
    *,
    update: Update,
    layers: Sequence[int],
    rows: int,
    prompt: int,
    answer: int,
    first: int = 1,
    dtype: str = "float32",
    again: bool = False,
    learns: bool = False,
) -> int:
    """Return the peak of two optimiser steps, in bytes: weights, what trains, and everything in between.

    Args:
        config: of the student.
        objective: its terms.
        update: what trains.
        layers: where.
        rows: of the micro batch.
        prompt, answer: tokens of each row.
        first: the layer at which the steps begin.
        dtype: of the student's weights.
        again: whether layers are run again for their gradients.
        learns: whether a map per layer is trained along, between states of the student's width.
    """
    length, numbers = prompt + answer, getattr(torch, dtype)
    with FakeTensorMode(allow_non_fake_inputs=True), _given(rows, length, answer):
        named = AutoConfig.for_model(**config)
        arch = Architecture.of(AutoModelForCausalLM.from_config(named, dtype=numbers).eval())
        with mock.patch.object(
            torch.nn.Module, "to", lambda self, *_, **__: self
        ):  # peft moves what is in place
            trainable = make_trainable(arch, update, layers)
        vars(arch)["reading"] = Reading(plain=True, linear=True, apart=0.0)  # measured by values otherwise
        maps = {k: _map(arch.width) for k in layers} if learns else {}
        loss = _loss(arch, objective, layers, rows, length, answer, first, numbers, again, maps)
        parameters = [*trainable.parameters.values(), *(map_.change for map_ in maps.values())]
        optimiser, tracker = torch.optim.AdamW(parameters), Tracker()
        starts = [map_.start.weight for map_ in maps.values()]  # `align`'s, of which the maps have copies
        tracker.track_external(arch.model, optimiser, *maps.values(), *starts)
        with tracker:
            for _ in range(2):
                optimiser.zero_grad(set_to_none=True)
                _total(loss, rows, length).backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
        (found,) = tracker.get_tracker_snapshot("peak").values()
    return int(found["Total"])


def _total(loss: TransferLoss, rows: int, length: int) -> torch.Tensor:
    """Return the loss of a batch, as the loop adds it up."""
    empty = torch.zeros(rows, length, dtype=torch.int64)
    batch = Batch(
        input_ids=empty,
        attention_mask=torch.ones_like(empty),
        supervised=empty.bool(),
        index=list(range(rows)),
    )
    seen = loss._forward(batch, with_output=bool(loss.objective.output_terms))
    found = loss._sums(
        seen, {f"loss_{name}": term.count(seen.view(term)) for name, term in loss.objective.terms.items()}
    )
    return torch.stack([total.mean() for total in found.values()]).sum()


def _map(width: int) -> LearningMap:
    return LearningMap(AlignmentMap(weight=torch.empty(width, width)), share=1.0)


def _states(rows: int, count: int, width: int, numbers: torch.dtype = torch.float32) -> RowStates:
    return RowStates(
        flat_ND=torch.empty(rows * count, width, dtype=numbers), offsets_R1=torch.arange(rows + 1) * count
    )


def _loss(
    arch: Architecture,
    objective: Objective,
    layers: Sequence[int],
    rows: int,
    length: int,
    answer: int,
    first: int,
    numbers: torch.dtype,
    again: bool,
    maps: Mapping[int, LearningMap],
) -> TransferLoss:
    count = length if objective.positions == "all" else answer
    return TransferLoss(
        arch=arch,
        objective=objective,
        interface=Interface.block,
        targets=Targets(
            source=Alike(
                states=(rows * count, arch.width),
                layers=tuple(layers) if objective.layer_terms else (),
                outputs=rows * answer if objective.outputs else 0,
            ),
            layers=tuple(layers) if objective.layer_terms else (),
            positions=objective.positions,
            maps=maps,
        ),
        prefix=Prefix(layer=first, states=_states(rows, length, arch.width, numbers)) if first > 1 else None,
        head=OutputHead(arch=arch),
        autocast=numbers == torch.bfloat16,
        recomputes=again,
        meter=mock.Mock(),
    )


@dataclass(frozen=True, kw_only=True)
class Alike:
    """What the teacher says of rows that are all alike, read anew as a batch is."""

    states: tuple[int, int]
    layers: tuple[int, ...]
    outputs: int

    def of(self, batch: Batch) -> Given:
        if not self.outputs:
            return Given(states={k: torch.empty(self.states) for k in self.layers})
        columns = {
            LOG_PROBS: torch.empty(self.outputs, KEPT),
            TOKENS: torch.empty(self.outputs, KEPT, dtype=torch.int32),
            LOG_TAIL: torch.empty(self.outputs, 1),
        }
        read = distributions(columns, batch.input_ids.device)
        return Given(states={k: torch.empty(self.states) for k in self.layers}, outputs=read)

    def count(self, batch: Batch) -> None: ...


@contextmanager
def _given(rows: int, length: int, answer: int) -> Iterator[None]:
    """Put what rows that are all alike give in the place of what is computed from their values."""

    def where(_seen: Seen, which: str, *, taught: bool) -> Positions:
        count = length if which == "all" else answer
        row_N = torch.arange(rows).repeat_interleave(count)
        place_N = (torch.arange(count) + length - count).repeat(rows)
        return Positions(row_N=row_N, student_N=place_N)

    def targets(own: Targets, layer: int, given: Given, _batch: Batch, at: Positions) -> torch.Tensor:
        states_ND = given.states[layer][torch.arange(len(at.row_N))]
        return own.maps[layer](states_ND) if layer in own.maps else states_ND

    def padded(own: RowStates, chosen: list[int], longest: int) -> torch.Tensor:
        return own.flat_ND.new_zeros(len(chosen), longest, own.flat_ND.shape[1])

    with ExitStack() as stack:
        for owner, name, function in (
            (Seen, "where", where), (Targets, "of", targets), (RowStates, "padded", padded)
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(owner, name, function))
        # numbers that only meters and rare branches read
        stack.enter_context(mock.patch.object(forward, "int", create=True, return_value=0))
        stack.enter_context(mock.patch.object(output_cosine, "bool", create=True, return_value=True))
        yield
