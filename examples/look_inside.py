"""Look at two models before you train anything: which layers matter for a task, and which are alike.

python examples/look_inside.py [TEACHER STUDENT]     # folders or hub ids; the nano pair without them
"""

import sys
from importlib.resources import files

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pkt import blocks

PROMPT, ANSWER = "7+5=", "12"


def main() -> None:
    """Print the score of each teacher layer, and CKA of every pair of layers."""
    nano = files("pkt") / "assets" / "nano"
    names = sys.argv[1:3] or [str(nano / "teacher"), str(nano / "student")]
    teacher, student = (
        blocks.architecture(AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)) for name in names
    )
    tokenizer = AutoTokenizer.from_pretrained(names[0])
    prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (PROMPT, ANSWER))
    ids = torch.tensor([prompt + answer])
    supervised = torch.zeros_like(ids, dtype=torch.bool)
    supervised[0, len(prompt) - 1 : -1] = True  # positions whose next token is one of the answer's

    scores = blocks.layer_scores(teacher, ids, supervised, interface="mlp")
    for layer, score in enumerate(scores.tolist(), start=1):
        print(f"teacher layer {layer}: gradient x activation {score:.4f}")
    (critical,) = blocks.mappings.Critical().pairs(teacher.depth, student.depth, scores=scores.tolist())
    print(f"v1 would pair teacher layer {critical.teacher[0]} with student layer {critical.student}")

    text = "12+30=42 7*6=42 " * 8
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    sides = [blocks.hidden_states(model, ids) for model in (teacher, student)]
    for layer, states in sides[0].items():
        alike = (blocks.cka(states[0], own[0]) for own in sides[1].values())
        print(f"teacher layer {layer} and student layers: CKA", *(f"{value:.2f}" for value in alike))


if __name__ == "__main__":
    main()
