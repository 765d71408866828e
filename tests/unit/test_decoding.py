"""A model's own generation settings: left out or applied, as asked; in the score and in its key."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import GenerationConfig

from pkt.errors import RequestError
from pkt.evaluation.decoding import own
from pkt.evaluation.quiet import quiet
from scoring import scored
from tiny import tiny_model, tiny_tokenizer

TEXTS = ["Ada has", "The answer is: yes or", "def f3(x):\n    return", "Ben"]
ASKED = {"until": ["!"], "max_gen_toks": 8}
SETTINGS = [
    {"repetition_penalty": 3.0},
    {"no_repeat_ngram_size": 1},
    {"min_new_tokens": 8, "suppress_tokens": list(range(3, 200))},
    {"begin_suppress_tokens": list(range(2, 300))},
    {"forced_eos_token_id": 2, "bad_words_ids": [[n] for n in range(5, 250)]},
    {"num_beams": 3, "length_penalty": 0.2, "num_return_sequences": 2},
    {"exponential_decay_length_penalty": [1, 9.0]},
    {"sequence_bias": [[[n], -50.0] for n in range(3, 200)]},
    {"stop_strings": ["a", "e", " "]},
    {"guidance_scale": 4.0},
]
NOTHING = {
    "do_sample": True,
    "max_length": 99,
    "max_new_tokens": 3,
    "use_cache": False,
    "temperature": 0.3,
    "top_k": 2,
}


def model_with(settings):
    model = tiny_model(depth=2)
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, **settings)
    return model


def asked(asking=ASKED):
    from lm_eval.api.instance import Instance

    return [
        Instance("generate_until", {}, (text, dict(asking)), n, metadata=("t", n, 1))
        for n, text in enumerate(TEXTS)
    ]


def answers(settings, *, follow, asking=ASKED, batch_size=3):
    with quiet():
        from pkt.evaluation.scorer import Scorer

    model, follows = model_with(settings), ["t"] if follow else []
    judge = Scorer(model, tiny_tokenizer(), batch_size=batch_size, follow=follows)
    return judge.generate_until(asked(asking)), judge.decoded["t"]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: next(iter(one)))
def test_neutral_leaves_them_out_and_model_applies_them_as_stock_does(settings):
    plain, _ = answers({}, follow=False)
    left, how = answers(settings, follow=False)
    assert left == plain
    assert how["decoding"] == "neutral"
    assert how["settings"] == {}
    assert how["of_the_model"].keys() >= settings.keys() - {"num_return_sequences"}
    applied, how = answers(settings, follow=True)
    assert how["settings"] == how["of_the_model"] != {}
    with quiet():
        from lm_eval.models.huggingface import HFLM

        stock = HFLM(
            pretrained=model_with(settings), tokenizer=tiny_tokenizer(), backend="causal", batch_size=1
        )
        if {
            "stop_strings",
            "num_beams",
        } & settings.keys():  # stock fails on these: no tokenizer; two answers for a row
            assert applied != plain
        else:
            assert applied == stock.generate_until(asked(), disable_tqdm=True) != plain


@pytest.mark.parametrize(
    "settings",
    [
        {"no_repeat_ngram_size": 1},
        {"min_length": 9},
        {"encoder_repetition_penalty": 3.0},
        {"encoder_no_repeat_ngram_size": 1},
        {"token_healing": True},
        {"watermarking_config": {"bias": 4.0}},
    ],
    ids=lambda one: next(iter(one)),
)
def test_an_answer_is_the_same_whatever_rows_are_beside_it(settings):
    """Padding would count as text: as tokens said before, or as a part of the least length."""
    alone, together = (answers(settings, follow=True, batch_size=size)[0] for size in (1, 4))
    assert together == alone


def test_settings_that_are_no_plain_numbers_are_kept_as_json():
    config = GenerationConfig(watermarking_config={"bias": 4.0}, sequence_bias={(5,): 9.0})
    assert json.loads(json.dumps(own(config, drawn=False)))["watermarking_config"]["bias"] == 4.0


@pytest.mark.parametrize(
    "settings", [{"penalty_alpha": 0.6, "top_k": 4}, {"dola_layers": "low"}, {"sequence_bias": [[5, 9.0]]}]
)
def test_settings_that_transformers_does_not_get_along_with_are_named(settings):
    name = next(iter(settings))
    with pytest.raises(RequestError, match=rf"generation settings {name}=.*eval\.decoding=neutral"):
        answers(settings, follow=True)
    assert answers(settings, follow=False)[0] == answers({}, follow=False)[0]


@pytest.mark.parametrize("written", [2, [2], "</s>", ["</s>"], None])
def test_an_end_token_may_be_written_as_text(written):
    with quiet():
        from pkt.evaluation.scorer import Scorer

    model = model_with({})
    model.generation_config.eos_token_id = written
    assert Scorer(model, tiny_tokenizer(), batch_size=1)._ends() == [2]


def test_what_changes_no_greedy_answer_is_not_told():
    assert own(GenerationConfig(**NOTHING), drawn=False) == {}
    assert own(GenerationConfig(**NOTHING), drawn=True) == {"temperature": 0.3, "top_k": 2}
    assert own(GenerationConfig(), drawn=True) == {}
    known = GenerationConfig(assistant_early_exit=3, token_healing=True, num_beams=1, length_penalty=0.5)
    assert own(known, drawn=False) == {"token_healing": True}


def test_drawn_answers_keep_to_their_own_settings_unless_told():
    drawn = ASKED | {"do_sample": True, "temperature": 1.0}
    plain, _ = answers({}, follow=False, asking=drawn)
    narrow = {"top_k": 1, "min_p": 0.9, "typical_p": 0.2}
    assert answers(narrow, follow=False, asking=drawn)[0] == plain
    greedy, _ = answers({}, follow=False)
    applied, how = answers({"top_k": 1}, follow=True, asking=drawn)
    assert applied == greedy
    assert how["settings"] == {"top_k": 1}
    assert answers({}, follow=True, asking=drawn)[1]["settings"] == {"top_k": 50}  # stock's


def test_a_task_files_own_settings_are_followed_in_either_way():
    asking = ASKED | {"repetition_penalty": 3.0}
    wanted, _ = answers({"repetition_penalty": 3.0}, follow=True)
    for follow in (False, True):
        assert answers({}, follow=follow, asking=asking)[0] == wanted


@pytest.mark.parametrize("asked_for", [None, "neutral", "model"])
def test_each_task_has_its_own_default(task_folder, asked_for):
    model = model_with({"repetition_penalty": 3.0})
    names = ["foreign_sums", "foreign_choice", "nano_math"]
    options = {"task_path": str(task_folder), "limit": 2, "max_new_tokens": 3, "decoding": asked_for}
    how = scored(model, tiny_tokenizer(), names, **options).decoding
    assert {task: one["decoding"] for task, one in how.items()} == {
        "foreign_sums": asked_for or "model",
        "nano_math": asked_for or "neutral",
    }
    applied = {task: one["settings"] for task, one in how.items() if one["decoding"] == "model"}
    assert all(settings == {"repetition_penalty": 3.0} for settings in applied.values())
    assert model.generation_config.repetition_penalty == 3.0


@pytest.fixture
def penalised(pair, tmp_path, tiny_request):
    """Return a request whose student's folder asks for a penalty."""
    folder = tmp_path / "student"
    shutil.copytree(pair["student"], folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 3.0}))
    words = [word for word in tiny_request if "student.checkpoint" not in word]
    return [*words, f"model.student.checkpoint={folder}", "method=identity", "eval.models=[student]"]


@pytest.mark.slow
def test_the_settings_are_in_the_score_and_in_its_key(pkt, penalised):
    neutral = pkt("eval", *penalised)
    assert neutral.code == 0, neutral.err
    assert "repetition_penalty=3.0) are left out of its answers to custom; eval.decoding=model" in neutral.err
    model = pkt("eval", *penalised, "eval.decoding=model")
    assert "are applied to its answers to custom; eval.decoding=neutral leaves them out" in model.err
    assert "what the model's generation settings change" in model.out + model.err
    keys = {
        line.split()[-1]
        for told in (neutral, model)
        for line in told.out.splitlines()
        if "eval student" in line
    }
    assert len(keys) == 2
    runs = sorted(pkt.outputs.rglob("runs/**/scores.json"))
    how = [json.loads(run.read_text())["decoding"]["student"]["custom"] for run in runs]
    assert [one["decoding"] for one in how] == ["neutral", "model"]
    assert [one["settings"] for one in how] == [{}, {"repetition_penalty": 3.0}]
