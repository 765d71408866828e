"""What `pkt plan` says of a request, asked in a process of its own with outputs that go again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def planned(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the lines that are printed, warnings last, and plan.json.

    Args:
        words: of the request.

    Raises:
        subprocess.CalledProcessError: it was refused.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("PKT_")}
    with tempfile.TemporaryDirectory() as outputs:
        done = subprocess.run(
            [sys.executable, "-m", "pkt", "plan", "tracker=none", *words],
            env=own | {"PKT_OUTPUT_DIR": outputs, "COLUMNS": "300"},
            check=True,
            capture_output=True,
            text=True,
        )
        (file,) = Path(outputs).glob("runs/plan/*/plan.json")
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return [*done.stdout.splitlines(), *done.stderr.splitlines()], content
