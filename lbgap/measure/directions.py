"""Is a minimum steep in a few directions and flat in most? The box of the sharpness metric, looked at more closely."""

import numpy as np
from torch import nn

from lbgap.measure.box import full_space, neighbourhood
from lbgap.measure.objective import Loss
from lbgap.measure.sharpness import check_arguments


def directions(
    model: nn.Module,
    loss: Loss,
    epsilon: float = 1e-3,
    fraction: float = 0.05,
    draws: int = 10,
    seed: int = 0,
    batch_norm: str = "batch",
    iterations: int = 10,
) -> dict[str, float]:
    """Compare the steepest displacement in the full-space box with parts of it, and with random ones.

    Keskar et al. 2017 (section 2.2.2) say that large-batch minima rise steeply only along about 5% of the dimensions. One
    reading: of the maximiser z that :func:`~lbgap.measure.sharpness` finds, keep the ``fraction`` of coordinates that
    contribute most to the rise (by z_i times the mean of the gradients at both ends), and the rest; and move to random
    corners of the box, which are as far away.

    Args:
        model, loss, epsilon, seed, batch_norm, iterations: as in :func:`~lbgap.measure.sharpness`; the corners too are drawn
            with ``seed``.
        fraction: of the coordinates, those that count as steep.
        draws: random corners.
    Returns:
        Rises of the loss: ``largest`` (at z), ``steep`` (the chosen coordinates of z alone), ``rest`` (all others), ``random``
        (mean over ``draws`` random corners); and ``loss`` at the solution. All in nats.
    Raises:
        ValueError: ``fraction`` not between 0 and 1, ``draws`` below 1, or what :func:`~lbgap.measure.sharpness` refuses.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; accepted is a number between 0 and 1")
    if draws < 1:
        raise ValueError(f"draws is {draws}; accepted is 1 or more")
    check_arguments(epsilon, "full", iterations, "auto", 0.0, "solution", seed, "box")
    with neighbourhood(model, loss, lambda objective: full_space(objective, epsilon), batch_norm) as around:
        found = around.climb(iterations, seed)
        z = found.z
        contribution = z * (around.gradient + around.evaluate(z)[1]) / 2
        steep = np.zeros(len(z), dtype=bool)
        steep[np.argsort(contribution)[-max(1, round(fraction * len(z))) :]] = True
        rng = np.random.default_rng(seed)
        corners = (around.box * rng.choice((-1.0, 1.0), len(z)) for _ in range(draws))

        def rise(at: np.ndarray) -> float:
            return around.value(at) - around.loss

        return {
            "largest": found.loss_max - around.loss,
            "steep": rise(np.where(steep, z, 0.0)),
            "rest": rise(np.where(steep, 0.0, z)),
            "random": float(np.mean([rise(corner) for corner in corners])),
            "loss": around.loss,
        }
