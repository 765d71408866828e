"""A step for which memory runs out: the same step with fewer rows at a time, told once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pkt.config import OptimConfig
from pkt.data.batching import Batch, collate
from pkt.data.encoding import Encoded
from pkt.errors import PktError
from pkt.training.loop import Trainer
from pkt.training.meter import Meter

F64 = torch.float64


class Hungry:
    """A loss for which more than some rows at a time are too many; the gradient of a mean over rows."""

    def __init__(self, weight: nn.Parameter, most: int) -> None:
        self.weight, self.most, self.seen = weight, most, []

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"loss_a": len(batch.index)}

    def weights(self, values):
        return dict.fromkeys(values, 1.0)

    def __call__(self, batch: Batch):
        self.seen.append(len(batch.index))
        if len(batch.index) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows = torch.tensor(batch.index, dtype=F64)
        return {"loss_a": ((rows[:, None] - self.weight) ** 2).sum()}


def hungry(most: int, micro: int | None = None, **more):
    weight = nn.Parameter(torch.linspace(-1, 1, 5, dtype=F64))
    loss, steps = Hungry(weight, most), []
    meter = Meter()
    Trainer(
        loss=loss,
        parameters={"weight": weight},
        plan=[[[0, 3, 1, 2, 5, 4, 7], [6, 2, 1, 9, 8, 4, 3]]],
        collate=lambda rows: collate(Encoded(input_ids=[[3, 4]] * 10, prompt_lengths=[1] * 10), rows),
        optim=OptimConfig(lr=0.1, epochs=1, batch_size=7, micro_batch_size=micro),
        listen=lambda _step, metrics: steps.append(metrics),
        meters=(meter,),
        **more,
    ).fit()
    return weight.detach(), steps, loss.seen


def test_a_step_for_which_memory_runs_out_is_done_with_half_the_rows_at_a_time(capsys):
    weight, steps, _ = hungry(99)
    halved, again, seen = hungry(2)
    torch.testing.assert_close(halved, weight)
    for one, other in zip(steps, again, strict=True):
        assert other == pytest.approx(one)
    assert seen == [7, 3, 1, 1, 1, 1, 1, 1, 1] + [1] * 7  # 7 // 2 is 3, and that is too many as well
    told = capsys.readouterr().err
    assert told.count("memory ran out with 7 rows at a time: from here on 3") == 1
    assert told.count("memory ran out with 3 rows at a time: from here on 1") == 1


def test_memory_that_one_row_is_too_much_for_is_one_message():
    with pytest.raises(PktError, match=r"with 1 rows at a time .*optim.checkpointing=true"):
        hungry(0)
    with pytest.raises(PktError, match=r"with 7 rows at a time .*or optim.batch_size"):
        hungry(2, inseparable=True)


def test_with_dropout_fewer_rows_at_a_time_are_another_training():
    """Its masks are drawn for the rows that go together, so that the result would not be the one of its key."""
    with pytest.raises(PktError, match=r"with 7 rows at a time .*, optim.micro_batch_size, or train"):
        hungry(2, masked=True)
