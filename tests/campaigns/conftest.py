"""Campaigns run in forked children: where pytest's own process has threads, Python 3.12 warns of that."""

from __future__ import annotations

import tempfile

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_temporary_folder(tmp_path, monkeypatch):
    """Let what a campaign leaves behind to be looked at go when pytest's folders do; other users cannot enter those."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
