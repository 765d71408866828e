"""Run folders and their store as `pkt run` leaves them, without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pkt.evaluation.results import Evaluation
from pkt.evaluation.statistics import mean

ROWS = 60
HOSTILE = "</pre><script>document.title='owned'</script><img src=https://example.org/x.png onerror=alert(1)>\x00&amp;"
Records = dict[str, list[dict[str, Any]]]


def records(task: str, correct: np.ndarray) -> list[dict[str, Any]]:
    """Return one record per test row; the outputs of wrong answers try to be markup."""
    return [
        {
            "id": f"{task}/test/{i}",
            "prompt": f"Row {i} of {task} <b>&</b>?\nAnswer:",
            "target": f" {i}",
            "output": f" {i}" if right else f" {HOSTILE} {i}",
            "correct": bool(right),
        }
        for i, right in enumerate(correct)
    ]


def leave_run(
    outputs: Path,
    method: str,
    *,
    lift: float,
    seed: int = 0,
    tasks: tuple[str, ...] = ("nano_math", "code_50%"),
    **extra: Any,
) -> Path:
    """Write one run's folder and artifacts; `lift` is how far its student is on the way to the teacher.

    Args:
        outputs: holds `runs/` and `store/`.
        method: of the run.
        lift: 0 is the untouched student, 1 about the teacher.
        seed: of the run.
        tasks: of the benchmark.
        extra: fields of `scores.json`.
    """
    hard = {task: np.random.default_rng([7, i]).normal(size=ROWS) for i, task in enumerate(tasks)}
    noise = np.random.default_rng([seed, *method.encode()])
    levels = {"teacher": 1.5, "student": -0.7, "transferred": -0.7 + 2.2 * lift}
    folder = outputs / "runs" / "run" / f"{len(list(outputs.glob('runs/run/*')))}"
    folder.mkdir(parents=True)
    taught = [] if method in ("sft", "pissa", "identity") else [stage("extract", f"x-{method}")]
    scores, stages = {}, [*taught, stage("transfer", f"{method}-{seed}")]
    for role, level in levels.items():
        jitter = noise.normal(0, 0.15, ROWS) if role == "transferred" and lift else 0.0
        samples = {task: records(task, hard[task] + level + jitter > 0) for task in tasks}
        key = f"{method}-{seed}" if role == "transferred" else "fixed"
        _artifact(outputs, "eval", f"{role}-{key}", {})
        Evaluation(scores=(), samples=samples, versions={}).save(
            outputs / "store" / "eval" / f"{role}-{key}" / "scores.json"
        )
        stages.append(stage(f"eval {role}", f"{role}-{key}"))
        scores[role] = {task: _score(task, samples[task]) for task in tasks}
    _artifact(outputs, "transfer", f"{method}-{seed}", {})
    _layers(outputs, method)
    _metrics(folder)
    content = {
        "method": method,
        "model": "nano",
        "benchmark": "nano",
        "split": "test",
        "seed": seed,
        "settings": {"method": method, "optim.lr": 0.001},
        "command": f"pkt run method={method} seed={seed}",
        "scores": scores,
        "budget": {"trained_parameters": 1234, "optimiser_steps": 40, "seconds": 2.5, "peak_mb": 100.0},
        "stages": stages,
        "layers": {"teacher": 3, "student": 2},
        "store": "../../../store",
        **extra,
    }
    (folder / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def stage(label: str, key: str) -> dict[str, Any]:
    """Return the line of a stage in `scores.json`."""
    return {"stage": label, "key": key, "reused": label == "extract", "seconds": 1.5, "peak_mb": 99.0}


def _score(task: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = mean([float(row["correct"]) for row in rows])
    value = {"value": found.value, "stderr": found.stderr}
    return {"task": task, "metric": "acc", "n": ROWS, "higher_is_better": True} | value


def _artifact(outputs: Path, stage: str, key: str, meta: Mapping[str, Any]) -> Path:
    folder = outputs / "store" / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {"pkt": "0.1.0", "packages": {"torch": "2.0"}, "started": f"2026-01-0{len(key) % 9 + 1}"}
    manifest = {"key": key, "meta": {"provenance": provenance, **meta}, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _layers(outputs: Path, method: str) -> None:
    pairs = [
        {"student": 1, "teacher": [1], "weights": [1.0]},
        {"student": 2, "teacher": [3], "weights": [1.0]},
    ]
    extraction = {"pairs": pairs, "scores": [0.5, 0.1, 0.3]}
    folder = _artifact(outputs, "extract", f"x-{method}", {})
    (folder / "extraction.json").write_text(json.dumps(extraction), encoding="utf-8")


def _metrics(folder: Path) -> None:
    values = [
        {"transfer/loss": 9.0 / s, "transfer/loss_layer": 4.0 / s, "transfer/lr": 0.1} for s in range(1, 41)
    ]
    lines = [{"kind": "config", "time": 0.1, "values": {}}]
    lines += [{"kind": "metrics", "time": s, "step": s, "values": value} for s, value in enumerate(values, 1)]
    table = {
        "kind": "table",
        "time": 50,
        "name": "align/quality",
        "columns": ["layer", "cosine"],
        "rows": [["1", "0.9"]],
    }
    text = "\n".join(json.dumps(line) for line in [*lines, table])
    (folder / "metrics.jsonl").write_text(text + "\n", encoding="utf-8")
