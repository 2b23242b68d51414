"""Several processes that train one network together, on ``torch.distributed``; each computes some slices of every batch."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Workers:
    """The processes of the default group, in the order of their ranks.

    Gradients are gathered and added in the order of the slices, so that every process, and a single one that computes all
    slices, comes to the same sum; ``all_reduce`` does so for two processes alone.

    Raises:
        ValueError: no process group was begun.
    """

    def __init__(self):
        if not dist.is_initialized():
            raise ValueError("workers are None; accepted are the processes of a group begun by torch.distributed")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gathered(self, own: Tensor) -> list[Tensor]:
        """Every process's tensor of this shape, in the order of the ranks."""
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own.contiguous())
        return parts

    def share_averages(self, model: nn.Module) -> None:
        """Give every process the first one's buffers: batch norm's running averages are its alone."""
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def present() -> Workers | None:
    """The workers that this process is one of; None where it works alone."""
    return Workers() if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 else None


def flat(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """One vector of all tensors; None is zeros."""
    return torch.cat([(torch.zeros_like(p) if t is None else t).reshape(-1) for t, p in zip(tensors, like, strict=True)])
