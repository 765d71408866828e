"""The store of whole commands: reused where nothing can be written, listed, pruned; damage costs work and no result."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from campaigns.tiny_work import digest
from pkt.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture
def read_only():
    """Make a folder one where nobody can write."""
    mounted = []

    def close(folder) -> None:
        if os.geteuid():
            for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
                path.chmod(0o555)
            return
        for words in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder]):
            if subprocess.run(words, capture_output=True, check=False).returncode:
                pytest.skip("nothing can be mounted here")
            mounted.append(folder)

    yield close
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("how", ["store_dir", "run folder"])
def test_a_complete_store_on_a_read_only_mount_is_reused(
    pkt, tiny_request, read_only, tmp_path, monkeypatch, how
):
    first = pkt("run", "method=sft", *tiny_request)
    assert first.code == 0, first.err
    read_only(pkt.outputs)
    if how == "store_dir":
        words = [f"output_dir={tmp_path / 'mine'}", f"store_dir={pkt.outputs / 'store'}"]
    else:
        words = []
        monkeypatch.setenv("PKT_RUN_DIR", str(tmp_path / "mine" / "run"))
    again = pkt("run", "method=sft", *tiny_request, *words)
    assert again.code == 0, again.err
    assert "computed" not in again.out
    (scores,) = (tmp_path / "mine").rglob("scores.json")
    (before,) = pkt.outputs.glob("runs/run/*/scores.json")
    assert json.loads(scores.read_text())["scores"] == json.loads(before.read_text())["scores"]
    report = pkt("report", f"runs={scores.parent}", f"out={tmp_path / 'page'}")
    assert report.code == 0, report.err
    missing = pkt("run", "method=sft", "seed=1", *tiny_request, *words)
    assert missing.code == 1
    assert "store_dir" in missing.err
    assert "Traceback" not in missing.err


def test_one_command_after_another_on_a_damaged_store(pkt, tiny_request):
    request = ["method=sft", *tiny_request]
    assert pkt("run", *request).code == 0
    whole = digest(pkt.outputs)
    (weights,) = pkt.outputs.glob("store/transfer/*/model/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-9] ^= 32
    weights.write_bytes(content)
    assert main(["store", "verify", f"output_dir={pkt.outputs}"]) == 1
    again = pkt("run", *request)
    assert again.code == 0
    assert (
        "model/model.safetensors is missing or changed" in again.out + again.err
        or "is missing or changed" in again.err
    )
    assert digest(pkt.outputs) == whole
    assert main(["store", "verify", f"output_dir={pkt.outputs}"]) == 0
    assert main(["store", "prune", "--older-than", "0", "--yes", f"output_dir={pkt.outputs}"]) == 0
    after = pkt("run", *request)
    assert "computed" not in after.out
    assert not list(pkt.outputs.glob("store/*/*.corrupt-*"))
