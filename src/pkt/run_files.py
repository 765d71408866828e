"""Names of the files in a run's folder: who writes them and who reads them agree here."""

REQUEST = "config.yaml"  # the request, interpolations filled in
SCORES = "scores.json"  # of `pkt run` and `pkt eval`; an artifact of scores has a file of this name too
ANALYSIS = "analysis.json"  # of `pkt analyze`
METRICS = "metrics.jsonl"  # every step, table and figure
