"""Tasks, prompts, splits and batching."""
