"""Chat templates that ask for the time, and templates that cannot be relied on."""

from __future__ import annotations

import json
import shutil
from datetime import datetime

import pytest

from pkt.data.chat import Chat
from pkt.errors import RequestError
from tiny import tiny_tokenizer

TURN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
CLOCK = "{{ strftime_now('%d %b %Y %H:%M:%S') }} " + TURN
DICE = "{{ range(9999) | random }} " + TURN


def test_a_template_is_told_the_requests_time():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CLOCK
    text = Chat(time=datetime(2024, 7, 26, 12)).prompt(tokenizer, "Hi")
    assert text == "26 Jul 2024 12:00:00 [user] Hi\n[assistant] "


@pytest.fixture
def chatting(pair, tmp_path, tiny_request):
    """Return a function that makes a request for the pair with another chat template on both sides."""

    def make(template: str) -> list[str]:
        words = [word for word in tiny_request if ".checkpoint=" not in word]
        for role in ("teacher", "student"):
            folder = tmp_path / role
            shutil.copytree(pair[role], folder)
            for file in folder.glob("*.jinja"):
                file.write_text(template, encoding="utf-8")
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            if "chat_template" in settings:
                settings["chat_template"] = template
                (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
            words.append(f"model.{role}.checkpoint={folder}")
        return [*words, "model.chat_template=true"]

    return make


def stages(err_or_out: str) -> list[list[str]]:
    return [
        line.split()[:2]
        for line in err_or_out.splitlines()
        if line.split()[1:2] in (["computed"], ["reused"])
    ]


@pytest.mark.slow
def test_prompts_are_the_same_a_minute_later(pkt, chatting):
    words = chatting(CLOCK)
    assert pkt("align", *words).code == 0
    later = pkt("transfer", *words)
    assert later.code == 0, later.err
    assert stages(later.out) == [["extract", "reused"], ["align", "reused"], ["transfer", "computed"]]
    other = pkt("align", *words, "model.chat_time=2030-01-01")
    assert stages(other.out)[-1] == ["align", "computed"]  # another prompt is another key


def test_a_template_that_throws_dice_is_refused_before_results_are_mixed(pkt, chatting):
    words = chatting(DICE)
    assert pkt("align", *words).code == 0
    later = pkt("transfer", *words)
    assert later.code == 1
    assert "gives another text each time" in later.err


def test_a_time_that_is_none_is_refused(pkt):
    told = pkt("align", "model.chat_time=yesterday")
    assert told.code == 2
    assert "model.chat_time: a date" in told.err


PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}"
    "{% endfor %}</s>{% endfor %}<assistant>"
)


def test_a_template_may_want_contents_as_parts():
    """As those of models that also see: what is a text alone they pass over."""
    tokenizer, chat = tiny_tokenizer(), Chat(time=datetime(2024, 7, 26, 12))
    tokenizer.chat_template = PARTS
    assert chat.prompt(tokenizer, "Hi there") == "<user>Hi there</s><assistant>"
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert chat.render(tokenizer, asked) == "<system>Be kind.</s><user>Hi</s><assistant>"
    tokenizer.chat_template = (
        "{% if messages[0].content is string %}{{ raise_exception('parts') }}{% endif %}" + PARTS
    )
    assert chat.prompt(tokenizer, "Hi there") == "<user>Hi there</s><assistant>"
    tokenizer.chat_template = TURN.replace("m.content", "m.content | upper")
    assert "[user] HI" in chat.prompt(tokenizer, "Hi")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("hello", "does not write what the user says"),
        (TURN.replace("m.content", "m.content[:10]"), "does not write what the user says"),
        (TURN + "{{ 1 / 0 }}", "does not take a conversation of user: division by zero"),
        (TURN + "{{ '{role}'.format(roll=1) }}", "does not take a conversation of user"),
        (TURN + "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "does not take a conversation of user"),
    ],
)
def test_a_template_that_cannot_be_relied_on_is_refused(template, says):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(RequestError, match=says):
        Chat(time=datetime(2024, 7, 26, 12)).prompt(tokenizer, "Hi, how are you?")
