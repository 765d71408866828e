"""pkt push, against a hub of our own on this machine that keeps what it is sent."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tiny import tiny_model, tiny_tokenizer

CARD = "---\nlicense: mit\nbase_model: org/base\n---\n# A model\n"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a push asks for; files come in the commit, as small ones do."""

    kept: dict[str, bytes]
    asked: list[tuple[str, dict]]
    refuses = False
    private = False
    address: str

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        own = type(self)
        if own.refuses:
            return self._say({"error": "You don't have the rights"}, 403)
        if self.path == "/api/repos/create":
            own.asked.append(("create", json.loads(body)))
            made = json.loads(body)
            own.private = own.private or bool(made.get("private")) or made.get("visibility") == "private"
            return self._say({"url": f"{own.address}/org/name"})
        if self.path == "/api/validate-yaml":
            return self._say({"warnings": [], "errors": []})
        if "/preupload/" in self.path:
            files = [
                {**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
            ]
            return self._say({"files": files})
        if "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines() if line]
            files = [line["value"] for line in lines if line["key"] == "file"]
            own.kept.update({file["path"]: base64.b64decode(file["content"]) for file in files})
            return self._say(
                {"commitUrl": f"{own.address}/org/name/commit/" + "1" * 40, "commitOid": "1" * 40}
            )
        return self._say({"error": self.path}, 404)

    def do_GET(self) -> None:
        self._say({"id": "org/name", "sha": "0" * 40, "siblings": [], "private": type(self).private})

    def _say(self, content: dict, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub():
    kind = type("OwnHub", (Hub,), {"kept": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kind.address = f"http://127.0.0.1:{server.server_port}"
    yield kind
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    tiny_model("llama", depth=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def push(hub: type[Hub], *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, since the hub's address is read when its library is imported."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")
    }
    own = {
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": "hf_own",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "pkt", "push", *words],
        env=environment | own | more,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_what_is_pushed_is_what_is_there_and_loads(hub, model, tmp_path):
    done = push(hub, f"checkpoint={model}", "repo=org/name", "private=true")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert f"{hub.address}/org/name" in done.stdout
    (made,) = [body for what, body in hub.asked if what == "create"]
    assert (made["name"], made["organization"]) == ("name", "org")
    assert made.get("private") or made.get("visibility") == "private"
    assert hub.kept == {path.name: path.read_bytes() for path in model.iterdir()}
    (tmp_path / "fetched").mkdir()
    for name, content in hub.kept.items():
        (tmp_path / "fetched" / name).write_bytes(content)
    AutoModelForCausalLM.from_pretrained(tmp_path / "fetched")


@pytest.mark.parametrize("asked", ["true", "false"])
def test_a_repository_that_others_see_than_was_asked_for_is_refused(hub, model, asked):
    """The hub passes over `private` of one that is there."""
    hub.private, hub.do_POST = asked == "false", _there(hub)
    done = push(hub, f"checkpoint={model}", "repo=org/name", f"private={asked}")
    assert done.returncode == 2
    assert (
        f"private={asked}: org/name is there, and {'public' if asked == 'true' else 'private'}" in done.stderr
    )
    assert hub.kept == {}


def _there(hub: type[Hub]):
    """Return what answers as a hub that has the repository."""
    whole = hub.do_POST

    def answer(own: Hub) -> None:
        if own.path != "/api/repos/create":
            return whole(own)
        own.rfile.read(int(own.headers.get("Content-Length", 0)))
        return own._say(
            {"error": "You already created this model repo", "url": f"{hub.address}/org/name"}, 409
        )

    return answer


def test_a_dry_run_sends_nothing_and_says_what_would_go(hub, model):
    (model / "README.md").write_text("---\ntags: [x]\n---\npkt run data.train=/home/ada/rows.jsonl\n")
    done = push(hub, f"checkpoint={model}", "repo=org/name", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in done.stdout
    assert "nothing was sent" in done.stdout
    for told in ("names no license", "names no base model", "/home/ada/rows.jsonl"):
        assert told in done.stderr
    assert (hub.asked, hub.kept) == ([], {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["repo=org/name"], "not set: checkpoint"),
        (["checkpoint=nowhere", "repo=org/name"], "no model and no adapter there"),
        (["checkpoint={model}", "repo=name"], "org/name is expected"),
        (["checkpoint={model}", "repo=org/na--me"], "org/name is expected"),
        (["checkpoint={model}", "repo=org/name."], "org/name is expected"),
        (["checkpoint={model}", "repo=org/name", "private=perhaps"], "true or false"),
        (["chekpoint={model}", "repo=org/name"], "did you mean 'checkpoint'"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(hub, model, words, told):
    done = push(hub, *(word.format(model=model) for word in words))
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert hub.kept == {}


def test_an_adapter_for_a_model_of_this_machine_is_refused(hub, model):
    (model / "config.json").rename(model / "adapter_config.json")
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/models/base"}))
    done = push(hub, f"checkpoint={model}", "repo=org/name")
    assert (done.returncode, hub.kept) == (2, {})
    assert "not on the hub" in done.stderr


def test_a_hub_that_refuses_is_told_in_its_words(hub, model):
    hub.refuses = True
    done = push(hub, f"checkpoint={model}", "repo=org/name")
    assert done.returncode == 1
    assert "did not take org/name" in done.stderr
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    offline = push(hub, f"checkpoint={model}", "repo=org/name", HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert "HF_HUB_OFFLINE" in offline.stderr


def test_a_hub_that_cannot_be_reached_is_told_in_a_line(hub, model):
    with socket.socket() as nobody:  # a port that nobody listens at
        nobody.bind(("127.0.0.1", 0))
        done = push(
            hub,
            f"checkpoint={model}",
            "repo=org/name",
            HF_ENDPOINT=f"http://127.0.0.1:{nobody.getsockname()[1]}",
        )
    assert done.returncode == 1
    assert "the hub did not take org/name" in done.stderr
    assert "Traceback" not in done.stderr
