"""The page, the plot and the JSON of what was measured.

results of cases and sizes -> <out>/performance.md, <out>/results/performance.json, <out>/results/performance.png;
of a GPU -> performance_gpu.*
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benches.case import Case
from benches.measure import WAYS
from pkt.durable import write_atomically
from pkt.reporting.figures import INK, STUDENT, TEACHER, Drawing, plain_axes, save

LEAST_MB = 10  # below it a process's memory says nothing about the work

WRITERS = {"cpu": "make bench", "cuda": "python scripts/bench.py --large --device cuda"}
CLOCKS = {
    "cpu": "Seconds are the processor's (user and system) on one thread.",
    "threads": "Seconds are the wall's.",
    "cuda": "Seconds are the wall's, read when the GPU is done.",
}
MEMORY = {
    "cpu": "how far one call grows the resident set (VmHWM, set back\n  before the call) over what the process holds "
    "with everything imported and used once. Models and inputs count, what is\n  prepared and given back does not.",
    "cuda": "how far one call takes what torch allocates on the GPU\n  over what is allocated before models are made. "
    "Models and inputs count, what is prepared and given back does not.",
}

HEAD = """# What pkt's ways cost, beside the textbook's

Written by `{writer}`; [the JSON](results/{stem}.json) has every single measurement. Both ways of each case work
on the same random models and inputs, and have to find the same numbers, within the difference that the table names,
before they are timed. The textbook's way is the one that tests compare pkt's numbers with (`tests/textbook/`), with
whole batches at a time as anybody would write it; for scores and answers it is lm-eval and transformers.

- **times** is the textbook's median over pkt's. The two are timed in turns in one process, so that both meet the same
  load; behind it the range of single turns. {clock}
- **memory** is the textbook's peak over pkt's, each in a process of its own: {memory}
- An aim that is not reached is marked with ✗. Absolute seconds say little on a shared machine.

Sizes: teacher {teacher_depth} x {teacher_width}, student {student_depth} x {student_width}, V = {vocabulary:,}, batch
{rows} x {tokens}, layer {layer} of {student_depth}; heads of {head_vocabulary:,} x {head_widths}. Half of each row is
the answer. Targets, distributions and scoring have a quarter of the rows; attribution and Seeking one row of half the
length, LaTen too, on one layer of a quarter of the student's width; Seeking's window is cut from a square of a quarter
of the teacher's width; prompts are answered by the student's size.
"""


def table(cases: Sequence[Case], results: Mapping[str, Any]) -> str:
    """Return what was measured as a Markdown table, a row per case."""
    lines = [
        "| | times | aim | memory | aim | seconds pkt, textbook | MB pkt, textbook | turns | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(case, results.get(case.name)) for case in cases)]) + "\n"


def _row(case: Case, found: Mapping[str, Any] | None) -> str:
    if found is None or "unavailable" in found:
        why = "not measured" if found is None else found["unavailable"]
        return f"| {case.title} | – | {_aim(case.faster)} | – | {_aim(case.smaller)} | {why} | | | |"
    seconds = found["seconds"]
    turns = [t / max(o, 1e-9) for o, t in zip(seconds["ours"], seconds["textbook"], strict=True)]
    times = f"{_reached(found['ratio'], case.faster)} ({min(turns):.3g} to {max(turns):.3g})"
    peaks = found.get("mb")
    if peaks and max(peaks.values()) < LEAST_MB:
        peaks = None
    memory = _reached(peaks["textbook"] / max(peaks["ours"], 1e-9), case.smaller) if peaks else "–"
    medians = ", ".join(f"{statistics.median(seconds[way]):.3g}" for way in WAYS)
    megabytes = ", ".join(f"{peaks[way]:.0f}" for way in WAYS) if peaks else ""
    return (
        f"| {case.title} | {times} | {_aim(case.faster)} | {memory} | {_aim(case.smaller)} | {medians} | {megabytes} | "
        f"{len(seconds['ours'])} | {found['difference']:.1g} of {found['allowed']:.0e} |"
    )


def _aim(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _reached(value: float, aim: float | None) -> str:
    return f"**{value:.3g}**" + ("" if aim is None or value >= aim else " ✗")


def ways(cases: Sequence[Case]) -> str:
    """Return what the two ways of each case do, as a Markdown table."""
    rows = [f"| {case.title} | {case.does} | {case.textbook_does} |" for case in cases]
    return "\n".join(["| | pkt | textbook |", "|---|---|---|", *rows]) + "\n"


def slopes(scaling: Mapping[str, Any]) -> str:
    """Return the fitted slopes as a Markdown table."""
    lines = ["| size | work | values | slope pkt | slope textbook |", "|---|---|---|---|---|"]
    for name, found in scaling.items():
        values = ", ".join(f"{value:,}" for value in found["values"])
        own, other = (f"{found['slopes'][way]:.2f}" for way in WAYS)
        lines.append(f"| {name} | `{found['case']}` | {values} | {own} | {other} |")
    return "\n".join(lines) + "\n"


def stem(device: str) -> str:
    """Return what the files of a device are called."""
    return "performance" if device == "cpu" else "performance_gpu"


def drawing(scaling: Mapping[str, Any], file: str = "performance") -> Drawing:
    """Draw the seconds of both ways against each size, with the slopes in words."""
    figure = Figure(figsize=(2.6 * len(scaling), 2.8), layout="constrained")
    for place, (name, found) in enumerate(scaling.items(), start=1):
        axes = figure.add_subplot(1, len(scaling), place)
        for way, colour, called in zip(WAYS, (STUDENT, TEACHER), ("pkt", "textbook"), strict=True):
            label = f"{called}: slope {found['slopes'][way]:.2f}"
            axes.loglog(found["values"], found["medians"][way], "o-", color=colour, label=label, base=10)
        axes.set_xlabel(name)
        axes.set_xticks(found["values"], [f"{value:,}" for value in found["values"]], fontsize=7)
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=7, labelcolor=INK)
        plain_axes(axes)
    figure.axes[0].set_ylabel("seconds")
    return Drawing(
        name=file,
        title="Cost against sizes",
        alt="seconds of pkt and of the textbook against " + ", ".join(scaling),
        figure=figure,
    )


def loads(results: Mapping[str, Any]) -> str:
    """Return the load that the cases were measured under."""
    seen = [load for found in results.values() for load in found.get("load", ())]
    return f"{min(seen):.1f} to {max(seen):.1f}" if seen else "unknown"


def write(out: Path, cases: Sequence[Case], record: Mapping[str, Any]) -> list[Path]:
    """Write the files, and return them, the page first.

    Args:
        out: the folder of the page; it gets a folder `results`.
        cases: all there are, in the order of the table.
        record: what goes into the JSON: ``command``, ``machine``, ``shape``, ``cases`` and ``scaling`` by name.
    """
    folder = out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    name = stem(record["shape"]["device"])
    data = folder / f"{name}.json"
    write_atomically(data, json.dumps(record, indent=1) + "\n")
    pictures = [save(drawing(record["scaling"], name), folder)] if record["scaling"] else []
    page = out / f"{name}.md"
    write_atomically(page, _page(cases, record))
    return [page, data, *pictures]


def _page(cases: Sequence[Case], record: Mapping[str, Any]) -> str:
    device, name = record["shape"]["device"], stem(record["shape"]["device"])
    several = device == "cpu" and record["machine"]["threads"] != "1"
    widths = " and ".join(f"{width:,}" for width in record["shape"]["head_widths"])
    parts = [
        HEAD.format(
            writer=WRITERS[device],
            stem=name,
            clock=CLOCKS["threads" if several else device],
            memory=MEMORY[device],
            **{**record["shape"], "head_widths": widths},
        ),
        table(cases, record["cases"]),
        "## What the two ways are\n",
        ways(cases),
    ]
    if record["scaling"]:
        parts += [
            "## How cost grows\n",
            "Seconds against one size at a time, on a smaller pair (the JSON names it); seconds ~ size^slope.\n",
            f"![Cost against sizes](results/{name}.png)\n",
            slopes(record["scaling"]),
        ]
    about = [f"| {name} | {value} |" for name, value in record["machine"].items()]
    about += [
        f"| load average while measuring | {loads(record['cases'])} |",
        f"| last command | `{record['command']}` |",
    ]
    parts += ["## The machine\n", "\n".join(["| | |", "|---|---|", *about]) + "\n"]
    return "\n".join(parts)
