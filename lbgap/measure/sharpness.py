"""Sharpness, metric 2.1 of Keskar et al. 2017: how far the loss can rise inside a small box around a solution."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor, nn

from lbgap.evaluate import CHUNK, batch_norm_reading
from lbgap.measure.objective import Loss, Objective
from lbgap.measure.subspace import SCALES, RandomSubspace

SPACES = ("full", "random")
STARTS = ("solution", "random")


@dataclass(frozen=True)
class Sharpness:
    """The metric and everything needed to judge it.

    ``value`` = 100 (``loss_max`` - ``loss``) / (1 + ``loss``). ``message`` is the solver's own; ``at_bound`` the fraction of
    coordinates on the box's border at the best point; ``scaling`` the factor the objective was multiplied by.
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
    subspace_scale: str = "box",
    data: Tensor | None = None,
) -> Sharpness:
    """Maximise the loss over a box around the present weights with L-BFGS-B (SciPy), inexactly.

    Full space (A = I): |z_i| <= epsilon (|x_i| + 1) for every trainable scalar x_i. Random subspace: z = A y with A of
    :class:`RandomSubspace` and |y_i| <= epsilon (|(A^+ x)_i| + 1). Weights, buffers and modes are restored exactly;
    dropout is off.

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
        start: "solution" (z = 0) or "random" (uniform in the box, from ``seed``).

    Returns:
        A :class:`Sharpness`; its ``value`` is taken at the best point evaluated, the start included, so it is >= 0 from the
        solution, and ``message`` says why the solver stopped.

    Raises:
        ValueError: a bad argument, or a loss that is not finite at the solution.
    """
    check_arguments(epsilon, space, iterations, scaling, tolerance, start, seed, subspace_scale)
    with neighbourhood(model, loss, epsilon, space, p, seed, batch_norm, subspace_scale, data) as around:
        z0 = np.zeros_like(around.box)
        if start == "random":
            z0 = np.random.default_rng(seed).uniform(-around.box, around.box)
        return around.climb(z0, scaling, tolerance, iterations)[0]


@dataclass(frozen=True)
class Neighbourhood:
    """The loss inside the box around a solution, |z_i| <= ``box``; ``evaluate(z)`` gives value and gradient at z."""

    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]]
    value: Callable[[np.ndarray], float]
    box: np.ndarray
    loss: float
    gradient: np.ndarray

    def climb(
        self, z0: np.ndarray, scaling: float | str, tolerance: float | str, iterations: int
    ) -> tuple[Sharpness, np.ndarray]:
        """L-BFGS-B from ``z0``: the metric, and the displacement of the best point evaluated."""
        first = (self.loss, self.gradient) if not z0.any() else self.evaluate(z0)
        length = float(np.linalg.norm(first[1]))
        auto = float(np.linalg.norm(self.box)) / length if length > 0 else 1.0
        factor = auto if scaling == "auto" else float(scaling)
        best, where, calls = -np.inf, z0, 0

        def negative(z: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal best, where, calls
            value, gradient = first if np.array_equal(z, z0) else self.evaluate(z)  # the start is known already
            calls += 1
            if value > best:
                best, where = value, z.copy()
            # relative to the solution: the solver sees differences, not digits shared by every value
            return -factor * (value - self.loss), -factor * gradient

        tolerances = {} if tolerance == "scipy" else {"ftol": tolerance, "gtol": tolerance}
        limits = {"maxiter": iterations, "maxfun": 20 * iterations}
        outcome = minimize(
            negative, z0, jac=True, method="L-BFGS-B", bounds=Bounds(-self.box, self.box), options=limits | tolerances
        )
        result = Sharpness(
            value=100 * (best - self.loss) / (1 + self.loss),
            loss=self.loss,
            loss_max=best,
            iterations=int(outcome.nit),
            evaluations=calls,
            at_bound=float(np.mean(np.abs(where) >= self.box * (1 - 1e-9))),
            scaling=factor,
            message=str(outcome.message),
        )
        return result, where


@contextmanager
def neighbourhood(
    model: nn.Module,
    loss: Loss,
    epsilon: float,
    space: str = "full",
    p: int = 100,
    seed: int = 0,
    batch_norm: str = "batch",
    subspace_scale: str = "box",
    data: Tensor | None = None,
) -> Iterator[Neighbourhood]:
    """The box around the present weights, in the full space or a random subspace; everything is restored on the way out."""
    objective = Objective(model, loss)
    with batch_norm_reading(model, batch_norm, data, CHUNK), objective.restoring():
        n, device, dtype = len(objective.origin), objective.origin.device, objective.origin.dtype
        centre, lift, project = objective.origin.double(), _same, _same
        if space == "random":
            basis = RandomSubspace(n, p, seed, subspace_scale, device)
            centre, lift, project = basis.pinv(objective.origin.float()), basis.matvec, basis.rmatvec
        box = (epsilon * (centre.abs() + 1)).double().cpu().numpy()

        def lifted(z: np.ndarray) -> Tensor:
            return lift(torch.from_numpy(z).to(device, dtype))

        def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = objective.value_and_gradient(lifted(z))
            return value, project(gradient).double().cpu().numpy()

        at_solution, gradient = evaluate(np.zeros_like(box))
        if not np.isfinite(at_solution):
            raise ValueError(f"loss is {at_solution} at the solution; accepted is a finite loss")
        yield Neighbourhood(evaluate, lambda z: objective.value(lifted(z)), box, at_solution, gradient)


def _same(v: Tensor) -> Tensor:
    return v


def check_arguments(epsilon, space, iterations, scaling, tolerance, start, seed, subspace_scale) -> None:
    """Refuse a bad argument of a measure in the box, in one sentence."""
    choices = (("space", space, SPACES), ("start", start, STARTS), ("subspace_scale", subspace_scale, SCALES))
    if not 0 < epsilon < np.inf:
        raise ValueError(f"epsilon is {epsilon}; accepted is a number above 0")
    for name, value, accepted in choices:
        if value not in accepted:
            raise ValueError(f"{name} is '{value}'; accepted are {', '.join(accepted)}")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed is {seed}; accepted is an integer from 0")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations is {iterations}; accepted is 1 or more")
    if tolerance != "scipy" and (isinstance(tolerance, str) or not 0 <= tolerance < np.inf):
        raise ValueError(f"tolerance is {tolerance!r}; accepted are 'scipy' or a number from 0")
    if scaling != "auto" and (isinstance(scaling, str) or not 0 < scaling < np.inf):
        raise ValueError(f"scaling is {scaling!r}; accepted are 'auto' or a number above 0")
