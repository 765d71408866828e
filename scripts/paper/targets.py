"""Which requests make up each table and figure, on the nano pair and on a real one.

    target, pair, seeds -> Plan: the jobs, each one `pkt <verb> key=value ...`

The paper trains one student per benchmark, so a real pair has a job per benchmark. On nano one student is trained on
all tasks of the benchmark together: four times fewer jobs, which is what fits a laptop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from omegaconf import OmegaConf

from paper.meeting import meeting
from paper.plans import NANO, OWN, Job, Plan, every_layer, job_name, own_job
from paper.settings import finals, settings
from paper.tokens import tokens
from paper.when import NANO_CODE, cuts, labels, situations
from pkt.errors import RequestError
from pkt.searchpath import conf_dirs

PAPER_PAIR = "llama-13b-to-7b"
FINE_TUNED = ("codellama-13b-to-7b", "wizardcoder-13b-to-7b")  # the teachers of the paper's second table
CODE_PAIRS = ("nano", "nano-code")  # the small counterparts: the second teacher was trained on code
RIVALS = ("seeking", "laten", "semalign")  # the rows of the paper's tables
OURS = ("sft", "seqkd", "kd", "hidden_kd", "pissa", "semalign_fisher", "semalign_geometry", "semalign_joint")
CELLS = ("few", "each", "grid")


BENCHES = (
    "mmlu",
    "gsm8k",
    "humaneval",
    "mbpp",
)  # the paper's; their published settings are `experiment=paper_<bench>`
CODE = ("humaneval", "mbpp")  # prompted as instructions where a pair speaks in a chat template
# Seeking as LaTen's and SemAlign's tables ran it: fewer epochs and a lower rate on HumanEval, 300 rows on MBPP
SEEKING = {
    "humaneval": ("optim.epochs=3", "optim.lr=3e-5", "eval.samples=20", "eval.temperature=0.1"),
    "mbpp": ("data.sizes.train=300",),
}

# one factor at a time around semalign_joint; `few` is what nano runs by default
FACTORS: Mapping[str, Sequence[str]] = {
    "mapping": ("depth", "critical", "interpolate", "monotone", "cka", "last", "random"),
    "semantics": (
        "ridge_trained",
        "ridge_refit",
        "ridge",
        "cosine",
        "logit_lstsq",
        "procrustes",
        "input",
        "random",
    ),
    "method.interface": ("block", "mlp", "attention", "residual"),
    "objective": ("joint_kl", "joint", "cosine_ce", "cosine", "layer"),
    "objective.terms.layer.positions": ("answer", "all"),
    "method.update.kind": ("full", "lora"),
    "method.targets": ("own", "shuffled"),
}
FEW: Mapping[str, Sequence[str]] = {
    "mapping": ("critical", "cka", "random"),
    "semantics": ("ridge", "ridge_refit", "cosine", "random"),
    "method.interface": ("mlp", "attention"),
    "objective": ("joint", "layer"),
    "objective.terms.layer.positions": ("all",),
    "method.update.kind": ("lora",),
    "method.targets": ("shuffled",),
}
GRID = ("mapping", "semantics", "method.interface", "objective", "method.update.kind")


def table1(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Table 1: every method on every benchmark, one teacher."""
    jobs = _table_jobs([pair], BENCHES, (*RIVALS, *OURS), seeds)
    return Plan(target="table1", pair=pair, title=f"Table 1: methods side by side, {pair}", jobs=jobs)


def table2(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Table 2: teachers fine-tuned on code, tasks of code.

    Raises:
        RequestError: the pair has no tasks of code.
    """
    if pair in OWN and pair not in CODE_PAIRS:
        raise RequestError(
            f"table2 is about a teacher of code and its tasks, which {pair} does not have; take nano or {PAPER_PAIR}."
        )
    methods = (*RIVALS, "sft", "kd", "semalign_joint")
    pairs = ["nano-code"] if pair in CODE_PAIRS else FINE_TUNED if pair == PAPER_PAIR else [pair]
    jobs = _table_jobs(pairs, CODE, methods, seeds, NANO_CODE)
    title = f"Table 2: a teacher that was trained on code, {pair}"
    return Plan(target="table2", pair=pair, title=title, jobs=jobs)


def efficiency(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of the table of costs: those of Table 1, which the store remembers."""
    return replace(table1(pair, seeds), target="efficiency", title=f"What each method costs, {pair}")


def figure2(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the job of Figure 2: resolution of semantics, layer by layer."""
    job = _analysis("resolution", pair, seeds[0], "method=semalign")
    title = f"Figure 2: resolution of semantics per layer, {pair}"
    return Plan(target="figure2", pair=pair, title=title, jobs=(job,))


def figure4(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Figure 4: CKA of the student's layers before and after, by the paper's method and ours."""
    methods = ("semalign", "semalign_joint")
    jobs = tuple(_analysis("cka", pair, seed, f"method={method}") for method in methods for seed in seeds)
    title = f"Figure 4: layer-by-layer CKA, student and student, {pair}"
    return Plan(target="figure4", pair=pair, title=title, jobs=jobs)


def figure5(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Figure 5: those of Figure 4, which compare teacher and student layers too."""
    title = f"Figure 5: layer-by-layer CKA, teacher and student, {pair}"
    return replace(figure4(pair, seeds), target="figure5", title=title)


def ablations(pair: str, seeds: Sequence[int], cells: str = "few") -> Plan:
    """Return the jobs of the ablations of semalign_joint.

    Args:
        pair: the model pair.
        seeds: of each cell.
        cells: `few`, `each` (every value, one factor at a time) or `grid` (mapping x semantics x interface x
            loss terms x update).
    """
    method = "semalign_joint"
    jobs = tuple(
        own_job(pair, seed, f"method={method}", *every_layer(words))
        if pair in OWN
        else _paper_job(pair, "gsm8k", method, seed, *words)
        for words in ((), *_cells(cells))
        for seed in seeds
    )
    return Plan(target="ablations", pair=pair, title=f"Ablations of {method}, {pair}", jobs=jobs)


TARGETS: Mapping[str, Callable[..., Plan]] = {
    "table1": table1,
    "table2": table2,
    "figure2": figure2,
    "figure4": figure4,
    "figure5": figure5,
    "ablations": ablations,
    "efficiency": efficiency,
    "labels": labels,
    "cuts": cuts,
    "situations": situations,
    "settings": settings,
    "finals": finals,
    "tokens": tokens,
    "meeting": meeting,
}


def default_seeds(target: str, pair: str) -> str:
    """Return the seeds of a target, where none are asked for: five of what small models are compared in, else three."""
    return (
        "0,1,2,3,4"
        if target in ("labels", "cuts", "situations", "finals", "tokens", "meeting") and OWN.get(pair) == NANO
        else "0,1,2"
    )


def _speaks_chat(pair: str) -> bool:
    """Whether a pair's config puts prompts into a chat template."""
    for folder in conf_dirs():
        if (file := folder / "model" / f"{pair}.yaml").is_file():
            return bool(OmegaConf.select(OmegaConf.load(file), "chat_template", default=False))
    return False


def _cells(cells: str) -> list[tuple[str, ...]]:
    """Return the words of each cell; the base, which is no word at all, is left out."""
    if cells == "grid":
        combined = product(
            *([(), *((f"{factor}={value}",) for value in FACTORS[factor][1:])] for factor in GRID)
        )
        return [
            words
            for parts in combined
            if (words := tuple(word for part in parts for each in part for word in each.split()))
        ]
    chosen = FEW if cells == "few" else {factor: values[1:] for factor, values in FACTORS.items()}
    return [tuple(f"{factor}={value}".split()) for factor, values in chosen.items() for value in values]


def _table_jobs(
    pairs: Sequence[str],
    benches: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    *own_words: str,
) -> tuple[Job, ...]:
    """Return a job per method and seed: on all tasks together where a pair has its own, else on each benchmark."""
    runs = list(product(methods, seeds))
    jobs: list[Job] = []
    for pair in pairs:
        if pair in OWN:
            jobs += [own_job(pair, seed, f"method={method}", *own_words) for method, seed in runs]
        else:
            jobs += [_paper_job(pair, bench, method, seed) for bench in benches for method, seed in runs]
    return tuple(jobs)


def _paper_job(pair: str, bench: str, method: str, seed: int, *words: str) -> Job:
    """Return one method's job on one benchmark, with the settings that were published for it."""
    request: tuple[str, ...] = (f"experiment=paper_{bench}", f"method={method}")
    if method == "laten":
        request = (f"experiment=paper_laten_{bench}",)
    elif method == "seeking":
        request = ("experiment=paper_seeking_laten", *SEEKING.get(bench, ()))
    option = f"{bench}_instruct" if bench in CODE and _speaks_chat(pair) else bench
    common = (f"model={pair}", f"benchmark={option}", f"seed={seed}")
    name = job_name(pair, bench, method, *words, f"seed={seed}")
    return Job(name=name, verb="run", words=(*request, *words, *common))


def _analysis(part: str, pair: str, seed: int, *words: str) -> Job:
    rows = OWN.get(pair) or (f"benchmark={'paper_chat' if _speaks_chat(pair) else 'paper'}",)
    name = job_name(part, *words, f"seed={seed}")
    return Job(name=name, verb="analyze", words=(part, *words, f"model={pair}", f"seed={seed}", *rows))
