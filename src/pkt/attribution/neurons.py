"""Static attribution: how much a layer, or one neuron, raises the log probability of the next token.

    p(y | v) = softmax(W_U (v / d * g))_y      d: the final norm's divisor of the model's final state, one per
                                               row, the same for every layer; g: the final norm's weight
    gain(u | v) = log p(y | v + u) - log p(y | v)

For neurons u = m_j w_j with w_j a column of W_down or W_o. All neurons of a layer take one product P = W_U g w
and one log-sum-exp: with p = p(. | v) and s = m_j P_j / d,

    gain = s_y - log sum_k p_k exp(s_k) = -log sum_k p_k exp(s_k - s_y)

which is the same number without the cancellation of two large logarithms.
Shape suffixes: R rows, D width, V vocabulary, N neurons.

Source: Tan et al., LaTen (ACL 2025), after the static neuron attribution of Yu and Ananiadou (EMNLP 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch

CHUNK_NUMBERS = 2**24  # float32 numbers (neurons x vocabulary) alive at once: 64 MB per temporary


@dataclass(frozen=True, kw_only=True)
class ReadOut:
    """A model's read-out with a divisor per row.

    Attributes:
        weight_VD: W_U with the final norm's weight folded in, W_U diag(g), float32.
        bias_V: the head's bias, or None.
        divisor_R: d.
        target_R: y, int64.
    """

    weight_VD: Tensor
    divisor_R: Tensor
    target_R: Tensor
    bias_V: Tensor | None = None

    def log_probs(self, states_RD: Tensor) -> Tensor:
        """Return log p(. | v), (R, V) float32."""
        logits_RV = (states_RD.float() / self.divisor_R[:, None]) @ self.weight_VD.T
        if self.bias_V is not None:
            logits_RV = logits_RV + self.bias_V.float()
        return logits_RV.log_softmax(-1)


def norm_divisor(final_RD: Tensor, *, eps: float, legacy: bool = False) -> Tensor:
    """Return what the final norm divides each row's final state by, (R) float32.

    Args:
        final_RD: what enters the final norm.
        eps: the norm's own.
        legacy: divide by sqrt(std) over the channels (unbiased), as LaTen's public code does, instead of
            sqrt(mean of squares + eps).
    """
    final_RD = final_RD.float()
    if legacy:
        return final_RD.std(-1).sqrt()
    return (final_RD.square().mean(-1) + eps).sqrt()


def state_gains(read_out: ReadOut, before_RD: Tensor, added_RD: Tensor) -> Tensor:
    """Return log p(y | before + added) - log p(y | before) per row, (R) float32.

    A layer's scores are I_attn (before = x, added = a) and I_ffn (before = x + a, added = f).
    """
    at = read_out.target_R[:, None]
    after_R, before_R = (
        read_out.log_probs(states).gather(1, at)[:, 0] for states in (before_RD + added_RD, before_RD)
    )
    return after_R - before_R


def neuron_gains(
    read_out: ReadOut,
    before_RD: Tensor,
    columns_ND: Tensor,
    activations_RN: Tensor,
) -> Tensor:
    """Return the mean over rows of log p(y | v + m_j w_j) - log p(y | v) for every neuron.

    Args:
        read_out: of the model.
        before_RD: v per row: the residual stream that the sublayer adds to.
        columns_ND: w_j, one row per neuron.
        activations_RN: m_j.

    Returns:
        (N) float32.
    """
    log_probs_RV = read_out.log_probs(before_RD)
    at_once = max(1, CHUNK_NUMBERS // len(read_out.weight_VD))
    scale_RN = activations_RN.float() / read_out.divisor_R[:, None]
    gains = []
    for columns_nD, scale_Rn in zip(
        torch.split(columns_ND, at_once), torch.split(scale_RN, at_once, dim=1), strict=True
    ):
        product_nV = columns_nD.float() @ read_out.weight_VD.T
        total_n = torch.zeros(len(columns_nD), device=product_nV.device)
        for row, target in enumerate(read_out.target_R.tolist()):
            shift_nV = (product_nV - product_nV[:, target, None]) * scale_Rn[row, :, None]
            total_n -= (shift_nV + log_probs_RV[row]).logsumexp(-1)
        gains.append(total_n / len(log_probs_RV))
    return torch.cat(gains)


def best(scores_N: Tensor, count: int) -> Tensor:
    """Return the `count` neurons with the highest scores, best first; of equals, the first; (count) int64.

    Raises:
        ValueError: fewer neurons than asked for, or a score that is not finite.
    """
    if not 0 <= count <= len(scores_N):
        raise ValueError(f"{count} of {len(scores_N)} neurons cannot be chosen")
    if not bool(scores_N.isfinite().all()):
        raise ValueError("a neuron's score is NaN or infinite")
    return scores_N.cpu().argsort(descending=True, stable=True)[:count]
