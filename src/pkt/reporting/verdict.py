"""What a run comes to, in one sentence, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pkt.data.notes import trained_on
from pkt.evaluation.paired import Interval
from pkt.reporting.cells import score_cell
from pkt.reporting.metrics import is_share
from pkt.reporting.overrides import asked_again
from pkt.reporting.runs import FIXED, Arm, Run
from pkt.reporting.study import Study


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run comes to.

    Attributes:
        sentence: whether the student is better than before, by how much, and how sure that is.
        advice: what to try next; empty where nothing is known of how the student was made.
        command: that does so, for a shell; empty where it takes a choice.
    """

    sentence: str
    advice: str
    command: str = ""

    @property
    def remedy(self) -> str:
        """What to try next, in one line."""
        return (
            f"{self.advice}{'' if self.advice.endswith('?') else ':'} {self.command}"
            if self.command
            else self.advice
        )


def verdict(run: Run) -> Verdict | None:
    """Compare a run's student with what it was before, on the same rows; None where one of them was not scored.

    Args:
        run: what `scores.json` holds, with its folder.
    """
    if not {"student", "transferred"} <= run["scores"].keys():
        return None
    study = Study.of([run])
    return arm_verdict(study, study.arms[0])


def arm_verdict(study: Study, arm: Arm) -> Verdict | None:
    """Compare an arm's students with what they were before; None where no interval can be given.

    Of a checkpoint from elsewhere (`eval.checkpoint`) pkt does not know what was done to it, and has no advice.

    Args:
        study: of the arm.
        arm: a transferred student.
    """
    found = _verdict(study, arm)
    if found and not found.sentence.startswith(_HELPED) and (why := _no_teacher(study, arm)):
        found = replace(found, advice=f"{why}; {found.advice}" if found.advice else why)
    if found and trained_on(arm.first.get("notes", ())):
        found = replace(
            found, sentence=f"{found.sentence}; some of these rows were trained on: see the warnings"
        )
    elsewhere = "eval.checkpoint" in arm.first["settings"]
    return replace(found, advice="", command="") if found and elsewhere else found


_HELPED = "it helped: "


def _no_teacher(study: Study, arm: Arm) -> str:
    """Return that the teacher has nothing to teach, where one taught and is not sure to be better than the student."""
    why = next((study.gapless[task] for task in study.compared if task in study.gapless), None)
    if why is None or not _taught(arm.first) or len(study.fixed) < len(FIXED):
        return ""
    return f"does the teacher know it ({study.head(study.compared[0])}: {why})? See its answers in the report"


def _verdict(study: Study, arm: Arm) -> Verdict | None:
    gain = gain_of(study, arm)
    if gain is None or not gain.known:
        return _by_the_others(study, arm)
    told = _told(study, gain, study.compared) + _passed_over(study, arm)
    if gain.differing == 0:
        return _unmoved(study, arm)
    if gain.holds_zero:
        others = [_direction(study, task, of) for task, of in _uncompared(study, arm) if not of.holds_zero]
        sentence = "; ".join([f"no difference to the untouched student beyond the noise: {told}", *others])
        return _more(sentence, arm)
    if (gain.value > 0) != study.rises(study.compared[0]):
        return Verdict(sentence=f"it harmed: {told}", advice=_gentler(arm.first))
    share = study.share(arm, study.compared)  # of what the sentence is about
    way = f"; {share.cell} of the way to the teacher" if share and share.known else ""
    return _taught_beside(f"{_HELPED}{told}{way}", study, arm)


def _by_the_others(study: Study, arm: Arm) -> Verdict | None:
    """Return what the other scores say where no interval can be given of what is compared; None without any."""
    others = [_direction(study, task, of) for task, of in _uncompared(study, arm)]
    few = f"{study.head(study.compared[0])}: too few rows differ to tell"
    return _more("; ".join([few, *others]), arm) if others else None


def gain_of(study: Study, arm: Arm) -> Interval | None:
    """Return what an arm's students gained over the untouched one, on the same rows; None where that is not known."""
    before = untouched(study)
    return study.difference(arm, before) if before else None


def untouched(study: Study) -> Arm | None:
    """Return the student as it was, where it was scored."""
    return next((arm for arm in study.fixed if arm.role == "student"), None)


def _uncompared(study: Study, arm: Arm) -> Iterator[tuple[str, Interval]]:
    """Yield the scores that are not compared, each with what the student gained in it, where that is known."""
    before = untouched(study)
    for task in study.tasks if before else ():
        if task not in study.compared and (found := study.difference(arm, before, [task])) and found.known:
            yield task, found


def _unmoved(study: Study, arm: Arm) -> Verdict:
    """Return what is said where no row counts otherwise by what is compared: whole answers seldom become right."""
    known = dict(_uncompared(study, arm))
    more = [task for task in study.tasks if task not in study.compared]
    same = f"no row's {study.head(study.compared[0])} is" if more else "no row is scored"
    before, moved = untouched(study), list[str]()
    for task in more if before else ():
        old, new = (study.score(one, [task]).value for one in (before, arm) if one)
        if old != new and not math.isnan(old + new):
            gone = f"{study.head(task)} went from {old:.3f} to {new:.3f}"
            moved.append(_direction(study, task, known[task]) if task in known else gone)
    sentence = "; ".join([f"{same} otherwise than before", *moved])
    return _more(sentence, arm) if moved else Verdict(sentence=sentence, advice=_NOTHING)


_NOTHING = "did it train? See the losses in the report; larger steps (optim.lr), more of them (optim.steps)"


def _more(sentence: str, arm: Arm) -> Verdict:
    advice = "more rows to score, more steps (optim.steps)"
    if len(arm.runs) > 2:
        return Verdict(sentence=sentence, advice=advice)
    command = asked_again(arm.first, seed="0,1,2")
    return Verdict(sentence=sentence, advice=f"{advice}, or several seeds", command=command)


def _direction(study: Study, task: str, gain: Interval) -> str:
    """Return in which direction one score went, and how far."""
    better = (gain.value > 0) == study.rises(task)
    word = "level" if gain.holds_zero else "better" if better else "worse"
    return f"{word}: {_told(study, gain, [task])}"


def _passed_over(study: Study, arm: Arm) -> str:
    """Return what is to be said of the scores before the one that is compared, of which too few rows tell anything."""
    before = () if study.averaged else study.tasks[: study.tasks.index(study.compared[0])]
    scores = {task: score_cell(study.score(arm, [task]), study.metric(task)) for task in before}
    return "".join(
        f"; {study.head(task)} is {own}: too few rows differ to tell" for task, own in scores.items()
    )


def _told(study: Study, gain: Interval, tasks: Sequence[str]) -> str:
    """Return a difference with its interval, the tasks that it is the mean of, and where it began."""
    points = is_share(study.metric(tasks[0]))
    scale, unit = (100, " points") if points else (1, "")
    of = f"mean of {len(tasks)} tasks" if len(tasks) > 1 else study.head(tasks[0])
    numbers = [scale * number for number in (gain.value, gain.low, gain.high)]
    digits = 1 if points else 3
    value, low, high = (f"{number:+.{digits}f}" for number in numbers)
    before = untouched(study)
    start = scale * study.score(before, tasks).value if before else math.nan
    return f"{value}{unit} [{low}, {high}] from {start:.{digits}f} ({of})"


def _gentler(run: Run) -> str:
    rate = run["settings"].get("optim.lr")
    smaller = (
        f"a smaller step (optim.lr={rate / 3:.1g})"
        if isinstance(rate, float) and rate > 0
        else "smaller steps"
    )
    return f"{smaller}, fewer of them (optim.steps), or optim.keep=best; what the loss did is in the report"


_TEACHING = {"extract", "answer", "align"}  # stages that read the teacher


def _taught_beside(sentence: str, study: Study, arm: Arm) -> Verdict:
    """Return what tells whether the gain is the teacher's; more seeds where the study has both sides of that."""
    run, method = arm.first, arm.first["method"]
    taught = {_taught(other.first) for other in study.arms if other.first["method"] != "identity"}
    if len(taught) > 1:
        few = any(len(other.runs) < 3 for other in study.arms)
        return Verdict(sentence=sentence, advice="do more seeds say the same (seed=0,1,2)?" if few else "")
    if not _taught(run):
        # the method that the pair has by default: all layers, and for a cut student another one than for others
        advice, command = ("does a teacher add to it (docs/when.md)?", asked_again(run, method=None))
    else:
        advice, command = "is it the teacher's doing?", asked_again(run, method=f"sft,{method}", seed="0,1,2")
    return Verdict(sentence=sentence, advice=advice, command=command)


def _taught(run: Run) -> bool:
    """Return whether a student was made with a teacher."""
    return bool(_TEACHING & {str(stage["stage"]) for stage in run["stages"]})
