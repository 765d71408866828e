"""Loss terms against their definitions in float64 and against dense autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from pkt.build import build
from pkt.errors import RequestError
from pkt.objectives import Cosine, CrossEntropy, Divergence, Geometry, Objective, OutputCosine
from pkt.objectives.cross_entropy import cross_entropy_sum
from pkt.objectives.output_cosine import dense_output_cosine_sum, output_cosine_sum
from terms import mean_of, objective

CONF = Path(__file__).resolve().parents[2] / "conf" / "term"
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def cosine_distance(states, targets):
    return mean_of(Cosine(), states, targets)


def output_cosine(states, labels, weight, gram):
    return output_cosine_sum(states, labels, weight, gram) / len(labels)


def output_cosine_dense(states, labels, read_out, **chunk):
    return dense_output_cosine_sum(states, labels, read_out, **chunk) / len(labels)


def cross_entropy(states, labels, read_out, **chunk):
    return cross_entropy_sum(states, labels, read_out, **chunk) / len(labels)


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def problem(n=13, width=8, vocab=21, seed=0):
    labels = torch.randint(vocab, (n,), generator=torch.Generator().manual_seed(seed))
    return draw(n, width, seed=seed).requires_grad_(), labels, draw(vocab, width, seed=seed + 1)


def value_and_gradient(loss, states):
    (gradient,) = torch.autograd.grad(loss, states)
    return loss.detach(), gradient


def dense_output_cosine(states, labels, read_out):
    logits = read_out(states.double())
    onehot = functional.one_hot(labels, logits.shape[-1]).double()
    return 1 - functional.cosine_similarity(logits, onehot, dim=-1).mean()


def heads():
    weight = draw(21, 8, seed=5)
    deficient = weight.clone()
    deficient[:, 4:] = weight[:, :4]  # rank 4 of 8
    return {
        "full": weight,
        "deficient": deficient,
        "padded": torch.cat([weight, torch.zeros(11, 8)]),
        "fewer tokens than channels": weight[:5],
    }


@pytest.mark.parametrize("n", [1, 13])
def test_cosine_distance(n):
    states, targets = draw(n, 8).requires_grad_(), draw(n, 8, seed=1)
    unit = states.double() / states.double().norm(dim=-1, keepdim=True)
    reference = 1 - (unit * targets.double() / targets.double().norm(dim=-1, keepdim=True)).sum(-1).mean()
    expected = value_and_gradient(reference, states)
    got = value_and_gradient(cosine_distance(states, targets), states)
    torch.testing.assert_close(got[0], expected[0].float(), **CLOSE)
    torch.testing.assert_close(got[1], expected[1], **CLOSE)


def test_cosine_distance_extremes():
    states = draw(4, 8)
    torch.testing.assert_close(cosine_distance(states, 3 * states), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine_distance(states, -states), torch.tensor(2.0), **CLOSE)
    zero = torch.zeros(4, 8, requires_grad=True)
    loss, gradient = value_and_gradient(cosine_distance(zero, states), zero)
    assert loss == 1.0
    assert gradient.isfinite().all()


def test_bfloat16_states_have_float32_statistics():
    states, labels, weight = problem()
    half = states.detach().bfloat16()
    weight = weight.bfloat16().float()
    gram = weight.T @ weight
    torch.testing.assert_close(cosine_distance(half, weight[:13]), cosine_distance(half.float(), weight[:13]))
    expected = output_cosine(half.float(), labels, weight, gram)
    assert output_cosine(half, labels, weight.bfloat16(), gram).dtype == torch.float32
    torch.testing.assert_close(output_cosine(half, labels, weight.bfloat16(), gram), expected)


@pytest.mark.parametrize("name", heads())
@pytest.mark.parametrize("n", [1, 13])
def test_output_cosine_needs_no_logits(name, n):
    weight = heads()[name]
    states = draw(n, 8, seed=3).requires_grad_()
    labels = torch.arange(n) % 5
    expected = value_and_gradient(
        dense_output_cosine(states, labels, lambda h: h @ weight.double().T), states
    )
    got = value_and_gradient(output_cosine(states, labels, weight, weight.T @ weight), states)
    torch.testing.assert_close(got[0], expected[0].float(), **CLOSE)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-5)


def test_output_cosine_where_the_logits_vanish():
    weight = torch.cat([draw(21, 4), torch.zeros(21, 4)], dim=1)
    states = torch.cat([torch.zeros(3, 4), draw(3, 4)], dim=1).requires_grad_()  # in the null space of W
    loss, gradient = value_and_gradient(
        output_cosine(states, torch.tensor([0, 1, 2]), weight, weight.T @ weight), states
    )
    assert loss == 1.0
    assert gradient.isfinite().all()
    loss = output_cosine(states, torch.tensor([0, 1, 2]), weight, weight.T @ weight - 1e-9 * torch.eye(8))
    assert loss.isfinite()  # round-off may make h^T G h negative


def test_output_cosine_ignores_autocast():
    states, labels, weight = problem()
    gram = weight.T @ weight
    expected = output_cosine(states, labels, weight, gram)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(output_cosine(states, labels, weight, gram), expected, rtol=0, atol=0)


READ_OUTS = {
    "linear": lambda weight: lambda h: h @ weight.to(h.dtype).T,
    "bias": lambda weight: lambda h: h @ weight.to(h.dtype).T + weight[:, 0].to(h.dtype),
    "softcap": lambda weight: lambda h: 2 * torch.tanh(h @ weight.to(h.dtype).T / 2),
}


@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
@pytest.mark.parametrize("kind", READ_OUTS)
def test_chunked_terms_equal_the_dense_ones(kind, chunk):
    states, labels, weight = problem()
    read_out = READ_OUTS[kind](weight)
    for term, dense in (
        (cross_entropy, lambda: functional.cross_entropy(read_out(states.double()), labels)),
        (output_cosine_dense, lambda: dense_output_cosine(states, labels, read_out)),
    ):
        expected = value_and_gradient(dense(), states)
        got = value_and_gradient(term(states, labels, read_out, chunk=chunk), states)
        torch.testing.assert_close(got[0], expected[0].float(), **CLOSE)
        torch.testing.assert_close(got[1], expected[1], **CLOSE)


def test_chunked_terms_train_the_head_too():
    states, labels, weight = problem()
    weight.requires_grad_()
    dense = torch.autograd.grad(functional.cross_entropy(states @ weight.T, labels), weight)
    chunked = torch.autograd.grad(cross_entropy(states, labels, lambda h: h @ weight.T, chunk=4), weight)
    torch.testing.assert_close(chunked, dense, **CLOSE)


def test_linear_dense_equals_vocabulary_free():
    states, labels, weight = problem()
    dense = output_cosine_dense(states, labels, lambda h: h @ weight.T, chunk=4)
    torch.testing.assert_close(output_cosine(states, labels, weight, weight.T @ weight), dense, **CLOSE)


class Widest(TorchDispatchMode):
    """Remembers the most rows of any V-wide tensor."""

    def __init__(self, vocab):
        super().__init__()
        self.vocab, self.rows = vocab, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dim() == 2 and tensor.shape[1] == self.vocab:
                self.rows = max(self.rows, tensor.shape[0])
        return out


@pytest.mark.parametrize("term", [cross_entropy, output_cosine_dense])
def test_no_more_than_a_chunk_is_vocabulary_wide(term):
    states, labels, weight = problem()
    saved = []

    def keep(tensor):
        if tensor.dim() == 2 and tensor.shape[1] == 21 and tensor.shape[0] != 8:
            saved.append(tensor)
        return tensor

    with Widest(21) as seen:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = term(states, labels, lambda h: h @ weight.T, chunk=4)
        assert not saved  # nothing V-wide waits for the backward pass
        loss.backward()
    assert seen.rows in (4, 8)  # 8: the transposed head itself


def test_terms_run_without_autograd():
    states, labels, weight = problem()
    with torch.no_grad():
        loss = cross_entropy(states, labels, lambda h: h @ weight.T, chunk=4)
    torch.testing.assert_close(loss, functional.cross_entropy(states @ weight.T, labels).detach(), **CLOSE)


def test_term_refusals():
    states, labels, weight = problem()
    with pytest.raises(ValueError, match="differ in shape"):
        cosine_distance(states, states[:1])
    with pytest.raises(ValueError, match="at least one position"):
        cosine_distance(states[:0], states[:0])
    with pytest.raises(ValueError, match="one label per state"):
        output_cosine(states, labels[:2], weight, weight.T @ weight)
    with pytest.raises(ValueError, match="at least one position"):
        cross_entropy(states[:0], labels[:0], lambda h: h @ weight.T)
    with pytest.raises(ValueError, match="one label per state"):
        cross_entropy(states, labels[:, None], lambda h: h @ weight.T)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        output_cosine_dense(states, labels, lambda h: h @ weight.T, chunk=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(weight=0.0), "weight is a number above 0, got 0.0"),
        (lambda: OutputCosine(weight=-1.0), "weight is a number above 0, got -1.0"),
        (lambda: CrossEntropy(weight=float("nan")), "weight is a number above 0, got nan"),
        (lambda: Divergence(temperature=0.0), "temperature is a number above 0, got 0.0"),
        (lambda: Divergence(top_k=0), "top_k is a number from 1, got 0"),
        (lambda: Geometry(positions="answer"), r"set positions=all \(or scope=batch\)"),
        (lambda: Objective(terms={}), "leaves nothing to train on"),
        (lambda: Objective(terms={"x": 3}), "terms.x is no term: 3"),
        (lambda: objective("auto", ce={}), "one kind is missing; got ce"),
        (lambda: objective("auto", cosine={}), "one kind is missing; got layer"),
        (
            lambda: Objective(terms={"a": Divergence(), "b": Divergence(temperature=1.0)}),
            "give them one temperature, top_k and teacher",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_term_s_file_names_what_its_class_reads_with_the_same_defaults(path):
    node = OmegaConf.load(path)
    term = build(node)
    assert term == type(term)()
    assert set(node) - {"_target_"} == set(vars(term))


def test_a_wrong_choice_is_refused_by_name():
    terms = {"layer": OmegaConf.load(CONF / "cosine.yaml")}
    root = OmegaConf.create({"objective": {"_target_": "pkt.objectives.Objective", "terms": terms}})
    node = root.objective
    assert build(node) == Objective(terms={"layer": Cosine()})
    node.terms.layer.positions = "prompt"
    with pytest.raises(
        RequestError, match=r"objective\.terms\.layer\.positions: got 'prompt'; allowed: answer, all"
    ):
        build(node)
    node.terms.layer = {"_target_": "pkt.mapping.Depth"}
    with pytest.raises(RequestError, match=r"terms\.layer is no term"):
        build(node)


def test_balance_brings_layer_terms_to_the_size_of_the_output_terms():
    auto = objective("auto", cosine={"weight": 3.0}, kl={"weight": 0.5}, ce={"weight": 2.0})
    values = {"layer": torch.tensor(4.0), "kl": torch.tensor(6.0), "ce": torch.tensor(0.5)}
    weights = auto.weights(values)
    assert weights == {"layer": 3.0 * (0.5 * 6.0 + 2.0 * 0.5) / 4.0, "kl": 0.5, "ce": 2.0}
    assert auto.weights({"layer": torch.tensor(4.0)})["layer"] == 3.0  # nothing to compare with in this step
    assert auto.weights(values | {"layer": torch.tensor(0.0)})["layer"] == 3.0
    plain = objective(cosine={"weight": 3.0}, ce={})
    assert plain.weights(values) == {"layer": 3.0, "ce": 1.0}
