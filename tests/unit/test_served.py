"""vLLM as the engine, by its interface: a stand-in for the package that takes what vLLM takes and runs a tiny model.

The names of `SamplingParams` and of `LLM`'s arguments are those of vLLM 0.10 to 0.15; any other is refused here.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from pkt.errors import PktError, RequestError
from pkt.evaluation.asking import Settings
from pkt.evaluation.engines import Served, scorer_of
from tiny import tiny_model, tiny_tokenizer

CONTEXT = 64


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    max_tokens: int = 16
    min_tokens: int = 0
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False


class TokensPrompt(dict):
    def __init__(self, *, prompt_token_ids: list[int]) -> None:
        super().__init__(prompt_token_ids=prompt_token_ids)


class LLM:
    """Greedy tokens and log-probabilities of a Hugging Face model, in vLLM's words."""

    def __init__(
        self,
        *,
        model: str,
        revision: str | None,
        dtype: str,
        seed: int,
        trust_remote_code: bool,
        generation_config: str,
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
    ) -> None:
        if tensor_parallel_size > 1:
            raise ValueError("World size (2) is larger than the number of available GPUs (1)\nmore")
        assert (trust_remote_code, generation_config) == (False, "vllm")
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.tokenizer = tiny_tokenizer()
        self.limit = max_model_len or CONTEXT
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=self.limit))

    @torch.no_grad()
    def generate(self, prompts: list[Any], sampling_params: list[Any], *, use_tqdm: bool) -> list[Any]:
        return [
            self._one(p["prompt_token_ids"], how) for p, how in zip(prompts, sampling_params, strict=True)
        ]

    def _one(self, ids: list[int], how: SamplingParams) -> Any:
        assert len(ids) + how.max_tokens <= self.limit
        known: list[Any] | None = None
        if how.prompt_logprobs:
            logs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            known = [None]
            for row, token in zip(logs[:-1], ids[1:], strict=True):
                rank = int((row > row[token]).sum()) + 1
                best = int(row.argmax())
                known.append(
                    {best: SimpleNamespace(logprob=float(row[best]), rank=1)}
                    | {token: SimpleNamespace(logprob=float(row[token]), rank=rank)}
                )
        new: list[int] = []
        while len(new) < how.max_tokens:
            new.append(int(self.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
            text = self.tokenizer.decode(new)
            if new[-1] in how.stop_token_ids or any(stop in text for stop in how.stop):
                break
        return SimpleNamespace(prompt_logprobs=known, outputs=[SimpleNamespace(token_ids=tuple(new))])


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    """The package as it would be installed."""
    package = ModuleType("vllm")
    package.__spec__ = ModuleSpec("vllm", None)
    vars(package).update(LLM=LLM, SamplingParams=SamplingParams, TokensPrompt=TokensPrompt)
    monkeypatch.setitem(sys.modules, "vllm", package)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model, and the folder that has it."""
    folder = tmp_path_factory.mktemp("served")
    made = tiny_model("llama", depth=2, width=16)
    made.save_pretrained(folder)
    return made.eval(), folder


def served(folder, **more: Any) -> Served:
    settings = {"generation": GenerationConfig(), "context": CONTEXT, "vocabulary": 320} | more
    return Served(where=str(folder), **settings)


def requests(pairs: list[tuple[Any, ...]]) -> list[Any]:
    return [SimpleNamespace(args=pair, task_name="some") for pair in pairs]


def test_answers_have_the_likelihoods_of_transformers(model):
    pairs = [
        ("Ada has 3 apples.", " 3"),
        ("Ada has 3 apples.", " 4 or 5"),
        ("", " x"),
        ("A long " * 40, " y"),
    ]
    found = []
    for one in (model[0], served(model[1])):
        with scorer_of(one, tiny_tokenizer(), device="cpu", batch_size=4) as scorer:
            if one is model[0]:
                scorer._max_length = CONTEXT - 2  # of which vLLM takes two
            found.append((scorer.loglikelihood(requests(pairs)), scorer.hits, scorer.cut))
    (mine, own_hits, own_cut), (theirs, their_hits, their_cut) = found
    for (log, greedy), (expected, also) in zip(theirs, mine, strict=True):
        assert log == pytest.approx(expected, abs=1e-4)
        assert greedy == also
    assert {pair: hits.tokens for pair, hits in own_hits.items()} == {
        pair: hits.tokens for pair, hits in their_hits.items()
    }
    assert own_cut == their_cut


def test_greedy_answers_are_those_of_transformers(model):
    rules = {"until": ["\n", "7"], "max_gen_toks": 12, "do_sample": False}
    asked = [("Ada has 3 apples.", rules), ("Bo", rules), ("", {**rules, "until": []})]
    found = []
    for one in (model[0], served(model[1])):
        with scorer_of(one, tiny_tokenizer(), device="cpu", batch_size=2) as scorer:
            found.append(scorer.generate_until(requests(asked)))
    assert found[0] == found[1]


def test_draws_have_seeds_of_their_own_and_settings_vllms_names(model):
    with scorer_of(served(model[1]), tiny_tokenizer(), device="cpu", batch_size=2, seed=5) as scorer:
        told: list[SamplingParams] = []
        scorer._llm.generate = lambda prompts, how, use_tqdm: (
            told.extend(how) or [SimpleNamespace(outputs=[SimpleNamespace(token_ids=(5,))]) for _ in prompts]
        )
        settings = Settings(most=4, temperature=0.7, more='{"top_p": 0.9, "min_new_tokens": 2}')
        scorer._generate([[3, 4], [3, 4]], [("a", 0), ("a", 1)], settings)
        assert [(how.temperature, how.top_p, how.min_tokens, how.max_tokens) for how in told] == [
            (0.7, 0.9, 2, 4)
        ] * 2
        assert told[0].seed != told[1].seed
        with pytest.raises(RequestError, match=r"num_beams.*decoding=neutral"):
            scorer._generate([[3]], [("a", 0)], Settings(most=4, more='{"num_beams": 3}'))
        with pytest.raises(RequestError, match=r"eval\.backend=hf"):
            scorer.loglikelihood_rolling([])


def test_a_model_that_it_cannot_run_is_one_message(model):
    wrong = served(model[1], arguments={"tensor_parallel_size": 2})
    with (
        pytest.raises(PktError, match=r"World size \(2\).*backend=hf") as told,
        scorer_of(wrong, tiny_tokenizer(), device="cpu", batch_size=2),
    ):
        pass
    assert "\n" not in str(told.value)


def test_arguments_of_ones_own_win_and_the_model_is_pkts(model):
    own = served(model[1], arguments={"max_model_len": 16, "dtype": "float32", "trust_remote_code": True})
    with scorer_of(own, tiny_tokenizer(), device="cpu", batch_size=2) as scorer:
        assert scorer._llm.limit == 16


def scores(outputs) -> dict[str, list[float]]:
    file = max(outputs.glob("runs/run/*/scores.json"))
    found = json.loads(file.read_text(encoding="utf-8"))["scores"]
    return {who: [own["value"] for own in of.values()] for who, of in found.items()}


@pytest.mark.parametrize(
    "student",
    [
        (),
        pytest.param(
            ("model.student.init=prune", "model.student.checkpoint=null", "model.student.layers=[1,2]"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_request_has_the_same_scores_and_answers(pkt, tiny_request, student):
    words = ["run", *tiny_request, "method=seqkd", "answer.max_new_tokens=4", *student]
    assert (mine := pkt(*words)).code == 0, mine.err
    here = scores(pkt.outputs)
    assert (theirs := pkt(*words, "answer.backend=vllm", "eval.backend=vllm")).code == 0, theirs.err
    for who, values in scores(pkt.outputs).items():
        assert values == pytest.approx(here[who], abs=1e-5)
    assert "computed" in next(line for line in theirs.out.splitlines() if line.startswith("answer"))
    answers = [file.read_text(encoding="utf-8") for file in pkt.outputs.glob("store/answer/*/answers.jsonl")]
    texts = [[json.loads(line)["text"] for line in one.splitlines()] for one in answers]
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_a_request_without_the_package_is_refused(pkt, monkeypatch):
    monkeypatch.delitem(sys.modules, "vllm")
    for node in ("eval", "answer"):
        result = pkt("run", "method=sft", f"{node}.backend=vllm", "tracker=none")
        assert result.code == 2
        assert "pip install vllm" in result.err
        assert not pkt.outputs.exists()
