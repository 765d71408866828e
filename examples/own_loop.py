"""Teach with a term of pkt's in a training loop of your own: no config, no Hydra, any two models that share tokens.

    python examples/own_loop.py [TEACHER STUDENT]        # folders or hub ids; the nano pair without them

The teacher's states at a layer are mapped into the student's space by ridge regression; beside its own loss the student
learns their directions.
"""

import sys
from importlib.resources import files

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pkt import blocks

TEXTS = [f"{a}+{b}={a + b}" for a in range(12) for b in range(12)]
STEPS, WEIGHT = 30, 3.0


def main() -> None:
    """Fit the map once, then train."""
    nano = files("pkt") / "assets" / "nano"
    names = sys.argv[1:3] or [str(nano / "teacher"), str(nano / "student")]
    teacher, student = (AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32) for name in names)
    tokenizer = AutoTokenizer.from_pretrained(names[1])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="right")
    ids, mask = batch["input_ids"], batch["attention_mask"]

    looked = {"teacher": blocks.architecture(teacher), "student": blocks.architecture(student)}
    depths = looked["teacher"].depth, looked["student"].depth
    pair = blocks.mappings.Depth(count=1).pairs(*depths)[0]
    kept = mask.bool()
    of_teacher = blocks.hidden_states(looked["teacher"], ids, mask, layers=pair.teacher)[pair.teacher[0]][
        kept
    ]
    of_student = blocks.hidden_states(looked["student"], ids, mask, layers=[pair.student])[pair.student][kept]
    heads = {role: blocks.head_view(model) for role, model in looked.items()}
    targets = blocks.maps.Ridge().fit(**heads, states=(of_teacher, of_student))(of_teacher)
    print(f"teacher layer {pair.teacher[0]} teaches student layer {pair.student}")
    print(f"CKA of the two: {blocks.cka(of_teacher, of_student):.3f}")

    optimiser, labels = torch.optim.AdamW(student.parameters(), lr=1e-3), ids.masked_fill(~kept, -100)
    for step in range(STEPS):
        with blocks.tapped(looked["student"], [pair.student]) as states:
            ce = student(input_ids=ids, attention_mask=mask, labels=labels).loss
            layer = blocks.layer_loss(blocks.terms.Cosine(), states[pair.student][kept], targets)
        optimiser.zero_grad()
        (ce + WEIGHT * layer).backward()
        optimiser.step()
        if step % 10 == 0 or step == STEPS - 1:
            print(f"step {step:3d}  cross-entropy {ce.item():.3f}  layer term {layer.item():.3f}")


if __name__ == "__main__":
    main()
