"""Hostile programs in the sandbox: none counts as right, none reaches anything outside, none outlives its time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from campaigns import hostile, party
from pkt.sandbox import LAYERS, Child, Outcome

PARTS = 4  # at a time: most of the time is waiting
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks at /proc; kernel layers are Linux's"
)
SETUPS = {
    "all": LAYERS,
    "no-namespaces": tuple(layer for layer in LAYERS if layer != "namespaces"),
    "hook": ("audit", "interpreter"),
}


@pytest.fixture
def target() -> Iterator[party.Outside]:
    with party.outside() as found:
        yield found


def tried(names: Sequence[str], target: party.Outside, layers: Sequence[str]) -> list[str]:
    """Run programs one after another in one sandbox, and return what went wrong."""
    with Child(layers=layers) as child:
        return [f"{name}: {fault}" for name in names for fault in party.faults(child, name, target)]


@pytest.mark.parametrize("setup", ["some", *(pytest.param(name, marks=pytest.mark.slow) for name in SETUPS)])
def test_hostile_programs(setup: str, target: party.Outside, capfd: pytest.CaptureFixture[str]):
    names = list(hostile.PROGRAMS)
    if setup == "some":  # without those that wait for their time to end
        names = [name for name in names if "endless" not in name and name not in hostile.RESOURCES][::3]
    with ThreadPoolExecutor(PARTS) as pool:
        wrong = list(
            pool.map(lambda part: tried(names[part::PARTS], target, SETUPS.get(setup, LAYERS)), range(PARTS))
        )
    assert [line for part in wrong for line in part] == []
    assert capfd.readouterr() == ("", "")


def test_the_corpus_is_a_threat(target: party.Outside):
    """Some of these programs, run without a sandbox, do what they try: the corpus is not harmless by mistake."""
    harmless = []
    for name in (
        "write", "read_a_secret", "tcp", "unix_socket", "shell", "read_the_password_file", "by_a_folders_handle",
        "datagram_by_a_pair", "processors_of_a_neighbour", "memory_that_runs",
    ):  # fmt: skip
        source = target.fill(hostile.PROGRAMS[name]).replace("assert False", "pass")
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, cwd=target.folder, check=False
        )
        harmless += [name] if done.returncode else []
    assert harmless == []
    assert target.heard() == 3


@pytest.mark.parametrize("gone", ["audit", "interpreter"])
def test_one_layer_inside_the_interpreter_is_enough_against_most(gone: str):
    names = ("extension_under_another_name", "types_of_ctypes", "search_the_heap", "code_by_marshal", "jump")
    with Child(layers=[layer for layer in LAYERS if layer != gone]) as child:
        outcomes = {name: child.run(hostile.PROGRAMS[name], 5) for name in names}
    assert Outcome.PASS not in outcomes.values(), outcomes


def test_what_asserts_cannot_see_counts_as_right():
    with Child() as child:
        assert {name: child.run(source, 5) for name, source in hostile.ADMITTED.items()} == dict.fromkeys(
            hostile.ADMITTED, Outcome.PASS
        )


def test_a_missing_layer_is_told_once(caplog: pytest.LogCaptureFixture):
    from pkt.sandbox import programs

    programs._tell.cache_clear()
    for _ in range(2):
        with Child(layers=("landlock", "user", "audit", "interpreter")) as child:
            child.run("pass", 10)
            assert set(child.layers) <= {"landlock", "user"}
    (line,) = [record.getMessage() for record in caplog.records if record.name == "pkt.sandbox.programs"]
    assert "without namespaces, seccomp" in line
