"""MMLU (Hendrycks et al., ICLR 2021): questions with four options, from 57 subjects.

A transfer trains on `auxiliary_train` (other exams, without subjects). `extract` and `align` read the models on `dev`
(five rows per subject), `validation` is the published split. Rows of `test` are scored by the likeliest letter.

Two things differ from lm-eval. The sentence that names the subject is part of the prompt; under a chat template lm-eval
would make it a system message, which some templates refuse and training does not have. And letters keep their leading
space under a chat template, as in training.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pkt.data.upstream import Doc, Upstream
from pkt.errors import PktError, nearest
from pkt.evaluation.parts import Part, Rows
from pkt.tasks.base import repeated
from pkt.tasks.grading import Choice
from pkt.tasks.suite import Suite, upstream_docs

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


@dataclass(frozen=True, kw_only=True)
class Mmlu(Suite):
    """The benchmark: one of lm-eval's tasks per subject."""

    version = 1
    gradings = (Choice(),)
    upstream = Upstream(
        title="MMLU",
        hub="cais/mmlu",
        config="all",
        name="mmlu",
        columns=("question", "choices", "answer"),
        lists=("choices",),
        numbers=("answer",),
        more=("subject",),
        subsets=SUBJECTS,
        also=(("auxiliary_train", "train"),),
    )
    stock = ("mmlu/default", "mmlu_{subject}")
    train = ("auxiliary_train",)
    own = MappingProxyType({"extract": "dev", "align": "dev", "validation": "validation"})

    def prompt(self, doc: Doc) -> str:
        """Return the subject's sentence, the question and the lettered options."""
        subject = str(doc.get("subject") or "").replace("_", " ")
        about = f" about {subject}" if subject else ""
        options = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, doc["choices"], strict=True))
        intro = f"The following are multiple choice questions (with answers){about}.\n\n"
        return f"{intro}{str(doc['question']).strip()}\n{options}Answer:"

    def answer(self, doc: Doc) -> str:
        """Return the right letter; published rows number the options from 0."""
        return f" {LETTERS[int(doc['answer'])]}"

    def question(self, doc: Doc) -> str:
        """Return question and options, without the subject."""
        return "\n".join([str(doc["question"]), *map(str, doc["choices"])])

    def parts(self, rows: Rows, *, limit: int | None = None, samples: int = 1) -> list[Part]:
        """See `Scorable`: a part per subject; a limit takes rows from all subjects in turn.

        Raises:
            PktError: a row whose subject is none of the 57.
        """
        seen: Counter[str] = Counter()
        turns: list[tuple[int, str, Doc]] = []
        for doc in upstream_docs(rows):
            subject = _subject(doc)
            turns.append((seen[subject], subject, doc))
            seen[subject] += 1
        chosen: dict[str, list[Doc]] = {}
        for _, subject, doc in sorted(turns, key=lambda entry: entry[:2])[:limit]:
            chosen.setdefault(subject, []).append(doc)
        folder, name = self.stock
        return [
            self.part(folder, name.format(subject=subject), repeated(docs, samples))
            for subject, docs in chosen.items()
        ]

    def adapt(self, task: Any) -> None:
        """See `Suite`."""
        task.set_config("doc_to_text", f"{task.config.description}{task.config.doc_to_text}")
        task.set_config("description", "")
        delimiter = task.config.target_delimiter
        task.set_config("doc_to_choice", [f"{delimiter}{choice}" for choice in task.config.doc_to_choice])
        task.set_config("target_delimiter", "")


def _subject(doc: Doc) -> str:
    subject = str(doc.get("subject"))
    if subject not in SUBJECTS:
        raise PktError(
            f"row {doc['id']} has subject {subject!r}{nearest(subject, SUBJECTS)}; a row of MMLU that is scored names "
            "one of its 57 subjects (abstract_algebra, ...), or lies in a folder of that name."
        )
    return subject
