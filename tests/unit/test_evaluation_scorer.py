import math
from types import SimpleNamespace

import pytest
import torch

from pkt.data.encoding import encode
from pkt.errors import RequestError
from pkt.evaluation.quiet import quiet
from tiny import tiny_model, tiny_tokenizer

PAIRS = [
    ("Ada has 3 apples.", " How many apples has Ada?"),
    ("Ada has 3 apples.", " How many apples has Ben?"),  # shares its input with the next
    ("Ada has 3 apples.", " How many apples has Ben!"),
    ("The answer is:", " yes"),
    ("def f1(x):\n    return", " x + 1 * 1"),
    ("", " red, green"),
    ("The answer is:", " yes"),
]


def scorer(model, tokenizer, batch_size=4):
    with quiet():
        from pkt.evaluation.scorer import Scorer

        return Scorer(model, tokenizer, batch_size=batch_size)


def requests(*args):
    return [SimpleNamespace(args=each) for each in args]


def by_hand(model, prompt, answer):
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        logs = model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    right = int((logs.argmax(-1) == torch.tensor(answer)).sum())
    return float(logs[range(len(answer)), answer].sum()), right


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("bos", [False, True])
def test_loglikelihoods_are_those_of_one_pass_per_row(family, bos):
    model, tokenizer = tiny_model(family), tiny_tokenizer(bos=bos)
    judge = scorer(model, tokenizer)
    got = judge.loglikelihood(requests(*PAIRS))
    for (context, answer), (value, greedy) in zip(PAIRS, got, strict=True):
        prompt = ([1] if bos else []) + tokenizer(context, add_special_tokens=False)["input_ids"]
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
        want, right = by_hand(model, prompt or [1], tokens)
        hits = judge.hits[context, answer]
        assert value == hits.loglikelihood == pytest.approx(want, rel=1e-4)
        assert (hits.tokens, hits.right) == (len(tokens), right)
        assert greedy == (right == len(tokens))


def test_batch_size_changes_no_score(monkeypatch):
    monkeypatch.setattr("pkt.evaluation.scorer.TOKENS_PER_ROW", 8)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    one, many = (scorer(model, tokenizer, size).loglikelihood(requests(*PAIRS)) for size in (1, 64))
    assert [value for value, _ in one] == pytest.approx([value for value, _ in many], rel=1e-5)


def test_tokens_are_those_of_training():
    tokenizer = tiny_tokenizer(bos=True)
    rows = [{"id": "a", "prompt": "Ada has 3 apples. ", "answer": " How many"}]
    encoded = encode(rows, tokenizer, max_length=128, chat_template=False)
    judge = scorer(tiny_model(), tokenizer)
    prompt = judge.encode_prompts(["Ada has 3 apples. "])["Ada has 3 apples. "]
    assert prompt == encoded.input_ids[0][: encoded.prompt_lengths[0]]


def greedy(model, ids, most, stop, tokenizer):
    new = []
    while len(new) < most:
        with torch.no_grad():
            token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if token == 2:
            break
        new.append(token)
        if stop and stop in tokenizer.decode(new):
            break
    text = tokenizer.decode(new)
    return text.split(stop)[0] if stop else text


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_generation_is_greedy_decoding_row_by_row(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    texts = ["Ada has", "The answer is: yes or", "def f3(x):\n    return", "Ben", "Ada has"]
    free = {"until": [], "max_gen_toks": 12}
    whole = [greedy(model, tokenizer(text)["input_ids"], 12, "", tokenizer) for text in texts]
    assert scorer(model, tokenizer, 2).generate_until(requests(*((text, free) for text in texts))) == whole
    stop = whole[0][3:5]
    settings = {"until": [stop], "max_gen_toks": 12}
    cut = [greedy(model, tokenizer(text)["input_ids"], 12, stop, tokenizer) for text in texts]
    assert scorer(model, tokenizer, 4).generate_until(requests(*((text, settings) for text in texts))) == cut


def test_generation_ends_where_the_context_does():
    model, tokenizer = tiny_model(context=16), tiny_tokenizer()
    prompt = "Ada has 3 apples"
    used = len(tokenizer(prompt)["input_ids"])
    (text,) = scorer(model, tokenizer).generate_until(requests((prompt, {"max_gen_toks": 500})))
    new = model.generate(
        torch.tensor([tokenizer(prompt)["input_ids"]]), max_length=16, do_sample=False, pad_token_id=0
    )
    assert text == tokenizer.decode(new[0, used:], skip_special_tokens=True)


def test_rows_that_exceed_the_context_are_refused():
    judge = scorer(tiny_model(context=16), tiny_tokenizer())
    with pytest.raises(RequestError, match="holds 16"):
        judge.loglikelihood(requests(("Ada has 3 apples. " * 9, " x")))
    with pytest.raises(RequestError, match="holds 16"):
        judge.generate_until(requests(("Ada has 3 apples. " * 9, {})))


def test_the_users_tokenizer_keeps_its_missing_padding_token():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    judge = scorer(tiny_model(), tokenizer)
    assert tokenizer.pad_token is None
    assert judge.generate_until(requests(("Ada", {"max_gen_toks": 2}), ("Ada has 3", {"max_gen_toks": 2})))


def test_stop_strings_may_be_one_string_and_span_tokens():
    from pkt.evaluation.scorer import _settings

    assert _settings({"until": "\n\n"}) == (256, ("\n\n",))
    assert math.isfinite(_settings({})[0])
