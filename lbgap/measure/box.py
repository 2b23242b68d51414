"""A box around a solution, in coordinates of one's choice, and the search for the highest loss in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor, nn

from lbgap.evaluate import CHUNK, batch_norm_reading
from lbgap.measure.objective import Loss, Objective
from lbgap.measure.subspace import RandomSubspace

STARTS = ("solution", "random")


@dataclass(frozen=True)
class Coordinates:
    """A displacement of the weights is ``lift(z)`` with |z_i| <= ``box``; ``project`` is the transpose of ``lift``.

    ``asked`` says in words what decided the size of the box.
    """

    asked: str
    box: Tensor
    lift: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], Tensor]


def full_space(objective: Objective, epsilon: float) -> Coordinates:
    """Every weight by itself: |z_i| <= epsilon (|x_i| + 1)."""
    return Coordinates(f"epsilon is {epsilon}", epsilon * (objective.origin.double().abs() + 1), _same, _same)


def random_subspace(objective: Objective, epsilon: float, p: int, seed: int, scale: str | float) -> Coordinates:
    """A random subspace A y: |y_i| <= epsilon (|(A^+ x)_i| + 1)."""
    basis = RandomSubspace(len(objective.origin), p, seed, scale, objective.origin.device)
    box = epsilon * (basis.pinv(objective.origin).abs() + 1)
    return Coordinates(f"epsilon is {epsilon}", box, basis.matvec, basis.rmatvec)


def relative(objective: Objective, rho: float) -> Coordinates:
    """Every weight in units of its own size: z_i = |x_i| u_i with |u_i| <= rho."""
    size = objective.origin.abs()
    return Coordinates(f"rho is {rho}", torch.full_like(size, rho, dtype=torch.float64), size.mul, size.mul)


def _same(v: Tensor) -> Tensor:
    return v


@dataclass(frozen=True)
class Climb:
    """The highest point that a search has evaluated, ``z`` with the loss ``loss_max``, and how the search went."""

    z: np.ndarray
    loss_max: float
    iterations: int
    evaluations: int
    at_bound: float
    scaling: float
    message: str


@dataclass(frozen=True)
class Neighbourhood:
    """The loss inside the box around a solution, |z_i| <= ``box``; ``evaluate(z)`` gives value and gradient at z."""

    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]]
    value: Callable[[np.ndarray], float]
    box: np.ndarray
    loss: float
    gradient: np.ndarray

    def climb(
        self,
        iterations: int,
        seed: int = 0,
        start: str = "solution",
        scaling: float | str = "auto",
        tolerance: float | str = 0.0,
    ) -> Climb:
        """L-BFGS-B (SciPy) from the solution or from a random point of the box; the arguments are those of ``sharpness``."""
        stationary = start == "solution" and not self.gradient.any()
        if start == "random" or stationary:
            z0 = np.random.default_rng(seed).uniform(-self.box, self.box)
            first = self.evaluate(z0)
        else:
            z0, first = np.zeros_like(self.box), (self.loss, self.gradient)
        length = float(np.linalg.norm(first[1]))
        auto = float(np.linalg.norm(self.box)) / length if length > 0 else 1.0
        factor = auto if scaling == "auto" else float(scaling)
        best, where, calls = self.loss, np.zeros_like(self.box), 0

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
        note = "gradient 0 at the solution, started from a random point of the box; " if stationary else ""
        return Climb(
            z=where,
            loss_max=best,
            iterations=int(outcome.nit),
            evaluations=calls,
            at_bound=float(np.mean(np.abs(where) >= self.box * (1 - 1e-9))),
            scaling=factor,
            message=note + str(outcome.message),
        )


@contextmanager
def neighbourhood(
    model: nn.Module,
    loss: Loss,
    coordinates: Callable[[Objective], Coordinates],
    batch_norm: str = "batch",
    data: Tensor | None = None,
) -> Iterator[Neighbourhood]:
    """The box around the present weights; weights, buffers and modes are restored on the way out.

    Raises:
        ValueError: a loss or gradient that is not finite at the solution; a box so small that the weights' precision rounds
            more than a hundredth of a step to its corner away.
    """
    objective = Objective(model, loss)
    with objective.restoring(), batch_norm_reading(model, batch_norm, data, CHUNK):
        device, dtype = objective.origin.device, objective.origin.dtype
        chosen = coordinates(objective)
        box = chosen.box.double().cpu().numpy()

        def lifted(z: np.ndarray) -> Tensor:
            return chosen.lift(torch.from_numpy(z).to(device, dtype))

        def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = objective.value_and_gradient(lifted(z))
            return value, chosen.project(gradient).double().cpu().numpy()

        objective.refuse_rounding(chosen.asked, lifted(box))
        at_solution, gradient = objective.at_solution()
        gradient = chosen.project(gradient).double().cpu().numpy()
        yield Neighbourhood(evaluate, lambda z: objective.value(lifted(z)), box, at_solution, gradient)
