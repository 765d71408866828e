"""Which requests make up each table and figure, on the nano pair and on a real one.

    target, pair, seeds -> Plan: the jobs, each one `pkt <verb> key=value ...`

The paper trains one student per benchmark, so a real pair has a job per benchmark. On nano one student is trained on
all tasks of the benchmark together: four times fewer jobs, which is what fits a laptop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from omegaconf import OmegaConf

from pkt.errors import RequestError
from pkt.searchpath import builtin_conf_dir, user_conf_dirs

NANO = ("benchmark=nano", "threads=1")
# pairs with a benchmark of their own, on whose tasks together one student is trained
OWN: Mapping[str, tuple[str, ...]] = {
    "nano": NANO,
    "nano-code": NANO,
    "smollm2-135m-to-pruned": ("experiment=real",),
}
PAPER_PAIR = "llama-13b-to-7b"
FINE_TUNED = ("codellama-13b-to-7b", "wizardcoder-13b-to-7b")  # the teachers of the paper's second table
RIVALS = ("seeking", "laten", "semalign")  # the rows of the paper's tables
OURS = ("sft", "kd", "semalign_fisher", "semalign_geometry", "semalign_joint")
CELLS = ("few", "each", "grid")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request: `pkt <verb> <words>`; its folder is called by its name."""

    name: str
    verb: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of one target on one pair.

    Attributes:
        target: `table1`, `table2`, `figure2`, `figure4`, `figure5`, `ablations` or `efficiency`.
        pair: the model pair that was asked for.
        title: what the result is called.
        jobs: in the order in which they start.
        may_be_refused: jobs may ask for combinations that make no sense; such a cell is left out.
    """

    target: str
    pair: str
    title: str
    jobs: tuple[Job, ...]
    may_be_refused: bool = False


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A benchmark of the paper.

    Attributes:
        plain, chat: option of `benchmark` for base and for chat models.
        experiment: ending of the `experiment` files with the settings published for it.
        seeking: words in which Seeking's settings on it differ from `experiment=paper_seeking_laten`.
    """

    plain: str
    chat: str
    experiment: str
    seeking: tuple[str, ...] = ()


# Seeking as LaTen's and SemAlign's tables ran it: fewer epochs and a lower rate on HumanEval, 300 rows on MBPP
BENCHES: Mapping[str, Bench] = {
    "mmlu": Bench(plain="mmlu", chat="mmlu", experiment="mmlu"),
    "gsm8k": Bench(plain="gsm8k", chat="gsm8k", experiment="gsm8k"),
    "humaneval": Bench(
        plain="humaneval",
        chat="humaneval_instruct",
        experiment="humaneval",
        seeking=("optim.epochs=3", "optim.lr=3e-5", "eval.samples=20", "eval.temperature=0.1"),
    ),
    "mbpp": Bench(plain="mbpp", chat="mbpp_instruct", experiment="mbpp", seeking=("data.sizes.train=300",)),
}
CODE = ("humaneval", "mbpp")

# one factor at a time around semalign_joint; `few` is what nano runs by default
FACTORS: Mapping[str, Sequence[str]] = {
    "mapping": ("depth", "critical", "interpolate", "monotone", "cka", "last", "random"),
    "semantics": ("ridge", "cosine", "logit_lstsq", "procrustes", "input", "random"),
    "method.interface": ("block", "mlp", "attention", "residual"),
    "objective": ("joint_kl", "joint", "cosine_ce", "cosine", "layer"),
    "objective.terms.layer.positions": ("all", "answer"),
    "method.update.kind": ("full", "lora"),
    "method.targets": ("own", "shuffled"),
}
FEW: Mapping[str, Sequence[str]] = {
    "mapping": ("critical", "cka"),
    "semantics": ("cosine", "random"),
    "method.interface": ("mlp", "attention"),
    "objective": ("layer",),
    "objective.terms.layer.positions": ("answer",),
    "method.update.kind": ("lora",),
    "method.targets": ("shuffled",),
}
GRID = ("mapping", "semantics", "method.interface", "objective", "method.update.kind")


def table1(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Table 1: every method on every benchmark, one teacher."""
    title = f"Table 1: methods side by side, {pair}"
    methods = (*RIVALS, *OURS)
    if has_own(pair):
        jobs = [_own_job(pair, seed, f"method={method}") for method in methods for seed in seeds]
    else:
        jobs = [
            _paper_job(pair, bench, method, seed) for bench in BENCHES for method in methods for seed in seeds
        ]
    return Plan(target="table1", pair=pair, title=title, jobs=tuple(jobs))


def table2(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Table 2: teachers fine-tuned on code, tasks of code.

    Raises:
        RequestError: the pair has no tasks of code.
    """
    title = f"Table 2: a teacher that was trained on code, {pair}"
    methods = (*RIVALS, "sft", "kd", "semalign_joint")
    if has_own(pair) and OWN[pair] != NANO:
        raise RequestError(
            f"table2 is about a teacher of code and its tasks, which {pair} does not have; take nano or {PAPER_PAIR}."
        )
    if has_own(pair):
        tasks = "benchmark.tasks=[nano_code,nano_program]"
        jobs = [
            _own_job("nano-code", seed, f"method={method}", tasks) for method in methods for seed in seeds
        ]
    else:
        teachers = FINE_TUNED if pair == PAPER_PAIR else (pair,)
        jobs = [
            _paper_job(teacher, bench, method, seed)
            for teacher in teachers
            for bench in CODE
            for method in methods
            for seed in seeds
        ]
    return Plan(target="table2", pair=pair, title=title, jobs=tuple(jobs))


def efficiency(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of the table of costs: those of Table 1, which the store remembers."""
    jobs = table1(pair, seeds).jobs
    return Plan(target="efficiency", pair=pair, title=f"What each method costs, {pair}", jobs=jobs)


def figure2(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the job of Figure 2: resolution of semantics, layer by layer."""
    job = _analysis("resolution", pair, seeds[0], "method=semalign")
    title = f"Figure 2: resolution of semantics per layer, {pair}"
    return Plan(target="figure2", pair=pair, title=title, jobs=(job,))


def figure4(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Figure 4: CKA of the student's layers before and after."""
    return _similarity("figure4", "Figure 4: layer-by-layer CKA, student and student", pair, seeds)


def figure5(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of Figure 5: CKA of teacher and student layers before and after."""
    return _similarity("figure5", "Figure 5: layer-by-layer CKA, teacher and student", pair, seeds)


def ablations(pair: str, seeds: Sequence[int], cells: str = "few") -> Plan:
    """Return the jobs of the ablations of semalign_joint.

    Args:
        pair: the model pair.
        seeds: of each cell.
        cells: `few`, `each` (every value, one factor at a time) or `grid` (mapping x semantics x interface x
            loss terms x update).
    """
    jobs = []
    for words in ((), *_cells(cells)):
        for seed in seeds:
            request = ("method=semalign_joint", *words)
            jobs.append(
                _own_job(pair, seed, *request)
                if has_own(pair)
                else _paper_job(pair, "gsm8k", "semalign_joint", seed, *words)
            )
    return Plan(target="ablations", pair=pair, title=f"Ablations of semalign_joint, {pair}", jobs=tuple(jobs))


TARGETS: Mapping[str, Callable[..., Plan]] = {
    "table1": table1,
    "table2": table2,
    "figure2": figure2,
    "figure4": figure4,
    "figure5": figure5,
    "ablations": ablations,
    "efficiency": efficiency,
}


def has_own(pair: str) -> bool:
    """Whether one student is trained on all tasks of a benchmark that goes with the pair."""
    return pair in OWN


def speaks_chat(pair: str) -> bool:
    """Whether a pair's config says that prompts are in a chat template."""
    for folder in (*user_conf_dirs(), builtin_conf_dir()):
        if (file := folder / "model" / f"{pair}.yaml").is_file():
            return bool(OmegaConf.select(OmegaConf.load(file), "chat_template", default=False))
    return False


def _cells(cells: str) -> list[tuple[str, ...]]:
    """Return the words of each cell; the base, which is no word at all, is left out."""
    if cells == "grid":
        base = {factor: FACTORS[factor][0] for factor in GRID}
        combined = product(*(FACTORS[factor] for factor in GRID))
        differing = [
            tuple(
                f"{factor}={value}"
                for factor, value in zip(GRID, values, strict=True)
                if value != base[factor]
            )
            for values in combined
        ]
        return [words for words in differing if words]
    chosen = FEW if cells == "few" else {factor: values[1:] for factor, values in FACTORS.items()}
    return [(f"{factor}={value}",) for factor, values in chosen.items() for value in values]


def _own_job(pair: str, seed: int, *words: str) -> Job:
    common = (f"model={pair}", f"seed={seed}", *OWN[pair])
    return Job(name=_name(*words, f"seed={seed}"), verb="run", words=(*words, *common))


def _paper_job(pair: str, bench: str, method: str, seed: int, *words: str) -> Job:
    """Return one method's job on one benchmark, with the settings that were published for it."""
    of = BENCHES[bench]
    if method == "laten":
        request: tuple[str, ...] = (f"experiment=paper_laten_{of.experiment}",)
    elif method == "seeking":
        request = ("experiment=paper_seeking_laten", *of.seeking)
    else:
        request = (f"experiment=paper_{of.experiment}", f"method={method}")
    common = (f"model={pair}", f"benchmark={of.chat if speaks_chat(pair) else of.plain}", f"seed={seed}")
    name = _name(pair, bench, method, *words, f"seed={seed}")
    return Job(name=name, verb="run", words=(*request, *words, *common))


def _analysis(part: str, pair: str, seed: int, *words: str) -> Job:
    paper = f"benchmark={'paper_chat' if speaks_chat(pair) else 'paper'}"
    rows = OWN.get(pair, (paper,))
    name = _name(part, *words, f"seed={seed}")
    return Job(name=name, verb="analyze", words=(part, *words, f"model={pair}", f"seed={seed}", *rows))


def _similarity(target: str, what: str, pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of a figure of CKA: the paper's method and ours, every seed."""
    jobs = [
        _analysis("cka", pair, seed, f"method={method}")
        for method in ("semalign", "semalign_joint")
        for seed in seeds
    ]
    return Plan(target=target, pair=pair, title=f"{what}, {pair}", jobs=tuple(jobs))


def _name(*words: str) -> str:
    """Return a folder's name for some words of a request."""
    kept = [word.removeprefix("method=") for word in words if not word.startswith("benchmark.")]
    return "_".join(kept).replace("=", "-").replace("/", "-")
