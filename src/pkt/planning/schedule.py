"""The passes of the training: tokens of every step, of prefixes and of validations, as the meters count them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pkt.config import OptimConfig
from pkt.data.batching import epochs_of
from pkt.planning.rows import Counts, Rows
from pkt.planning.wanted import Wanted


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Work of one kind.

    Attributes:
        tokens: forward tokens of the student.
        layer_tokens: tokens times the layers that ran on them.
        back: tokens times the layers through which a gradient went.
        trained: tokens times the layers whose whole weights got a gradient.
        read: positions that were read out, each time that they were, backward passes counted as another.
        taught: forward tokens of the teacher, where it is live.
    """

    tokens: int = 0
    layer_tokens: int = 0
    back: int = 0
    trained: int = 0
    read: float = 0
    taught: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The training of a request."""

    wanted: Wanted
    rows: Counts

    @cached_property
    def epochs(self) -> list[list[tuple[int, float]]]:
        """(tokens, answer positions) of every optimiser step, per epoch."""
        optim, train = self.wanted.config.optim, self.rows["train"]
        if not len(train):
            return []

        def steps(epoch: int) -> list[tuple[int, float]]:
            return list(_epoch(train, optim, self.wanted.config.seed, epoch))

        return epochs_of(steps, epochs=optim.epochs, steps=optim.steps)

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return sum(map(len, self.epochs))

    @property
    def validations(self) -> int:
        """How often a training that goes through all epochs validates."""
        every, count = self.wanted.config.optim.validate_every, len(self.epochs)
        return len({*range(every, count + 1, every), count} if every else {count}) if count else 0

    @property
    def passes(self) -> Passes:
        """All passes of the training."""
        return self._by_frontier() if self.wanted.frontier else self._together()

    def _together(self) -> Passes:
        wanted, depth = self.wanted, self.wanted.student.layers
        first = self.first
        found = self._prefix(1, first - 1) if first > 1 else Passes()
        last = depth if wanted.output_terms else max(wanted.trained)
        flat = [step for epoch in self.epochs for step in epoch]
        found += self._train(flat, first, last, min(wanted.trained), len(wanted.trained))
        found += self._validate(first, self.validations)
        if wanted.refit == "epochs" and wanted.layerwise:
            found += self._refit((len(self.epochs) - 1) * (len(self.epochs) > 1), max(wanted.students))
        return found

    def _by_frontier(self) -> Passes:
        wanted, layers, found = self.wanted, self.wanted.trained, Passes()
        flat, reached = [step for epoch in self.epochs for step in epoch], 1
        for number, layer in enumerate(layers):
            own = flat[len(flat) * number // len(layers) : len(flat) * (number + 1) // len(layers)]
            first = layer if wanted.own["cache_prefix"] else 1
            if first > 1:
                found += self._prefix(reached, first - 1)
                reached = first
            if not own:
                continue
            if wanted.refit == "stages" and layer in wanted.students:
                found += self._refit(1, layer)
            last = wanted.student.layers if self.reads_out(layer) else layer
            found += self._train(own, first, last, layer, 1)
            found += self._validate(first, 1)
        return found

    def reads_out(self, layer: int) -> bool:
        """Return whether the stage of a frontier has output terms."""
        own, paired = self.wanted.own["frontier"], layer in self.wanted.students
        last = layer == self.wanted.student.layers
        with_layer = bool(self.wanted.layer_terms) and paired and (own["last_layer_term"] or not last)
        return bool(self.wanted.output_terms) and (last or own["output_at"] == "all" or not with_layer)

    @property
    def first(self) -> int:
        """The layer at which the steps of a joint training begin."""
        cached = self.wanted.own.get("cache_prefix", True) and not self.wanted.trains_embeddings
        return min(self.wanted.trained) if cached else 1

    def _prefix(self, start: int, stop: int) -> Passes:
        tokens = self.rows["train"].tokens + self.rows["validation"].tokens
        return Passes(tokens=tokens, layer_tokens=tokens * (stop - start + 1))

    def _train(
        self, steps: Sequence[tuple[int, float]], first: int, last: int, trains: int, number: int
    ) -> Passes:
        wanted, tokens = self.wanted, sum(tokens for tokens, _ in steps)
        optim = wanted.config.optim
        again = wanted.config.objective.get("balance") == "auto" and wanted.micro < optim.batch_size
        times = 2 if again else 1
        answers = sum(answers for _, answers in steps)
        readers = len([name for name in wanted.output_terms if name != "OutputCosine"])
        reads = answers * readers if last == wanted.student.layers else 0
        fisher = [own for name, own in wanted.layer_terms if name == "Fisher"]
        reads += sum((tokens if own["positions"] == "all" else answers) * 1.5 * number for own in fisher)
        return Passes(
            tokens=tokens * times,
            layer_tokens=tokens * (last - first + 1) * times,
            back=tokens * (last - trains + 1),
            trained=tokens * number if wanted.full else 0,
            read=reads * (1 + times),
            taught=tokens * times if wanted.teaches else 0,
        )

    def _validate(self, first: int, times: int) -> Passes:
        own = self.rows["validation"]
        tokens = own.tokens * times
        readers = 2 + len(self.wanted.output_terms)
        return Passes(
            tokens=tokens,
            layer_tokens=tokens * (self.wanted.student.layers - first + 1),
            read=own.positions("answer") * times * readers,
            taught=tokens if self.wanted.teaches else 0,
        )

    def _refit(self, times: int, deepest: int) -> Passes:
        tokens = self.rows["align"].tokens * times
        return Passes(tokens=tokens, layer_tokens=tokens * deepest)


def _epoch(rows: Rows, optim: OptimConfig, seed: int, epoch: int) -> Iterator[tuple[int, float]]:
    """Yield tokens and answer positions of every batch of an epoch, in the order of the training."""
    if len(set(rows.lengths)) == 1:
        tokens = optim.tokens_per_batch
        size = optim.batch_size if tokens is None else max(1, tokens // rows.lengths[0])
        for start in range(0, len(rows), size):
            count = min(size, len(rows) - start)
            yield count * rows.lengths[0], count * rows.answers[0]
        return
    from pkt.data.batching import epoch_batches  # imports torch, which a request with rows of its own has

    for batch in epoch_batches(
        rows.lengths, optim.batch_size, seed=seed, epoch=epoch, tokens=optim.tokens_per_batch
    ):
        yield sum(rows.lengths[row] for row in batch), sum(rows.answers[row] for row in batch)
