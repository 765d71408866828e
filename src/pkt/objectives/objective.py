"""The named terms of a transfer, as a config node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pkt.late import Tensor
from pkt.objectives.needs import Chunks, Outputs, Sequences, States, TeacherAnswers
from pkt.objectives.term import BaseTerm, Term


@dataclass(frozen=True, kw_only=True)
class Objective:
    """L = sum of weight * term.

    Attributes:
        terms: by the name that metrics (``loss_<name>``) and overrides call them.
        balance: ``auto`` rescales each layer term, at every optimiser step, to the size of the weighted output
            terms together, before its own weight; ``none`` leaves it.

    Raises:
        ValueError: no term, something that is no term, ``auto`` with nothing to compare, or terms that ask for
            different outputs of the teacher.
    """

    terms: Mapping[str, Term]
    balance: Literal["none", "auto"] = "none"

    def __post_init__(self) -> None:
        for name, term in self.terms.items():
            if not isinstance(term, Term):
                raise ValueError(f"terms.{name} is no term: {term!r}; choose an option of the group `term`")
        if not self.terms:
            raise ValueError("terms is empty, which leaves nothing to train on; choose at least one term")
        if self.balance == "auto" and not (self.layer_terms and self.output_terms):
            raise ValueError(
                "balance=auto compares layer terms with output terms, and one kind is missing; got "
                f"{', '.join(self.terms)}. Set balance=none, or add a term"
            )
        asked = set(self._outputs())
        if len({outputs.ordered for outputs in asked}) > 1:
            raise ValueError(
                "one term reads the teacher's tokens and another its sorted probabilities (uld), and only one kind of "
                "the two is kept: leave one term out"
            )
        if len(asked) > 1:
            raise ValueError(
                f"terms ask for different outputs of the teacher ({'; '.join(map(str, asked))}): give them one "
                "temperature, top_k and teacher"
            )
        if len(ends := {need.ends for need in self._chunks()}) > 1:
            raise ValueError(
                f"terms ask for chunks with different ends ({', '.join(sorted(ends))}): choose one"
            )

    @property
    def layer_terms(self) -> dict[str, Term]:
        """The terms that compare states."""
        return {name: term for name, term in self.terms.items() if needed_states(term) is not None}

    @property
    def output_terms(self) -> dict[str, Term]:
        """The others, which read the student's final states."""
        return {name: term for name, term in self.terms.items() if needed_states(term) is None}

    @property
    def positions(self) -> Literal["answer", "all"]:
        """Where targets are captured: the union of what the layer terms cover."""
        asked = {states.positions for term in self.terms.values() if (states := needed_states(term))}
        return "all" if "all" in asked else "answer"

    @property
    def together(self) -> str | None:
        """Name of a term that compares all rows of an optimiser step with one another; None where there is none."""
        asked = (
            name
            for name, term in self.terms.items()
            if any(isinstance(need, Sequences) and need.together for need in term.needs)
        )
        return next(asked, None)

    @property
    def outputs(self) -> Outputs | None:
        """What the terms read of the teacher's next-token distributions."""
        return next(iter(self._outputs()), None)

    @property
    def chunks(self) -> Chunks | None:
        """Which chunks of the answers' text the terms compare."""
        return next(iter(self._chunks()), None)

    @property
    def reads_outputs(self) -> bool:
        """Whether a term reads what leaves the teacher's last layer."""
        return self.outputs is not None or self.chunks is not None or self.attends

    @property
    def attends(self) -> bool:
        """Whether a term attends to the teacher's answers."""
        return any(isinstance(need, TeacherAnswers) for term in self.terms.values() for need in term.needs)

    @property
    def live(self) -> bool:
        """Whether the teacher runs at every step for what terms read of its outputs."""
        return self.outputs is not None and self.outputs.live

    @property
    def kept(self) -> dict[str, Any]:
        """What of the teacher the terms want to have been kept, for the keys of results."""
        outputs = None if self.outputs is None or self.live else asdict(self.outputs)
        if outputs is not None and not outputs["ordered"]:
            del outputs["ordered"]  # as before there was a choice
        chunks = {} if self.chunks is None or self.live else {"chunks": asdict(self.chunks)}
        attended = {"attended": True} if self.attends and not self.live else {}
        return {
            "positions": self.positions if self.layer_terms else None,
            "outputs": outputs,
            **chunks,
            **attended,
        }

    def _chunks(self) -> list[Chunks]:
        return [need for term in self.terms.values() for need in term.needs if isinstance(need, Chunks)]

    def _outputs(self) -> list[Outputs]:
        return [need for term in self.terms.values() for need in term.needs if isinstance(need, Outputs)]

    def scheduled(self, progress: float) -> dict[str, float]:
        """Return the weights that are not constant, at some point of the training (see `BaseTerm.weight_at`)."""
        decaying = {
            name: term
            for name, term in self.terms.items()
            if isinstance(term, BaseTerm) and term.decay != "constant"
        }
        return {name: term.weight_at(progress) for name, term in decaying.items()}

    def weights(self, values: Mapping[str, Tensor], progress: float = 0.0) -> dict[str, float]:
        """Return the weight of each term.

        Args:
            values: the terms' means over the optimiser step, read with ``balance=auto`` only.
            progress: where the training is, from 0 to 1.
        """
        weights = {name: term.weight for name, term in self.terms.items()} | self.scheduled(progress)
        compared = [weights[name] * values[name] for name in self.output_terms if name in values]
        if self.balance == "auto" and compared:
            output = float(sum(compared[1:], compared[0]))
            for name in self.layer_terms.keys() & values.keys():
                if (value := float(values[name])) > 0:
                    weights[name] *= output / value
        return weights


def needed_states(term: Term) -> States | None:
    """Return what a term needs of paired states; None where it is an output term."""
    return next((need for need in term.needs if isinstance(need, States)), None)
