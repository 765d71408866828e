"""The words that may come first on the command line, each with what it does; nothing is imported here."""

from __future__ import annotations

RUNS = {  # compose a request, and leave a run's folder
    "run": "all stages: extract, align, transfer, eval, report",
    "extract": "what to take from the teacher: layer scores, pairs, states",
    "align": "how it reads in the student's space: the alignment map",
    "transfer": "train the student; writes a model folder",
    "eval": "score teacher, student and transferred student with lm-eval",
    "analyze": "look inside: resolution, cka, attribution, maps (or some: `pkt analyze cka`)",
    "plan": "what all stages would take, before any weight is read: tokens, memory, disk, time",
    "rows": "rows as the models see them, before anything trains: tokens, what is supervised, overlaps",
    "doctor": "what pkt finds out about both models before it uses them, with numbers",
}
COMPOSED = RUNS | {"report": "one page over any runs: `pkt report runs=<folder>[,<folder>...]`"}
PLAIN = {  # no config is composed
    "list": "what there is to choose from: `pkt list models`, methods, benchmarks, experiments, ...",
    "copy": "an option's file to change: `pkt copy model=llama-7b-to-1b as=mine` writes it into ./conf",
    "env": "what a bug report needs: versions, machine, settings (`--json`)",
    "diff": "what sets two runs apart: `pkt diff <folder> <folder>`",
    "push": "send a checkpoint to the hub: `pkt push checkpoint=<folder> repo=org/name --dry-run`",
    "store": "list, verify or prune what the store keeps (`pkt store --help`)",
}
