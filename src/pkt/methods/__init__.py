"""Methods: one published method, or one of ours, per file."""
