"""Seeking and PiSSA: what is cut where, what is refused, and what the student is before and after."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from pkt.attribution.windows import best_window
from pkt.config import Config
from pkt.data.encoding import Encoded
from pkt.errors import RequestError
from pkt.methods.pissa import Pissa
from pkt.methods.seeking import RECIPES, Seeking
from pkt.methods.seeking_plan import check_pair_shapes
from pkt.methods.seeking_results import SeekingAlignment, SeekingExtraction
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.load import skeleton
from pkt.training.trainable import Update
from tiny import tiny_config, tiny_model, tiny_tokenizer

LORA = Update(rank=4, alpha=8.0)
TEACHER, STUDENT = {"depth": 6, "width": 48, "seed": 1}, {"depth": 4, "width": 32, "seed": 2}


def rows():
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(3, 320, (8 + r,), generator=generator).tolist() for r in range(3)]
    return Encoded(input_ids=ids, prompt_lengths=[5, 5, 6])


def bench_of(family="llama", teacher=None, student=None):
    """A workbench around two tiny models; nothing is read from disk."""
    models = [tiny_model(family, **sizes) for sizes in (teacher or TEACHER, student or STUDENT)]
    bench = Workbench(
        config=Config(),
        mapping=None,
        semantics=None,
        objective=None,
        cache_dir=None,
    )
    bench.config.seed = 0
    for role, model in zip(("teacher", "student"), models, strict=True):
        bench.__dict__[role] = SimpleNamespace(model=model, arch=Architecture.of(model), tokenizer=None)
        bench.__dict__[f"{role}_config"] = model.config
    bench.__dict__["one_vocabulary"] = True
    bench._encoded["extract"] = rows()
    return bench


def slow_sensitivity(model):
    totals = {}
    for ids, prompt in zip(rows().input_ids, rows().prompt_lengths, strict=True):
        model.zero_grad()
        logits = model(input_ids=torch.tensor([ids])).logits[0, prompt - 1 : -1]
        functional.cross_entropy(logits, torch.tensor(ids[prompt:])).backward()
        for name, p in model.named_parameters():
            totals[name] = totals.get(name, 0.0) + (p * p.grad).abs().detach()
    return totals


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("recipe", ["laten", "original"])
def test_extraction_is_that_of_the_slow_reference(family, recipe, tmp_path):
    bench = bench_of(family)
    found = Seeking(update=LORA, recipe=recipe).extract(bench, tmp_path)
    teacher = tiny_model(family, **TEACHER)
    slow = slow_sensitivity(teacher)
    scores = [
        sum(float(v.double().sum()) for n, v in slow.items() if n.startswith(f"model.layers.{i}."))
        for i in range(6)
    ]
    assert found.scores == pytest.approx(scores, rel=1e-4)
    kept = sorted(sorted(range(6), key=lambda i: -scores[i])[:4])
    assert [pair.teacher for pair in found.pairs] == [(i + 1,) for i in kept]
    assert [pair.student for pair in found.pairs] == [1, 2, 3, 4]
    student = Architecture.of(tiny_model(family, **STUDENT))
    names = {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
    }
    names |= {role: f"mlp.{role}_proj" for role in ("gate", "up", "down")}
    ends = {"embed": "model.embed_tokens", "head": "lm_head"}
    assert len(found.matrices) == sum(1 if role in ends else 4 for role in RECIPES[recipe])
    for key, matrix in found.matrices.items():
        layer, _, role = key.rpartition(".")
        own = ends[role] if role in ends else f"model.layers.{int(layer) - 1}.{names[role]}"
        theirs = ends[role] if role in ends else f"model.layers.{kept[int(layer) - 1]}.{names[role]}"
        shape = tuple(student.model.get_submodule(own).weight.shape)
        row, column = best_window(slow[f"{theirs}.weight"], shape)
        weight = teacher.get_submodule(theirs).weight.detach()
        window = weight[row : row + shape[0], column : column + shape[1]]
        expected = window.T if role == "embed" else window
        torch.testing.assert_close(matrix, expected, rtol=0, atol=0, msg=key)


def test_grouped_query_heads_have_their_own_shapes(tmp_path):
    found = Seeking(update=LORA, recipe="original").extract(bench_of(), tmp_path)
    assert tuple(found.matrices["1.q"].shape) == (32, 32)
    assert tuple(found.matrices["1.k"].shape) == tuple(found.matrices["1.v"].shape) == (16, 32)
    assert tuple(found.matrices["embed"].shape) == (32, 320)
    assert tuple(found.matrices["head"].shape) == (320, 32)


def test_a_fused_map_is_cut_in_thirds(tmp_path):
    found = Seeking(update=LORA).extract(bench_of("gpt2"), tmp_path)
    slow, teacher = slow_sensitivity(tiny_model("gpt2", **TEACHER)), tiny_model("gpt2", **TEACHER)
    layer = found.pairs[1].teacher[0] - 1
    name = f"transformer.h.{layer}.attn.c_attn"
    score, weight = (
        slow[f"{name}.weight"].T,
        teacher.get_submodule(name).weight.detach().T,
    )  # Conv1D: (in, out)
    assert len(found.cuts["2.qkv"]) == 3
    for i in range(3):
        part = slice(48 * i, 48 * (i + 1))
        row, column = best_window(score[part], (32, 32))
        window = weight[part][row : row + 32, column : column + 32]
        torch.testing.assert_close(found.matrices["2.qkv"][32 * i : 32 * (i + 1)], window, rtol=0, atol=0)


def test_a_tied_teacher_counts_both_gradients(tmp_path):
    bench = bench_of(teacher=TEACHER | {"tied": True})
    found = Seeking(update=LORA, recipe="original").extract(bench, tmp_path)
    slow = slow_sensitivity(tiny_model("llama", **TEACHER, tied=True))["model.embed_tokens.weight"]
    row, column = best_window(slow, (320, 32))
    window = tiny_model("llama", **TEACHER, tied=True).lm_head.weight.detach()[
        row : row + 320, column : column + 32
    ]
    torch.testing.assert_close(found.matrices["head"], window, rtol=0, atol=0)
    torch.testing.assert_close(found.matrices["embed"], window.T, rtol=0, atol=0)


def test_controls_change_what_they_say(tmp_path):
    plain, layers, structure, other = (
        Seeking(update=LORA, **change).extract(bench_of(), tmp_path / str(i))
        for i, change in enumerate(
            ({}, {"layers": "random"}, {"structure": "random"}, {"structure": "rows_columns"})
        )
    )
    assert layers.scores == plain.scores
    assert len({pair.teacher for pair in layers.pairs}) == 4
    assert structure.pairs == other.pairs == plain.pairs
    caught = {
        kind: sum(cut.caught for cuts in one.cuts.values() for cut in cuts)
        for kind, one in (("window", plain), ("random", structure), ("free", other))
    }
    assert caught["free"] > caught["window"] > caught["random"]


def test_kept_layers_are_ascending_and_random_ones_follow_the_seed():
    scores = [0.1, 0.9, 0.5, 0.5, 0.7, 0.0]
    assert Seeking()._kept(scores, 3, 0) == [2, 3, 5]  # the lower one among equals
    method = Seeking(layers="random")
    chosen = {tuple(method._kept(scores, 3, seed)) for seed in range(20)}
    assert len(chosen) > 5
    assert all(list(one) == sorted(set(one)) and len(one) == 3 for one in chosen)
    assert method._kept(scores, 3, 1) == method._kept(scores, 3, 1)


def test_results_come_back_as_they_were_saved(tmp_path):
    method = Seeking(update=LORA, structure="rows_columns")
    found = method.extract(bench_of("gpt2"), tmp_path / "sums")
    aligned = method.align(bench_of("gpt2"), found, None)
    found.save(tmp_path)
    aligned.save(tmp_path)
    again, back = SeekingExtraction.load(tmp_path), SeekingAlignment.load(tmp_path)
    for field in dataclasses.fields(found):
        if field.name not in ("cuts", "matrices"):
            assert getattr(again, field.name) == getattr(found, field.name), field.name
    assert again.tables() == found.tables()
    assert back.tables() == aligned.tables()
    assert again.cuts.keys() == found.cuts.keys()
    for key, matrix in found.matrices.items():
        assert torch.equal(again.matrices[key], matrix)
        assert all(torch.equal(a, b) for a, b in zip(back.factors[key], aligned.factors[key], strict=True))
        for one, two in zip(again.cuts[key], found.cuts[key], strict=True):
            assert torch.equal(one.rows_n, two.rows_n)
            assert torch.equal(one.columns_m, two.columns_m)


def test_tables_and_warnings(tmp_path):
    bench = bench_of()
    ids, prompts = rows().input_ids, rows().prompt_lengths
    bench._encoded["extract"] = Encoded(input_ids=[*ids, [5, 6]], prompt_lengths=[*prompts, 2])
    method = Seeking(update=LORA)
    found = method.extract(bench, tmp_path)
    layers, cuts = found.tables()
    assert "sensitivity, 3 seeds" in layers.title
    assert [row[0] for row in layers.rows] == ["1", "2", "3", "4"]
    assert {row[0]: row[1] for row in cuts.rows} == dict.fromkeys(("up", "down", "v", "o"), "4")
    assert "1 extract rows have no answer token" in found.warnings()[0]
    (start,) = method.align(bench, found, None).tables()
    assert {row[2] for row in start.rows} == {"4"}
    assert bench.teacher_meter.forward_tokens == sum(map(len, ids)) + 2


def test_alignment_holds_the_leading_part_of_each_matrix(tmp_path):
    method = Seeking(update=LORA)
    found = method.extract(bench_of(), tmp_path)
    aligned = method.align(bench_of(), found, None)
    for key, (A, B) in aligned.factors.items():
        singular = torch.linalg.svdvals(found.matrices[key])
        share = float(singular[:4].square().sum() / singular.square().sum())
        assert aligned.energy[key] == pytest.approx(share, rel=1e-4)
        rest = found.matrices[key] - 2.0 * B @ A
        torch.testing.assert_close(torch.linalg.svdvals(rest)[0], singular[4], rtol=1e-3, atol=1e-4)
    random = Seeking(update=LORA, spectrum="gaussian").align(bench_of(), found, None)
    assert random.energy == pytest.approx(aligned.energy, rel=1e-4)
    assert not torch.allclose(random.factors["1.up"][0], aligned.factors["1.up"][0], atol=1e-2)
    assert not torch.allclose(random.factors["1.up"][0], random.factors["2.up"][0], atol=1e-2)


@pytest.mark.parametrize(
    ("change", "targets", "message"),
    [
        ({"student": {"width": 64}}, ["up"], r"student's 'up' is 128 x 64 .* teacher's 96 x 48"),
        ({"student": {"intermediate_size": 100}}, ["down"], "student's 'down' is 32 x 100"),
        ({"student": {"num_key_value_heads": 4}}, ["v"], "'v' is 32 x 32 .* 24 x 48"),
        ({"student": {"depth": 7}}, ["up"], "student has 7 and the teacher 6"),
        ({"student": {"vocab": 400}}, ["head"], "'head' is 400 x 32"),
        ({"student": {"tied": True}}, ["up", "embed"], "one tensor"),
        ({"rank": 17}, ["up", "v"], "rank=17 is more than the student's 'v' .* from 1 to 16"),
        ({"family": "gpt_neox"}, ["v"], r"mixed per head.*method\.update\.targets=\[up,down,o\]"),
        ({"family": "gpt2"}, ["gate"], "no projection 'gate'; they have qkv, o, up, down"),
        ({"teacher_family": "gpt2"}, ["v"], "no counterpart|no projection"),
    ],
)
def test_pairs_that_are_refused(change, targets, message):
    family = change.get("family", "llama")
    sizes = {key: value for key, value in STUDENT.items() if key != "seed"} | change.get("student", {})
    teacher = skeleton(tiny_config(change.get("teacher_family", family), depth=6, width=48))
    student = skeleton(tiny_config(family, **sizes))
    with pytest.raises(RequestError, match=message):
        check_pair_shapes(teacher, student, targets, change.get("rank", 4), 4.0)


def test_refused_before_a_weight_is_loaded(tmp_path):
    bench = bench_of(student=STUDENT | {"width": 64})
    del bench.__dict__["teacher"], bench.__dict__["student"]
    with pytest.raises(RequestError, match="does not fit into the teacher's"):
        Seeking(update=LORA).extract(bench, tmp_path)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2", "gpt_neox", "opt"])
@pytest.mark.parametrize("tied", [False, True])
def test_skeleton_has_the_shapes_of_the_model(family, tied):
    bare, real = skeleton(tiny_config(family, tied=tied)), Architecture.of(tiny_model(family, tied=tied))
    assert bare.tied == real.tied == tied
    assert {n: p.shape for n, p in bare.model.named_parameters()} == {
        n: p.shape for n, p in real.model.named_parameters()
    }
    assert all(p.is_meta for p in bare.model.parameters())


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="Seeking starts adapters"):
        Seeking(update=Update(kind="full"))
    with pytest.raises(ValueError, match="PiSSA starts adapters"):
        Pissa(update=Update(kind="full"))
    with pytest.raises(ValueError, match="set recipe to null"):
        Seeking(update=Update(targets=["q"]))
    assert Seeking(recipe=None, update=Update(targets=["q"])).targets == ["q"]
    assert Seeking(recipe="original").targets == RECIPES["original"]
    assert Seeking().targets == ["up", "down", "v", "o"]


FAMILIES = ["llama", "gpt2"]  # the others are in the contract


@pytest.fixture
def request_of(tmp_path, tiny_request):
    def request(family, *more):
        for role, sizes in (("teacher", TEACHER), ("student", STUDENT)):
            tiny_model(family, **sizes).save_pretrained(tmp_path / role)
            tiny_tokenizer().save_pretrained(tmp_path / role)
        chosen = [f"model.{role}.checkpoint={tmp_path / role}" for role in ("teacher", "student")]
        return [*tiny_request, *chosen, "method.update.rank=4", *more]

    return request


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["seeking", pytest.param("pissa", marks=pytest.mark.slow)])
def test_adapter_and_checkpoint_of_a_request_agree(pkt, request_of, family, method, tmp_path):
    result = pkt("transfer", f"method={method}", *request_of(family, "optim.lr=3e-3"))
    assert result.code == 0, result.err
    (folder,) = (pkt.outputs / "store" / "transfer").glob("*/model")
    before, after = (
        load_file(tmp_path / "student" / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    changed = {name.split(".")[-2] for name, value in after.items() if not torch.equal(value, before[name])}
    llama = {"up_proj", "down_proj", "v_proj", "o_proj"}
    assert changed == ({"c_attn", "c_proj", "c_fc"} if family == "gpt2" else llama)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    untouched = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    adapted = PeftModel.from_pretrained(untouched, folder.parent / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        one, two = adapted(input_ids=ids).logits, merged(input_ids=ids).logits
    torch.testing.assert_close(one, two, atol=2e-5 * two.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        ["method=seeking"],
        pytest.param(["method=seeking", "method.recipe=original"], marks=pytest.mark.slow),
        pytest.param(["method=pissa"], marks=pytest.mark.slow),
    ],
)
def test_a_vanishing_learning_rate_leaves_the_student(pkt, request_of, more, tmp_path):
    result = pkt("transfer", *more, *request_of("llama", "optim.lr=1e-30"))
    assert result.code == 0, result.err
    (folder,) = (pkt.outputs / "store" / "transfer").glob("*/model")
    before, after = (
        load_file(tmp_path / "student" / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    for name, value in after.items():
        assert torch.equal(value, before[name]), name


@pytest.mark.slow
def test_bfloat16_request_with_every_matrix(pkt, request_of):
    dtypes = ["model.teacher.dtype=bfloat16", "model.student.dtype=bfloat16"]
    result = pkt("transfer", "method=seeking", *request_of("llama", "method.recipe=original", *dtypes))
    assert result.code == 0, result.err
    (folder,) = (pkt.outputs / "store" / "transfer").glob("*/model")
    for name, value in load_file(folder / "model.safetensors").items():
        assert value.dtype == torch.bfloat16, name
        assert torch.isfinite(value).all(), name


@pytest.mark.slow
def test_stages_print_their_tables(pkt, request_of):
    request = request_of("llama")
    shown = pkt("extract", "method=seeking", *request)
    assert shown.code == 0, shown.err
    assert "teacher layers kept" in shown.out
    assert "sensitivity caught" in shown.out
    aligned = pkt("align", "method=seeking", *request)
    assert "squared norm held" in aligned.out
    assert "reused" in aligned.out


def test_a_wrong_pair_is_one_message(pkt, request_of, tmp_path):
    request = request_of("llama")
    swapped = [
        f"model.teacher.checkpoint={tmp_path / 'student'}",
        f"model.student.checkpoint={tmp_path / 'teacher'}",
    ]
    result = pkt("extract", "method=seeking", *request, *swapped)
    assert result.code != 0
    assert "keeps as many teacher layers as the student has" in result.err
    result = pkt("transfer", "method=seeking", *request, "method.update.kind=full")
    assert result.code != 0
    assert "Seeking starts adapters" in result.err
