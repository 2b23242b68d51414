"""Loss and metric on a split, with batch norm read as one chooses."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbgap.pictures import Pictures
from lbgap.tasks import CLASSIFY, Task

# "batch": statistics of each chunk, as the authors' Keras mode 2 evaluates; "running": the buffers, as PyTorch does.
READINGS = ("batch", "running", "reestimated")
CHUNK = 5000
NUMBERS = 100_000_000  # that the inputs of a chunk may have: of large pictures it has fewer than CHUNK


def chunk_of(x: Tensor | Pictures) -> int:
    """How many examples of a split are read at once; of ImageNet 508."""
    return min(CHUNK, max(1, NUMBERS // math.prod(x.shape[1:])))


@contextmanager
def batch_norm_reading(model: nn.Module, reading: str, x: Tensor | None = None, chunk: int = CHUNK) -> Iterator[nn.Module]:
    """Evaluation mode (dropout off) with batch norm in one reading; modes and buffers come back exactly as they were.

    Args:
        reading: "running" uses the buffers; "batch" the statistics of whatever batch is passed; "reestimated" replaces the
            buffers by the averages of the statistics of chunks of ``x`` (of their ghost batches, in ghost batch norm) under
            the present weights.
    Raises:
        ValueError: unknown reading, or "reestimated" without ``x``.
    """
    if reading not in READINGS:
        raise ValueError(f"batch_norm is '{reading}'; accepted are {', '.join(READINGS)}")
    if reading == "reestimated" and x is None:
        raise ValueError("batch_norm is 'reestimated' without data; it needs the training inputs to estimate the statistics on")
    # a batch norm without buffers reads the batch whatever one asks
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    modes = {m: m.training for m in model.modules()}
    buffers = [(m.running_mean, m.running_var, m.num_batches_tracked, m.momentum) for m in norms]
    try:
        model.eval()
        if reading == "batch":
            for m in norms:  # without buffers, PyTorch normalises by the batch in evaluation mode too
                m.running_mean = m.running_var = None
        elif reading == "reestimated":
            for m in norms:
                m.running_mean, m.running_var = torch.zeros_like(m.running_mean), torch.ones_like(m.running_var)
                m.num_batches_tracked = torch.zeros((), dtype=torch.long, device=m.running_mean.device)
                m.momentum = None  # cumulative average
                m.train()
            with torch.no_grad():
                # as nearly of one size as the number of examples allows, since every chunk counts alike
                for part in x.split(math.ceil(len(x) / math.ceil(len(x) / chunk))):
                    model(part)
            model.eval()
        yield model
    finally:
        for m, (mean, var, count, momentum) in zip(norms, buffers, strict=True):
            m.running_mean, m.running_var, m.num_batches_tracked, m.momentum = mean, var, count, momentum
        for m, mode in modes.items():
            m.training = mode


@torch.no_grad()
def loss_and_metric(
    model: nn.Module,
    x: Tensor | Pictures,
    y: Tensor,
    batch_norm: str = "batch",
    chunk: int | None = None,
    estimate_on: Tensor | None = None,
    task: Task = CLASSIFY,
) -> tuple[float, float]:
    """A task's mean loss and metric over (x, y), in chunks, dropout off; of classification, nats and accuracy in percent.

    Args:
        chunk: examples read at once, by default those of :func:`chunk_of`.
        estimate_on: the training inputs, on which the reading "reestimated" takes its statistics.
    Raises:
        ValueError: unknown reading, or "reestimated" without ``estimate_on``.
    """
    loss, score, count, carry = 0.0, 0.0, 0, None
    chunk = chunk or chunk_of(x)
    with batch_norm_reading(model, batch_norm, estimate_on, chunk):
        for part, targets in task.parts(x, y, chunk):
            outputs, carry = task.predict(model, part, carry)
            loss += float(task.loss(outputs.double(), targets, reduction="sum"))
            score += float(task.score(outputs.double(), targets))
            count += task.count(targets)
    return loss / count, task.metric_of(loss / count, score / count)


@contextmanager
def averages_kept(model: nn.Module, keep: bool = True) -> Iterator[nn.Module]:
    """Batch norm's running averages stay as they are in what is run inside; with ``keep`` False they move as usual.

    Layers in evaluation mode read their averages and never move them: they are left alone.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.running_mean is not None]
    norms = norms if keep else []
    buffers = [(m.running_mean, m.running_var) for m in norms]
    counts = [m.num_batches_tracked for m in norms]
    try:
        for m in norms:
            m.running_mean = m.running_var = m.num_batches_tracked = None
        yield model
    finally:
        for m, (mean, variance), count in zip(norms, buffers, counts, strict=True):
            m.running_mean, m.running_var, m.num_batches_tracked = mean, variance, count
