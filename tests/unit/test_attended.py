"""Learned attention over the teacher's answer, against rows gone through one by one; and that it learns."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from pkt.data.batching import collate
from pkt.data.encoding import encode
from pkt.data.meeting import met
from pkt.models.architecture import Architecture
from pkt.models.taps import decode
from pkt.objectives import Attended, OutputHead, Sizes, View
from pkt.objectives.attended import attended, projections
from pkt.objectives.needs import Head, TeacherAnswers
from pkt.planning.memory import V_WIDE
from pkt.planning.training import auxiliary
from pkt.training.attended import ATTENDED, AttendedRead, answers_of, with_teacher
from tiny import tiny_model
from vocabularies import vocabulary

ROWS = [
    {"id": "a", "prompt": "Ada has 12 apples.\nResult:", "answer": " 13 books, and 4 apples"},
    {"id": "b", "prompt": "Ben?", "answer": ""},  # the end of the text alone
    {"id": "c", "prompt": "How many apples", "answer": " Größe naïve"},
]


class Both:
    """Two models with two tokenizers, and their answers of a batch."""

    def __init__(self, chosen: list[int]) -> None:
        tokenizers = [vocabulary(kind) for kind in ("byte_bpe", "characters")]
        encoded = [encode(ROWS, tokenizer, max_length=1000) for tokenizer in tokenizers]
        student, self.theirs = met(ROWS, (tokenizers[0], encoded[0]), (tokenizers[1], encoded[1]))
        sizes = [max(tokenizer.get_vocab().values()) + 1 for tokenizer in tokenizers]
        self.arch = Architecture.of(tiny_model("llama", vocab=sizes[0], seed=2))
        self.teacher = Architecture.of(tiny_model("llama", vocab=sizes[1], width=48, seed=1))
        self.batch, self.chosen = collate(student, chosen), chosen
        other = collate(self.theirs, chosen)
        self.other, self.read = other, AttendedRead.of(self.teacher)
        with torch.no_grad():
            self.final = decode(self.teacher, other.input_ids, other.attention_mask)
            self.own = decode(self.arch, self.batch.input_ids, self.batch.attention_mask)
        kept = self.read(self.teacher, self.final, other)[ATTENDED]
        self.answers = with_teacher(answers_of(self.batch, self.arch), kept)
        torch.manual_seed(4)
        self.modules = projections(student=32, teacher=48)

    def view(self, final: torch.Tensor) -> View:
        head = OutputHead(arch=self.arch)
        given = {TeacherAnswers: self.answers, Head: head}
        return View(count=len(final), given=given, final=final, own=self.modules)

    def learn(self, steps: int) -> None:
        """Train the projections alone."""
        optimiser = torch.optim.Adam(self.modules.parameters(), lr=0.01)
        final = self.own[self.batch.supervised]
        for _ in range(steps):
            optimiser.zero_grad()
            Attended()(self.view(final)).total.backward()
            optimiser.step()

    def knows(self) -> torch.Tensor:
        """Whether what attention puts together has the token to come."""
        with torch.no_grad():
            own, rows = self.answers, (self.answers.row_N, self.answers.row_M)
            values = self.modules["value"](own.values_MD)
            found = attended(self.modules["query"](own.read_NE), own.keys_ME, values, rows, len(self.chosen))
            return self.arch.read_out(found).argmax(-1) == own.tokens_N

    def slow(self, final: torch.Tensor, tau: float) -> torch.Tensor:
        """The sum, position by position, in float64."""
        own, them = self.arch.embedding_weight().double(), self.teacher.embedding_weight().double()
        weight, total, n = self.arch.head_weight().double(), torch.zeros((), dtype=torch.float64), 0
        modules = projections(student=32, teacher=48).double()
        modules.load_state_dict(self.modules.state_dict())
        for b, _ in enumerate(self.chosen):
            places = self.batch.supervised[b].nonzero()[:, 0].tolist()
            others = self.other.supervised[b].nonzero()[:, 0].tolist()
            keys, values = [], []
            for m in others:
                x, y = (them[int(self.other.input_ids[b, place])] / them.std() for place in (m, m + 1))
                state = self.final[b, m].double()
                keys.append(torch.cat([x, y]))
                values.append(modules["value"](y + state / state.std()))
            for place in places:
                x, y = (int(self.batch.input_ids[b, at]) for at in (place, place + 1))
                query = modules["query"](torch.cat([own[x], own[y]]))
                shares = torch.stack([query @ key / math.sqrt(96) for key in keys]).softmax(0)
                logits = weight @ sum(share * value for share, value in zip(shares, values, strict=True))
                total = total - logits.log_softmax(-1)[y]
                if int(logits.argmax()) == y:
                    log_p = (logits.detach() / tau).log_softmax(-1)
                    log_q = (weight @ final[n].double() / tau).log_softmax(-1)
                    total = total + (log_p.exp() * (log_p - log_q)).sum()
                n += 1
        assert n == len(final)
        return total


@pytest.mark.parametrize(
    ("chosen", "tau", "steps"), [([0, 1, 2], 1.0, 0), ([2, 0], 2.0, 40), ([0, 1, 2], 1.0, 40), ([1], 1.0, 40)]
)
def test_the_term_is_the_sum_over_positions_with_its_gradient(chosen, tau, steps):
    both = Both(chosen)
    both.learn(steps)
    assert bool(both.knows().any()) == bool(steps)  # only then the student is compared with anything
    final = both.own[both.batch.supervised].clone().requires_grad_()
    term = Attended(temperature=tau)
    found = term(both.view(final))
    assert found.count == term.count(both.view(final)) == len(final)
    wanted = both.slow(final, tau)
    assert found.total.item() == pytest.approx(wanted.item(), rel=1e-4)
    if steps:  # else nothing depends on the student
        fast = torch.autograd.grad(found.total, final)[0]
        assert fast.abs().sum(-1).gt(0).tolist() == both.knows().tolist()
        torch.testing.assert_close(fast, torch.autograd.grad(wanted, final)[0], rtol=1e-3, atol=1e-5)


def test_attention_stays_in_its_row_and_is_a_mean_where_queries_are_zero():
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(5, width, generator=generator) for width in (6, 3))
    rows = (torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 2]))
    found = attended(torch.zeros(4, 6), keys, values, rows, 3)
    wanted = [values[:2].mean(0), values[2], values[2], values[3:].mean(0)]
    torch.testing.assert_close(found, torch.stack(wanted))
    changed = values.clone()
    changed[2] += 1.0
    moved = attended(torch.randn(4, 6, generator=generator), keys, changed - values, rows, 3)
    assert moved.abs().sum(-1).gt(0).tolist() == [False, True, True, False]


def test_what_is_kept_has_a_place_for_every_answer_position_whether_or_not_the_other_model_stops_there():
    both = Both([0, 1, 2])
    (column,) = both.read.columns(both.theirs).values()
    assert column.counts == both.other.supervised.sum(1).tolist()
    assert column.counts != both.batch.supervised.sum(1).tolist()
    assert both.answers.row_M.bincount().tolist() == column.counts
    assert column.width == 1 + both.answers.keys_ME.shape[1] + both.answers.values_MD.shape[1]


def test_the_projections_learn_which_positions_belong_together():
    both = Both([0, 2])
    assert both.knows().float().mean() < 0.5
    both.learn(150)
    assert both.knows().float().mean() > 0.9


def test_it_has_two_projections_of_the_models_widths():
    sizes = Sizes(states={}, targets={}, rows=3, student=32, teacher=48)
    shapes = {name: tuple(value.shape) for name, value in Attended().modules(sizes).named_parameters()}
    assert shapes == {
        "query.weight": (96, 64),
        "query.bias": (96,),
        "value.weight": (32, 48),
        "value.bias": (32,),
    }


def test_a_plan_counts_its_parameters_and_the_logits_that_it_keeps():
    both = Both([0, 1, 2])
    final, wide = both.own[both.batch.supervised].clone().requires_grad_(), set()
    shape = (len(final), len(both.arch.head_weight()))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape == shape:
            kept.append(tensor)  # so that no other takes its place in memory
            wide.add(tensor.data_ptr())
        return tensor

    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Attended()(both.view(final))
    assert len(wide) == V_WIDE["Attended"][0]
    asked = SimpleNamespace(
        teacher=SimpleNamespace(width=48),
        student=SimpleNamespace(width=32),
        pairs=(),
        projects=False,
        trains_maps=False,
        output_terms=["Attended", "CrossEntropy"],
    )
    assert auxiliary(asked) == sum(value.numel() for value in both.modules.parameters())
