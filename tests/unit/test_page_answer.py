"""The first thing on a page: did it help, how sure is that, at what cost, and with which command."""

from __future__ import annotations

from pathlib import Path

from pkt.reporting.page.answer import answer_topic
from pkt.reporting.page.collect import collect
from pkt.reporting.page.render import html
from pkt.reporting.runs import load_runs
from pkt.reporting.study import Study
from run_folders import leave_run

SPENT = {"optimiser_steps": 40, "student_forward_tokens": 67_000, "seconds": 14.6, "peak_mb": 526.0}


def topic_of(outputs: Path):
    return answer_topic(Study.of(load_runs([outputs / "runs"])))


def test_a_run_is_answered_in_sentences_with_its_command(tmp_path):
    leave_run(tmp_path, "kd", lift=0.6, budget=SPENT)
    found = topic_of(tmp_path)
    helped, sure, cost, advice = found.sentences
    assert helped.startswith("It helped: +")
    assert sure.startswith("How sure: the brackets are the 95 % interval over 120 test rows of one seed")
    assert "another seed" in sure
    assert cost == (
        "Its cost, evaluation left out: 40 optimiser steps, 67 thousand tokens of the student, 15 seconds, "
        "526 MB at the peak."
    )
    assert advice == "To try next: is it the teacher's doing?"
    assert [snippet.text for snippet in found.snippets] == [
        "pkt run method=kd seed=0",
        "pkt run -m method=sft,kd seed=0,1,2",
    ]
    assert found.tables == ()


def test_arms_are_answered_in_a_table_the_best_one_in_sentences(tmp_path):
    for seed in (0, 1):
        leave_run(tmp_path, "kd", lift=0.6, seed=seed, budget=SPENT)
        leave_run(tmp_path, "weak", lift=-0.8, seed=seed, budget=SPENT)
    found = topic_of(tmp_path)
    assert found.sentences[0].startswith("kd, the best of 2 arms: it helped: +")
    assert "and 2 seeds" in found.sentences[1]
    (table,) = found.tables
    assert table.columns == (
        "",
        "against the untouched student",
        "gap closed",
        "seeds",
        *("student ktokens", "seconds", "peak MB"),
    )
    kd, weak = table.rows
    assert (kd[0], kd[1][0], kd[3:]) == ("kd", "+", ("2", "67", "15", "526"))
    assert (weak[0], weak[1][0]) == ("weak", "-")


def test_a_comparison_that_is_there_is_not_advised_again(tmp_path):
    for seed in (0, 1, 2):
        leave_run(tmp_path, "kd", lift=0.6, seed=seed)
        if seed < 2:
            leave_run(tmp_path, "sft", lift=0.4, seed=seed)
            found = topic_of(tmp_path)
            assert found.sentences[-1] == "To try next: do more seeds say the same (seed=0,1,2)?"
            assert [snippet.title for snippet in found.snippets] == ["command of kd, seed 0"]
    leave_run(tmp_path, "sft", lift=0.4, seed=2)
    assert not any("To try next" in sentence for sentence in topic_of(tmp_path).sentences)


def test_what_cannot_be_told_is_said(tmp_path):
    folder = leave_run(tmp_path, "kd", lift=0.6, budget={})
    (run,) = load_runs([folder])
    run["scores"].pop("student")
    found = answer_topic(Study.of([run]))
    assert found.sentences == (found.sentences[0],)
    assert found.sentences[0].startswith("Whether it helped cannot be told")


def test_it_stands_before_everything_else_on_the_page(tmp_path):
    leave_run(tmp_path, "kd", lift=0.6)
    page = html(collect(load_runs([tmp_path / "runs"])))
    assert page.index("It helped: +") < page.index("<table")
