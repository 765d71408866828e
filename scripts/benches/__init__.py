"""What pkt does, beside the textbook's way of doing it: the same numbers, and what each way costs."""
