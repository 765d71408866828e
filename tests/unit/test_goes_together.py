"""What goes together, from needs and provisions on the resolved pairs: which is refused where, and the reason."""

from __future__ import annotations

import pytest

from pkt.errors import RequestError
from pkt.mapping import Depth, Interpolate, LayerPair
from pkt.methods.base import Choice
from pkt.methods.combinations import check, known_pairs, refusal
from pkt.methods.hidden_kd import HiddenKd
from pkt.methods.kd import Kd
from pkt.methods.pissa import Pissa
from pkt.methods.seeking import Seeking
from pkt.methods.semalign import SemAlign
from pkt.methods.semalign_fisher import SemAlignFisher
from pkt.methods.semalign_geometry import SemAlignGeometry
from pkt.methods.sft import Sft
from pkt.semantics import Input, Ridge
from pkt.training.trainable import Update
from terms import objective

THREE = (
    LayerPair(student=1, teacher=(2,)),
    LayerPair(student=2, teacher=(3, 4, 5), weights=(0.2, 0.3, 0.5)),
)
BLOCK, BETWEEN = SemAlign(interface="block"), SemAlignGeometry(span="between", interface="residual")
HEAD = Update(targets=["up", "head"])
COSINE, FISHER, GEOMETRY = objective(cosine={}), objective(fisher={}), objective(geometry={})


def reason(method, terms, *, semantics=None, pairs=None) -> str | None:
    return refusal(method, Choice(mapping=Depth(), semantics=semantics or Ridge(), objective=terms), pairs)


@pytest.mark.parametrize(
    ("method", "terms", "more", "message"),
    [
        (Sft(), COSINE, {}, "the term 'layer' (Cosine) has no target: use objective=ce"),
        (Kd(), objective(cosine={}, kl={}), {}, "has no target: use objective=kd"),
        (Sft(), objective(kl={}), {}, "it uses no teacher, so the term 'kl' (Divergence) has no target"),
        (Kd(), objective(ce={}), {}, "no term (ce) looks at the teacher's outputs: use objective=kd"),
        (SemAlign(), objective(ce={}), {}, "use method=sft or method=kd"),
        (HiddenKd(), objective(kl={}), {}, "its layer term is the method"),
        (SemAlignFisher(), COSINE, {}, "set term@objective.terms.layer=fisher"),
        (SemAlignGeometry(), COSINE, {}, "set term@objective.terms.layer=geometry"),
        (SemAlign(), FISHER, {}, "set method.interface=block (got mlp)"),
        (HiddenKd(), FISHER, {}, "use method=semalign_fisher"),
        (BLOCK, FISHER, {"semantics": Input()}, "use semantics=cosine"),
        (BLOCK, FISHER, {"pairs": THREE}, "student layer 2 gets teacher layers 3+4+5"),
        (BLOCK, GEOMETRY, {"pairs": THREE}, "exactly one teacher layer per student layer"),
        (HiddenKd(), GEOMETRY, {"pairs": THREE}, "exactly one teacher layer per student layer"),
        (BETWEEN, GEOMETRY, {"pairs": THREE}, "exactly one teacher layer per student layer"),
        (
            SemAlignGeometry(span="between", interface="mlp"),
            GEOMETRY,
            {},
            "set method.interface=residual (got mlp)",
        ),
        (Pissa(update=HEAD), objective(output={}), {}, "takes for frozen: use objective=ce"),
        (Seeking(recipe="original"), objective(output={}), {}, "takes for frozen: use objective=ce"),
        (Sft(update=HEAD), objective(output={}), {}, "takes for frozen: use objective=ce"),
    ],
)
def test_refused_with_the_reason(method, terms, more, message):
    found = reason(method, terms, **more)
    assert found is not None
    assert message in found


@pytest.mark.parametrize(
    ("method", "terms", "more"),
    [
        (BLOCK, COSINE, {"pairs": THREE}),  # no need for one teacher layer
        (HiddenKd(), objective(mean_square={}), {"pairs": THREE}),
        (HiddenKd(), GEOMETRY, {"pairs": THREE[:1]}),
        (BLOCK, COSINE, {"semantics": Input()}),
        (BLOCK, FISHER, {"pairs": THREE[:1]}),
        (HiddenKd(), COSINE, {"semantics": Input()}),  # it reads no semantics
        (Seeking(), objective(output={}), {}),
        (Seeking(recipe="original"), objective(ce={}), {}),
        (SemAlignFisher(interface="block"), objective(fisher={}, ce={}), {}),
        (Kd(), objective(kl={}, ce={}), {}),
    ],
)
def test_what_goes(method, terms, more):
    assert reason(method, terms, **more) is None


def test_pairs_that_depths_decide_are_known_before_any_work():
    assert known_pairs(Depth(), 6, 4) == Depth().pairs(6, 4)
    choice = Choice(mapping=Interpolate(), semantics=Ridge(), objective=FISHER)
    with pytest.raises(
        RequestError, match=r"method=semalign does not go .* student layer 1 gets teacher layers 1\+2"
    ):
        check(BLOCK, choice, known_pairs(choice.mapping, 6, 4))
