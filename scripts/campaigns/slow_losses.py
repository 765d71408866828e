"""What the fast losses and fits stand for, written the slow way in float64: position by position, from the definition.

Nothing here is shared with `pkt`. Shape suffixes: N positions, D width, V vocabulary, T tokens of a sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 1e-6  # share of a length below which float32 cannot tell what is left from round-off


def cosine(states_ND: Tensor, targets_ND: Tensor) -> Tensor:
    """Mean of 1 - cos(h, h*); a zero state or target has cosine 0."""
    return torch.stack([1 - _cos(h, t) for h, t in zip(states_ND, targets_ND, strict=True)]).mean()


def _cos(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.norm() * b.norm()
    return (a * b).sum() / lengths if lengths > 0 else (a * b).sum() * 0


def mean_square(states_ND: Tensor, targets_ND: Tensor) -> Tensor:
    """Mean of (h - h*)^2 over positions and channels."""
    return torch.stack([((h - t) ** 2).mean() for h, t in zip(states_ND, targets_ND, strict=True)]).mean()


def geometry(states_ND: Tensor, targets_ND: Tensor, counts: list[int], relation: str) -> Tensor:
    """Mean distance of the relation geometries over sequences of two tokens or more."""
    distances = []
    for r, target in zip(torch.split(states_ND, counts), torch.split(targets_ND, counts), strict=True):
        if len(r) > 1:
            distances.append(_distance(_about_mean(r), _about_mean(target), relation))
    return torch.stack(distances).mean() if distances else states_ND.sum() * 0


def _about_mean(x_TD: Tensor) -> Tensor:
    mean = x_TD.mean(0)
    rows = [row - mean if (row - mean).norm() > NOTHING * x_TD.norm() else row * 0 for row in x_TD]
    return torch.stack(rows)


def _distance(x: Tensor, y: Tensor, relation: str) -> Tensor:
    if relation == "cosine":
        a, b = (torch.stack([torch.stack([_cos(s, t) for t in side]) for s in side]) for side in (x, y))
        return ((a - b) ** 2).mean()
    a, b = x @ x.T, y @ y.T
    size = a.norm() * b.norm() if a.any() and b.any() else None
    return 1 - (a * b).sum() / size if size is not None else 1 + x.sum() * 0


def output_cosine(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Mean of 1 - cos(z, onehot(y)); logits that are zero have cosine 0."""
    onehot = torch.eye(logits_NV.shape[1], dtype=logits_NV.dtype)
    return torch.stack(
        [1 - _cos(z, onehot[y]) for z, y in zip(logits_NV, labels_N.tolist(), strict=True)]
    ).mean()


def cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Mean of -log softmax(z)[y]."""
    return torch.stack(
        [z.logsumexp(0) - z[y] for z, y in zip(logits_NV, labels_N.tolist(), strict=True)]
    ).mean()


def merged(log_values_V: Tensor, kept: list[int]) -> Tensor:
    """The values at some tokens, and the log-sum-exp of those at all others."""
    rest = [v for v in range(len(log_values_V)) if v not in set(kept)]
    own = log_values_V[kept]
    return torch.cat([own, log_values_V[rest].logsumexp(0)[None]]) if rest else own


def divergence(
    logits_NV: Tensor, teacher_NV: Tensor, *, kind: str, temperature: float, top_k: int | None
) -> Tensor:
    """Mean of tau^2 D(p, q) over the teacher's likeliest tokens and one for the rest."""
    values = []
    for z, wanted in zip(logits_NV, teacher_NV, strict=True):
        kept = wanted.argsort(descending=True)[:top_k].tolist() if top_k else list(range(len(wanted)))
        log_q, log_p = (merged((side / temperature).log_softmax(0), kept) for side in (z, wanted))
        values.append(temperature**2 * _between(log_p, log_q, kind))
    return torch.stack(values).mean()


def _between(log_p: Tensor, log_q: Tensor, kind: str) -> Tensor:
    if kind == "forward":
        return (log_p.exp() * (log_p - log_q)).sum()
    if kind == "reverse":
        return (log_q.exp() * (log_q - log_p)).sum()
    log_m = torch.logaddexp(log_p, log_q) - torch.tensor(2.0, dtype=log_p.dtype).log()
    return ((log_p.exp() * (log_p - log_m)).sum() + (log_q.exp() * (log_q - log_m)).sum()) / 2


def fisher(logits_NV: Tensor, wanted_NV: Tensor, top_k: int | None) -> Tensor:
    """Mean of 1/2 d^T (diag p - p p^T) d, with d = z - z* over the kept tokens and the rest."""
    values = []
    for z, wanted in zip(logits_NV, wanted_NV, strict=True):
        kept = wanted.argsort(descending=True)[:top_k].tolist() if top_k else list(range(len(wanted)))
        target = merged(wanted, kept)
        p, d = target.softmax(0), merged(z, kept) - target
        values.append(0.5 * d @ (torch.diag(p) - torch.outer(p, p)) @ d)
    return torch.stack(values).mean()


def ridge(x_ND: Tensor, y_ND: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """M, mean of X, mean of Y of least squares with sqrt(alpha * mean eigenvalue) I appended to the rows."""
    mean_x, mean_y = x_ND.mean(0), y_ND.mean(0)
    x, y = x_ND - mean_x, y_ND - mean_y
    root = (alpha * torch.linalg.eigvalsh(x.T @ x).mean()).sqrt()
    rows = torch.cat([x, root * torch.eye(x.shape[1], dtype=x.dtype)])
    right = torch.cat([y, y.new_zeros(x.shape[1], y.shape[1])])
    return torch.linalg.lstsq(rows, right, driver="gelsd").solution.T, mean_x, mean_y


def left_out_error(x_ND: Tensor, y_ND: Tensor, penalty: float) -> Tensor:
    """Mean of |y_i - prediction without i|^2, each map fitted anew."""
    errors = []
    for i in range(len(x_ND)):
        rest = [j for j in range(len(x_ND)) if j != i]
        mean_x, mean_y = x_ND[rest].mean(0), y_ND[rest].mean(0)
        a, b = x_ND[rest] - mean_x, y_ND[rest] - mean_y
        solved = torch.linalg.solve(a.T @ a + penalty * torch.eye(a.shape[1], dtype=a.dtype), a.T @ b)
        errors.append(((y_ND[i] - mean_y - (x_ND[i] - mean_x) @ solved) ** 2).sum())
    return torch.stack(errors).mean()


def cka(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Linear CKA by Gram matrices; 0 where a side does not vary."""
    a, b = ((side - side.mean(0)) @ (side - side.mean(0)).T for side in (x_ND, y_ND))
    return (a * b).sum() / (a.norm() * b.norm()) if a.norm() > 0 and b.norm() > 0 else a.sum() * 0


def explained(y_ND: Tensor, h_ND: Tensor) -> Tensor:
    """Share of the variance of h about its mean that y predicts."""
    return 1 - ((h_ND - y_ND) ** 2).sum() / ((h_ND - h_ND.mean(0)) ** 2).sum()
