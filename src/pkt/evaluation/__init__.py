"""Scores: the lm-eval adapter, its tasks, the sandbox for generated programs, standard errors."""
