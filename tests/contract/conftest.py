"""The pairs on disk and the shared runs, one set for all of pytest's workers."""

from __future__ import annotations

import gc
import os

import pytest
from filelock import FileLock
from world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Tiny pairs of every family."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = World(root=base / "contract")
    made.root.mkdir(exist_ok=True)
    with FileLock(made.root / "made.lock"):
        if not (made.root / "train.jsonl").exists():
            made.make()
    # pkt frees models by a collection after each stage: over all imported modules that is most of a tiny run
    gc.collect()
    gc.freeze()
    return made
