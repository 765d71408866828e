"""Where a LoRA adapter starts, if not from zero: at the leading singular directions of a matrix.

    W (out, in) = U S V^T  ->  scale * B0 A0 = U_r S_r V_r^T,  scale = alpha / rank
    what runs: W x + scale (B A drop(x) - B0 A0 x),  (A, B) = (A0, B0) at the beginning

This is LoRA from (A0, B0) on W - scale B0 A0: a start chooses a subspace, and the student's function is unchanged at
the beginning. B0 A0 is a second, frozen peft adapter instead of being subtracted from W: the same function and
gradient, without a float32 copy of W and without rounding W - scale B0 A0 to the student's dtype.
Shape suffixes: O outputs, I inputs, r rank.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pkt.late import Tensor, nn, peft, torch, transformers
from pkt.models.surgery import matrix_OI

TRAINED, _TAKEN_OFF = "default", "start"  # names of the two adapters
EXACT_UP_TO = 1024  # smaller side of a matrix whose SVD is computed in full
_OVERSAMPLING = 16
_ITERATIONS = 8


@dataclass(frozen=True, kw_only=True)
class LoraStart:
    """Factors by module path of the model, float32: A (rank, in) and B (out, rank)."""

    factors: Mapping[str, tuple[Tensor, Tensor]]


def truncated_svd(matrix_OI: Tensor, rank: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading `rank` singular triplets (U_Or, s_r, Vt_rI) of a matrix, float32 on the CPU.

    A full float64 decomposition where the smaller side is at most `EXACT_UP_TO`; above, randomised subspace
    iteration (16 extra directions, 8 iterations, a generator seeded with `seed`). In each triplet the entry of
    V with the largest magnitude is positive, so that the result does not depend on the solver's signs.

    Args:
        matrix_OI: any real dtype.
        rank: at most the smaller side.
        seed: of the randomised start.

    Raises:
        ValueError: a rank that the matrix cannot have.

    Source: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithm 4.4.
    """
    smaller = min(matrix_OI.shape)
    if not 1 <= rank <= smaller:
        raise ValueError(f"rank={rank}: a {tuple(matrix_OI.shape)} matrix has ranks from 1 to {smaller}")
    if smaller <= EXACT_UP_TO:
        U_OK, s_K, Vt_KI = torch.linalg.svd(matrix_OI.detach().cpu().double(), full_matrices=False)
    else:
        U_OK, s_K, Vt_KI = _randomised(matrix_OI.detach().float(), rank, seed)
    U_Or, s_r, Vt_rI = U_OK[:, :rank], s_K[:rank], Vt_KI[:rank]
    signs_r = Vt_rI.gather(1, Vt_rI.abs().argmax(1, keepdim=True)).sign()[:, 0]
    signs_r[signs_r == 0] = 1.0
    return (U_Or * signs_r).float().contiguous(), s_r.float(), (Vt_rI * signs_r[:, None]).float().contiguous()


def _randomised(matrix_OI: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    width = min(rank + _OVERSAMPLING, *matrix_OI.shape)
    generator = torch.Generator().manual_seed(seed)
    probe_IK = torch.randn(matrix_OI.shape[1], width, generator=generator).to(matrix_OI.device)
    Q_OK = torch.linalg.qr(matrix_OI @ probe_IK)[0]
    for _ in range(_ITERATIONS):
        Z_IK = torch.linalg.qr(matrix_OI.T @ Q_OK)[0]
        Q_OK = torch.linalg.qr(matrix_OI @ Z_IK)[0]
    small_KI = (Q_OK.T @ matrix_OI).cpu().double()
    U_KK, s_K, Vt_KI = torch.linalg.svd(small_KI, full_matrices=False)
    return Q_OK.cpu().double() @ U_KK, s_K, Vt_KI


def seeking_factors(
    matrix_OI: Tensor, rank: int, alpha: float, *, spectrum: str = "teacher", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return A = V_r^T and B = U_r S_r / scale: the rank-r part of a matrix, all of S on B's side.

    Args:
        matrix_OI: the extracted matrix.
        rank: r.
        alpha: LoRA alpha; scale = alpha / rank.
        spectrum: ``teacher``, or ``gaussian``: the same singular values on the singular vectors of a Gaussian
            matrix (uniformly random orthonormal ones) - the control for what the directions are worth.
        seed: of the randomised SVD and of the Gaussian.

    Source: Zhong et al., "Seeking Neural Nuggets" (ICLR 2024), section 3.3.
    """
    U_Or, s_r, Vt_rI = truncated_svd(matrix_OI, rank, seed=seed)
    if spectrum == "gaussian":
        generator = torch.Generator().manual_seed(seed)
        U_Or = _orthonormal(U_Or.shape[0], rank, generator)
        Vt_rI = _orthonormal(Vt_rI.shape[1], rank, generator).T.contiguous()
    return Vt_rI, U_Or * (s_r * (rank / alpha))


def pissa_factors(matrix_OI: Tensor, rank: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Return A = sqrt(S_r / scale) V_r^T and B = U_r sqrt(S_r / scale): the rank-r part, split evenly.

    Args:
        matrix_OI: the student's own matrix.
        rank: r.
        alpha: LoRA alpha; scale = alpha / rank.

    Source: Meng, Wang, Zhang, "PiSSA" (NeurIPS 2024), equations 2 to 4.
    """
    U_Or, s_r, Vt_rI = truncated_svd(matrix_OI, rank)
    root_r = (s_r * (rank / alpha)).sqrt()
    return root_r[:, None] * Vt_rI, U_Or * root_r


def _orthonormal(size: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return `rank` uniformly random orthonormal columns (QR with a positive diagonal of R)."""
    Q, R = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64))
    columns: Tensor = (Q * R.diagonal().sign()).float()
    return columns


@torch.no_grad()
def begin(adapter: peft.PeftModel, config: Any, start: LoraStart) -> None:
    """Set the trained adapter to (A0, B0), and take scale B0 A0 off with a second, frozen one.

    Args:
        adapter: a PEFT model with the adapter that trains.
        config: its LoRA config.
        start: factors of every adapted module.
    """
    frozen = copy.copy(config)
    frozen.lora_dropout = 0.0
    adapter.add_adapter(_TAKEN_OFF, frozen)
    adapter.base_model.set_adapter([TRAINED, _TAKEN_OFF])
    for path, (A_rI, B_Or) in start.factors.items():
        module = adapter.get_base_model().get_submodule(path)
        for name, sign in ((TRAINED, 1.0), (_TAKEN_OFF, -1.0)):
            own_A, own_B = _factors(module, name)
            assert own_A.shape == A_rI.shape, path
            assert own_B.shape == B_Or.shape, path
            own_A.data = A_rI.to(own_A.device, torch.float32, copy=True)
            own_B.data = B_Or.to(own_B.device, torch.float32) * sign
            own_A.requires_grad_(name == TRAINED)
            own_B.requires_grad_(name == TRAINED)


def joined(adapter: peft.PeftModel) -> dict[str, Tensor]:
    """Return the weights of a single adapter of twice the rank, [B, -B0] [A; A0], under peft's names."""
    trained, taken = (
        peft.get_peft_model_state_dict(adapter, adapter_name=name, save_embedding_layers=False)
        for name in (TRAINED, _TAKEN_OFF)
    )
    assert trained.keys() == taken.keys()
    return {
        name: torch.cat([value, taken[name]], dim=1 if "_B" in name else 0).detach().cpu().contiguous()
        for name, value in trained.items()
    }


@torch.no_grad()
def folded(adapter: peft.PeftModel) -> transformers.PreTrainedModel:
    """Fold W + scale (B A - B0 A0) into the student, in its own dtype, and return it without adapters."""
    for module in _wrapped(adapter):
        weight_OI = matrix_OI(module)
        # one sum in float32: adding the two adapters one after the other would round in between
        weight_OI.copy_(weight_OI.float() + _change_OI(module))
    plain: transformers.PreTrainedModel = adapter.unload()
    return plain


def _wrapped(adapter: peft.PeftModel) -> Iterator[nn.Module]:
    for module in adapter.modules():
        if hasattr(module, "base_layer") and hasattr(module, "scaling"):
            yield module


def _factors(module: Any, name: str) -> tuple[Tensor, Tensor]:
    """Return A (r, in) and B (out, r) of one adapter of a module; an embedding's inputs are its tokens."""
    if name in module.lora_embedding_A:
        return module.lora_embedding_A[name], module.lora_embedding_B[name]
    return module.lora_A[name].weight, module.lora_B[name].weight


def _change_OI(module: Any) -> Tensor:
    """Return scale (B A - B0 A0) of a module, (out, in), float32."""
    total = None
    for name in (TRAINED, _TAKEN_OFF):
        A_rI, B_Or = _factors(module, name)
        change_OI: Tensor = module.scaling[name] * (B_Or.float() @ A_rI.float())
        total = change_OI if total is None else total + change_OI
    assert total is not None
    return total
