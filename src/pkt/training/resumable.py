"""What a training goes on from: weights, AdamW's moments, validations and the best weights so far, as a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pkt.errors import PktError
from pkt.late import Tensor, nn, torch
from pkt.processes import Processes
from pkt.training.meter import Meter
from pkt.training.sharding import own_part, placed, whole
from pkt.training.snapshot import load_snapshot, optimiser_tensors, restore_optimiser, save_snapshot

REMEDY = (
    "Lower optim.lr, set optim.max_grad_norm, or train in float32 (optim.precision, model.student.dtype). A snapshot "
    "is only ever made of finite weights."
)


@dataclass(frozen=True, kw_only=True)
class Best:
    """The weights with the lowest cross-entropy on validation rows so far."""

    step: int
    score: float
    weights: Mapping[str, Tensor]


@dataclass(kw_only=True)
class Resumable:
    """The state of a training beside the optimiser's.

    Attributes:
        parameters: what trains, by name.
        buffers: tensors that are part of the state too, changed in place.
        meters: their counts are part of it.
        processes: who trains.
        folder: of its snapshots; None keeps none.
        validations: so far; one per validation, each with its "step".
        best: where the best weights are to be kept, and there are some.
    """

    parameters: Mapping[str, nn.Parameter]
    buffers: Mapping[str, Tensor]
    meters: Sequence[Meter]
    processes: Processes
    folder: Path | None
    validations: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a validation."""
        self.validations.append({"step": step, **metrics})

    def offer(self, step: int, score: float) -> None:
        """Keep a copy of the weights as they are, if their score is lower than the best."""
        if self.best is None or score < self.best.score:
            copies = {name: p.detach().clone() for name, p in self.parameters.items()}
            self.best = Best(step=step, score=score, weights=copies)

    @torch.no_grad()
    def put_best(self) -> None:
        """Put the best weights back, where there are some."""
        if self.best is not None:
            for name, parameter in self.parameters.items():
                parameter.copy_(self.best.weights[name])

    def check_weights(self, step: int) -> None:
        """Refuse to keep weights that are not finite.

        Raises:
            PktError: some are not.
        """
        for name, parameter in self.parameters.items():
            if not bool(own_part(parameter).isfinite().all()):
                raise PktError(f"weights of {name} are NaN or infinite after optimiser step {step}. {REMEDY}")

    def save(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Make a snapshot; where weights are in parts, all processes have to call it together."""
        assert self.folder is not None
        self.check_weights(step)
        tensors = optimiser_tensors(self.parameters, optimiser)
        tensors |= {f"buffer:{name}": value for name, value in self.buffers.items()}
        state: dict[str, Any] = {
            "step": step,
            "validations": self.validations,
            "meters": [asdict(meter) for meter in self.meters],
        }
        if self.best is not None:
            state["best"] = {"step": self.best.step, "score": self.best.score}
            tensors |= {f"best:{name}": value for name, value in self.best.weights.items()}
        kept: dict[str, Tensor] = {}
        # one after the other: together they may be more than a device has
        for name, value in tensors.items():
            all_of_it = whole(value.detach())
            if self.processes.main:
                kept[name] = all_of_it.cpu()
        if self.processes.main:
            save_snapshot(self.folder, kept, state)

    def load(self, optimiser: torch.optim.Optimizer) -> int:
        """Go on from the newest snapshot, and return its step; 0 where there is none."""
        if self.folder is None:
            return 0
        needed = {f"parameter:{name}": value.data for name, value in self.parameters.items()}
        needed |= {f"buffer:{name}": value for name, value in self.buffers.items()}
        snapshot = load_snapshot(self.folder, needed)
        if snapshot is None:
            return 0
        restore_optimiser(self.parameters, optimiser, snapshot.tensors)
        for name, value in self.buffers.items():
            value.copy_(snapshot.tensors[f"buffer:{name}"])
        self.validations = snapshot.state["validations"]
        for meter, counted in zip(self.meters, snapshot.state["meters"], strict=True):
            meter.restore(counted)
        if (best := snapshot.state.get("best")) is not None:
            values = {
                name: placed(snapshot.tensors[f"best:{name}"].to(parameter.device), parameter)
                for name, parameter in self.parameters.items()
            }
            self.best = Best(step=best["step"], score=best["score"], weights=values)
        step: int = snapshot.state["step"]
        return step
