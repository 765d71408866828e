"""The processes of one request, where torchrun or accelerate has started several; accelerate connects them.

    WORLD_SIZE, RANK ── connect ──> Processes ── own ────> a process's part of the work
                                              ── total ──> sums over all of them
                                              ── wait, told ──> the main one goes first

The number of processes changes no result (but for the order in which floats are added), and is in no key; where
adapters have dropout, whose masks each process draws for its own rows, it does and is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

from pkt.errors import PktError, RequestError
from pkt.late import Tensor, nn, torch

T = TypeVar("T")
FSDP = "ACCELERATE_USE_FSDP"  # what accelerate's launcher sets where it is to shard models
PATIENCE = timedelta(days=7)
REFUSED = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


def rank() -> int:
    """Return the number of this process among those of the request, from 0, before they are connected."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def count() -> int:
    """Return how many processes the request has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process, and the others of its request.

    Attributes:
        rank: its number, from 0, which is the main one's.
        count: how many there are.
        accelerator: of accelerate; None where this one is alone.
        shards: whether they share out the student's weights while it trains (FSDP2), beside the rows.
    """

    rank: int = 0
    count: int = 1
    accelerator: Any = None
    shards: bool = False

    @cached_property
    def mesh(self) -> Any:
        """All processes in a line, as torch's FSDP wants them."""
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self.accelerator.device.type, (self.count,))

    @property
    def main(self) -> bool:
        """Whether this one writes results, and talks."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> list[T]:
        """Return this process's part of some work: all of it where it is alone."""
        return list(items[self.rank :: self.count])

    def wait(self) -> None:
        """Wait until all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def in_turn(self, do: Callable[[], T]) -> T:
        """Return what a function returns; the others begin when the main process is done."""
        if not self.main:
            self.wait()
        found = do()
        if self.main:
            self.wait()
        return found

    def told(self, value: T) -> T:
        """Return what the main process says, whatever this one's value is."""
        if self.accelerator is None:
            return value
        from accelerate.utils import broadcast_object_list

        said = [value]
        broadcast_object_list(said)
        return said[0]

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the sums over all processes; all of them have the same names."""
        if self.accelerator is None:
            return dict(numbers)
        # float64 is unknown to Metal, on which there is one process
        flat = torch.tensor([*numbers.values()], dtype=torch.float64, device=self.accelerator.device)
        summed = self.accelerator.reduce(flat, reduction="sum").tolist() if numbers else []
        return dict(zip(numbers, summed, strict=True))

    def averaged(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        found: Tensor = self.accelerator.reduce(tensor, reduction="mean")
        return found

    def joined(self, values: T) -> list[T]:
        """Return every process's value, in the order of their numbers."""
        if self.accelerator is None:
            return [values]
        from accelerate.utils import gather_object

        found: list[T] = gather_object([values])
        return found

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward passes average gradients over all processes."""
        if self.accelerator is None:
            return module
        found: nn.Module = self.accelerator.prepare_model(module)
        return found

    def unsynchronised(self, module: nn.Module) -> Any:
        """Return a context in which backward passes of a wrapped module only add up gradients here."""
        from contextlib import nullcontext

        return nullcontext() if self.accelerator is None else self.accelerator.no_sync(module)


ALONE = Processes()


def connect(device: Callable[[], torch.device]) -> Processes:
    """Connect the processes of a request.

    Args:
        device: gives this one's, where there are several.

    Raises:
        RequestError: accelerate is configured to shard models in another way than by FSDP2.
        PktError: accelerate sees fewer than the launcher has started, or they cannot be connected.
    """
    shards = _shards()
    if count() == 1:
        return ALONE
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

    # accelerate's own default lets the main process alone load weights, which transformers then heeds in every model
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    try:
        accelerator = Accelerator(
            cpu=device().type == "cpu",
            kwargs_handlers=[
                # gradients lie where they are sent from, instead of in a second place
                DistributedDataParallelKwargs(gradient_as_bucket_view=True),
                # torch would give up after 10 minutes (NCCL) on a process that works alone; the launcher ends them all
                # where one fails
                InitProcessGroupKwargs(timeout=PATIENCE),
            ],
        )
    except (RuntimeError, ValueError) as error:
        raise PktError(f"the {count()} processes of this request cannot be connected: {error}") from error
    if accelerator.num_processes != count():
        raise PktError(
            f"WORLD_SIZE={count()}, and accelerate sees {accelerator.num_processes} processes: every one of them would "
            "train alone. Start them with torchrun, or run one"
        )
    return Processes(rank=accelerator.process_index, count=count(), accelerator=accelerator, shards=shards)


def _shards() -> bool:
    """Return whether accelerate is configured to share out the student's weights, by FSDP2.

    Raises:
        RequestError: by something else.
    """
    for name, engine in REFUSED.items():
        if _on(name):
            raise RequestError(
                f"accelerate is configured for {engine} ({name}), which pkt does not run. A student that does not fit "
                "on a device: FSDP with fsdp_version 2, which shares out its layers; or optim.checkpointing=true, "
                "optim.precision=bfloat16, adapters (method.update.kind=lora)"
            )
    if not _on(FSDP):
        return False
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise RequestError(
            f"accelerate is configured for FSDP {version}: pkt runs FSDP 2 (fsdp_version: 2 in accelerate's config, "
            "or accelerate launch --use_fsdp --fsdp_version 2)"
        )
    if _on("FSDP_OFFLOAD_PARAMS"):
        raise RequestError(
            "accelerate is configured to keep what FSDP shares out on the processor (fsdp_offload_params), which pkt "
            "does not do: set it to false, and optim.checkpointing=true or more processes where memory is short"
        )
    return True


def _on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
