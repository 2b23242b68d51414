"""Loss and metric along a path between two solutions (parametric plots, Goodfellow et al. 2015)."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from lbgap.ascent import weights_moved
from lbgap.evaluate import loss_and_metric
from lbgap.measure.objective import unchanged
from lbgap.pauses import Pause, each
from lbgap.tasks import CLASSIFY, Task

SHAPES = ("linear", "curvilinear")


def path(
    model: nn.Module,
    first: dict[str, Tensor],
    second: dict[str, Tensor],
    splits: dict[str, tuple[Tensor, Tensor]],
    shape: str = "linear",
    low: float = -1.0,
    high: float = 2.0,
    points: int = 25,
    batch_norm: str = "batch",
    task: Task = CLASSIFY,
    pause: Pause | None = None,
) -> dict[str, list[float]]:
    """Evaluate between two state dicts: alpha = 0 is ``first``, alpha = 1 is ``second``.

    Keskar et al. 2017, 2.2.1 (linear: alpha x_2 + (1 - alpha) x_1) and appendix D (curvilinear: sin(alpha pi/2) x_2 +
    cos(alpha pi/2) x_1). All parameters are interpolated, buffers are not: interpolated batch-norm buffers would belong to no
    network on the path, so statistics are those of each batch ("batch") or re-estimated at each point on the split "train".

    Args:
        model: a network of the solutions' architecture; its weights and buffers are restored.
        first, second: state dicts of the solutions.
        low, high, points: so many values of alpha, evenly from one to the other, both included.
        splits: name -> (x, y); "train" among them for re-estimated statistics.
        pause: where to go on from, and to save to, point by point.
    Returns:
        ``alpha`` and, per split, ``<name>_loss`` and, named as the task names it, ``<name>_accuracy`` (nats and percent).
    Raises:
        ValueError: unknown shape; "running" statistics, which no point between two solutions has; re-estimated ones without
            a split "train".
    """
    if shape not in SHAPES:
        raise ValueError(f"shape is '{shape}'; accepted are {', '.join(SHAPES)}")
    if batch_norm not in ("batch", "reestimated"):
        raise ValueError(f"batch_norm is '{batch_norm}'; accepted on a path are batch, reestimated")
    if points < 1:
        raise ValueError(f"points is {points}; accepted is 1 or more")
    estimate_on = splits["train"][0] if "train" in splits else None
    # copies: a state dict shares its memory with the model it was taken from, which may be the one moved here
    first, second = ({k: v.detach().clone() for k, v in state.items()} for state in (first, second))
    alphas = [float(a) for a in np.linspace(low, high, points)]

    def at(alpha: float) -> dict[str, float]:
        a, b = (1 - alpha, alpha) if shape == "linear" else (math.cos(alpha * math.pi / 2), math.sin(alpha * math.pi / 2))
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(a * first[name].to(p.device) + b * second[name].to(p.device))
        weights_moved()
        found = {}
        for name, (x, y) in splits.items():
            read = loss_and_metric(model, x, y, batch_norm, estimate_on=estimate_on, task=task)
            found[f"{name}_loss"], found[f"{name}_{task.metric}"] = read
        return found

    with unchanged(model):
        along = each(alphas, at, pause)
    return {"alpha": alphas} | {name: [found[name] for found in along] for name in along[0]}
