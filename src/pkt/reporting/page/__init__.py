"""One page over any set of runs, and the same numbers as Markdown, LaTeX and JSONL.

folders -> runs -> collect -> Report -> render -> report.html, report.md, report.tex, report.jsonl
"""
