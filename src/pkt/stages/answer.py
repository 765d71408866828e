"""Between extract and align: the teacher answers prompts without labels, once for all methods and sweeps.

    prompts -> batches of similar length -> <scratch>/<batch>.json, each when it is done -> answers.jsonl

A stopped stage goes on with the batches that are not there, and ends with the same bits: batches are cut from all
prompts, never from those that are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pkt import console
from pkt.data.answered import Answer, read, write
from pkt.data.encoding import as_read, encode_prompt
from pkt.durable import read_sealed, sealed, set_aside, write_atomically
from pkt.evaluation.answers import Question, Reply, answering, replies
from pkt.evaluation.sampling import Sampling
from pkt.manifest import content_key
from pkt.methods import readings
from pkt.methods.readings import reader, tokenizer_of
from pkt.methods.workbench import Workbench
from pkt.sandbox import Outcome, run_programs
from pkt.stages.serving import served
from pkt.stages.session import Job, Session
from pkt.store import Artifact
from pkt.tasks.prompts import Prompt, claims


def run(job: Job) -> Mapping[str, Any]:
    """Let the teacher answer, and keep every answer with its log-probability; which are used is chosen later."""
    job.count_on()
    bench = job.bench
    readings.tell(bench)
    answers, lengths = _answered(bench, job.scratch)
    written = sum(answer.tokens + 1 for answer in answers)  # an end follows each
    seen = sum(lengths) * bench.config.answer.samples
    # generated with a cache, then read once more for the log-probabilities
    bench.teacher_meter.count(2 * (seen + written), layers=bench.teacher_config.num_hidden_layers)
    if bench.config.answer.keep == "verified":
        answers = _tested(bench, answers)
    write(answers, job.folder)
    if not job.method.results:  # nothing of the method reads the teacher
        bench.release("teacher")
    return {
        "answers": summary(answers) | {"asked": len(lengths), "generated_tokens": written}
    } | job.counted()


def take(session: Session, result: Artifact) -> None:
    """Put the answers that are kept among the train rows, and say how many there are."""
    bench = session.bench
    answers = read(result.path)
    bench.take(answers)
    told, config = summary(answers), bench.config.answer
    how = {"confident": f", share {config.share:g}", "verified": f", agreement {config.agreement:g}"}
    sure = told["log_probability_per_token"]
    console.note(
        f"answer: {len(bench.answered)} of {len(answers)} answers are train rows (keep={config.keep}"
        f"{how.get(config.keep, '')}; {told['blank']} blank), mean log-probability per token {sure:.3f}"
    )


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what a reader wants to know of answers, JSON-like."""
    said = [answer for answer in answers if answer.tokens]
    tokens = sum(answer.tokens for answer in said)
    mean = math.fsum(answer.loglikelihood for answer in said) / tokens if tokens else None
    return {"answers": len(answers), "blank": len(answers) - len(said), "log_probability_per_token": mean}


def _answered(bench: Workbench, scratch: Path) -> tuple[list[Answer], list[int]]:
    """Return the answers in the order of the prompts, and the tokens of each prompt."""
    config, tokenizer, prompts = bench.config.answer, tokenizer_of(bench, "teacher"), bench.prompts
    texts = as_read([prompt.text for prompt in prompts], tokenizer, bench.chat, reader(bench))
    lengths = [len(encode_prompt(tokenizer, text)) for text in texts]
    questions = [
        Question(text=text, until=prompt.written.until, most=prompt.written.most)
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    found: dict[int, list[Reply]] = {}
    with _asked(bench, scratch, questions, lengths) as ask, bench.track("answers", len(prompts)) as advance:
        batches = list(_batches(prompts, lengths, max(1, config.batch_size // config.samples)))
        if bench.processes.count > 1:  # each asks its own, and finds the others' after
            for batch in bench.processes.own(batches):
                ask([questions[i] for i in batch])
            bench.processes.wait()
        for batch in batches:
            found |= zip(batch, ask([questions[i] for i in batch]), strict=True)
            advance(len(batch))
    claim = {task: claims(task, bench.config.benchmark.task_path) for task in {p.task for p in prompts}}
    return [
        Answer(
            id=prompt.id,
            task=prompt.task,
            prompt=prompt.text,
            sample=number,
            text=reply.text,
            loglikelihood=reply.loglikelihood,
            tokens=reply.tokens,
            said=claim[prompt.task](reply.text),
        )
        for i, prompt in enumerate(prompts)
        for number, reply in enumerate(found[i])
    ], lengths


@contextmanager
def _asked(
    bench: Workbench, scratch: Path, whole: Sequence[Question], lengths: Sequence[int]
) -> Iterator[Callable[[Sequence[Question]], list[list[Reply]]]]:
    """Yield what answers a batch of questions, or finds its answers where an earlier process left them."""
    own = bench.config.answer
    sampling = Sampling(
        samples=own.samples, temperature=own.temperature, top_p=own.top_p, seed=bench.config.seed
    )
    with answering(
        _teacher(bench, scratch),
        tokenizer_of(bench, "teacher"),
        batch_size=own.batch_size,
        seed=bench.config.seed,
        chat=bench.chat,
        device=bench.device,
    ) as scorer:
        pairs = zip(whole, lengths, strict=True)
        if long := sum(length > scorer.room(question.most) for question, length in pairs):
            bench.note(
                f"{long} of {len(whole)} prompts leave the teacher's context no room for an answer of "
                "answer.max_new_tokens, and are not answered: lower it, or leave them out."
            )

        def ask(questions: Sequence[Question]) -> list[list[Reply]]:
            file = (
                scratch / f"{content_key({'questions': [asdict(question) for question in questions]})}.json"
            )
            if (done := _left(file)) is None:
                done = replies(scorer, questions, sampling)
                plain = [[asdict(reply) for reply in group] for group in done]
                write_atomically(file, sealed({"replies": plain}))
            return done

        yield ask


def _teacher(bench: Workbench, scratch: Path) -> Any:
    """Return the teacher as its engine takes it."""
    if bench.config.answer.backend == "hf":
        return bench.teacher.model
    return served(bench, "teacher", None, scratch)


def _left(file: Path) -> list[list[Reply]] | None:
    """Return the answers of a batch that is done; None of one that is not, or that was damaged since."""
    if not file.exists():
        return None
    try:
        return [[Reply(**reply) for reply in group] for group in read_sealed(file)["replies"]]
    except (ValueError, KeyError, TypeError) as error:
        set_aside(file, error, "asked again")
        return None


def _batches(prompts: Sequence[Prompt], lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the places of prompts of one task, longest first; the same whichever of them are answered already."""
    for task in dict.fromkeys(prompt.task for prompt in prompts):
        own = [i for i, prompt in enumerate(prompts) if prompt.task == task]
        own.sort(key=lambda i: (-lengths[i], i))
        yield from (own[start : start + size] for start in range(0, len(own), size))


def _tested(bench: Workbench, answers: Sequence[Answer]) -> list[Answer]:
    """Run the programs of prompts that have a test; a test is no label, since many answers pass it."""
    tests = {(prompt.task, prompt.id): prompt.test for prompt in bench.prompts if prompt.test.strip()}
    run = [i for i, answer in enumerate(answers) if (answer.task, answer.id) in tests]
    sources = [f"{answers[i].prompt}{answers[i].text}\n{tests[answers[i].task, answers[i].id]}" for i in run]
    outcomes = run_programs(sources, timeout=bench.config.eval.timeout)
    passed = {i: outcome is Outcome.PASS for i, outcome in zip(run, outcomes, strict=True)}
    return [replace(answer, passed=passed.get(i)) for i, answer in enumerate(answers)]
