"""Gradient rules: how a batch's gradient comes into ``.grad``. Plain, in slices, and at a worse point (SAM)."""

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lbgap.ascent import ascended
from lbgap.evaluate import averages_kept
from lbgap.pictures import Pictures
from lbgap.spec import SamSpec
from lbgap.workers import Workers, flat

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # inputs, targets -> mean loss, summed score


def fill(
    model: nn.Module,
    parameters: Sequence[Tensor],
    forward: Forward,
    x: Tensor | Pictures,
    y: Tensor,
    slice_size: int | None = None,
    sam: SamSpec | None = None,
    workers: Workers | None = None,
    before_slice: Callable[[int], None] | None = None,
    normalised_by: str = "batch",
    decays: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Put the gradient of a batch into ``.grad``; returns the mean loss and the summed score at the weights as they are.

    With ``slice_size`` n the batch is cut into slices of n (the last one smaller), as so many workers would each compute
    one: the gradients, each weighted by its share of the batch, are added in the order of the slices; batch norm takes its
    statistics of each slice, and its running averages those of the first, the only ones that
    DistributedDataParallel keeps. With ``sam`` each slice's gradient is that at its own w + e(w). ``normalised_by`` "slice"
    leaves the weights out: the slices' means are added, where the batch's is meant (Goyal et al. 2017, section 3, remark 3).

    ``workers`` compute the slices in turn, one each, and end with the sum that one process would have made. ``before_slice``
    is called with a slice's number before it is computed: what is random in it must not depend on which process computes it.
    ``decays`` are the parameters' weight decays where they enter the ``sam``'s ascent. Of a DistributedDataParallel the last
    backward pass alone exchanges gradients.
    """
    for p in parameters:
        p.grad = None
    if slice_size is None:
        return _slice(model, parameters, forward, x[:], y, 1.0, sam, decays, keep=False, last=True)
    slices = math.ceil(len(y) / slice_size)
    found: list[tuple[Tensor, Tensor]] = []

    def compute(i: int) -> None:
        own = slice(i * slice_size, (i + 1) * slice_size)
        part, targets = x[own], y[own]  # pictures are decoded here, a slice at a time
        if before_slice:
            before_slice(i)
        share = len(targets) / len(y)
        weight, last = 1.0 if normalised_by == "slice" else share, i == slices - 1
        loss, score = _slice(model, parameters, forward, part, targets, weight, sam, decays, keep=i > 0, last=last)
        found.append((loss * share, score))

    if workers is None:
        for i in range(slices):
            compute(i)
    else:
        found = _in_turn(parameters, slices, compute, found, workers)
    losses, scores = zip(*found, strict=True)
    return torch.stack(losses).sum(), torch.stack(scores).sum()


def _in_turn(
    parameters: Sequence[Tensor],
    slices: int,
    compute: Callable[[int], None],
    found: list[tuple[Tensor, Tensor]],
    workers: Workers,
) -> list[tuple[Tensor, Tensor]]:
    """Every worker computes one slice of each round; all add what they found in the order of the slices."""
    total, everywhere = None, []
    for first in range(0, slices, workers.size):
        for p in parameters:
            p.grad = None
        own = first + workers.rank < slices
        if own:
            compute(first + workers.rank)
        vector = flat([p.grad for p in parameters], parameters)
        numbers = torch.stack([n.double() for n in found[-1]]) if own else vector.new_zeros(2, dtype=torch.float64)
        # one message a round: the numbers' bits travel as so many more of the gradient's
        parts = workers.gathered(torch.cat([vector, numbers.view(vector.dtype)]))
        for part in parts[: slices - first]:
            part, bits = part.split([len(vector), len(part) - len(vector)])
            total = part if total is None else total + part
            loss, score = bits.clone().view(torch.float64)
            everywhere.append((loss.float(), score))
    for p, part in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p).clone()
    return everywhere


def _slice(
    model: nn.Module,
    parameters: Sequence[Tensor],
    forward: Forward,
    x: Tensor,
    y: Tensor,
    weight: float,
    sam: SamSpec | None,
    decays: Sequence[float] | None,
    keep: bool,
    last: bool,
) -> tuple[Tensor, Tensor]:
    """Add one slice's gradient, times its ``weight``; ``keep``: batch norm's running averages stay."""
    if sam is None:
        with _alone(model, not last):
            with averages_kept(model, keep):
                loss, score = forward(x, y)
            (loss if weight == 1.0 else loss * weight).backward()
        return loss.detach(), score
    settled = {"rho": sam.rho, "norm": sam.norm, "adaptive": sam.adaptive}
    at_w, gradients = None, None
    for ascent in range(sam.ascents):
        # passes of one update share their dropout masks: all but the last leave the generators as they found them
        with _generators_kept(x, *parameters), _mode(model, sam.inference_mode != "none"), _alone(model):
            with averages_kept(model, keep or ascent > 0 or sam.averages == "last"):
                with nullcontext() if gradients is None else ascended(parameters, gradients=gradients, **settled):
                    loss, score = forward(x, y)
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                    if decays is not None:  # of the weights where the gradient was taken, as if they were part of the loss
                        gradients = _decayed(gradients, parameters, decays)
        at_w = at_w or (loss.detach(), score)
    there = ascended(parameters, gradients=gradients, **settled)
    with there, _mode(model, sam.inference_mode == "both"), _alone(model, not last):
        with averages_kept(model, keep or sam.averages == "first"):
            loss, _ = forward(x, y)
        (loss if weight == 1.0 else loss * weight).backward()
    return at_w


def _decayed(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], decays: Sequence[float]) -> list[Tensor | None]:
    """g + decay w, where there is a gradient."""
    decayed = zip(gradients, parameters, decays, strict=True)
    return [g if g is None else g.add(p.detach(), alpha=d) for g, p, d in decayed]


def _alone(model: nn.Module, alone: bool = True):
    """Inside, a DistributedDataParallel leaves each process the gradient that it found."""
    return model.no_sync() if alone and isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def _generators_kept(*tensors: Tensor):
    with torch.random.fork_rng(devices={t.device for t in tensors if t.is_cuda}):
        yield


@contextmanager
def _mode(model: nn.Module, inference: bool):
    """Inside, a network in training is in evaluation mode where ``inference`` says so."""
    modes = {m: m.training for m in model.modules()} if inference else {}
    try:
        if inference:
            model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
