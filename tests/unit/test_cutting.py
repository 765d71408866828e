"""From numbers in a request to what stays of a teacher, and what follows: keys, layer pairs, the identity map."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig, MixtralConfig

from pkt.config import CheckpointSpec, CutConfig, PairConfig
from pkt.errors import RequestError
from pkt.mapping import Cut, Depth, of_student
from pkt.methods.cutting import check_widths, importance, resolved
from pkt.models.fingerprint import fingerprint
from pkt.models.kept import RECORD, CutSpec, Kept, Sizes, counts, recorded, told
from pkt.models.load import load_config
from pkt.models.narrow import sizes
from pkt.models.pair import load_checkpoint, load_student
from pkt.semantics import HeadView, Identity
from tiny import tiny_config, tiny_model, tiny_tokenizer

LAYERS = [0.4, 0.1, 0.3, 0.2]
MEASURED: dict[str, Any] = {
    "residual": LAYERS,
    "cka": LAYERS[::-1],
    "heads": [[1.0, 1.0, 5.0, 0.0], [3.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0], [9.0, 0.0, 0.0, 0.0]],
    "mlp": [[float((7 * channel + layer) % 64) for channel in range(64)] for layer in range(4)],
    "hidden": [float(channel % 5) for channel in range(32)],
}


def student(**cut: Any) -> CheckpointSpec:
    layers = cut.pop("which", None)
    return CheckpointSpec(init="prune", layers=layers, cut=CutConfig(**cut), dtype="float32")


def kept(spec: CheckpointSpec) -> Kept:
    found = resolved(spec, tiny_config("llama"), MEASURED.__getitem__)
    assert isinstance(found, CutSpec)
    assert found.layers == list(found.kept.layers)
    return found.kept


@pytest.mark.parametrize(
    ("cut", "layers"),
    [
        ({"which": [1, 3]}, (1, 3)),
        ({"every": 2}, (1, 3)),
        ({"every": 3}, (1, 4)),
        ({"layers": 2}, (1, 3)),
        ({"layers": 0.75}, (1, 3, 4)),
        ({"layers": 0.01}, (1,)),
        ({"layers": 4}, (1, 2, 3, 4)),
        ({"layers": 2, "by": "cka"}, (2, 4)),
        ({"mlp": 8}, (1, 2, 3, 4)),
        ({"mlp": 8, "every": 2}, (1, 3)),
    ],
)
def test_layers_that_stay(cut, layers):
    assert kept(student(**cut)).layers == layers


def test_every_second_layer_of_thirty_is_what_it_always_was():
    thirty = resolved(student(every=2), tiny_config("llama", depth=30), MEASURED.__getitem__)
    assert thirty.layers == list(range(1, 30, 2))


def test_heads_stay_in_groups_and_channels_by_size_in_each_layer_that_stays():
    found = kept(student(which=[1, 4], heads=2, mlp=0.25, hidden=6))
    assert found.groups == ((1,), (0,))  # 1 + 1 < 5 + 0, and 9 + 0 > 0 + 0
    assert found.hidden == (4, 9, 14, 19, 24, 29)
    assert found.mlp is not None
    for layer, chosen in zip((1, 4), found.mlp, strict=True):
        scores = MEASURED["mlp"][layer - 1]
        assert {scores[channel] for channel in chosen} == set(range(48, 64))
        assert list(chosen) == sorted(chosen)


def test_layers_are_cut_whatever_a_config_says_of_widths():
    config = MambaConfig(num_hidden_layers=4, hidden_size=32, vocab_size=99)  # has no attention heads
    assert resolved(student(layers=2), config, MEASURED.__getitem__).layers == [1, 3]
    with pytest.raises(RequestError, match="one number each"):
        resolved(student(layers=2, mlp=8), config, MEASURED.__getitem__)


def test_nothing_is_measured_that_nothing_is_chosen_by():
    asked: list[str] = []

    def measured(what: str) -> Any:
        asked.append(what)
        return MEASURED[what]

    for spec in (
        student(which=[1, 3]),
        student(every=2),
        student(heads=4, mlp=64, hidden=1.0 - 1e-9, every=1),
    ):
        resolved(spec, tiny_config("llama"), measured)
    assert asked == []


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        ({"layers": 5}, "cut.layers=5: the teacher has 4"),
        ({"mlp": 65}, "cut.mlp=65: the teacher has 64"),
        ({"hidden": 33}, "cut.hidden=33: the teacher has 32"),
        ({"heads": 3}, "cut.heads=3: 2 query heads of the teacher share .* a multiple of 2 up to 4"),
        ({"which": []}, "from 1 to 4"),
        ({"which": [5], "mlp": 8}, "from 1 to 4"),
        ({}, "from 1 to 4"),
    ],
)
def test_numbers_that_a_teacher_does_not_have(cut, says):
    with pytest.raises(RequestError, match=says):
        kept(student(**cut))


def test_heads_of_one_group_stay_together():
    sizes = Sizes(layers=1, hidden=32, heads=4, groups=1, head=8, mlp=64)
    with pytest.raises(
        RequestError, match="read one key-value head, so that they stay together: cut mlp or hidden"
    ):
        counts(CutConfig(heads=2), sizes)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> PairConfig:
    folder = tmp_path_factory.mktemp("teacher")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return PairConfig(name="p", teacher=CheckpointSpec(checkpoint=str(folder), dtype="float32"))


def cut_pair(pair: PairConfig, **cut: Any) -> PairConfig:
    spec = resolved(student(**cut), load_config(pair.teacher), MEASURED.__getitem__)
    return dataclasses.replace(pair, student=spec)


def test_keys_follow_what_the_student_is(pair):
    def key(**cut: Any) -> str:
        own = cut_pair(pair, **cut)
        return fingerprint(own.student, teacher=own.teacher)

    assert key(which=[1, 3]) == key(every=2) == key(layers=2) == key(layers=2, mlp=64)
    plain = CheckpointSpec(init="prune", layers=[1, 3], dtype="float32")
    assert key(which=[1, 3]) == fingerprint(plain, teacher=pair.teacher)
    assert len({key(which=[1, 3]), key(every=2, mlp=8), key(every=2, mlp=9), key(every=2, heads=2)}) == 4


def test_a_cut_student_says_what_it_kept_also_when_it_is_loaded_from_a_folder(pair, tmp_path):
    own = cut_pair(pair, layers=2, heads=2, hidden=8)
    loaded = load_student(own, None, "cpu")
    config = load_config(own.student, teacher=own.teacher)
    assert told(own.student) == "layers [1, 3], 1 key-value heads a layer, 8 hidden channels"
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (8, 2, 1)
    expected = {"layers": [1, 3], "hidden": list(kept(student(layers=2, hidden=8)).hidden or ()),
                "of_layers": 4, "of_hidden": 32}  # fmt: skip
    assert getattr(config, RECORD) == getattr(loaded.model.config, RECORD) == expected
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    saved = load_config(CheckpointSpec(checkpoint=str(tmp_path)))
    assert recorded(saved, 4, 32) == expected
    assert recorded(saved, 5, 32) is None  # another teacher
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        wanted = loaded.model(ids).logits
        for again in (load_checkpoint(tmp_path, "cpu").model, AutoModelForCausalLM.from_pretrained(tmp_path)):
            torch.testing.assert_close(again(ids).logits, wanted)


def test_a_cut_of_a_cut_tells_of_its_own_teacher_alone(pair, tmp_path):
    first = load_student(cut_pair(pair, which=[1, 3, 4]), None, "cpu")
    first.model.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    second = PairConfig(
        name="p",
        teacher=CheckpointSpec(checkpoint=str(tmp_path), dtype="float32"),
        student=CheckpointSpec(init="prune", layers=[2], dtype="float32"),
    )
    record = {"layers": [2], "hidden": None, "of_layers": 3, "of_hidden": 32}
    assert getattr(load_student(second, None, "cpu").model.config, RECORD) == record
    assert getattr(load_config(second.student, teacher=second.teacher), RECORD) == record


def test_importance_is_measured_once_and_again_where_it_was_changed(tmp_path):
    calls: list[str] = []

    def measure(what: str) -> list[float]:
        calls.append(what)
        return LAYERS

    def ask(what: str = "residual", **about: str) -> Any:
        return importance(tmp_path, {"what": what, "rows": "r", **about}, lambda: measure(what))

    assert ask() == ask() == LAYERS
    assert calls == ["residual"]
    ask("cka")
    ask(rows="others")
    assert calls == ["residual", "cka", "residual"]
    for file in Path(tmp_path).glob("*.json"):
        file.write_text(file.read_text().replace("0.4", "0.5"))
    assert ask() == LAYERS
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("at", "kept_layers", "depth", "expected"),
    [
        ("end", (1, 3, 5), 5, {1: 2, 2: 4, 3: 5}),
        ("end", (1, 2, 3), 5, {1: 1, 2: 2, 3: 5}),
        ("end", (3, 4), 5, {1: 3, 2: 5}),
        ("end", (1, 2, 3), 3, {1: 1, 2: 2, 3: 3}),
        ("own", (1, 3, 5), 6, {1: 1, 2: 3, 3: 5}),
    ],
)
def test_a_layer_learns_what_the_next_one_reads_in_the_teacher(at, kept_layers, depth, expected):
    mapping = of_student(Cut(at=at), kept_layers, depth)
    pairs = mapping.pairs(depth, len(kept_layers))
    assert {pair.student: pair.teacher[0] for pair in pairs} == expected


def test_layers_of_a_student_that_is_not_cut_cannot_be_paired_by_its_cut():
    with pytest.raises(RequestError, match="mapping=cut pairs the layers of a student that was cut"):
        of_student(Cut(), None, 4)
    with pytest.raises(RequestError, match="use mapping=depth"):
        Cut().pairs(4, 2)
    depth = Depth()
    assert of_student(depth, None, 4) is depth


def view(width: int, channels: list[int] | None = None) -> HeadView:
    return HeadView(
        weight=torch.ones(7, width), channels=None if channels is None else torch.tensor(channels)
    )


def test_the_identity_takes_the_channels_that_stayed():
    states = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        Identity().fit(teacher=view(6), student=view(6))(states), states, atol=0, rtol=0
    )
    chosen = Identity().fit(teacher=view(6), student=view(3, [0, 2, 5]))
    torch.testing.assert_close(chosen(states), states[:, [0, 2, 5]], atol=0, rtol=0)
    with pytest.raises(RequestError, match=r"6 channels, the student's 4, which were not kept .* use a map"):
        Identity().fit(teacher=view(6), student=view(4))


def test_a_hundred_states_of_a_cut_student_are_the_teachers_where_nothing_is_gone(pair):
    """A student with all layers and half the channels: the map gives what its embedding gives."""
    from pkt.models.pair import load_teacher
    from pkt.semantics import HeadView

    own = cut_pair(pair, hidden=16)
    cut, teacher = load_student(own, None, "cpu"), load_teacher(own, None, "cpu")
    channels = torch.tensor(own.student.kept.hidden)
    shared = torch.arange(320)
    map_ = Identity().fit(
        teacher=HeadView.of(teacher.arch, shared), student=HeadView.of(cut.arch, shared, channels)
    )
    embedded = [arch.embedding_weight().detach()[:100] for arch in (teacher.arch, cut.arch)]
    torch.testing.assert_close(map_(embedded[0]), embedded[1], atol=0, rtol=0)


def test_sizes_are_read_as_families_call_them():
    read = Sizes.read(SimpleNamespace(**tiny_config("gpt2").to_dict()).__dict__.get)
    assert read == Sizes(layers=4, hidden=32, heads=4, groups=4, head=8, mlp=128)
    assert Sizes.read({"hidden_size": 32}.get) is None
    assert Sizes.read({"hidden_size": [32, 16], "num_attention_heads": 2}.get) is None


@pytest.mark.parametrize("cut", [{"mlp": 0.5}, {"heads": 0.5}, {"hidden": 0.5, "heads": 0.5}])
def test_widths_that_cannot_be_cut_are_refused_whichever_channels_stay(cut):
    config = MixtralConfig(
        num_hidden_layers=3, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, num_local_experts=2,
    )  # fmt: skip
    with pytest.raises(RequestError, match="widths of this mixtral model cannot be cut"):
        check_widths(CutConfig(**cut), config, {"like": "llama"})
    check_widths(CutConfig(layers=2), config, {"like": "llama"})


def test_a_config_that_does_not_say_one_number_for_all_layers_is_refused_in_words():
    class Ambiguous(type(tiny_config("llama"))):  # type: ignore[misc]
        @property
        def head_dim(self):
            raise RuntimeError("'head_dim' may vary across layers")

    config = tiny_config("llama")
    config.__class__ = Ambiguous
    assert sizes(config).head == 8  # what is left of the width
