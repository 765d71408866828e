"""A report's four renderings say the same; its page is safe, complete and equal from equal runs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from pkt.errors import PktError, RequestError
from pkt.evaluation.paired import Interval
from pkt.reporting.cells import difference_cell, score_cell
from pkt.reporting.gaps import Share
from pkt.reporting.latex import escaped
from pkt.reporting.page.analyses import read_analyses
from pkt.reporting.page.collect import collect
from pkt.reporting.page.curves import loss_curves
from pkt.reporting.page.examples import example_topic
from pkt.reporting.page.render import html, jsonl, latex, markdown
from pkt.reporting.page.report import Report
from pkt.reporting.page.write import write_report, write_run_page
from pkt.reporting.runs import load_runs
from run_folders import leave_run

CSS = Path(__file__).parents[2] / "src" / "pkt" / "reporting" / "templates" / "page.css"


class Page(HTMLParser):
    """What a page is made of: tags with attributes, text of headings, cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.pre: list[str] = []
        self._open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h\d", tag):
            self.headings.append((int(tag[1]), ""))
            self._open = "h"
        elif tag == "table":
            self.tables.append(("", []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")
            self._open = "cell"
        elif tag == "caption":
            self._open = "caption"
        elif tag == "pre":
            self.pre.append("")
            self._open = "pre"

    def handle_endtag(self, tag):
        if tag in ("td", "th", "caption", "pre") or re.fullmatch(r"h\d", tag):
            self._open = None

    def handle_data(self, data):
        if self._open == "h":
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        elif self._open == "cell":
            self.tables[-1][1][-1][-1] += data
        elif self._open == "caption":
            self.tables[-1] = (self.tables[-1][0] + data, self.tables[-1][1])
        elif self._open == "pre":
            self.pre[-1] += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Two good arms that are close to each other, and one far below; two seeds of each."""
    root = tmp_path_factory.mktemp("outputs")
    for seed in (0, 1):
        leave_run(root, "sft", lift=0.6, seed=seed)
        leave_run(root, "kd|<i>$x$", lift=0.62, seed=seed)
        leave_run(root, "weak", lift=0.05, seed=seed)
    return root


@pytest.fixture(scope="module")
def study(outputs) -> Report:
    return collect(load_runs([outputs / "runs"]), pairs=True)


@pytest.fixture(scope="module")
def single(outputs) -> Report:
    return collect(load_runs([outputs / "runs" / "run" / "2"]))  # of a method that reads the teacher


@pytest.fixture(scope="module")
def text(study) -> str:
    return html(study, ("report.md",))


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def markdown_tables(text: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [
        [
            [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.strip().splitlines()
            if not line.startswith("|---")
        ]
        for block in blocks
    ]


def unescaped(cell: str) -> str:
    signs = {r"$\pm$": "±", r"$\approx$": "≈", "$-$": "-", "--": "–", r"$\downarrow$": "↓"}
    signs |= {r"\textbar{}": "|", r"\textless{}": "<", r"\textgreater{}": ">"}
    for written, sign in signs.items():
        cell = cell.replace(written, sign)
    return re.sub(r"\\([%_$&#{}])", r"\1", cell)


def latex_tables(text: str) -> list[list[list[str]]]:
    found = re.findall(r"\\toprule\n(.*?)\\bottomrule", text, flags=re.DOTALL)
    return [
        [
            [unescaped(cell.strip()) for cell in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))]
            for line in body.strip().splitlines()
            if line != r"\midrule"
        ]
        for body in found
    ]


def test_page_markdown_and_latex_have_the_same_cells(study, page):
    from_markdown, from_latex = markdown_tables(markdown(study)), latex_tables(latex(study))
    assert len(from_markdown) >= 4
    assert from_latex == from_markdown
    shown = [table for _, table in page.tables]
    assert all(table in shown for table in from_markdown)


def test_jsonl_has_the_numbers_behind_every_cell(study, page):
    lines = [json.loads(line) for line in jsonl(study).splitlines()]
    (_, rows), (_, closed) = page.tables[1:3]  # after the answer in short
    head, cells = rows[0], {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    shares = {row[0]: dict(zip(closed[0], row, strict=True)) for row in closed[1:]}
    assert {line["arm"] for line in lines} == set(cells)
    assert {line["task"] for line in lines} == {"nano_math", "code_50%", "mean"} <= set(head)
    for line in lines:
        own = cells[line["arm"]]
        assert f"{100 * line['value']:.1f} ± {100 * line['stderr']:.1f}" == own[line["task"]]
        if line["role"] != "transferred":
            continue
        assert str(line["seeds"]) == own["seeds"] == "2"
        ends = (line["gap_closed"], line["gap_closed_low"], line["gap_closed_high"])
        assert "{:.0f} % [{:.0f}, {:.0f}]".format(*(round(100 * end) + 0.0 for end in ends)).replace(
            "-0", "0"
        ) == shares[line["arm"]][line["task"]].replace("-0", "0")
        if line["task"] == "mean" and line["arm"] != "sft":
            low, high = line["difference_low"], line["difference_high"]
            assert line["inside_noise"] == own["against sft"].startswith("≈") == (low <= 0 <= high)
            assert (
                f"{100 * line['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]" in own["against sft"]
            )


def test_what_is_inside_the_noise_is_said_in_words(study):
    (scores,) = [topic for topic in study.sections[0].topics if topic.name == "scores"]
    told = " ".join(scores.sentences)
    assert re.search(r"≈ Inside the noise against sft .*: kd\|<i>\$x\$\.", told)
    assert re.search(r"Worse than sft beyond the noise .*: weak\.", told)
    assert "not corrected" in told


def test_a_gap_inside_the_noise_is_no_gap(outputs):
    (run,) = load_runs([outputs / "runs" / "run" / "0"])
    run["scores"]["teacher"]["nano_math"] = run["scores"]["student"]["nano_math"]
    (section,) = collect([run]).sections
    topics = {topic.name: topic for topic in section.topics}
    assert topics["scores"].sentences[-1].endswith("within two standard errors): nano_math.")
    assert topics["gap"].tables[0].rows[0][1] == "–"
    line = next(json.loads(line) for line in jsonl(collect([run])).splitlines() if '"transferred"' in line)
    assert (line["task"], line["gap_closed"]) == ("nano_math", None)


def test_what_models_write_is_text_and_never_markup(page, text):
    assert text.count("<script") == 1  # its own, which a policy lets run by its digest
    assert "<img" not in text
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert any("<script>document.title='owned'</script>" in pre and "\ufffd" in pre for pre in page.pre)
    assert "\x00" not in text
    assert "kd|<i>$x$" in [row[0] for row in page.tables[0][1]]


def test_the_one_script_is_the_one_that_the_policy_names(page, text):
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv")]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)] == []


def test_every_run_of_a_study_is_there_with_its_seed_and_its_folder(study, outputs):
    (topic,) = [topic for topic in study.sections[0].topics if topic.name == "runs"]
    rows = topic.tables[0].rows
    assert sorted((row[0], row[1]) for row in rows) == sorted(
        (name, seed) for name in ("sft", "kd|<i>$x$", "weak") for seed in "01"
    )
    for row in rows:
        (run,) = load_runs([outputs / "runs" / "run" / row[-1]])
        assert (run["method"], str(run["seed"])) == (row[0], row[1])
        assert row[2].startswith(f"{100 * run['scores']['transferred']['nano_math']['value']:.1f} ±")


def test_the_page_asks_for_nothing(page, text):
    links = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(link == "report.md" or link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)|@import|@font-face", text)


def test_the_page_can_be_read_by_everybody(page):
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert [level for level, _ in page.headings].count(1) == 1
    levels = [level for level, _ in page.headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(caption.strip() for caption, _ in page.tables)
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    drawings = page.all("svg")
    assert len(drawings) > 5
    named = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    assert all(each["role"] == "img" and each["aria-labelledby"] in named for each in drawings)
    identities = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(identities) == len(set(identities))
    targets = {a["href"] for a in page.all("a") if a["href"].startswith("#")}
    assert {target[1:] for target in targets} <= named
    regions = [each for each in page.all("div") if each.get("class") == "scroll"]
    assert len(regions) == len(page.tables)
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in regions)


def test_drawings_take_their_shades_from_the_page(text):
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "currentColor" in drawn
    assert not re.search(r"(fill|stroke): #", drawn)
    assert "font-family" not in drawn


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_its_ground_by_light_and_by_dark():
    themes = re.findall(r":root \{(.*?)\}", CSS.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        shades = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for name, least in {
            "ink": 7,
            "soft": 4.5,
            "link": 4.5,
            "mark": 4.5,
            "wrong": 4.5,
            "teacher": 3,
            "student": 3,
        }.items():
            for ground in ("paper", "wash"):
                pair = sorted(luminance(shades[each]) for each in (name, ground))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (name, ground)


def test_equal_runs_give_equal_bytes(outputs):
    folders = [outputs / "runs" / "run" / name for name in "01"]
    first, again = (collect(load_runs(folders)) for _ in range(2))
    assert html(again) == html(first)
    assert (latex(again), jsonl(again)) == (latex(first), jsonl(first))


def test_markdown_says_nothing_of_drawings(study, text):
    assert "A hollow mark" in text
    assert "hollow" not in markdown(study)


def test_a_run_shows_its_own_parts(single):
    (section,) = single.sections
    names = [topic.name for topic in section.topics]
    assert names == [
        "answer",
        "scores",
        "gap",
        "budget",
        "losses",
        "layers",
        "examples",
        "recipe",
        "environment",
        "stages",
    ]
    topics = {topic.name: topic for topic in section.topics}
    assert [drawing.name for drawing in topics["layers"].drawings] == ["attribution", "pairing"]
    assert topics["layers"].tables[0].rows == (("1", "0.9"),)
    assert topics["budget"].tables[0].columns == ("", "trained", "steps", "seconds", "peak MB")
    assert ("extract", "reused", "1.5", "x-weak") in topics["stages"].tables[0].rows
    assert ("torch", "2.0") in topics["environment"].tables[0].rows
    assert len(topics["losses"].drawings) == 1


def test_what_is_not_there_is_left_out(outputs, tmp_path):
    shutil.copytree(outputs / "runs" / "run" / "0", tmp_path / "alone")
    (tmp_path / "alone" / "metrics.jsonl").unlink()
    (section,) = collect(load_runs([tmp_path / "alone"])).sections
    assert [topic.name for topic in section.topics] == [
        "answer",
        "scores",
        "gap",
        "budget",
        "recipe",
        "stages",
    ]
    assert "±" in section.topics[2].tables[0].rows[0][1]


def test_an_analysis_is_shown_with_the_run_that_it_is_about(outputs, tmp_path):
    table = {"title": "a part's table", "columns": ["layer", "value"], "rows": [["1", 0.5]]}
    asked = {
        "same": "seed: 0\ncapture: {mode: live}",
        "other": "seed: 1",
        "answers": "seed: 0\nanswer: {samples: 4}",
    }
    for name, request in asked.items():
        (tmp_path / name).mkdir()
        parts = {f"part_{name}": {"tables": [table | {"title": name}], "data": {}}}
        (tmp_path / name / "analysis.json").write_text(json.dumps({"parts": parts}), encoding="utf-8")
        (tmp_path / name / "config.yaml").write_text(f"verb: analyze\n{request}\n", encoding="utf-8")
    shutil.copytree(outputs / "runs" / "run" / "0", tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("verb: run\nseed: 0\nthreads: 1\n", encoding="utf-8")
    shutil.copy(tmp_path / "other" / "analysis.json", tmp_path / "run" / "analysis.json")
    _, files = write_report([tmp_path], out=tmp_path / "out")
    captions = [caption for caption, _ in Page(files[0].read_text(encoding="utf-8")).tables]
    assert "same" in captions  # the same request
    assert "other" in captions  # its own folder
    (tmp_path / "run" / "analysis.json").unlink()
    report = collect(load_runs([tmp_path / "run"]), analyses=read_analyses([tmp_path]))
    (layers,) = [topic for topic in report.sections[0].topics if topic.name == "layers"]
    assert [table.title for table in layers.tables] == ["quality", "same"]
    assert layers.tables[-1].rows == (("1", "0.5"),)


def test_notes_stand_in_the_markdown_too_and_folders_may_be_named_either_way(outputs, tmp_path, monkeypatch):
    here = tmp_path / "here"
    shutil.copytree(outputs / "runs" / "run" / "0", here / "0")
    shutil.copytree(outputs / "runs" / "run" / "2", tmp_path / "2")
    scores = here / "0" / "scores.json"
    said = "3 of 9 rows are also in train"
    scores.write_text(json.dumps(json.loads(scores.read_text()) | {"notes": [said]}), encoding="utf-8")
    monkeypatch.chdir(here)
    _, files = write_report([Path("0"), tmp_path / "2"], out=tmp_path / "out")
    assert all(said in file.read_text(encoding="utf-8") for file in files if file.suffix in (".html", ".md"))
    assert {".html", ".md"} <= {file.suffix for file in files}


def test_examples_are_the_first_rows_that_changed_gained_and_lost_in_turn(outputs):
    (run,) = load_runs([outputs / "runs" / "run" / "0"])
    topic = example_topic(run, "sft")
    first = [example for example in topic.examples if example.task == "nano_math"]
    assert len(first) == 4
    order = [int(example.row.rpartition("/")[2]) for example in first if example.change == "gained"]
    assert order == sorted(order)
    for example in first:
        marks = {output.who: output.right for output in example.outputs}
        assert list(marks) == ["student before", "student after", "teacher"]
        if example.change == "gained":
            assert (marks["student before"], marks["student after"]) == (False, True)
    assert re.match(r"nano_math: \d+ gained(, \d+ lost)?, of 60 rows\.", topic.sentences[1])


def test_curves_are_of_the_last_run_in_the_folder(tmp_path):
    lines = ['{"kind": "config"}', '{"kind": "metrics", "step": 1, "values": {"transfer/loss": 9}}']
    lines += ['{"kind": "config"}']
    lines += [
        f'{{"kind": "metrics", "step": {s}, "values": {{"transfer/loss": {s}}}}}' for s in range(1, 1001)
    ]
    lines += ['{"kind": "metrics", "step": 1001, "values": {"transfer/loss": "nan"}}', '{"kind": "metr']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    curve = loss_curves({"folder": str(tmp_path)})["loss"]
    assert len(curve) <= 80
    assert curve[0] == (7.0, 7.0)  # the mean of steps 1 to 13


def test_pairs_of_models_have_a_section_each(outputs, tmp_path):
    leave_run(tmp_path / "other", "sft", lift=0.5, model="llama")
    report = collect(load_runs([outputs / "runs" / "run" / "0", tmp_path / "other"]))
    assert [section.title for section in report.sections] == ["nano on nano", "llama on nano"]
    page = Page(html(report))
    assert [text for level, text in page.headings if level == 2] == ["nano on nano", "llama on nano"]
    assert {json.loads(line)["pair"] for line in jsonl(report).splitlines()} == {"nano", "llama"}


def test_runs_of_other_tasks_have_a_section_of_their_own(outputs, tmp_path):
    leave_run(tmp_path, "sft", lift=0.5, tasks=("nano_math",))
    report = collect(load_runs([outputs / "runs" / "run" / "0", tmp_path]))
    assert [len(section.table.rows) for section in report.sections] == [3, 3]


def test_a_store_holds_no_runs_and_a_broken_file_is_named(outputs, tmp_path):
    assert len(load_runs([outputs])) == 6
    (tmp_path / "scores.json").write_text('{"scores": ', encoding="utf-8")
    with pytest.raises(RequestError, match=r"scores\.json cannot be read .*: leave its folder out"):
        load_runs([tmp_path])


def test_latex_is_escaped():
    assert escaped(r"a_b & 50% #1 {x} \y ~^") == (
        r"a\_b \& 50\% \#1 \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{}"
    )
    assert escaped("≈ -0.7 [-2.0, +0.5]") == r"$\approx$ $-$0.7 [$-$2.0, +0.5]"
    assert escaped("12b-to-7b ± 1 (↓) –") == r"12b-to-7b $\pm$ 1 ($\downarrow$) --"


def test_cells_are_written_as_the_console_writes_them(study):
    numbers = study.sections[0].numbers
    table = study.sections[0].table
    number = next(each for each in numbers if each.arm == "weak" and each.task == "mean")
    (row,) = [dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0] == "weak"]

    ends = {"low": number.difference_low, "high": number.difference_high}
    difference = Interval(value=number.difference, **ends)
    share = Interval(value=number.gap_closed, low=number.gap_closed_low, high=number.gap_closed_high)
    assert row["gap closed"] == Share(estimate=number, interval=share).cell
    assert row["against sft"] == difference_cell(difference, points=True)
    assert row["mean"] == score_cell(number, "acc")


@pytest.mark.slow
def test_files_lie_together_and_a_page_can_be_named(outputs, tmp_path):
    two = [outputs / "runs" / "run" / name for name in ("0", "2")]
    _, files = write_report(two, out=tmp_path / "new" / "place")
    assert [file.name for file in files] == ["report.html", "report.md", "report.tex", "report.jsonl"]
    assert "report.tex" in files[0].read_text(encoding="utf-8")
    _, files = write_report(two, out=tmp_path / "mine.html", against="weak")
    assert [file.name for file in files] == ["mine.html", "mine.md", "mine.tex", "mine.jsonl"]
    assert "against weak" in files[1].read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"new", *(file.name for file in files)}
    page = write_run_page(outputs / "runs" / "run" / "1")
    assert Page(page.read_text(encoding="utf-8")).tables
    page.unlink()


def test_wrong_requests_have_one_message_and_leave_nothing(outputs, tmp_path):
    with pytest.raises(RequestError, match=r"no such folder: .*nowhere"):
        write_report([tmp_path / "nowhere"], out=tmp_path / "out")
    with pytest.raises(RequestError, match=r"no scores\.json under"):
        write_report([tmp_path], out=tmp_path / "out")
    with pytest.raises(RequestError, match=r"'sfd' \(did you mean 'sft'\?\)"):
        write_report([outputs / "runs"], out=tmp_path / "out", against="sfd")
    with pytest.raises(RequestError, match=r"a file that ends in \.html is expected"):
        write_report([outputs / "runs"], out=tmp_path / "report.pdf")
    (tmp_path / "file").touch()
    with pytest.raises(PktError, match=r"cannot write .*; give a writable place with out="):
        write_report([outputs / "runs" / "run" / "0"], out=tmp_path / "file" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_report_needs_no_torch():
    code = "import sys, pkt.reporting.page.write; assert not {'torch', 'transformers', 'lm_eval'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
