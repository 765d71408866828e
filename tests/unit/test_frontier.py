"""The frontier against a textbook one; what runs, how often, and what stays as trained."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from cases import mostly_slow
from pkt.config import Config, OptimConfig
from pkt.data.batching import epoch_batches
from pkt.data.encoding import Encoded
from pkt.mapping import LayerPair
from pkt.methods.base import Choice
from pkt.methods.frontier import Frontier, tune_frontier
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.semalign import SemAlign
from pkt.methods.tuning import tune
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, tap
from pkt.objectives import MeanSquare
from pkt.training.capture import capture
from pkt.training.passes import Read
from pkt.training.schedule import schedule
from pkt.training.trainable import Update
from terms import objective
from textbook.training import same_moves
from tiny import tiny_model

FULL = Update(kind="full")
PAIRS = {1: 2, 2: 5}  # student layer -> teacher layer: layer 3 of 4 never trains
MATRIX = torch.randn(32, 48, generator=torch.Generator().manual_seed(3)) / 7
OPTIM = {"lr": 3e-3, "epochs": 2, "batch_size": 6, "validate_every": 0}
CE = objective(cosine={}, ce={"weight": 0.5})
KL = objective(
    mean_square={"positions": "answer"},
    kl={"weight": 0.7, "teacher": "live", "top_k": None, "temperature": 2.0},
    ce={"weight": 0.3},
)
LAST = Frontier(output_at="last", last_layer_term=False)


def rows(count: int, seed: int) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(6, 14, (count,), generator=generator).tolist()
    ids = [torch.randint(3, 320, (length,), generator=generator).tolist() for length in lengths]
    return Encoded(input_ids=ids, prompt_lengths=[length // 2 for length in lengths])


def bench_of(family, objective, *, dtype=torch.float32, count=18, **optim) -> Workbench:
    """A workbench around two models in memory."""
    teacher = tiny_model(family, depth=6, width=48, seed=1)
    student = tiny_model(family, depth=4, width=32, seed=2, tied=family == "qwen3").to(dtype)
    bench = Workbench(
        config=Config(optim=OptimConfig(**OPTIM | optim)),
        mapping=None,
        semantics=None,
        objective=objective,
        cache_dir=None,
    )
    for role, model in (("teacher", teacher), ("student", student)):
        bench.__dict__[role] = SimpleNamespace(model=model, arch=Architecture.of(model))
    bench.__dict__["pair_report"] = SimpleNamespace(
        **dict.fromkeys(("teacher_ids", "student_ids"), torch.arange(320))
    )
    bench.__dict__["one_vocabulary"] = True
    bench._encoded |= {"train": rows(count, 4), "validation": rows(5, 5)}
    return bench


def alignment_of(bench: Workbench, pairs: dict[int, int]) -> LayerAlignment:
    reads = {k: Read(layers=(t,), width=32, map=lambda h: h @ MATRIX.T) for k, t in pairs.items()}
    positions = bench.objective.positions
    targets = {
        split: capture(
            bench.teacher.arch,
            bench.encoded(split),
            reads,
            interface=Interface.block,
            positions=positions,
            batch_size=4,
        )
        for split in ("train", "validation")
    }
    layer_pairs = tuple(LayerPair(student=k, teacher=(t,)) for k, t in pairs.items())
    return LayerAlignment(pairs=layer_pairs, interface="block", positions=positions, targets=targets)


def tuned(bench, frontier, *, pairs=PAIRS, cache_prefix=True, update=FULL):
    """Run pkt's frontier; returns the metrics of every step, and what it left."""
    steps: list[dict[str, float]] = []
    bench.log = lambda _step, metrics: steps.append(metrics)
    transferred = tune_frontier(
        bench, alignment_of(bench, pairs), frontier, update=update, cache_prefix=cache_prefix, snapshots=None
    )
    return steps, transferred


def textbook(bench, frontier):
    """One layer after the other: the whole student and the live teacher at every step, plain logits."""
    arch, teacher, objective = bench.student.arch, bench.teacher.arch, bench.objective
    optim, encoded = bench.config.optim, bench.encoded("train")
    layers, depth = sorted({*PAIRS, arch.depth}), arch.depth
    flat = [
        rows
        for e in range(optim.epochs)
        for rows in epoch_batches(encoded.lengths, optim.batch_size, seed=0, epoch=e)
    ]
    found = []
    for i, k in enumerate(layers):
        own = list(arch.layer(k).parameters())
        optimiser = torch.optim.AdamW(own, lr=optim.lr, weight_decay=0.0)
        with_layer = k in PAIRS and (k != depth or frontier.last_layer_term)
        with_output = k == depth or frontier.output_at == "all" or not with_layer
        stage = flat[len(flat) * i // len(layers) : len(flat) * (i + 1) // len(layers)]
        for step, chosen in enumerate(stage, start=1):
            optimiser.param_groups[0]["lr"] = optim.lr * schedule(step, len(stage), optim)
            metrics = {}
            loss = torch.zeros(())
            if with_layer:
                metrics["loss_layer"] = _layer_term(arch, teacher, encoded, chosen, objective, k)
                loss = loss + objective.terms["layer"].weight * metrics["loss_layer"]
            if with_output:
                outputs = _output_terms(arch, teacher, encoded, chosen, objective)
                loss = loss + sum(objective.terms[name].weight * value for name, value in outputs.items())
                metrics |= {f"loss_{name}": value for name, value in outputs.items()}
            arch.model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(own, optim.max_grad_norm)
            optimiser.step()
            found.append({name: float(value.detach()) for name, value in metrics.items()} | {"frontier": k})
    return found


def _layer_term(arch, teacher, encoded, chosen, objective, k):
    """Row after row, without padding."""
    distances = []
    for r in chosen:
        ids = torch.tensor([encoded.input_ids[r]])
        with torch.no_grad(), tap(teacher, [PAIRS[k]], Interface.block) as theirs:
            teacher.model(input_ids=ids)
        with tap(arch, [k], Interface.block) as own:
            arch.model(input_ids=ids)
        first, end = (
            (encoded.prompt_lengths[r] - 1, -1)
            if objective.terms["layer"].positions == "answer"
            else (0, None)
        )
        state, target = own[k][0, first:end], theirs[PAIRS[k]][0, first:end] @ MATRIX.T
        if isinstance(objective.terms["layer"], MeanSquare):
            distances.append((state - target).square().mean(-1))
        else:
            distances.append(1 - functional.cosine_similarity(state, target, dim=-1))
    return torch.cat(distances).mean()


def _output_terms(arch, teacher, encoded, chosen, objective):
    losses = {name: [] for name in objective.output_terms}
    for r in chosen:
        ids, prompt = torch.tensor([encoded.input_ids[r]]), encoded.prompt_lengths[r]
        logits = arch.model(input_ids=ids).logits[0, prompt - 1 : -1]
        losses["ce"].append(functional.cross_entropy(logits, ids[0, prompt:], reduction="none"))
        if "kl" in losses:
            tau = objective.terms["kl"].temperature
            with torch.no_grad():
                p = (teacher.model(input_ids=ids).logits[0, prompt - 1 : -1] / tau).softmax(-1)
            losses["kl"].append(tau**2 * (p * (p.log() - (logits / tau).log_softmax(-1))).sum(-1))
    return {name: torch.cat(values).mean() for name, values in losses.items()}


def compare(steps, expected, tolerance):
    assert len(steps) == len(expected)
    for got, want in zip(steps, expected, strict=True):
        names = {name for name in got if name.startswith("loss_")}
        assert names == {name for name in want if name.startswith("loss_")}
        assert got["frontier"] == want["frontier"]
        for name in names:
            assert got[name] == pytest.approx(want[name], abs=tolerance, rel=tolerance)


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize(
    "family", mostly_slow(["llama", "qwen3", "gemma3_text"], lambda family: family == "gemma3_text")
)
@pytest.mark.parametrize(("objective", "frontier"), [(CE, LAST), (KL, Frontier()), (CE, Frontier())])
def test_cached_and_uncached_frontier_equal_the_textbook_one(family, objective, frontier):
    whole, cached, plain = (bench_of(family, objective, lr=0.1) for _ in range(3))
    before = {name: value.clone() for name, value in whole.student.model.state_dict().items()}
    expected = textbook(whole, frontier)
    reference = whole.student.model.state_dict()
    for bench, cache_prefix in ((cached, True), (plain, False)):
        compare(tuned(bench, frontier, cache_prefix=cache_prefix)[0], expected, 1e-5)
        same_moves(bench.student.model.state_dict(), reference, before)
        own = bench.student.model.state_dict().items()
        moved = {name for name, value in own if not torch.equal(value, before[name])}
        # and neither embedding, norm nor head
        assert {name.split(".")[2] for name in moved} == {"0", "1", "3"}


def test_each_stage_begins_with_fresh_moments():
    """Losses only: what AdamW makes of a gradient that is rounding moves weights, and hardly a loss."""
    expected = textbook(bench_of("llama", CE), LAST)
    compare(tuned(bench_of("llama", CE), LAST)[0], expected, 1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "float32"), (torch.float32, "bfloat16")])
def test_the_prefix_is_that_of_training_in_bfloat16(family, dtype, precision):
    """Each prefix passes a layer whose weights train in float32 inside a bfloat16 student."""
    runs = [
        tuned(bench_of(family, CE, dtype=dtype, precision=precision), Frontier(), cache_prefix=cached)[0]
        for cached in (True, False)
    ]
    compare(*runs, 2e-3)


@pytest.mark.parametrize(
    ("frontier", "cache_prefix", "expected"),
    [
        (LAST, True, {1: 2, 2: 2, 3: 0, 4: 2}),  # its own block, and nothing else
        (LAST, False, {1: 6, 2: 4, 3: 2, 4: 2}),
        (Frontier(), True, {1: 2, 2: 4, 3: 4, 4: 6}),
        (Frontier(), False, {1: 6, 2: 6, 3: 6, 4: 6}),
    ],
)
def test_a_stage_runs_no_more_layers_than_its_terms_need(frontier, cache_prefix, expected):
    bench, calls = bench_of("llama", CE), dict.fromkeys(range(1, 5), 0)

    def count(layer: int) -> None:
        if torch.is_grad_enabled():  # neither validation nor a prefix
            calls[layer] += 1

    for layer in calls:
        bench.student.arch.layer(layer).register_forward_hook(lambda *_, k=layer: count(k))
    tuned(bench, frontier, cache_prefix=cache_prefix)
    assert calls == expected


def test_a_prefix_runs_each_layer_once_per_row():
    bench = bench_of("llama", CE)
    train, validation = (sum(bench.encoded(split).lengths) for split in ("train", "validation"))
    _, transferred = tuned(bench, LAST)
    trained = 2 * train  # two epochs, one block a step
    checked = validation * (4 + 3 + 1)  # a validation reads the output too
    prefixes = (train + validation) * (1 + 2)  # through layer 1, then through 2 and 3
    assert transferred.budget["student_layer_tokens"] == trained + checked + prefixes


@pytest.mark.parametrize(("count", "epochs"), [(18, 2), (20, 3), (6, 2), (6, 1), (18, 0)])
@pytest.mark.parametrize("cache_prefix", [True, False])
def test_all_stages_together_take_the_steps_of_a_joint_training(count, epochs, cache_prefix):
    bench = bench_of("llama", CE, count=count, epochs=epochs)
    log: list[int] = []
    alignment = alignment_of(bench, PAIRS)
    bench.log = lambda step, _metrics: log.append(step)
    transferred = tune_frontier(
        bench, alignment, LAST, update=FULL, cache_prefix=cache_prefix, snapshots=None
    )
    joint = sum(
        len(epoch_batches(bench.encoded("train").lengths, 6, seed=0, epoch=epoch)) for epoch in range(epochs)
    )
    assert log == list(range(1, joint + 1))
    assert transferred.history.steps == transferred.budget["optimiser_steps"] == joint
    ends = [entry["step"] for entry in transferred.history.validations]
    assert ends == sorted(
        {joint * i // 3 for i in (1, 2, 3)} - {0}
    )  # one at the end of each stage with steps
    assert transferred.layers == (1, 2, 4)


@pytest.mark.parametrize("update", [FULL, Update(rank=4, dropout=0.2)])
def test_layers_below_the_frontier_stay_as_trained(update):
    bench = bench_of("llama", CE)
    arch, last = bench.student.arch, {}
    alignment = alignment_of(bench, PAIRS)

    def remember(_step, metrics) -> None:
        k = int(metrics["frontier"])
        last[k] = {n: p.detach().clone() for n, p in arch.layer(k).named_parameters()}

    bench.log = remember
    transferred = tune_frontier(bench, alignment, Frontier(), update=update, snapshots=None)
    assert sorted(last) == [1, 2, 4]
    for k, values in last.items():
        for name, parameter in arch.layer(k).named_parameters():
            assert torch.equal(parameter, values[name]), (k, name)
    untouched = tiny_model("llama", depth=4, width=32, seed=2).state_dict()
    for name, value in transferred.trainable.merged().state_dict().items():
        if ".layers." not in name or ".layers.2." in name:
            assert torch.equal(value, untouched[name]), name


@pytest.mark.parametrize(
    ("frontier", "last", "paired", "terms"),
    [
        (Frontier(), False, True, ["layer", "ce"]),
        (Frontier(), True, True, ["layer", "ce"]),
        (Frontier(last_layer_term=False), True, True, ["ce"]),
        (Frontier(output_at="last"), False, True, ["layer"]),
        (Frontier(output_at="last"), True, True, ["layer", "ce"]),
        (LAST, True, False, ["ce"]),
        (Frontier(output_at="last"), False, False, ["ce"]),  # something has to train it
    ],
)
def test_terms_of_a_stage(frontier, last, paired, terms):
    assert list(frontier.objective(CE, last=last, paired=paired).terms) == terms


def test_without_output_terms_the_frontier_is_the_pairs():
    layer = objective(cosine={})
    assert list(LAST.objective(layer, last=True, paired=True).terms) == ["layer"]
    _, transferred = tuned(bench_of("llama", layer), LAST)
    assert transferred.layers == (1, 2)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_embeddings_that_train_change_what_enters_the_layers(family):
    """Nothing of them may be computed once, though no layer below the first that trains does."""
    update, left = Update(rank=4, targets=["embed", "up"]), []
    for cache_prefix in (True, False):
        bench = bench_of(family, CE)
        alignment = alignment_of(bench, {4: 5})
        found = tune(bench, alignment, update=update, layers=[4], cache_prefix=cache_prefix, snapshots=None)
        left.append({name: value.detach().clone() for name, value in found.trainable.parameters.items()})
    for name, value in left[0].items():
        torch.testing.assert_close(value, left[1][name], rtol=0, atol=0)
    assert max(float(value.abs().max()) for name, value in left[0].items() if "lora_embedding_A" in name) > 0


@pytest.mark.parametrize("roles", [["embed"], ["head"], ["embed", "head"]])
def test_a_frontier_refuses_to_train_what_no_layer_has(roles):
    choice = Choice(mapping=None, semantics=None, objective=CE)
    frontier, joint = (
        SemAlign(name="s", schedule=schedule, update=Update(targets=[*roles, "up"]))
        for schedule in ("frontier", "joint")
    )
    assert f"{' and '.join(roles)} of method.update.targets is in none" in frontier.refusal(choice)
    assert joint.refusal(choice) is None
