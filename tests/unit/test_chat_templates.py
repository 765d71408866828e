"""Chat templates of many styles: one BOS, the end that the template writes, and the same tokens in every stage."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, processors

from pkt.data.encoding import encode, encode_prompt
from pkt.errors import RequestError
from pkt.evaluation.quiet import quiet
from tiny import CHAT, tiny_model, tiny_tokenizer

EACH = "{% for m in messages %}"
END = "{% endfor %}"


@dataclass(frozen=True, kw_only=True)
class Style:
    template: str
    specials: tuple[str, ...] = ()
    end: str = "</s>"


ROLE = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
LLAMA3 = "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
GEMMA = (
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}"
)
ZEPHYR = "{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
INST = (
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}"
)
GLM = ("[gMASK]", "<sop>")
STYLES = {
    "chatml": Style(
        template=EACH + ROLE + END + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        specials=("<|im_start|>", "<|im_end|>"),
        end="<|im_end|>",
    ),
    "chatml that thinks": Style(  # the reply is opened in another way than it is written later
        template=EACH + ROLE + END
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}",
        specials=("<|im_start|>", "<|im_end|>", "<think>"),
        end="<|im_end|>",
    ),
    "chatml that always asks": Style(
        template=EACH + ROLE + END + "{{ '<|im_start|>assistant\n' }}",
        specials=("<|im_start|>", "<|im_end|>"),
        end="<|im_end|>",
    ),
    "chatml without tokens of its own": Style(
        template=EACH + ROLE + END + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama 2": Style(template=EACH + INST + END),
    "llama 3": Style(
        template="{{ bos_token }}" + EACH + LLAMA3 + END
        + "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        specials=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        end="<|eot_id|>",
    ),
    "gemma": Style(
        template="{{ bos_token }}" + EACH + GEMMA + END
        + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        specials=("<start_of_turn>", "<end_of_turn>"),
        end="<end_of_turn>",
    ),
    "zephyr": Style(
        template=EACH + ZEPHYR + END + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        specials=("<|user|>", "<|assistant|>"),
    ),
    "mistral, whose last word is the user's": Style(
        template="{% if messages[-1].role != 'user' %}{{ raise_exception('a user speaks last') }}{% endif %}"
        "{{ bos_token }}" + EACH + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% else %}{{ m.content + '<|stop|>' }}{% endif %}" + END,
        specials=("[INST]", "[/INST]", "<|stop|>"),
        end="<|stop|>",
    ),
    "openchat, whose turns all end alike": Style(
        template=EACH + "{{ 'Correct ' + m.role + ': ' + m.content + '<|end_of_turn|>' }}" + END
        + "{% if add_generation_prompt %}{{ 'Correct assistant: ' }}{% endif %}",
        specials=("<|end_of_turn|>",),
        end="<|end_of_turn|>",
    ),
    "no end at all": Style(
        template=EACH + "{{ '<|' + m.role + '|>' + m.content }}" + END + "{{ '<|assistant|>' }}",
        specials=("<|user|>", "<|assistant|>"),
    ),
    "a blank line first": Style(template="\n\n{{ bos_token }}{{ bos_token }}" + EACH + ZEPHYR + END),
    "two BOS": Style(template="{{ bos_token + bos_token }}" + EACH + ZEPHYR + END),
}  # fmt: skip
ROWS = [
    {"id": "a", "prompt": "Ada has 3 apples. ", "answer": " yes"},
    {"id": "b", "prompt": "How many <s> has Ben?\n", "answer": "\n```python\nx"},
]


def tokenizer_of(style: Style, bos: bool) -> Any:
    tokenizer = tiny_tokenizer(bos=bos)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, special=True) for token in style.specials]}
    )
    tokenizer.chat_template = style.template
    return tokenizer


@pytest.fixture(params=[(name, bos) for name in STYLES for bos in (False, True)], ids=str)
def chatting(request: pytest.FixtureRequest) -> tuple[Style, Any, bool]:
    name, bos = request.param
    return STYLES[name], tokenizer_of(STYLES[name], bos), bos


def test_a_reply_ends_as_the_template_ends_it(chatting):
    style, tokenizer, _ = chatting
    end = tokenizer.convert_tokens_to_ids(style.end)
    assert CHAT.end(tokenizer) == end
    encoded = encode(ROWS, tokenizer, max_length=256, chat=CHAT)
    assert [ids[-1] for ids in encoded.input_ids] == [end, end]


def test_bos_comes_once_at_the_start_in_every_stage(chatting):
    style, tokenizer, bos = chatting
    encoded = encode(ROWS, tokenizer, max_length=256, chat=CHAT)
    for row, ids, length in zip(ROWS, encoded.input_ids, encoded.prompt_lengths, strict=True):
        prompt = ids[:length]
        own = row["prompt"].count("<s>")  # the user's, which stays
        assert prompt.count(1) == own + int(bos or "bos_token" in style.template)
        with quiet():
            from pkt.evaluation.scorer import Scorer

        judge = Scorer(tiny_model(depth=2, vocab=len(tokenizer)), tokenizer, batch_size=2, chat=CHAT)
        text = judge.apply_chat_template([{"role": "user", "content": row["prompt"]}])
        assert judge.encode_prompts([text])[text] == prompt


def test_generation_stops_at_the_end_of_the_reply():
    """Every token but the reply's end is suppressed, so an answer is empty, or runs to its limit."""
    tokenizer = tokenizer_of(STYLES["gemma"], bos=True)
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model = tiny_model(depth=2, vocab=len(tokenizer))
    others = [token for token in range(len(tokenizer)) if token != end]
    asking = {"max_gen_toks": 3, "suppress_tokens": others}
    with quiet():
        from pkt.evaluation.scorer import Scorer

    for chat, ends, written in ((CHAT, [end, 2], []), (None, [2], [end] * 3)):
        judge, texts = Scorer(model, tokenizer, batch_size=2, chat=chat), []
        judge._text = lambda prompt, new, until, texts=texts: texts.append(new) or ""
        judge.generate_until([SimpleNamespace(args=("Ada", asking))])
        assert texts == [written]
        assert set(judge.decoded[""]["ends"]) == set(tokenizer.convert_ids_to_tokens(ends))


def test_a_template_that_wants_more_is_refused_in_words():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('a system message comes first') }}{% endif %}" + EACH
        + "{{ m.content }}" + END
    )  # fmt: skip
    with pytest.raises(
        RequestError, match=r"a conversation of user: a system message comes first\. Set model\.chat"
    ):
        encode(ROWS, tokenizer, max_length=256, chat=CHAT)
    tokenizer.chat_template = EACH + "{{ m.content[0].text + 1 }}" + END
    with pytest.raises(RequestError, match="does not take a conversation of user"):
        CHAT.prompt(tokenizer, "Hi")
    tokenizer.chat_template = "{% for m in messages %}"
    with pytest.raises(RequestError, match="does not take a conversation"):
        CHAT.prompt(tokenizer, "Hi")


def test_bos_behind_white_space_or_twice_is_one():
    tokenizer = tiny_tokenizer(bos=True)
    assert encode_prompt(tokenizer, "<s><s><s>Ada") == encode_prompt(tokenizer, "Ada")
    assert encode_prompt(tokenizer, "\n<s>Ada").count(1) == 1


@pytest.mark.parametrize("after", [(), ("</s>",)])
def test_a_prefix_that_is_not_bos_comes_once_too(after):
    """GLM's tokenizer puts two tokens before a text, as its template does, and has no BOS."""
    tokenizer = tokenizer_of(
        Style(template="[gMASK]<sop>" + EACH + "{{ m.content }}" + END, specials=GLM), False
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in (*GLM, *after)}
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*GLM, "$A", *after]), special_tokens=list(ids.items())
    )
    tokenizer.bos_token = None
    prompt, text = CHAT.prompt(tokenizer, "Ada"), tokenizer("Ada", add_special_tokens=False).input_ids
    assert encode_prompt(tokenizer, prompt) == encode_prompt(tokenizer, "Ada") == [ids[n] for n in GLM] + text
    assert encode_prompt(tokenizer, "")[:2] == [ids[n] for n in GLM]
