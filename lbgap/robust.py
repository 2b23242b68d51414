"""Losses that ask for more than a right answer on the batch: robustness to small changes of the inputs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Network = Callable[[Tensor], Tensor]


def adversarial(network: Network, x: Tensor, y: Tensor, size: float, weight: float) -> tuple[Tensor, Tensor]:
    """Adversarial training by the fast gradient sign (Goodfellow et al. 2015, section 6).

    (1 - weight) J(x) + weight J(x + size sign(grad_x J(x))), J the mean cross entropy. The moved inputs are constants to the
    gradient, are not brought back into the inputs' range, and are a batch of their own to batch norm, whose running averages
    take up both. The paper's alpha is 1 - weight.

    Args:
        network: inputs (n, ...) to logits (n, classes).
        x, y: inputs and labels (n,).
        size: largest change of an input, in its own units.
        weight: of the moved inputs' loss, 0 to 1.
    Returns:
        The loss, and the logits of the inputs as they are.
    """
    x = x.detach().requires_grad_()
    logits = network(x)
    clean = F.cross_entropy(logits, y)
    (gradient,) = torch.autograd.grad(clean, x, retain_graph=True)
    moved = (x + size * gradient.sign()).detach()
    return (1 - weight) * clean + weight * F.cross_entropy(network(moved), y), logits


def stability(
    network: Network, x: Tensor, y: Tensor, size: float, weight: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Stability training (Zheng et al. 2016): J(x) + weight H(p(x), p(x + noise)).

    H is the mean cross entropy of the outputs on noisy inputs against those on the inputs as they are; both take gradients.
    Noisy inputs are a batch of their own to batch norm, whose running averages take up both.

    Args:
        network: inputs (n, ...) to logits (n, classes).
        x, y: inputs and labels (n,).
        size: standard deviation of the Gaussian noise, in the inputs' own units.
        weight: of H beside J, 0 or more.
        generator: of the noise, on the device of ``x``.
    Returns:
        The loss, and the logits of the inputs as they are.
    """
    noisy = x + size * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    logits = network(x)
    unstable = F.cross_entropy(network(noisy), logits.softmax(1))
    return F.cross_entropy(logits, y) + weight * unstable, logits
