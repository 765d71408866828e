"""How the built-in nano models are made: text, tokenizer, training, card (`scripts/train_nano.py` runs it all)."""
