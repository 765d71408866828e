"""The paper's tables and figures as targets: `python -m pkt.paper table1 --pair nano`, or `make table1`.

targets (which requests) -> jobs (each one `pkt` process, several at once) -> results (tables beside published ones)
"""
