"""Which version of a Python package is installed."""

from __future__ import annotations


def version_of(package: str) -> str | None:
    """Return a distribution's version; None: it is not installed."""
    from importlib.metadata import (  # not at import: it takes a share of `pkt list`
        PackageNotFoundError,
        version,
    )

    try:
        return version(package)
    except PackageNotFoundError:
        return None
