"""Sharpness, metric 2.1 of Keskar et al. 2017: how far the loss can rise inside a small box around a solution."""

from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor, nn

from lbgap.measure.box import STARTS, Coordinates, full_space, neighbourhood, random_subspace
from lbgap.measure.objective import Loss, Objective, above_zero, whole_number
from lbgap.measure.subspace import check_scale

SPACES = ("full", "random")


@dataclass(frozen=True)
class Sharpness:
    """The metric and everything needed to judge it.

    ``value`` = 100 (``loss_max`` - ``loss``) / (1 + ``loss``). ``message`` is the solver's own, after a word on the start where
    that is not the one asked for; ``at_bound`` the fraction of coordinates on the box's border at the best point; ``scaling``
    the factor the objective was multiplied by.
    """

    value: float
    loss: float
    loss_max: float
    iterations: int
    evaluations: int
    at_bound: float
    scaling: float
    message: str

    def as_dict(self) -> dict:
        """Plain values for a record."""
        return asdict(self)


def sharpness(
    model: nn.Module,
    loss: Loss,
    epsilon: float = 1e-3,
    space: str = "full",
    p: int = 100,
    seed: int = 0,
    batch_norm: str = "batch",
    iterations: int = 10,
    scaling: float | str = "auto",
    tolerance: float | str = 0.0,
    start: str = "solution",
    subspace_scale: str | float = "box",
    data: Tensor | None = None,
) -> Sharpness:
    """Maximise the loss over a box around the present weights with L-BFGS-B (SciPy), inexactly.

    Full space (A = I): |z_i| <= epsilon (|x_i| + 1) for every trainable scalar x_i. Random subspace: z = A y with A of
    :class:`RandomSubspace` and |y_i| <= epsilon (|(A^+ x)_i| + 1). Weights, buffers and modes are restored exactly;
    dropout is off.

    The value is a lower bound. Ten iterations, the paper's number, found 0.68 to 0.97 of the best rise known (from more
    iterations, other starts and scalings) on solutions of the paper's networks, and less of a large batch's than of a small
    batch's, so that their ratio is undercounted too; the chapter's table of rulers has ten and a hundred for both.

    >>> import torch
    >>> from lbgap.measure import mean_cross_entropy, sharpness
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(64, 4), torch.randint(3, (64,))
    >>> result = sharpness(model, mean_cross_entropy(x, y), epsilon=1e-3)
    >>> result.value > 0, result.message != ""
    (True, True)

    Args:
        loss: callable on the model, returning a scalar tensor or an iterable of terms to be summed. It should be the
            loss of the whole training set, and deterministic.
        epsilon: half-width of the box (relative to 1 + |x_i|), > 0.
        space: "full" or "random"; ``p`` and ``seed`` belong to the latter.
        batch_norm: "batch" (statistics of each batch the loss passes, the authors' Keras mode 2), "running", or
            "reestimated" (from ``data``, inputs of the training set, under the solution's weights).
        iterations: L-BFGS-B iterations; the paper's "inexact" is 10.
        scaling: factor on the objective inside the solver. L-BFGS-B's first trial step is the gradient itself, which near a
            minimum is far shorter than the box, so that unscaled it can stop with nothing found. "auto" gives the
            gradient at the start the length of the box's half diagonal (the solver then cuts the step to the box,
            coordinate by coordinate); a number sets the factor.
        tolerance: the solver's ``ftol`` and ``gtol``; 0 leaves ``iterations`` alone to end the search, "scipy" takes
            SciPy's defaults (2.2e-9 and 1e-5).
        start: "solution" (z = 0) or "random" (uniform in the box, from ``seed``). Where the gradient at the solution is exactly
            0 there is nothing to follow: the search then starts at random too, and ``message`` says so.

    Returns:
        A :class:`Sharpness`; its ``value`` is taken at the best point evaluated, the solution included, so it is >= 0, and
        ``message`` says why the solver stopped.

    Raises:
        ValueError: a bad argument; weights of half precision, or a box too small for the weights' precision; a loss that is not
            finite or below 0 at the solution, where the metric has no meaning.
    """
    check_arguments(epsilon, space, iterations, scaling, tolerance, start, seed, subspace_scale)

    def coordinates(objective: Objective) -> Coordinates:
        if space == "full":
            return full_space(objective, epsilon)
        return random_subspace(objective, epsilon, p, seed, subspace_scale)

    with neighbourhood(model, loss, coordinates, batch_norm, data) as around:
        if around.loss < 0:
            raise ValueError(f"loss is {around.loss} at the solution; accepted is a loss of 0 or more")
        found = around.climb(iterations, seed, start, scaling, tolerance)
        return Sharpness(
            value=100 * (found.loss_max - around.loss) / (1 + around.loss),
            loss=around.loss,
            loss_max=found.loss_max,
            iterations=found.iterations,
            evaluations=found.evaluations,
            at_bound=found.at_bound,
            scaling=found.scaling,
            message=found.message,
        )


def check_arguments(epsilon, space, iterations, scaling, tolerance, start, seed, subspace_scale) -> None:
    """Refuse a bad argument of a measure in the box, in one sentence."""
    choices = (("space", space, SPACES), ("start", start, STARTS))
    above_zero("epsilon", epsilon)
    for name, value, accepted in choices:
        if value not in accepted:
            raise ValueError(f"{name} is '{value}'; accepted are {', '.join(accepted)}")
    check_scale("subspace_scale", subspace_scale)
    whole_number("seed", seed, 0)
    whole_number("iterations", iterations, 1)
    if tolerance != "scipy" and (isinstance(tolerance, str) or not 0 <= tolerance < np.inf):
        raise ValueError(f"tolerance is {tolerance!r}; accepted are 'scipy' or a number from 0")
    if scaling != "auto" and (isinstance(scaling, str) or not 0 < scaling < np.inf):
        raise ValueError(f"scaling is {scaling!r}; accepted are 'auto' or a number above 0")
