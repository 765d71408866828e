"""Two processes leave what one leaves: losses, weights, budget, kept states, whoever finishes what the other began."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from unittest import mock

import pytest
import torch
from accelerate import debug_launcher
from safetensors.torch import load_file
from test_capture import CACHED
from torch.multiprocessing import ProcessRaisedException
from world import Stop

from pkt.attribution.disk_sums import DiskSums
from pkt.errors import RequestError
from pkt.methods.layer_results import LayerAlignment
from pkt.processes import Processes
from pkt.training.loop import Trainer
from pkt.training.shards import Column, write_shards

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")]
TAUGHT = (
    ("sft", "llama", ()),
    ("kd", "qwen3", (CACHED,)),  # a bias of keys has no gradient but rounding, which AdamW makes a step of
    ("hidden_kd", "llama", ("optim.micro_batch_size=1",)),
    ("semalign", "llama", ("method.update.dropout=0",)),
    ("semalign_joint", "qwen3", ("semantics.refit=epochs", "optim.epochs=2")),
    ("semalign_joint", "llama", ("semantics=ridge_trained", "optim.epochs=2")),
    ("semalign_joint", "llama", ("optim.batch_size=3", "optim.keep=best")),  # the last batch has two rows
    ("semalign_joint", "llama", ("optim.batch_size=7", "capture.mode=window")),  # and here one
    (
        "semalign_geometry",
        "gemma3_text",
        ("method.update.dropout=0", "optim.epochs=4", "objective.balance=none"),
    ),
    ("seqkd", "llama", ("answer.batch_size=2",)),
)


def one(world, outputs, method, family, more, stop=None):
    return world.run(method, family, *more, outputs=outputs, stop=stop)


def two(world, outputs, method, family, more, stop=None) -> None:
    debug_launcher(one, (world, outputs, method, family, more, stop), num_processes=2)


def left(outputs):
    """Weights, record and kept states that are in a store."""
    (folder,) = (path for path in (outputs / "store" / "transfer").iterdir() if path.is_dir())
    kept = {
        path.relative_to(outputs).as_posix(): path.read_bytes()
        for path in sorted((outputs / "store").glob("align/*/states/*/*.safetensors"))
    }
    return load_file(folder / "model" / "model.safetensors"), (folder / "metrics.json").read_text(), kept


def alike(found, expected, within: float = 1e-6) -> None:
    import json

    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=within)
    mine, theirs = json.loads(found[1]), json.loads(expected[1])
    assert mine["budget"] == theirs["budget"]
    for own, other in zip(mine["history"]["validations"], theirs["history"]["validations"], strict=True):
        assert own == pytest.approx(other, abs=1e-5)
    assert found[2] == expected[2]


@pytest.mark.parametrize(("method", "family", "more"), TAUGHT)
def test_two_processes_leave_what_one_leaves(world, tmp_path, method, family, more):
    one(world, tmp_path / "one", method, family, more)
    two(world, tmp_path / "two", method, family, more)
    alike(left(tmp_path / "two"), left(tmp_path / "one"))


def test_masks_of_dropout_are_each_processs_own_and_so_is_the_key(world, tmp_path):
    case = ("seeking", "llama", ("optim.lr=0.005",))
    one(world, tmp_path, *case)
    two(world, tmp_path, *case)
    made = [path for path in (tmp_path / "store" / "transfer").iterdir() if path.is_dir()]
    assert len(made) == 2
    assert len([path for path in (tmp_path / "store" / "align").iterdir() if path.is_dir()]) == 1


def starved(world, outputs, case) -> None:
    """Memory runs out in both processes."""
    with mock.patch.object(Trainer, "_accumulated", side_effect=torch.OutOfMemoryError("no memory")):
        one(world, outputs, *case)


def test_rows_of_several_processes_are_not_halved(world, tmp_path):
    with pytest.raises(
        ProcessRaisedException, match=r"memory ran out at optimiser step 1.*, optim.micro_batch_size"
    ):
        debug_launcher(starved, (world, tmp_path, ("sft", "llama", ())), num_processes=2)


def late(world, outputs, case) -> None:
    """The second process takes its time at the end of `align`, whose files it still reads."""
    whole = LayerAlignment.kept_bytes

    def slow(own: LayerAlignment) -> int:
        time.sleep(1.5 * torch.distributed.get_rank())
        return whole.fget(own)

    with mock.patch.object(LayerAlignment, "kept_bytes", property(slow)):
        one(world, outputs, *case)


def test_a_result_stays_in_its_place_until_all_have_read_it(world, tmp_path):
    case = ("semalign_joint", "llama", ())
    one(world, tmp_path / "one", *case)
    debug_launcher(late, (world, tmp_path / "two", case), num_processes=2)
    alike(left(tmp_path / "two"), left(tmp_path / "one"))


def apart(world, outputs, case) -> None:
    """The second process takes its time with each matrix whose sensitivity is summed, in files that both see."""
    whole = DiskSums.add

    def slowly(*args):
        if os.environ["RANK"] == "1":
            time.sleep(0.01)
        whole(*args)

    with mock.patch.object(DiskSums, "add", slowly):
        one(world, outputs, *case)


def test_sums_on_disk_are_those_of_one_process(world, tmp_path):
    case = ("seeking", "llama", ("method.update.dropout=0", "optim.save_every=0"))
    one(world, tmp_path / "one", *case)
    debug_launcher(apart, (world, tmp_path / "two", case), num_processes=2)
    alike(left(tmp_path / "two"), left(tmp_path / "one"))


LATE = """
import time
from datetime import timedelta
import torch
from pkt import processes
processes.PATIENCE = timedelta({patience})
here = processes.connect(lambda: torch.device("cpu"))
if here.main:
    time.sleep(3)  # it works alone
here.wait()
"""


@pytest.mark.parametrize(("patience", "code"), [("days=7", 0), ("seconds=1", 1)])
def test_others_wait_as_long_as_they_are_told_to(tmp_path, patience, code):
    """As torchrun starts them: accelerate's launcher for tests connects them itself, with torch's own patience."""
    script = tmp_path / "late.py"
    script.write_text(LATE.format(patience=patience), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert ("Timed out" in done.stderr) == bool(code)


@pytest.mark.parametrize("first", [1, 2])
def test_what_some_processes_began_others_finish(world, tmp_path, first):
    case = ("semalign_joint", "llama", ())
    one(world, tmp_path / "whole", *case)
    with contextlib.suppress(Exception):  # the stop, or what the launcher makes of it
        (one if first == 1 else two)(world, tmp_path / "cut", *case, stop=Stop(step=2))
    assert list((tmp_path / "cut" / "store" / "transfer").glob("*.partial"))
    (two if first == 1 else one)(world, tmp_path / "cut", *case)
    alike(left(tmp_path / "cut"), left(tmp_path / "whole"))


def test_files_that_some_processes_made_are_not_made_again_by_others(tmp_path):
    made = []

    def compute(rows):
        made.append(rows)
        return {"a": torch.full((len(rows), 2), float(rows[0]))}

    columns = {"a": Column(counts=[1] * 6, width=2, dtype=torch.float32)}
    batches = [[i] for i in range(6)]
    for rank in range(3):
        with contextlib.suppress(Exception):  # files of the others are not there yet
            write_shards(
                tmp_path, columns, batches, compute, limit=8, processes=Processes(rank=rank, count=3)
            )
    assert made == [[0], [3], [1], [4], [2], [5]]
    write_shards(tmp_path, columns, batches, compute, limit=8)
    assert len(made) == 6


def test_a_term_that_compares_all_rows_of_a_step_wants_one_process(world, tmp_path, monkeypatch):
    monkeypatch.setattr("pkt.pipeline.connect", lambda _device: Processes(rank=0, count=2))
    with pytest.raises(RequestError, match=r"terms.layer compares rows .* 2 processes .*scope=sequence"):
        world.run("semalign_geometry", "llama", "objective.terms.layer.scope=batch", outputs=tmp_path)
