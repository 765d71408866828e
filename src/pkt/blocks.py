"""The parts that pkt is made of, for loops of your own: on tensors, and on any Hugging Face causal language model.

    model ──> hidden_states | tapped ──> (N, D) states ──> maps.Ridge() ... ──> AlignmentMap ──> layer_loss(term, ...)
          ──> layer_scores ──> mappings.Critical() ... ──> layer pairs
          ──> head_view ──> maps.Cosine() ...

Nothing here reads a config or needs Hydra. Layers are numbered from 1.
Shape suffixes: B rows, T positions, N positions of all rows together, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pkt import mapping as mappings
from pkt import objectives as terms
from pkt import semantics as maps
from pkt.attribution.layer import layer_attribution
from pkt.attribution.similarity import Moments
from pkt.data.batching import Batch
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.precision import compute_device
from pkt.models.probe import probe
from pkt.models.taps import Interface, decode, tap
from pkt.semantics.alignment import AlignmentMap, HeadView

__all__ = [
    "AlignmentMap",
    "Architecture",
    "HeadView",
    "Interface",
    "architecture",
    "cka",
    "head_view",
    "hidden_states",
    "layer_loss",
    "layer_scores",
    "mappings",
    "maps",
    "tapped",
    "terms",
]


def architecture(model: Any, roles: Mapping[str, Any] | None = None) -> Architecture:
    """Find a model's parts by role, and try on the model what pkt relies on (`Architecture.probe`).

    Args:
        model: of transformers, loaded; a PEFT model is looked into. What has been looked at comes back as it is.
        roles: where its parts are, of a type that pkt does not know: fields of `pkt.models.roles.Roles`.

    Raises:
        RequestError: a type that is not known, or a role that leads nowhere.
    """
    if isinstance(model, Architecture):
        return model
    found = Architecture.of(model, roles)
    found.probe = probe(found)
    return found


def hidden_states(
    model: Any,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor | None = None,
    *,
    layers: Iterable[int] | None = None,
    interface: Interface | str = "block",
) -> dict[int, Tensor]:
    """Return states at a supervision interface, without gradient: layer -> (B, T, D).

    Args:
        model: of transformers, or what `architecture` returned (several calls then look at it once).
        input_ids_BT: tokens, padded on the right.
        attention_mask_BT: 1 on tokens; None: no padding.
        layers: None: all.
        interface: ``block`` (what leaves the layer), ``residual`` (what it adds), ``mlp`` or ``attention`` (what that
            part adds).

    Raises:
        RequestError: a layer or an interface that the model does not have, or that does not hold on it.
    """
    found = architecture(model)
    mask_BT = torch.ones_like(input_ids_BT) if attention_mask_BT is None else attention_mask_BT
    numbers = range(1, found.depth + 1) if layers is None else layers
    with _evaluating(found), torch.no_grad(), tap(found, numbers, interface) as states:
        decode(found, input_ids_BT.to(found.device), mask_BT.to(found.device))
        return dict(states)


@contextmanager
def tapped(
    model: Any, layers: Iterable[int], *, interface: Interface | str = "block"
) -> Iterator[dict[int, Tensor]]:
    """Keep the states of forward passes of your own while the block runs, inside autograd: layer -> (B, T, D).

    Raises:
        RequestError: see `hidden_states`.
    """
    with tap(architecture(model), layers, interface) as states:
        yield states


def head_view(model: Any, shared: Tensor | None = None, *, two_vocabularies: bool = False) -> HeadView:
    """Return what maps through the vocabulary read of a model: LM head, embedding, weight of the final norm.

    Args:
        model: see `hidden_states`.
        shared: ids of the tokens that both models have, in the same order for both, for ``anchors="shared"``.
        two_vocabularies: whether an id stands for other tokens in the other model; only `shared` are anchors then.
    """
    return HeadView.of(architecture(model), shared, two_vocabularies=two_vocabularies)


def layer_scores(
    model: Any,
    input_ids_BT: Tensor,
    supervised_BT: Tensor,
    attention_mask_BT: Tensor | None = None,
    *,
    interface: Interface | str = "mlp",
    reduce: str = "example",
) -> Tensor:
    """Score every layer by gradient x activation of the rows' cross-entropy: (L) float64 on the CPU.

    Args:
        model: see `hidden_states`.
        input_ids_BT: tokens, padded on the right.
        supervised_BT: bool, the positions whose next token is an answer's.
        attention_mask_BT: 1 on tokens; None: no padding.
        interface: see `hidden_states`.
        reduce: ``example``, ``signed``, ``abs`` or ``l2``; see `pkt.attribution.layer_attribution`.

    Raises:
        RequestError: a row without a supervised position.
    """
    found = architecture(model)
    mask_BT = torch.ones_like(input_ids_BT) if attention_mask_BT is None else attention_mask_BT
    rows = Batch(
        input_ids=input_ids_BT,
        attention_mask=mask_BT,
        supervised=supervised_BT.bool(),
        index=list(range(len(input_ids_BT))),
    )
    with _evaluating(found):
        return layer_attribution(found, [rows.to(found.device)], interface, reduce=reduce)


def cka(x_ND: Tensor, y_NE: Tensor) -> float:
    """Return the linear CKA of two sets of states at the same positions, of any two widths, in float64: 0 to 1.

    Raises:
        ValueError: no position, or not the same number on both sides.

    Source: Kornblith et al. (arXiv 1905.00414, eq. 5).
    """
    if len(x_ND) != len(y_NE) or not len(x_ND):
        raise ValueError(
            f"states at the same positions are compared, got {len(x_ND)} and {len(y_NE)} positions"
        )
    sums = Moments()
    device = compute_device(x_ND)
    sums.add(x_ND[None].detach().to(device), y_NE[None].detach().to(device))
    return float(sums.similarity()[0][0, 0])


def layer_loss(term: terms.LayerTerm, states_ND: Tensor, targets_ND: Tensor) -> Tensor:
    """Return a layer term's mean over positions, without its weight; the gradient goes through the states.

    Args:
        term: such as ``terms.Cosine()``; one that reads states alone (`Fisher` reads the head too).
        states_ND: of the student.
        targets_ND: mapped states of the teacher, at the same positions.

    Raises:
        ValueError: shapes that differ.
    """
    pair = terms.Pair(layer=1, states_ND=states_ND, targets_ND=targets_ND)
    view = terms.View(count=len(states_ND), given={terms.States: [pair]})
    found = term(view)
    return found.total.sum() / found.count


@contextmanager
def _evaluating(arch: Architecture) -> Iterator[None]:
    """Put a model into eval mode, and each of its modules back into its own."""
    modes = {module: module.training for module in arch.model.modules()}
    arch.model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
