"""Refuse tokens that a model has no trained row for.

The student's tokenizer may have tokens that its teacher's lacks (those of a chat template, say). Their ids may still be
within the teacher's embedding, whose rows are padded to a round number: what it would compute there means nothing.
"""

from __future__ import annotations

from typing import Any

from pkt.errors import RequestError
from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture

TINY = 1e-3  # norm of a row that was never trained, as a share of the median row's


def guard(arch: Architecture, tokenizer: Any) -> None:
    """Let a teacher's decoder refuse batches with tokens that it does not know; padding may be anything.

    Args:
        arch: the teacher.
        tokenizer: its own.
    """
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    known_V = torch.zeros(arch.rows, dtype=torch.bool)
    known_V[[index for index in names if index < arch.rows]] = True
    known_V[_untrained(arch, tokenizer)] = False

    def check(_m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids_BT = kwargs.get("input_ids", args[0] if args else None)
        length = getattr(kwargs.get("past_key_values"), "get_seq_length", None)
        goes_on = length is not None and length() > 0  # what is read then is what the teacher wrote itself
        if isinstance(ids_BT, Tensor) and not goes_on:
            _check(ids_BT, kwargs.get("attention_mask"), known_V, names)

    arch.decoder.register_forward_pre_hook(check, with_kwargs=True, prepend=True)


def _untrained(arch: Architecture, tokenizer: Any) -> list[int]:
    """Return added tokens whose row is as good as zero; those that pad, begin or end texts may be like that."""
    marks = {getattr(tokenizer, f"{mark}_token_id") for mark in ("pad", "bos", "eos", "unk")}
    added = [index for index in tokenizer.added_tokens_decoder if index not in marks and index < arch.rows]
    if not added or arch.embedding.weight.is_meta:
        return []
    norms_V = torch.linalg.vector_norm(arch.embedding_weight().detach().float(), dim=1).cpu()
    return [index for index in added if norms_V[index] < TINY * norms_V.median()]


def _check(ids_BT: Tensor, mask_BT: Any, known_V: Tensor, names: dict[int, str]) -> None:
    if isinstance(mask_BT, Tensor) and mask_BT.shape == ids_BT.shape:
        ids_BT = ids_BT[mask_BT.bool()]
    ids = torch.unique(ids_BT).cpu()
    inside = ids < len(known_V)
    unknown = [*ids[inside][~known_V[ids[inside]]].tolist(), *ids[~inside].tolist()]
    if not unknown:
        return
    first = unknown[0]
    if first not in names:
        why = f"token {first} of the rows is one of the student's: the teacher's tokenizer has no such token"
    elif first < len(known_V):
        why = f"the teacher's row of token {first} ({names[first]!r}) was never trained"
    else:
        why = f"the teacher has no row for its token {first} ({names[first]!r}), only {len(known_V)} rows"
    raise RequestError(
        f"{why} ({len(unknown)} such tokens), so it cannot be read on these rows. If it comes from the chat template, "
        "set model.chat_template=false, or choose a teacher that was trained with this template; methods without a "
        "teacher (method=sft) are not concerned."
    )
