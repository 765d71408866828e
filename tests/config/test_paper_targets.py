"""Every request behind the paper's tables and figures composes, and asks for what its target is about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from paper.plans import NANO, OWN, Job
from paper.targets import (
    BENCHES,
    FINE_TUNED,
    PAPER_PAIR,
    RIVALS,
    TARGETS,
    ablations,
    figure2,
    table1,
    table2,
)
from pkt.build import build
from pkt.checks import check
from pkt.errors import RequestError
from pkt.methods.base import Choice
from pkt.methods.combinations import known_pairs, refusal
from pkt.searchpath import builtin_conf_dir, register


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Job], DictConfig]:
    for name in ("PKT_CONFIG_DIR", "PKT_OUTPUT_DIR", "PKT_LAUNCHER"):
        monkeypatch.delenv(name, raising=False)
    register()
    GlobalHydra.instance().clear()
    return lambda job: composition(
        job.verb, tuple(word for word in job.words if "=" in word or word[0] == "~")
    )


@cache
def composition(verb: str, words: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose(verb, overrides=list(words))


WHEN = (
    "labels",
    "cuts",
    "situations",
    "settings",
    "finals",
    "tokens",
    "meeting",
)  # of nano and its relatives
SAME = ("efficiency",)  # its jobs are those of table1
PAPER = sorted(set(TARGETS) - {*WHEN, *SAME})


@pytest.mark.parametrize(
    ("target", "pair"),
    [
        *((target, "nano") for target in PAPER if target != "ablations"),
        *(pytest.param(target, "nano", marks=pytest.mark.slow) for target in ("ablations", *WHEN)),
        ("cuts", "smollm2-135m-to-half"),
        *(pytest.param(target, PAPER_PAIR, marks=pytest.mark.slow) for target in PAPER),
    ],
)
def test_every_job_composes_and_is_not_refused(target: str, pair: str, composed):
    plan = TARGETS[target](pair, [0, 1])
    assert len({job.name for job in plan.jobs}) == len(plan.jobs)
    for job in alike(TARGETS[target](pair, [0]).jobs):
        accepted(composed(job))


@pytest.mark.parametrize(
    ("target", "pair"),
    [
        ("cuts", "smollm2-135m-to-half"),
        *(pytest.param(target, "nano", marks=pytest.mark.slow) for target in WHEN),
    ],
)
def test_no_two_arms_that_are_compared_come_to_the_same_settings(target: str, pair: str, composed):
    for group in TARGETS[target](pair, [0]).groups:
        jobs = {cell.name: Job(name="", verb="run", words=group.words(cell, 0)) for cell in group.cells}
        settings = {
            name: json.dumps(OmegaConf.to_container(composed(job)), sort_keys=True)
            for name, job in jobs.items()
        }
        assert len(settings) == len(group.cells)
        assert len({*settings.values()}) == len(settings), group.title


@pytest.mark.parametrize("pair", OWN)
def test_every_pair_with_a_benchmark_of_its_own_has_a_table(pair: str, composed):
    job = table1(pair, [0]).jobs[-1]
    accepted(composed(job))
    assert composed(job).benchmark.name == ("nano" if OWN[pair] == NANO else "pystdlib")


def alike(jobs: Sequence[Job]) -> list[Job]:
    """Return one of the jobs that differ in the teacher and in numbers (rows, steps, rates, weights) alone."""
    found = {tuple(re.sub(r"=([\d.e+-]+|nano(-\w+)?)$", "", word) for word in job.words): job for job in jobs}
    return list(found.values())


def accepted(cfg: DictConfig) -> None:
    check(cfg)
    method = build(cfg.method)
    choice = Choice(
        mapping=build(cfg.mapping), semantics=build(cfg.semantics), objective=build(cfg.objective)
    )
    assert refusal(method, choice, known_pairs(choice.mapping, 8, 6)) is None, cfg.method.name


@pytest.mark.slow
def test_table1_of_the_paper_has_every_rival_on_every_benchmark_at_its_settings(composed):
    found = {}
    shown = (*RIVALS, "semalign_joint", "sft")
    for job in table1(PAPER_PAIR, [0]).jobs:
        if not any(f"_{name}_" in job.name for name in shown):
            continue
        cfg = composed(job)
        found[cfg.method.name, cfg.benchmark.name.removesuffix("_instruct")] = cfg
    assert {(method, bench) for method in RIVALS for bench in BENCHES} <= set(found)
    # semalign and Seeking: 3 epochs and 3e-5 on HumanEval, 5 and 3e-4 elsewhere; 300 rows on MBPP
    for method in ("semalign", "seeking", "semalign_joint", "sft"):
        for bench in BENCHES:
            optim, rows = found[method, bench].optim, found[method, bench].data.sizes.train
            expected = (3, 3e-5) if bench == "humaneval" else (5, 3e-4)
            assert (optim.epochs, optim.lr, rows) == (*expected, 300 if bench == "mbpp" else 1000), (
                method,
                bench,
            )
    steps = {bench: found["laten", bench].method.steps for bench in BENCHES}
    assert steps == {"mmlu": 2, "gsm8k": 4, "humaneval": 3, "mbpp": 8}


@pytest.mark.slow
def test_table2_of_the_paper_has_the_fine_tuned_teachers(composed):
    plan = table2(PAPER_PAIR, [0])
    assert {composed(job).model.name for job in plan.jobs} == set(FINE_TUNED)
    assert {composed(job).model.name for job in table2("nano", [0]).jobs} == {"nano-code"}


def test_ablations_leave_the_base_by_one_factor_each(composed):
    base, *cells = (composed(job) for job in ablations("nano", [0], "each").jobs)
    assert base.method.name == "semalign_joint"
    assert all(cell != base for cell in cells)
    words = {job.words for job in ablations("nano", [0], "each").jobs}
    assert len(words) == 1 + len(cells) > len(ablations("nano", [0]).jobs)
    (pairs,) = (cell.mapping for cell in cells if "seed" in cell.mapping)
    assert pairs.count is None  # as many as the base has, so that the draw alone differs


def test_a_pair_with_a_benchmark_of_its_own_is_measured_on_it(composed):
    (job,) = figure2("smollm2-135m-to-pruned", [0]).jobs
    assert composed(job).benchmark.name == "pystdlib"
    with pytest.raises(RequestError, match="a teacher of code"):
        table2("smollm2-135m-to-pruned", [0])


def test_the_grid_is_the_product_of_its_factors():
    # mapping x semantics x interface x objective x update, and the base once
    assert len(ablations("nano", [0], "grid").jobs) == 7 * 8 * 4 * 5 * 2
