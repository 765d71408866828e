"""What layer-wise methods store comes back as it was, and a map that pairs share is written once."""

from __future__ import annotations

import torch
from safetensors import safe_open

from pkt.mapping import LayerPair
from pkt.methods.layer_results import LayerAlignment, LayerExtraction
from pkt.semantics import AlignmentMap
from pkt.training.states import RowStates
from pkt.training.teacher import TopRows

PAIRS = (LayerPair(student=1, teacher=(2, 3), weights=(0.25, 0.75)), LayerPair(student=2, teacher=(4,)))


def states(width: int, seed: int) -> RowStates:
    flat = torch.randn(5, width, generator=torch.Generator().manual_seed(seed))
    return RowStates(flat_ND=flat, offsets_R1=torch.tensor([0, 2, 5]))


def alignment(first: AlignmentMap, second: AlignmentMap) -> LayerAlignment:
    tokens = RowStates(
        flat_ND=torch.arange(10, dtype=torch.int32).view(5, 2), offsets_R1=torch.tensor([0, 2, 5])
    )
    return LayerAlignment(
        pairs=PAIRS,
        interface="block",
        positions="all",
        maps={1: first, 2: second},
        quality={
            1: {"cosine": 0.5, "rank": 3, "readout_kl": None},
            2: {"cosine": 0.25, "rank": 3, "readout_kl": None},
        },
        targets={"train": {1: states(3, 0), 2: states(3, 1)}},
        outputs={"train": TopRows(log_probs=states(2, 2), tokens=tokens, log_tail=states(1, 3))},
    )


def test_extraction_comes_back(tmp_path):
    extraction = LayerExtraction(
        pairs=PAIRS, interface="mlp", scores=(0.1, 0.2, 0.3, 0.4), similarity=((0.5, 0.25),) * 4
    )
    extraction.save(tmp_path)
    assert LayerExtraction.load(tmp_path) == extraction
    (table,) = extraction.tables()
    assert table.rows[0] == ("1", "2 3", "0.25 0.75", "0.2 0.3", "0.500 0.500")


def test_alignment_comes_back_and_a_shared_map_is_written_once(tmp_path):
    shared = AlignmentMap(weight=torch.randn(3, 4), normalise=True, name="cosine", info={"rank_teacher": 4})
    for folder, second, files in (("one", shared, 1), ("two", AlignmentMap(weight=torch.ones(3, 4)), 2)):
        (tmp_path / folder).mkdir()
        saved = alignment(shared, second)
        saved.save(tmp_path / folder)
        with safe_open(tmp_path / folder / "alignment.safetensors", framework="pt") as file:
            assert len([name for name in file.keys() if name.startswith("/maps")]) == files  # noqa: SIM118
        loaded = LayerAlignment.load(tmp_path / folder)
        assert (loaded.pairs, loaded.quality) == (saved.pairs, saved.quality)
        assert (loaded.maps[1].weight is loaded.maps[2].weight) == (files == 1)
        assert torch.equal(loaded.maps[2].weight, second.weight)
        assert torch.equal(loaded.targets["train"][2].flat(), saved.targets["train"][2].flat())
        tokens = loaded.outputs["train"].tokens
        assert tokens is not None
        assert torch.equal(tokens.flat(), torch.arange(10, dtype=torch.int32).view(5, 2))


def test_tables_leave_out_what_was_not_measured():
    quality, outputs = alignment(
        AlignmentMap(weight=torch.ones(3, 4)), AlignmentMap(weight=torch.ones(3, 4))
    ).tables()
    assert quality.columns == ("student layer", "teacher layer", "cosine", "rank")
    assert quality.rows[0] == ("1", "2 3", "0.5", "3")
    assert outputs.rows[0][:3] == ("train", "5", "2")


def test_maps_that_are_not_determined_everywhere_are_told():
    cut = {"rank_teacher": 3, "width_teacher": 4, "rank_student": 3, "width_student": 3}
    one = AlignmentMap(weight=torch.ones(3, 4), name="cosine", info=cut)
    other = AlignmentMap(weight=torch.ones(3, 4), name="procrustes", info={"rank": 2})
    head, states_note = alignment(one, other).warnings()
    assert "the teacher's head has rank 3 of 4: semantics=cosine maps that part" in head
    assert "vary in 2 of 3 directions" in states_note
