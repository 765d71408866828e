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
SUBJECTS = (
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge",
    "college_biology", "college_chemistry", "college_computer_science", "college_mathematics",
    "college_medicine", "college_physics", "computer_security", "conceptual_physics", "econometrics",
    "electrical_engineering", "elementary_mathematics", "formal_logic", "global_facts",
    "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics",
    "high_school_physics", "high_school_psychology", "high_school_statistics", "high_school_us_history",
    "high_school_world_history", "human_aging", "human_sexuality", "international_law", "jurisprudence",
    "logical_fallacies", "machine_learning", "management", "marketing", "medical_genetics",
    "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition", "philosophy", "prehistory",
    "professional_accounting", "professional_law", "professional_medicine", "professional_psychology",
    "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
)  # fmt: skip


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
        subsets=SUBJECTS,
        also=(("auxiliary_train", "train"),),
    ),
    prompt=prompt,
    answer=answer,
    question=question,
    train=("auxiliary_train",),
    own={"extract": ("dev",), "align": ("dev",), "validation": ("validation",)},
)
