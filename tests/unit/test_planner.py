"""Plans: one key per step, nothing hashed twice, every leaf in exactly the keys that it decides, reasons for misses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from pkt import manifest
from pkt import planner as plan_module
from pkt.checks import check
from pkt.differences import reason
from pkt.pipeline import every_map, plan_scores, request
from pkt.planner import Plan, Planner, Step
from pkt.searchpath import builtin_conf_dir, register
from pkt.settings import deciding, setting, undecisive
from pkt.stages import analyze, evaluate

SCORES = ("eval teacher", "eval student", "eval transferred")


def why(step: Step, others: list[dict[str, Any]]) -> str | None:
    return reason(step.stage, step.ingredients, others)


@pytest.fixture(scope="module")
def planned(pair, tmp_path_factory):
    """Plan `pkt run` and `pkt analyze` of a request on the tiny pair."""
    register()
    outputs = tmp_path_factory.mktemp("outputs")

    def make(*overrides: str) -> Plan:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
            cfg = compose("run", overrides=[*base(pair), f"output_dir={outputs}", *overrides])
        check(cfg)
        bench, method = request(cfg)
        planner = Planner(bench=bench, method=method)
        plan_scores(planner, evaluate.asked(bench))
        analyze.plan(planner, analyze.subject(bench, {}, every_map()))
        return planner.plan

    return make


def base(pair: dict[str, Path]) -> list[str]:
    sizes = {"extract": 4, "align": 4, "train": 8, "validation": 4}
    return [
        "tracker=none",
        "threads=1",
        "benchmark=custom",
        *(f"model.{role}.checkpoint={pair[role]}" for role in ("teacher", "student")),
        *(f"data.{split}={pair['root'] / f'{split}.jsonl'}" for split in ("train", "test")),
        *(f"data.sizes.{split}={count}" for split, count in sizes.items()),
        "analyze.rows=2",
    ]


def test_one_key_per_step_and_no_hash_twice(planned, monkeypatch):
    made: list[Any] = []
    files: list[Path] = []

    def key(parts):
        made.append(json.dumps(parts, sort_keys=True))
        return manifest.content_key(parts)

    real = Path.open

    def opened(self, *args, **kwargs):
        if self.suffix == ".safetensors":
            files.append(self)
        return real(self, *args, **kwargs)

    from pkt.models import fingerprint

    fingerprint._content.cache_clear()
    monkeypatch.setattr(plan_module, "content_key", key)
    monkeypatch.setattr(Path, "open", opened)
    plan = planned()
    assert len(made) == len(list(plan)) == len(set(made)) == 10
    assert len(files) == len(set(files)) == 2


def test_keys_chain_and_ingredients_are_json(planned):
    plan = planned()
    for step in plan:
        assert step.ingredients == json.loads(json.dumps(step.ingredients))
        assert step.ingredients["inputs"] == {taken: plan[taken].key for taken in step.takes}
    assert plan["transfer"].takes == ("align",)
    assert plan["eval transferred"].takes == ("transfer",)
    assert {role: plan[f"eval {role}"].takes for role in ("teacher", "student")} == {
        "teacher": (),
        "student": (),
    }


def test_a_miss_says_what_differs(planned):
    before = [dict(step.ingredients) for step in planned()]
    changed = planned("optim.lr=0.5", "optim.epochs=7")
    assert why(changed["transfer"], before) == "optim.lr 0.0003 -> 0.5; optim.epochs 5 -> 7"
    assert why(changed["eval transferred"], before) is None  # what it took tells its own reason
    assert why(changed["transfer"], []) is None
    assert why(planned("data.sizes.train=5")["transfer"], before) == "the train rows changed"


def test_the_nearest_result_is_compared(planned):
    far, near = planned("optim.lr=0.5", "seed=3", "optim.epochs=2"), planned("optim.lr=0.5")
    told = why(planned()["transfer"], [far["transfer"].ingredients, near["transfer"].ingredients])
    assert told == "optim.lr 0.5 -> 0.0003"


def test_methods_with_equal_settings_do_not_share_what_they_compute_otherwise(planned):
    words = ("objective=ce", "method.update.kind=lora", "method.update.rank=2", "method.update.dropout=0.0")
    keys = {name: planned(f"method={name}", *words)["transfer"].key for name in ("sft", "pissa")}
    assert keys["sft"] != keys["pissa"]


def test_methods_share_what_they_compute_alike(planned):
    words = ("mapping=critical", "method.interface=block")
    keys = {
        planned(f"method={name}", *words)["extract"].key
        for name in ("hidden_kd", "semalign", "semalign_joint")
    }
    assert len(keys) == 1


def test_a_column_that_nothing_reads_changes_no_key(planned, pair, tmp_path):
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (pair["root"] / f"{split}.jsonl").read_text().splitlines()]
        noted = [json.dumps({**row, "note": f"seen {index}"}) for index, row in enumerate(rows)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(noted), encoding="utf-8")
    noted = planned(*(f"data.{split}={tmp_path / f'{split}.jsonl'}" for split in ("train", "test")))
    assert {step.name: step.key for step in noted} == {step.name: step.key for step in planned()}


def test_scores_follow_the_rules_that_made_them(planned, monkeypatch):
    before = planned()
    monkeypatch.setattr(plan_module, "ENCODING", plan_module.ENCODING + 1)
    encoded_anew = planned()
    monkeypatch.undo()
    monkeypatch.setattr("pkt.tasks.custom.Custom.version", 99)
    graded_anew = planned()
    for after in (encoded_anew, graded_anew):
        changed = {step.name for step in after if step.key != before[step.name].key}
        assert changed == set(SCORES)
    assert why(graded_anew["eval teacher"], [before["eval teacher"].ingredients]) == "task custom changed"


def test_a_row_that_reads_differently_changes_what_reads_it(planned, pair, tmp_path):
    rows = [json.loads(line) for line in (pair["root"] / "train.jsonl").read_text().splitlines()]
    rows = [{**row, "answer": row["answer"] + "."} for row in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    critical = "mapping=critical"  # so that extract reads rows too
    after, before = planned(f"data.train={tmp_path / 'train.jsonl'}", critical), planned(critical)
    assert {step.name for step in after if step.key == before[step.name].key} == {
        "eval teacher",
        "eval student",
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    kind: str = "a"
    size: int = setting(1, when=lambda own, _: own.kind == "a")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    plain: int = 1
    late: float = setting(2.0, decides="transfer")
    never: str = undecisive("x")
    inner: Inner = setting(factory=Inner, decides="align")
    new: int = setting(3, since=3)


def test_deciding_follows_what_fields_say():
    def own(node: Node, stage: str) -> dict[str, Any]:
        return deciding(node, stage, None, path="method", first="extract")

    assert own(Node(), "extract") == {"method.plain": 1}
    assert own(Node(), "align") == {"method.inner.kind": "a", "method.inner.size": 1}
    assert own(Node(inner=Inner(kind="b", size=5)), "align") == {"method.inner.kind": "b"}
    assert own(Node(never="y"), "transfer") == {"method.late": 2.0}


def test_a_new_setting_leaves_old_keys_alone():
    old = dataclasses.make_dataclass("Node", [("plain", int, 1)], kw_only=True)
    assert deciding(Node(), "extract", None, path="", first="extract") == deciding(
        old(), "extract", None, path="", first="extract"
    )
    # the value at its introduction is frozen: another default later, and True beside 1, are other settings
    assert deciding(Node(new=4), "extract", None, path="", first="extract") == {"plain": 1, "new": 4}
    assert deciding(Node(new=True), "extract", None, path="", first="extract") == {"plain": 1, "new": True}
