"""Names of the files in a run's folder: who writes them and who reads them agree here."""

REQUEST = "config.yaml"  # the request, interpolations filled in
SCORES = "scores.json"  # of `pkt run` and `pkt eval`; an artifact of scores has a file of this name too
RUN_STAGES = (
    "stages.json"  # every stage of the run: computed or reused, seconds, memory, key; and where the store is
)
ANALYSIS = "analysis.json"  # of `pkt analyze`
METRICS = "metrics.jsonl"  # every step, table and figure
STEPS = "steps.json"  # in a result of `transfer`: the metrics of every optimiser step
TABLE = "table.md"  # what the terminal showed: of a run, or over the jobs of a sweep
PAGE = "report.html"  # beside it report.md, report.tex and report.jsonl
PLAN = "plan.json"  # of `pkt plan`
ROWS = "rows.json"  # of `pkt rows`
ADAPTER = "adapter"  # in a result of `transfer`: the PEFT adapter, where update.kind=lora
CHECKPOINT = "model"  # in a result of `transfer`: the student with the update merged into its weights
