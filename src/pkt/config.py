"""The typed root of every request; strategies below it are built by `build` from their `_target_`.

    shell -> cli -> Config (this file: types, unknown keys refused) -> pipeline

Nothing here imports torch: help, completion and config errors answer at once. Nodes that a user may set
are plain (not frozen) dataclasses, because OmegaConf writes into them; runtime objects elsewhere are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass(kw_only=True)
class CheckpointSpec:
    """Where one model of a pair comes from."""

    # hub id "org/name" | local folder | file.gguf | "package:module/path" (in an installed Python package)
    checkpoint: str | None = None
    revision: str | None = None  # hub revision (commit or tag)
    init: str = "load"  # load | prune (cut from the teacher: keep the layers named below)
    layers: list[int] | None = None  # init=prune: the teacher's layers that stay, numbered from 1
    # auto (bfloat16 where the device has it, else float32) | float32 | bfloat16 | float16
    dtype: str = "auto"
    device_map: str | None = None  # accelerate's device_map for a model larger than one device
    roles: dict[str, Any] | None = None  # declared module roles for an architecture that pkt does not know


@dataclass(kw_only=True)
class PairConfig:
    """A teacher and a student."""

    name: str = MISSING
    teacher: CheckpointSpec = field(default_factory=CheckpointSpec)
    student: CheckpointSpec = field(default_factory=CheckpointSpec)
    chat_template: bool = False  # prompts in the student tokenizer's chat template, in training and in eval


@dataclass(kw_only=True)
class BenchmarkConfig:
    """The tasks whose train rows feed the transfer and whose test rows score it."""

    name: str = MISSING
    # names in pkt.data.tasks; a benchmark's train split is the union of its tasks'
    tasks: list[str] = MISSING
    # real suites only: folder (the hub's layout, parquet, JSON, JSONL) or file; null: the hub
    data_dir: str | None = None
    # humaneval only, which has no train set: hub id | folder | file of instructions and code | pystdlib
    code_set: str = "iamtarun/python_code_instructions_18k_alpaca"


@dataclass(kw_only=True)
class SplitSizes:
    """Rows per task and split; a split with fewer rows is used whole."""

    extract: int = 32
    align: int = 128
    train: int = 1000
    validation: int = 200


@dataclass(kw_only=True)
class DataConfig:
    """How many rows of each split, and the files of `benchmark=custom`."""

    sizes: SplitSizes = field(default_factory=SplitSizes)
    max_length: int | None = None  # tokens per row; null: the smaller of the two contexts
    # null: rows in the task's own order; an integer draws the rows of each split anew
    shuffle_seed: int | None = None
    # tasks whose rows the teacher is read on in `extract`; null: the benchmark's own (a control: the wrong task)
    extract_tasks: list[str] | None = None
    train: str | None = None  # JSONL with prompt, answer, id (benchmark=custom only)
    extract: str | None = None  # null: taken from the train file, disjoint from the rows trained on
    align: str | None = None
    validation: str | None = None
    test: str | None = None


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: float | None = 3e-4  # null: the method's own in lr_by_method
    # learning rates by the method's name, for lr=null; `default` is for all that are not named
    lr_by_method: dict[str, float] = field(default_factory=dict)
    epochs: int = 5
    batch_size: int = 64  # rows per optimiser step
    micro_batch_size: int | None = None  # rows per forward pass; null: batch_size (gradients are accumulated)
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    warmup: float = 0.03  # share of all steps
    schedule: str = "cosine"  # cosine | linear | constant
    max_grad_norm: float = 1.0  # 0 switches clipping off
    validate_every: int = 1  # epochs between validations; 0: only after the last step
    keep: str = "last"  # last | best (lowest validation cross-entropy)
    save_every: float = 60.0  # seconds between resumable snapshots
    precision: str = "float32"  # float32 | bfloat16 (autocast; weights that train stay float32)


@dataclass(kw_only=True)
class EvalConfig:
    """What lm-eval is asked for."""

    split: str = "test"  # test | validation (to choose settings by; its numbers are never the result)
    limit: int | None = None  # test rows per task; null: all
    batch_size: int = 64
    max_new_tokens: int | None = None  # null: the task's own
    models: list[str] = field(default_factory=lambda: ["teacher", "student", "transferred"])
    checkpoint: str | None = None  # score this saved folder as "transferred" instead of the pipeline's own
    timeout: float = 5.0  # seconds of wall clock per generated program
    samples: int = 1  # answers per row; more than one needs a temperature, and tasks that generate
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # share of the probability that is kept when drawing


@dataclass(kw_only=True)
class AnalyzeConfig:
    """What `pkt analyze` measures, and on what."""

    # resolution | cka | attribution | maps; `pkt analyze cka,maps` is short for analyze.parts=[cka,maps]
    parts: list[str] = field(default_factory=lambda: ["resolution", "cka", "attribution", "maps"])
    # cka and attribution read all three, resolution and maps the first two; transferred: runs `transfer` first
    models: list[str] = field(default_factory=lambda: ["teacher", "student", "transferred"])
    interface: str = "block"  # mlp | attention | residual | block (attribution: every one of them)
    positions: str = "all"  # all (every token of a row) | answer (those that predict an answer token)
    split: str = "validation"  # extract | align | train | validation; never the test rows
    rows: int = 64  # rows per task; fewer where the split has fewer (data.sizes)
    maps: list[str] | None = None  # options of the group `semantics`; null: every one


@dataclass(kw_only=True)
class TrackerConfig:
    """W&B beside the JSONL that is always written."""

    name: str = "wandb"  # wandb | none
    project: str = "pkt"
    group: str | None = None  # null: the sweep's folder, or the run's
    mode: str = "offline"  # offline | online | disabled
    tags: list[str] = field(default_factory=list)  # beside the names of method, pair and benchmark
    examples: int = 50  # answered rows per task in the tables of examples, equal in every run; 0: none
    checkpoint: bool = False  # upload the weights too; else manifests and small JSON files only


@dataclass(kw_only=True)
class Config:
    """One request: `pkt <verb> key=value ...`."""

    verb: str = MISSING
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    threads: int = 0  # CPU threads; 0: torch's own choice
    output_dir: str = MISSING  # store/ and runs/ live here; PKT_OUTPUT_DIR moves it
    refresh: list[str] = field(default_factory=list)  # stages to compute anew although the store has them
    plugins: list[str] = field(default_factory=list)  # modules of packages that are not installed as plugins
    model: PairConfig = field(default_factory=PairConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: Any = MISSING
    mapping: Any = MISSING
    semantics: Any = MISSING
    objective: Any = MISSING
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    analyze: AnalyzeConfig = field(default_factory=AnalyzeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass(kw_only=True)
class ReportConfig:
    """One request of `pkt report`."""

    verb: str = MISSING
    runs: Any = MISSING  # folder or list of folders
    against: str | None = None  # method or label of an arm
    pairs: bool = False
    out: str | None = None  # folder, or the page's file
