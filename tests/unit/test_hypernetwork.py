"""Sparse deltas against the same numbers in dense weights; the hypernetwork and its loss against plain autograd."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from pkt.models.sparse_delta import SparseDelta, applied, inject, norms
from pkt.objectives import OutputHead
from pkt.training.deltas import DeltaLoss, DeltaSite, answer_loss, deltas
from pkt.training.hypernetwork import INITIAL_SPREAD, HyperNetwork
from pkt.training.loop import reduced
from pkt.training.schedule import one_cycle
from tiny import tiny_model

MODULES = ("up", "down", "v", "o")
FAMILIES = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tied": True}),
    ("qwen3", {"head_dim": 12}),
    ("qwen2", {"num_key_value_heads": 1}),
]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def encoded(answers=(3, 1, 5)):
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 300, (4 + n,), generator=generator).tolist() for n in answers]
    return Encoded(input_ids=ids, prompt_lengths=[4] * len(answers))


def size_of(arch, layer, module):
    weight = arch.projection(layer, module).weight
    return weight.shape[0] if module in ("up", "v") else weight.shape[1]


def some_deltas(arch, scale=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for layer in (1, arch.depth):
        for module in MODULES:
            index = torch.randperm(size_of(arch, layer, module), generator=generator)[:5]
            values = scale * torch.randn(5, arch.width, generator=generator)
            found.append(SparseDelta(layer=layer, module=module, index_n=index, values_nD=values))
    return found


def padded(arch, delta):
    """The delta as a dense matrix of the weight's shape."""
    dense = torch.zeros_like(arch.projection(delta.layer, delta.module).weight, dtype=torch.float32)
    for row, values in zip(delta.index_n.tolist(), delta.values_nD, strict=True):
        if delta.module in ("up", "v"):
            dense[row] = values
        else:
            dense[:, row] = values
    return dense


def dense_copy(arch, changes):
    """A copy of the model whose weights are W + padded delta; the padded deltas are its leaves."""
    model = copy.deepcopy(arch.model)
    copied = Architecture.of(model)
    leaves = []
    for delta in changes:
        module = copied.projection(delta.layer, delta.module)
        leaf = padded(arch, delta).detach().requires_grad_(True)
        weight = module.weight.detach()
        del module.weight
        module.weight = weight + leaf
        leaves.append(leaf)
    return model, leaves


@pytest.mark.parametrize(("family", "sizes"), FAMILIES)
def test_an_applied_delta_is_a_dense_change_in_value_and_gradient(family, sizes):
    arch = Architecture.of(tiny_model(family, depth=3, **sizes).requires_grad_(False))
    changes = [
        SparseDelta(layer=d.layer, module=d.module, index_n=d.index_n, values_nD=d.values_nD.requires_grad_())
        for d in some_deltas(arch)
    ]
    batch = collate(encoded(), [0, 1, 2])
    ids, mask = batch.input_ids, batch.attention_mask
    untouched = arch.model(input_ids=ids, attention_mask=mask).logits
    dense, leaves = dense_copy(arch, changes)
    expected = dense(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    with applied(arch, changes):
        got = arch.model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    assert float((got - untouched[mask.bool()]).detach().abs().max()) > 1e-2
    torch.testing.assert_close(got, expected, **CLOSE)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    for delta, leaf in zip(changes, leaves, strict=True):
        slope = leaf.grad if delta.module in ("up", "v") else leaf.grad.T
        torch.testing.assert_close(delta.values_nD.grad, slope[delta.index_n], rtol=1e-3, atol=1e-3)
    assert not any(module._forward_hooks for module in arch.model.modules())
    torch.testing.assert_close(arch.model(input_ids=ids, attention_mask=mask).logits, untouched)


@pytest.mark.parametrize(("family", "sizes"), FAMILIES)
def test_injection_changes_these_rows_and_columns_and_nothing_else(family, sizes):
    arch = Architecture.of(tiny_model(family, depth=3, **sizes))
    before, changes = copy.deepcopy(arch.model.state_dict()), some_deltas(arch)
    expected = {
        f"{arch.roles.layers}.{d.layer - 1}.{arch.projection_path(d.module)}.weight": padded(arch, d)
        for d in changes
    }
    inject(arch, changes)
    for name, value in arch.model.state_dict().items():
        torch.testing.assert_close(value, before[name] + expected.get(name, 0.0), rtol=0, atol=0)


def test_bfloat16_weights_are_summed_in_float32_and_rounded_once():
    arch = Architecture.of(tiny_model("llama", depth=2).bfloat16())
    before, changes = copy.deepcopy(arch.model), some_deltas(arch)
    measured = norms(arch, changes)
    with applied(arch, changes):
        assert arch.model(input_ids=torch.tensor([[5, 6]])).logits.dtype == torch.bfloat16
    inject(arch, changes)
    arrived = 0.0
    for delta in changes:
        old, new = (
            Architecture.of(model).projection(delta.layer, delta.module).weight.detach()
            for model in (before, arch.model)
        )
        assert new.dtype == torch.bfloat16
        assert torch.equal(new, (old.float() + padded(arch, delta)).bfloat16())
        arrived += float((new.float() - old.float()).square().sum())
    assert measured["rounded"] == pytest.approx(arrived**0.5, rel=1e-5)
    tiny = norms(Architecture.of(before), some_deltas(arch, scale=1e-7))
    assert tiny["rounded"] < 0.1 * tiny["delta"]  # a delta below the weights' resolution does not arrive


def test_norms_are_those_of_the_matrices():
    arch = Architecture.of(tiny_model("llama", depth=2))
    changes = [delta for delta in some_deltas(arch) if delta.module == "down"]
    weights = [arch.projection(delta.layer, "down").weight.detach() for delta in changes]
    measured = norms(arch, changes)
    assert measured["delta"] == pytest.approx(
        float(torch.stack([padded(arch, d) for d in changes]).norm()), rel=1e-5
    )
    assert measured["weight"] == pytest.approx(float(torch.stack(weights).norm()), rel=1e-5)
    assert measured["rounded"] == pytest.approx(measured["delta"], rel=1e-4)


def test_one_row_twice_is_no_delta():
    with pytest.raises(AssertionError):
        SparseDelta(layer=1, module="up", index_n=torch.tensor([1, 1]), values_nD=torch.zeros(2, 4))
    with pytest.raises(AssertionError):
        SparseDelta(layer=1, module="q", index_n=torch.tensor([1]), values_nD=torch.zeros(1, 4))


@pytest.mark.parametrize(("teacher", "student"), [(6, 4), (4, 6), (5, 5)])
def test_hypernetwork_is_two_linear_maps(teacher, student):
    network = HyperNetwork(MODULES, teacher_width=teacher, student_width=student, seed=3)
    rows = torch.randn(7, teacher, generator=torch.Generator().manual_seed(0))
    for module in MODULES:
        first, second = network.maps[module]["first"], network.maps[module]["second"]
        assert (first.shape, second.shape) == ((teacher, teacher), (student, teacher))
        expected = torch.stack([second @ torch.clamp(first @ row, min=0) for row in rows])
        torch.testing.assert_close(network(module, rows), expected, rtol=1e-4, atol=1e-15)
        torch.testing.assert_close(network(module, rows.bfloat16()), expected, rtol=0.05, atol=1e-10)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert len(list(network.parameters())) == 2 * len(MODULES)  # no bias


def test_hypernetwork_starts_small_and_from_its_seed():
    state = torch.get_rng_state()
    one, same, other = (
        HyperNetwork(MODULES, teacher_width=64, student_width=32, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    numbers = torch.cat([p.detach().flatten() for p in one.parameters()])
    assert float(numbers.std()) == pytest.approx(INITIAL_SPREAD, rel=0.02)
    assert abs(float(numbers.mean())) < 3e-7
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def sites_of(arch, teacher_width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return [
        DeltaSite(
            layer=d.layer,
            module=d.module,
            index_n=d.index_n,
            sources_nD=torch.randn(5, teacher_width, generator=generator).to(dtype),
        )
        for d in some_deltas(arch)
    ]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("teacher_width", [48, 16])
def test_loss_and_gradient_equal_the_dense_student(family, teacher_width):
    arch = Architecture.of(tiny_model(family, depth=3).requires_grad_(False))
    network = HyperNetwork(MODULES, teacher_width=teacher_width, student_width=arch.width, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.05 / INITIAL_SPREAD)
    loss = DeltaLoss(
        arch=arch,
        hypernetwork=network,
        sites=sites_of(arch, teacher_width),
        penalty=1000.0,
        head=OutputHead(arch=arch),
    )
    batch = collate(encoded(), [2, 0, 1])
    terms = reduced(loss(batch), loss.counts(batch))
    total = sum(loss.weights(terms)[name] * term for name, term in terms.items())
    total.backward()

    changes = deltas(network, loss.sites)
    dense, leaves = dense_copy(arch, [delta.detached() for delta in changes])
    logits = dense(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    labels = functional.pad(batch.input_ids[:, 1:], (0, 1))[batch.supervised]
    cross_entropy = functional.cross_entropy(logits[batch.supervised], labels)
    size = sum(delta.values_nD.pow(2).mean() for delta in changes)
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy, **CLOSE)
    torch.testing.assert_close(terms["delta_size"], size, **CLOSE)
    cross_entropy.backward()
    got = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    reach = sum(
        ((leaf.grad if d.module in ("up", "v") else leaf.grad.T)[d.index_n] * d.values_nD).sum()
        for d, leaf in zip(changes, leaves, strict=True)
    )
    (reach + 1000.0 * size).backward()
    for slope, parameter in zip(got, network.parameters(), strict=True):
        torch.testing.assert_close(slope, parameter.grad, rtol=2e-3, atol=1e-3)
    assert loss.meter.forward_tokens == sum(encoded().lengths)
    assert loss.counts(batch) == {"cross_entropy": 9, "delta_size": 1}


def test_an_answer_of_one_token_in_a_batch_of_one_and_a_bfloat16_student():
    arch = Architecture.of(tiny_model("qwen3", depth=2).bfloat16().requires_grad_(False))
    network = HyperNetwork(MODULES, teacher_width=48, student_width=arch.width, seed=0)
    loss = DeltaLoss(
        arch=arch,
        hypernetwork=network,
        sites=sites_of(arch, 48, torch.bfloat16),
        penalty=1.0,
        head=OutputHead(arch=arch),
    )
    terms = loss(collate(encoded(), [1]))
    sum(terms.values()).backward()
    for parameter in network.parameters():
        assert parameter.grad.dtype == torch.float32
        assert bool(parameter.grad.isfinite().all())
        assert float(parameter.grad.abs().max()) > 0  # the start is tiny, not zero: everything can move


def test_autocast_runs_the_student_in_bfloat16_and_the_hypernetwork_in_float32():
    arch = Architecture.of(tiny_model("llama", depth=2))
    batch, changes = collate(encoded(), [0, 1, 2]), some_deltas(arch)
    head = OutputHead(arch=arch)
    with torch.no_grad():
        exact, tokens = answer_loss(arch, head, batch, changes, autocast=False)
        half, _ = answer_loss(arch, head, batch, changes, autocast=True)
    assert tokens == sum(encoded().lengths)
    assert float(half) != float(exact)
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        network = HyperNetwork(MODULES, teacher_width=4, student_width=4, seed=0)
        assert network("up", torch.ones(1, 4)).dtype == torch.float32


@pytest.mark.parametrize("total", [1, 2, 3, 4, 8, 50])
def test_one_cycle_is_torchs_over_one_more_step(total):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=total + 1, cycle_momentum=False
    )
    for step in range(1, total + 1):
        assert one_cycle(step, total) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)
        optimiser.step()
        reference.step()
    assert one_cycle(total, total) > 1e-3
