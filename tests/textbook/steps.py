"""One training step as anybody would write it: live teacher, whole student, logits at every position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, tap


@dataclass(kw_only=True)
class Step:
    """Call it with a batch.

    `project` makes targets of teacher states. `outputs` names the output terms: "cosine" (logits against the one-hot
    label), or "kl" (over the `top_k` likeliest tokens of the teacher and one bucket for the rest) and "ce".
    """

    teacher: Architecture
    student: Architecture
    parameters: Sequence[nn.Parameter]
    optimiser: torch.optim.Optimizer
    pairs: Sequence[tuple[int, int]]
    interface: Interface
    positions: str
    project: Callable[[Tensor], Tensor] | Mapping[int, Callable[[Tensor], Tensor]]
    weights: Mapping[str, float]
    temperature: float = 2.0
    top_k: int = 64
    max_grad_norm: float = 1.0

    def __call__(self, batch: Any) -> dict[str, float]:
        ids, mask = batch.input_ids, batch.attention_mask
        with torch.no_grad(), tap(self.teacher, [t for t, _ in self.pairs], self.interface) as theirs:
            teacher_logits = self.teacher.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        with tap(self.student, [k for _, k in self.pairs], self.interface) as own:
            logits = self.student.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        where = batch.supervised if self.positions == "answer" else mask.bool()
        terms = {"layer": self._layers(own, theirs, where)}
        labels = functional.pad(ids[:, 1:], (0, 1))
        terms |= self._outputs(logits, teacher_logits, labels, batch.supervised)
        self.optimiser.zero_grad()
        torch.stack([self.weights[name] * value for name, value in terms.items()]).sum().backward()
        norm = nn.utils.clip_grad_norm_(list(self.parameters), self.max_grad_norm)
        self.optimiser.step()
        return {name: float(value.detach()) for name, value in terms.items()} | {"norm": float(norm)}

    def _layers(self, own: Mapping[int, Tensor], theirs: Mapping[int, Tensor], where: Tensor) -> Tensor:
        losses = []
        for t, k in self.pairs:
            with torch.no_grad():
                project = self.project[k] if isinstance(self.project, Mapping) else self.project
                targets = project(theirs[t][where].float())
            losses.append(1 - functional.cosine_similarity(own[k][where].float(), targets, dim=-1).mean())
        return torch.stack(losses).mean()

    def _outputs(
        self, logits: Tensor, teacher_logits: Tensor, labels: Tensor, answer: Tensor
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if "output" in self.weights:
            onehot = functional.one_hot(labels, logits.shape[-1]).float()
            cosine = functional.cosine_similarity(logits.float(), onehot, dim=-1)
            found["output"] = 1 - cosine[answer].mean()
        if "kl" in self.weights:
            q, p = ((z.float() / self.temperature).softmax(-1) for z in (logits, teacher_logits))
            kept = p.topk(self.top_k, dim=-1).indices
            q, p = (torch.cat([x.gather(-1, kept), _rest(x, kept)], dim=-1) for x in (q, p))
            found["kl"] = self.temperature**2 * (p * (p.log() - q.log())).sum(-1)[answer].mean()
        if "ce" in self.weights:
            losses = functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
            found["ce"] = losses[answer].mean()
        return found


def _rest(probabilities: Tensor, kept: Tensor) -> Tensor:
    return probabilities.scatter(-1, kept, 0.0).sum(-1, keepdim=True)
