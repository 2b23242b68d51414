"""Several processes that train one network together, on ``torch.distributed``; each computes some slices of every batch."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Workers wait for each other as long as it takes: while the first does alone what is not divided. One that dies is known at
# once by its connections.
PATIENCE = timedelta(days=7)


class WorkersLost(RuntimeError):
    """A worker died, failed or was told to end: the others cannot go on without it, nor with another run."""


class Workers:
    """The processes of the default group, in the order of their ranks.

    Gradients are gathered and added in the order of the slices, so that every process, and a single one that computes all
    slices, comes to the same sum; ``all_reduce`` does so for two processes alone. All methods are called by every worker; they
    raise :class:`WorkersLost` where one of them is gone.

    Raises:
        ValueError: no process group was begun.
    """

    def __init__(self):
        if not dist.is_initialized():
            raise ValueError("workers are None; accepted are the processes of a group begun by torch.distributed")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @property
    def first(self) -> bool:
        """Whether this process is the one that plans, evaluates and writes."""
        return self.rank == 0

    def gathered(self, own: Tensor) -> list[Tensor]:
        """Every process's tensor of this shape, in the order of the ranks."""
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with self._all_there():
            dist.all_gather(parts, own.contiguous())
        return parts

    def told(self, value: Any = None) -> Any:
        """What the first worker says, to all of them."""
        values = [value]
        with self._all_there():
            dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    def agreed(self, decision: bool) -> bool:
        """What the first worker decides; as :meth:`told`, and quick enough for every update."""
        flag = torch.tensor(decision, dtype=torch.uint8)
        with self._all_there():
            dist.broadcast(flag, 0)
        return bool(flag)

    @contextmanager
    def _all_there(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise WorkersLost(_lost(self.size)) from error


def _lost(size: int) -> str:
    return (
        f"one of {size} workers is gone, and the others end; what is recorded stays, and the next start goes on from the last "
        "checkpoint"
    )


def present() -> Workers | None:
    """The workers that this process is one of; None where it works alone."""
    return Workers() if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 else None


def launched() -> int:
    """How many processes a launcher such as torchrun has started, this one among them; 1 where there was none."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() else 1


@contextmanager
def group() -> Iterator[Workers | None]:
    """Inside, the processes that torchrun has started are a group; None where this one was started alone.

    Tensors on a GPU, each worker's own, travel by NCCL, those on the CPU by Gloo. At its end, the first worker lets the others
    go, who wait in :meth:`Workers.told`.

    Raises:
        ValueError: more workers than GPUs on a machine that has any.
    """
    if launched() == 1:
        yield None
        return
    backend = "gloo"
    if torch.cuda.is_available():
        own, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if own >= gpus:
            of = "1 GPU accepted is 1" if gpus == 1 else f"{gpus} GPUs accepted is 1 to {gpus}"
            raise ValueError(f"nproc-per-node is above {own}; with {of}")
        torch.cuda.set_device(own)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    workers = Workers()
    if workers.first:  # a launcher ends the others of one that died by SIGTERM
        signal.signal(signal.SIGTERM, _told_to_end)
    lost = False
    try:
        yield workers
    except (WorkersLost, KeyboardInterrupt):
        lost = True
        raise
    finally:
        if not lost:
            if workers.first:
                workers.told(None)
            dist.destroy_process_group()


def _told_to_end(*_) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise WorkersLost(_lost(launched()))


def flat(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """One vector of all tensors; None is zeros."""
    return torch.cat([(torch.zeros_like(p) if t is None else t).reshape(-1) for t, p in zip(tensors, like, strict=True)])
