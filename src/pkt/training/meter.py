"""Count what a run costs, so that methods can be compared at equal budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from pkt.processes import Processes


@dataclass(kw_only=True)
class Meter:
    """Forward work of one model, padding left out.

    Attributes:
        forward_tokens: tokens that went through it, whatever share of its layers ran.
        layer_tokens: tokens times the layers that ran on them: what a cached prefix or a frontier saves.
    """

    forward_tokens: int = 0
    layer_tokens: int = 0

    def count(self, tokens: int, *, layers: int) -> None:
        """Add one forward pass of `tokens` tokens through `layers` layers."""
        self.forward_tokens += tokens
        self.layer_tokens += tokens * layers

    def restore(self, counted: Mapping[str, int]) -> None:
        """Go on from what an earlier process had counted (`dataclasses.asdict` of its meter)."""
        self.forward_tokens, self.layer_tokens = counted["forward_tokens"], counted["layer_tokens"]


@contextmanager
def counted_together(meters: Sequence[Meter], processes: Processes) -> Iterator[None]:
    """Let every process's meters count what all of them do in the block."""
    before = [asdict(meter) for meter in meters]
    yield
    if processes.count == 1:
        return
    added = {
        f"{i}.{name}": float(now - before[i][name])
        for i, meter in enumerate(meters)
        for name, now in asdict(meter).items()
    }
    summed = processes.total(added)
    for i, meter in enumerate(meters):
        meter.restore({name: value + int(summed[f"{i}.{name}"]) for name, value in before[i].items()})
