"""Scores: the adapter to lm-eval, standard errors, and paired statistics."""
