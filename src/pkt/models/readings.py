"""Checks of what pkt reads off a model: token ids, logits, norms. See `pkt.models.probe`.

Shape suffixes: B rows, T positions, N positions that are no padding, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pkt.errors import first_line
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.behaviour import distance, tolerance
from pkt.models.findings import Check
from pkt.models.taps import Interface, decode, tap

ROWS, POSITIONS, PADDED = 2, 8, 3  # a tiny batch, the last row of which is padded
APART = 0.02  # what bends small logits less is a cap; another matrix gives about 1
_WORDS = 1000  # its tokens are among the first ones, where no family has images or sounds


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A few tokens, right-padded.

    Attributes:
        arch: the model that they are for.
        ids_BT: tokens.
        mask_BT: 0 at padding.
    """

    arch: Architecture
    ids_BT: Tensor
    mask_BT: Tensor

    @classmethod
    def of(cls, arch: Architecture) -> Sample:
        """Choose tokens that a model has."""
        rows = min(arch.rows, _WORDS)
        numbers = torch.arange(ROWS * POSITIONS).view(ROWS, POSITIONS)
        ids_BT = (7 + 37 * numbers + 11 * numbers**2) % rows
        mask_BT = torch.ones_like(ids_BT)
        mask_BT[-1, -PADDED:] = 0
        return cls(arch=arch, ids_BT=ids_BT.to(arch.device), mask_BT=mask_BT.to(arch.device))

    def real(self, states_BTX: Tensor) -> Tensor:
        """Return what is at the positions that are no padding, (N, ...)."""
        return states_BTX[self.mask_BT.bool().to(states_BTX.device)]

    def decode(self) -> Tensor:
        """Run the decoder."""
        return decode(self.arch, self.ids_BT, self.mask_BT)

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Return the logits of the whole model."""
        run: Callable[..., Any] = self.arch.model
        logits_BTV: Tensor = run(input_ids=self.ids_BT, attention_mask=self.mask_BT, use_cache=False).logits
        return logits_BTV


def tokens(arch: Architecture, tokenizer: Any) -> Check:
    """Check that the model has a row for every token id."""
    rows = arch.rows
    if tokenizer is None:
        return Check(name="tokens", holds=None, number=None, sentence="no tokenizer was given")
    without = {index: token for token, index in tokenizer.get_vocab().items() if index >= rows}
    sentence = f"every token id is below the embedding's {rows} rows"
    if without:
        first = min(without)
        sentence = (
            f"{len(without)} token ids of its tokenizer have no row in the embedding ({rows} rows), first {first} "
            f"{without[first]!r}; texts with these tokens cannot be read: take the tokenizer of these weights"
        )
    return Check(name="tokens", holds=not without, number=float(len(without)), sentence=sentence)


def embedding(arch: Architecture) -> Check:
    """Check that the module that is taken for the embedding is the one that the model reads tokens with."""
    own = arch.model.get_input_embeddings()
    if own is None:
        return Check(
            name="embedding", holds=None, number=None, sentence="the model does not say what it reads with"
        )
    holds = own is arch.embedding or own.weight is getattr(arch.embedding, "weight", None)
    sentence = (
        "tokens are read with its embedding"
        if holds
        else f"its role embed ({arch.roles.embed}) points to another module than the one that reads tokens"
    )
    return Check(name="embedding", holds=holds, number=None, sentence=sentence)


def runs(sample: Sample) -> Check:
    """Check that the model's own code gets through a padded batch, called as anybody would call it."""
    try:
        sample.logits()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        sentence = (
            f"its own code fails on a batch of {ROWS} rows of {POSITIONS} tokens ({what}). Its config may not fit its "
            "layers (a student cut from layers of several kinds), or this version of transformers cannot run it"
        )
        return Check(name="runs", holds=False, number=None, sentence=sentence)
    return Check(name="runs", holds=True, number=None, sentence="it gets through a padded batch")


@torch.no_grad()
def finite(sample: Sample) -> Check:
    """Check that the model computes numbers at all."""
    bad = int((~sample.real(sample.decode()).isfinite()).sum())
    sentence = "all states are finite"
    if bad:
        sentence = (
            f"{bad} numbers that leave its decoder are NaN or infinite. In float16 that may be an overflow "
            "(model.<teacher|student>.dtype=float32); otherwise its weights are damaged"
        )
    return Check(name="finite", holds=bad == 0, number=float(bad), sentence=sentence)


@torch.no_grad()
def causal(sample: Sample) -> Check:
    """Check that what comes later does not change what comes before."""
    half = sample.ids_BT.shape[1] // 2
    other_BT = sample.ids_BT.clone()
    other_BT[:, half:] = sample.ids_BT[:, half:].flip(1)
    before_BTD, after_BTD = (
        decode(sample.arch, ids, sample.mask_BT)[:, :half] for ids in (sample.ids_BT, other_BT)
    )
    error = distance(after_BTD, before_BTD)
    holds = error <= tolerance(sample.arch.dtype)
    sentence = (
        "later tokens do not change earlier states"
        if holds
        else f"later tokens change the states of earlier ones (by {error:.2g}): it is no causal language model. If its "
        "family has a decoder form, set it in the checkpoint's config (is_decoder=true); else choose another model"
    )
    return Check(name="causal", holds=holds, number=error, sentence=sentence)


@torch.no_grad()
def logits(sample: Sample) -> Check:
    """Check that the read-out of the decoder's states is the model's logits, and that the head makes them."""
    arch, expected_BTV = sample.arch, sample.logits()
    error = distance(sample.real(arch.read_out(sample.decode())), sample.real(expected_BTV))
    near = tolerance(arch.dtype)
    how = "by its head alone" if arch.reading.plain else "by its own code (scaled, capped or masked)"
    sentence, holds = f"logits are read out {how}", True
    if not error <= near:
        holds = False
        sentence = (
            f"what pkt reads out of the decoder's states is not the model's logits (relative error {error:.2g}). Its "
            "role decoder may point to the wrong module"
        )
    elif not arch.reading.apart <= APART:
        holds, error = False, arch.reading.apart
        sentence = (
            f"its logits are no multiple of what its head '{arch.roles.head}' returns (relative error {error:.2g}), so "
            "that is not the matrix that they are made with. Its role head may point to the wrong module"
        )
    return Check(name="logits", holds=holds, number=error, sentence=sentence)


@torch.no_grad()
def final_norm(sample: Sample) -> Check:
    """Check that the final norm of what leaves the last layer is what leaves the decoder."""
    arch = sample.arch
    with tap(arch, [arch.depth], Interface.block) as states:
        final_BTD = sample.decode()
    try:
        error = distance(sample.real(arch.final_norm(states[arch.depth])), sample.real(final_BTD))
    except RuntimeError as failure:  # of shapes: that module takes other states
        sentence = (
            f"its role final_norm ({arch.roles.final_norm}) points to a module that takes no states of the last layer "
            f"({first_line(failure)})"
        )
        return Check(name="final_norm", holds=False, number=None, sentence=sentence)
    holds = error <= tolerance(arch.dtype)
    sentence = (
        "the final norm of the last layer's states is what the head reads"
        if holds
        else f"the final norm of the last layer's states is not what the head reads (relative error {error:.2g}), so "
        "states of layers cannot be read out; its role final_norm may point to the wrong module. Terms that read no "
        "layer out (cosine, mean_square, kl, ce) do not need it"
    )
    return Check(name="final_norm", holds=holds, number=error, sentence=sentence)


@torch.no_grad()
def norm_weight(arch: Architecture) -> Check:
    """Check that the final norm is one, and say how it uses its weight."""
    if arch.roles.final_norm is None:
        return Check(name="norm_weight", holds=None, number=None, sentence="there is no final norm")
    read_D, norm = arch.norm_weight(), arch.norm
    if not norm.scales <= norm.near:
        sentence = (
            f"the final norm ({arch.roles.final_norm}) is another for twice the state (by {norm.scales:.2g}), "
            "so it is none, and it has no weight that could be folded into the head: semantics.fold_norm=false"
        )
        return Check(name="norm_weight", holds=False, number=norm.scales, sentence=sentence)
    error = norm.distance(torch.ones_like(norm.gain_D) if read_D is None else read_D)
    weight = getattr(arch.final_norm, "weight", None)
    how = "has no weight"
    if read_D is not None:
        how = "multiplies with what was measured, not with its weight"
        if isinstance(weight, Tensor) and weight.shape == read_D.shape:
            offset = float((read_D.float() - weight.float()).abs().max())
            how = "multiplies with its weight" if offset == 0 else f"multiplies with {offset:g} + its weight"
    sentence = f"the final norm {how}" + (", after subtracting the mean" if norm.centres else "")
    return Check(name="norm_weight", holds=error <= norm.near, number=error, sentence=sentence)
