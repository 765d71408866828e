"""Credentials are found by place, form and value; what is none stays as it is."""

from __future__ import annotations

import logging

import pytest

from pkt.secrets import HIDDEN, Formatter, forget, hide, hide_word, learn, telling, without

TOKEN = "hf_aB3dE5gH7jK9mN1pQ3sT5vW7xY9z"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("data_dir=https://me:pa55w0rd@host.org/rows", f"data_dir=https://{HIDDEN}@host.org/rows"),
        ("postgres://bob:s3/c?r#t@db/x", f"postgres://{HIDDEN}@db/x"),
        ("https://h/x?id=1&key=abc#top", f"https://h/x?id=1&key={HIDDEN}#top"),
        ("s3://AKIAABCDEFGHIJKLMNOP@bucket/x", f"s3://{HIDDEN}@bucket/x"),
        ("https://host/x?id=3&token=abc123&page=2", f"https://host/x?id=3&token={HIDDEN}&page=2"),
        (
            "https://h/x?X-Amz-Signature=0f9a&X-Amz-Date=1",
            f"https://h/x?X-Amz-Signature={HIDDEN}&X-Amz-Date=1",
        ),
        ("https://blob/x?sv=2024&sig=a%2Fb", f"https://blob/x?sv=2024&sig={HIDDEN}"),
        (f"tracker.tags=[{TOKEN}]", f"tracker.tags=[{HIDDEN}]"),
        ("  api_key: sesame", f"  api_key: {HIDDEN}"),
        ("password: 'open sesame'", f"password: {HIDDEN}"),
        ("Authorization: Bearer abc.def-123456", f"Authorization: {HIDDEN} {HIDDEN}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", HIDDEN),
        ("ghp_0123456789abcdefghijABCDEFGHIJ", HIDDEN),
    ],
)
def test_credentials_are_hidden(text, shown):
    assert without(text) == shown
    assert without(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "key: 0123456789abcdef",
        "pad_token: <pad>",
        "data.train=/home/me/rows@2024.jsonl",
        "https://huggingface.co/datasets/openai/gsm8k@main",
        "http://localhost:8080/rows@v2",
        "pass: 20, fail: 3",
        "token_accuracy: 0.5, max_new_tokens=64",
        "api_key: null",
        "basic knowledge, bearer of bad news",
        "model.teacher.checkpoint=org/hf_tokenizers-7b",
        "d75e03f1b2c9a4d75e03f1b2c9a4d75e03f1b2c9",
    ],
)
def test_what_is_no_credential_stays(text):
    assert without(text) == text


def test_values_of_the_environment_are_hidden(monkeypatch, tmp_path):
    monkeypatch.setenv("MYLAB_TOKEN", "open/sesame 1")
    monkeypatch.setenv("DB_PASS", "correcthorse")
    monkeypatch.setenv("SOME_SECRET", "no")  # too short to be told from text
    monkeypatch.setenv("AWS_CREDENTIALS", str(tmp_path))  # says where they are
    monkeypatch.setenv("HARMLESS", "visible")
    said = f"open/sesame 1 open%2Fsesame%201 correcthorse no {tmp_path} visible"
    assert without(said) == f"{HIDDEN} {HIDDEN} {HIDDEN} no {tmp_path} visible"


def test_data_keeps_its_shape():
    data = {
        "lab": {"api_key": "x", "key": "0f", "n": 3, "none": None},
        "urls": ("https://a:b@c/d", 2.5),
        "on": True,
    }
    assert hide(data) == {
        "lab": {"api_key": HIDDEN, "key": "0f", "n": 3, "none": None},
        "urls": (f"https://{HIDDEN}@c/d", 2.5),
        "on": True,
    }


def test_names_that_tell():
    assert all(
        telling(name) for name in ("HF_TOKEN", "hub.token", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "GH_PAT")
    )
    assert not any(
        telling(name) for name in ("tokens", "eos_token", "key", "sort_key", "method", "compass", "PATH")
    )


def test_a_log_has_none():
    record = logging.makeLogRecord({"msg": "got %s", "args": (TOKEN,)})
    assert Formatter("%(message)s").format(record) == f"got {HIDDEN}"


def test_all_below_a_telling_name_is_hidden():
    data = {"auth": {"user": "bob", "more": {"value": "open"}}, "password": 88442211, "per_token": 3}
    assert hide(data) == {
        "auth": {"user": HIDDEN, "more": {"value": HIDDEN}},
        "password": HIDDEN,
        "per_token": 3,
    }


def test_nothing_is_left_of_a_word_with_a_telling_name():
    assert hide_word("+a.password=two words") == f"+a.password={HIDDEN}"
    assert hide_word("model.name=a password=two") == f"model.name=a password={HIDDEN}"


def test_what_a_request_holds_is_known_wherever_it_turns_up():
    learn({"lab": {"password": "two words", "name": "lab"}, "auth": {"x": ["hunter22"]}})
    try:
        assert without("got two words and hunter22 of lab") == f"got {HIDDEN} and {HIDDEN} of lab"
    finally:
        forget()
    assert without("got two words") == "got two words"
