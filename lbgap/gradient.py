"""Gradient rules: how a batch's gradient comes into ``.grad``. Plain, in slices, and at a worse point (SAM)."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from lbgap.evaluate import averages_kept
from lbgap.sam import ascended
from lbgap.spec import SamSpec

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # inputs, targets -> mean loss, summed score


def fill(
    model: nn.Module,
    parameters: Sequence[Tensor],
    forward: Forward,
    x: Tensor,
    y: Tensor,
    slice_size: int | None = None,
    sam: SamSpec | None = None,
) -> tuple[Tensor, Tensor]:
    """Put the gradient of a batch into ``.grad``; returns the mean loss and the summed score at the weights as they are.

    With ``slice_size`` n the batch is cut into slices of n (the last one smaller), as so many workers would each compute
    one: the gradients, each weighted by its share of the batch, are added in the order of the slices; batch norm takes its
    statistics of each slice, and its running averages those of the first, the only ones that
    DistributedDataParallel keeps. With ``sam`` each slice's gradient is that at its own w + e(w).
    """
    for p in parameters:
        p.grad = None
    if slice_size is None or slice_size >= len(y):
        return _slice(model, parameters, forward, x, y, 1.0, sam, keep=False)
    losses, scores = [], []
    for i, (part, targets) in enumerate(zip(x.split(slice_size), y.split(slice_size), strict=True)):
        share = len(targets) / len(y)
        loss, score = _slice(model, parameters, forward, part, targets, share, sam, keep=i > 0)
        losses.append(loss * share)
        scores.append(score)
    return torch.stack(losses).sum(), torch.stack(scores).sum()


def _slice(
    model: nn.Module,
    parameters: Sequence[Tensor],
    forward: Forward,
    x: Tensor,
    y: Tensor,
    share: float,
    sam: SamSpec | None,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Add one slice's gradient, times its share of the batch; ``keep``: batch norm's running averages stay."""
    if sam is None:
        with averages_kept(model, keep):
            loss, score = forward(x, y)
        (loss if share == 1.0 else loss * share).backward()
        return loss.detach(), score
    settled = {"rho": sam.rho, "norm": sam.norm, "adaptive": sam.adaptive}
    at_w, gradients = None, None
    for ascent in range(sam.ascents):
        # passes of one update share their dropout masks: all but the last leave the generators as they found them
        with _generators_kept(x), _mode(model, sam.inference_mode != "none"):
            with averages_kept(model, keep or ascent > 0 or sam.averages == "last"):
                with nullcontext() if gradients is None else ascended(parameters, gradients=gradients, **settled):
                    loss, score = forward(x, y)
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        at_w = at_w or (loss.detach(), score)
    with ascended(parameters, gradients=gradients, **settled), _mode(model, sam.inference_mode == "both"):
        with averages_kept(model, keep or sam.averages == "first"):
            loss, _ = forward(x, y)
        (loss if share == 1.0 else loss * share).backward()
    return at_w


@contextmanager
def _generators_kept(x: Tensor):
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
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
