"""Cutout (DeVries & Taylor 2017): which pixels of each image are grey, and that all others are as cropped and reflected."""

import math

import numpy as np
import torch

from lbgap.augment import cutout, hoffer

N, SIZE, SIDE, GREY = 3000, 32, 16, 127 / 255


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def holes(seed: int = 0) -> np.ndarray:
    """For each of N white images which pixels are grey by Cutout alone; those that padding made grey are left out."""
    x = torch.ones(N, 3, SIZE, SIZE)
    out, cropped = cutout(x, generator(seed)), hoffer(x, generator(seed))
    grey = out == torch.tensor(GREY)
    assert torch.equal(torch.where(grey, cropped, out), cropped)
    assert (grey == grey[:, :1]).all()  # all channels alike
    return (grey & (cropped == 1))[:, 0].numpy()


def test_what_is_cut_out_is_one_square_of_half_the_size_or_what_lies_inside_of_it():
    """In the middle of the image, where nothing is padded, its edges show."""
    middle = holes()[:, 4:-4, 4:-4]
    for hole in middle:
        rows, columns = hole.any(1), hole.any(0)
        assert np.array_equal(hole, np.outer(rows, columns))
        for line in (rows, columns):
            inside = np.flatnonzero(line)
            assert len(inside) <= SIDE and (len(inside) == 0 or np.ptp(inside) == len(inside) - 1)
    assert max(hole.sum() for hole in middle) == SIDE**2


def test_its_centre_is_anywhere_in_the_image():
    """A pixel is cut out by as many of the 32 x 32 centres as lie within the square's reach of it."""
    share = holes(1)[:, 4:-4, 4:-4].mean(0)
    reach = np.array([sum(c - SIDE // 2 <= at < c + SIDE // 2 for c in range(SIZE)) for at in range(4, SIZE - 4)]) / SIZE
    expected = np.outer(reach, reach)
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / N)).all()
    assert math.isclose(expected.max(), 0.25)
