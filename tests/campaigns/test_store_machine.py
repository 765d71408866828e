"""The store under two processes, prune, kills and damage: whatever happens, what is read is right."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pkt import inventory, store_commands
from pkt.manifest import content_key
from pkt.store import Store

KEYS = tuple(content_key({"number": number}) for number in range(3))
PROCESSES = st.sampled_from((0, 1))
NUMBERS = st.sampled_from(range(len(KEYS)))
WORKER = """
import os, sys
from pathlib import Path
from pkt.manifest import content_key
from pkt.store import Store

store = Store(Path(sys.argv[1]))
for line in sys.stdin:
    what, number = line.split()
    key = content_key({"number": int(number)})
    found = None if what == "refresh" else store.peek("transfer", key)
    with store.lock("transfer", key):
        found = found or (None if what == "refresh" else store.read("transfer", key))
        if found is None:
            (store.partial("transfer", key) / "step").write_text("1")
            with store.write("transfer", key, ingredients={"number": int(number)}) as draft:
                (draft.folder / "model").mkdir()
                (draft.folder / "model" / "weights.json").write_text(f"[{number}]" * 50)
                (draft.folder / "card.md").write_text("new")
                if what == "die":
                    os._exit(9)
            found = store.read("transfer", key)
    if what == "card":
        store.replace(found, "card.md", f"card of {number}")
    print((found.path / "model" / "weights.json").read_text(), flush=True)
"""


class StoreMachine(RuleBasedStateMachine):
    """Two processes obtain artifacts; between them files are damaged, processes die, and things are pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="pkt-machine-")
        self.root = Path(self.folder.name) / "store"
        self.workers: list[subprocess.Popen[str] | None] = [None, None]

    def teardown(self) -> None:
        for worker in filter(None, self.workers):
            worker.communicate(timeout=60)
        self.folder.cleanup()

    def _ask(self, process: int, what: str, number: int) -> str:
        worker = self.workers[process]
        if worker is None:
            command, pipe = [sys.executable, "-c", WORKER, str(self.root)], subprocess.PIPE
            worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
            self.workers[process] = worker
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(f"{what} {number}\n")
        worker.stdin.flush()
        answer = worker.stdout.readline().strip()
        if not answer:  # it died
            worker.communicate(timeout=60)
            self.workers[process] = None
        return answer

    @rule(process=PROCESSES, number=NUMBERS, what=st.sampled_from(("obtain", "obtain", "refresh", "card")))
    def obtain(self, process: int, number: int, what: str) -> None:
        assert self._ask(process, what, number) == f"[{number}]" * 50

    @rule(process=PROCESSES, number=NUMBERS)
    def die(self, process: int, number: int) -> None:
        assert self._ask(process, "die", number) in ("", f"[{number}]" * 50)  # what is there is not made

    @rule(data=st.data(), way=st.sampled_from(("flip", "cut", "delete", "swap")))
    def damage(self, data: st.DataObject, way: str) -> None:
        files = sorted(
            path for path in self.root.rglob("*") if path.is_file() and path.suffix in (".json", ".md")
        )
        if not files:
            return
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        if way == "swap":
            file.write_bytes(data.draw(st.sampled_from(files)).read_bytes())
        elif way == "delete":
            file.unlink()
        elif way == "cut":
            file.write_bytes(content[: len(content) // 2])
        elif content:
            bit = data.draw(st.integers(0, 8 * len(content) - 1))
            content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)

    @rule(age=st.sampled_from(("0", "7d")), number=st.none() | NUMBERS)
    def prune(self, age: str, number: int | None) -> None:
        words = ["prune", f"store_dir={self.root}", "--older-than", age, "--yes"]
        there = self.root.is_dir()
        keys = [one.key for one in inventory.artifacts(self.root)] if there else []
        named = [] if number is None or KEYS[number] not in keys else [KEYS[number]]
        assert store_commands.main([*words, *named]) == (0 if there else 2)
        if there and age == "0" and not named:
            assert inventory.leftovers(self.root) == []
        if there:  # a checkpoint goes only where it is named
            assert [one.key for one in inventory.artifacts(self.root)] == [
                key for key in keys if key not in named
            ]

    @invariant()
    def what_is_read_is_right(self) -> None:
        for number, key in enumerate(KEYS):
            found = Store(self.root).peek("transfer", key)
            if found is not None:
                assert (found.path / "model" / "weights.json").read_text() == f"[{number}]" * 50
                assert (found.path / "card.md").read_text() in ("new", f"card of {number}")


@pytest.mark.slow
def test_two_processes_prune_and_damage():
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
