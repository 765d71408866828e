"""Compare `pkt plan` with what the stages of a run then take: random models from nano's size to SmolLM2's.

    python scripts/plan_check.py /tmp/check                         # all sizes, method=semalign_joint
    python scripts/plan_check.py /tmp/check --sizes nano a -- method=kd data.sizes.train=50
    python scripts/plan_check.py /tmp/check --sizes 7b --device cuda -- optim.batch_size=32      # a GPU of 80 GB

Memory is the highest resident set of a stage (mapped files included), less what a process holds that only loaded and
saved nano's student (`method=identity`); on a GPU, what torch allocates there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NANO = Path(__file__).resolve().parents[1] / "src" / "pkt" / "assets" / "nano"
# (width, layers, channels of the MLP, heads, key-value heads, rows of the embedding) of teacher and student
SIZES = {
    "nano": ((128, 5, 344, 8, 4, 1152), (64, 3, 176, 4, 2, 1152)),
    "a": ((256, 8, 704, 8, 4, 4096), (192, 5, 512, 6, 3, 4096)),
    "b": ((448, 10, 1216, 7, 7, 12000), (320, 6, 832, 5, 5, 12000)),
    "c": ((512, 16, 1408, 8, 2, 32000), (384, 12, 1024, 6, 2, 32000)),
    "1b": ((2048, 16, 8192, 32, 8, 32000), (1024, 12, 4096, 16, 4, 32000)),
    "7b": ((4096, 32, 11008, 32, 32, 32000), (2048, 22, 5632, 32, 4, 32000)),  # Llama 2 7B and TinyLlama 1.1B
    "smollm2": ((576, 30, 1536, 9, 3, 49152), (576, 15, 1536, 9, 3, 49152)),
}
ON_CPU = ("nano", "a", "b", "c", "smollm2")  # what two cores and 24 GB do
WORDS = (
    "benchmark=nano",
    "tracker=none",
    "threads=1",
    "data.sizes.train=50",
    "data.sizes.align=32",
    "optim.epochs=1",
)
WORDS += ("data.sizes.validation=10", "eval.limit=8", "optim.batch_size=8")


def main() -> None:
    """Print a table, one row per size and stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="for models and results; what is there of an earlier call is used"
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(ON_CPU))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: cpu)")
    own, words = parser.parse_known_args()
    more = (f"device={own.device}", *(word for word in words if word != "--"))
    bare = _run(own.folder / "libraries", "nano", own.folder, ("method=identity", more[0]))
    base = bare["transfer"]["peak"]
    print(f"libraries: {base / 1e6:.0f} MB\n")
    columns = (
        "tokens, plan",
        "counted",
        "peak, plan (MB)",
        "measured",
        "growth, plan",
        "measured",
        "disk, plan",
        "written",
        "seconds, plan",
        "taken",
    )
    print(f"| size | stage | {' | '.join(columns)} |")
    print("|---|---|" + "---:|" * len(columns))
    for size in own.sizes:
        for row in _rows(own.folder, size, more, base):
            print(f"| {' | '.join(row)} |", flush=True)


def _rows(folder: Path, size: str, words: tuple[str, ...], base: float) -> Iterator[tuple[str, ...]]:
    outputs = folder / f"{size}-{zlib.crc32(repr(words).encode())}"
    taken = _run(outputs, size, folder, words)
    _pkt("plan", size, folder, outputs, words)
    planned = json.loads(max(outputs.glob("runs/plan/*/plan.json")).read_text(encoding="utf-8"))["stages"]
    for stage, found in taken.items():
        said = planned[stage]
        grown = max((sum(items.values()) for items in said["memory"].values()), default=0.0)
        yield (
            *(size, stage, f"{said['teacher_tokens']:,} + {said['student_tokens']:,}", found["tokens"]),
            *(f"{said['peak'] / 1e6:.0f}", f"{found['peak'] / 1e6:.0f}"),
            *(f"{grown / 1e6:.0f}", f"{(found['peak'] - base) / 1e6:.0f}"),
            *(f"{said['disk'] / 1e6:.2f}", f"{found['written'] / 1e6:.2f}"),
            *(" to ".join(f"{second:.0f}" for second in said["seconds"]), f"{found['seconds']:.0f}"),
        )


def _run(outputs: Path, size: str, folder: Path, words: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Run the stages up to `transfer`, unless they are there, and return what each took."""
    if not list(outputs.glob("store/transfer/*/manifest.json")):
        _pkt("transfer", size, folder, outputs, words)
    found: dict[str, dict[str, Any]] = {}
    before = 0
    for stage in ("extract", "align", "transfer"):
        for manifest in outputs.glob(f"store/{stage}/*/manifest.json"):
            meta = json.loads(manifest.read_text(encoding="utf-8"))["meta"]
            work = meta.get("student_work", {}).get("forward_tokens", 0)
            written = sum(file.stat().st_size for file in manifest.parent.rglob("*") if file.is_file())
            tokens = f"{meta.get('teacher_forward_tokens', 0):,} + {work - before:,}"
            before = work
            found[stage] = {
                "peak": meta["peak_mb"] * 2**20,
                "tokens": tokens,
                "written": written,
                "seconds": meta["seconds"],
            }
    return found


def _pkt(verb: str, size: str, folder: Path, outputs: Path, words: tuple[str, ...]) -> None:
    """Run one command."""
    pair = [f"model.{who}.checkpoint={_model(folder, size, who)}" for who in ("teacher", "student")]
    command = [sys.executable, "-m", "pkt", verb, *WORDS, *pair, *words]
    environment = os.environ | {"PKT_OUTPUT_DIR": str(outputs)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def _model(folder: Path, size: str, who: str) -> Path:
    """Return a random model's folder, with the tokenizer of the nano models; more rows than tokens are padding."""
    target = folder / "models" / f"{size}-{who}"
    if not (target / "config.json").exists():
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        width, layers, mlp, heads, groups, rows = SIZES[size][who == "student"]
        shutil.copytree(NANO / who, target, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama",
            hidden_size=width,
            num_hidden_layers=layers,
            intermediate_size=mlp,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            vocab_size=rows,
            max_position_embeddings=128,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
        if torch.cuda.is_available():  # billions of weights are drawn at once there, in two bytes each
            with torch.device("cuda"):
                AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
        else:
            AutoModelForCausalLM.from_config(config).save_pretrained(target)
    return target


if __name__ == "__main__":
    main()
