from types import SimpleNamespace

import pytest
import torch

from pkt.data.encoding import encode
from pkt.errors import RequestError
from pkt.evaluation.quiet import quiet
from pkt.models.load import context_length
from pkt.models.outline import Outline
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
    monkeypatch.setattr("pkt.evaluation.asking.TOKENS_PER_ROW", 8)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    one, many = (scorer(model, tokenizer, size).loglikelihood(requests(*PAIRS)) for size in (1, 64))
    assert [value for value, _ in one] == pytest.approx([value for value, _ in many], rel=1e-5)


def test_tokens_are_those_of_training():
    tokenizer = tiny_tokenizer(bos=True)
    rows = [{"id": "a", "prompt": "Ada has 3 apples. ", "answer": " How many"}]
    encoded = encode(rows, tokenizer, max_length=128)
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


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    ("prompt", "answer"), [("Ada has 3", " apples"), ("", "Ada has 3 apples."), ("", "A")]
)
def test_training_and_scoring_read_the_same_tokens(bos, prompt, answer):
    tokenizer = tiny_tokenizer(bos=bos)
    judge, read = scorer(tiny_model(), tokenizer), []
    original = judge._score
    judge._score = lambda batch, *more: (read.extend(batch), original(batch, *more))
    judge.loglikelihood(requests((prompt, answer)))
    rows = [{"id": "a", "prompt": prompt, "answer": answer}]
    encoded = encode(rows, tokenizer, max_length=64)
    assert [list(ids) for ids in read] == [
        encoded.input_ids[0][:-2]
    ]  # without the answer's last token, and the end
    supervised = len(encoded.input_ids[0]) - 1 - encoded.prompt_lengths[0]
    assert judge.hits[prompt, answer].tokens == supervised


@pytest.mark.parametrize("most", [12, 500])
def test_a_prompt_is_continued_as_far_as_the_context_goes(most):
    model, tokenizer = tiny_model(context=16), tiny_tokenizer()
    judge = scorer(model, tokenizer, 4)
    prompts = [
        "Ada",
        "Ada has 3",
        "Ada has 3 apples. How many",
        "Ada has 3 apples. How many apples has Ben and Cleo?",
    ]
    texts = judge.generate_until(requests(*((prompt, {"max_gen_toks": most}) for prompt in prompts)))
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tokenizer(prompt)["input_ids"][-14:]
        new = min(most, 16 - len(ids))
        whole = model.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False, pad_token_id=0)
        assert text == tokenizer.decode(whole[0, len(ids) :], skip_special_tokens=True), prompt
    assert judge.cut == {prompt for prompt in prompts if len(tokenizer(prompt)["input_ids"]) > 14}
    assert judge.cut != set(prompts)


def test_a_prompt_leaves_as_many_tokens_as_are_asked_for_where_half_of_the_context_holds_them():
    model, tokenizer = tiny_model(context=16), tiny_tokenizer()
    judge, prompt = scorer(model, tokenizer), "Ada has 3 apples. How many apples has Ben?"
    (text,) = judge.generate_until(requests((prompt, {"max_gen_toks": 6})))
    ids = tokenizer(prompt)["input_ids"][-10:]
    new = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert text == tokenizer.decode(new[0, len(ids) :], skip_special_tokens=True)
    assert judge.cut == {prompt}


LONG = (" ".join(["Ada has 3 apples."] * 9), "Ben", " ".join(["How many apples has Cleo?"] * 5))


def test_long_prompts_are_cut_as_lm_eval_cuts_them():
    model, tokenizer = tiny_model(context=32), tiny_tokenizer(bos=True)
    with quiet():
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        theirs = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=3)

    def asked(kind, *arguments):
        return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]

    pairs = [(text, " yes or no") for text in LONG]
    ours = scorer(model, tokenizer, 3)
    found = ours.loglikelihood(asked("loglikelihood", *pairs))
    with quiet():
        wanted = theirs.loglikelihood(asked("loglikelihood", *pairs), disable_tqdm=True)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], rel=1e-5)
    assert ours.cut == {LONG[0], LONG[2]}
    texts = [(text, {"until": ["!"], "max_gen_toks": 12, "do_sample": False}) for text in LONG]
    with quiet():
        assert ours.generate_until(asked("generate_until", *texts)) == theirs.generate_until(
            asked("generate_until", *texts), disable_tqdm=True
        )


def test_an_answer_longer_than_the_context_is_refused():
    judge = scorer(tiny_model(context=16), tiny_tokenizer())
    with pytest.raises(RequestError, match="context holds 16"):
        judge.loglikelihood(requests(("Ada", "has 3 apples. " * 9)))


DRAWN = {"until": [], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}


def test_draws_follow_the_seed_and_not_the_batch():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    texts = ["Ada has", "The answer is: yes or", "Ada has", "Ben", "Ada has"]
    asked = requests(*((text, DRAWN) for text in texts))
    one, many = (scorer(model, tokenizer, size).generate_until(asked) for size in (1, 5))
    assert one == many
    assert len({one[0], one[2], one[4]}) == 3  # a prompt that is asked again is drawn again
    alone = scorer(model, tokenizer).generate_until(requests(("Ada has", DRAWN)))
    assert alone == one[:1]
    with quiet():
        from pkt.evaluation.scorer import Scorer
    assert Scorer(model, tokenizer, batch_size=4, seed=1).generate_until(asked) != one


def test_a_cold_draw_is_greedy_and_narrow_top_p_too():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    texts = ["Ada has", "The answer is: yes or", "Ben"]
    greedy = scorer(model, tokenizer).generate_until(
        requests(*((text, {"until": [], "max_gen_toks": 6}) for text in texts))
    )
    for change in ({"temperature": 1e-4}, {"top_p": 1e-6}):
        settings = DRAWN | change
        assert scorer(model, tokenizer).generate_until(requests(*((t, settings) for t in texts))) == greedy


def test_draws_have_the_softmaxs_frequencies():
    from pkt.evaluation.drawing import Draw
    from pkt.evaluation.sampling import row_seed

    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0]).repeat(4000, 1)
    picks = Draw([row_seed(0, "p", n) for n in range(4000)], 0.5, {})(torch.zeros(4000, 1).long(), logits)
    shares = (picks == 0).double().mean(0)
    torch.testing.assert_close(shares, (logits[0].double() / 0.5).softmax(-1), atol=0.02, rtol=0.0)
    assert shares[2] == 0


def test_the_users_tokenizer_keeps_its_missing_padding_token():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    judge = scorer(tiny_model(), tokenizer)
    assert tokenizer.pad_token is None
    assert judge.generate_until(requests(("Ada", {"max_gen_toks": 2}), ("Ada has 3", {"max_gen_toks": 2})))


def test_settings_of_task_files():
    judge = scorer(tiny_model(), tiny_tokenizer())
    with quiet():
        from pkt.evaluation.scorer import Settings

    def told(given):
        return judge._told("", given)

    assert told({"until": "\n\n"}) == Settings(most=256, until=("\n\n",))
    assert told({"max_new_tokens": 7, "until": None}) == Settings(most=7)
    assert told({"do_sample": False, "top_p": 0.5}) == Settings(most=256)
    assert told({"do_sample": True}) == Settings(most=256, temperature=1.0)
    drawn = Settings(most=256, temperature=0.2, more='{"top_p": 0.9}')
    assert told({"temperature": 0.2, "top_p": 0.9}) == drawn
    assert told({"num_beams": 3, "top_k": 4}) == Settings(most=256, more='{"num_beams": 3}')


def test_scoring_leaves_a_model_as_it_was():
    """lm-eval ties what a config calls tied, also where embedding and head of the weights are apart."""
    model, ids = tiny_model(), torch.tensor([[7, 8, 9, 30]])
    model.config.tie_word_embeddings = True
    with torch.no_grad():
        before = model(ids).logits
        scorer(model, tiny_tokenizer()).generate_until(
            requests(("Ada has", {"until": [], "max_gen_toks": 2}))
        )
        assert torch.equal(model(ids).logits, before)
    assert model.lm_head.weight is not model.model.embed_tokens.weight


@pytest.mark.parametrize("reads", [True, False])
def test_a_batch_changes_no_answer_also_where_padding_is_read_as_text(monkeypatch, reads):
    """As recurrent models do, whatever the mask says."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    whole, seen = model.forward, []

    def forward(input_ids=None, attention_mask=None, position_ids=None, **more):
        seen.append(len(input_ids))
        own = {} if reads else {"attention_mask": attention_mask, "position_ids": position_ids}
        return whole(input_ids=input_ids, **own, **more)

    monkeypatch.setattr(model, "forward", forward)
    how = {"until": [], "max_gen_toks": 5}
    asked = requests(
        *((text, how) for text in ("Ada has 3 apples and", "Ada", "The answer is:", "Ben", "a b c d e"))
    )
    one, many = (scorer(model, tokenizer, size).generate_until(asked) for size in (1, 8))
    assert one == many
    assert (max(seen) == 5) is not reads


def test_a_row_that_has_ended_is_filled_with_a_token_that_the_model_has():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # without resizing the embedding
    assert tokenizer.pad_token_id >= model.get_input_embeddings().weight.shape[0]
    judge = scorer(model, tokenizer)
    texts, how = [f"Ada has {n}" * n for n in (1, 2, 3)], {"until": [], "max_gen_toks": 12}
    free = judge.generate_until(requests(*((text, how) for text in texts)))
    # what one row writes first ends it, while the others go on
    judge._ends = lambda: [tokenizer(free[0], add_special_tokens=False)["input_ids"][0]]
    assert len(judge.generate_until(requests(*((text, how) for text in texts)))) == 3


@pytest.mark.parametrize("name", ["max_seq_len", "max_target_positions", "n_positions"])
def test_scoring_knows_the_context_that_training_knows(name):
    model = tiny_model()
    object.__setattr__(model.config, "max_position_embeddings", None)  # as of families that call it otherwise
    setattr(model.config, name, 24)
    assert scorer(model, tiny_tokenizer()).max_length == context_length(model.config) == 24
    assert Outline.of(model.config).context == 24  # by which rows are measured


class Strict:
    """A tokenizer that raises at ids that it does not have, as slow ones do."""

    eos_token_id = 2

    def __init__(self, tokenizer):
        self.own = tokenizer

    def __len__(self):
        return len(self.own)

    def decode(self, ids, **options):
        assert all(index < len(self) for index in ids)
        return self.own.decode(ids, **options)


def test_a_token_of_a_heads_padding_has_no_text():
    tokenizer = tiny_tokenizer()
    ids = tokenizer(" apples", add_special_tokens=False)["input_ids"]
    judge, settings = scorer(tiny_model(), tokenizer), SimpleNamespace(until=())
    judge.tokenizer = Strict(tokenizer)
    assert (
        judge.said([[]], [[*ids, len(tokenizer) + 3]], settings)
        == judge.said([[]], [ids], settings)
        == [" apples"]
    )
