"""The only code that touches transformers' modules: load, pair, architecture, taps, surgery."""
