"""A task is found by its name, says how it is graded, and identifies what its scores depend on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import suite_files as files
from pkt.config import BenchmarkConfig, DataConfig, SplitSizes
from pkt.data.lengths import Fitting
from pkt.durable import read_sealed
from pkt.errors import PktError, RequestError
from pkt.evaluation.sampling import Sampling
from pkt.tasks import lm_eval_index
from pkt.tasks.base import Given, RowTask, Task, drawn
from pkt.tasks.find import find, known
from pkt.tasks.grading import Exact, Grading
from scoring import NANO, SUITES, scored
from tiny import tiny_model, tiny_tokenizer

ROWS = [{"id": str(n), "prompt": f"{n}+1=", "answer": f" {n + 1}"} for n in range(3)]
SMALL = SplitSizes(extract=2, align=3, train=9, validation=4)


def user_task(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, text: str) -> None:
    """Put a task file into a config folder of the user's."""
    file = folder / "task" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("PKT_CONFIG_DIR", str(folder))


def test_every_file_makes_a_task_of_its_name():
    assert set(known()) == {*NANO, *SUITES, "custom", "pystdlib"}
    for name in known():
        task = find(name)
        assert isinstance(task, Task)
        assert (task.name, type(task.version)) == (name, int)


def test_a_file_of_the_users_names_a_task(monkeypatch, tmp_path):
    user_task(monkeypatch, tmp_path, "mylab/sums", "_target_: pkt.tasks.nano.arithmetic.Arithmetic\n")
    rows = drawn(find("mylab/sums"), "train", Given())
    assert rows[0]["id"] == "mylab/sums/train/0"
    found = scored(tiny_model(context=256), tiny_tokenizer(), ["mylab/sums"], limit=2, max_new_tokens=2)
    assert [(one.task, one.metric, one.n) for one in found.scores] == [("mylab/sums", "exact_match", 2)]


def test_a_file_below_config_dir_names_a_task_too(monkeypatch, tmp_path):
    user_task(monkeypatch, tmp_path, "mine", "_target_: pkt.tasks.nano.arithmetic.Arithmetic\n")
    user_task(monkeypatch, tmp_path, "custom", "_target_: pkt.tasks.nano.arithmetic.Arithmetic\n")
    monkeypatch.delenv("PKT_CONFIG_DIR")
    assert "mine" not in known()
    source = {"provider": "command-line", "path": str(tmp_path), "schema": "file"}
    cfg = OmegaConf.create({"hydra": {"runtime": {"config_sources": [source]}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    assert type(find("mine")).__name__ == "Arithmetic"
    assert type(find("custom")).__name__ == "Custom"  # as in Hydra, where pkt's own files come first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_target_: os.path\n", "a dataclass of pkt is expected"),
        ("_target_: pkt.tasks.custom.Custom\nmost: 3\n", "most"),
        ("_target_: pkt.config.SplitSizes\n", "task"),
        ("version: 3\n", "names no class"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_a_file_that_makes_no_task_is_refused(monkeypatch, tmp_path, text, message):
    user_task(monkeypatch, tmp_path, "mine", text)
    with pytest.raises(RequestError, match=message):
        find("mine")


def test_a_task_without_known_grading_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Ungraded(RowTask):
        version: ClassVar[int] = 1

    @dataclass(frozen=True, kw_only=True)
    class Guessed(Ungraded):
        gradings: ClassVar[tuple[Grading, ...]] = ("program",)  # type: ignore[assignment]

    for kind in (Ungraded, Guessed):
        with pytest.raises(
            RequestError, match="does not say how answers are graded, and nothing is scored by guess"
        ):
            kind(name="mine")


def test_identity_is_of_what_scoring_reads():
    task = find("custom")
    first = task.identity(ROWS)
    assert json.loads(json.dumps(first)) == first
    assert first["version"] == task.version
    assert task.identity([{**row, "note": "unread", "split": "test"} for row in ROWS]) == first
    others = [
        ROWS[::-1],
        ROWS[:2],
        *([{**ROWS[0], key: "changed"}, *ROWS[1:]] for key in ("id", "prompt", "answer")),
    ]
    assert all(task.identity(rows) != first for rows in others)


def test_identity_has_the_version_and_the_settings_of_a_file():
    @dataclass(frozen=True, kw_only=True)
    class Mine(RowTask):
        version: ClassVar[int] = 1
        gradings: ClassVar[tuple[Grading, ...]] = (Exact(until=(), new_tokens=1),)
        digits: int = 1

    first = Mine(name="a").identity(ROWS)
    assert Mine(name="b").identity(ROWS) == first
    assert Mine(name="a", digits=2).identity(ROWS) != first
    Mine.version = 2
    assert Mine(name="a").identity(ROWS) != first


@pytest.mark.parametrize("name", ["gsm8k", "mmlu", "mbpp", "mbpp_instruct"])
def test_validation_rows_of_the_real_benchmarks_can_be_scored(name, tmp_path):
    given = Given(
        benchmark=BenchmarkConfig(name=name, tasks=[name], data_dir=str(files.all_suites(tmp_path))),
        data=DataConfig(sizes=SMALL, shuffle_seed=3),
        fitting=Fitting(tokenizers=lambda: [tiny_tokenizer()], max_length=1000),
    )
    rows = find(name).scored("validation", given)
    trained = drawn(find(name), "validation", given)
    assert [row["id"] for row in rows] == [row["id"] for row in trained]
    found = scored(tiny_model(context=1024), tiny_tokenizer(), [name], {name: rows}, max_new_tokens=2)
    assert [(one.task, one.n) for one in found.scores] == [(name, len(rows))]
    assert {record["id"] for record in found.samples[name]} == {row["id"] for row in rows}


def test_validation_rows_without_tests_are_not_scored(tmp_path):
    benchmark = BenchmarkConfig(
        name="h", tasks=["humaneval"], code_set="pystdlib", data_dir=str(files.all_suites(tmp_path))
    )
    with pytest.raises(RequestError, match=r"eval\.split=validation: row .* of humaneval has no doc"):
        find("humaneval").scored("validation", Given(benchmark=benchmark))


def test_lm_evals_training_documents_can_be_trained_on(task_folder):
    task = find("foreign_sums", str(task_folder))
    given = Given(data=DataConfig(sizes=SMALL))
    rows = {split: task.rows(split, given) for split in ("extract", "align", "train", "validation")}
    every = [row for of in rows.values() for row in of]
    assert {split: len(of) for split, of in rows.items()} == {
        "extract": 2,
        "align": 3,
        "validation": 4,
        "train": 27,
    }
    assert len({row["prompt"] for row in every}) == 36  # of 40: four are scored
    assert not {f"{n}+1=" for n in range(36, 60)} & {row["prompt"] for row in every}
    row = next(row for row in every if row["prompt"] == "7+1=")
    assert (row["id"], row["answer"]) == ("foreign_sums/train/7", " 8")
    assert task.scored("test", given) == []


def test_what_lm_evals_tasks_cannot_do_is_refused(task_folder):
    choice = find("foreign_choice", str(task_folder))
    choice.check(Sampling())
    with pytest.raises(PktError, match=r"foreign_choice has no training documents .* benchmark\.train="):
        choice.rows("train", Given())
    with pytest.raises(RequestError, match="scores the rows that the task's own file names"):
        choice.scored("validation", Given())
    with pytest.raises(RequestError, match=r"benchmark\.task_path=nowhere: no folder there"):
        find("foreign_choice", "nowhere")


def test_lm_evals_task_without_a_metric_per_row_is_refused(task_folder):
    (task_folder / "words.yaml").write_text(
        "task: words\ncustom_dataset: !function rows.load\ntest_split: test\noutput_type: loglikelihood_rolling\n"
        "doc_to_text: ''\ndoc_to_target: q\nmetric_list:\n  - {metric: word_perplexity}\n",
        encoding="utf-8",
    )
    with pytest.raises(PktError, match="does not know how its answers are graded"):
        scored(tiny_model(context=256), tiny_tokenizer(), ["words"], task_path=str(task_folder), limit=2)


def test_files_of_a_local_folder_are_in_the_identity(task_folder):
    def identity():
        return find("foreign_choice", str(task_folder)).identity([])

    first = identity()
    assert (first["version"], identity()) == (3, first)
    seen = {first["files"]}
    for file, text in (("rows.py", "# more\n"), ("foreign_choice.yaml", "# more\n"), ("new.jsonl", "{}\n")):
        with (task_folder / file).open("a") as opened:
            opened.write(text)
        seen.add(identity()["files"])
    assert len(seen) == 4
    data = task_folder.parent / "elsewhere.jsonl"
    (task_folder / "data.yaml").write_text(
        f"task: data\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n",
        encoding="utf-8",
    )
    for text in ("{}\n", "{} \n"):
        data.write_text(text)
        seen.add(identity()["files"])
    assert len(seen) == 6
    folder = task_folder.parent / "rows"
    (folder / "deeper").mkdir(parents=True)
    for path in (str(folder), f"{folder}/**/*.jsonl"):
        (task_folder / "data.yaml").write_text(f"task: data\ndataset_path: {path}\n", encoding="utf-8")
        for text in ("{}\n", "{} \n"):
            (folder / "deeper" / "test.jsonl").write_text(text)
            seen.add(identity()["files"])
    assert len(seen) == 10


def test_a_kept_index_is_used_and_none_is_made(no_index):
    task = find("arc_easy")
    assert task.folders == (str(lm_eval_index.root() / "arc"),)
    assert task.identity([]) == {"lm_eval": lm_eval_index.version("lm_eval")}
    assert "arc_easy" in task._manager.task_index
    with pytest.raises(RequestError, match=r"no task 'arc_eezy' \(did you mean 'arc_easy'\?\)"):
        find("arc_eezy")
    assert find("gsm8k_cot").folders == (str(lm_eval_index.root() / "gsm8k"),)


def test_a_typing_error_near_one_of_pkts_names_costs_no_index(monkeypatch):
    monkeypatch.setattr(lm_eval_index, "folders", lambda: pytest.fail("lm-eval's tasks were indexed"))
    with pytest.raises(RequestError, match=r"no task 'nano_mth' \(did you mean 'nano_math'\?\)"):
        find("nano_mth")


@pytest.mark.parametrize("before", [None, "", "{", "[]"])
def test_a_missing_or_broken_index_is_made_once_and_kept_whole(monkeypatch, tmp_path, before):
    made = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lm_eval_index, "_made", lambda: made.append(1) or {"arc_easy": ["arc"]})
    file = lm_eval_index.cache_file()
    if before is not None:
        file.parent.mkdir(parents=True)
        file.write_text(before)
    for _ in range(3):
        lm_eval_index._index.cache_clear()
        assert find("arc_easy").name == "arc_easy"
    assert made == [1]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert read_sealed(file) == {"arc_easy": ["arc"]}


def test_an_index_that_cannot_be_kept_only_costs_time(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lm_eval_index, "_made", lambda: {"arc_easy": ["arc"]})
    assert find("arc_easy").name == "arc_easy"


@pytest.mark.slow  # lm-eval reads all of its task files
def test_the_index_knows_where_members_of_groups_and_tags_lie():
    index = lm_eval_index._made()
    assert index["arc_easy"] == ["arc"]
    assert index["mmlu_stem_tasks"] == index["mmlu"] == ["mmlu/default"]
    assert {"leaderboard", "leaderboard/gpqa"} <= set(index["leaderboard"])


@pytest.mark.parametrize(
    ("metrics", "refused"),
    [
        ("[{metric: perplexity, aggregation: perplexity}]", True),
        ("[{metric: word_perplexity}, {metric: bits_per_byte}]", True),
        ("[{metric: perplexity}, {metric: acc, aggregation: mean}]", False),
        ("[{metric: bleu, aggregation: mean}]", False),
        ("[{metric: !function rows.own}]", False),
    ],
)
def test_a_task_whose_file_names_no_mean_over_rows_is_refused_before_anything_runs(
    task_folder, metrics, refused
):
    file = task_folder / "foreign_choice.yaml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith(("metric_list", "  - "))]
    file.write_text("\n".join([*kept, f"metric_list: {metrics}"]))
    task = find("foreign_choice", str(task_folder))
    if not refused:
        task.check(Sampling())
        return
    with pytest.raises(
        RequestError, match="foreign_choice: none of lm-eval's metrics for it is a mean over rows"
    ):
        task.check(Sampling())
