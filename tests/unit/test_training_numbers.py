"""Numbers that are not finite in training: never the best, never kept, and one error that names the term."""

from __future__ import annotations

import math

import pytest
import torch
from test_training_loop import trainer
from torch import nn

from pkt import sweeps
from pkt.attribution.neurons import best
from pkt.attribution.windows import cut
from pkt.data.encoding import Encoded
from pkt.errors import PktError
from pkt.evaluation.statistics import Estimate
from pkt.mapping import Cka, Critical, Monotone, top_layers
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.reporting.gaps import Share
from pkt.stages.report import _objective as objective
from pkt.sweeps import checked_objective
from pkt.training.capture import capture, capture_all
from pkt.training.passes import Pass, Read, ReadOut
from pkt.training.snapshot import load_snapshot
from tiny import tiny_model

F64 = torch.float64


def fit(values: list[float], **optim: object) -> tuple[int | None, torch.Tensor, list[torch.Tensor]]:
    """Train with these validation cross-entropies; the best step, the weights, and those after each epoch."""
    weight, seen = nn.Parameter(torch.zeros(5, dtype=F64)), []
    left = iter(values)

    def validate() -> dict[str, float]:
        seen.append(weight.detach().clone())
        return {"cross_entropy": next(left)}

    history = trainer(weight, validate=validate, **optim).fit()
    return history.best_step, weight.detach(), seen


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([math.nan, 2.0, 1.0, math.nan], 2),
        ([math.nan, math.nan, math.nan, 5.0], 3),
        ([1.0, math.nan, 0.5, math.nan], 2),
        ([math.inf, 3.0, math.nan, -math.inf], 1),
        ([3.0, math.nan, math.nan, math.nan], 0),
    ],
)
def test_what_is_not_a_number_is_never_the_best(values, best):
    step, weight, seen = fit(values, keep="best")
    assert step == 3 * (best + 1)
    assert torch.equal(weight, seen[best])


def test_nothing_to_choose_from_is_one_error():
    with pytest.raises(PktError, match=r"no validation .*finite cross-entropy.*keep=best"):
        fit([math.nan, math.inf, math.nan, math.nan], keep="best")
    assert fit([math.nan] * 4)[0] is None  # nothing is chosen with keep=last


@pytest.mark.parametrize("saved", [True, False])
def test_weights_that_are_not_finite_are_neither_kept_nor_saved(tmp_path, saved):
    weight, steps = nn.Parameter(torch.zeros(5, dtype=F64)), []

    def spoil_the_last() -> None:
        steps.append(1)
        if len(steps) == 3:
            with torch.no_grad():
                weight[2] = math.inf

    spoiled = trainer(weight, tmp=tmp_path if saved else None, epochs=1)
    spoiled.finish_step = spoil_the_last
    with pytest.raises(PktError, match=r"weights of weight are NaN or infinite after optimiser step 3"):
        spoiled.fit()
    if saved:
        snapshot = load_snapshot(tmp_path, {"parameter:weight": weight.data})
        assert snapshot is not None
        assert snapshot.state["step"] == 2
        assert all(value.isfinite().all() for value in snapshot.tensors.values())


def test_states_and_outputs_that_are_not_finite_are_told_where_they_arise():
    arch = Architecture.of(tiny_model("llama", seed=2))
    encoded = Encoded(input_ids=[[3, 4, 5, 6], [7, 8, 9]], prompt_lengths=[2, 1])
    asked = {1: Read(layers=(2,), width=32)}
    options = {"interface": Interface.block, "positions": "all", "batch_size": 2}
    capture(arch, encoded, asked, **options)
    with torch.no_grad():
        arch.embedding_weight()[8] = math.inf
    with pytest.raises(PktError, match=r"states of layer 2 are NaN or infinite \(rows \[0, 1\]"):
        capture(arch, encoded, asked, **options)
    wanted = Pass(arch=arch, encoded=encoded, outputs=ReadOut(shared=torch.arange(320), top_k=4))
    with pytest.raises(PktError, match="next-token distributions are not numbers"):
        capture_all(wanted, batch_size=2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_choice_is_made_among_scores_that_are_not_numbers(bad):
    scores = torch.rand(6, 6)
    scores[2, 3] = bad
    for structure in ("window", "rows_columns", "random"):
        with pytest.raises(ValueError, match="NaN or infinite"):
            cut(scores, (2, 2), structure=structure)
    with pytest.raises(ValueError, match="NaN or infinite"):
        best(scores[2], 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        top_layers(scores[2].tolist(), 2)
    alike = torch.rand(3, 2)
    alike[1, 1] = bad
    for mapping in (Cka(), Cka(monotone=True), Monotone()):
        with pytest.raises(PktError, match="NaN or infinite"):
            mapping.pairs(3, 2, [1.0, 2.0, 3.0], alike.tolist())
    for mapping in (Critical(), Monotone(similarity="one")):
        with pytest.raises(PktError, match="NaN or infinite"):
            mapping.pairs(3, 2, [1.0, bad, 3.0])


def test_a_sweeper_is_never_given_what_is_not_a_number(monkeypatch):
    assert checked_objective(math.nan) is not None  # without a sweeper that learns, nothing is chosen
    monkeypatch.setattr(sweeps, "_optimiser", lambda: "OptunaSweeper")
    assert checked_objective(0.25) == 0.25
    for measured in (math.nan, math.inf, -math.inf):
        with pytest.raises(PktError, match="score of this job is not a number"):
            checked_objective(measured)


def test_a_score_that_is_not_a_number_is_not_hidden_by_the_other_tasks():
    share = Share(estimate=Estimate(value=0.9, stderr=0.1), interval=None)
    good = {"a": {"value": 0.5}, "b": {"value": 0.4}}
    bad = {"a": {"value": 0.5}, "b": {"value": math.nan}}
    assert objective({"scores": {"teacher": good, "transferred": good}}, share) == 0.9
    assert math.isnan(objective({"scores": {"teacher": good, "transferred": bad}}, share))
