"""Train a student on rows of your own, with and without a teacher, and read the scores.

    python examples/own_rows.py [key=value ...]

Put your own pair in the place of nano: model.teacher.checkpoint=... model.student.checkpoint=...
The built-in teacher does not know these rows, and plain fine-tuning wins: that is what the comparison is for.
"""

import json
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pkt

ROWS = [
    {
        "question": f"Problem: Ada has {a} coins and gets {b} more. How many coins now?\nResult:",
        "answer": f" {a + b}",
    }
    for a in range(5, 35)
    for b in range(2, 12)
]


def main() -> None:
    """Write rows, train twice, and print what came out."""
    random.Random(0).shuffle(ROWS)
    with TemporaryDirectory() as folder:
        for name, rows in (("train", ROWS[:250]), ("test", ROWS[250:])):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            Path(folder, f"{name}.jsonl").write_text(lines, encoding="utf-8")
        words = [
            "model=nano", "benchmark=custom", f"data.train={folder}/train.jsonl", f"data.test={folder}/test.jsonl",
            "data.columns={prompt: question}", "optim=nano", "tracker=none", *sys.argv[1:],
        ]  # fmt: skip
        for method in ("sft", "semalign_joint"):
            result = pkt.run(f"method={method}", *words)
            score = result.scores["transferred"]["custom"]
            print(f"{method}: {score['metric']} {score['value']:.3f} ± {score['stderr']:.3f}")
            print(f"  a model for from_pretrained: {result.checkpoint}")


if __name__ == "__main__":
    main()
