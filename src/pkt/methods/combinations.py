"""Which strategies and methods go together: the rule that decides it, and the tables made with the rule.

needs of the terms, what the method provides, layer pairs -> refusal -> the reason, or None
methods x options of mapping, semantics, objective -> refusal -> a table per group, and the reasons
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pkt.errors import RequestError
from pkt.mapping import LayerPair, OfCut
from pkt.mapping import Mapping as LayerMapping
from pkt.methods.base import Choice, Method, Provides
from pkt.objectives import Chunks, Head, Need, Outputs, States, TeacherAnswers
from pkt.semantics import trains

GROUPS = ("mapping", "semantics", "objective")
GOES, IGNORED = "✓", "–"
Pairs = tuple[LayerPair, ...] | None


def check(method: Method, choice: Choice, pairs: Pairs = None) -> None:
    """Refuse a method and strategies that do not go together.

    Raises:
        RequestError: see `refusal`.
    """
    if reason := refusal(method, choice, pairs):
        raise RequestError(f"method={method.name} does not go with this request: {reason}.")


def known_pairs(mapping: LayerMapping, teacher_depth: int, student_depth: int) -> Pairs:
    """Return the layer pairs if depths alone decide them; None where the mapping has to know more of the models."""
    if mapping.needs_scores or mapping.needs_similarity or isinstance(mapping, OfCut):
        return None
    return mapping.pairs(teacher_depth, student_depth)


def refusal(method: Method, choice: Choice, pairs: Pairs = None) -> str | None:
    """Return why a method and strategies do not go together; None where they do.

    Args:
        method: what it provides and refuses decides.
        choice: the strategies beside it; the needs of the objective's terms decide.
        pairs: the layer pairs; None: not known yet.
    """
    if reason := method.refusal(choice):
        return reason
    if "objective" not in method.uses:
        return None
    found = (_unmet(who, need, method, choice, pairs) for who, need in _asked(method, choice))
    return next((reason for reason in found if reason), None)


def _asked(method: Method, choice: Choice) -> Iterator[tuple[str, Need]]:
    for name, term in choice.objective.terms.items():
        for need in term.needs:
            yield f"the term '{name}' ({type(term).__name__})", need
    if method.provides.states is not None:
        yield "it", method.provides.asks


def _unmet(who: str, need: Need, method: Method, choice: Choice, pairs: Pairs) -> str | None:
    provides = method.provides
    if isinstance(need, Outputs | Chunks | TeacherAnswers) and not provides.outputs:
        return f"it uses no teacher, so {who} has no target: use objective=ce (or method=kd)"
    if isinstance(need, Head) and need.frozen and provides.trains_head:
        return f"it trains the head, which {who} takes for frozen: use objective=ce"
    if isinstance(need, States):
        semantics = choice.semantics if "semantics" in method.uses else None
        return _unmet_states(who, need, provides, semantics) or _several_teachers(who, need, pairs)
    return None


def _unmet_states(who: str, need: States, provides: Provides, semantics: Any) -> str | None:
    if provides.states is None:
        instead = "objective=kd" if provides.outputs else "objective=ce"
        return (
            f"it reads no teacher states, so {who} has no target: use {instead} (or method=semalign_joint, "
            "hidden_kd)"
        )
    if need.interfaces and provides.interface not in need.interfaces:
        return (
            f"{who} takes no other states than those of {' or '.join(need.interfaces)}, because {need.because}: "
            f"set method.interface={need.interfaces[0]} (got {provides.interface})"
        )
    if need.student_space and provides.states == "teacher":
        return (
            f"{who} wants targets in the student's space, because {need.because}, and here they are raw teacher "
            "states: use method=semalign_fisher, or a term that compares in any space (cosine, mean_square, geometry)"
        )
    if need.constant and trains(semantics):
        return (
            f"{who} gives its targets no gradient, so that semantics.trainable=true would train nothing: use a term "
            "through which a map learns (cosine, mean_square), or trainable=false"
        )
    if need.student_space and semantics is not None and not semantics.reads_out:
        return (
            f"{who} wants targets that the head reads, because {need.because}, and semantics=input maps into the "
            "space of the input embeddings: use semantics=cosine, logit_lstsq, ridge or procrustes"
        )
    return None


def _several_teachers(who: str, need: States, pairs: Pairs) -> str | None:
    mixed = [pair for pair in pairs or () if len(pair.teacher) > 1]
    if not (need.single_teacher and mixed):
        return None
    layers = "+".join(map(str, mixed[0].teacher))
    return (
        f"{who} needs exactly one teacher layer per student layer, because {need.because}, and student layer "
        f"{mixed[0].student} gets teacher layers {layers}: use mapping=monotone, depth or cka"
    )


@dataclass(kw_only=True)
class Combinations:
    """Tables of which strategies go with which method.

    Attributes:
        methods: each with the strategies that its preset chooses.
        options: group -> option -> strategy.
        depths: numbers of layers of teacher and student, for mappings that need nothing else.
        reasons: why combinations are refused; the tables refer to them by number, from 1.
    """

    methods: Mapping[str, tuple[Method, Choice]]
    options: Mapping[str, Mapping[str, Any]]
    depths: tuple[int, int]
    reasons: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return one table per group, and the numbered reasons."""
        tables = [line for group in self.options for line in ("", f"## `{group}`", "", *self._table(group))]
        demands = [
            f"| `{name}` | {method.demands or 'any pair'} |" for name, (method, _) in self.methods.items()
        ]
        models = ["", "## Models", "", "| | what the models have to be like |", "|---|---|", *demands]
        reasons = [f"{number}. {reason}" for number, reason in enumerate(self.reasons, start=1)]
        return "\n".join([*tables, *models, "", "## Reasons", "", *reasons, ""])

    def _table(self, group: str) -> list[str]:
        names = list(self.options[group])
        lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "|---|" + ":---:|" * len(names)]
        for method in self.methods:
            cells = [self.cell(method, group, name) for name in names]
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
        return lines

    def cell(self, method: str, group: str, option: str) -> str:
        """Return ✓ (goes), – (not read) or the number of the reason why not.

        Args:
            method: whose preset is changed in one place.
            group: the place.
            option: what is put there.
        """
        built, preset = self.methods[method]
        if group not in built.uses:
            return IGNORED
        choice = replace(preset, **{group: self.options[group][option]})
        reason = refusal(built, choice, known_pairs(choice.mapping, *self.depths))
        if reason is None:
            return GOES
        if reason not in self.reasons:
            self.reasons.append(reason)
        return str(self.reasons.index(reason) + 1)
