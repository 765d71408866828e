"""Python's library from memory, for programs whose user may not read it (Python below a home that is closed to others).

Root reads the sources before it gives up its rights. Modules of native code are loaded before (inside.py).

Standard library only, loaded by the sandbox's child.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "site-packages",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "tkinter",
    "__pycache__",
}


class Library(Loader):
    """A finder and loader of the modules below a folder; it holds their sources."""

    def __init__(self, folder: str) -> None:
        """Read the sources of all modules (about 0.1 s)."""
        self.sources: dict[str, tuple[str, str]] = {}
        for place, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if name not in SKIPPED]
            for name in files:
                if name.endswith(".py"):
                    path = f"{place}/{name}"
                    dotted = path[len(folder) + 1 : -3].removesuffix("/__init__").replace("/", ".")
                    with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                        self.sources[dotted] = (path, file.read())

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module; None if it is not one of the library's."""
        if name not in self.sources:
            return None
        origin = self.sources[name][0]
        spec = ModuleSpec(name, self, origin=origin)
        if origin.endswith("/__init__.py"):
            spec.submodule_search_locations = [origin.removesuffix("/__init__.py")]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's source."""
        path, source = self.sources[module.__name__]
        module.__file__ = path
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))


def provide() -> None:
    """Find modules in memory that cannot be found on the disk."""
    sys.meta_path.append(Library(sysconfig.get_path("stdlib")))


def on_disk() -> bool:
    """Return whether this process may read the library."""
    return os.access(f"{sysconfig.get_path('stdlib')}/colorsys.py", os.R_OK)
