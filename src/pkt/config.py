"""The typed root of every request; strategies below it are built by `build` from their `_target_`.

Each leaf says which values it may have (`pkt.checks` refuses others) and which stage's key it enters (`pkt.planner`).
Models and rows are in keys as what they are, not as what they are called: by fingerprints of their files and by
digests of their tokens. So the leaves that lead to them are `undecisive`.

    shell -> cli -> Config (this file: types, unknown keys refused) -> pipeline

Nothing here imports torch: help, completion and config errors answer at once. Nodes that a user may set
are plain (not frozen) dataclasses, because OmegaConf writes into them; runtime objects elsewhere are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from omegaconf import MISSING

from pkt.settings import MOST_SEED, always, setting, undecisive
from pkt.verbs import RUNS

UpdateKind = Literal["full", "lora"]
"""What trains in a layer: every parameter, or adapters."""

STAGES = ("extract", "answer", "align", "transfer", "eval", "analyze")
InterfaceName = Literal["mlp", "attention", "residual", "block"]
"""Where in a layer states are read: the values of `pkt.models.taps.Interface`."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""The type of numbers that a model is loaded in."""
INITS = ("load", "prune")  # where a student comes from
SPLITS = ("extract", "align", "train", "validation")
MODELS = ("teacher", "student", "transferred")
BACKENDS = ("hf", "vllm")
PARTS = ("resolution", "cka", "attribution", "maps")


@dataclass(kw_only=True)
class CutConfig:
    """What of the teacher stays in a student with `init=prune`: numbers, or shares (below 1) of what the teacher has.

    What is really kept is part of the student's fingerprint, so none of these enters a key.
    """

    every: int | None = undecisive(None, at_least=1)  # of the layers: 1, 1 + n, 1 + 2n, ...
    layers: int | float | None = undecisive(None, above=0)  # how many layers: those that matter most
    # what a layer matters by: how much it changes the residual stream (residual), what its change means for the answer
    # (attribution), how unlike its states are to those before it (cka); all on the extract rows
    by: str = undecisive("residual", choices=("residual", "attribution", "cka"))
    # the widths, by the size of activations on the extract rows; null: all
    heads: int | float | None = undecisive(None, above=0)  # query heads of a layer, in whole groups
    mlp: int | float | None = undecisive(None, above=0)  # intermediate channels of a layer
    hidden: int | float | None = undecisive(
        None, above=0
    )  # channels of the residual stream, the same everywhere


@dataclass(kw_only=True)
class CheckpointSpec:
    """Where one model of a pair comes from."""

    # hub id "org/name" | local folder | file.gguf | "package:module/path" (in an installed Python package)
    checkpoint: str | None = undecisive(None)
    revision: str | None = undecisive(None)  # hub revision (commit or tag)
    # prune: cut from the teacher, of which stays what `layers` or `cut` say
    init: str = undecisive("load", choices=INITS)
    layers: list[int] | None = undecisive(None)  # init=prune: the teacher's layers that stay, numbered from 1
    cut: CutConfig = field(default_factory=CutConfig)  # init=prune: what stays by rule, importance or width
    # auto: bfloat16 where the device has it, else float32
    dtype: str = undecisive("auto", choices=get_args(Dtype))
    device_map: str | None = undecisive(None)  # accelerate's device_map for a model larger than one device
    # declared module roles for an architecture that pkt does not know
    roles: dict[str, Any] | None = undecisive(factory=dict)


@dataclass(kw_only=True)
class PairConfig:
    """A teacher and a student."""

    name: str = undecisive(MISSING)
    teacher: CheckpointSpec = field(default_factory=CheckpointSpec)
    student: CheckpointSpec = field(default_factory=CheckpointSpec)
    # prompts in the student tokenizer's chat template, in training and in eval (there it is part of the scores' key)
    chat_template: bool = setting(False, decides="eval")
    # what a chat template is told when it asks for the time, so that prompts are the same tomorrow; ISO 8601
    chat_time: str = setting("2024-07-26T12:00:00", decides="eval", when=lambda own, _: own.chat_template)


@dataclass(kw_only=True)
class BenchmarkConfig:
    """The tasks whose train rows feed the transfer, and those whose test rows score it."""

    name: str = undecisive(MISSING)
    # scored: names of files in conf/task, or of lm-eval's tasks
    tasks: list[str] = undecisive(MISSING)
    # trained on: the union of their train rows; null: the tasks that are scored
    train: list[str] | None = undecisive(None)
    # folder of your own lm-eval tasks (YAML), which can then be named
    task_path: str | None = undecisive(None)
    # real benchmarks only: folder (the hub's layout, parquet, JSON, JSONL) or file; null: the hub
    data_dir: str | None = undecisive(None)
    # humaneval only, which has no train set: hub id | folder | file of instructions and code | pystdlib
    code_set: str = undecisive("iamtarun/python_code_instructions_18k_alpaca")


@dataclass(kw_only=True)
class SplitSizes:
    """Rows per task and split; a split with fewer rows is used whole.

    With `labelled`, the extract and align rows are the first of the labelled ones too, so that no method sees labels
    beyond them; validation stays as it is, because it only chooses settings.
    """

    extract: int = undecisive(32, at_least=1)
    align: int = undecisive(128, at_least=1)
    train: int = undecisive(1000, at_least=1)
    validation: int = undecisive(200, at_least=1)
    labelled: int | None = undecisive(None, at_least=1)  # train rows that keep their answers; null: all
    unlabelled: int | None = undecisive(None, at_least=1)  # prompts for the teacher; null: all that there are


@dataclass(kw_only=True)
class DataConfig:
    """How many rows of each split, and the files of `benchmark=custom`."""

    sizes: SplitSizes = field(default_factory=SplitSizes)
    # tokens per row; null: the smaller of the two contexts
    max_length: int | None = undecisive(None, at_least=2)
    # null: rows in the task's own order; an integer draws the rows of each split anew
    shuffle_seed: int | None = undecisive(None, at_most=MOST_SEED)
    # benchmark=custom: rows that are longer than max_length are refused, or left out (leave_out); never test rows
    too_long: str = undecisive("refuse", choices=("refuse", "leave_out"))
    # tasks whose rows the teacher is read on in `extract`; null: the benchmark's own (a control: the wrong task)
    extract_tasks: list[str] | None = undecisive(None)
    # benchmark=custom: a file of rows (.jsonl, .json, .csv, .tsv, .parquet), a folder of save_to_disk, or
    # hub:org/name:config:split; each row prompt and answer, or another shape (docs/data.md)
    train: str | None = undecisive(None)
    # of conversations: the last reply, or all (a row for each reply, with what stands before it)
    supervise: str = undecisive("last", choices=("last", "all"))
    columns: dict[str, str] = undecisive(
        factory=dict
    )  # what files call them: {prompt: question, answer: response}
    # prompts that the teacher answers: train (of the train rows beyond data.sizes.labelled) | a task, by its name (of
    # its train rows) | a file with prompt (or instruction and input), and perhaps id, test
    # and entry_point. null: none
    unlabelled: str | None = undecisive(None)
    # null (each of these three): cut from the train file, which then trains on the remaining rows
    extract: str | None = undecisive(None)
    align: str | None = undecisive(None)
    validation: str | None = undecisive(None)
    test: str | None = undecisive(None)


def _answers_drawn(own: AnswerConfig, _choice: Any) -> bool:
    return own.temperature > 0


def _verified(own: AnswerConfig, _choice: Any) -> bool:
    return own.keep == "verified"


def _confident(own: AnswerConfig, _choice: Any) -> bool:
    return own.keep == "confident"


@dataclass(kw_only=True)
class AnswerConfig:
    """How the teacher answers prompts without labels (`data.unlabelled`, `method=seqkd`), and which answers are kept.

    What is kept is chosen when answers are read, so that another choice does not ask the teacher again.
    """

    samples: int = setting(1, at_least=1)  # answers per prompt; more than one needs a temperature
    temperature: float = setting(0.0, at_least=0)  # 0: greedy; else answers are drawn, by `seed`
    # share of the probability that is kept when drawing
    top_p: float = setting(1.0, above=0, at_most=1, when=_answers_drawn)
    # null: the task's own, or 128. In the key by what it comes to for each prompt
    max_new_tokens: int | None = undecisive(None, at_least=1)
    # confident: those of highest mean log-probability per token | verified: programs that pass the row's test, and of
    # other answers those that most samples agree on. Only `verified` makes `answer` run the tests
    keep: str = setting(
        "all",
        choices=("all", "confident", "verified"),
        decides={"answer": _verified, "align": always, "transfer": always},
    )
    # keep=confident: share of each task's answers that is kept
    share: float = setting(0.5, above=0, at_most=1, decides={"align": _confident, "transfer": _confident})
    # keep=verified, without a test: share of a prompt's samples that have to agree
    agreement: float = setting(0.5, above=0, at_most=1, decides={"align": _verified, "transfer": _verified})
    batch_size: int = undecisive(64, at_least=1)  # answers at a time
    # who runs the teacher: transformers, or vLLM (docs/scale.md)
    backend: str = setting("hf", since="hf", choices=BACKENDS)


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: float | None = setting(3e-4, above=0)  # null: the method's own in lr_by_method, or by what trains
    # learning rates by the method's name, for lr=null; `default` is for all that nothing names
    lr_by_method: dict[str, float] = undecisive(factory=dict, above=0)
    # for methods that lr_by_method does not name: by method.update.kind, full or lora
    lr_by_update: dict[str, float] = undecisive(factory=dict, above=0)
    # 0: no step, the student stays as it is; null: the method's own in epochs_by_method
    epochs: int | None = setting(5, at_least=0, when=lambda own, _: own.steps is None)
    # epochs by the method's name, for epochs=null; `default` is for all that are not named
    epochs_by_method: dict[str, int] = undecisive(factory=dict, at_least=0)
    # optimiser steps, over as many epochs as it takes, so that arms of unlike row counts compare; null: epochs decide
    steps: int | None = setting(None, since=None, at_least=1)
    # rows per optimiser step, and per pass without gradients
    batch_size: int = setting(64, at_least=1, when=lambda own, _: own.tokens_per_batch is None, acts=True)
    # tokens per optimiser step, padding included, in place of batch_size: rows of one length together, as many as fit.
    # null: batch_size decides
    tokens_per_batch: int | None = setting(None, since=None, at_least=1)
    # rows per forward pass; null: those of the step (gradients are accumulated)
    micro_batch_size: int | None = setting(None, at_least=1)
    # keep the states between layers alone, and run each layer again for its gradient: the same numbers, less memory
    checkpointing: bool = undecisive(False)
    weight_decay: float = setting(0.0, at_least=0)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    warmup: float = setting(0.03, at_least=0)  # share of all steps
    schedule: str = setting("cosine", choices=("cosine", "linear", "constant"))
    max_grad_norm: float = setting(1.0, at_least=0)  # 0 switches clipping off
    # epochs between validations; 0: only after the last step
    validate_every: int = setting(1, at_least=0, when=lambda own, _: own.keep == "best", acts=True)
    keep: str = setting("last", choices=("last", "best"))  # best: lowest validation cross-entropy
    save_every: float = undecisive(60.0, at_least=0)  # seconds between resumable snapshots
    # bfloat16: autocast; weights that train stay float32
    precision: str = setting("float32", choices=("float32", "bfloat16"))


@dataclass(kw_only=True)
class CaptureConfig:
    """How what the teacher says reaches the training."""

    # keep: captured once, on disk | live: the teacher runs at every batch | window: it runs ahead of the training, in a
    # thread of its own, and what was read goes
    mode: str = setting("keep", since="keep", choices=("keep", "window", "live"), decides="align")
    # rows of a teacher pass; null: optim.batch_size, and with window or live one, so that what is said of a row does
    # not depend on the rows beside it, to the last bit
    batch_size: int | None = undecisive(None, at_least=1)
    # gigabytes (10^9 bytes) that a stage may keep; more is refused before it begins. null: what the disk has room for
    max_gb: float | None = undecisive(None, above=0)
    shard_mb: int = undecisive(
        256, at_least=1
    )  # megabytes per file; a capture that fits into one may stay in memory
    ahead: int = undecisive(4, at_least=0)  # batches that are read, or computed, before they are needed


@dataclass(kw_only=True)
class MeetingConfig:
    """Where two tokenizers meet: how much of that is used, to find out what it is worth. One vocabulary has none of it.

    Keys have both with what the teacher reads, where they are not as they are here.
    """

    # share of the positions at which both have read the same text; below 1, those that count are drawn by `seed`
    share: float = undecisive(1.0, above=0, at_most=1)
    # what the tokens of both vocabularies stand for; shuffled, by `seed`, is a control: for another one's bytes
    anchors: str = undecisive("own", choices=("own", "shuffled"))


def _drawn(own: EvalConfig, _choice: Any) -> bool:
    return own.temperature > 0


@dataclass(kw_only=True)
class EvalConfig:
    """What lm-eval is asked for."""

    # validation: to choose settings by; its numbers are never the result
    split: str = setting("test", choices=("test", "validation"))
    limit: int | None = setting(None, at_least=1)  # test rows per task; null: all
    batch_size: int = undecisive(64, at_least=1)
    max_new_tokens: int | None = setting(None, at_least=1)  # null: the task's own
    models: list[str] = undecisive(factory=lambda: list(MODELS), choices=MODELS)
    # score this saved folder as "transferred" instead of the pipeline's own
    checkpoint: str | None = undecisive(None)
    timeout: float = setting(5.0, above=0)  # seconds of wall clock per generated program
    # neutral: the model's own generation settings (penalties, beams, forced tokens) are left out; model: they apply.
    # null: neutral for pkt's tasks, model for lm-eval's, as stock has it. By what it changes in a model's answers
    decoding: str | None = undecisive(None, choices=("neutral", "model"))
    # answers per row; more than one needs a temperature, and tasks that generate
    samples: int = setting(1, at_least=1, when=_drawn)
    temperature: float = setting(0.0, at_least=0)  # 0: greedy
    # share of the probability that is kept when drawing
    top_p: float = setting(1.0, above=0, at_most=1, when=_drawn)
    # who runs the model: transformers, or vLLM (docs/scale.md)
    backend: str = setting("hf", since="hf", choices=BACKENDS)


@dataclass(kw_only=True)
class AnalyzeConfig:
    """What `pkt analyze` measures, and on what."""

    # `pkt analyze cka,maps` is short for analyze.parts=[cka,maps]
    parts: list[str] = undecisive(factory=lambda: list(PARTS))
    # cka and attribution read all three, resolution and maps the first two; transferred: runs `transfer` first
    models: list[str] = undecisive(factory=lambda: list(MODELS), choices=MODELS)
    # attribution reads all of them
    interface: str = setting("block", choices=get_args(InterfaceName))
    # answer: positions that predict an answer token
    positions: str = setting("all", choices=("all", "answer"))
    # never the test rows
    split: str = undecisive("validation", choices=SPLITS)
    rows: int = undecisive(64, at_least=1)  # rows per task; fewer where the split has fewer (data.sizes)
    maps: list[str] | None = undecisive(None)  # options of the group `semantics`; null: every one


@dataclass(kw_only=True)
class RowsConfig:
    """What `pkt rows` shows."""

    show: int = undecisive(2, at_least=0)  # rows of each split, the first ones
    splits: list[str] = undecisive(factory=lambda: ["train"], choices=(*SPLITS, "test", "unlabelled"))


@dataclass(kw_only=True)
class PlanConfig:
    """What `pkt plan` takes for granted instead of measuring it."""

    # operations per second of one device, of large products of matrices; null: measured here
    flops: float | None = undecisive(None, above=0)
    memory_gb: float | None = undecisive(None, above=0)  # of one device; null: what is free here
    host_gb: float | None = undecisive(
        None, above=0
    )  # of the machine, beside its GPUs; null: what is free here
    disk_gb: float | None = undecisive(None, above=0)  # free for results; null: what is free here
    processes: int = undecisive(1, at_least=1)  # one per device
    shards: bool = undecisive(False)  # whether they share out the student's layers too while it trains
    # tokens of a row's prompt and answer where rows cannot be counted; null: those of a typical row of the task
    prompt_tokens: int | None = undecisive(None, at_least=1)
    answer_tokens: int | None = undecisive(None, at_least=1)


@dataclass(kw_only=True)
class TrackerConfig:
    """W&B beside the JSONL that is always written."""

    name: str = undecisive("wandb", choices=("wandb", "none"))
    project: str = undecisive("pkt")
    group: str | None = undecisive(None)  # null: the sweep's folder, or the run's
    mode: str = undecisive("offline", choices=("offline", "online", "disabled"))
    tags: list[str] = undecisive(factory=list)  # beside the names of method, pair and benchmark
    # answered rows per task in the tables of examples, equal in every run; 0: none
    examples: int = undecisive(50, at_least=0)
    checkpoint: bool = undecisive(False)  # upload the weights too; else manifests and small JSON files only


@dataclass(kw_only=True)
class Config:
    """One request: `pkt <verb> key=value ...`."""

    verb: str = undecisive(MISSING, choices=tuple(RUNS))
    seed: int = setting(0, at_least=0, at_most=MOST_SEED)
    device: str = undecisive("auto")  # auto | cpu | cuda | cuda:N | mps
    threads: int = undecisive(0, at_least=0)  # CPU threads; 0: torch's own choice
    output_dir: str = undecisive(MISSING)  # store/ and runs/ live here; PKT_OUTPUT_DIR moves it
    # null: store/ in output_dir; another folder: may be read-only, where all that is asked for is there
    store_dir: str | None = undecisive(None)
    # stages to compute anew although the store has them
    refresh: list[str] = undecisive(factory=list, choices=STAGES)
    # modules of packages that are not installed as plugins; what they decide is in the keys by their code
    plugins: list[str] = undecisive(factory=list)
    model: PairConfig = field(default_factory=PairConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: Any = MISSING
    mapping: Any = MISSING
    semantics: Any = MISSING
    objective: Any = MISSING
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    meeting: MeetingConfig = field(default_factory=MeetingConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    analyze: AnalyzeConfig = field(default_factory=AnalyzeConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    rows: RowsConfig = field(default_factory=RowsConfig)
    # more arguments of vllm.LLM where a backend is vllm, such as +vllm.tensor_parallel_size=2
    vllm: dict[str, Any] = undecisive(factory=dict)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass(kw_only=True)
class ReportConfig:
    """One request of `pkt report`."""

    verb: str = MISSING
    runs: Any = MISSING  # folder or list of folders
    against: str | None = None  # method or label of an arm
    pairs: bool = False
    out: str | None = None  # folder, or the page's file
