"""Tables and drawings of `pkt analyze`, from plain data alone."""

from __future__ import annotations

import json

import matplotlib.colors
import pytest

from pkt.reporting.figures import INK, Drawing, save
from pkt.reporting.layer_figures import FIGURES, NUMBERS
from pkt.reporting.layer_tables import SHOWN, TABLES, matrices, value
from pkt.reporting.svg import SHADES

ABOUT = {"interface": "block", "positions": "all", "split": "validation", "rows": 8, "tokens": 60}
INTERFACES = ("mlp", "attention", "residual", "block")
REDUCTIONS = ("example", "signed", "abs", "l2")


def basis(depth, level, errors=True):
    return {
        "size": 1280,
        "rank": 16,
        "condition": 25.0,
        "lowest": 0.385,
        "typical": 0.7,
        "cosine": [level - 0.01 * layer for layer in range(depth)],
        "cosine_stderr": [0.01] * depth if errors else None,
        "stretch": [9.0 + layer for layer in range(depth)],
        "exact": [1.0] * depth,
    }


def resolution(depth=3, errors=True):
    bases = {
        name: basis(depth, level, errors)
        for name, level in (("output", 0.5), ("input", 0.8), ("random", 0.9))
    }
    model = {"depth": depth, "width": 16, "tied": True, "bases": bases}
    return {**ABOUT, "models": {"teacher": model, "student": model}}


def cka(depth_t=3, depth_s=2):
    depths = {"teacher": depth_t, "student": depth_s, "transferred": depth_s}
    pairs = [
        ("student", "transferred"),
        ("student", "student"),
        ("teacher", "student"),
        ("teacher", "transferred"),
    ]
    found = [
        {
            "rows": first,
            "columns": second,
            "values": [
                [0.1 + (place + r + k) / 100 for k in range(depths[second])] for r in range(depths[first])
            ],
            "chance": [[0.05, 0.02]],
            "tokens": 60,
            "same_depth": 0.5,
        }
        for place, (first, second) in enumerate(pairs)
    ]
    return {**ABOUT, "matrices": found}


def attribution(depth=3, errors=True):
    score = {"value": [1.0 + layer for layer in range(depth)], "stderr": [0.1] * depth if errors else None}
    model = {interface: dict.fromkeys(REDUCTIONS, score) for interface in INTERFACES}
    agreement = dict.fromkeys(REDUCTIONS, [[1.0, None, 0.5, 0.25]] * 4)
    models = {"teacher": model, "student": model, "transferred": model}
    kept = {interface: dict.fromkeys(REDUCTIONS, 0.9) for interface in INTERFACES}
    return {**ABOUT, "models": models, "agreement": dict.fromkeys(models, agreement), "kept": kept}


def maps(kl=1.5):
    card = {
        "cosine": 0.8,
        "cosine_centred": 0.7,
        "explained_variance": 0.5,
        "condition": 12.0,
        "rank": 16,
        "positions": 60,
        "readout_kl": kl,
    }
    worse = card | {"explained_variance": -0.25}
    cards = [{"fitted": card, "held_out": worse}] * 2
    pairs = [
        {"student": 1, "teacher": [1], "weights": [1.0]},
        {"student": 2, "teacher": [2, 3], "weights": [0.5, 0.5]},
    ]
    return {**ABOUT, "fitted_rows": 16, "pairs": pairs, "maps": {"cosine": cards, "ridge": cards}}


DATA = {"resolution": resolution, "cka": cka, "attribution": attribution, "maps": maps}


def texts(figure):
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label)
        yield from (label for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels())
        if legend := axes.get_legend():
            yield from legend.get_texts()


@pytest.mark.parametrize("part", DATA)
def test_drawings_say_what_they_show_in_one_ink(part):
    drawings = FIGURES[part](DATA[part]())
    assert len({drawing.name for drawing in drawings}) == len(drawings) > 0
    for drawing in drawings:
        assert isinstance(drawing, Drawing)
        assert drawing.title
        assert drawing.alt.endswith(".")
        assert drawing.figure.get_size_inches()[0] <= 7  # readable on a phone
        colours = {
            matplotlib.colors.to_hex(text.get_color()) for text in texts(drawing.figure) if text.get_text()
        }
        assert colours == {INK}


def test_every_part_has_tables_and_drawings():
    assert set(FIGURES) == set(TABLES) == set(SHOWN) == set(DATA)
    for part, make in DATA.items():
        for table in TABLES[part](json.loads(json.dumps(make()))):
            assert table.title
            assert all(len(row) == len(table.columns) for row in table.rows)
            assert all(isinstance(cell, str) for row in table.rows for cell in row)


def test_numbers_in_cells_only_where_there_is_room():
    few, many = (FIGURES["cka"](cka(depth, 2))[2].figure.axes[0] for depth in (NUMBERS, NUMBERS + 1))
    assert [text.get_text() for text in few.texts][:2] == ["0.12", "0.13"]
    assert len(few.texts) == 2 * NUMBERS
    assert not many.texts
    assert not {text.get_color() for text in few.texts} & set(SHADES)  # a page must not exchange them
    assert [label.get_text() for label in few.get_xticklabels()] == ["1", "2"]


def test_heat_maps_share_a_scale_and_the_change_is_a_difference():
    drawings = {drawing.name: drawing for drawing in FIGURES["cka"](cka())}
    limits = {name: drawing.figure.axes[0].images[0].get_clim() for name, drawing in drawings.items()}
    low, high = limits.pop("cka_change")
    assert set(limits.values()) == {(0, 1)}
    assert low == -high
    change = matrices(cka())[-1]
    assert change["change"]
    assert change["values"] == [[pytest.approx(0.01)] * 2] * 3
    assert not any(matrix["change"] for matrix in matrices({**cka(), "matrices": cka()["matrices"][:3]}))


def test_what_chance_would_give_stands_beside_cka():
    summary = TABLES["cka"](cka())[0]
    assert summary.columns[-1] == "by chance"
    assert {row[-1] for row in summary.rows} == {"up to 0.050"}


def test_one_row_has_no_error_and_no_band(tmp_path):
    single = {**resolution(errors=False), "rows": 1}
    assert TABLES["resolution"](single)[0].rows[0] == ("teacher", "1", "0.500", "0.800", "0.900")
    assert "1 validation row" in TABLES["resolution"](single)[0].title
    (drawing,) = FIGURES["resolution"](single)
    assert not drawing.figure.axes[0].collections
    assert FIGURES["resolution"](resolution())[0].figure.axes[0].collections
    assert save(drawing, tmp_path).read_bytes().startswith(b"\x89PNG")
    assert "±" not in TABLES["attribution"](attribution(errors=False))[0].rows[0][2]


def test_a_measure_that_is_not_defined_is_left_out():
    assert not any("KL" in column for column in TABLES["maps"](maps(kl=None))[0].columns)
    assert len(FIGURES["maps"](maps(kl=None))[0].figure.axes) == 2
    assert len(FIGURES["maps"](maps())[0].figure.axes) == 3
    assert TABLES["maps"](maps())[1].rows[1][:3] == ("cosine", "2", "2 3")


def test_value():
    assert [value(number) for number in (0.12345, 0.0, 1.2e-5, 12345.6, None)] == [
        "0.123",
        "0.000",
        "1.2e-05",
        "1.23e+04",
        "–",
    ]
    assert value(0.5, 0.0123) == "0.500 ± 0.012"
