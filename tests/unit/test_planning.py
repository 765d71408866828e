"""What `pkt plan` says: shapes, facts about methods and terms, refusals, remedies, and the verb itself."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from pkt.cli import main
from pkt.config_files import read_option
from pkt.errors import RequestError
from pkt.objectives import needed_states
from pkt.pipeline import every_option
from pkt.planning.costs import costs
from pkt.planning.counted import assumed
from pkt.planning.estimate import read, settled
from pkt.planning.facts import carried, pair_of
from pkt.planning.memory import V_WIDE, total
from pkt.planning.remedies import remedy
from pkt.planning.shapes import Shape
from pkt.searchpath import builtin_conf_dir, groups, option_files, register
from tiny import tiny_model


@cache
def _composed(*words: str) -> DictConfig:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose("plan", overrides=list(words))


def composed(*words: str) -> DictConfig:
    return copy.deepcopy(_composed(*words))


@pytest.mark.parametrize("name", carried())
def test_the_configs_that_pkt_carries_have_the_parameters_that_their_models_have(name: str):
    own = carried()[name]
    assert Shape.read(own["config"], "bfloat16", name).parameters == own["parameters"]


def test_every_model_on_the_hub_in_a_shipped_pair_is_carried():
    files = option_files("model")
    pairs = [read_option(name, files) for name in groups()["model"]]
    named = {pair[who].get("checkpoint") or "" for pair in pairs for who in ("teacher", "student")}
    assert {name for name in named if name and ":" not in name} == carried().keys()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt"])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_from_the_config(family: str, tied: bool):
    model = tiny_model(family, tied=tied, depth=3)
    shape = Shape.read(model.config.to_dict(), "float32", family)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_every_term_has_numbers_of_its_own():
    for term in every_option("term").values():
        assert type(term).__name__ in V_WIDE or needed_states(term) is not None


@pytest.mark.parametrize("method", groups()["method"])
def test_every_method_has_a_cost_with_every_kind_of_pair(method: str):
    cfg = composed(f"method={method}", "benchmark=gsm8k")
    of_cut = cfg.mapping._target_ == "pkt.mapping.Cut"  # which no other student has
    for model in ("nano-narrow",) if of_cut else ("llama-13b-to-7b", "nano-narrow"):
        cfg.model = composed(f"model={model}").model
        config = settled(cfg)
        pair = pair_of(config.model, on_gpu=False)
        rows = assumed(config, pair, "")
        found = costs(read(cfg, pair), rows)
        assert found["transfer"].moments
        for cost in found.values():
            assert cost.disk >= 0
            assert all(item.bytes >= 0 for items in cost.moments.values() for item in items)


def test_the_plan_grows_with_what_is_asked_for():
    def cost(*words: str):
        cfg = composed("model=llama-7b-to-1b", "benchmark=gsm8k", *words)
        config = settled(cfg)
        pair = pair_of(config.model, on_gpu=False)
        return costs(read(cfg, pair), assumed(config, pair, ""))

    plain, twice = cost(), cost("data.sizes.train=2000")
    assert twice["align"].disk > 1.7 * plain["align"].disk
    assert twice["transfer"].operations > 1.9 * plain["transfer"].operations
    # eigenvectors take some ten n^3, Cholesky's a third
    solved, chosen = (
        cost("semantics=ridge", f"semantics.alpha={alpha}")["align"] for alpha in (1e-4, "null")
    )
    assert chosen.operations > solved.operations + 22 * 2 * 10 * 4096**3
    layers, adapters = (
        cost("semantics=ridge", *more)["transfer"] for more in ((), ("method.update.kind=lora",))
    )
    assert adapters.scratch < 0.05 * layers.scratch
    # two snapshots of what is added to each map, with its two moments
    assert plain["transfer"].scratch - layers.scratch == 2 * 3 * 4 * (4096 * 2048 * 22)
    tokens = plain["transfer"].student_tokens
    assert cost("objective.terms.kl.teacher=live")["transfer"].teacher_tokens == tokens
    # the map is fitted again after four of five epochs, on 128 rows of 190 tokens
    assert cost("semantics=ridge_refit")["transfer"].student_tokens == tokens + 4 * 128 * 190
    assert cost("optim.epochs=0")["transfer"].student_tokens == 0


def test_a_student_that_is_not_scored_is_not_made():
    cfg = composed("benchmark=gsm8k", "method=sft")
    pair = pair_of(settled(cfg).model, on_gpu=False)
    rows = assumed(settled(cfg), pair, "")
    assert list(costs(read(cfg, pair), rows)) == [
        "transfer",
        "eval teacher",
        "eval student",
        "eval transferred",
    ]
    cfg.eval.models = ["teacher"]
    assert list(costs(read(cfg, pair), rows)) == ["eval teacher"]
    cfg.eval.models, cfg.eval.checkpoint = ["transferred"], "/a/student"
    assert list(costs(read(cfg, pair), rows)) == ["eval transferred"]


def test_a_remedy_names_settings_that_bring_the_peak_down():
    cfg = composed("optim.batch_size=64")

    def peak(changed: DictConfig) -> float:
        return float(changed.optim.micro_batch_size or changed.optim.batch_size) * (
            1 if changed.method["update"]["kind"] == "lora" else 2
        )

    words, least = remedy(cfg, peak, 16.0)
    assert words == ["optim.micro_batch_size=8"]
    assert least == 16.0
    words, least = remedy(cfg, peak, 1.0)
    assert words == ["optim.micro_batch_size=1", "method.update.kind=lora"]
    assert least == 1.0
    assert remedy(cfg, lambda _cfg: 5.0, 1.0) == ([], 5.0)


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """Run the verb in this process; returns exit code, output and errors."""
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path / "out"))

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["plan", "tracker=none", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


HUB = ("model=llama-13b-to-7b", "benchmark=gsm8k", "plan.flops=1e12")


def test_a_pair_of_the_hub_is_planned_without_the_hub_and_says_what_does_not_fit(plan, tmp_path):
    code, out, err = plan(*HUB, "plan.memory_gb=80", "plan.disk_gb=1", "device=cpu")
    assert code == 0
    assert "not known" in out
    assert "assumed" in out
    assert "transfer takes" in err
    assert "optim.micro_batch_size=" in err
    assert "PKT_OUTPUT_DIR" in err
    (written,) = (tmp_path / "out" / "runs" / "plan").glob("*/plan.json")
    content = json.loads(written.read_text(encoding="utf-8"))
    assert content["stages"]["align"]["disk"] > 9e10
    assert content["stages"]["transfer"]["seconds"][0] < content["stages"]["transfer"]["seconds"][1]


def test_layers_that_are_shared_out_are_divided():
    def adamw(*words: str):
        cfg = composed(*HUB, "plan.processes=8", "optim.micro_batch_size=2", *words)
        config, pair = settled(cfg), pair_of(settled(cfg).model, on_gpu=False)
        return costs(read(cfg, pair), assumed(config, pair, ""))["transfer"].moments["AdamW"]

    whole, parts = adamw(), adamw("plan.shards=true")
    layer, beside = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096, 32 * 4096 * 5120  # a map per layer
    sizes = {item.what: item.bytes for item in parts}
    assert sizes["AdamW's moments (layers)"] == 8 * 32 * layer
    assert sizes["AdamW's moments (beside them)"] == 8 * beside
    saved = total(whole, processes=8) - total(parts, processes=8)
    # weights, gradients and moments in float32, but for two layers that are whole
    assert saved == (7 / 8 * 32 * 16 - 2 * 4) * layer


@pytest.mark.slow
def test_a_device_of_unknown_memory_is_told(plan):
    code, _, err = plan(*HUB, "device=cuda")
    assert code == 0
    assert "plan.memory_gb" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan.processes=0"], "plan.processes"),
        (["plan.flops=-1"], "plan.flops"),
        (["plan.flop=1e12"], "flops"),
        (["mapping=explicit", "mapping.layers=[[99,1]]"], "mapping.layers"),
    ],
)
def test_a_wrong_request_is_refused(plan, words: list[str], said: str):
    code, _, err = plan(*HUB, *words)
    assert code == 2
    assert said in err


def test_a_model_of_experts_is_refused(tmp_path, plan):
    config = carried()["Qwen/Qwen3-4B"]["config"] | {"num_experts": 8}
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(RequestError, match="model_type=qwen3"):
        Shape.read(config, "float32", "the teacher")


def test_nothing_heavy_is_imported_for_a_pair_of_the_hub(tmp_path):
    code = (
        "import sys; from pkt.cli import main; assert main(sys.argv[1:]) == 0;"
        "assert not {'torch', 'transformers', 'datasets', 'scipy'} & set(sys.modules), set(sys.modules);"
    )
    words = ["plan", *HUB[:2], "tracker=none", f"output_dir={tmp_path}"]
    subprocess.run(
        [sys.executable, "-c", code, *words],
        check=True,
        timeout=120,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_what_is_there_is_reused(plan, tmp_path):
    words = (
        "plan.flops=1e12",
        "benchmark=nano_math",
        "data.sizes.train=20",
        "data.sizes.validation=5",
        "eval.limit=4",
    )
    code, out, _ = plan(*words, "eval.models=[transferred]")
    assert code == 0
    assert "counted on the request's own rows" in out
    (written,) = (tmp_path / "out" / "runs" / "plan").glob("*/plan.json")
    stages = json.loads(written.read_text(encoding="utf-8"))["stages"]
    assert {found["result"] for found in stages.values()} == {"computed"}
    (tmp_path / "out" / "store" / "align" / stages["align"]["key"]).mkdir(parents=True)
    _, out, _ = plan(*words, "eval.models=[transferred]")
    states = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert "reused" in states["align"]
    assert "computed" in states["transfer"]
    _, out, _ = plan(*words, "eval.models=[transferred]", "refresh=[align]")
    assert "reused  " not in out
