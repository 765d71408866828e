"""What waits for its first use: libraries, the device, and what is remembered of models, rows and results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch as real

from pkt import surroundings
from pkt.config import CheckpointSpec
from pkt.errors import PktError
from pkt.late import Conv1D, LoraLayer, Tensor, functional, nn, torch
from pkt.manifest import MANIFEST
from pkt.mapping import LayerPair
from pkt.methods.layer_results import LayerExtraction
from pkt.models.outline import Outline, known_of
from pkt.searchpath import builtin_conf_dir
from pkt.stages.shown import Shown, shown
from pkt.store import Artifact
from pkt.tasks.base import Given
from pkt.tasks.find import find
from pkt.tasks.nano import drafts
from tiny import tiny_model


def test_late_names_are_those_of_the_libraries():
    assert torch.zeros is real.zeros
    assert nn.Linear is real.nn.Linear
    assert functional.mse_loss is real.nn.functional.mse_loss
    with pytest.raises(AttributeError, match="nonsense"):
        _ = torch.nonsense


def test_names_of_classes_tell_instances():
    assert isinstance(real.zeros(1), Tensor)
    assert isinstance(nn.Parameter(real.zeros(1)), Tensor)
    assert isinstance(real.zeros(1), Tensor | None)
    assert not isinstance([0.0], Tensor)
    (layer,) = [m for n, m in tiny_model("gpt2").named_modules() if n.endswith("h.0.mlp.c_fc")]
    assert isinstance(layer, Conv1D)
    assert not isinstance(nn.Linear(1, 1), nn.Embedding | Conv1D | LoraLayer)


def test_a_switch_of_gradients_decorates_before_torch_is_there():
    code = """
import sys
from pkt.late import Tensor, torch
assert not isinstance(0, Tensor)
@torch.no_grad()
def still(depth):
    return [torch.is_grad_enabled(), *(still(depth - 1) if depth else [])]
@torch.enable_grad()
def moving():
    return torch.is_grad_enabled()
@torch.no_grad()
def mixed():
    return moving(), torch.is_grad_enabled()
assert "torch" not in sys.modules
assert still(2) == [False] * 3 and mixed() == (True, False) and torch.is_grad_enabled()
switch = torch.no_grad()
with switch:
    assert not torch.is_grad_enabled()
try:
    with torch.no_grad():
        raise KeyError
except KeyError:
    assert torch.is_grad_enabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize(
    ("version", "driver", "may"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", True, False),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True, True),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", False, sys.platform != "linux"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.2'\n", False, True),
        ("cuda = None\nhip = None\n", True, False),
        ("__version__ = 'of another form'\n", False, True),
        (None, False, True),
    ],
)
def test_without_torch_a_gpu_is_ruled_out_only_where_torch_would(monkeypatch, tmp_path, version, driver, may):
    def library(_name: str) -> object:
        if driver:
            return object()
        raise OSError

    if version is not None:
        (tmp_path / "version.py").write_text(version)
    monkeypatch.setattr(
        surroundings, "find_spec", lambda _name: SimpleNamespace(origin=tmp_path / "__init__.py")
    )
    monkeypatch.setattr(surroundings.ctypes, "CDLL", library)
    monkeypatch.setattr(surroundings, "resolve_device", lambda _name: SimpleNamespace(type="asked"))
    assert surroundings.device_type("auto") == ("asked" if may else "cpu")
    assert (surroundings.device_type("cpu"), surroundings.device_type("cuda:1")) == ("cpu", "asked")


def test_this_machine_s_device_is_that_of_torch():
    assert surroundings.device_type("auto") == surroundings.resolve_device("auto").type


def test_the_outline_of_a_model_is_read_once_per_content(tmp_path):
    config = tiny_model("gpt2", depth=3).config
    outline, asked = Outline.of(config), []
    assert (outline.num_hidden_layers, outline.hidden_size) == (3, config.n_embd)

    def find() -> dict:
        asked.append(1)
        return vars(outline)

    (tmp_path / "config.json").write_text("{}")
    here, hub = CheckpointSpec(checkpoint=str(tmp_path)), CheckpointSpec(checkpoint="org/name")
    for spec, identity, times in (
        (here, "a", 1),
        (here, "a", 1),
        (here, "b", 2),
        (hub, "a", 3),
        (hub, "a", 4),
    ):
        found = known_of("config", spec, identity, tmp_path / "models", find)
        assert (Outline(**found), len(asked)) == (outline, times)


def test_a_model_that_cannot_be_read_is_not_remembered(tmp_path):
    def fails() -> dict:
        raise PktError("no")

    (tmp_path / "config.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(PktError):
            known_of("config", CheckpointSpec(checkpoint=str(tmp_path)), "a", tmp_path / "models", fails)
    assert not (tmp_path / "models").exists()


def test_drawn_rows_are_remembered_until_the_code_changes(tmp_path, monkeypatch):
    task, times = find("nano_math"), []
    drawn = drafts._drawn
    monkeypatch.setattr(drafts, "_drawn", lambda *of: times.append(1) or drawn(*of))
    plain = task.rows("validation", Given())
    for code, expected in (("one", 1), ("one", 1), ("two", 2)):
        drafts._rows.cache_clear()
        times.clear() if code == "two" else None
        monkeypatch.setattr(drafts, "_code", lambda code=code: code)
        assert task.rows("validation", Given(kept=tmp_path)) == plain
        assert len(list(tmp_path.iterdir())) == expected
    assert times == [1]


def test_damaged_rows_are_drawn_again(tmp_path):
    task = find("nano_code")
    drafts._rows.cache_clear()
    plain = task.rows("test", Given(kept=tmp_path))
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace("assert", "assent", 1))
    drafts._rows.cache_clear()
    assert task.rows("test", Given(kept=tmp_path)) == plain


def test_what_is_shown_of_a_result_is_remembered_with_the_result(tmp_path):
    pairs = (LayerPair(student=1, teacher=(1, 3), weights=(0.25, 0.75)), LayerPair(student=2, teacher=(4,)))
    first = LayerExtraction(pairs=pairs, interface="block", scores=(0.1, 1e-300, 3.0, 4.0))
    second = LayerExtraction(pairs=pairs[:1], interface="mlp")
    asked = []
    for result, manifest, times in ((first, "1", 1), (first, "1", 1), (second, "2", 2)):
        (tmp_path / MANIFEST).write_text(json.dumps({"key": manifest}))
        artifact = Artifact(path=tmp_path, manifest={"key": "k"})
        found = shown(artifact, LayerExtraction, tmp_path / "shown", lambda of=result: asked.append(1) or of)
        assert found == Shown.of(result)
        assert found.tables == tuple(result.tables())
        assert len(asked) == times


def test_a_sweep_that_a_config_file_asks_for_is_one(pkt, tmp_path, tiny_request):
    """Hydra composes once where nothing of the user's can ask for a sweep, and no more than that."""
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "two.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper: {params: {optim.lx: 'a,b'}}\n"
    )
    told = pkt("transfer", "--config-dir", str(folder.parent), "experiment=two", *tiny_request)
    assert told.code == 2
    assert "optim.lx" in told.err


def test_none_of_pkt_s_own_files_asks_for_a_sweep():
    texts = [file.read_text(encoding="utf-8") for file in builtin_conf_dir().rglob("*.yaml")]
    assert not [text for text in texts if re.search(r"mode: *(MULTIRUN|RUN)|hydra\.mode", text)]
