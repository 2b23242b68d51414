"""Sharpness-aware minimization (Foret et al. 2021) in anyone's loop, around any torch optimizer.

>>> loss_of(model(x), y).backward()
>>> with ascended(model.parameters(), rho=0.05), averages_kept(model):  # weights at w + e(w)
...     optimizer.zero_grad()
...     loss_of(model(x), y).backward()
>>> optimizer.step()                                                     # weights at w again, gradient from w + e(w)

Schedulers and clipping stay on the optimizer. The perturbation knows the gradient of the loss alone: what an optimizer adds
to it, such as weight decay, stays out of it unless it was added to ``.grad`` before.
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
    scaled = [None if g is None else (g * w.abs() if adaptive else g) for w, g in zip(weights, gradients, strict=True)]
    if norm == "inf":
        steps = [None if s is None else rho * s.sign() for s in scaled]
    else:
        present = [s for s in scaled if s is not None]
        length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(s) for s in present])) if present else 0.0
        # where the gradient vanishes there is no steepest direction, and 0 / tiny is 0
        factor = rho / length.clamp_min(torch.finfo(length.dtype).tiny) if present else 0.0
        steps = [None if s is None else s * factor for s in scaled]
    return [None if s is None else (s * w.abs() if adaptive else s) for w, s in zip(weights, steps, strict=True)]


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
        steps = perturbation(weights, [p.grad for p in weights] if gradients is None else list(gradients), rho, norm, adaptive)
        origin = [p.detach().clone() for p in weights]
        for p, step in zip(weights, steps, strict=True):
            if step is not None:
                p.add_(step)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, o in zip(weights, origin, strict=True):
                p.copy_(o)
