"""Say how states of layers spread, where answers are predicted: `python scripts/spread.py SCORES MODEL [MODEL ...]`.

    SCORES (scores.json of an evaluation: prompts and targets) ── MODEL ──> states of each layer ──> a row per model

Two numbers per layer, of states that are scaled to length 1: the share that varies (1 - |mean|^2; 0 where all are the
same), and in how many directions it does (the exponential of the entropy of the covariance's eigenvalues: the
effective rank, Roy and Vetterli, EUSIPCO 2007). A map that is trained along could make both small: the layer term would
not mind.

Limitations: the last layer's states are those after the final norm, as transformers gives them; a prompt's tokens are
taken to be the first of those of prompt and target together, as they are in the nano tasks.

Shape suffixes: N positions, D width.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PER_TASK = 60  # rows


def states(model: str, rows: list[tuple[str, str]]) -> list[torch.Tensor]:
    """Return the states (N, D) of each layer at the positions that predict the targets."""
    net = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    found: list[list[torch.Tensor]] = []
    for prompt, target in rows:
        first = len(tokenizer(prompt)["input_ids"]) - 1
        with torch.no_grad():
            hidden = net(
                **tokenizer(prompt + target, return_tensors="pt"), output_hidden_states=True
            ).hidden_states
        found.append([layer[0, first:-1] for layer in hidden[1:]])
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


def spread(states_ND: torch.Tensor) -> tuple[float, float]:
    """Return the share that varies, and the number of directions in which it does."""
    unit_ND = states_ND.double() / states_ND.double().norm(dim=-1, keepdim=True)
    mean_D = unit_ND.mean(0)
    share_D = torch.linalg.svdvals(unit_ND - mean_D).square()
    share_D = share_D[share_D > 0] / share_D.sum()
    return 1 - float(mean_D.square().sum()), float(torch.exp(-(share_D * share_D.log()).sum()))


def main(words: list[str]) -> int:
    """Print a line per model."""
    if len(words) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    scores, *models = words
    samples = json.loads(Path(scores).read_text(encoding="utf-8"))["samples"]
    rows = [(one["prompt"], str(one["target"])) for task in samples.values() for one in task[:PER_TASK]]
    for model in models:
        told = ", ".join("{:.2f} in {:.1f}".format(*spread(layer)) for layer in states(model, rows))
        print(f"{model}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
