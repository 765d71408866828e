"""`pkt env`: what a bug report needs, as text or JSON; nothing is composed and nothing is written.

A part that cannot be told says why in its place: a broken installation is what this is for.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pkt import __version__, console, plugins, secrets
from pkt.errors import PktError, RequestError, first_line
from pkt.packages import version_of
from pkt.searchpath import builtin_conf_dir, found_conf_dir, named_conf_dirs

_GB = 2**30
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "f16c",
    "asimd",
    "bf16",
)  # of a processor
_PREFIXES = (
    "PKT_",
    "HF_",
    "HUGGING_FACE_",
    "TRANSFORMERS_",
    "WANDB_",
    "HYDRA_",
    "OMP_",
    "MKL_",
    "CUDA_",
    "PYTORCH_",
)
_NAMES = ("TMPDIR", "XDG_CACHE_HOME", "PYTHONPATH", "LANG", "LC_ALL", "WORLD_SIZE", "LOCAL_RANK")


def answer(words: Sequence[str]) -> None:
    """Print the report.

    Args:
        words: the command line after `env`: nothing, or `--json`.

    Raises:
        RequestError: any other word.
    """
    if unknown := [word for word in words if word != "--json"]:
        raise RequestError(f"env: got '{unknown[0]}'; it takes --json, or nothing")
    found = {name: _told(part) for name, part in PARTS.items()}
    console.say(secrets.without(json.dumps(found, indent=1) if "--json" in words else _text(found)))


def _told(part: Callable[[], Any]) -> Any:
    """Return a part of the report, or why there is none."""
    try:
        return part()
    except Exception as error:  # whatever a broken package raises
        return f"cannot be told: {type(error).__name__}: {first_line(error)}"


def _text(found: dict[str, Any]) -> str:
    lines = []
    for name, part in found.items():
        rows = part if isinstance(part, dict) else {"": part}
        shown = [f"  {key:<26}{_line(value)}".rstrip() for key, value in rows.items()] or ["  none"]
        lines += [name, *shown]
    return "\n".join(lines)


def _line(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _pkt() -> dict[str, Any]:
    from pkt.surroundings import checkout_commit  # imports torch

    return {
        "version": __version__,
        "commit": checkout_commit(Path(__file__).resolve().parents[2]),
        "installed in": str(Path(__file__).resolve().parent),
        "python": f"{platform.python_version()} ({sys.executable})",
    }


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processors": f"{os.cpu_count()}, {len(os.sched_getaffinity(0))} of them for this process"
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "processor flags": _flags(),
        "memory GB": _memory(),
    }


def _flags() -> list[str]:
    """Return which of the flags that speed depends on the processor has (Linux)."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return [flag for flag in _FLAGS if flag in line.split()]


def _memory() -> str:
    """Return total, available and the control group's limit, as far as this system tells."""
    file, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not file.is_file():
        return "not told by this system"
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    sizes = {words[0]: int(words[1]) * 1024 / _GB for words in lines}
    most = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    capped = "" if most == "max" else f", limit {int(most) / _GB:.1f}"
    return f"{sizes['MemTotal:']:.1f}, {sizes['MemAvailable:']:.1f} available{capped}"


def _torch() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "version": torch.__version__,
        "built for CUDA": torch.version.cuda,
        "devices": gpus or ["cpu", *(["mps"] if torch.backends.mps.is_available() else [])],
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 on this device": torch.cuda.is_bf16_supported() if gpus else _bfloat16(),
    }


def _bfloat16() -> str:
    """Say how the processor computes bfloat16, as training asks before it takes it."""
    import torch

    from pkt.models.precision import too_slow

    return too_slow(torch.bfloat16, torch.device("cpu")) or "as fast as float32"


def _packages() -> dict[str, str]:
    """Return the versions of what pkt requires, extras included."""
    required = importlib.metadata.requires("pkt-llm") or []
    names = dict.fromkeys(re.split(r"[\s<>=!~;\[(]", line)[0] for line in required)
    return {name: version_of(name) or "not installed" for name in names if name != "pkt-llm"}


def _places() -> dict[str, str]:
    places = {
        "output_dir": Path(os.environ.get("PKT_OUTPUT_DIR") or "outputs"),
        "temporary files": Path(tempfile.gettempdir()),
        "models of the hub": Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"),
    }
    return {name: _place(path.expanduser().absolute()) for name, path in places.items()}


def _place(path: Path) -> str:
    """Return a folder with its disk's free space, and whether it can be written."""
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())
    writable = "" if os.access(there, os.W_OK) else ", cannot be written"
    return f"{path} ({shutil.disk_usage(there).free / _GB:.1f} GB free{writable})"


def _configs() -> list[str]:
    found = found_conf_dir()
    folders = [*named_conf_dirs(), builtin_conf_dir(), *([found] if found else [])]
    return [str(folder) if folder.is_dir() else f"{folder} (not there)" for folder in folders]


def _plugins() -> dict[str, str]:
    """Return every installed plugin with its version, and whether it can be imported."""
    found = {}
    for plugin in plugins.installed():
        try:
            plugins.load(plugin.package, "broken")
            found[plugin.name] = f"{plugin.package} {plugin.version}"
        except PktError as error:
            found[plugin.name] = f"{plugin.package} {plugin.version}, {error}"
    return found


def _sandbox() -> str:
    """Return the layers that confine generated programs here, from a child that has started."""
    from pkt.sandbox.programs import Child

    with Child() as child:
        outcome = child.run("assert 1 + 1 == 2", timeout=10.0)
        return f"{', '.join(sorted(child.layers))}; a right program: {outcome}"


def _variables() -> dict[str, str]:
    """Return the variables that pkt and its libraries read, without what is secret in them."""
    named = {name: text for name, text in os.environ.items() if name.startswith(_PREFIXES) or name in _NAMES}
    return {
        name: "(set, not shown)" if secrets.telling(name) else secrets.without(text)
        for name, text in sorted(named.items())
    }


PARTS: dict[str, Callable[[], Any]] = {
    "pkt": _pkt,
    "machine": _machine,
    "torch": _torch,
    "packages": _packages,
    "places": _places,
    "config folders": _configs,
    "plugins": _plugins,
    "sandbox": _sandbox,
    "variables": _variables,
}
