"""The numbers of `pkt analyze` against slow textbook references."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict

import pytest
import torch
from torch.nn import functional

from pkt.analysis.attribution import interface_scores, rank_correlation
from pkt.analysis.resolution import random_recomposition, recomposed_share, recomposition, resolution
from pkt.analysis.rows import first_per_task, over_rows
from pkt.attribution import REDUCTIONS, layer_attribution
from pkt.attribution.similarity import compare_layers
from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, tap
from pkt.semantics import Cosine, HeadView, Procrustes, Ridge, quality_card
from pkt.stages.analyze_maps import map_cards
from tiny import tiny_model

VOCABULARY, PADDING = 96, 5  # the textbook loops over the vocabulary


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(*sizes, seed=0):
    """Rows of (prompt, answer) lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, VOCABULARY - PADDING, (p + a,), generator=generator).tolist() for p, a in sizes]
    return Encoded(input_ids=ids, prompt_lengths=[p for p, _ in sizes])


ROWS = rows((5, 2), (9, 4), (3, 1), (8, 6))


def states_of(arch, encoded, interface, positions):
    """Row -> layer -> (n, D), one row at a time, so that nothing is padded."""
    found = []
    for ids, prompt in zip(encoded.input_ids, encoded.prompt_lengths, strict=True):
        with torch.no_grad(), tap(arch, range(1, arch.depth + 1), interface) as states:
            decode(arch, torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))
        span = slice(None) if positions == "all" else slice(prompt - 1, len(ids) - 1)
        found.append([states[layer][0, span].double() for layer in range(1, arch.depth + 1)])
    return found


def directions(weight, side):
    """s_i by row: rows of the pseudoinverse's transpose, or the rows themselves, at length 1."""
    full = weight.double()
    vectors = torch.linalg.pinv(full, rtol=1e-5).T if side == "output" else full
    return [v / v.norm() for v in vectors if v.norm() > 0]


def textbook_resolution(state, vectors):
    """cosine(sum of the projections onto every direction, r), and the sum's relative length."""
    total = torch.zeros_like(state)
    for vector in vectors:
        total += (state @ vector) * vector
    return float(total @ state / (total.norm() * state.norm())), float(total.norm() / state.norm())


def padded(model):
    """Zero the head's last rows, as of tokens that were never trained."""
    with torch.no_grad():
        model.get_output_embeddings().weight[-PADDING:] = 0
    return model


@pytest.mark.parametrize(
    ("family", "interface", "positions", "changes"),
    [
        ("llama", "block", "all", {}),
        ("qwen3", "mlp", "answer", {"tied": True}),
        ("gemma3_text", "residual", "all", {"tied": True}),
        ("gpt2", "attention", "all", {"tied": True}),
    ],
)
def test_resolution_equals_the_loop_over_the_vocabulary(family, interface, positions, changes):
    model = padded(tiny_model(family, vocab=VOCABULARY, depth=2, width=16, **changes))
    arch = Architecture.of(model)
    weights = {"output": arch.head_weight().detach(), "input": arch.embedding_weight().detach()}
    bases = {side: recomposition(weight, side) for side, weight in weights.items()}
    states = states_of(arch, ROWS, interface, positions)
    for batch_size in (1, 4):
        found = resolution(arch, ROWS, bases, interface=interface, positions=positions, batch_size=batch_size)
        for side, weight in weights.items():
            vectors = directions(weight, side)
            wanted = torch.tensor(
                [
                    [
                        [statistics.fmean(column) for column in zip(*numbers, strict=True)]
                        for numbers in ([textbook_resolution(r, vectors) for r in layer] for layer in row)
                    ]
                    for row in states
                ],
                dtype=torch.float64,
            )
            torch.testing.assert_close(found[side].cosine_RL, wanted[..., 0], rtol=0, atol=2e-4)
            torch.testing.assert_close(found[side].stretch_RL, wanted[..., 1], rtol=1e-3, atol=0)


def test_rank_condition_and_exact_recomposition_of_a_deficient_head():
    weight = draw(60, 5) @ draw(5, 12, seed=1)
    for side in ("output", "input"):
        basis = recomposition(weight, side)
        stacked = torch.stack(directions(weight, side))
        values = torch.linalg.svdvals(stacked)[:5].square()
        torch.testing.assert_close(basis.matrix_DD, stacked.T @ stacked, rtol=1e-7, atol=1e-9)
        assert (basis.rank, basis.size) == (5, 60)
        assert basis.condition == pytest.approx(float(values[0] / values[-1]), rel=1e-6)
        assert basis.lowest == 0.0  # a state may lie outside what the basis spans
        projected = basis.frame_Dr @ basis.frame_Dr.T
        torch.testing.assert_close(projected, torch.linalg.pinv(stacked) @ stacked, rtol=0, atol=1e-8)


def test_lowest_cosine_is_reached_and_never_passed():
    basis = recomposition(draw(40, 6), "output")
    values, vectors = torch.linalg.eigh(basis.matrix_DD)
    worst = values[-1].sqrt() * vectors[:, 0] + values[0].sqrt() * vectors[:, -1]
    states = torch.cat([worst[None], draw(500, 6, seed=3)])
    cosines = functional.cosine_similarity(states @ basis.matrix_DD, states)
    assert float(cosines[0]) == pytest.approx(basis.lowest)
    assert float(cosines.min()) >= basis.lowest - 1e-12


def test_typical_cosine_is_that_of_a_random_state():
    for seed in range(2):
        basis = recomposition(draw(900, 300, seed=seed) @ draw(300, 300, seed=5), ("output", "input")[seed])
        states = draw(2000, 300, seed=7)
        cosine = functional.cosine_similarity(states @ basis.matrix_DD, states).mean()
        assert basis.typical == pytest.approx(float(cosine), abs=0.01)
    assert random_recomposition(3000, 300).typical == pytest.approx(1 / math.sqrt(1 + 300 / 3000), abs=2e-3)


def test_many_random_directions_keep_a_direction_and_few_do_not():
    state = draw(20, 16)
    many, few = (random_recomposition(size, 16).matrix_DD for size in (20_000, 20))
    cosines = [functional.cosine_similarity(state @ matrix, state).mean() for matrix in (many, few)]
    assert cosines[0] > 0.99 > 0.9 > cosines[1]
    torch.testing.assert_close(many.trace(), torch.tensor(20_000.0, dtype=torch.float64))
    assert torch.equal(few, random_recomposition(20, 16).matrix_DD)
    assert not torch.equal(few, random_recomposition(20, 16, seed=1).matrix_DD)


def test_resolution_in_bfloat16_and_of_one_row():
    arch = Architecture.of(tiny_model(vocab=VOCABULARY, depth=2, width=16))
    bases = {"output": recomposition(arch.head_weight().detach(), "output")}
    whole = resolution(arch, rows((4, 3)), bases, interface="block")["output"]
    half = Architecture.of(arch.model.bfloat16())
    got = resolution(half, rows((4, 3)), bases, interface="block")["output"]
    torch.testing.assert_close(got.cosine_RL, whole.cosine_RL, rtol=0, atol=0.02)
    torch.testing.assert_close(got.exact_RL, torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=1e-6)
    assert over_rows(got.cosine_RL)[1] is None


def test_a_zero_state_points_nowhere():
    basis = recomposition(draw(20, 4), "output")
    got = recomposed_share(torch.zeros(2, 4), basis.matrix_DD.float(), basis.frame_Dr.float())
    assert torch.equal(got, torch.zeros(3, 2))


def textbook_cka(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), HSIC(K, L) = tr(K H L H), H = I - 11^T / N."""
    centring = torch.eye(len(x), dtype=torch.float64) - 1 / len(x)
    k, m = (centring @ side @ side.T @ centring for side in (x, y))
    return float((k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt())


@pytest.mark.parametrize("widths", [(32, 16), (16, 32)])
def test_cka_of_three_models_equals_the_textbook(widths):
    sizes = {"vocab": VOCABULARY, "width": widths[1], "depth": 2}
    models = {
        "teacher": Architecture.of(tiny_model("qwen3", vocab=VOCABULARY, width=widths[0], depth=3)),
        "student": Architecture.of(tiny_model("gemma3_text", seed=1, tied=True, **sizes)),
        "transferred": Architecture.of(tiny_model("gemma3_text", seed=2, tied=True, **sizes)),
    }
    states = {
        role: [torch.cat(layer) for layer in zip(*states_of(arch, ROWS, "block", "all"), strict=True)]
        for role, arch in models.items()
    }
    for first, second in (("student", "student"), ("teacher", "student"), ("teacher", "transferred")):
        compared = compare_layers(models[first], models[second], ROWS, interface="block", batch_size=3)
        wanted = [[textbook_cka(x, y) for y in states[second]] for x in states[first]]
        wanted = torch.tensor(wanted, dtype=torch.float64)
        torch.testing.assert_close(compared.cka_LL, wanted, rtol=1e-4, atol=1e-5)
        assert compared.positions == sum(ROWS.lengths)


@pytest.mark.parametrize("memory", [1 << 30, 8 * 4 * 13**2], ids=["moments", "grams"])
def test_chance_is_the_mean_over_shuffled_positions(memory):
    teacher, student = (
        Architecture.of(tiny_model(vocab=VOCABULARY, width=16, depth=2, seed=seed)) for seed in (1, 2)
    )
    encoded = rows((4, 3), (3, 3))
    found = compare_layers(teacher, student, encoded, interface="mlp", memory=memory)
    assert found.positions == 13
    whole = compare_layers(teacher, student, encoded, interface="mlp")
    torch.testing.assert_close(found.cka_LL, whole.cka_LL, rtol=1e-5, atol=1e-6)
    x, y = (
        torch.cat([row[1] for row in states_of(arch, encoded, "mlp", "all")]) for arch in (teacher, student)
    )
    generator = torch.Generator().manual_seed(0)
    drawn = [textbook_cka(x, y[torch.randperm(13, generator=generator)]) for _ in range(2000)]
    error = statistics.stdev(drawn) / math.sqrt(len(drawn))
    assert float(found.chance_LL[1, 1]) == pytest.approx(statistics.fmean(drawn), abs=5 * error)
    assert float(found.chance_LL[1, 1]) > 0.1


def by_hand(model, arch, encoded, row, interface):
    """g h of every layer of one row, from the whole model's logits."""
    batch = collate(encoded, [row])
    with tap(arch, range(1, arch.depth + 1), interface, retain_grad=True) as states:
        logits = model(input_ids=batch.input_ids).logits[0]
    at = batch.supervised[0].nonzero()[:, 0]
    functional.cross_entropy(logits[at], batch.input_ids[0, at + 1]).backward()
    return [(states[layer].grad * states[layer]).detach().double() for layer in range(1, arch.depth + 1)]


READINGS = {
    "example": lambda product: product.sum().abs(),
    "signed": lambda product: product.sum(),
    "abs": lambda product: product.abs().sum(),
    "l2": lambda product: product.norm(),
}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_attribution_per_row_equals_one_row_at_a_time(family):
    model = tiny_model(family, vocab=VOCABULARY, depth=2, width=16)
    arch = Architecture.of(model)
    found = interface_scores(arch, ROWS, batch_size=2)
    order = sorted(range(len(ROWS.lengths)), key=lambda row: (-ROWS.lengths[row], row))
    assert set(found) == set(Interface)
    for interface, by_reduce in found.items():
        assert set(by_reduce) == set(REDUCTIONS) == set(READINGS)
        for place, row in enumerate(order):
            for layer, product in enumerate(by_hand(model, arch, ROWS, row, interface)):
                for reduce, reading in READINGS.items():
                    got = float(by_reduce[reduce][place, layer])
                    assert got == pytest.approx(float(reading(product)), rel=1e-3, abs=1e-5)
        for reduce, values_RL in by_reduce.items():
            wanted = layer_attribution(arch, [collate(ROWS, range(4))], interface, reduce=reduce)
            torch.testing.assert_close(values_RL.mean(0), wanted, rtol=1e-3, atol=1e-5)


def test_a_norm_hides_the_last_block_from_signed_attribution():
    """What the final RMSNorm reads has no length for the loss, so that g . h = 0 there; not so below."""
    arch = Architecture.of(tiny_model(vocab=VOCABULARY, depth=2, width=16))
    found = interface_scores(arch, ROWS)
    last = {reduce: values_RL[:, 1] for reduce, values_RL in found["block"].items()}
    assert bool((last["example"] < 1e-4 * last["abs"]).all())
    assert bool((found["block"]["example"][:, 0] > 1e-3 * found["block"]["abs"][:, 0]).any())
    assert float(found["mlp"]["example"][:, 1].max()) > 0.01
    with pytest.raises(RequestError, match="no rows"):
        interface_scores(arch, rows())


def mean_ranks(values):
    """Each value's rank from 1, ties at their mean rank."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def test_rank_correlation_is_pearsons_over_mean_ranks():
    for seed in range(3):
        x, y = draw(9, seed=seed).round(decimals=0).tolist(), draw(9, seed=seed + 10).tolist()
        assert rank_correlation(x, y) == pytest.approx(statistics.correlation(mean_ranks(x), mean_ranks(y)))
    assert rank_correlation([1, 2, 3], [5.0, 9.0, 70.0]) == pytest.approx(1)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1], [2]) is None


def view(vocabulary, width, seed):
    return HeadView(weight=draw(vocabulary, width, seed=seed).float())


@pytest.mark.parametrize(("wide_T", "wide_S"), [(12, 6), (6, 12)])
def test_maps_are_measured_on_rows_that_they_never_saw(wide_T, wide_S):
    teacher, student = view(50, wide_T, 1), view(50, wide_S, 2)
    true = draw(wide_T, wide_S, seed=3)

    def paired(count, seed):
        x = draw(count, wide_T, seed=seed)
        return x.float(), (x @ true + 2 * draw(count, wide_S, seed=seed + 50)).float()

    fitting, held_out = paired(8, 4), paired(400, 5)
    maps = {"cosine": Cosine(), "ridge": Ridge(alpha=1e-6), "procrustes": Procrustes()}
    views = {"teacher": teacher, "student": student}
    constant = {}
    both = {"fitted": fitting, "held_out": held_out}
    cards = map_cards(maps, constant, **views, states=both, read_out=None)
    assert set(constant) == {"cosine"}
    assert map_cards(maps, constant, **views, states=both, read_out=None) == cards
    fitted = maps["ridge"].fit(teacher=teacher, student=student, states=fitting)
    x, y = (side.double() for side in held_out)
    error = (fitted(x).double() - y).square().sum() / (y - y.mean(0)).square().sum()
    explained = {side: card["explained_variance"] for side, card in cards["ridge"].items()}
    assert explained["held_out"] == pytest.approx(1 - float(error), abs=1e-5)
    assert explained["fitted"] > explained["held_out"] + 0.1
    for name, card in cards.items():
        own = maps[name].fit(teacher=teacher, student=student, states=fitting)
        assert card["fitted"] == asdict(quality_card(own, *fitting))
        assert card["held_out"] == asdict(quality_card(own, *held_out))
        assert (card["fitted"]["positions"], card["held_out"]["positions"]) == (8, 400)


def test_rows_per_task():
    ids = ["a/1", "b/1", "a/2", "a/3", "b/2", "c.d", "e/f"]
    assert first_per_task(ids, ["a", "b"], 2) == [0, 1, 2, 4, 5, 6]
    assert first_per_task(ids, ["a"], 2) == [0, 1]
    assert first_per_task(ids, ["a", "b"], 99) == list(range(7))
    ids = ["lab/x/1", "lab/y/1", "lab/x/2", "lab/y/2", "lab/3"]
    assert first_per_task(ids, ["lab/x", "lab/y", "lab"], 1) == [0, 1, 4]
    few = ROWS.select([2, 0])
    assert few.lengths == [4, 7]
    assert few.prompt_lengths == [3, 5]


def test_mean_and_standard_error_over_rows():
    values = draw(7, 3)
    means, errors = over_rows(values)
    for layer, column in enumerate(values.T.tolist()):
        assert means[layer] == pytest.approx(statistics.fmean(column))
        assert errors[layer] == pytest.approx(statistics.stdev(column) / math.sqrt(7))
    assert over_rows(values[:1])[1] is None
