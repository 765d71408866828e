"""LaTen's hypernetwork: it maps a teacher neuron's weights to what is added to a student neuron's.

    teacher rows (n, D_T) -> g = ReLU(x A^T) B^T -> delta (n, D_S), one g per module (up, down, v, o)

Shape suffixes: n neurons, D_T and D_S widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from pkt.late import Tensor, functional, nn, torch

INITIAL_SPREAD = 1e-5


class HyperNetwork(nn.Module):
    """Two-layer ReLU MLPs without bias, D_T -> D_T -> D_S, one per module; float32, N(0, 1e-5^2) at the start.

    A row of the teacher is mapped along the residual stream, so one MLP serves every layer and neuron.

    Args:
        modules: which projections have one.
        teacher_width: D_T.
        student_width: D_S.
        seed: of the start, which is drawn on the CPU: the same on every machine.
    """

    def __init__(self, modules: Sequence[str], *, teacher_width: int, student_width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = {"first": (teacher_width, teacher_width), "second": (student_width, teacher_width)}
        self.maps = nn.ModuleDict(
            {
                module: nn.ParameterDict(
                    {
                        name: nn.Parameter(torch.randn(shape, generator=generator) * INITIAL_SPREAD)
                        for name, shape in shapes.items()
                    }
                )
                for module in modules
            }
        )

    def forward(self, module: str, rows_nD: Tensor) -> Tensor:
        """Return g(rows) of one module, (n, D_S)."""
        weights = self.maps[module]
        assert isinstance(weights, nn.ParameterDict)
        # float32 also under autocast: the start is smaller than a bfloat16 step around anything else
        with torch.autocast(rows_nD.device.type, enabled=False):
            hidden_nD = torch.relu(functional.linear(rows_nD.float(), weights["first"]))
            return functional.linear(hidden_nD, weights["second"])
