"""Each leaf of the config changes exactly the keys that it should: a table of all of them.

A case says which steps a change is an ingredient of; the steps that take their results change with them, and no other.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from pkt.checks import check
from pkt.config import Config
from pkt.config_files import read_option
from pkt.methods.base import Method
from pkt.methods.workbench import Workbench
from pkt.pipeline import every_map, plan_scores, request
from pkt.planner import Plan, Planner
from pkt.processes import Processes
from pkt.searchpath import builtin_conf_dir, option_files, register
from pkt.stages import analyze, evaluate
from pkt.stages.unread import unread

EXTRACT, ALIGN, TRANSFER = "extract", "align", "transfer"
STAGES = {EXTRACT, ALIGN, TRANSFER}
UNTOUCHED = {"eval teacher", "eval student"}
SCORES = UNTOUCHED | {"eval transferred"}
MAPS = "analyze maps"
DRAWN = "analyze resolution"  # whose random directions are drawn by the seed
READ = {"analyze resolution", "analyze cka", MAPS}  # parts that read states at an interface
PARTS = READ | {"analyze attribution"}
NONE: set[str] = set()
ANSWER = {"answer"}
TAUGHT = {ALIGN, TRANSFER}  # stages that read the teacher's answers
ASKED = ("data.unlabelled=<root>/test.jsonl",)
DRAWS = (*ASKED, "answer.temperature=0.5")
VERIFIED = (*DRAWS, "answer.samples=4", "answer.keep=verified")
UNNAMED = ("data.extract=null", "data.align=null")
TEACHER, STUDENT, HERE = "<teacher>", "<student>", "<root>"

CUT = ("model.student.checkpoint=null", "model.student.init=prune")

# leaf -> cases: (value, steps that it is an ingredient of, words before it)
ROOT: dict[str, list[tuple[Any, set[str], tuple[str, ...]]]] = {
    "verb": [("eval", NONE, ())],
    "seed": [
        (1, {TRANSFER, DRAWN}, ()),
        (1, {ALIGN, TRANSFER, DRAWN}, ("method.targets=shuffled",)),
        (1, {EXTRACT, TRANSFER, DRAWN}, ("mapping=random",)),
        # drawn by another seed, it is measured beside the option
        (1, {ALIGN, MAPS, TRANSFER, DRAWN}, ("semantics=random",)),
        (1, {TRANSFER, DRAWN}, ("semantics=random", "semantics.seed=3")),
        (1, {TRANSFER, DRAWN} | SCORES, ("eval.temperature=0.5",)),
        (1, {EXTRACT, TRANSFER, DRAWN}, ("method=seeking", "method.structure=random")),
        (1, {ALIGN, DRAWN}, ("method=laten",)),
        (1, {TRANSFER, DRAWN}, ASKED),
        (1, ANSWER | {TRANSFER, DRAWN}, DRAWS),
        (1, {DRAWN}, ("method=identity",)),
    ],
    "device": [("cpu", NONE, ())],
    "threads": [(2, NONE, ())],
    "output_dir": [(f"{HERE}/elsewhere", NONE, ())],
    "store_dir": [(f"{HERE}/elsewhere", NONE, ())],
    "refresh": [(["align"], NONE, ())],
    "plugins": [(["json"], NONE, ())],  # by the digest of their code, see test_extending
    "model.name": [("other", NONE, ())],
    "model.teacher.checkpoint": [
        (STUDENT, {EXTRACT, ALIGN, "eval teacher"} | PARTS, ()),
        (STUDENT, {"eval teacher"} | PARTS, ("method=sft", "objective=ce")),
    ],
    "model.teacher.revision": [("v1", NONE, ())],  # of a hub id; here the files are local
    "model.teacher.init": [("load", NONE, ())],  # a teacher has no other
    "model.teacher.layers": [([1], NONE, ())],
    **{f"model.teacher.cut.{name}": [("null", NONE, ())] for name in ("every", "layers", "heads", "mlp", "hidden")},
    "model.teacher.cut.by": [("cka", NONE, ())],
    "model.teacher.dtype": [("bfloat16", {EXTRACT, ALIGN, "eval teacher"} | PARTS, ())],
    "model.teacher.device_map": [("auto", NONE, ())],
    "model.teacher.roles": [({"like": "llama"}, {EXTRACT, ALIGN, "eval teacher"} | PARTS, ())],
    "model.student.checkpoint": [(TEACHER, STAGES | {"eval student"} | PARTS, ())],
    "model.student.revision": [("v1", NONE, ())],
    "model.student.init": [("load", NONE, ())],  # `prune` comes with layers
    "model.student.layers": [
        ([1, 3], STAGES | {"eval student"} | PARTS, ("model.student.checkpoint=null", "model.student.layers=[1,2]",
                                                     "model.student.init=prune")),
    ],
    # by what is really kept
    "model.student.cut.every": [(2, STAGES | {"eval student"} | PARTS, (*CUT, "model.student.cut.every=1"))],
    "model.student.cut.layers": [(2, STAGES | {"eval student"} | PARTS, (*CUT, "model.student.cut.layers=1"))],
    "model.student.cut.by": [("cka", NONE, (*CUT, "model.student.cut.every=1"))],  # nothing is chosen by it
    "model.student.cut.heads": [(2, STAGES | {"eval student"} | PARTS, (*CUT, "model.student.cut.every=1"))],
    "model.student.cut.mlp": [(0.5, STAGES | {"eval student"} | PARTS, (*CUT, "model.student.cut.every=1"))],
    "model.student.cut.hidden": [(0.5, STAGES | {"eval student"} | PARTS, (*CUT, "model.student.cut.every=1"))],
    "model.student.dtype": [("bfloat16", STAGES | {"eval student"} | PARTS, ())],
    "model.student.device_map": [("auto", NONE, ())],
    "model.student.roles": [({"like": "llama"}, STAGES | {"eval student"} | PARTS, ())],
    "model.chat_template": [(True, STAGES | SCORES | PARTS, ())],
    "model.chat_time": [
        ("2030-01-01", NONE, ()),
        ("2030-01-01", SCORES, ("model.chat_template=true",)),  # the tiny template asks for no time
    ],
    "benchmark.name": [("mine", NONE, ())],
    "benchmark.tasks": [(["custom", "nano_math"], SCORES, ()), (["nano_math"], SCORES, ())],
    "benchmark.train": [(["nano_math"], STAGES | PARTS, ())],
    "benchmark.task_path": [(HERE, NONE, ())],
    "benchmark.data_dir": [(HERE, NONE, ())],  # by the rows of a real benchmark
    "benchmark.code_set": [("pystdlib", NONE, ())],
    "data.sizes.extract": [(5, {EXTRACT}, ()), (5, NONE, ("mapping=depth",))],
    "data.sizes.align": [
        (5, {ALIGN, MAPS}, ()),
        (5, {MAPS}, ("method=hidden_kd",)),  # which fits no map
    ],
    "data.sizes.train": [(9, {ALIGN, TRANSFER}, ()), (9, NONE, ("method=laten",)), (9, NONE, ("method=identity",))],
    "data.sizes.validation": [(5, {ALIGN, TRANSFER}, ()), (3, {ALIGN, TRANSFER}, ())],
    "data.sizes.labelled": [
        (5, STAGES | {MAPS}, UNNAMED),
        (5, {TRANSFER, MAPS}, (*UNNAMED, "method=sft", "objective=ce")),
        (5, ANSWER | {MAPS}, (*UNNAMED, "method=seqkd", "objective=ce")),  # which learns the answers alone
    ],
    "data.sizes.unlabelled": [(2, ANSWER, ASKED), (2, NONE, ())],
    "data.unlabelled": [
        (f"{HERE}/test.jsonl", TAUGHT, ()),
        (f"{HERE}/test.jsonl", NONE, ("method=sft", "objective=ce")),
        (f"{HERE}/test.jsonl", NONE, ("method=laten",)),
        (f"{HERE}/test.jsonl", ANSWER | {TRANSFER}, ("method=seqkd", "objective=ce")),
    ],
    "data.supervise": [("all", NONE, ())],  # the rows have one reply each
    "rows.show": [(1, NONE, ())],
    "rows.splits": [(["test"], NONE, ())],
    "data.too_long": [("leave_out", NONE, ())],  # no row is
    "data.max_length": [(60, NONE, ()), (60, TAUGHT, ASKED)],  # no row is longer, but an answer may be
    "data.shuffle_seed": [(1, STAGES | PARTS, ())],
    "data.extract_tasks": [(["nano_math"], {EXTRACT}, ())],
    "data.train": [(f"{HERE}/test.jsonl", {ALIGN, TRANSFER}, ())],
    # the rows of the file have such a column too: others are trained on
    "data.columns": [({"answer": "prompt"}, {EXTRACT, ALIGN, MAPS, TRANSFER} | PARTS | SCORES, ())],
    "data.extract": [(f"{HERE}/test.jsonl", {EXTRACT}, ())],
    "data.align": [(f"{HERE}/test.jsonl", {ALIGN, MAPS}, ())],
    "data.validation": [(f"{HERE}/test.jsonl", {ALIGN, TRANSFER} | PARTS, ())],
    "data.test": [(f"{HERE}/train.jsonl", SCORES, ())],
    "capture.mode": [("live", {ALIGN}, ()), ("live", NONE, ("method=sft", "objective=ce"))],
    "capture.batch_size": [(2, NONE, ())],
    "capture.max_gb": [(9.0, NONE, ())],
    "capture.shard_mb": [(1, NONE, ())],
    "capture.ahead": [(0, NONE, ())],
    # of two vocabularies alone: tests/smoke/test_two_vocabularies.py
    "meeting.share": [(0.5, NONE, ())],
    "meeting.anchors": [("shuffled", NONE, ())],
    "optim.lr": [(0.1, {TRANSFER}, ()), (0.1, NONE, ("method=laten",))],
    "optim.lr_by_method": [({"default": 0.1}, NONE, ())],
    "optim.lr_by_update": [({"full": 0.1}, NONE, ())],
    "optim.epochs_by_method": [({"default": 7}, NONE, ())],
    "answer.samples": [(2, ANSWER, DRAWS), (2, NONE, ("answer.temperature=0.5",))],
    "answer.temperature": [(0.5, ANSWER, ASKED)],
    "answer.top_p": [(0.5, ANSWER, DRAWS)],
    "answer.max_new_tokens": [(2, ANSWER, ASKED)],
    "answer.keep": [
        ("confident", TAUGHT, ASKED),
        ("verified", TAUGHT | ANSWER, VERIFIED[:-1]),
        ("confident", {TRANSFER}, ("method=seqkd", "objective=ce")),
        ("confident", NONE, ()),
    ],
    "answer.share": [(0.2, TAUGHT, (*ASKED, "answer.keep=confident")), (0.2, NONE, ASKED)],
    "answer.agreement": [(0.2, TAUGHT, VERIFIED), (0.2, NONE, ASKED)],
    "answer.batch_size": [(2, NONE, ASKED)],
    "answer.backend": [("vllm", ANSWER, ASKED)],
    "optim.epochs": [(7, {TRANSFER}, ()), (7, NONE, ("optim.steps=3",))],
    "optim.steps": [(3, {TRANSFER}, ())],
    "optim.batch_size": [(3, {TRANSFER}, ()), (3, NONE, ("optim.tokens_per_batch=99",))],
    "optim.tokens_per_batch": [(99, {TRANSFER}, ())],
    "optim.checkpointing": [(True, NONE, ())],
    "optim.micro_batch_size": [(2, {TRANSFER}, ()), (2, {ALIGN}, ("method=laten",))],
    "optim.weight_decay": [(0.1, {TRANSFER}, ())],
    "optim.betas": [([0.8, 0.9], {TRANSFER}, ())],
    "optim.warmup": [(0.5, {TRANSFER}, ())],
    "optim.schedule": [("linear", {TRANSFER}, ())],
    "optim.max_grad_norm": [(0.0, {TRANSFER}, ())],
    "optim.validate_every": [(3, NONE, ()), (3, {TRANSFER}, ("optim.keep=best",))],
    "optim.keep": [("best", {TRANSFER}, ())],
    "optim.save_every": [(1.0, NONE, ())],
    "optim.precision": [("bfloat16", {TRANSFER}, ()), ("bfloat16", {ALIGN}, ("method=laten",))],
    "eval.split": [("validation", SCORES, ())],
    "eval.limit": [(2, SCORES, ())],
    "eval.batch_size": [(2, NONE, ())],
    "eval.backend": [("vllm", SCORES, ())],
    "vllm": [
        ({"gpu_memory_utilization": 0.5}, NONE, ()),
        ({"quantization": "fp8"}, NONE, ()),  # nobody asks the engine
        ({"gpu_memory_utilization": 0.5}, NONE, ("eval.backend=vllm",)),
        ({"quantization": "fp8"}, SCORES, ("eval.backend=vllm",)),
        ({"quantization": "fp8"}, ANSWER, (*ASKED, "answer.backend=vllm")),
    ],
    "eval.max_new_tokens": [(2, SCORES, ())],
    "eval.models": [(["teacher"], NONE, ())],
    "eval.checkpoint": [(STUDENT, {"eval transferred", "analyze cka", "analyze attribution"}, ())],
    "eval.timeout": [(2.0, SCORES, ()), (2.0, SCORES | ANSWER, VERIFIED)],
    "eval.decoding": [  # the models have no generation settings that change an answer, see test_decoding
        ("model", NONE, ()),
        ("model", SCORES, ("eval.temperature=0.5",)),  # stock draws from the 50 likeliest tokens
    ],
    "eval.samples": [(2, SCORES, ("eval.temperature=0.5",))],
    "eval.temperature": [(0.5, SCORES, ())],
    "eval.top_p": [(0.5, SCORES, ("eval.temperature=0.5",))],
    "analyze.parts": [(["cka"], NONE, ())],
    "analyze.models": [(["teacher", "student"], NONE, ())],  # by what is taken: no transferred student
    "analyze.interface": [("mlp", READ, ())],
    "analyze.positions": [("answer", READ, ())],
    "analyze.split": [("train", PARTS, (f"data.validation={HERE}/test.jsonl",))],
    "analyze.rows": [(3, PARTS, ())],
    "analyze.maps": [(["ridge"], {MAPS}, ())],
    **{
        f"plan.{name}": [(7, NONE, ())]
        for name in ("flops", "memory_gb", "host_gb", "disk_gb", "processes", "prompt_tokens", "answer_tokens")
    },
    "plan.shards": [("true", NONE, ())],
    "tracker.name": [("wandb", NONE, ())],
    "tracker.project": [("p", NONE, ())],
    "tracker.group": [("g", NONE, ())],
    "tracker.mode": [("offline", NONE, ())],
    "tracker.tags": [(["t"], NONE, ())],
    "tracker.examples": [(1, NONE, ())],
    "tracker.checkpoint": [(True, NONE, ())],
}  # fmt: skip

LORA = ("method.update.kind=lora",)
UPDATE: dict[str, list[tuple[Any, set[str], tuple[str, ...]]]] = {
    "update.kind": [("lora", {TRANSFER}, ("method.update.kind=full",))],
    "update.rank": [(2, {TRANSFER}, LORA), (2, NONE, ("method.update.kind=full",))],
    "update.alpha": [(2.0, {TRANSFER}, LORA), (2.0, NONE, ("method.update.kind=full",))],
    "update.targets": [(["up"], {TRANSFER}, LORA), (["up"], NONE, ("method.update.kind=full",))],
    "update.dropout": [(0.1, {TRANSFER}, LORA), (0.1, NONE, ("method.update.kind=full",))],
}
PAIRED: dict[str, list[tuple[Any, set[str], tuple[str, ...]]]] = {
    "name": [("other", NONE, ("optim.lr=0.1",))],
    "interface": [("mlp", {EXTRACT}, ())],
    "reduce": [("abs", {EXTRACT}, ("mapping=critical",)), ("abs", NONE, ("mapping=depth",))],
    "cache_dtype": [("bfloat16", {ALIGN}, ())],
} | UPDATE
FORMS = PAIRED | {
    "schedule": [("joint", {TRANSFER}, ("method.schedule=frontier",))],
    "frontier.output_at": [
        ("all", {TRANSFER}, ("method.schedule=frontier", "method.frontier.output_at=last")),
        ("all", NONE, ("method.schedule=joint", "method.frontier.output_at=last")),
    ],
    "frontier.last_layer_term": [
        (True, {TRANSFER}, ("method.schedule=frontier", "method.frontier.last_layer_term=false")),
        (True, NONE, ("method.schedule=joint", "method.frontier.last_layer_term=false")),
    ],
    "targets": [("shuffled", {ALIGN}, ())],
    "cache_prefix": [(False, NONE, ())],
}
NAME, LAYERS = {"name": PAIRED["name"]}, {"layers": [([1], {TRANSFER}, ())]}
ADAPTED = {f"update.{name}": [UPDATE[f"update.{name}"][0]] for name in ("rank", "alpha", "dropout")}
ONLY_LORA = {"update.kind": [("lora", NONE, ())]}
METHODS = {
    "identity": NAME,
    "sft": NAME | LAYERS | UPDATE,
    "seqkd": NAME | LAYERS | UPDATE,
    "pissa": NAME | LAYERS | ADAPTED | ONLY_LORA | {"update.targets": [(["up"], {TRANSFER}, ())]},
    "kd": NAME | LAYERS | UPDATE,
    "hidden_kd": PAIRED,
    "semalign": FORMS | {"interface": [("block", {EXTRACT}, ())]},
    "semalign_joint": FORMS,
    "semalign_cut": FORMS,
    "semalign_fisher": FORMS | {"interface": [("block", NONE, ())]},
    "semalign_geometry": FORMS | {"span": [("between", {ALIGN}, ())]},
    "seeking": NAME | ONLY_LORA | {
        "recipe": [("original", {EXTRACT}, ())],
        "layers": [("random", {EXTRACT}, ())],
        "structure": [("rows_columns", {EXTRACT}, ())],
        "spectrum": [("gaussian", {ALIGN}, ())],
        "update.rank": [(2, {ALIGN, TRANSFER}, ())],
        "update.alpha": [(2.0, {ALIGN, TRANSFER}, ())],
        "update.targets": [(["up"], {EXTRACT, TRANSFER}, ("method.recipe=null",))],
        "update.dropout": [(0.1, {TRANSFER}, ())],
    },
    "laten": NAME | {
        "rho": [(0.5, {EXTRACT}, ())],
        "legacy_norm": [(True, {EXTRACT}, ())],
        "steps": [(2, {ALIGN}, ())],
        "lr": [(0.1, {ALIGN}, ())],
        "weight_decay": [(0.1, {ALIGN}, ())],
        "penalty": [(1.0, {ALIGN}, ())],
        "align_rows": [(2, {ALIGN}, ())],
        "extract_rows": [(0, {ALIGN}, ())],
    },
}  # fmt: skip
# a term's settings decide `transfer`; what it makes `align` keep is in that key too
KEPT, OWN = {ALIGN, TRANSFER}, {TRANSFER}
PAIRS, MAP = {EXTRACT}, {ALIGN, MAPS}  # a map that is no option's own is measured beside the options
MAPPINGS: dict[str, dict[str, Any]] = {
    "depth": {"count": 2},
    "critical": {"top_n": 2},
    "interpolate": {"count": 2},
    "last": {},
    "explicit": {"layers": [[2, 1]]},
    "random": {"seed": 3, "count": 2},
    "monotone": {"similarity": "one", "count": 2},
    "cka": {"monotone": True, "count": 2},
    "cut": {"at": "own"},
}
SEMANTICS: dict[str, dict[str, Any]] = {
    "cosine": {
        "fold_norm": True, "anchors": "shared", "rcond": 0.1, "precision": "float32", "top_k": 3, "trainable": True,
    },
    "identity": {},
    "input": {"anchors": "shared"},
    "logit_lstsq": {"fold_norm": True, "anchors": "shared", "normalise": False, "rcond": 0.1},
    "procrustes": {"scale": False, "intercept": False, "massive": 30.0, "refit": "epochs"},
    "random": {"seed": 3},
    "ridge": {
        "alpha": 0.1, "intercept": False, "massive": 30.0, "rcond": 0.1, "refit": "epochs", "trainable": True,
    },
}  # fmt: skip
# how a map goes on learning decides what `align` keeps, and is no other map to measure
LEARNS = {"refit": {ALIGN, TRANSFER}, "trainable": {ALIGN, TRANSFER}}
SLOWER: list[tuple[str, str, set[str], tuple[str, ...]]] = [
    (option, "map_lr", steps, words)
    for option in ("cosine", "ridge")
    for steps, words in ((OWN, ("semantics.trainable=true",)), (NONE, ()))
]
TERMS: dict[str, dict[str, tuple[Any, set[str]]]] = {
    "cosine": {"weight": (9.0, OWN), "positions": ("answer", KEPT)},
    "mean_square": {"weight": (9.0, OWN), "positions": ("answer", KEPT)},
    "fisher": {"weight": (9.0, OWN), "positions": ("answer", KEPT), "top_k": (3, OWN)},
    "geometry": {"weight": (9.0, OWN), "relation": ("cosine", OWN), "scope": ("batch", OWN),
                 "positions": ("all", NONE)},  # `answer` needs scope=batch
    "ce": {"weight": (9.0, OWN)},
    "output_cosine": {"weight": (9.0, OWN)},
    "kl": {
        "weight": (9.0, OWN),
        "kind": ("js", OWN),
        "temperature": (5.0, KEPT),
        "top_k": (3, KEPT),
        "teacher": ("live", KEPT),
    },
    "uld": {"weight": (9.0, OWN), "temperature": (5.0, KEPT), "top_k": (3, KEPT)},
    "attended": {"weight": (9.0, OWN), "temperature": (5.0, OWN)},
    "chunk": {"weight": (9.0, OWN), "ends": ("any", KEPT), "temperature": (5.0, OWN)},
}  # fmt: skip


def cases() -> Iterator[Any]:
    for leaf, listed in ROOT.items():
        yield from (pytest.param(leaf, *case, id=leaf) for case in listed)
    yield from (pytest.param(*case.values, id=case.id, marks=pytest.mark.slow) for case in of_strategies())


def of_strategies() -> Iterator[Any]:
    for method, leaves in METHODS.items():
        for leaf, listed in leaves.items():
            for value, steps, words in listed:
                chosen = (f"method={method}", *words)
                yield pytest.param(f"method.{leaf}", value, steps, chosen, id=f"{method}.{leaf}")
    for group, options, steps in (("mapping", MAPPINGS, PAIRS), ("semantics", SEMANTICS, MAP)):
        for option, leaves in options.items():
            for leaf, value in leaves.items():
                needed = (f"{group}={option}", *(("mapping.layers=[[1,1]]",) if option == "explicit" else ()))
                own = LEARNS.get(leaf, steps)
                yield pytest.param(f"{group}.{leaf}", value, own, needed, id=f"{group}.{option}.{leaf}")
    for option, leaf, own, words in SLOWER:
        yield pytest.param(
            f"semantics.{leaf}", 0.7, own, (f"semantics={option}", *words), id=f"{option}.{leaf}"
        )
    for term, leaves in TERMS.items():
        for leaf, (value, steps) in leaves.items():
            place = (
                "layer"
                if term in ("cosine", "mean_square", "fisher", "geometry")
                else "kl"
                if term in ("kl", "uld", "chunk", "attended")
                else "ce"
            )
            everywhere = ("objective.terms.layer.positions=all",) if place == "layer" else ()
            words = (f"term@objective.terms.{place}={term}", *everywhere)
            yield pytest.param(
                f"objective.terms.{place}.{leaf}", value, steps, words, id=f"term.{term}.{leaf}"
            )
        at = f"objective.terms.{place}"
        yield pytest.param(f"{at}.decay", "cosine", OWN, words, id=f"term.{term}.decay")
        still = (*words, f"{at}.decay=constant")
        fallen = (*words, f"{at}.decay=cosine")
        yield pytest.param(f"{at}.decay_to", 0.5, OWN, fallen, id=f"term.{term}.decay_to")
        yield pytest.param(f"{at}.decay_to", 0.5, NONE, still, id=f"term.{term}.decay_to-constant")
    yield pytest.param("objective.balance", "auto", OWN, (), id="objective.balance")


@pytest.fixture(scope="module")
def world(pair, tmp_path_factory) -> dict[str, str]:
    register()
    places = {TEACHER: pair["teacher"], STUDENT: pair["student"], HERE: pair["root"]}
    return {name: str(path) for name, path in places.items()} | {
        "out": str(tmp_path_factory.mktemp("outputs"))
    }


@cache
def composed(words: tuple[str, ...]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose("run", overrides=list(words))


def base(world: dict[str, str]) -> tuple[str, ...]:
    sizes = {"extract": 4, "align": 4, "train": 8, "validation": 4}
    files = dict.fromkeys(("extract", "align", "train", "validation"), "train") | {"test": "test"}
    return (
        "tracker=none",
        "threads=1",
        "benchmark=custom",
        "mapping=critical",
        "semantics=ridge",  # the default's map is trained along, which other settings cannot go with
        f"output_dir={world['out']}",
        f"model.teacher.checkpoint={world[TEACHER]}",
        f"model.student.checkpoint={world[STUDENT]}",
        *(f"data.{split}={world[HERE]}/{file}.jsonl" for split, file in files.items()),
        *(f"data.sizes.{split}={count}" for split, count in sizes.items()),
        "analyze.rows=2",
    )


@cache
def planned(words: tuple[str, ...], leaf: str | None = None, text: str = "null") -> Plan:
    bench, method = built(words, leaf, text)
    planner = Planner(bench=bench, method=method)
    plan_scores(planner, evaluate.asked(bench))
    analyze.plan(planner, analyze.subject(bench, {}, options()))
    return planner.plan


@cache
def built(words: tuple[str, ...], leaf: str | None = None, text: str = "null") -> tuple[Workbench, Method]:
    cfg = copy.deepcopy(composed(words))
    if leaf is not None:
        with open_dict(cfg):
            parent, _, name = leaf.rpartition(".")
            node = OmegaConf.select(cfg, parent) if parent else cfg
            node[name] = OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]
    check(cfg)
    return request(cfg)


@cache
def options() -> dict[str, Any]:
    return every_map()


def placed(value: Any, world: dict[str, str]) -> str:
    text = str(value) if not isinstance(value, bool) else str(value).lower()
    for name in (TEACHER, STUDENT, HERE):
        text = text.replace(name, world[name])
    return text


def own_ingredients(plan: Plan) -> dict[str, Any]:
    return {step.name: {k: v for k, v in step.ingredients.items() if k != "inputs"} for step in plan}


@pytest.mark.parametrize(("leaf", "value", "steps", "words"), list(cases()))
def test_a_leaf_changes_the_keys_that_it_should(world, leaf, value, steps, words):
    keys = {word.partition("=")[0] for word in words}
    # another method has a map of its own
    own = keys | {"semantics"} if "method" in keys and "method=semalign_joint" not in words else keys
    chosen = tuple(word for word in base(world) if word.partition("=")[0] not in own)
    request_words = (*chosen, *(placed(word, world) for word in words))
    before = planned(request_words)
    after = planned(request_words, leaf, placed(value, world))
    both = [step.name for step in before if step.name in after]
    own = own_ingredients(before), own_ingredients(after)
    direct = {name for name in both if own[0][name] != own[1][name]}
    assert direct == steps & set(both)
    changed = {name for name in both if before[name].key != after[name].key}
    expected: set[str] = set()
    for name in both:  # in order: what is taken comes first
        if name in direct or set(after[name].takes) & expected or before[name].takes != after[name].takes:
            expected.add(name)
    assert changed == expected
    if unread(*built(request_words, leaf, placed(value, world)), after, {leaf: leaf}):
        assert not steps & set(after.steps)  # what is told to decide nothing decides nothing


def leaves(cls: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(cls):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if dataclasses.is_dataclass(default):
            yield from leaves(type(default), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def option_leaves(group: str) -> dict[str, set[str]]:
    """Leaves of every option of a group, from the classes that the files name."""
    found = {}
    files = option_files(group)
    for name in files:
        stands_on = group == "semantics"  # of other groups, defaults name options of still others
        target = str((read_option(name, files) if stands_on else OmegaConf.load(files[name]))._target_)
        module, _, cls = target.rpartition(".")
        found[name] = set(leaves(getattr(import_module(module), cls)))
    return found


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Let every optional engine be there: nothing is run."""
    monkeypatch.setattr("pkt.checks.find_spec", lambda _name: True)


def test_the_table_has_every_leaf():
    strategies = {"method", "mapping", "semantics", "objective"}
    assert set(ROOT) == {leaf for leaf in leaves(Config) if leaf not in strategies}
    assert {name: set(own) for name, own in METHODS.items()} == option_leaves("method")
    assert {name: set(own) for name, own in MAPPINGS.items()} == option_leaves("mapping")
    slower = {option: {leaf for other, leaf, *_ in SLOWER if other == option} for option in SEMANTICS}
    maps = option_leaves("semantics")
    assert maps.pop("ridge_refit") == maps.pop("ridge_trained") == maps["ridge"]
    assert {name: set(own) | slower[name] for name, own in SEMANTICS.items()} == maps
    falling = {"decay", "decay_to"}  # of every term
    assert {name: set(own) | falling for name, own in TERMS.items()} == option_leaves("term")


def test_adding_a_leaf_changes_no_key(world, monkeypatch):
    """A field that is introduced with `since`, and one that decides nothing, are in no key at their defaults."""
    from pkt.config import OptimConfig
    from pkt.settings import setting, undecisive

    before = planned(base(world))
    added = dataclasses.make_dataclass(
        "OptimConfig",
        [("newer", int, setting(3, since=3)), ("silent", int, undecisive(0))],
        bases=(OptimConfig,),
        kw_only=True,
    )
    bench, method = request(copy.deepcopy(composed(base(world))))
    bench.config.optim = added(**vars(bench.config.optim))
    planner = Planner(bench=bench, method=method)
    planner.chain("transfer")
    assert planner.plan["transfer"].key == before["transfer"].key
    bench.config.optim.newer = 4
    planner = Planner(bench=bench, method=method)
    planner.chain("transfer")
    assert planner.plan["transfer"].key != before["transfer"].key


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("method=sft", "objective=ce", "semantics=random"), ["semantics"]),
        (("method=sft", "objective=ce", "capture.mode=live"), ["capture.mode"]),
        (("method=kd", "objective=kd", "mapping=last", "capture.mode=live"), ["mapping"]),
        (("method=sft", "objective=ce", "answer.temperature=0.5"), ["answer.temperature"]),
        (("optim.steps=3", "optim.epochs=4", "optim.validate_every=2"), ["optim.epochs"]),
        (("optim.tokens_per_batch=99", "optim.batch_size=3", "optim.save_every=1"), []),
        (("method=laten", "optim.lr=0.1", "method.lr=0.1"), ["optim.lr"]),
        (("method.update.kind=full", "method.update.rank=2"), ["method.update.rank"]),
        (("mapping=depth", "method.reduce=abs", "eval.limit=3"), ["method.reduce"]),
        (("eval.limit=3", "seed=4", "device=cpu", "semantics.alpha=0.5", "objective.terms.layer.weight=2"), []),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_named(world, words, told):
    keys = {word.partition("=")[0] for word in words}
    own = keys | {"semantics"} if "method" in keys else keys
    words_of_base = tuple(word for word in base(world) if word.partition("=")[0] not in own)
    bench, method = built((*words_of_base, *words))
    plan = planned((*words_of_base, *words))
    assert (
        unread(bench, method, plan, {word.partition("=")[0]: word.partition("=")[0] for word in words})
        == told
    )


def test_dropout_of_several_processes_is_in_the_key(world):
    """Each draws the masks of its own rows; without dropout their number changes nothing."""
    keys = {}
    for dropout in (0, 0.1):
        for count in (1, 2):
            bench, method = request(
                composed((*base(world), f"method.update.dropout={dropout}", "method.update.kind=lora"))
            )
            bench.processes = Processes(count=count)
            planner = Planner(bench=bench, method=method)
            planner.chain("transfer")
            keys[dropout, count] = planner.plan["transfer"].key
    assert keys[0, 1] == keys[0, 2]
    assert keys[0.1, 1] != keys[0.1, 2]


def test_what_is_measured_of_maps_is_by_their_code(world, monkeypatch):
    plans = []
    for code in ("one", "two"):
        found = {"lab": {"code": code}}
        monkeypatch.setattr("pkt.planner.origins", lambda *own, found=found: found if own else {})
        plans.append(planned.__wrapped__(base(world)))
    before, after = plans
    assert {step.name for step in before if step.key != after[step.name].key} >= {MAPS, TRANSFER}
    assert before[DRAWN].key == after[DRAWN].key  # reads no map
