"""The worst point nearby, to first order, and a network that stands there for a while: the arithmetic of SAM.

:mod:`lbgap.gradient` takes a batch's gradient there, :class:`lbgap.sam.SAM` does so in anyone's loop.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

NORMS = ("2", "inf")
PRECISIONS = (torch.float32, torch.float64)
SQUARES = (1e-12, 1e15)  # lengths between which the squares that they are made of are within float32's range


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
        raise ValueError(f"norm is {norm!r}; accepted are {', '.join(map(repr, NORMS))}")
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
        length = _length(scaled)
        if not SQUARES[0] < float(length) < SQUARES[1]:  # as after a batch that is fitted; else that is not worth its time
            scaled = _of_middling_size(scaled)
            length = _length(scaled)
        # where the gradient vanishes there is no steepest direction, and 0 / tiny is 0
        found = torch._foreach_mul(scaled, rho / length.clamp_min(torch.finfo(length.dtype).tiny))
    if adaptive:
        found = torch._foreach_mul(found, sizes)
    steps: list[Tensor | None] = [None] * len(weights)
    for i, step in zip(there, found, strict=True):
        steps[i] = step
    return steps


def _length(tensors: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


def _of_middling_size(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors times one power of two, which rounds nothing, by which the largest entry of all is between 1/2 and 1."""
    peak = torch.stack(torch._foreach_norm(tensors, float("inf"))).max()
    exponent = torch.frexp(peak).exponent.clamp(-126, 126)  # both powers of two are in float32's range
    return torch._foreach_mul(tensors, torch.ldexp(torch.ones_like(peak), -exponent))


def refuse_half_precision(parameters: Iterable[Tensor]) -> None:
    """Refuse weights of half precision, of which a step smaller than a few thousandths is lost in rounding."""
    for p in parameters:
        if p.dtype not in PRECISIONS:
            raise ValueError(
                f"model has weights in {str(p.dtype).removeprefix('torch.')}, where small steps are rounded away; accepted "
                "are float32 and float64"
            )


def weights_moved() -> None:
    """Tell an autocast that is on that weights were written in place: it keeps low-precision copies of them until its end."""
    torch.clear_autocast_cache()


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
        gradients: of the parameters that do, in their order, from which e(w) is made (None: their present ``.grad``).
    Raises:
        ValueError: another number of gradients, none where ``.grad`` is to be read, or what :func:`perturbation` raises.
    """
    weights = [p for p in parameters if p.requires_grad]
    with torch.no_grad():
        found = [p.grad for p in weights] if gradients is None else list(gradients)
        if len(found) != len(weights):
            raise ValueError(
                f"gradients has {len(found)} entries; accepted are {len(weights)}, one for each trainable parameter"
            )
        if gradients is None and weights and all(g is None for g in found):
            raise ValueError("gradients is None and no parameter has a .grad; accepted is a model after backward()")
        steps = perturbation(weights, found, rho, norm, adaptive)
        origin = [p.detach().clone() for p in weights]
        there = [i for i, step in enumerate(steps) if step is not None]
        if there:
            torch._foreach_add_([weights[i] for i in there], [steps[i] for i in there])
        weights_moved()
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, origin)
            weights_moved()
