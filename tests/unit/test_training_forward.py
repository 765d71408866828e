"""The fast training pass equals the textbook one: cached teacher, cached prefix, no logits, fewer layers."""

from __future__ import annotations

import pytest
import torch

from cases import mostly_slow
from pkt.config import OptimConfig
from pkt.data.batching import collate, epoch_batches
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.objectives import OutputHead
from pkt.training.capture import advance, capture
from pkt.training.forward import Targets, TransferLoss
from pkt.training.loop import Trainer
from pkt.training.passes import Read
from pkt.training.trainable import Update, make_trainable
from terms import objective
from textbook.training import same_moves, textbook_training
from tiny import tiny_model

V1 = objective(cosine={"positions": "answer"}, output={})


def rows(count: int = 24) -> Encoded:
    generator = torch.Generator().manual_seed(0)
    ids, prompts = [], []
    for _ in range(count):
        length = int(torch.randint(6, 14, (), generator=generator))
        ids.append(torch.randint(3, 320, (length,), generator=generator).tolist())
        prompts.append(int(torch.randint(2, length - 1, (), generator=generator)))
    return Encoded(input_ids=ids, prompt_lengths=prompts)


def fast(teacher, student, *, pairs, matrix, interface, objective, update, layers, optim, cache_prefix):
    """Train the way pkt does, and return the losses of every step."""
    arch, encoded = Architecture.of(student), rows()
    normalise = lambda h: (h / h.norm(dim=-1, keepdim=True)) @ matrix.T  # noqa: E731
    targets = capture(
        Architecture.of(teacher),
        encoded,
        {k: Read(layers=(t,), width=matrix.shape[0], map=normalise) for t, k in pairs},
        interface=interface,
        positions=objective.positions,
        batch_size=5,
    )
    prefix = None
    if cache_prefix and min(layers) > 1:
        below = min(layers) - 1
        prefix = advance(arch, encoded, below, None, batch_size=5)
    trainable = make_trainable(arch, Update(kind=update, rank=4, alpha=4.0), layers)
    losses: list[dict[str, float]] = []
    Trainer(
        loss=TransferLoss(
            arch=arch,
            objective=objective,
            interface=interface,
            targets=Targets.kept(targets, positions=objective.positions),
            prefix=prefix,
            head=OutputHead(arch=arch),
        ),
        parameters=trainable.parameters,
        plan=[epoch_batches(encoded.lengths, optim.batch_size, seed=0, epoch=e) for e in range(optim.epochs)],
        collate=lambda chosen: collate(encoded, chosen),
        optim=optim,
        listen=lambda _step, metrics: losses.append(metrics),
    ).fit()
    return losses, trainable.merged()


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("update", ["lora", "full"])
@pytest.mark.parametrize(
    ("interface", "positions", "pairs"),
    [("mlp", "answer", [(4, 3)]), ("block", "all", [(3, 2), (5, 4)]), ("residual", "answer", [(2, 1)])],
)
def test_fast_training_equals_textbook_training(family, update, interface, positions, pairs):
    before = {n: p.detach().clone() for n, p in tiny_model(family, seed=2).named_parameters()}
    (losses, merged), (expected, textbook) = both_ways(family, update, interface, positions, pairs, lr=0.3)
    compare(losses, expected, 1e-5)
    weights, reference = ({n: p.detach() for n, p in m.named_parameters()} for m in (merged, textbook))
    same_moves(weights, reference, before)
    moved = {name for name, value in weights.items() if not torch.equal(value, before[name])}
    numbers = {f".{k - 1}." for _, k in pairs}
    assert all(any(n in name for n in numbers) for name in moved), "a layer outside the pairs changed"


def test_fast_training_has_the_losses_of_textbook_training_under_adamw():
    (losses, _), (expected, _) = both_ways("llama", "lora", "block", "all", [(3, 2), (5, 4)], lr=3e-3)
    compare(losses, expected, 1e-4)


def both_ways(family, update, interface, positions, pairs, *, lr):
    """Losses of every step and the trained student, of pkt's pass and of the textbook's."""
    arguments = {
        "pairs": pairs,
        "matrix": torch.randn(32, 48, generator=torch.Generator().manual_seed(3)),
        "interface": Interface(interface),
        "objective": objective(cosine={"positions": positions}, output={}),
        "update": update,
        "layers": [k for _, k in pairs],
        "optim": OptimConfig(lr=lr, epochs=2, batch_size=6),  # 4 steps an epoch
    }
    teacher = tiny_model(family, depth=6, width=48, seed=1)
    own = fast(teacher, tiny_model(family, seed=2), cache_prefix=True, **arguments)
    return own, textbook_training(teacher, tiny_model(family, seed=2), rows(), **arguments)


def compare(losses, expected, tolerance):
    assert len(losses) == 8
    for got, want in zip(losses, expected, strict=True):
        for name in ("loss_layer", "loss_output"):
            assert got[name] == pytest.approx(want[name], abs=tolerance)


def test_without_an_output_term_layers_above_the_pair_do_not_run():
    student = tiny_model("llama", seed=2)
    calls = []
    student.model.layers[3].register_forward_hook(lambda *_: calls.append(1))
    matrix = torch.randn(32, 48, generator=torch.Generator().manual_seed(3))
    losses, _ = fast(
        tiny_model("llama", depth=6, width=48, seed=1),
        student,
        pairs=[(3, 2)],
        matrix=matrix,
        interface=Interface.mlp,
        objective=objective(cosine={"positions": "answer"}),
        update="full",
        layers=[2],
        optim=OptimConfig(lr=3e-3, epochs=2, batch_size=6),
        cache_prefix=True,
    )
    assert not calls
    assert losses[-1]["loss_layer"] < losses[0]["loss_layer"]


def test_a_student_that_already_agrees_has_no_layer_loss():
    arch, encoded = Architecture.of(tiny_model("llama", seed=2)), rows()
    targets = capture(
        arch,
        encoded,
        {2: Read(layers=(2,), width=32)},
        interface=Interface.mlp,
        positions="answer",
        batch_size=4,
    )
    loss = TransferLoss(
        arch=arch, objective=V1, interface=Interface.mlp, targets=Targets.kept(targets), prefix=None,
        head=OutputHead(arch=arch),
    )  # fmt: skip
    batch = collate(encoded, [3, 1, 7])
    (total,) = loss(batch)["loss_layer"].detach()
    assert float(total) / loss.counts(batch)["loss_layer"] == pytest.approx(0.0, abs=1e-6)


def test_measure_counts_right_tokens_and_rows():
    arch, encoded = Architecture.of(tiny_model("llama", seed=2)), rows(6)
    loss = TransferLoss(
        arch=arch, objective=objective(ce={}), interface=Interface.mlp, targets=Targets.kept({}), prefix=None,
        head=OutputHead(arch=arch),
    )  # fmt: skip
    batch = collate(encoded, list(range(6)))
    logits = arch.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.argmax(-1)
    right, whole = [], []
    for row, (ids, prompt) in enumerate(zip(encoded.input_ids, encoded.prompt_lengths, strict=True)):
        hits = [int(logits[row, t]) == ids[t + 1] for t in range(prompt - 1, len(ids) - 1)]
        right += hits
        whole.append(all(hits))
    measured = loss.measure(batch)
    assert measured["label_accuracy"] == (sum(right), len(right))
    assert measured["row_accuracy"] == (sum(whole), 6)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("interface", mostly_slow(["mlp", "block", "residual"], lambda name: name == "block"))
@pytest.mark.parametrize("cache_prefix", [True, False])
def test_layers_that_run_twice_give_the_same_gradients_in_less_memory(family, interface, cache_prefix):
    found = []
    for again in (False, True):
        arch, encoded = Architecture.of(tiny_model(family, seed=2)), rows()
        targets = capture(
            Architecture.of(tiny_model(family, seed=1)),
            encoded,
            {k: Read(layers=(k,), width=32) for k in (2, 4)},
            interface=Interface(interface),
            positions="all",
            batch_size=5,
        )
        prefix = advance(arch, encoded, 1, None, batch_size=5) if cache_prefix else None
        update = Update(kind="lora", rank=4, alpha=4.0, dropout=0.3)
        trainable = make_trainable(arch, update, [2, 3, 4])
        saved: list[int] = []
        loss = TransferLoss(
            arch=arch,
            objective=objective(mean_square={"positions": "all"}, ce={}),
            interface=Interface(interface),
            targets=Targets.kept(targets, positions="all"),
            prefix=prefix,
            head=OutputHead(arch=arch),
            recomputes=again,
        )
        torch.manual_seed(3)

        def keep(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            sums = loss(collate(encoded, [3, 1, 7]))
            torch.stack([total.sum() for total in sums.values()]).sum().backward()
        gradients = {n: p.grad for n, p in trainable.parameters.items()}
        found.append((sums, gradients, sum(saved)))
        assert all(type(layer).__name__ != "Recomputed" for layer in arch.layers)
    (sums, gradients, saved_numbers), (again_sums, again_gradients, fewer) = found
    assert fewer < 0.7 * saved_numbers
    for name, value in sums.items():
        assert torch.equal(value, again_sums[name])
    assert sum(float(value.abs().sum()) > 0 for value in gradients.values()) >= 12  # A starts without one
    for name, value in gradients.items():
        assert torch.equal(value, again_gradients[name]), name
