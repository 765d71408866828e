"""Headline and study tables: what is shown is what was measured."""

from __future__ import annotations

import json

import pytest

from pkt.errors import RequestError
from pkt.reporting.runs import arms, load_runs
from pkt.reporting.study import Study, studies
from pkt.reporting.study_tables import study_table
from pkt.table import Table

TASKS = ("a", "b")


def run(
    seed: int, method: str = "semalign", semantics: str = "cosine", lift: float = 0.1, lr: float = 1.0
) -> dict:
    def scores(value: float) -> dict:
        return {
            t: {"task": t, "metric": "acc", "value": value, "stderr": 0.01, "higher_is_better": True}
            for t in TASKS
        }

    return {
        "method": method,
        "seed": seed,
        "model": "nano",
        "benchmark": "nano",
        "split": "test",
        "stages": [],
        "settings": {
            "method": method,
            "semantics._target_": f"pkt.semantics.{semantics}.{semantics.title()}",
            f"semantics.{semantics}_option": 1,
            "optim.lr": lr,
        },
        "scores": {"teacher": scores(0.9), "student": scores(0.4), "transferred": scores(0.4 + lift)},
        "budget": {"trained_parameters": 1234, "optimiser_steps": 10, "seconds": 5.0},
    }


def test_arms_group_seeds_and_name_only_what_differs():
    runs = [run(0), run(1), run(1), run(0, semantics="ridge"), run(0, method="sft")]
    assert {arm.label: len(arm.runs) for arm in arms(runs)} == {
        "semalign (semantics=cosine)": 2,
        "semalign (semantics=ridge)": 1,
        "sft": 1,
    }


def test_a_label_leaves_out_what_most_arms_share():
    runs = [run(0), run(1), run(0, lr=2.0), run(0, semantics="ridge")]
    assert [arm.label for arm in arms(runs)] == [
        "semalign",
        "semalign (optim.lr=2.0)",
        "semalign (semantics=ridge)",
    ]


def test_a_label_tells_a_choice_and_not_what_it_takes_away():
    base, answer, none = run(0), run(0), run(0)
    term = {"_target_": "pkt.objectives.divergence.Divergence", "top_k": 64, "weight": 1.0}
    base["settings"] |= {f"objective.terms.output.{name}": value for name, value in term.items()}
    base["settings"]["objective.positions"] = "all"
    answer["settings"] |= base["settings"] | {"objective.positions": "answer"}
    none["settings"]["objective.positions"] = "all"
    assert [arm.label for arm in arms([base, answer, none])] == [
        "semalign",
        "semalign (objective.positions=answer)",
        "semalign (without objective.terms.output)",
    ]


def test_study_table_puts_the_largest_share_of_the_gap_first():
    table = study_table(
        Study.of([run(0, "semalign", lift=0.3), run(1, "semalign", lift=0.1), run(0, "sft", lift=0.1)])
    )
    assert [row[0] for row in table.rows] == ["teacher", "semalign", "sft", "student"]
    semalign = next(row for row in table.rows if row[0] == "semalign")
    assert semalign[1].startswith("60.0 ±")
    assert semalign[table.columns.index("seeds")] == "2"
    assert semalign[table.columns.index("gap closed")].startswith("40 %")


def test_arms_with_other_hyper_parameters_are_not_seeds_of_one():
    labels = {arm.label: len(arm.runs) for arm in arms([run(0), run(1), run(0, lr=2.0), run(1, lr=2.0)])}
    assert labels == {"semalign (optim.lr=1.0)": 2, "semalign (optim.lr=2.0)": 2}


def test_budget_columns_are_means_over_seeds_and_empty_where_unknown():
    cheap, dear = run(0), run(1)
    dear["budget"]["seconds"] = 15.0
    table = study_table(Study.of([cheap, dear]))
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert (row["trained"], row["seconds"], row["teacher ktokens"]) == ("1,234", "10", "–")


def test_bits_per_byte_are_not_shown_in_per_cent():
    one = run(0)
    for role in one["scores"].values():
        role["a"] |= {"metric": "bits_per_byte", "higher_is_better": False, "value": 1.25}
    table = study_table(Study.of([one]))
    assert table.columns[1] == "a (↓)"
    assert table.rows[1][1] == "1.250 ± 0.010"
    assert table.rows[1][table.columns.index("mean")] == "–"


def test_pairs_and_benchmarks_get_tables_of_their_own():
    other = run(0) | {"model": "other"}
    assert [(study.pair, study.benchmark) for study in studies([run(0), other])] == [
        ("nano", "nano"),
        ("other", "nano"),
    ]


def test_runs_without_a_transferred_student_are_left_out(tmp_path):
    for name, scores in (("a", run(0)), ("b", run(1) | {"scores": {"teacher": {}}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(json.dumps(scores))
    assert len(load_runs([tmp_path])) == 1


def test_markdown_has_one_line_per_row():
    text = Table(title="t", columns=("", "x"), rows=(("a", "1"), ("b", "2"))).markdown()
    assert text.splitlines() == ["|  | x |", "|---|---:|", "| a | 1 |", "| b | 2 |"]


def test_no_runs_is_refused(tmp_path):
    with pytest.raises(RequestError, match="run `pkt run` first"):
        load_runs([tmp_path])
