"""MMLU (Hendrycks et al., ICLR 2021): four options, 57 subjects.

Trained on `auxiliary_train` (other exams, no subject); `extract` and `align` read the models on `dev` (five rows per
subject), validation is upstream's. Scored on `test` by the likeliest letter. The sentence with the subject is part of
the prompt: under a chat template lm-eval would make it a system message, which some templates refuse and training
does not have.
"""

from __future__ import annotations

from pkt.data.suites.suite import Suite
from pkt.data.suites.upstream import Doc, Upstream

LETTERS = "ABCD"


def prompt(doc: Doc) -> str:
    """Return the subject's sentence, the question and the lettered options."""
    subject = str(doc.get("subject") or "").replace("_", " ")
    about = f" about {subject}" if subject else ""
    options = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, doc["choices"], strict=True))
    intro = f"The following are multiple choice questions (with answers){about}.\n\n"
    return f"{intro}{str(doc['question']).strip()}\n{options}Answer:"


def answer(doc: Doc) -> str:
    """Return the right letter; upstream numbers the options from 0."""
    return f" {LETTERS[int(doc['answer'])]}"


def question(doc: Doc) -> str:
    """Return question and options, without the subject."""
    return "\n".join([str(doc["question"]), *map(str, doc["choices"])])


MMLU = Suite(
    name="mmlu",
    upstream=Upstream(
        title="MMLU",
        hub="cais/mmlu",
        config="all",
        name="mmlu",
        columns=("question", "choices", "answer"),
        subsets=True,
        also=(("auxiliary_train", "train"),),
    ),
    prompt=prompt,
    answer=answer,
    question=question,
    train=("auxiliary_train",),
    own={"extract": ("dev",), "align": ("dev",), "validation": ("validation",)},
)
