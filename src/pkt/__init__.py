"""pkt: parametric knowledge transfer between language models of different sizes.

    result = pkt.run("model=nano", "method=sft")     the verbs of the command line: run, extract, align, transfer,
    result.scores, result.table, result.checkpoint   evaluate, analyze, plan; sweep for many jobs
    pkt.blocks                                       maps, layer pairs, terms, attribution, CKA for loops of your own

Names are loaded when they are first used: importing pkt imports neither torch nor Hydra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pkt import blocks as blocks
    from pkt.api import align, analyze, evaluate, extract, plan, run, sweep, transfer
    from pkt.errors import PktError, RequestError
    from pkt.results import Result, Sweep

__version__ = "0.1.0"
__all__ = [
    "PktError",
    "RequestError",
    "Result",
    "Sweep",
    "align",
    "analyze",
    "blocks",
    "evaluate",
    "extract",
    "plan",
    "run",
    "sweep",
    "transfer",
]
_HOMES = {"PktError": "errors", "RequestError": "errors", "Result": "results", "Sweep": "results"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pkt' has no attribute {name!r}")
    if name == "blocks":
        return import_module("pkt.blocks")
    return getattr(import_module(f"pkt.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
