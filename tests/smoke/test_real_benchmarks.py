"""Real benchmarks through the command line, on a tiny pair and tiny sets in the upstream formats; no hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import suite_files as files


@pytest.fixture
def request_of(tiny_request, tmp_path):
    """Overrides for a real benchmark on files of the test's."""
    rest = [word for word in tiny_request if not word.startswith(("benchmark=", "data.train", "data.test"))]
    sets = tmp_path / "sets"
    files.write(sets / "gsm8k" / "train.jsonl", files.gsm8k(40))
    files.write(sets / "gsm8k" / "test.jsonl", files.gsm8k(6, start=100))

    def build(benchmark: str, **more: object) -> list[str]:
        place = [f"benchmark.data_dir={sets}", *(f"{key}={value}" for key, value in more.items())]
        return [*rest, f"benchmark={benchmark}", *place]

    build.sets = sets  # type: ignore[attr-defined]
    return build


def scored(outputs: Path) -> set[str]:
    return {path.parent.name for path in outputs.glob("store/eval/*/scores.json")}


def test_all_stages_on_gsm8k_from_files(pkt, request_of):
    words = request_of("gsm8k")
    result = pkt("run", "method=sft", *words)
    assert result.code == 0, result.err
    (found,) = pkt.outputs.glob("runs/run/*/scores.json")
    assert "exact_match" in json.dumps(json.loads(found.read_text())["scores"]["student"])
    before = scored(pkt.outputs)
    again = pkt("run", "method=sft", *words)
    assert again.code == 0, again.err
    assert scored(pkt.outputs) == before
    files.write(request_of.sets / "gsm8k" / "test.jsonl", files.gsm8k(6, start=200))
    other = pkt("eval", "method=sft", "eval.models=[student]", *words)
    assert other.code == 0, other.err
    assert len(scored(pkt.outputs) - before) == 1


def test_scoring_needs_no_train_rows(pkt, request_of):
    (request_of.sets / "gsm8k" / "train.jsonl").unlink()
    result = pkt("eval", "eval.models=[student]", *request_of("gsm8k"))
    assert result.code == 0, result.err


@pytest.mark.parametrize("verb", ["run", "transfer", "eval"])
def test_a_missing_set_is_one_message_and_leaves_nothing(pkt, request_of, verb):
    result = pkt(verb, *request_of("mmlu"))
    assert result.code == 1
    assert len(result.err.strip().split("\n")) == 1
    assert "MMLU (cais/mmlu on the hub)" in result.err
    assert "benchmark.data_dir=<folder>" in result.err
    assert not pkt.outputs.exists()


def test_a_missing_test_set_is_found_out_before_training(pkt, request_of):
    (request_of.sets / "gsm8k" / "test.jsonl").unlink()
    result = pkt("run", "method=sft", *request_of("gsm8k"))
    assert result.code == 1
    assert "no test rows" in result.err
    assert not pkt.outputs.exists()
