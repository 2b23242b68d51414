"""Sharpness in a box that is relative to the weights, which rescaling the weights does not change."""

from torch import Tensor, nn

from lbgap.measure.box import neighbourhood, relative
from lbgap.measure.objective import Loss, above_zero, whole_number


def adaptive_sharpness(
    model: nn.Module,
    loss: Loss,
    rho: float = 1e-3,
    batch_norm: str = "batch",
    iterations: int = 10,
    seed: int = 0,
    data: Tensor | None = None,
) -> dict[str, float]:
    """The largest rise of the loss found for relative changes of the weights: max L(w + z) - L(w) over |z_i| <= rho |w_i|.

    This is the adaptive sharpness of Kwon et al. 2021 (ASAM, section 3; see also Andriushchenko & Flammarion 2022) with the
    operator T_w = diag |w| and the maximum norm, over all trainable weights, on the whole training set. Multiplying one
    layer's weights and biases of a ReLU network by a and dividing the next layer's weights by a leaves the network as it is,
    and this number too, which :func:`~lbgap.measure.sharpness` is changed by (Dinh et al. 2017). Weights of 0 do not move.

    The maximum is sought in u = z / |w|, |u_i| <= rho, by L-BFGS-B, as in :func:`~lbgap.measure.sharpness` with its scaling
    "auto" and no tolerances; so the search is invariant too, up to rounding. Weights, buffers and modes are restored exactly;
    dropout is off.

    Args:
        loss, batch_norm, data, iterations: as in :func:`~lbgap.measure.sharpness`.
        rho: half-width of the box relative to |w_i|, > 0.
        seed: of the random start, where the gradient at the solution is exactly 0.
    Returns:
        ``value``, the rise (in the loss's unit, not in percent; a lower bound, from 0); ``loss`` and ``loss_max``; and of the
        search ``iterations``, ``evaluations`` and ``at_bound``.
    Raises:
        ValueError: a bad argument; weights of half precision, or a box too small for the weights' precision; a loss that is
            not finite.
    """
    above_zero("rho", rho)
    whole_number("iterations", iterations, 1)
    whole_number("seed", seed, 0)
    with neighbourhood(model, loss, lambda objective: relative(objective, rho), batch_norm, data) as around:
        found = around.climb(iterations, seed)
        return {
            "value": found.loss_max - around.loss,
            "loss": around.loss,
            "loss_max": found.loss_max,
            "iterations": found.iterations,
            "evaluations": found.evaluations,
            "at_bound": found.at_bound,
        }
