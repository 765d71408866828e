"""Tables, sentences and shares over studies drawn at random, against what is known of how they were drawn.

    draw -> Truth (models, arms, seeds, rows, gaps, NaN) -> run folders and a store -> report -> claims, reckoned anew

The reckoning shares no code with the report: scores are means of the drawn answers, shares are ratios of these means,
and a difference may only be called one where enough rows differ.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from campaigns.trials import Trial, Verdict
from pkt.evaluation.results import Evaluation
from pkt.manifest import write_manifest
from pkt.reporting.page import render
from pkt.reporting.page.collect import collect
from pkt.reporting.page.report import Report, Section
from pkt.reporting.runs import find_runs

COUNT = 100
FEWEST = 6  # rows that have to differ before anything may be called a difference
GAPS = ("gap", "gap", "gap", "none", "reversed")
ROWS = (1, 2, 3, 5, 8, 40, 200)
Answers = dict[str, np.ndarray]  # task -> a number per row


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One study as it was drawn.

    Attributes:
        name: says what is special about it.
        tasks: of the benchmark.
        gap: ``gap``, ``none`` or ``reversed``: the teacher above, level with or below the student.
        falls: whether less is better: scores are then bits per byte.
        fixed: answers of the teacher and of the student.
        arms: label -> seed -> answers.
        broken: (label, seed) whose first score is written as NaN.
        older: written as older versions did, without what made the student.
        repeated: an arm whose first run is there twice.
    """

    name: str
    tasks: tuple[str, ...]
    gap: str
    falls: bool
    fixed: dict[str, Answers]
    arms: dict[str, dict[int, Answers]]
    broken: tuple[str, int] | None
    older: bool
    repeated: str | None


def trials(count: int | None, seed: int) -> Iterator[Trial]:
    """Yield the trials.

    Args:
        count: at most so many (default: `COUNT`).
        seed: of what is drawn.
    """
    for number in range(COUNT if count is None else count):
        truth = draw(np.random.default_rng([seed, number]))
        yield Trial(name=f"{number}: {truth.name}", attempt=partial(attempt, truth, page=number % 10 == 0))


def draw(rng: np.random.Generator) -> Truth:
    """Return a study drawn at random."""
    gap, rows = str(rng.choice(GAPS)), int(rng.choice(ROWS))
    falls, harm = bool(rng.random() < 0.25), bool(rng.random() < 0.3)
    tasks = tuple(f"task_{letter}" for letter in "abc"[: int(rng.integers(1, 4))])
    ease = {task: rng.normal(size=rows) for task in tasks}
    levels = {"teacher": {"gap": 1.2, "none": -0.5, "reversed": -1.8}[gap], "student": -0.5}
    fixed = {
        role: _answers(rng, ease, level, 0.0 if gap == "none" else 0.2, falls)
        for role, level in levels.items()
    }
    if gap == "none":
        fixed["teacher"] = fixed["student"]
    arms: dict[str, dict[int, Answers]] = {}
    for label in ("sft", "kd", "mylab/method", "identity")[: int(rng.integers(1, 5))]:
        lift = (
            0.0 if label == "identity" else float(rng.uniform(-1.5, -0.3) if harm else rng.uniform(-0.6, 1.6))
        )
        seeds = range(int(rng.integers(1, 4)))
        arms[label] = {s: _answers(rng, ease, lift - 0.5, 0.3 if lift else 0.0, falls) for s in seeds}
        if not lift:
            arms[label] = dict.fromkeys(seeds, fixed["student"])
    broken = (str(rng.choice(list(arms))), 0) if rng.random() < 0.2 else None
    repeated = str(rng.choice(list(arms))) if rng.random() < 0.2 else None
    older = bool(rng.random() < 0.3)
    name = (
        f"{gap}, {rows} rows, {len(tasks)} tasks, {len(arms)} arms"
        + ", all harm" * harm
        + ", falling" * falls
    )
    name += ", a NaN" * bool(broken) + ", a repeat" * bool(repeated) + ", older format" * older
    return Truth(name=name, tasks=tasks, gap=gap, falls=falls, fixed=fixed, arms=arms, broken=broken, older=older,
                 repeated=repeated)  # fmt: skip


def _answers(rng: np.random.Generator, ease: Answers, level: float, noise: float, falls: bool) -> Answers:
    """Return right (1) or wrong (0) per row, or bits per row where less is better."""
    found = {task: own + level + rng.normal(0, noise, len(own)) for task, own in ease.items()}
    return {task: np.exp(-own / 2) * 8 if falls else (own > 0).astype(float) for task, own in found.items()}


def attempt(truth: Truth, *, page: bool) -> tuple[Verdict, str]:
    """Write a study twice, the second time with another student, and check what is said of both.

    Args:
        truth: what was drawn.
        page: render the page too, which takes seconds.
    """
    folder = Path(tempfile.mkdtemp(prefix="pkt-tables-"))
    try:
        leave(folder, truth, model="one")
        other = replace(truth, arms=dict(list(truth.arms.items())[:1]), broken=None, repeated=None)
        leave(folder, other, model="other")
        found = find_runs([folder / "runs"])
        report = collect(found.runs, left_out=found.left_out, pairs=True)
        wrong = [*faults(report.sections[0], truth), *of_report(report, truth)]
        rendered = [render.markdown(report), render.latex(report), render.html(report) if page else ""]
        wrong += [
            f"a rendering prints {word}" for text in rendered for word in ("+nan", "inf %") if word in text
        ]
    finally:
        shutil.rmtree(folder)
    return (Verdict.WRONG, "; ".join(wrong)) if wrong else (Verdict.WORKS, "")


def leave(folder: Path, truth: Truth, *, model: str) -> None:
    """Write run folders and the answers behind them, as runs leave them.

    Args:
        folder: holds ``runs`` and ``store``.
        truth: what was drawn.
        model: which student; two of them are two studies, whatever else is equal.
    """
    runs = [(label, seed, own) for label, seeds in truth.arms.items() for seed, own in seeds.items()]
    runs += [(label, seed, own) for label, seed, own in runs if label == truth.repeated and seed == 0]
    for number, (label, seed, own) in enumerate(runs):
        made, scores = [_stage("transfer", f"{model}-{label}-{seed}")], {}
        for role, answers in (*truth.fixed.items(), ("transferred", own)):
            key = f"{model}-{role}" if role in truth.fixed else f"{model}-{label.replace('/', '-')}-{seed}"
            made.append(_stage(f"eval {role}", key))
            _store(folder / "store" / "eval" / key, answers, truth)
            scores[role] = {task: _score(task, own, truth) for task, own in answers.items()}
        if truth.broken == (label, seed):
            scores["transferred"][truth.tasks[0]]["value"] = math.nan
        content = {"method": label, "model": model if truth.older else "pair", "benchmark": "drawn", "split": "test",
                   "seed": seed, "settings": {"method": label}, "scores": scores, "stages": made, "budget": {},
                   "command": "pkt run", "store": "../../store"}  # fmt: skip
        if not truth.older:
            content |= {"study": {"teacher": "t", "student": model}, "arm": {"by": label}}
        place = folder / "runs" / f"{model}-{number:02}"
        place.mkdir(parents=True)
        (place / "scores.json").write_text(json.dumps(content), encoding="utf-8")


def _stage(label: str, key: str) -> dict[str, Any]:
    return {"stage": label, "key": key, "reused": False, "seconds": 1.0, "peak_mb": 1.0}


def _store(folder: Path, answers: Answers, truth: Truth) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    samples = {}
    for task, own in answers.items():
        graded = [
            {"bits": value, "bytes": 8} if truth.falls else {"correct": bool(value)} for value in own.tolist()
        ]
        samples[task] = [{"id": f"{task}/{row}", "prompt": "p", "target": "x", "output": "", **mark}
                         for row, mark in enumerate(graded)]  # fmt: skip
    Evaluation(scores=(), samples=samples, versions={}).save(folder / "scores.json")
    write_manifest(folder, "eval", folder.name, {}, {})


def _score(task: str, own: np.ndarray, truth: Truth) -> dict[str, Any]:
    scale = 8 if truth.falls else 1
    error = math.nan if len(own) == 1 else float(own.std(ddof=1)) / math.sqrt(len(own)) / scale
    metric = "bits_per_byte" if truth.falls else "acc"
    return {"task": task, "metric": metric, "value": float(own.mean()) / scale, "stderr": error, "n": len(own),
            "higher_is_better": not truth.falls}  # fmt: skip


def of_report(report: Report, truth: Truth) -> Iterator[str]:
    """Yield what is wrong with a report as a whole: the studies, and what became of repeated runs."""
    titles = [section.title for section in report.sections]
    if len(set(titles)) != 2:
        yield f"two students made the studies {titles}"
    if bool(truth.repeated) != any("count once" in told for told in report.left_out):
        yield f"of a repeated run it is said: {report.left_out}"
    for line in render.jsonl(report).splitlines():
        json.loads(line, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))


def faults(section: Section, truth: Truth) -> Iterator[str]:
    """Yield what is wrong with a study's table and sentences."""
    rows = {row[0]: dict(zip(section.table.columns, row, strict=True)) for row in section.table.rows}
    if set(rows) != {*truth.arms, "teacher", "student"}:
        yield f"the rows are {sorted(rows)}"
        return
    for label, seeds in truth.arms.items():
        if rows[label]["seeds"] != str(len(seeds)):
            yield f"{label} has {len(seeds)} seeds, its row says {rows[label]['seeds']}"
    said = next(topic for topic in section.topics if topic.name == "scores").sentences
    broken = truth.broken[0] if truth.broken else None
    shares = {label: share(truth, label) for label in truth.arms if label != broken}
    order = [label for label in rows if label in truth.arms]
    if broken and order[-1] != broken:
        yield f"an arm that is no number stands before others: {order}"
    yield from _of_gap(said, rows, truth, shares)
    yield from _of_differences(said, truth, broken)


def share(truth: Truth, label: str) -> float:
    """Return the mean share of the gap, as the answers have it; NaN where there can be none."""
    found = []
    for task in truth.tasks:
        gap = truth.fixed["teacher"][task].mean() - truth.fixed["student"][task].mean()
        if may_have_gap(truth, task):
            means = [
                own[task].mean() - truth.fixed["student"][task].mean() for own in truth.arms[label].values()
            ]
            found.append(np.mean(means) / gap)
    return float(np.mean(found)) if found else math.nan


def may_have_gap(truth: Truth, task: str) -> bool:
    """Whether the teacher is better than the student on a task, by two standard errors and on enough rows."""
    teacher, student = (truth.fixed[role][task] for role in ("teacher", "student"))
    gap = (teacher.mean() - student.mean()) * (-1 if truth.falls else 1)
    enough = len(teacher) >= FEWEST and int((teacher != student).sum()) >= FEWEST
    return bool(
        enough
        and gap > 2 * math.hypot(*(own.std(ddof=1) / math.sqrt(len(own)) for own in (teacher, student)))
    )


def _of_gap(
    said: tuple[str, ...], rows: dict[str, dict[str, str]], truth: Truth, shares: dict[str, float]
) -> Iterator[str]:
    known = {label: own for label, own in shares.items() if not math.isnan(own)}
    claims = [sentence for sentence in said if re.search(r"closes (most|this share) of the gap", sentence)]
    if not known and (claims or any(rows[label]["gap closed"] not in ("–", "") for label in shares)):
        yield f"there is no gap to close, and it is said: {claims}, {[rows[label]['gap closed'] for label in shares]}"
    for label, own in known.items():
        if not re.match(rf"{round(100 * own)} %|{math.floor(100 * own)} %|{math.ceil(100 * own)} %",
                        rows[label]["gap closed"]):  # fmt: skip
            yield f"{label} closed {100 * own:.1f} %, its cell says {rows[label]['gap closed']}"
    best = max(known, key=lambda label: known[label], default=None)
    for claim in claims:
        if best is None or known[best] <= 0 or f"{best} closes" not in claim:
            yield f"the best is {best} with {known.get(best or '')}, and it is said: {claim}"
    if len(truth.arms) > 1 and best and known[best] < -0.3 and claims:
        yield f"every arm harms, and it is said: {claims}"


def _of_differences(said: tuple[str, ...], truth: Truth, broken: str | None) -> Iterator[str]:
    tasks = truth.tasks[:1] if truth.falls else truth.tasks
    reference = "sft"
    for sentence in said:
        found = re.match(r"(Better|Worse) than sft beyond the noise \(.*?\): (.*)\.$", sentence)
        if found is None:
            continue
        for label in found[2].split(", "):
            arms = [np.concatenate([np.mean([own[task] for own in truth.arms[name].values()], axis=0)
                                    for task in tasks]) for name in (label, reference)]  # fmt: skip
            parts = (arms[0] - arms[1]) * (-1 if truth.falls else 1)
            differ = int((np.abs(parts) > 1e-9).sum())
            if differ < FEWEST or (parts.sum() > 0) != (found[1] == "Better") or broken in (label, reference):
                yield f"{label} differs by {parts.sum():.3f} on {differ} rows, and it is said: {sentence}"
