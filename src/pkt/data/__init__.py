"""Rows: reading, checking, tokenising, batching, and cutting into splits."""
