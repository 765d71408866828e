"""The paper's tables and figures as targets: `make table1`, or `python scripts/reproduce.py table1 --pair nano`.

targets (which requests) -> jobs (each one `pkt` process, several at once) -> results (tables beside published ones)
"""
