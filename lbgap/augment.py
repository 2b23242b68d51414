"""Augmentation of a whole batch at once; every random number comes from the generator handed in."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def keskar(x: Tensor, generator: Generator) -> Tensor:
    """Keskar et al. 2017, E.1: horizontal reflections, rotations up to 10 degrees, shifts up to 0.2 of the size.

    Args:
        x: (n, channels, height, width).
        generator: on the device of ``x``.
    Returns:
        A tensor like ``x``; what enters the frame repeats the border (Keras' default fill mode, "nearest").
    """
    n = len(x)

    def uniform(most: float) -> Tensor:
        return (torch.rand(n, generator=generator, device=x.device) * 2 - 1) * most

    flip = torch.where(torch.rand(n, generator=generator, device=x.device) < 0.5, -1.0, 1.0)
    angle = uniform(math.radians(10))
    # grid_sample's coordinates span [-1, 1]: a shift by 0.2 of the size is 0.4 there
    right, down = uniform(0.4), uniform(0.4)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([torch.stack([flip * cos, -sin, right], 1), torch.stack([flip * sin, cos, down], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


AUGMENTATIONS = {"keskar": keskar}
