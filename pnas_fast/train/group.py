"""The processes that train one network together, as `torchrun` starts them; often a single one."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


class GroupError(ValueError):
    """Processes that cannot train together; the message says why."""


@dataclass(frozen=True, slots=True)
class Group:
    """This process's place among those that train together.

    Every process must call the methods that exchange something, in the same order. One that dies makes
    those of the others raise, and `torchrun` ends them.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to people; all others are silent."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over the processes, in one exchange."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def any(self, value: bool) -> bool:
        """Whether any process says yes; no GPU waits for the answer."""
        return value if self.size == 1 else bool(self.sum(torch.tensor(int(value))))

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self.agree(0)

    def agree(self, value: int) -> bool:
        """Whether all processes say the same; none goes on before all have spoken."""
        if self.size == 1:
            return True
        extremes = torch.tensor([value, -value])
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        return int(extremes[0]) == -int(extremes[1])


def processes() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """The group that `torchrun`'s environment variables name, or this process alone.

    Args:
        device: tensors on ``cpu`` are exchanged over gloo, those on ``cuda`` over nccl, one GPU a process.

    Raises:
        GroupError: fewer GPUs than processes on this machine.
    """
    if processes() == 1:
        yield Group()
        return
    if device == "cuda":
        own, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= gpus:
            raise GroupError(f"process {own + 1} on a machine with {gpus} GPUs, allowed is one process a GPU")
        torch.cuda.set_device(own)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
        # Where PyTorch's compiler is imported, as by the triton backend, a cycle of references keeps the
        # group's threads until the interpreter ends, which then aborts as often as not.
        gc.collect()
