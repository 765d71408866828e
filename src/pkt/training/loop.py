"""The one training loop: AdamW over loss terms, resumable to the bit.

    plan: rows per optimiser step -> micro batches -> terms -> backward -> clip -> AdamW -> schedule
                                                       every epoch: validation, each minute and at a stop: snapshot

A term's mean is taken over all positions of the optimiser step, whatever the micro batch size, so that
accumulation changes memory and not the gradient (`reduced` is the one place that divides); masks of dropout are drawn
for the rows of a micro batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pkt import console, interrupts
from pkt.config import OptimConfig
from pkt.data.batching import Batch
from pkt.errors import PktError
from pkt.late import Tensor, nn, torch
from pkt.processes import ALONE, Processes
from pkt.settings import MOST_SEED
from pkt.training.meter import Meter, counted_together
from pkt.training.resumable import REMEDY, Resumable
from pkt.training.schedule import elapsed, schedule
from pkt.training.sharding import average_whole, clip, grouped, rooted

if TYPE_CHECKING:
    from pkt.training.share import Share

_APART = 7_919_000_003  # between the seeds of two processes


class Loss(Protocol):
    """A training objective: differentiable sums per term, and what they are sums over.

    One whose `weights` read the values says so with an attribute ``compares`` that is true: the values are then
    those of the whole optimiser step, whatever the micro batch.
    """

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return what each term's sum over a batch is over."""
        ...

    def weights(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the weight of each term, given the terms' means over the optimiser step."""
        ...

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the sum of each term that has something in the batch; of several sums the term is the mean."""
        ...


def reduced(sums: Mapping[str, Tensor], totals: Mapping[str, int]) -> dict[str, Tensor]:
    """Return a micro batch's part of each term's mean over the optimiser step.

    Args:
        sums: of the micro batch.
        totals: what the step's sums are over.
    """
    return {name: (total / totals[name]).mean() for name, total in sums.items()}


Listener = Callable[[int, dict[str, float]], None]
"""Called after every optimiser step with the step number (from 1) and its metrics."""


@dataclass(frozen=True, kw_only=True)
class History:
    """What training left beside the weights."""

    steps: int
    validations: list[dict[str, float]] = field(
        default_factory=list
    )  # one per validation, each with its "step"
    best_step: int | None = None  # the step whose weights were kept, where optim.keep=best


@dataclass(kw_only=True)
class Trainer:
    """Train `parameters` on `loss`.

    Attributes:
        loss: the objective.
        parameters: what trains, by name.
        plan: per epoch, the rows of each optimiser step; this and not ``optim.epochs`` says how long training is.
        collate: rows -> batch.
        optim: hyper-parameters.
        validate: returns validation metrics (``cross_entropy`` decides what is best).
        snapshots: folder for resumable state; None keeps none.
        listen: called after every step.
        seed: before each step torch is seeded with it and the step, so that dropout is the same after a resume.
        meters: their counts are part of the resumable state.
        buffers: tensors that are part of it too, changed in place.
        begin_step: called before every optimiser step with the share of the training that has `elapsed`; it returns
            metrics of the step.
        finish_step: called after every optimiser step, before `listen`.
        forget: called before a step is begun anew.
        processes: who trains; each takes a part of every step's rows.
        inseparable: whether the rows of a step have to go through the student together.
        masked: whether there is dropout, whose masks are drawn for the rows that go through the student together.
        layers: of the student, where the processes share out their weights (`pkt.training.sharding`): all of them
            then run the same layers equally often.
        idle: runs them on a batch, for a process that has no row left, and returns a zero that reaches them all;
            nobody calls it without `layers`.
        finish_epoch: called after the last step of every epoch but the last, once validation is done; it may change
            `buffers`, and returns metrics.
    """

    loss: Loss
    parameters: Mapping[str, nn.Parameter]
    plan: Sequence[Sequence[list[int]]]
    collate: Callable[[list[int]], Batch]
    optim: OptimConfig
    validate: Callable[[], dict[str, float]] | None = None
    snapshots: Path | None = None
    listen: Listener | None = None
    seed: int = 0
    meters: Sequence[Meter] = ()
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    begin_step: Callable[[float], dict[str, float]] = lambda _progress: {}
    finish_step: Callable[[], None] = lambda: None
    finish_epoch: Callable[[], dict[str, float]] = dict
    forget: Callable[[], None] = lambda: None
    inseparable: bool = False
    masked: bool = False
    layers: Sequence[nn.Module] = ()
    idle: Callable[[Batch], Tensor | None] = lambda _batch: None
    processes: Processes = ALONE
    _share: Share = field(init=False)
    _wrapped: Any = field(init=False)
    _rows_at_once: int | None = field(default=None, init=False)
    _state: Resumable = field(init=False)

    def fit(self) -> History:
        """Run all steps, from the newest snapshot if there is one, and leave the chosen weights in place.

        Without epochs there are no steps and no validation, and the weights stay as they are.
        """
        optimiser = self._optimiser()
        total = sum(map(len, self.plan))
        self._state = Resumable(
            parameters=self.parameters,
            buffers=self.buffers,
            meters=self.meters,
            processes=self.processes,
            folder=self.snapshots,
        )
        done = self.processes.in_turn(lambda: self._state.load(optimiser))
        from pkt.training.share import Share

        self._share = Share(self.parameters.values(), self.processes.count, self.layers)
        self._wrapped = (
            rooted(self._share, self.processes) if self.layers else self.processes.wrapped(self._share)
        )
        if done:
            console.note(f"pkt: training goes on behind optimiser step {done} of {total}")
        # several processes would have to hear of it at the same step, and their launcher ends them all
        alone = self.snapshots is not None and self.processes.count == 1
        with interrupts.postponed(alone, console.fail) as stop:
            self._run(optimiser, done, total, stop)
        return self._finish(total)

    def _run(self, optimiser: torch.optim.Optimizer, done: int, total: int, stop: interrupts.Stop) -> None:
        """Take the steps behind those that are done; when told to stop, leave a snapshot."""
        assert self.optim.lr is not None
        step, saved_at = 0, time.monotonic()
        for epoch, steps in enumerate(self.plan):
            for i, rows in enumerate(steps):
                step += 1
                if step <= done:
                    continue
                lr = self.optim.lr * schedule(step, total, self.optim)
                self._seed(step)
                metrics = self.begin_step(elapsed(step, total)) | self._step(optimiser, rows, lr, step)
                if i + 1 == len(steps):
                    metrics |= self._validate(epoch, step, last=step == total)
                    metrics |= self.finish_epoch() if step < total else {}
                if self.listen is not None:
                    self.listen(step, metrics)
                due = bool(stop.asked) or time.monotonic() - saved_at > self.optim.save_every
                if self.snapshots is not None and self._together(due):
                    self._state.save(optimiser, step)
                    saved_at = time.monotonic()
                stop.obey(f"behind optimiser step {step} of {total}")

    def _optimiser(self) -> torch.optim.Optimizer:
        assert self.optim.lr is not None, "the pipeline puts the method's own in place of null"
        return torch.optim.AdamW(
            [{"params": own} for own in grouped(self.parameters.values())],
            lr=self.optim.lr,
            betas=(self.optim.betas[0], self.optim.betas[1]),
            weight_decay=self.optim.weight_decay,
            # the same numbers as one parameter after the other, with fewer calls; on a GPU in one kernel
            **({"fused": True} if self._device.type == "cuda" else {"foreach": True}),
        )

    def _together(self, due: bool) -> bool:
        """Return whether this process takes part in saving: those that share out weights all do, at the same step."""
        if not self.layers:
            return due and self.processes.main
        return self.processes.total({"due": float(due and self.processes.main)})["due"] > 0

    def micro_batches(self, rows: list[int]) -> list[list[int]]:
        """Return the rows of an optimiser step that go through the student together in this process."""
        own = self.processes.own(rows)
        size = self._at_once(own)
        return [own[i : i + size] for i in range(0, len(own), size)]

    def _at_once(self, own: Sequence[int]) -> int:
        return self._rows_at_once or self.optim.micro_batch_size or max(len(own), 1)

    def _padded(self, batches: Sequence[Batch], rows: list[int]) -> list[Batch | None]:
        """Return a step's batches and, for each that the first process has and this one has not, None."""
        if not self.layers:
            return [*batches]
        first = rows[:: self.processes.count]
        return [*batches, *[None] * (math.ceil(len(first) / self._at_once(first)) - len(batches))]

    def _step(
        self, optimiser: torch.optim.Optimizer, rows: list[int], lr: float, step: int
    ) -> dict[str, float]:
        for group in optimiser.param_groups:
            group["lr"] = lr
        with counted_together(self.meters, self.processes):
            metrics = self._gradients(optimiser, rows, step)
        limit = self.optim.max_grad_norm if self.optim.max_grad_norm > 0 else math.inf
        norm = clip(list(self.parameters.values()), limit)
        metrics |= {"grad_norm": float(norm), "lr": lr}
        self._guard(metrics, step, rows)
        optimiser.step()
        self.finish_step()
        return metrics

    def _gradients(self, optimiser: torch.optim.Optimizer, rows: list[int], step: int) -> dict[str, float]:
        """Compute the gradients of a step; where memory runs out, anew with half as many rows at a time.

        Raises:
            PktError: one row is too much, or terms compare rows that would be taken apart.
        """
        while True:
            counted = [asdict(meter) for meter in self.meters]
            try:
                return self._accumulated(optimiser, rows, step)
            except torch.OutOfMemoryError as error:
                size = max(map(len, self.micro_batches(rows)))
                if size == 1 or self.inseparable or self.masked or self.processes.count > 1:
                    raise PktError(
                        f"memory ran out at optimiser step {step} with {size} rows at a time ({error}). Set "
                        "optim.checkpointing=true, optim.precision=bfloat16, a smaller data.max_length"
                        f"{', optim.micro_batch_size' if size > 1 and not self.inseparable else ''}"
                        f"{' or optim.batch_size' if self.inseparable else ''}, or train fewer layers."
                    ) from error
                self._rows_at_once = size // 2
            # what the step had done so far is done again
            optimiser.zero_grad(set_to_none=True)
            self.forget()
            for meter, before in zip(self.meters, counted, strict=True):
                meter.restore(before)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._seed(step)
            console.warn(
                f"memory ran out with {size} rows at a time: from here on {self._rows_at_once}, with the same "
                f"result (set optim.micro_batch_size={self._rows_at_once} to begin so)"
            )

    def _accumulated(self, optimiser: torch.optim.Optimizer, rows: list[int], step: int) -> dict[str, float]:
        """Sum the gradient of a step over its micro batches, and return the step's loss and terms.

        A term is a mean over all rows of the step, in all processes, whatever they are cut into. Terms whose weights
        follow each other's values (`compares`) are computed in a pass of their own first, if there are several parts.
        """
        batches = [self.collate(part) for part in self.micro_batches(rows)]
        totals = self._totals(rows, batches)
        metrics = {name: 0.0 for name, total in totals.items() if total} | {"loss": 0.0}
        compares = getattr(self.loss, "compares", False)
        apart = len(batches) > 1 or self.processes.count > 1
        values = self._values(batches, rows, totals) if compares and apart else None
        optimiser.zero_grad(set_to_none=True)
        # a process without rows takes part all the same, with a gradient of zero
        for i, batch in enumerate(self._padded(batches, rows) or [None]):
            adds_up = i + 1 < len(batches) and not self.layers
            with self.processes.unsynchronised(self._wrapped) if adds_up else nullcontext():
                self._share.now = (
                    partial(self._total, batch, totals, values, metrics) if batch else self._rest(rows)
                )
                if (loss := self._wrapped()) is None:
                    continue
                self._guard(metrics, step, batch.index if batch else [])
                loss.backward()
        if self.layers:
            average_whole(self.parameters.values(), self.processes)
        return self.processes.total(metrics)

    def _rest(self, rows: list[int]) -> Callable[[], Tensor | None] | None:
        """Return what a process without rows does: nothing, or the same layers as the others."""
        return partial(self.idle, self.collate(rows[:1])) if self.layers else None

    def _totals(self, rows: list[int], batches: Sequence[Batch]) -> dict[str, int]:
        """Return what each term's sums over the step are over, in all processes together."""
        totals: dict[str, int] = {}
        for batch in batches if self.processes.count == 1 else [self.collate(rows)]:
            for name, count in self.loss.counts(batch).items():
                totals[name] = totals.get(name, 0) + count
        return totals

    @torch.no_grad()
    def _values(
        self, batches: Sequence[Batch], rows: list[int], totals: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Return the terms' means over the step, from an extra pass that draws the same random numbers."""
        device = self._device
        values: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for batch in self._padded(batches, rows):
                if batch is None:
                    self.idle(self.collate(rows[:1]))
                    continue
                for name, part in reduced(self.loss(batch), totals).items():
                    values[name] = values[name] + part if name in values else part
        if self.processes.count == 1:
            return values
        here = {name: float(values.get(name, 0.0)) for name, total in totals.items() if total}
        return {name: torch.tensor(value) for name, value in self.processes.total(here).items()}

    def _total(
        self,
        batch: Batch,
        totals: Mapping[str, int],
        values: Mapping[str, Tensor] | None,
        metrics: dict[str, float],
    ) -> Tensor | None:
        """Return a micro batch's share of the step's loss, and add its terms to the metrics; None without any."""
        parts = reduced(self.loss(batch), totals)
        if not parts:
            return self.idle(batch) if self.layers else None
        own = {name: part.detach() for name, part in parts.items()}
        weights = self.loss.weights(own if values is None else values)
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        for name, part in own.items():
            metrics[name] += float(part)
        metrics["loss"] += float(total.detach())
        return total

    def _seed(self, step: int) -> None:
        """Seed torch for a step; on a processor its one generator alone, which takes a thousandth of the time."""
        seed = (self.seed * 1_000_003 + step + self.processes.rank * _APART) % (MOST_SEED + 1)
        (torch.default_generator.manual_seed if self._device.type == "cpu" else torch.manual_seed)(seed)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    def _guard(self, metrics: dict[str, float], step: int, rows: list[int]) -> None:
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            terms = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != bad[0])
            raise PktError(
                f"{bad[0]} became {metrics[bad[0]]} at optimiser step {step} (rows {rows[:4]}..., {terms}). "
                f"{REMEDY}"
            )

    def _validate(self, epoch: int, step: int, *, last: bool) -> dict[str, float]:
        every = self.optim.validate_every
        if self.validate is None or not (last or (every and (epoch + 1) % every == 0)):
            return {}
        metrics = self.validate()
        self._state.validated(step, metrics)
        score = metrics.get("cross_entropy", math.inf)  # of no rows it is no number
        comparable = math.isfinite(score) or "cross_entropy" not in metrics
        if self.optim.keep == "best" and comparable:
            self._state.offer(step, score)
        return {f"validation/{name}": value for name, value in metrics.items()}

    def _finish(self, total: int) -> History:
        state = self._state
        if self.optim.keep == "best" and state.validations and state.best is None:
            raise PktError(
                f"no validation of this training (optimiser step {total} was the last) had a finite cross-entropy, so "
                f"optim.keep=best has nothing to choose from. {REMEDY}"
            )
        state.put_best()
        state.check_weights(total)
        best_step = state.best.step if state.best is not None else None
        return History(steps=total, validations=state.validations, best_step=best_step)
