"""m-sharpness: how far the loss of small parts of the training set can rise, each part in its own direction."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lbgap.evaluate import CHUNK, batch_norm_reading
from lbgap.measure.objective import LossOf, Objective, above_zero, mean_cross_entropy, whole_number
from lbgap.pauses import Pause, each
from lbgap.tasks import as_many


def disjoint(x: Tensor, y: Tensor, size: int, number: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first ``number`` parts of ``size`` examples of a shuffled set; what is left over is left out."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    for index in order[: size * number].split(size):
        yield x[index], y[index]


def check_examples(x: Tensor, y: Tensor, least: int) -> None:
    """Refuse inputs and targets that are not as many, or fewer than ``least``."""
    as_many(x, y)
    if len(x) < least:
        raise ValueError(f"x has {len(x)} examples; accepted are {least} or more")


def m_sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rho: float = 0.05,
    m: int = 128,
    batch_norm: str = "batch",
    loss: LossOf = mean_cross_entropy,
    parts: int | None = None,
    seed: int = 0,
    data: Tensor | None = None,
    ascents: int = 1,
    pause: Pause | None = None,
) -> dict[str, float]:
    """Mean rise of the loss of disjoint parts S of m examples, each at the first-order maximiser of its own loss.

    Foret et al. 2021 (section 4.1, m-sharpness; the maximiser is their equation 2 with p = 2):

        1/|parts| sum_S [L_S(w + rho g_S / |g_S|) - L_S(w)],    g_S = gradient of L_S at w,    L_S = mean loss over S.

    With several ``ascents`` (their appendix C.6) the gradient is taken again at the point that the one before found, and the
    step of length rho from w along it, as :class:`lbgap.sam.SAM` does.

    The parts are those of one shuffled pass over the set; fewer examples than m at its end are left out. Where a part's
    gradient is exactly 0 its rise is 0. First order is not the true maximum: a rise may be negative. Weights, buffers and
    modes are restored exactly; dropout is off.

    Args:
        x, y: the training set, (n, ...) and (n,).
        rho: radius of the ball, > 0.
        m: examples in a part, 1 to n.
        batch_norm: "batch" (the statistics of each part), "running", or "reestimated" (from ``data``).
        loss: makes the mean loss over (x, y) into a callable on the model.
        parts: how many parts to look at; None for all of them.
        seed: of the shuffling.
        ascents: gradient steps by which the maximiser is found, from 1.
        pause: where to go on from, and to save to, part by part.
    Returns:
        ``value``, the mean rise; ``loss`` and ``loss_max``, the mean losses of the parts before and at their maximisers;
        ``parts``, their number.
    Raises:
        ValueError: a bad argument; weights of half precision, or a radius too small for the weights' precision; a loss that is
            not finite.
    """
    check_examples(x, y, 1)
    above_zero("rho", rho)
    whole_number("seed", seed, 0)
    whole_number("m", m, 1, len(x))
    whole_number("ascents", ascents, 1)
    number = len(x) // m
    if parts is not None:
        whole_number("parts", parts, 1, number)
        number = parts
    objective = Objective(model, loss(x, y))

    def losses(part: tuple[Tensor, Tensor]) -> tuple[float, float]:
        """At w and at the maximiser."""
        objective.loss = loss(*part)
        at_solution, gradient = objective.at_solution()
        step = torch.zeros_like(gradient)
        for ascent in range(ascents):
            if ascent:
                _, gradient = objective.value_and_gradient(step)
            if (length := float(gradient.double().norm())) > 0:
                step = gradient * (rho / length)
        if not step.any():
            return at_solution, at_solution
        objective.refuse_rounding(f"rho is {rho}", step)
        return at_solution, objective.value(step)

    with objective.restoring(), batch_norm_reading(model, batch_norm, data, CHUNK):
        found = each(disjoint(x, y, m, number, seed), losses, pause)
    before = after = 0.0
    for low, high in found:
        before += low / number
        after += high / number
    return {"value": after - before, "loss": before, "loss_max": after, "parts": number}
