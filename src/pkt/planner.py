"""From a request to its plan: every stage once, with everything that its result depends on, and its key.

    strategies, config, fingerprints of models, digests of rows ── Planner ──> Step, Step, ... ── pipeline ──> results

A step's ingredients are all that decides its result: its settings (`pkt.settings` says which), the keys of the results
that it takes, the models and rows that it reads, whose code it is. Its key is their hash. So all keys are known before
anything runs, nothing is hashed twice, and a result that is missing can say why: its ingredients differ from those of
the nearest result that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from pkt.data.chat import VERSION as CHAT
from pkt.data.encoding import VERSION as ENCODING
from pkt.data.rows import fingerprint
from pkt.evaluation.decoding import MODEL, effective
from pkt.evaluation.engines import deciding_arguments
from pkt.manifest import content_key
from pkt.methods.base import Choice, Method, Reads, choice_of
from pkt.methods.readings import answer_ends, digests, prompts_digest
from pkt.methods.workbench import Workbench
from pkt.plugins import origins
from pkt.settings import deciding, plain, target_of
from pkt.tasks.prompts import Prompt
from pkt.training.trainable import Update

VERSIONS = {"extract": 1, "answer": 3, "align": 1, "transfer": 1, "eval": 3, "analyze": 4}
"""Of the code of each stage: another number makes older results count as missing."""
READ_FIRST = {"mapping": "extract", "semantics": "align", "objective": "transfer"}
"""The stage that reads a group of strategies first, where the method has that stage."""
ANSWER = "answer"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One result of a request.

    Attributes:
        name: how the console calls it, such as ``transfer`` or ``eval teacher``.
        stage: folder in the store.
        of: the role or part, where a stage has several results.
        takes: names of the steps whose results it reads.
        ingredients: everything that decides the result, JSON-like.
        key: their hash.
    """

    name: str
    stage: str
    of: str = ""
    takes: tuple[str, ...] = ()
    ingredients: Mapping[str, Any]
    key: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a request, each after those that it takes."""

    steps: Mapping[str, Step]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps.values())

    def __getitem__(self, name: str) -> Step:
        return self.steps[name]

    def __contains__(self, name: object) -> bool:
        return name in self.steps

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting that decides what the transferred student is, by its key on the command line."""
        found: dict[str, Any] = {}
        for step in self:
            if step.stage in ("extract", "answer", "align", "transfer"):
                found |= step.ingredients["settings"]
        return found


@dataclass(kw_only=True)
class Planner:
    """Makes the steps of a request, in order.

    Attributes:
        bench: models, rows and strategies; asked for fingerprints and digests, never for weights.
        method: what is run.
    """

    bench: Workbench
    method: Method
    _steps: dict[str, Step] = field(default_factory=dict, init=False)

    @property
    def plan(self) -> Plan:
        """What was planned so far."""
        return Plan(steps=dict(self._steps))

    @cached_property
    def choice(self) -> Choice:
        """The strategies beside the method."""
        return choice_of(self.bench)

    def chain(self, last: str) -> str:
        """Plan the method's stages up to one of them, and return its name."""
        for stage in (own := (*self.method.results, "transfer")):
            if stage not in self._steps:
                before = (*self._answers(stage), *own[: own.index(stage)][-1:])
                self._add(stage, takes=before, **self._method_stage(stage, own))
            if stage == last:
                break
        return last

    def _answers(self, stage: str) -> tuple[str, ...]:
        """Plan the teacher's answers where a stage reads them; they are the same for every method that does."""
        config = self.bench.config
        if not self._is_taught(stage):
            return ()
        if ANSWER not in self._steps:
            own, found = config.answer, answer_ends(self.bench)
            ends: dict[str, Any] = {"ends": found} if found else {}
            settings = deciding(own, ANSWER, self.choice, path=ANSWER, first=ANSWER)
            settings |= {"seed": config.seed} if own.temperature > 0 else {}
            settings |= {"eval.timeout": config.eval.timeout} if own.keep == "verified" else {}
            settings |= self._engine(own.backend)
            self._add(
                ANSWER,
                settings=settings,
                models={"teacher": self.bench.identity("teacher")},
                rows={"unlabelled": prompts_digest(self.bench)},
                prompts=_asked(self.bench.prompts, tested=own.keep == "verified"),
                encoding=ENCODING,
                chat=CHAT if config.model.chat_template else None,
                **ends,
            )
        return (ANSWER,)

    def _is_taught(self, stage: str) -> bool:
        unlabelled = self.bench.config.data.unlabelled is not None
        return "train" in self.method.reads(stage, self.choice).rows and self.method.is_taught(unlabelled)

    def _method_stage(self, stage: str, own: Sequence[str]) -> dict[str, Any]:
        reads = self.method.reads(stage, self.choice)
        taught, alone = self._is_taught(stage), self.bench.config.data.unlabelled is None
        left = {"train"} if taught and alone else set()  # the answers are there in place of the labels
        return {
            "by": target_of(next(cls for cls in type(self.method).__mro__ if stage in vars(cls))),
            "settings": self._settings(stage, own, reads) | (self._choosing(stage) if taught else {}),
            "models": {role: self.bench.identity(role) for role in reads.models},
            **digests(self.bench, reads.models, [split for split in reads.rows if split not in left]),
            **({"keeps": self.bench.objective.kept} if reads.keeps else {}),
            **(_trains(reads.update, self.bench.processes.count) if reads.update else {}),
            **_code(self.method, *self._read_by(stage, own)),
        }

    def _engine(self, backend: str) -> dict[str, Any]:
        """Return the arguments of an engine by which it computes other numbers."""
        given = deciding_arguments(self.bench.config.vllm) if backend == "vllm" else {}
        return {f"vllm.{name}": plain(value) for name, value in given.items()}

    def _choosing(self, stage: str) -> dict[str, Any]:
        """Return what decides which of the answers become train rows."""
        answer = deciding(self.bench.config.answer, stage, self.choice, path=ANSWER, first=ANSWER)
        return answer | {"data.max_length": self.bench.max_length}

    def _read_by(self, stage: str, own: Sequence[str]) -> list[Any]:
        """Return the strategies that a stage reads first; what it takes has those of the stages before in its key."""
        groups = [group for group, usual in READ_FIRST.items() if _first(own, usual) == stage]
        return [getattr(self.choice, group) for group in groups if group in self.method.uses]

    def _settings(self, stage: str, own: Sequence[str], reads: Reads) -> dict[str, Any]:
        choice = self.choice
        found = deciding(self.method, stage, choice, path="method", first=own[0])
        for group, usual in READ_FIRST.items():
            if group in self.method.uses:
                node, first = getattr(choice, group), _first(own, usual)
                if stage == first:
                    found[f"{group}._target_"] = target_of(type(node))
                found |= deciding(node, stage, choice, path=group, first=first)
        for path in reads.config:
            found |= self._read(path, stage)
        return found

    def _read(self, path: str, stage: str) -> dict[str, Any]:
        """Return a node or a leaf of the request that a stage reads; the method's are those that it was built with."""
        top, _, rest = path.partition(".")
        value: Any = self.method if top == "method" else getattr(self.bench.config, top)
        for name in rest.split(".") if rest else ():
            value = getattr(value, name)
        if hasattr(value, "__dataclass_fields__"):
            return deciding(value, stage, self.choice, path=path, first=stage)
        return {path: plain(value)}

    def scores(
        self, role: str, tasks: Sequence[Any], known: Mapping[str, Any], checkpoint: str | None
    ) -> str:
        """Plan the scores of a model, and return the step's name.

        Args:
            role: teacher, student or transferred.
            tasks: what is scored.
            known: by name, what decides a task's scores beside the model (rows, version of its grading).
            checkpoint: identity of a saved folder to score as ``transferred``; None: what `transfer` makes.
        """
        config, choice = self.bench.config, self.choice
        settings = deciding(config.eval, "eval", choice, path="eval", first="eval")
        settings |= deciding(config.model, "eval", choice, path="model", first="eval")
        if config.eval.temperature > 0:
            settings["seed"] = config.seed
        settings |= self._engine(config.eval.backend)
        name = f"eval {role}"
        takes = self._made(role, checkpoint)
        self._add(
            name,
            stage="eval",
            of=role,
            takes=takes,
            settings=settings,
            models={} if takes else {"scored": self._identity(role, checkpoint)},
            tasks=dict(known),
            encoding=ENCODING,
            **({"chat": CHAT} if config.model.chat_template else {}),
            **self._decoding(role, tasks),
            **_code(*tasks),
        )
        return name

    def _decoding(self, role: str, tasks: Sequence[Any]) -> dict[str, Any]:
        """Return what the model's generation settings change, or would change; nothing for most models."""
        config = self.bench.config.eval
        modes = {config.decoding or task.decoding for task in tasks if task.decoding is not None}
        drawn = config.temperature > 0
        known = {
            mode: effective(self.bench.generation(role), drawn=drawn and mode == MODEL)
            for mode in sorted(modes)
        }
        found = {mode: plain(own) for mode, own in known.items() if own or (drawn and mode == MODEL)}
        return {"decoding": found} if found else {}

    def analysis(
        self,
        part: str,
        *,
        roles: Iterable[str],
        rows: Mapping[str, Any],
        settings: Sequence[str],
        also: Mapping[str, Any],
        extract: bool,
        checkpoint: str | None,
        maps: Iterable[Any],
    ) -> str:
        """Plan a part of `pkt analyze`, and return the step's name.

        Args:
            part: its name.
            roles: models that it reads.
            rows: digests of the rows that it reads, by what they are to it.
            settings: leaves of the node ``analyze`` that it reads.
            also: other settings that decide its numbers.
            extract: whether it reads the method's pairs of layers.
            checkpoint: see `scores`.
            maps: those that are measured, which may be other people's code.
        """
        takes = [self.chain("extract")] if extract and "extract" in self.method.results else []
        models = {}
        for role in roles:
            made = self._made(role, checkpoint)
            takes += made
            if not made:
                models[role] = self._identity(role, checkpoint)
        known = deciding(self.bench.config.analyze, "analyze", self.choice, path="analyze", first="analyze")
        chosen = {f"analyze.{name}": known[f"analyze.{name}"] for name in settings}
        self._add(
            f"analyze {part}",
            stage="analyze",
            of=part,
            takes=tuple(takes),
            settings=chosen | dict(also),
            models=models,
            rows=dict(rows),
            **_code(*maps),
        )
        return f"analyze {part}"

    def _identity(self, role: str, checkpoint: str | None) -> str:
        """Return what a key says of a model that this request does not make."""
        return checkpoint if role == "transferred" and checkpoint is not None else self.bench.identity(role)

    def _made(self, role: str, checkpoint: str | None) -> tuple[str, ...]:
        return (self.chain("transfer"),) if role == "transferred" and checkpoint is None else ()

    def _add(
        self, name: str, *, takes: Iterable[str] = (), stage: str = "", of: str = "", **ingredients: Any
    ) -> None:
        """Make a step; its key is made here and nowhere else."""
        takes, stage = tuple(takes), stage or name
        whole = {
            "stage": f"{stage} {of}" if stage == "analyze" else stage,
            "version": VERSIONS[stage],
            "inputs": {taken: self._steps[taken].key for taken in takes},
            **ingredients,
        }
        self._steps[name] = Step(
            name=name, stage=stage, of=of, takes=takes, ingredients=whole, key=content_key(whole)
        )


def _asked(prompts: Sequence[Prompt], *, tested: bool) -> dict[str, Any]:
    """Return how each task's prompts are asked, and what tests their answers."""
    found: dict[str, Any] = {}
    for prompt in prompts:
        own = found.setdefault(prompt.task, {**asdict(prompt.written), "rows": 0, "tests": []})
        own["rows"] += 1
        own["tests"] += [{"test": prompt.test}] if tested else []
    return {name: own | {"tests": fingerprint(own["tests"])} for name, own in found.items()}


def _trains(update: Update, processes: int) -> dict[str, Any]:
    """Return what decides a training beside its settings."""
    return {
        # dropout draws its masks in every process
        **(
            {"processes": processes} if processes > 1 and update.kind == "lora" and update.dropout > 0 else {}
        ),
        # older results may have left them as they were
        **({"embeddings": "trained"} if update.trains_embeddings else {}),
    }


def _first(own: Sequence[str], usual: str) -> str:
    """Return the stage at which a method first reads a group: the usual one, or the next that the method has."""
    order = ("extract", "align", "transfer")
    return next(stage for stage in order[order.index(usual) :] if stage in own)


def _code(*strategies: Any) -> dict[str, Any]:
    """Return the digests of other people's code among strategies; nothing where there is none."""
    found = {package: origin["code"] for package, origin in origins(*strategies).items()}
    return {"code": found} if found else {}
