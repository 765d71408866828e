"""One run's surroundings: seeds, device, threads, cost of a stage, and where its numbers came from."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pkt import __version__, secrets
from pkt.config import Config
from pkt.errors import RequestError
from pkt.late import torch
from pkt.packages import version_of

_RECORDED = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "peft",
    "lm-eval",
    "accelerate",
    "numpy",
    "hydra-core",
)
_DECIDES = (
    "--",
    "src",
    "conf",
)  # what a result depends on; docs/results, which targets rewrite, is left out
_MB = 2**20


def prepare(config: Config) -> torch.device:
    """Set torch's seeds and threads, and return the device to run on.

    Args:
        config: the request.

    Raises:
        RequestError: the device is not there.
    """
    device = resolve_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return device


def seed_rows(seed: int) -> None:
    """Seed Python and NumPy, by which other people's tasks may draw rows.

    Args:
        seed: not negative; NumPy takes its lowest 32 bits.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)


def device_type(name: str) -> str:
    """Return the type of the device of a name, see `resolve_device`; torch is imported where there may be a GPU."""
    return "cpu" if name == "cpu" or (name == "auto" and not _may_have_cuda()) else resolve_device(name).type


def _may_have_cuda() -> bool:
    """Return False where torch is built for the CPU alone, as its version file says, or there is no driver."""
    found = find_spec("torch")
    file = Path(str(found.origin)).with_name("version.py") if found else Path()
    built = dict(re.findall(r"^(cuda|hip)\b[^=]*= *(.+)$", file.read_text(), re.M)) if file.is_file() else {}
    if built.get("hip") != "None" or "cuda" not in built:
        return True
    if built["cuda"] == "None":
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return sys.platform != "linux"
    return True


def resolve_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: `auto` (CUDA where it is, else CPU), `cpu`, `cuda` (torchrun: the rank's own), `cuda:N`, `mps`.

    Raises:
        RequestError: the machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise RequestError(f"device={name}: torch sees {seen} CUDA devices; use device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RequestError("device=mps: torch sees no Metal device; use device=auto or device=cpu")
    return device


@dataclass(frozen=True, kw_only=True)
class Stopwatch:
    """Measures seconds and peak memory from `start` on; `stop` may be called more than once."""

    gpu: torch.device | None
    started: float

    @classmethod
    def start(cls, gpu: torch.device | None) -> Stopwatch:
        """Start measuring; peaks before this moment no longer count (where the system can forget them)."""
        if gpu is not None:
            torch.cuda.reset_peak_memory_stats(gpu)
        else:
            _forget_peak()
        return cls(gpu=gpu, started=time.perf_counter())

    def stop(self) -> dict[str, float]:
        """Return the ``seconds`` of wall clock since the start, and ``peak_mb``, the highest use of memory.

        Memory is the GPU's where one is used, else the resident set.
        """
        if self.gpu is not None:
            torch.cuda.synchronize(self.gpu)
            peak = torch.cuda.max_memory_allocated(self.gpu) / _MB
        else:
            peak = _peak_mb()
        return {"seconds": round(time.perf_counter() - self.started, 3), "peak_mb": round(peak, 1)}


def _forget_peak() -> None:
    """Reset the peak of the resident set (Linux; elsewhere the peak is that of the whole process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


def command_line() -> str:
    """Return a command that asks for this job again (in a sweep: this job alone)."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return _hidden(["pkt", *sys.argv[1:]])
    settings = HydraConfig.get()
    verb, primary = str(settings.job.name), str(settings.job.config_name)
    named = [] if primary == verb else ["-cn", primary]
    return _hidden(["pkt", verb, *named, *settings.overrides.task])


def choices() -> dict[str, str]:
    """Return the file that this request took from each group of pkt's configuration."""
    from hydra.core.hydra_config import HydraConfig

    found = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return {
        str(group): str(name)
        for group, name in found.items()
        if name is not None and not str(group).startswith("hydra/")
    }


def asked() -> dict[str, str]:
    """Return the settings and groups that this request's words name, by their place in the config, as words."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    found = OverridesParser.create().parse_overrides(words)
    named = ((one.package or one.key_or_group, str(one.input_line)) for one in found if not one.is_delete())
    return {key.replace("/", "."): secrets.hide_word(word).lstrip("+") for key, word in named}


def _hidden(words: Sequence[str]) -> str:
    return shlex.join(secrets.hide_word(word) for word in words).replace(
        f"'{secrets.HIDDEN}'", secrets.HIDDEN
    )


def provenance(started: datetime | None = None) -> dict[str, Any]:
    """Return versions, platform and start time (None: now): what one needs to read a number later."""
    return {
        "pkt": __version__,
        "git": checkout_commit(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in _RECORDED},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "started": (started or datetime.now(UTC)).isoformat(timespec="seconds"),
    }


def checkout_commit(root: Path) -> str | None:
    """Return the commit of a checkout, `+` where code or configs are changed; None where there is no checkout.

    Args:
        root: the folder that holds `src` and `conf`.
    """
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no", *_DECIDES) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
