"""The real benchmarks: MMLU, GSM8K, HumanEval, MBPP; the latter two also in a form for chat models."""

from __future__ import annotations

from pkt.data.suites.gsm8k import GSM8K
from pkt.data.suites.humaneval import HUMANEVAL, HUMANEVAL_INSTRUCT
from pkt.data.suites.mbpp import MBPP, MBPP_INSTRUCT
from pkt.data.suites.mmlu import MMLU
from pkt.data.suites.suite import Suite

_ALL = (MMLU, GSM8K, HUMANEVAL, MBPP, HUMANEVAL_INSTRUCT, MBPP_INSTRUCT)
SUITES: dict[str, Suite] = {suite.name: suite for suite in _ALL}

__all__ = ["SUITES", "Suite"]
