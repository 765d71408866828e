"""The one training loop, the states that it reads instead of recomputing, and what trains.

capture.py    models + rows -> RowStates (teacher targets in the student's space, frozen-prefix states)
states.py     RowStates: ragged per-row states, in memory or mapped from a file
trainable.py  which parameters train (LoRA or full), and how they end up in plain weights
forward.py    one forward pass of the student from the first trained layer upwards: what each term sees, and its sums
loop.py       AdamW over loss terms: resume, validation, non-finite guard
snapshot.py   resumable state as safetensors + JSON
"""
