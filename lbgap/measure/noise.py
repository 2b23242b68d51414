"""The gradient noise scale: at which batch size the noise of the gradient is as large as the gradient."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lbgap.evaluate import CHUNK, batch_norm_reading
from lbgap.measure.objective import LossOf, Objective, mean_cross_entropy, whole_number
from lbgap.measure.parts import check_examples, disjoint
from lbgap.pauses import Pause, each

ESTIMATORS = ("two-batch", "per-example")
AT_ONCE = 1 << 26  # scalars of single examples' gradients in memory


def noise_scale(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    estimator: str = "two-batch",
    small: int = 128,
    big: int = 1024,
    draws: int | None = None,
    batch_norm: str = "running",
    loss: LossOf = mean_cross_entropy,
    seed: int = 0,
    data: Tensor | None = None,
    pause: Pause | None = None,
) -> dict[str, float]:
    """The simple noise scale of McCandlish et al. 2018 (equation 2.9), B = tr(Sigma) / |G|^2.

    G is the gradient of the expected loss, Sigma the covariance of the gradient of one example. Numerator and denominator are
    estimated without bias from the mean squared gradients of batches of two sizes b < B (appendix A.1):

        |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b),    tr(Sigma) = (|G_b|^2 - |G_B|^2) / (1/b - 1/B).

    Each is averaged over ``draws`` before one is divided by the other; the ratio of the two averages is not unbiased. Batches
    are drawn without replacement, so that the estimates are those of the distribution which the examples are a sample of.

    "two-batch": a draw is a big batch of disjoint small ones, whose mean gradient is G_B, as where each of several workers
    has a small batch. "per-example": the same with b = 1 and one draw, all n examples; gradients of single examples are
    taken many at once by ``torch.func.vmap``, with batch norm in evaluation mode. Weights, buffers and modes are restored
    exactly; dropout is off.

    Args:
        x, y: a sample of the training set, (n, ...) and (n,).
        small, big, draws: of "two-batch": the two batch sizes, the second a multiple of the first, and how many big batches;
            None for as many as the set has.
        batch_norm: "running", "reestimated" (from ``data``), and of "two-batch" also "batch", the statistics of each small
            batch.
        loss: makes the mean loss over (x, y) into a callable on the model.
        seed: of the shuffling.
        pause: where to go on from, and to save to, draw by draw.
    Returns:
        ``noise_scale`` in examples (infinite where the estimate of |G|^2 is not above 0), ``trace``, ``gradient_squared``,
        and ``draws``.
    Raises:
        ValueError: a bad argument; weights of half precision; a gradient that is not finite; a network that vmap cannot run.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is '{estimator}'; accepted are {', '.join(ESTIMATORS)}")
    check_examples(x, y, 2)
    whole_number("seed", seed, 0)
    if estimator == "per-example":
        if batch_norm == "batch":
            raise ValueError("batch_norm is 'batch'; accepted for single examples are running, reestimated")
        small, big, draws = 1, len(x), 1
    whole_number("big", big, 2, len(x))
    whole_number("small", small, 1, big - 1)
    if big % small:
        raise ValueError(f"big is {big}; accepted is a multiple of small, {small}")
    if draws is None:
        draws = len(x) // big
    whole_number("draws", draws, 1, len(x) // big)
    objective = Objective(model, loss(x, y))

    def estimates(drawn: tuple[Tensor, Tensor]) -> tuple[float, float]:
        """Of |G|^2 and of tr(Sigma)."""
        found = (
            _of_examples(objective, loss, *drawn) if estimator == "per-example" else _of_parts(objective, loss, *drawn, small)
        )
        squared, total = 0.0, torch.zeros_like(objective.origin, dtype=torch.float64)
        for rows in found:
            squared += float(rows.double().square().sum())
            total += rows.double().sum(0)
        of_small, of_big = squared * small / big, float((total * small / big).square().sum())
        if not math.isfinite(of_small):
            raise ValueError("gradient is not finite at the solution; accepted is a finite gradient")
        return (big * of_big - small * of_small) / (big - small), (of_small - of_big) / (1 / small - 1 / big)

    with objective.restoring(), batch_norm_reading(model, batch_norm, data, CHUNK):
        gradients, trace = zip(*each(disjoint(x, y, big, draws, seed), estimates, pause), strict=True)
    squared, variance = sum(gradients) / len(gradients), sum(trace) / len(trace)
    scale = variance / squared if squared > 0 else math.inf
    return {"noise_scale": scale, "trace": variance, "gradient_squared": squared, "draws": draws}


def _of_parts(objective: Objective, loss: LossOf, x: Tensor, y: Tensor, size: int) -> Iterator[Tensor]:
    """The gradient of every part of ``size`` examples, (1, n) each."""
    for part in zip(x.split(size), y.split(size), strict=True):
        objective.loss = loss(*part)
        yield objective.at_solution()[1][None]


def _of_examples(objective: Objective, loss: LossOf, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """The gradient of every example, (rows, n) at a time."""
    model = objective.model
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def of_one(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        terms = loss(x[None], y[None])(lambda inputs: torch.func.functional_call(model, weights, (inputs,)))
        return terms if isinstance(terms, Tensor) else sum(terms)

    of_all = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))
    rows = max(1, AT_ONCE // len(objective.origin))
    for part in zip(x.split(rows), y.split(rows), strict=True):
        try:
            found = of_all(weights, *part)
        except RuntimeError as error:
            raise ValueError(
                "estimator is 'per-example'; torch.func.vmap cannot run this network, for which accepted is 'two-batch' (with "
                "small=1 it takes single examples one after another)"
            ) from error
        yield torch.cat([g.reshape(len(g), -1) for g in found.values()], dim=1)  # a weight may be a scalar
