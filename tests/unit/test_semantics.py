"""Maps through the vocabulary against dense pseudoinverses, and the map object itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from pkt.build import build
from pkt.config_files import read_option
from pkt.errors import PktError, RequestError
from pkt.saving import load, save
from pkt.semantics import (
    AlignmentMap,
    Basis,
    Cosine,
    HeadView,
    Input,
    Procrustes,
    RandomMap,
    Ridge,
    Semantics,
    alignment_matrix,
    closed_form,
    factorise,
    gram,
    refits,
    trains,
)
from textbook.maps import recomposed, textbook_basis, textbook_map, unit

CONF = Path(__file__).resolve().parents[2] / "conf" / "semantics"
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # of M, whose entries are about 1
VOCABULARY = 60


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(width, seed):
    """Heads of every shape that models have, by name."""
    full = draw(VOCABULARY, width, seed=seed)
    untrained, repeated, deficient = full.clone(), full.clone(), full.clone()
    untrained[[3, 17]] = 0
    repeated[30:] = full[:30]
    deficient[:, -2:] = full[:, :2] @ draw(2, 2, seed=seed + 9)
    return {
        "full": full,
        "untrained rows": untrained,
        "padded": torch.cat([full, torch.zeros(4, width, dtype=torch.float64)]),
        "repeated rows": repeated,
        "rank deficient": deficient,
        "fewer tokens than channels": full[: width - 2],
        "badly scaled": full * torch.logspace(0, -3, width, dtype=torch.float64),
    }


def view(weight, **fields):
    return HeadView(weight=weight, **fields)


@pytest.mark.parametrize("widths", [(12, 7), (7, 12), (9, 9), (5, 2)], ids=str)
@pytest.mark.parametrize("kind", [name for name in heads(9, 0) if name != "fewer tokens than channels"])
def test_cosine_map_equals_the_dense_pseudoinverse(kind, widths):
    teacher, student = heads(widths[0], 1)[kind], heads(widths[1], 2)[kind if widths[1] > 4 else "full"]
    fitted = Cosine().fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(fitted.weight.double(), textbook_map(teacher, student), **TOLERANCE)
    states = draw(6, widths[0], seed=3)
    expected = recomposed(states, textbook_basis(teacher), textbook_basis(student))
    torch.testing.assert_close(fitted(states), expected.float(), **TOLERANCE)


def test_cosine_map_of_a_head_with_fewer_tokens_than_channels():
    teacher, student = draw(10, 12, seed=1), draw(10, 7, seed=2)
    fitted = Cosine().fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(fitted.weight.double(), textbook_map(teacher, student), **TOLERANCE)
    assert fitted.info["rank_teacher"] == 10


@pytest.mark.parametrize(
    "kinds", [("padded", "full"), ("full", "padded"), ("rank deficient", "padded")], ids=str
)
def test_heads_may_differ_in_kind(kinds):
    teacher, student = heads(12, 1)[kinds[0]], heads(7, 2)[kinds[1]]
    fitted = Cosine().fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(fitted.weight.double(), textbook_map(teacher, student), **TOLERANCE)
    assert fitted.info["anchors"] == VOCABULARY


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cosine_map_of_stored_heads(dtype):
    teacher, student = draw(VOCABULARY, 12, seed=1).to(dtype), draw(VOCABULARY, 7, seed=2).to(dtype)
    fitted = Cosine().fit(teacher=view(teacher), student=view(student))
    expected = textbook_map(teacher.double(), student.double())
    torch.testing.assert_close(fitted.weight.double(), expected, **TOLERANCE)
    fast = Cosine(precision="float32").fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(fast.weight.double(), expected, **TOLERANCE)


def test_trainable_heads_leave_no_graph():
    weight = draw(VOCABULARY, 7).requires_grad_()
    for strategy in (Cosine(fold_norm=True), Input(), RandomMap()):
        norm = torch.ones(7, requires_grad=True) + 0.0
        fitted = strategy.fit(
            teacher=view(weight, embedding=weight, norm=norm),
            student=view(weight, embedding=weight, norm=norm),
        )
        assert not fitted.weight.requires_grad


@pytest.mark.parametrize("block", [1, 7, 60, 1000])
def test_blocks_do_not_matter(block, monkeypatch):
    monkeypatch.setattr("pkt.semantics.basis.BLOCK", block)
    teacher, student = heads(12, 1)["untrained rows"], heads(7, 2)["untrained rows"]
    torch.testing.assert_close(gram(teacher), teacher.T @ teacher)
    bases = [Basis(weight_VD=w, factor=factorise(gram(w), 1e-10)) for w in (student, teacher)]
    matrix = alignment_matrix(bases[0], bases[1])
    torch.testing.assert_close(matrix, textbook_map(teacher, student), rtol=1e-9, atol=1e-9)


def test_repeating_a_vocabulary_changes_nothing_but_the_scale():
    teacher, student = draw(30, 12, seed=1), draw(30, 7, seed=2)
    once = Cosine().fit(teacher=view(teacher), student=view(student)).weight
    twice = Cosine().fit(teacher=view(teacher.repeat(2, 1)), student=view(student.repeat(2, 1))).weight
    torch.testing.assert_close(twice, 2 * once)


def test_scale_of_a_head_does_not_matter():
    teacher, student = draw(30, 12, seed=1), draw(30, 7, seed=2)
    plain = Cosine().fit(teacher=view(teacher), student=view(student)).weight
    scaled = Cosine().fit(teacher=view(1e-4 * teacher), student=view(1e3 * student)).weight
    torch.testing.assert_close(scaled, plain)


def test_rotating_the_spaces_rotates_the_map():
    teacher, student = draw(40, 12, seed=1), draw(40, 7, seed=2)
    left, right = (torch.linalg.qr(draw(width, width, seed=width))[0] for width in (7, 12))
    plain = Cosine().fit(teacher=view(teacher), student=view(student)).weight.double()
    turned = Cosine().fit(teacher=view(teacher @ right.T), student=view(student @ left.T)).weight.double()
    torch.testing.assert_close(turned, left @ plain @ right.T, **TOLERANCE)


def test_fold_norm_is_the_map_of_the_scaled_heads():
    teacher, student = draw(40, 12, seed=1), draw(40, 7, seed=2)
    norms = draw(12, seed=3).abs() + 0.1, draw(7, seed=4).abs() + 0.1
    folded = Cosine(fold_norm=True).fit(
        teacher=view(teacher, norm=norms[0]), student=view(student, norm=norms[1])
    )
    expected = textbook_map(teacher * norms[0], student * norms[1])
    torch.testing.assert_close(folded.weight.double(), expected, **TOLERANCE)
    without = Cosine().fit(teacher=view(teacher, norm=norms[0]), student=view(student, norm=norms[1]))
    torch.testing.assert_close(without.weight.double(), textbook_map(teacher, student), **TOLERANCE)
    nothing = Cosine(fold_norm=True).fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(nothing.weight, without.weight)


@pytest.mark.parametrize("strategy", [Cosine(anchors="shared"), Input(anchors="shared")])
def test_shared_anchors_are_paired_by_position(strategy):
    teacher, student = draw(40, 12, seed=1), draw(50, 7, seed=2)
    ids = torch.tensor([4, 0, 39]), torch.tensor([49, 7, 1])
    fitted = strategy.fit(
        teacher=view(teacher, embedding=teacher, shared=ids[0]),
        student=view(student, embedding=student, shared=ids[1]),
    )
    basis = textbook_basis if isinstance(strategy, Cosine) else unit
    expected = basis(student)[ids[1]].T @ basis(teacher)[ids[0]]
    torch.testing.assert_close(fitted.weight.double(), expected, **TOLERANCE)
    assert fitted.info["anchors"] == 3


def test_input_map_uses_embedding_rows_as_they_are():
    teacher, student = heads(12, 1)["untrained rows"], heads(7, 2)["padded"]
    fitted = Input().fit(
        teacher=view(draw(60, 12, seed=7), embedding=teacher), student=view(student, embedding=student)
    )
    expected = unit(student)[:VOCABULARY].T @ unit(teacher)
    torch.testing.assert_close(fitted.weight.double(), expected, **TOLERANCE)


def test_random_map_has_the_norm_of_the_cosine_map():
    teacher, student = view(draw(40, 12, seed=1)), view(draw(40, 7, seed=2))
    cosine = Cosine().fit(teacher=teacher, student=student)
    drawn = RandomMap(seed=5).fit(teacher=teacher, student=student)
    torch.testing.assert_close(drawn.weight.norm(), cosine.weight.norm())
    assert drawn.normalise
    assert torch.equal(drawn.weight, RandomMap(seed=5).fit(teacher=teacher, student=student).weight)
    assert not torch.allclose(drawn.weight, RandomMap(seed=6).fit(teacher=teacher, student=student).weight)


def test_info_counts_ranks():
    teacher, student = heads(12, 1)["rank deficient"], heads(7, 2)["full"]
    info = Cosine().fit(teacher=view(teacher), student=view(student)).info
    assert (info["rank_teacher"], info["width_teacher"]) == (10, 12)
    assert (info["rank_student"], info["width_student"]) == (7, 7)
    singular = torch.linalg.svdvals(student)
    assert info["condition_student"] == pytest.approx(float(singular[0] / singular[-1]))


@pytest.mark.parametrize("kind", heads(9, 0))
def test_inverse_of_a_factor_is_the_pseudoinverse(kind):
    weight = heads(9, 1)[kind]
    factor = factorise(gram(weight), 1e-10)
    inverse, rank = factor.inverse, factor.rank
    assert rank == torch.linalg.matrix_rank(weight, rtol=1e-5)
    torch.testing.assert_close(
        inverse, torch.linalg.pinv(weight.T @ weight, rtol=1e-10), rtol=1e-6, atol=1e-6
    )


def test_tokens_outside_the_kept_subspace_contribute_nothing():
    weight = draw(40, 6, seed=1)
    weight[:, 5] = 0
    weight[0] = torch.tensor([0, 0, 0, 0, 0, 1e-9], dtype=torch.float64)  # only in the direction that is cut
    fitted = Cosine().fit(teacher=view(weight), student=view(weight))
    weight[0] = 0
    torch.testing.assert_close(fitted.weight, Cosine().fit(teacher=view(weight), student=view(weight)).weight)


def test_unusable_heads():
    good, zero, bad = draw(10, 4), torch.zeros(10, 4), draw(10, 4)
    bad[2, 2] = float("nan")
    with pytest.raises(PktError, match="every row of an LM head is zero"):
        Cosine().fit(teacher=view(zero), student=view(good))
    with pytest.raises(PktError, match="NaN or infinity"):
        Cosine().fit(teacher=view(good), student=view(bad))


@pytest.mark.parametrize(
    ("strategy", "field", "value", "allowed"),
    [
        ("Cosine", "anchors", "some", "all, shared"),
        ("Cosine", "precision", "float16", "float64, float32"),
        ("Input", "anchors", "al", r"all, shared \(did you mean 'all'\?\)"),
        ("LogitLstsq", "anchors", "some", "all, shared"),
    ],
)
def test_unknown_choices_are_refused(strategy, field, value, allowed):
    node = OmegaConf.create({"_target_": f"pkt.semantics.{strategy}", field: value})
    with pytest.raises(RequestError, match=f"{field}: got '{value}'; allowed: {allowed}"):
        build(node)


def test_strategy_refusals():
    head = view(draw(10, 4))
    with pytest.raises(RequestError, match="anchors=shared needs the tokens"):
        Cosine(anchors="shared").fit(teacher=head, student=head)
    for sizes in ((2, 3), (0, 0)):
        shared = [view(draw(10, 4), shared=torch.arange(size)) for size in sizes]
        with pytest.raises(RequestError, match="equally long and not empty"):
            Cosine(anchors="shared").fit(teacher=shared[0], student=shared[1])
    with pytest.raises(RequestError, match="reads both models' embeddings"):
        Input().fit(teacher=head, student=head)
    for rcond, bound in ((-1e-3, "from 0"), (1.0, "below 1")):
        with pytest.raises(ValueError, match=f"rcond is a number {bound}, got {rcond}"):
            Cosine(rcond=rcond)


def test_map_applies_mean_length_and_bias():
    weight, bias, mean = draw(3, 5).float(), draw(3, seed=1).float(), draw(5, seed=2).float()
    states = draw(2, 4, 5, seed=3).float()
    shifted = states - mean
    expected = (shifted / shifted.norm(dim=-1, keepdim=True)) @ weight.T + bias
    whole = AlignmentMap(weight=weight, bias=bias, mean=mean, normalise=True)
    torch.testing.assert_close(whole(states), expected)
    torch.testing.assert_close(AlignmentMap(weight=weight)(states), states @ weight.T)


def test_map_of_extreme_states():
    fitted = AlignmentMap(weight=draw(3, 5).float(), normalise=True)
    assert torch.equal(fitted(torch.zeros(1, 5)), torch.zeros(1, 3))
    half = draw(4, 5, seed=1).bfloat16()
    assert fitted(half).dtype == torch.float32
    torch.testing.assert_close(fitted(half), fitted(half.float()))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fitted(half), fitted(half.float()), rtol=0, atol=0)
    torch.testing.assert_close(fitted(half.float() * 1e3), fitted(half.float()))


@pytest.mark.parametrize("with_vectors", [True, False])
def test_map_survives_storage(with_vectors, tmp_path):
    vectors = {"bias": draw(3).float(), "mean": draw(5).float()} if with_vectors else {}
    whole = AlignmentMap(weight=draw(3, 5).float(), **vectors, name="ridge", info={"rank": 3})
    save(whole, tmp_path / "map.json")
    read = load(AlignmentMap, tmp_path / "map.json")
    assert (read.name, read.normalise, read.info) == ("ridge", False, {"rank": 3})
    states = draw(4, 5).float()
    assert torch.equal(read(states), whole(states))


def test_map_refusals():
    with pytest.raises(ValueError, match="bias has shape"):
        AlignmentMap(weight=torch.zeros(3, 5), bias=torch.zeros(5))
    with pytest.raises(ValueError, match="mean has shape"):
        AlignmentMap(weight=torch.zeros(3, 5), mean=torch.zeros(3))
    with pytest.raises(ValueError, match="the map reads 5 channels, got 3"):
        AlignmentMap(weight=torch.zeros(3, 5))(torch.zeros(2, 3))


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_option_builds(path):
    node = read_option(path.stem, {each.stem: each for each in CONF.glob("*.yaml")})
    strategy = build(OmegaConf.create({"seed": 0, "semantics": node}).semantics, Semantics)
    named = path.stem.removesuffix("_refit").removesuffix("_trained")
    assert (refits(strategy) != "never") == path.stem.endswith("_refit")
    assert trains(strategy) == path.stem.endswith("_trained")
    strategy = closed_form(strategy)
    assert type(strategy).__name__.lower().removesuffix("map") == named.replace("_", "")
    assert strategy.needs_states == isinstance(strategy, (Ridge, Procrustes))
    assert strategy == type(strategy)()  # the YAML repeats the defaults
