"""The worst point nearby, to first order, and a network that stands there for a while: the arithmetic of SAM.

:mod:`lbgap.gradient` takes a batch's gradient there, :class:`lbgap.sam.SAM` does so in anyone's loop.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

NORMS = ("2", "inf")


def perturbation(
    weights: list[Tensor], gradients: list[Tensor | None], rho: float, norm: str = "2", adaptive: bool = False
) -> list[Tensor | None]:
    """e(w), the steepest step of length ``rho`` to first order (Foret et al. 2021, eq. 2), for each weight tensor.

    Norm 2: rho g / ||g||; infinity: rho sign(g). Adaptive (Kwon et al. 2021, eq. 6): the ball is stretched by T = |w|, so that
    e = rho T^2 g / ||T g||, or rho T sign(g), and rescaling the weights of a layer changes nothing. Zero where the gradient is.

    Raises:
        ValueError: a negative ``rho``, or an unknown norm.
    """
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho is {rho}; accepted is a number from 0")
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; accepted are {', '.join(NORMS)}")
    there = [i for i, g in enumerate(gradients) if g is not None]
    if not there:
        return list(gradients)
    scaled = [gradients[i] for i in there]
    sizes = torch._foreach_abs([weights[i] for i in there]) if adaptive else []
    if adaptive:
        scaled = torch._foreach_mul(scaled, sizes)
    if norm == "inf":
        found = torch._foreach_mul(torch._foreach_sign(scaled), rho)
    else:
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(scaled)))
        # where the gradient vanishes there is no steepest direction, and 0 / tiny is 0
        found = torch._foreach_mul(scaled, rho / length.clamp_min(torch.finfo(length.dtype).tiny))
    if adaptive:
        found = torch._foreach_mul(found, sizes)
    steps: list[Tensor | None] = [None] * len(weights)
    for i, step in zip(there, found, strict=True):
        steps[i] = step
    return steps


@contextmanager
def ascended(
    parameters: Iterable[Tensor],
    rho: float = 0.05,
    norm: str = "2",
    adaptive: bool = False,
    gradients: Sequence[Tensor | None] | None = None,
) -> Iterator[None]:
    """Inside, the parameters stand at w + e(w); outside, bit for bit at w.

    Args:
        parameters: of the network; those that do not require a gradient stay.
        rho, norm, adaptive: as in :func:`perturbation`.
        gradients: of the parameters that do, from which e(w) is made (None: their present ``.grad``).
    Raises:
        ValueError: what :func:`perturbation` raises.
    """
    weights = [p for p in parameters if p.requires_grad]
    with torch.no_grad():
        found = [p.grad for p in weights] if gradients is None else list(gradients)
        steps = perturbation(weights, found, rho, norm, adaptive)
        origin = [p.detach().clone() for p in weights]
        moved = [i for i, step in enumerate(steps) if step is not None]
        if moved:
            torch._foreach_add_([weights[i] for i in moved], [steps[i] for i in moved])
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, origin)
