"""Add up what `pkt plan` says of many requests, such as all that a target of the Makefile is made of.

    python scripts/reproduce.py table1 --pair llama-13b-to-7b --seeds 0 --print |
        python scripts/plan_total.py device=cuda plan.memory_gb=80 plan.host_gb=512 plan.flops=3e14 plan.disk_gb=4000

Words behind the command are added to every request. Scores of the teacher and of the untouched student are counted once
per benchmark, as the store has them for all; other stages that requests may share are counted for each.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from planned import planned

SHARED = ("eval teacher", "eval student")


def main() -> None:
    """Print a line per request, and one for all."""
    total = {"hours": [0.0, 0.0], "disk": 0.0, "peak": 0.0, "PFLOP": 0.0}
    seen: set[tuple[str, str]] = set()
    print("| request | PFLOP | GPU hours | disk GB | memory GB | at |")
    print("|---|---:|---:|---:|---:|---|")
    for line in sys.stdin:
        words = [word for word in shlex.split(line)[2:] if not word.startswith("tracker=")]
        benchmark = next((word for word in words if word.startswith("benchmark=")), "")
        stages = _planned([*words, *sys.argv[1:]])
        own = {
            name: cost for name, cost in stages.items() if name not in SHARED or (name, benchmark) not in seen
        }
        seen |= {(name, benchmark) for name in SHARED}
        work, least, most, disk = _sums(own.values())
        when, peak = max(
            ((f"{name}: {_when(cost)}", cost["peak"]) for name, cost in own.items()), key=lambda pair: pair[1]
        )
        told = " ".join(word for word in words if not word.startswith(("model=", "seed=")))
        print(
            f"| {told} | {work:,.0f} | {least:.1f} to {most:.1f} | {disk:,.0f} | {peak:,.0f} | {when} |",
            flush=True,
        )
        total["hours"] = [total["hours"][0] + least, total["hours"][1] + most]
        total["disk"] += disk
        total["PFLOP"] += work
        total["peak"] = max(total["peak"], peak)
    hours = total["hours"]
    print(
        f"| all | {total['PFLOP']:,.0f} | {hours[0]:.0f} to {hours[1]:.0f} | {total['disk']:,.0f} | "
        f"{total['peak']:,.0f} | |"
    )


def _sums(costs: Iterable[Mapping[str, Any]]) -> tuple[float, float, float, float]:
    """Return PFLOP, least and most hours, and gigabytes on disk."""
    costs = list(costs)
    least, most = (sum(cost["seconds"][end] for cost in costs) / 3600 for end in (0, 1))
    return (
        sum(cost["operations"] for cost in costs) / 1e15,
        least,
        most,
        sum(cost["disk"] for cost in costs) / 1e9,
    )


def _when(cost: Mapping[str, Any]) -> str:
    """Return the moment of the peak."""
    return max(cost["memory"], key=lambda when: sum(cost["memory"][when].values()), default="")


def _planned(words: list[str]) -> dict[str, Any]:
    """Return the costs of a request's stages, their peaks in gigabytes."""
    found: dict[str, Any] = planned(words)[1]["stages"]
    for cost in found.values():
        cost["peak"] /= 1e9
    return found


if __name__ == "__main__":
    main()
