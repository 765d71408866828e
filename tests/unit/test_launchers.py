"""What pkt puts into Hydra's registries goes with a job to the process of a launcher (joblib, submitit)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra.core.singleton import Singleton

from pkt.config_files import FileConfigSource
from pkt.searchpath import register

TAKEN = """
import sys, cloudpickle
from hydra.core.singleton import Singleton
Singleton.set_state(cloudpickle.load(sys.stdin.buffer))  # as a launcher's process begins
from hydra._internal.sources_registry import SourcesRegistry
print(*(f"{scheme} {source.__module__}" for scheme, source in SourcesRegistry.instance().types.items()), sep="\\n")
"""


def test_the_registries_are_the_same_in_another_process():
    cloudpickle = pytest.importorskip("cloudpickle", reason="comes with the extra launchers")
    register()
    state = cloudpickle.dumps(Singleton.get_state())
    done = subprocess.run([sys.executable, "-c", TAKEN], input=state, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told = dict(line.split() for line in done.stdout.decode().splitlines())
    assert told["file"] == FileConfigSource.__module__
    assert "pkt.plugin_options" in told.values()
