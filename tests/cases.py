"""Which cases of a test the default suite takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], by_default: Callable[..., bool]) -> list[Any]:
    """Return cases of which the default tests take those that `by_default` says, and the slow ones the others."""
    each = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=[] if by_default(*case) else pytest.mark.slow) for case in each]
