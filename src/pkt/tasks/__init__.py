"""Benchmarks: one file owns a task's rows, prompt, grading, score and version."""
