"""Augmentation of a whole batch at once; every random number comes from the generator handed in."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lbgap.pictures import Pictures


def keskar(x: Tensor | Pictures, generator: Generator) -> Tensor:
    """Keskar et al. 2017, E.1: horizontal reflections, rotations up to 10 degrees, shifts up to 0.2 of the size.

    Args:
        x: (n, channels, height, width), or pictures, which are decoded.
        generator: on the device of ``x``.
    Returns:
        A tensor like ``x``; what enters the frame repeats the border (Keras' default fill mode, "nearest").
    """
    n, x = len(x), x[:]

    def uniform(most: float) -> Tensor:
        return (torch.rand(n, generator=generator, device=x.device) * 2 - 1) * most

    flip = torch.where(torch.rand(n, generator=generator, device=x.device) < 0.5, -1.0, 1.0)
    angle = uniform(math.radians(10))
    # grid_sample's coordinates span [-1, 1]: a shift by 0.2 of the size is 0.4 there
    right, down = uniform(0.4), uniform(0.4)
    cos, sin = angle.cos(), angle.sin()
    long = x.shape[2] / x.shape[3]  # in coordinates that span [-1, 1] an image that is not square turns with a shear
    theta = torch.stack([torch.stack([flip * cos, -sin * long, right], 1), torch.stack([flip * sin / long, cos, down], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False).to(x.dtype)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def hoffer(x: Tensor | Pictures, generator: Generator) -> Tensor:
    """Hoffer et al. 2017, released code (preprocess.py): a random crop of the padded image, and horizontal reflections.

    Images of 32 pixels or fewer are padded, by an eighth of their size where they are colour (with grey, 127 of 255) and by
    a fourteenth where they are grey (with black): 4 pixels for CIFAR, 2 for MNIST. Larger ones (ImageNet, 256x256) are cropped
    to 7/8 of their size: 224.

    Args:
        x: (n, channels, height, width) in [0, 1], or pictures, which are decoded.
        generator: on the device of ``x``.
    Returns:
        A tensor like ``x``, or smaller where nothing was padded.
    """
    x = x[:]
    n, channels, height, width = x.shape
    if max(height, width) > 32:
        out = height * 7 // 8, width * 7 // 8
    else:
        pad, fill = (height // 8, 127 / 255) if channels == 3 else (max(1, height // 14), 0.0)
        out, x = (height, width), F.pad(x, (pad, pad, pad, pad), value=fill)
    tops, lefts = (
        torch.randint(whole - part + 1, (n, 1), generator=generator, device=x.device)
        for whole, part in zip(x.shape[2:], out, strict=True)
    )
    rows, columns = (start + torch.arange(part, device=x.device) for start, part in zip((tops, lefts), out, strict=True))
    flipped = torch.rand(n, 1, generator=generator, device=x.device) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    every = torch.arange(n, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor | Pictures, generator: Generator) -> Tensor:
    """:func:`hoffer`, then Cutout (DeVries & Taylor 2017): a square of half the size is grey, its centre anywhere in the image.

    What of the square lies outside is cut off. Foret et al. 2021 name it and not its size; 16 of CIFAR's 32 pixels are its
    authors'.
    """
    x = hoffer(x, generator)
    n, _, height, width = x.shape
    side = height // 2
    inside = []
    for size in (height, width):
        first = torch.randint(size, (n, 1), generator=generator, device=x.device) - side // 2
        place = torch.arange(size, device=x.device)
        inside.append((place >= first) & (place < first + side))
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 127 / 255)


def goyal(x: Pictures, generator: Generator) -> Pictures:
    """Goyal et al. 2017, section 5.1: a part of a picture of random size and shape (:func:`lbgap.pictures.crop`), reflections.

    The part is scaled to 7/8 of the size that pictures are read in: 224 of 256. Returns pictures that are not yet decoded.
    """
    return x.cropped(x.size * 7 // 8, generator)


AUGMENTATIONS = {"keskar": keskar, "hoffer": hoffer, "cutout": cutout, "goyal": goyal}
