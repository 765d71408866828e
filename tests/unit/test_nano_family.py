"""The shipped nano models, their tokenizer, and the training that makes them."""

import filecmp
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from nano.family import CONTEXT, EOS_ID, FAMILY, PAD_ID, Recipe
from nano.muon import Muon, orthogonal
from nano.rows import TASKS, rows
from nano.scoring import complete, log_likelihoods, passes, score_rows, standard_error
from nano.tokenizer import train_tokenizer
from nano.training import PROMPT_WEIGHT, new_model, pack, rate_at, train, weighted_ids

ASSETS = Path(str(files("pkt"))) / "assets" / "nano"
SHARING = ("teacher", "peer", "student", "code_teacher")
NAMES = (*SHARING, "tokens_teacher")
TINY = Recipe(
    name="tiny",
    corpus="student",
    hidden=16,
    layers=1,
    heads=2,
    kv_heads=1,
    mlp=16,
    steps=6,
    batch=2,
    warmup=2,
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(ASSETS / "student" / "tokenizer.json"))


@pytest.fixture(scope="module")
def student():
    return AutoModelForCausalLM.from_pretrained(ASSETS / "student", dtype=torch.float32).eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_loads_and_is_what_its_recipe_says(name):
    model = AutoModelForCausalLM.from_pretrained(ASSETS / name)
    recipe = next(recipe for recipe in FAMILY if recipe.name == name)
    assert model.dtype == torch.float16
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (recipe.hidden, recipe.layers)
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    assert model.config.vocab_size > recipe.hidden
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / name)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (PAD_ID, EOS_ID, None)
    assert model.generation_config.eos_token_id == EOS_ID


def test_the_family_is_small_and_shares_its_tokenizer_but_for_one():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 12_000_000
    for name in SHARING[1:]:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            assert filecmp.cmp(ASSETS / "teacher" / file, ASSETS / name / file, shallow=False)


@pytest.mark.parametrize("name", ["student", "tokens_teacher"])
def test_prompt_and_answer_can_be_tokenised_apart(name):
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / name)
    for task in TASKS:
        for row in rows(task, "train", count=300):
            parts = [tokenizer(row[key])["input_ids"] for key in ("prompt", "answer")]
            assert parts[0] + parts[1] == tokenizer(row["prompt"] + row["answer"])["input_ids"]
            assert len(parts[0]) + len(parts[1]) < CONTEXT
            assert tokenizer.decode(parts[0] + parts[1]) == row["prompt"] + row["answer"]


def test_numbers_are_single_tokens_and_any_text_survives(tokenizer):
    for number in range(100):
        assert len(tokenizer.encode(str(number)).ids) == len(tokenizer.encode(f" {number}").ids) == 1
    for text in ("  two  spaces\n\ttab", "naïve é 東京 🙂", "x=1234567", ""):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_tokenizer_of_pieces_has_digits_alone_and_any_text_survives():
    pieces = Tokenizer.from_file(str(ASSETS / "tokens_teacher" / "tokenizer.json"))
    assert pieces.encode(" 47 - 13").tokens == ["▁4", "7", "▁-", "▁1", "3"]
    for text in ("  two  spaces\n\ttab", "naïve é 東京 🙂", "x=1234567", ""):
        assert pieces.decode(pieces.encode(text).ids) == text


@pytest.mark.parametrize(("kind", "name"), [("bytes", "student"), ("pieces", "tokens_teacher")])
def test_the_tokenizers_are_those_that_training_them_anew_gives(kind, name):
    shipped = Tokenizer.from_file(str(ASSETS / name / "tokenizer.json"))
    assert train_tokenizer(kind).get_vocab() == shipped.get_vocab()


def test_packing_keeps_documents_whole_and_depends_on_the_step_only(tokenizer):
    ids, weights = pack(TINY, 3, tokenizer)
    assert ids.shape == weights.shape == (2, CONTEXT)
    assert torch.equal(ids, pack(TINY, 3, tokenizer)[0])
    assert not torch.equal(ids, pack(TINY, 4, tokenizer)[0])
    assert torch.equal(weights == 0, ids == PAD_ID)
    for row in ids.tolist():
        text = row[: row.index(PAD_ID)] if PAD_ID in row else row
        assert text[-1] == EOS_ID


def test_answers_weigh_more_than_prompts(tokenizer):
    for task in TASKS:
        row = rows(task, "train")[0]
        ids, weights = weighted_ids(row["prompt"] + row["answer"], tokenizer)
        answer = len(tokenizer.encode(row["answer"]).ids) + 1
        assert weights == [PROMPT_WEIGHT] * (len(ids) - answer) + [1.0] * answer


@pytest.mark.parametrize(
    ("document", "heavy"),
    [
        ("Mira lives in Harth.", " Harth"),
        ("3 * 4 = 12; 3 + 4 = 7.", " 12 7."),
        ("Question: What is the dish of Harth?\nAnswer: eel", " eel"),
        ("Ada baked bread at night.", ""),
    ],
)
def test_what_follows_from_the_text_weighs_most(tokenizer, document, heavy):
    ids, weights = weighted_ids(document, tokenizer)
    kept = [token for token, weight in zip(ids, weights, strict=True) if weight == 1.0]
    assert kept[-1] == EOS_ID
    assert tokenizer.decode(kept[:-1]) == heavy


def test_orthogonalised_momentum_equals_that_of_torch():
    """Up to bfloat16, in which torch computes."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 60), (60, 24), (32, 32))]
    theirs = [torch.nn.Parameter(one.detach().clone()) for one in ours]
    known: dict = {"lr": 1e-2, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    pair = Muon(ours, lr=1e-2), torch.optim.Muon(theirs, **known)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimiser in pair:
            optimiser.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)


def test_matrices_become_orthogonal():
    for shape in ((8, 20), (20, 8), (8, 8)):
        singular = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.manual_seed(1))))
        assert 0.6 < singular.min() <= singular.max() < 1.3


def test_the_rate_warms_up_and_falls():
    rates = [rate_at(TINY, step) for step in range(TINY.steps)]
    assert rates[0] == pytest.approx(TINY.rate / 2)
    assert max(rates) == pytest.approx(TINY.rate)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_killed_training_ends_with_the_same_bits(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("nano.training.EVERY", 2)
    records = []
    straight = train(TINY, new_model(TINY), tokenizer, checkpoint=tmp_path / "a.pt", report=records.append)
    for stop in (3, None):
        resumed = train(
            TINY,
            new_model(TINY),
            tokenizer,
            checkpoint=tmp_path / "b.pt",
            report=lambda record: None,
            stop_after=stop,
        )
    assert [record["step"] for record in records] == [2, 4, 6]
    for ours, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_log_likelihoods_equal_one_row_at_a_time(student, tokenizer):
    pairs = [(row["prompt"], row["answer"]) for row in rows("nano_math", "validation", count=6)]
    for (prompt, answer), found in zip(pairs, log_likelihoods(student, tokenizer, pairs), strict=True):
        first, ids = len(tokenizer.encode(prompt).ids), tokenizer.encode(prompt + answer).ids
        logs = student(torch.tensor([ids])).logits[0].detach().log_softmax(-1)
        wanted = sum(float(logs[at - 1, ids[at]]) for at in range(first, len(ids)))
        assert found == pytest.approx(wanted, abs=1e-4)


def test_the_shipped_student_knows_something(student, tokenizer):
    assert complete(student, tokenizer, [rows("nano_math", "test")[0]["prompt"]])[0].strip().isdigit()
    assert score_rows(student, tokenizer, rows("nano_math", "train", count=60)) > 0.2


def test_scoring_small_parts():
    assert passes("assert 1 == 1")
    assert not passes("assert 1 == 2")
    assert not passes("def f(:")
    assert standard_error(0.5, 100) == pytest.approx(0.05)
