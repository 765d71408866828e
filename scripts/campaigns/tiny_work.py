"""Work for the campaigns on state: a tiny pair on disk, requests on it, and the same kinds of state in milliseconds.

`pair` -> folders of two tiny models and rows        `request` -> words for `pkt <verb>`
`miniature` -> a store, sums, snapshots and a card, as a request makes them, in some fifty milliseconds
`in_child` -> runs something in a process of its own, which may be killed
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pkt import saving
from pkt.attribution.sensitivity import sensitivity
from pkt.config import OptimConfig
from pkt.data.batching import Batch, collate
from pkt.data.encoding import Encoded
from pkt.durable import sealed, write_atomically
from pkt.errors import PktError
from pkt.manifest import MANIFEST, content_key
from pkt.models.architecture import Architecture
from pkt.planner import Step
from pkt.processes import ALONE
from pkt.remembered import recall, remember
from pkt.stages.session import Job, Session
from pkt.store import Store
from pkt.training.loop import Trainer

REFUSED, UNFORESEEN = 1, 3  # exit codes of a child
VOLATILE = (MANIFEST, "README.md", "config.yaml")  # what tells the time, or where something lies
_ROWS = Encoded(input_ids=[[3, 5, 7, 9, 2], [4, 6, 8, 2], [5, 3, 9, 1, 2]], prompt_lengths=[2, 2, 3])


def llama(depth: int, width: int, *, vocab: int = 259, seed: int = 0) -> LlamaForCausalLM:
    """Return a random float32 Llama of this depth and width."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).float().eval()


def pair(root: Path) -> None:
    """Leave a teacher, a student and rows in a folder."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=names, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    for name, model in (("teacher", llama(3, 16, seed=1)), ("student", llama(2, 8, seed=2))):
        model.save_pretrained(root / name)
        fast.save_pretrained(root / name)
    rows = [{"id": str(i), "prompt": f"{i}+1=", "answer": f" {i + 1}"} for i in range(24)]
    for name, some in (("train", rows[:16]), ("test", rows[16:])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")


def request(root: Path) -> list[str]:
    """Return the words that make any verb run on the pair in a second."""
    return [
        f"model.teacher.checkpoint={root / 'teacher'}",
        f"model.student.checkpoint={root / 'student'}",
        "model.teacher.dtype=float32",
        "model.student.dtype=float32",
        "benchmark=custom",
        f"data.train={root / 'train.jsonl'}",
        f"data.test={root / 'test.jsonl'}",
        *(
            f"data.sizes.{split}={count}"
            for split, count in zip(("extract", "align", "train"), (2, 2, 8), strict=True)
        ),
        "data.sizes.validation=2",
        "method=seeking",
        "method.update.rank=2",
        "optim.epochs=2",
        "optim.batch_size=4",
        "optim.save_every=0",
        "eval.models=[transferred]",
        "eval.limit=2",
        "eval.max_new_tokens=2",
        "tracker=none",
        "threads=1",
    ]


def command(verb: str, root: Path) -> None:
    """Run a verb on the pair as the command line does.

    Raises:
        PktError: it failed; the child's output has its message.
    """
    from pkt.cli import main

    if code := main([verb, *request(root), f"output_dir={root / 'outputs'}"]):
        raise PktError(f"exit code {code}")


def digest(outputs: Path) -> str:
    """Return a digest of all results in the store of some outputs, without what differs between equal runs."""
    found = hashlib.sha256()
    for manifest in sorted(outputs.glob(f"store/*/*/{MANIFEST}")):
        for file in sorted(path for path in manifest.parent.rglob("*") if path.is_file()):
            if file.name not in VOLATILE and ".corrupt-" not in str(file):
                found.update(f"{file.relative_to(outputs)}\n".encode() + file.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Child:
    """How a process ended.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        said: what it printed.
    """

    code: int
    said: str


def in_child(work: Callable[[], object], said: Path, *, kill_after: float | None = None) -> Child:
    """Run something in a forked process and wait for it.

    Args:
        work: a `PktError` out of it ends the process with `REFUSED`, any other exception with `UNFORESEEN`.
        said: file that takes its output.
        kill_after: seconds until it gets SIGKILL.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 on threads, of which there are none busy
        child = os.fork()
    if child == 0:
        _be_child(work, said)
    if kill_after is not None:
        with contextlib.suppress(ProcessLookupError):
            _wait(child, kill_after)
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return Child(
        code=os.waitstatus_to_exitcode(status), said=said.read_text(encoding="utf-8", errors="replace")
    )


def _wait(child: int, seconds: float) -> None:
    """Wait until a process has ended, without collecting it, or some seconds have gone."""
    handle = os.pidfd_open(child)
    try:
        select.select([handle], [], [], seconds)
    finally:
        os.close(handle)


def _be_child(work: Callable[[], object], said: Path) -> None:
    code = 0
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        work()
    except PktError as error:
        print(f"pkt: {error}", file=sys.stderr)
        code = REFUSED
    except BaseException:
        traceback.print_exc()
        code = UNFORESEEN
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def empty(folder: Path) -> Path:
    """Return a folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """What the first stage of the miniature leaves."""

    scores: tuple[float, ...]
    matrix: torch.Tensor


def miniature(outputs: Path) -> None:
    """Make a result of two stages, with all kinds of state on the way: sums, snapshots, artifacts, digests, a card."""
    session = Session(
        bench=cast(
            Any,
            SimpleNamespace(
                config=SimpleNamespace(refresh=[]), device=torch.device("cpu"), gpu=None, processes=ALONE
            ),
        ),
        method=cast(Any, None),
        store=Store(outputs / "store"),
        run_dir=outputs / "runs",
        tracker=cast(Any, None),
        command="miniature",
        provenance=dict,
        resolved_config="",
    )
    digest = outputs / "store" / "rows" / f"{'0' * 16}.json"
    if recall(digest, "the rows are tokenised again") is None:
        remember(digest, {"digest": "1" * 16})
    session.obtain(_step("extract"), _extract)
    trained = session.obtain(_step("transfer"), _transfer)
    session.store.replace(trained, "model/README.md", "a card with scores\n")
    try:
        session.run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(session.run_dir / "scores.json", sealed({"stages": session.reports}))
    except OSError as error:
        raise PktError(f"cannot write the run folder: {error}") from error


def _step(stage: str) -> Step:
    ingredients = {"stage": stage, "what": "miniature"}
    return Step(name=stage, stage=stage, ingredients=ingredients, key=content_key(ingredients))


def _extract(job: Job) -> Mapping[str, Any]:
    model = llama(1, 8, vocab=12)
    name = "model.layers.0.mlp.up_proj.weight"
    sums = sensitivity(
        Architecture.of(model),
        lambda i: collate(_ROWS, [i]),
        3,
        keep={name},
        folder=job.scratch,
        save_every=0,
    )
    result = _Sums(scores=sums.layer_scores(Architecture.of(model)), matrix=sums.matrix(name))
    saving.save(result, job.folder / "sums.json")
    return {}


def _transfer(job: Job) -> Mapping[str, Any]:
    taken = saving.load(_Sums, job.session.results["extract"].path / "sums.json")
    model = llama(1, 8, vocab=12)
    parameters = dict(model.named_parameters())
    trainer = Trainer(
        loss=_Loss(model=model, penalty=taken.matrix),
        parameters=parameters,
        plan=[[[0, 1], [2]], [[1, 2]]],
        collate=lambda rows: collate(_ROWS, rows),
        optim=OptimConfig(lr=0.01, epochs=2, batch_size=2, save_every=0.0),
        snapshots=job.scratch,
    )
    trainer.fit()
    model.save_pretrained(str(job.folder / "model"))
    (job.folder / "model" / "README.md").write_text("a card\n", encoding="utf-8")
    return {}


@dataclass(frozen=True, kw_only=True)
class _Loss:
    """Cross-entropy, and a term in the matrix that the first stage left."""

    model: nn.Module
    penalty: torch.Tensor

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"loss": int(batch.supervised.sum())}

    def weights(self, values: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return {"loss": 1.0}

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        places = batch.supervised.nonzero(as_tuple=True)
        labels = batch.input_ids[places[0], places[1] + 1]
        entropy = nn.functional.cross_entropy(logits[places], labels, reduction="sum")
        weight = cast(Any, self.model).model.layers[0].mlp.up_proj.weight
        return {"loss": entropy + (self.penalty * weight).sum()}
