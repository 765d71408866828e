"""pkt: parametric knowledge transfer between language models of different sizes."""

__version__ = "0.1.0"
