"""Streamed sensitivity against the in-memory textbook, after kills at any moment, and in peak memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pkt.attribution import disk_sums
from pkt.attribution.sensitivity import parameter_name, sensitivity
from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.errors import PktError, RequestError
from pkt.models.architecture import Architecture
from textbook.weights import textbook_sensitivity as textbook
from tiny import tiny_model

FAMILIES = ("llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "opt")


def encoded(rows=4, *, empty=()):
    """Rows of different lengths; those in `empty` end with their prompt."""
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(3, 320, (7 + 2 * r,), generator=generator).tolist() for r in range(rows)]
    prompts = [len(ids[r]) if r in empty else 4 + r for r in range(rows)]
    return Encoded(input_ids=ids, prompt_lengths=prompts)


def run(arch, rows, folder, **more):
    keep = more.pop("keep", {name for name, p in arch.model.named_parameters() if p.dim() == 2})
    return sensitivity(
        arch, lambda i: collate(rows, [i]), len(rows.lengths), keep=keep, folder=folder, **more
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_equals_the_textbook(family, tied, tmp_path):
    arch, rows = Architecture.of(tiny_model(family, tied=tied)), encoded()
    found = run(arch, rows, tmp_path)
    expected = textbook(tiny_model(family, tied=tied), rows)
    assert (found.done, found.skipped) == (4, [])
    for name in found.shapes:
        value = expected[name]
        torch.testing.assert_close(
            found.matrix(name), value, atol=1e-5 * value.max().item() + 1e-12, rtol=1e-4, msg=name
        )
    for index, score in enumerate(found.layer_scores(arch)):
        prefix = f"{arch.roles.layers}.{index}."
        total = sum(v.double().sum().item() for n, v in expected.items() if n.startswith(prefix))
        assert score == pytest.approx(total, rel=1e-5)


def test_the_absolute_value_is_per_row(tmp_path):
    """Two rows: the sum of absolute values, not the absolute value of the sum."""
    arch = Architecture.of(tiny_model("llama"))
    both = encoded(2)
    singles = [
        Encoded(input_ids=[i], prompt_lengths=[p])
        for i, p in zip(both.input_ids, both.prompt_lengths, strict=True)
    ]
    found = run(arch, both, tmp_path / "both")
    parts = [run(arch, one, tmp_path / str(i)) for i, one in enumerate(singles)]
    for name in found.shapes:
        torch.testing.assert_close(found.matrix(name), parts[0].matrix(name) + parts[1].matrix(name))


def test_bfloat16_products_are_float32(tmp_path):
    rows = encoded()
    found = run(Architecture.of(tiny_model("llama").bfloat16()), rows, tmp_path)
    expected = textbook(tiny_model("llama").bfloat16(), rows)
    for name in found.shapes:
        matrix = found.matrix(name)
        assert matrix.dtype == torch.float32
        # gradients themselves are bfloat16, and the logits of one position or all are not the same kernel
        error = (matrix - expected[name]).norm() / expected[name].norm()
        assert error < 0.05, name


def test_model_is_left_as_it_was(tmp_path):
    model = tiny_model("llama")
    model.requires_grad_(False)
    next(model.parameters()).requires_grad_(True)
    before = {name: p.clone() for name, p in model.named_parameters()}
    run(Architecture.of(model), encoded(), tmp_path)
    for number, (name, parameter) in enumerate(model.named_parameters()):
        assert parameter.grad is None
        assert parameter.requires_grad == (number == 0)
        assert torch.equal(parameter, before[name])
        assert not parameter._post_accumulate_grad_hooks


def test_what_is_not_kept_has_no_file_and_still_counts(tmp_path):
    arch = Architecture.of(tiny_model("llama"))
    name = parameter_name(arch, arch.projection(2, "up"))
    found = run(arch, encoded(), tmp_path / "one", keep={name})
    whole = run(arch, encoded(), tmp_path / "all")
    assert {path.name.rsplit(".", 2)[0] for path in (tmp_path / "one").glob("*.f32")} == {name}
    assert found.layer_scores(arch) == whole.layer_scores(arch)
    assert torch.equal(found.matrix(name), whole.matrix(name))
    assert arch.roles.embed + ".weight" not in found.totals


def test_rows_without_supervision_are_left_out(tmp_path):
    arch = Architecture.of(tiny_model("llama"))
    rows = encoded(4, empty=(0, 2))
    found = run(arch, rows, tmp_path / "some")
    assert (found.done, found.skipped) == (4, [0, 2])
    rest = Encoded(input_ids=rows.input_ids[1::2], prompt_lengths=rows.prompt_lengths[1::2])
    expected = run(arch, rest, tmp_path / "rest")
    for name in found.shapes:
        assert torch.equal(found.matrix(name), expected.matrix(name))
    with pytest.raises(RequestError, match="of 2 extract rows, 2 have no answer token"):
        run(arch, encoded(2, empty=(0, 1)), tmp_path / "none")
    with pytest.raises(RequestError, match=r"raise data\.sizes\.extract"):
        run(arch, encoded(0), tmp_path / "zero")


def test_a_parameter_without_a_gradient_is_zero(tmp_path):
    arch = Architecture.of(tiny_model("llama"))
    unused = torch.nn.Parameter(torch.ones(3, 2))
    arch.layers[0].register_parameter("unused", unused)
    name = f"{arch.roles.layers}.0.unused"
    found = run(arch, encoded(), tmp_path, keep={name})
    assert torch.equal(found.matrix(name), torch.zeros(3, 2))


@pytest.mark.parametrize("save_every", [0.0, 1e9])
@pytest.mark.parametrize("stop", [1, 9, 17, 30, 44, 66])
def test_a_kill_at_any_moment_changes_no_bit(save_every, stop, tmp_path, monkeypatch):
    """Die in the middle of writing one part of one file, at different moments, twice; then go on."""
    arch, rows = Architecture.of(tiny_model("llama", depth=2)), encoded()
    expected = run(arch, rows, tmp_path / "whole")
    real, calls = disk_sums._add, []

    def deadly(source, target, start, product):
        calls.append(1)
        if len(calls) == stop:
            target.seek(4 * start)
            target.write(b"\xff" * (2 * product.numel()))  # half a write of rubbish
            raise KeyboardInterrupt
        real(source, target, start, product)

    for _ in range(2):
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(disk_sums, "_PART", 500)  # several parts per matrix
            patch.setattr(disk_sums, "_add", deadly)
            with pytest.raises(KeyboardInterrupt):
                run(arch, rows, tmp_path / "killed", save_every=save_every)
    seen: list[int] = []
    found = run(arch, rows, tmp_path / "killed", save_every=save_every, listen=seen.append)
    assert sum(seen) == 4
    assert found.totals == expected.totals
    for name in expected.shapes:
        assert torch.equal(found.matrix(name), expected.matrix(name)), name


def test_a_finished_call_is_not_repeated(tmp_path):
    arch, rows = Architecture.of(tiny_model("llama")), encoded()
    first = run(arch, rows, tmp_path)
    again = sensitivity(arch, lambda i: pytest.fail("computed anew"), 4, keep=first.shapes, folder=tmp_path)
    assert again == first


@pytest.mark.parametrize("damage", ["sum", "cut sum", "state", "deep state", "other sums"])
def test_sums_that_were_changed_are_summed_anew(tmp_path, damage, caplog):
    arch, rows = Architecture.of(tiny_model("llama", depth=2)), encoded()
    first = run(arch, rows, tmp_path)
    sums, state = sorted(tmp_path.glob("*.f32")), tmp_path / "sensitivity.json"
    content = bytearray(sums[0].read_bytes())
    match damage:
        case "sum":
            content[5] ^= 1
        case "cut sum":
            content = content[:-4]
        case "other sums":
            same = [path for path in sums if path.stat().st_size == sums[0].stat().st_size]
            content = bytearray(same[1].read_bytes())
        case "state":
            state.write_text(state.read_text().replace('"done": 4', '"done": 3'))
        case "deep state":
            state.write_text("[" * 100_000)
    sums[0].write_bytes(content)
    again = run(arch, rows, tmp_path)
    assert "summed from the first row on" in caplog.text
    assert again == first
    for name in first.shapes:
        assert torch.equal(again.matrix(name), first.matrix(name))


def test_sums_that_change_before_they_are_used_are_refused(tmp_path):
    found = run(Architecture.of(tiny_model("llama", depth=2)), encoded(), tmp_path)
    name = next(iter(found.shapes))
    file = tmp_path / f"{name}.{found.slots[name]}.f32"
    content = bytearray(file.read_bytes())
    content[9] ^= 4
    file.write_bytes(content)
    with pytest.raises(PktError, match="run the request again"):
        found.matrix(name)


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path):
    """The real thing: SIGKILL to the process, with the last checkpoint one row behind."""
    code = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_sensitivity import *
done = []
def listen(n):
    done.append(n)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
torch.set_num_threads(1)
run(Architecture.of(tiny_model("llama")), encoded(), Path(sys.argv[1]), save_every=0.0, listen=listen)
"""
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a"), here], env=environment, timeout=120
    )
    assert ended.returncode == -9
    arch = Architecture.of(tiny_model("llama"))
    state = json.loads((tmp_path / "a" / "sensitivity.json").read_text())
    assert state["done"] == 3
    found, expected = run(arch, encoded(), tmp_path / "a"), run(arch, encoded(), tmp_path / "b")
    for name in expected.shapes:
        want = expected.matrix(name)  # the first rows are another process's, perhaps with other threads
        torch.testing.assert_close(found.matrix(name), want, rtol=1e-3, atol=1e-4 * float(want.max()))


def test_numbers_that_are_not_finite(tmp_path):
    arch = Architecture.of(tiny_model("llama"))
    with torch.no_grad():
        arch.final_norm.weight[0] = float("nan")
    with pytest.raises(PktError, match="loss of extract row 0 is nan"):
        run(arch, encoded(), tmp_path / "a")
    arch = Architecture.of(tiny_model("llama"))
    arch.projection(1, "up").weight.register_hook(lambda g: g * float("inf"))
    arch.model.requires_grad_(True)
    with pytest.raises(PktError, match=r"sensitivity of model\.layers\.0\.mlp\.up_proj\.weight became"):
        run(arch, encoded(), tmp_path / "b")
    assert all(p.grad is None for p in arch.model.parameters())


def test_a_full_disk_is_refused_before_the_first_row(tmp_path, monkeypatch):
    arch = Architecture.of(tiny_model("llama"))
    size = 8 * sum(p.numel() for p in arch.model.parameters() if p.dim() == 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=size - 1))
    with pytest.raises(PktError, match="set PKT_OUTPUT_DIR to a larger disk"):
        run(arch, encoded(), tmp_path)
    assert not list(tmp_path.glob("*.f32"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=size))
    run(arch, encoded(), tmp_path)


MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_sensitivity import *
torch.set_num_threads(1)
model = tiny_model("llama", depth=12, width=512, intermediate_size=2048)
weights = sum(p.numel() * 4 for p in model.parameters())
largest = max(p.numel() * 4 for p in model.parameters())
rows, folder = encoded(2), Path(sys.argv[2])
arch = Architecture.of(model)
run(Architecture.of(tiny_model("llama")), rows, folder / "first")  # what torch allocates at first use
def resident(name):  # not ru_maxrss: that remembers the size of the process which forked this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts at what is resident now
before = resident("VmRSS")
run(arch, rows, folder) if sys.argv[1] == "streamed" else textbook(model, rows)
peak = resident("VmHWM")
print(json.dumps({"weights": weights, "largest": largest, "growth": peak - before}))
"""


# glibc keeps what was freed by rules that learn as a process runs, 10 to 40 MB here; so it is told to give all back
GIVES_BACK = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}


@pytest.mark.slow  # two processes with a model of 150 MB
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_the_weights_and_about_a_layer(tmp_path):
    measured = {}
    for kind in ("streamed", "textbook"):
        command = [sys.executable, "-c", MEMORY, kind, str(tmp_path / kind), str(Path(__file__).parent)]
        environment = (
            os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"} | GIVES_BACK
        )
        done = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        measured[kind] = json.loads(done.stdout.splitlines()[-1])
    weights, layer = measured["streamed"]["weights"], measured["streamed"]["weights"] / 12
    assert measured["textbook"]["growth"] > weights  # all gradients and all sums
    assert measured["streamed"]["growth"] < 2 * layer + 10e6
