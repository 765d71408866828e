"""Generated programs, each run in a confined process of its own; a leaf that knows nothing of tasks or scores."""

from pkt.sandbox.programs import LAYERS, Child, Outcome, run_programs

__all__ = ["LAYERS", "Child", "Outcome", "run_programs"]
