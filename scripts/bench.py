"""Measure what pkt's ways cost beside the textbook's: `make bench ARGS="--cases v1_step --small"`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the textbook's ways are those of the tests

import torch  # noqa: E402

from benches import answering, maps, reading, training, weights  # noqa: E402
from benches.case import Case  # noqa: E402
from benches.machine import code, machine  # noqa: E402
from benches.measure import peak, peaks, timed  # noqa: E402
from benches.page import write  # noqa: E402
from benches.scaling import AXES, base_of, scaled  # noqa: E402
from benches.shape import LARGE, REFERENCE, SMALL, TINY, Shape  # noqa: E402
from pkt import console, places  # noqa: E402
from pkt.durable import write_atomically  # noqa: E402
from pkt.errors import PktError, RequestError, nearest  # noqa: E402

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *training.CASES, *maps.CASES, *reading.CASES, *weights.CASES, *answering.CASES
    )
}  # fmt: skip
SCALING = {f"scaling_{axis.name}": axis for axis in AXES}
PUBLISHED = (("reference", "cpu"), ("large", "cuda"))  # sizes and devices whose pages are in docs/
SHAPES = {"large": LARGE, "reference": REFERENCE, "small": SMALL, "tiny": TINY}


def main(words: Sequence[str]) -> int:
    """Measure the cases that are asked for, write the page, and return the exit code.

    Args:
        words: the command line after the script's name.
    """
    options = _parser().parse_args(words)
    torch.set_num_threads(options.threads)
    try:
        if options.peak:
            name, way, shape = options.peak
            print(json.dumps({"mb": peak(CASES[name], way, _shape(shape))}))
            return 0
        chosen = _chosen(options.cases)
        folder = _folder(options)
        measured = code()
        for name in chosen:
            _obtain(folder / f"{name}.json", name, options, measured)
        for file in _write(folder, options, words):
            console.say(f"{'wrote':<12}{file}")
    except PktError as error:
        console.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.fail("stopped; the same command goes on from here")
        return 130
    return 0


def _shape(text: str) -> Shape:
    fields = json.loads(text)
    return Shape(**fields | {"head_widths": tuple(fields["head_widths"])})


def _chosen(words: str | None) -> list[str]:
    """Return the names that `--cases` lists; without it, all.

    Raises:
        RequestError: one that there is not.
    """
    known = [*CASES, *SCALING]
    chosen = known if words is None else words.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise RequestError(
            f"unknown case '{unknown[0]}'; allowed: {', '.join(known)}{nearest(unknown[0], known)}"
        )
    return chosen


def _folder(options: argparse.Namespace) -> Path:
    where = "" if options.device == "cpu" else f"_{options.device}"
    folder = (
        places.output_dir(os.environ.get("PKT_OUTPUT_DIR", "outputs")) / "bench" / f"{options.size}{where}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _obtain(file: Path, name: str, options: argparse.Namespace, measured: str) -> None:
    """Measure a case and keep the result, unless it is there from this code and these options."""
    asked = {
        "size": options.size,
        "repeats": options.repeats,
        "threads": options.threads,
        "memory": options.memory and name in CASES,
        "code": measured,
    }
    if not options.again and (known := _known(file)) and known["asked"] == asked:
        console.say(f"{name:<20}kept from an earlier run")
        return
    console.say(f"{name:<20}is measured")
    found = {"asked": asked} | _measured(name, options)
    write_atomically(file, json.dumps(found, indent=1) + "\n")
    told = found.get("unavailable") or (f"{found['ratio']:.3g} times" if "ratio" in found else "")
    console.say(f"{name:<20}{told or 'slopes ' + str(found['slopes'])}")


def _measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    if name in SCALING:
        base = base_of(options.size, options.device)
        return scaled(SCALING[name], CASES, options.repeats, options.threads, base)
    case, shape = CASES[name], replace(SHAPES[options.size], device=options.device)
    if why := case.unavailable(shape):
        return {"unavailable": why}
    found = timed(case, shape, options.repeats, options.threads)
    return found | ({"mb": peaks(case, shape, options.threads)} if options.memory else {})


def _known(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def _write(folder: Path, options: argparse.Namespace, words: Sequence[str]) -> list[Path]:
    """Write page, plot and JSON of all that was measured at this size, now or earlier."""
    found = {name: known for name in [*CASES, *SCALING] if (known := _known(folder / f"{name}.json"))}
    record = {
        "command": shlex.join(["python", "scripts/bench.py", *words]),
        "machine": machine(options.threads, options.device),
        "shape": asdict(replace(SHAPES[options.size], device=options.device)),
        "cases": {name: found[name] for name in CASES if name in found},
        "scaling": {axis.name: found[name] for name, axis in SCALING.items() if name in found},
        "scaling_base": asdict(base_of(options.size, options.device)),
    }
    default = ROOT / "docs" if (options.size, options.device) in PUBLISHED else folder
    return write(options.out or default, list(CASES.values()), record)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python scripts/bench.py",
        description="Measure pkt's ways beside the textbook's, and write docs/performance.md.",
        epilog=f"cases: {', '.join([*CASES, *SCALING])}. Every result is kept when it is there: a command that was "
        "stopped goes on with the next case.",
    )
    parser.add_argument("--cases", help="comma-separated (default: all)")
    parser.add_argument(
        "--small", dest="size", action="store_const", const="small", default="reference",
        help="small models, seconds a case; the page goes beside the results",
    )  # fmt: skip
    parser.add_argument(
        "--tiny", dest="size", action="store_const", const="tiny", help="as the tests run them"
    )
    parser.add_argument(
        "--large", dest="size", action="store_const", const="large", help="3B to 1.1B, for a GPU of 80 GB"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: cpu)")
    parser.add_argument("--repeats", type=_positive, default=5, help="turns of each way (default: 5)")
    parser.add_argument("--threads", type=_positive, default=1, help="of torch (default: 1)")
    parser.add_argument(
        "--no-memory", dest="memory", action="store_false", help="leave out the processes that measure memory"
    )
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument(
        "--out", type=Path, help="folder of the page (default: docs; of other sizes: beside the results)"
    )
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)  # in a child: case, way, shape
    return parser


def _positive(word: str) -> int:
    if (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"got {number}; give 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
