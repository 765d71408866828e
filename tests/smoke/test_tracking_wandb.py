"""What a real run and a real sweep leave in their offline W&B files, and what a sync sends."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wandb_file import read_file

pytest.importorskip("wandb")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))


def own_environment() -> dict[str, str]:
    """Return the environment for a child, without the name of the W&B service of this process."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


def request_with_wandb(tiny_request: list[str]) -> list[str]:
    return [
        *(word for word in tiny_request if word != "tracker=none"),
        "tracker=wandb",
        "tracker.mode=offline",
    ]


def test_a_run_tells_scores_answers_and_where_they_came_from(pkt, tiny_request):
    words = request_with_wandb(tiny_request)
    first = pkt("run", "method=semalign_joint", *words, "tracker.examples=3")
    assert first.code == 0, first.err
    (run_dir,) = pkt.outputs.glob("runs/run/*")
    found, scores = read_file(run_dir), json.loads((run_dir / "scores.json").read_text())

    assert (found.job_type, found.exit_code) == ("run", 0)
    assert found.axes["transfer/*"] == "transfer/step"
    for role, tasks in scores["scores"].items():
        for task, score in tasks.items():
            assert found.summary[f"eval/{role}/{task}"] == pytest.approx(score["value"])
            assert f"eval/{role}/{task}/stderr" in found.summary
    assert found.summary["budget/optimiser_steps"] == scores["budget"]["optimiser_steps"]

    (file,) = run_dir.glob("wandb/offline-run-*/files/media/table/eval/examples/custom_*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"][:3] == ["id", "prompt", "target"]
    assert {"student before", "student after", "teacher", "student after: right"} <= set(table["columns"])
    assert len(table["data"]) == 3

    chain = {record.name.partition("-")[0]: record for record in found.artifacts}
    assert list(chain) == ["teacher", "student", "extraction", "alignment", "checkpoint", "scores"]
    assert [record.use_after_commit for record in chain.values()] == [True, True, False, False, False, False]
    for name, before in (("alignment", "extraction"), ("checkpoint", "alignment"), ("scores", "checkpoint")):
        inputs = json.loads(chain[name].metadata)["inputs"]
        key = json.loads(chain[before].metadata)["key"]
        assert inputs == [f"{chain[before].name}:{key}"]
        assert key in chain[before].aliases
    uploaded = [entry.path for record in found.artifacts for entry in record.manifest.contents]
    assert all(path.endswith(".json") for path in uploaded)  # no weights

    second = pkt("run", "method=semalign_joint", *words, "tracker.checkpoint=true", "optim.lr=1e-3")
    assert second.code == 0, second.err
    (other,) = (folder for folder in pkt.outputs.glob("runs/run/*") if folder != run_dir)
    again = {record.name.partition("-")[0]: record for record in read_file(other).artifacts}
    assert again["alignment"].use_after_commit  # reused: an input of this run, and the very same version
    assert again["alignment"].digest == chain["alignment"].digest
    assert not again["checkpoint"].use_after_commit
    assert "model/model.safetensors" in [entry.path for entry in again["checkpoint"].manifest.contents]


@pytest.mark.slow
def test_a_sweep_has_a_run_of_its_own_in_the_group_of_its_jobs(pkt, tiny_request):
    assert pkt("run", "-m", "method=identity,sft", *request_with_wandb(tiny_request)).code == 0
    (folder,) = pkt.outputs.glob("runs/run/multirun/*")
    jobs = [read_file(folder / number) for number in ("0", "1")]
    sweep = read_file(folder)
    assert {run.group for run in (*jobs, sweep)} == {folder.name}
    assert sweep.job_type == "sweep"
    assert [run.name.partition("#")[2] for run in jobs] == ["0", "1"]
    assert any(key.endswith("/sft/custom") for key in sweep.summary)
    (file,) = folder.glob("wandb/offline-run-*/files/media/table/sweep/leaderboard_*.table.json")
    assert {"sft", "identity"} <= {row[0] for row in json.loads(file.read_text())["data"]}
    assert list(folder.glob("wandb/offline-run-*/files/media/html/sweep/report_*.html"))


@pytest.mark.slow
def test_a_killed_run_goes_on_as_one_wandb_run(tmp_path, tiny_request):
    command = [sys.executable, "-m", "pkt", "transfer", "method=sft", *request_with_wandb(tiny_request)]
    command += ["optim.epochs=30", "optim.save_every=0", "optim.validate_every=0"]
    environment = {**own_environment(), "PKT_OUTPUT_DIR": str(tmp_path / "outputs"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 200
        training = (
            tmp_path / "outputs" / "store" / "transfer"
        )  # folders of other stages come and go meanwhile
        while not list(training.glob("*.partial/snapshot/state.json")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    (killed,) = (tmp_path / "outputs").glob("runs/transfer/*")
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    (resumed,) = (folder for folder in (tmp_path / "outputs").glob("runs/transfer/*") if folder != killed)
    found = read_file(resumed)
    assert [row["transfer/step"] for row in found.history if "transfer/step" in row] == list(range(1, 61))
    (earlier,) = killed.glob("wandb/offline-run-*")
    assert earlier.name.endswith(f"-{found.id}")
    assert list(earlier.glob("*.synced"))
    assert not list((tmp_path / "outputs").rglob(".unfinished"))


class FakeService(http.server.BaseHTTPRequestHandler):
    """Answers what a sync asks, and keeps it."""

    asked: list[tuple[str, Any]]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path.endswith("/graphql"):
            content = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", content["query"])
            name = named[1] if named else ""
            self.asked.append((name, content.get("variables") or {}))
            self._answer({"data": self._graphql(name, content.get("variables") or {})})
        else:
            if "file_stream" in self.path:
                self.asked.append(("file_stream", json.loads(body)))
            self._answer({})

    def _graphql(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        if name == "UpsertBucket":
            project = {"id": "p", "name": values.get("project"), "entity": {"id": "e", "name": "me"}}
            return {"upsertBucket": {"bucket": {"id": "b", "name": values["name"], "project": project}}}
        if name == "CreateRunFiles":
            url = f"http://127.0.0.1:{self.server.server_port}/up"
            files = [{"name": file, "uploadUrl": url} for file in values["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            latest = {"latestArtifact": {"id": "old", "versionIndex": 0}}
            artifact = {"id": values["input"]["digest"], "state": "COMMITTED", "artifactSequence": latest}
            return {"createArtifact": {"artifact": artifact}}
        if name == "UseArtifact":
            return {"useArtifact": {"artifact": {"id": values["input"]["artifactID"]}}}
        return {}

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def service() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    asked: list[tuple[str, Any]] = []
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (FakeService,), {"asked": asked})
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_a_sync_sends_one_run_with_its_inputs(pkt, tiny_request, service):
    url, asked = service
    assert pkt("transfer", "method=sft", *request_with_wandb(tiny_request)).code == 0
    (folder,) = pkt.outputs.glob("runs/transfer/*/wandb/offline-run-*")
    run = read_file(folder.parents[1])
    environment = {
        **own_environment(),
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": "a" * 40,
        "WANDB_MODE": "online",
    }
    command = [sys.executable, "-m", "wandb", "sync", "--yes", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert {values["name"] for name, values in asked if name == "UpsertBucket"} == {run.id}
    streamed = [values["files"] for name, values in asked if name == "file_stream" and values.get("files")]
    history = [file["wandb-history.jsonl"] for file in streamed if "wandb-history.jsonl" in file]
    steps = [json.loads(line).get("transfer/step") for part in history for line in part["content"]]
    assert [step for step in steps if step] == [1, 2, 3, 4]
    digest = {record.name.partition("-")[0]: record.digest for record in run.artifacts}
    used = {values["input"]["artifactID"] for name, values in asked if name == "UseArtifact"}
    assert used == {digest["teacher"], digest["student"]}
    made = {values["input"]["digest"] for name, values in asked if name == "CreateArtifact"}
    assert digest["checkpoint"] in made
