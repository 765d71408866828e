"""Adapters that start from factors: the function at the start, what trains, merging, saving, dropout."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.surgery import lora_config, matrix_OI, sites
from pkt.training.lora_start import LoraStart, pissa_factors, seeking_factors
from pkt.training.trainable import Update, make_trainable
from tiny import tiny_model

IDS = torch.randint(3, 320, (2, 12), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
FAMILIES = ["llama", "qwen3", "gemma3_text", "gpt2", "opt"]
RANK, ALPHA = 4, 8.0
BLOCKS, ALL = ("up", "down", "v", "o"), ("q", "k", "v", "o", "up", "down", "embed", "head")


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).logits.float()


def start_of(arch, layers, targets, *, seed=0, split=seeking_factors):
    """Factors of random matrices of the student's shapes, of the size of its weights."""
    factors = {}
    for number, path in enumerate(sites(arch, layers, targets)):
        weight = matrix_OI(arch.model.get_submodule(path)).detach()
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed + number))
        factors[path] = split(noise * weight.float().std(), RANK, ALPHA)
    return LoraStart(factors=factors)


def started(family="llama", targets=BLOCKS, layers=(2, 4), dropout=0.0, dtype=torch.float32, **sizes):
    arch = Architecture.of(tiny_model(family, **sizes).to(dtype))
    trainable = make_trainable(
        arch,
        Update(rank=RANK, alpha=ALPHA, targets=list(targets), dropout=dropout),
        layers,
        start=start_of(arch, layers, targets),
    )
    return arch, trainable


def train_a_little(trainable):
    """Move what trains, by three steps of a real loss."""
    optimiser = torch.optim.AdamW(trainable.parameters.values(), lr=3e-2)
    for _ in range(3):
        optimiser.zero_grad()
        trainable.model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
        optimiser.step()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [BLOCKS, ALL])
def test_the_function_at_the_start_is_the_student_s(family, targets):
    arch, trainable = started(family, targets)
    expected = logits(tiny_model(family))
    torch.testing.assert_close(
        logits(arch.model), expected, atol=2e-5 * expected.abs().max().item(), rtol=1e-5
    )
    assert trainable.count == sum(
        a.numel() + b.numel() for a, b in start_of(arch, (2, 4), targets).factors.values()
    )
    assert all(p.dtype == torch.float32 and ".default" in name for name, p in trainable.parameters.items())


def test_it_is_w_minus_the_start_plus_the_adapter():
    """The textbook form: base' = W - scale B0 A0, then plain LoRA from (A0, B0)."""
    _arch, trainable = started()
    textbook = tiny_model("llama")
    other = Architecture.of(textbook)
    start = start_of(other, (2, 4), BLOCKS)
    with torch.no_grad():
        for path, (A, B) in start.factors.items():
            matrix_OI(textbook.get_submodule(path)).sub_(ALPHA / RANK * (B @ A))
    plain = make_trainable(other, Update(rank=RANK, alpha=ALPHA, targets=list(BLOCKS)), (2, 4))
    with torch.no_grad():
        for path, (A, B) in start.factors.items():
            module = textbook.get_submodule(path)
            module.lora_A["default"].weight.copy_(A)
            module.lora_B["default"].weight.copy_(B)
    assert plain.parameters.keys() == trainable.parameters.keys()
    for one in (trainable, plain):
        one.model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
    for name, parameter in plain.parameters.items():
        expected = parameter.grad
        tolerance = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(
            trainable.parameters[name].grad, expected, atol=tolerance, rtol=1e-3, msg=name
        )


def test_bfloat16_student_is_unchanged_at_the_start():
    arch, trainable = started(targets=ALL, dtype=torch.bfloat16)
    expected = logits(tiny_model("llama").bfloat16())
    scale = expected.abs().max().item()
    torch.testing.assert_close(logits(arch.model), expected, atol=2e-2 * scale, rtol=0)
    assert all(p.dtype == torch.float32 for p in trainable.parameters.values())
    merged = trainable.merged().state_dict()
    for name, value in tiny_model("llama").bfloat16().state_dict().items():
        assert torch.equal(merged[name], value), name  # B A - B0 A0 is exactly zero


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [BLOCKS, ALL])
def test_merged_and_saved_adapter_agree_with_the_trained_model(family, targets, tmp_path):
    arch, trainable = started(family, targets)
    before = copy.deepcopy(tiny_model(family).state_dict())
    train_a_little(trainable)
    expected, at_start = logits(arch.model), logits(tiny_model(family))
    scale = expected.abs().max().item()
    assert (expected - at_start).abs().max() > 1e-2 * scale
    trainable.save_adapter(tmp_path, "somewhere/student")
    merged = trainable.merged()
    torch.testing.assert_close(logits(merged), expected, atol=2e-5 * scale, rtol=1e-4)
    assert merged.state_dict().keys() == before.keys()
    changed = {n for n, value in merged.state_dict().items() if not torch.equal(value, before[n])}
    other = Architecture.of(tiny_model(family))
    assert changed == {f"{path}.weight" for path in sites(other, (2, 4), targets)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # peft, GPT-2's linear head
        again = PeftModel.from_pretrained(tiny_model(family), tmp_path)
    assert again.peft_config["default"].r == 2 * RANK
    assert again.peft_config["default"].base_model_name_or_path == "somewhere/student"
    torch.testing.assert_close(logits(again), logits(merged), atol=2e-5 * scale, rtol=1e-4)


def test_merged_bfloat16_rounds_once():
    _arch, trainable = started(dtype=torch.bfloat16)
    for parameter in trainable.parameters.values():
        parameter.data.mul_(1.01)
    expected = {}
    for path, (A, B) in start_of(Architecture.of(tiny_model("llama")), (2, 4), BLOCKS).factors.items():
        weight = tiny_model("llama").bfloat16().get_submodule(path).weight.float()
        change = ALPHA / RANK * ((1.01 * B) @ (1.01 * A) - B @ A)
        expected[path] = weight + change
    merged = trainable.merged()
    for path, value in expected.items():
        found = merged.get_submodule(path).weight
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), value, atol=1e-5, rtol=2**-8)


def test_dropout_is_active_in_the_trained_adapter_only_and_can_be_switched_off():
    arch, trainable = started(dropout=0.5)
    assert len(trainable.dropouts) == 2 * 4
    assert all(module.training == (module in trainable.dropouts) for module in arch.model.modules())
    torch.manual_seed(0)
    one, two = logits(arch.model), logits(arch.model)
    assert not torch.equal(one, two)
    with trainable.evaluating():
        plain = logits(arch.model)
        assert torch.equal(plain, logits(arch.model))
        assert not any(module.training for module in arch.model.modules())
    expected = logits(tiny_model("llama"))
    torch.testing.assert_close(plain, expected, atol=1e-4, rtol=1e-4)
    assert all(module.training for module in trainable.dropouts)
    with pytest.raises(KeyError), trainable.evaluating():
        raise KeyError
    assert all(module.training for module in trainable.dropouts)


def test_without_a_start_dropout_leaves_the_function_as_it_is():
    arch = Architecture.of(tiny_model("llama"))
    trainable = make_trainable(arch, Update(rank=2, alpha=2.0, dropout=0.5), [1])
    assert len(trainable.dropouts) == 4
    torch.testing.assert_close(logits(arch.model), logits(tiny_model("llama")), atol=1e-5, rtol=1e-5)


def test_no_dropout_leaves_every_module_in_eval_mode():
    arch, trainable = started()
    assert trainable.dropouts == ()
    assert not any(module.training for module in arch.model.modules())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_pissa_is_that_of_peft_up_to_sign(family):
    arch = Architecture.of(tiny_model(family))
    paths = sites(arch, range(1, 5), BLOCKS)
    factors = {path: pissa_factors(matrix_OI(arch.model.get_submodule(path)), RANK, ALPHA) for path in paths}
    model = tiny_model(family)
    config = lora_config(Architecture.of(model), range(1, 5), BLOCKS, rank=RANK, alpha=ALPHA)
    config.init_lora_weights = "pissa"
    assert isinstance(config, LoraConfig)
    get_peft_model(model, config)
    untouched = tiny_model(family)
    for path, (A, B) in factors.items():
        module = model.get_submodule(path)
        theirs_A, theirs_B = module.lora_A["default"].weight, module.lora_B["default"].weight
        signs = (A * theirs_A).sum(1).sign()
        torch.testing.assert_close(A * signs[:, None], theirs_A.detach(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(B * signs, theirs_B.detach(), atol=1e-4, rtol=1e-4)
        base = matrix_OI(untouched.get_submodule(path)) - ALPHA / RANK * (B @ A)
        torch.testing.assert_close(matrix_OI(module).detach(), base.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("targets", [("up", "embed"), ("head",), ("embed", "head")])
def test_ends_of_a_tied_model_are_refused(targets):
    arch = Architecture.of(tiny_model("llama", tied=True))
    with pytest.raises(RequestError, match=r"one tensor.*Leave embed and head out"):
        make_trainable(arch, Update(targets=list(targets)), [1])


def test_tied_model_stays_tied_with_adapters_inside():
    _arch, trainable = started(tied=True)
    train_a_little(trainable)
    merged = trainable.merged()
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight


def test_whole_layers_have_neither_start_nor_dropout():
    arch = Architecture.of(tiny_model("llama"))
    with pytest.raises(RequestError, match="no adapters that could have a start or dropout"):
        make_trainable(arch, Update(kind="full", dropout=0.1), [1])
