"""The real benchmarks: MMLU, GSM8K, HumanEval, MBPP."""

from __future__ import annotations

from pkt.data.suites.gsm8k import GSM8K
from pkt.data.suites.humaneval import HUMANEVAL
from pkt.data.suites.mbpp import MBPP
from pkt.data.suites.mmlu import MMLU
from pkt.data.suites.suite import Suite

SUITES: dict[str, Suite] = {suite.name: suite for suite in (MMLU, GSM8K, HUMANEVAL, MBPP)}

__all__ = ["SUITES", "Suite"]
