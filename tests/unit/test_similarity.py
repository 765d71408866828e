"""Linear CKA against its textbook form with centring matrices, and its matrix over all layers."""

from __future__ import annotations

import pytest
import torch

from pkt.attribution.similarity import Grams, Moments, compare_layers
from pkt.data.encoding import Encoded
from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from tiny import tiny_model

SIZES = [(40, 5, 8), (40, 8, 5), (6, 9, 20), (6, 20, 9), (2, 3, 3)]  # N, D, E


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def textbook_cka(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with HSIC(K, L) = tr(K H L H), H = I - 11^T / N."""
    x, y, n = x.double(), y.double(), len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    k, other = x @ x.T, y @ y.T

    def hsic(a, b):
        return torch.trace(a @ h @ b @ h)

    return float(hsic(k, other) / (hsic(k, k) * hsic(other, other)).sqrt())


def related(n, width_x, width_y):
    x = draw(n, width_x) * torch.logspace(0, -2, width_x, dtype=torch.float64) + 3
    return x, x @ draw(width_x, width_y, seed=1) + draw(n, width_y, seed=2) - 5


def cka(form, x, y, parts=1):
    """Linear CKA of two sets of states in one of the two forms, given part by part."""
    sums = form()
    for x_part, y_part in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        sums.add(x_part[None], y_part[None])
    return float(sums.similarity()[0])


@pytest.mark.parametrize("form", [Moments, Grams])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_both_forms_equal_the_textbook(sizes, form):
    x, y = related(*sizes)
    assert cka(form, x, y) == pytest.approx(textbook_cka(x, y), rel=1e-9)
    assert cka(form, x, y, parts=2) == pytest.approx(cka(form, x, y), rel=1e-9)
    assert cka(form, y, x) == pytest.approx(cka(form, x, y), rel=1e-12)
    assert cka(form, x, x) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("form", [Moments, Grams])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_rotation_scale_and_offset_do_not_matter(sizes, form):
    x, y = related(*sizes)
    turn = torch.linalg.qr(draw(sizes[1], sizes[1], seed=3))[0]
    moved = 7 * x @ turn + draw(sizes[1], seed=4)
    assert cka(form, moved, y) == pytest.approx(cka(form, x, y), rel=1e-9)
    stretched = x * torch.logspace(0, 3, sizes[1], dtype=torch.float64)  # not isotropic: it does matter
    assert sizes[0] == 2 or cka(form, stretched, y) != pytest.approx(cka(form, x, y), rel=1e-3)


@pytest.mark.parametrize("form", [Moments, Grams])
def test_what_does_not_vary_is_like_nothing(form):
    x = draw(30, 4)
    assert cka(form, torch.full((30, 3), 0.1), x) == 0.0
    assert cka(form, x[:1], x[:1]) == 0.0
    assert 0 < cka(form, x.bfloat16(), x.bfloat16() * 2) <= 1 + 1e-12


def layer_similarity(*args, **options):
    return compare_layers(*args, **options).cka_LL


def rows(*sizes, seed=0):
    """Rows of (prompt, answer) lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, 300, (p + a,), generator=generator).tolist() for p, a in sizes]
    return Encoded(input_ids=ids, prompt_lengths=[p for p, _ in sizes])


ROWS = rows((5, 2), (9, 4), (3, 1), (8, 6), (4, 4))


def states(arch, encoded, layer, interface, positions):
    """All positions of the split in the order of its rows, one row at a time, without taps."""
    parts = []
    for ids, prompt in zip(encoded.input_ids, encoded.prompt_lengths, strict=True):
        with torch.no_grad():
            hidden = arch.model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        entering, out = hidden[layer - 1][0], hidden[layer][0]
        if layer == arch.depth:  # the last of hidden_states is normed
            kept = []
            handle = arch.layer(layer).register_forward_hook(lambda _m, _a, o, kept=kept: kept.append(o))
            with torch.no_grad():
                arch.model.model(torch.tensor([ids]))
            handle.remove()
            out = (kept[0][0] if isinstance(kept[0], tuple) else kept[0]).reshape(out.shape)
        state = out if interface == "block" else out - entering
        parts.append(state if positions == "all" else state[prompt - 1 : len(ids) - 1])
    return torch.cat(parts)


def textbook_matrix(teacher, student, encoded, interface, positions, chosen=slice(None)):
    sides = [
        [states(arch, encoded, k, interface, positions)[chosen] for k in range(1, arch.depth + 1)]
        for arch in (teacher, student)
    ]
    return torch.tensor([[textbook_cka(x, y) for y in sides[1]] for x in sides[0]], dtype=torch.float64)


def pair(**changes):
    teacher = tiny_model(depth=3, width=48, **changes)
    return Architecture.of(teacher), Architecture.of(tiny_model(depth=2, width=16, seed=1, **changes))


@pytest.mark.parametrize("memory", [1 << 30, 90_000], ids=["moments", "grams"])
@pytest.mark.parametrize("positions", ["all", "answer"])
@pytest.mark.parametrize("interface", ["block", "residual"])
def test_matrix_equals_the_textbook(interface, positions, memory):
    for teacher, student in (pair(), pair(tied=True)[::-1]):
        expected = textbook_matrix(teacher, student, ROWS, interface, positions)
        for batch_size in (1, 2, 9):
            got = layer_similarity(
                teacher,
                student,
                ROWS,
                interface=interface,
                positions=positions,
                batch_size=batch_size,
                memory=memory,
            )
            assert got.shape == (teacher.depth, student.depth)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_batches_do_not_matter_to_the_last_digits():
    teacher, student = pair()
    one, many = (
        layer_similarity(teacher, student, ROWS, interface="mlp", batch_size=size) for size in (1, 5)
    )
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


def test_positions_are_spread_where_memory_is_short():
    teacher, student = pair()
    total = sum(ROWS.lengths)
    kept = 20  # memory for as many as Gram matrices: 8 bytes, 5 layers, 20 x 20
    chosen = torch.arange(kept) * total // kept
    expected = textbook_matrix(teacher, student, ROWS, "block", "all", chosen)
    for batch_size in (1, 3):
        got = layer_similarity(
            teacher, student, ROWS, interface="block", batch_size=batch_size, memory=8 * 5 * kept**2
        )
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", [1 << 30, 90_000], ids=["moments", "grams"])
def test_matrix_in_bfloat16_and_of_a_layer_that_does_nothing(memory):
    teacher, student = pair()
    whole = layer_similarity(teacher, student, ROWS, interface="block")
    with torch.no_grad():
        teacher.layer(2).mlp.down_proj.weight.zero_()
    mlp = layer_similarity(teacher, student, ROWS, interface="mlp", memory=memory)
    assert mlp[1].tolist() == [0.0, 0.0]
    assert bool((mlp[[0, 2]] > 0).all())
    teacher, student = pair()
    half = [Architecture.of(arch.model.bfloat16()) for arch in (teacher, student)]
    got = layer_similarity(*half, ROWS, interface="block", memory=memory)
    torch.testing.assert_close(got, whole, rtol=0.05, atol=0.05)


def test_the_same_model_is_alike_on_the_diagonal():
    teacher, _ = pair()
    got = layer_similarity(teacher, teacher, ROWS, interface="mlp")
    torch.testing.assert_close(got.diagonal(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(got, got.T)


def test_one_row_and_progress():
    heard = []
    got = layer_similarity(
        *pair(), rows((4, 3)), interface="block", listen=lambda count, tokens: heard.append((count, tokens))
    )
    assert heard == [(1, 7)]
    assert torch.isfinite(got).all()
    with pytest.raises(RequestError, match="the split has none"):
        layer_similarity(*pair(), rows(), interface="block")


@pytest.mark.parametrize("memory", [1 << 30, 90_000], ids=["moments", "grams"])
def test_positions_with_massive_activations_are_not_compared(memory):
    teacher, student = pair()
    with torch.no_grad():
        teacher.embedding_weight()[301] *= 1e3  # one token's states are long from there on
    ids = [list(row) for row in ROWS.input_ids]
    ids[1][3], ids[4][0] = 301, 301
    encoded = Encoded(input_ids=ids, prompt_lengths=ROWS.prompt_lengths)
    at, told = [7 + 3, 7 + 13 + 4 + 14], []
    ordinary = [i for i in range(46) if i not in at]
    got = compare_layers(
        teacher, student, encoded, interface="block", batch_size=2, memory=memory,
        listen=lambda rows, tokens: told.append((rows, tokens)),
    )  # fmt: skip
    assert (got.positions, got.left_out) == (44, 2)
    expected = textbook_matrix(teacher, student, encoded, "block", "all", ordinary)
    torch.testing.assert_close(got.cka_LL, expected, rtol=1e-4, atol=1e-5)
    assert sum(rows for rows, _ in told) == 5  # both readings cost tokens, and rows are told once
    assert sum(tokens for _, tokens in told) == 2 * 46
    every = compare_layers(teacher, student, encoded, interface="block", memory=memory, massive=None)
    assert (every.positions, every.left_out) == (46, 0)
    whole = textbook_matrix(teacher, student, encoded, "block", "all")
    torch.testing.assert_close(every.cka_LL, whole, rtol=1e-4, atol=1e-5)
    assert float((whole - expected).abs().max()) > 0.05
