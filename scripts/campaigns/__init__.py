"""Reliability campaigns: many trials of one kind each; what `scripts/reliability.py` runs."""
