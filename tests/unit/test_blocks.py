"""pkt.blocks: the parts of pkt on models and loops of one's own, without Hydra."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pkt import blocks
from pkt.errors import RequestError
from tiny import tiny_model


def rows(batch: int = 3, length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 300, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_neither_hydra_nor_a_config_is_imported():
    code = "import sys, pkt; pkt.blocks; print(sorted({'hydra', 'omegaconf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_says_what_it_is():
    for name in blocks.__all__:
        assert getattr(blocks, name).__doc__, name


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_hidden_states_are_those_of_transformers(family):
    model, ids = tiny_model(family), rows()
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    found = blocks.hidden_states(model, ids, mask)
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert sorted(found) == [1, 2, 3, 4]
    for layer in (1, 2, 3):  # transformers keeps the last one after the final norm
        torch.testing.assert_close(found[layer][mask.bool()], own[layer][mask.bool()])
    added = blocks.hidden_states(model, ids, mask, layers=[2], interface="residual")
    torch.testing.assert_close(added[2], own[2] - own[1], rtol=1e-4, atol=1e-5)


def test_a_model_in_training_mode_comes_back_in_it():
    model = tiny_model("llama").train()
    frozen = model.get_submodule("model.layers.1").eval()  # as who trains some layers alone
    states = blocks.hidden_states(model, rows(), layers=[1])
    assert model.training
    assert not frozen.training
    torch.testing.assert_close(states[1], blocks.hidden_states(model.eval(), rows(), layers=[1])[1])


def test_tapped_states_carry_gradients():
    model, ids = tiny_model("llama"), rows()
    with blocks.tapped(model, [2]) as states:
        model(input_ids=ids)
        states[2].square().sum().backward()
    layers = blocks.architecture(model).layers
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in layers[1].parameters())
    assert all(p.grad is None for p in layers[2].parameters())


def test_a_loop_of_ones_own_learns_from_a_teacher_of_another_width():
    """The whole way: states, a map in closed form, a term, a step of one's own optimiser."""
    teacher, student = tiny_model("llama", width=48, depth=6, seed=1), tiny_model("llama", seed=2)
    ids, (pair, *_) = rows(8, 12), blocks.mappings.Last().pairs(6, 4)
    own = blocks.hidden_states(teacher, ids, layers=pair.teacher)[pair.teacher[0]].flatten(0, 1)
    start = blocks.hidden_states(student, ids, layers=[pair.student])[pair.student].flatten(0, 1)
    heads = {"teacher": blocks.head_view(teacher), "student": blocks.head_view(student)}
    for strategy in (blocks.maps.Ridge(), blocks.maps.Cosine()):
        targets = strategy.fit(**heads, states=(own, start))(own)
        assert targets.shape == start.shape
    optimiser, losses = torch.optim.SGD(student.parameters(), lr=0.05), []
    targets = targets.roll(1, 0)  # something that it does not know yet
    for _ in range(6):
        with blocks.tapped(student, [pair.student]) as states:
            student(input_ids=ids)
            loss = blocks.layer_loss(blocks.terms.Cosine(), states[pair.student].flatten(0, 1), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    expected = 1 - torch.nn.functional.cosine_similarity(start, targets).mean()
    assert losses[0] == pytest.approx(float(expected), abs=1e-5)


def test_layer_scores_are_gradient_times_activation():
    model, ids = tiny_model("llama"), rows(2, 8)
    supervised = torch.zeros_like(ids, dtype=torch.bool)
    supervised[:, 4:-1] = True
    found = blocks.layer_scores(model, ids, supervised, interface="block")
    total = torch.zeros(4, dtype=torch.float64)
    for row in range(2):  # the slow way: transformers' own states and loss, a row at a time
        out = model(input_ids=ids[row : row + 1], output_hidden_states=True)
        logits = out.logits[0, supervised[row]]
        loss = torch.nn.functional.cross_entropy(logits, ids[row, 1:][supervised[row, :-1]])
        states = out.hidden_states[1:4]
        for layer, (state, grad) in enumerate(zip(states, torch.autograd.grad(loss, states), strict=True)):
            total[layer] += (state * grad).sum().abs().double() / 2
    torch.testing.assert_close(found[:3], total[:3], rtol=1e-4, atol=1e-6)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_cka_is_that_of_centred_gram_matrices():
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(40, 5, generator=generator), torch.randn(40, 7, generator=generator)
    y[:, :5] += 3 * x
    K, L = ((side - side.mean(0)) @ (side - side.mean(0)).T for side in (x.double(), y.double()))
    assert blocks.cka(x, y) == pytest.approx(float((K * L).sum() / (K.norm() * L.norm())), abs=1e-9)
    assert blocks.cka(x, 2 * x @ torch.linalg.qr(torch.randn(5, 5))[0] + 7) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="40 and 39"):
        blocks.cka(x, y[1:])


def test_what_a_model_does_not_have_is_refused_by_name():
    with pytest.raises(RequestError, match="layer 9 does not exist"):
        blocks.hidden_states(tiny_model("llama"), rows(), layers=[9])
