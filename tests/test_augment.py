"""Augmentation of Keskar et al. 2017, E.1, read off images whose pixels say where they come from."""

import math

import numpy as np
import pytest
import torch

from lbgap.augment import AUGMENTATIONS, keskar

SIZE = 32


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(n: int, seed: int = 0) -> np.ndarray:
    """The affine map (2 x 3, in pixels, about the centre) that each of ``n`` images underwent.

    Channel 0 holds the column and channel 1 the row of each pixel: bilinear interpolation is exact on them, so the output
    says from where each pixel was taken. Pixels taken from beyond the frame repeat the border and are left out.
    """
    centred = torch.arange(SIZE, dtype=torch.float32) - (SIZE - 1) / 2
    ramp = torch.stack([centred.expand(SIZE, SIZE), centred[:, None].expand(SIZE, SIZE)])
    out = keskar(ramp.expand(n, 2, SIZE, SIZE).contiguous(), generator(seed)).double().numpy()
    columns, rows = ramp.double().numpy()
    fitted = []
    for taken in out:
        inside = (np.abs(taken) < (SIZE - 1) / 2 - 1e-3).all(axis=0)
        design = np.stack([columns[inside], rows[inside], np.ones(inside.sum())], axis=1)
        solution, residual, rank, _ = np.linalg.lstsq(design, taken[:, inside].T, rcond=None)
        assert rank == 3 and residual.max() < 1e-4 * inside.sum()
        fitted.append(solution.T)
    return np.array(fitted)


@pytest.fixture(scope="module")
def fitted() -> np.ndarray:
    return maps(2000)


def test_images_are_turned_reflected_and_shifted_but_never_stretched(fitted):
    linear = fitted[:, :, :2]
    np.testing.assert_allclose(linear @ linear.transpose(0, 2, 1), np.tile(np.eye(2), (len(linear), 1, 1)), atol=1e-3)


def test_images_that_are_not_square_are_not_sheared():
    """Twice as wide as high, and in double precision."""
    tall, wide = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (SIZE, 2 * SIZE))
    ramp = torch.stack([wide.expand(SIZE, 2 * SIZE), tall[:, None].expand(SIZE, 2 * SIZE)])
    out = keskar(ramp.expand(50, 2, SIZE, 2 * SIZE).contiguous(), generator()).numpy()
    assert out.dtype == np.float64
    columns, rows = ramp.numpy()
    for taken in out:
        inside = (np.abs(taken[0]) < SIZE - 0.6) & (np.abs(taken[1]) < SIZE / 2 - 0.6)
        design = np.stack([columns[inside], rows[inside], np.ones(inside.sum())], axis=1)
        linear = np.linalg.lstsq(design, taken[:, inside].T, rcond=None)[0][:2].T
        np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-3)


def test_half_the_images_are_reflected_left_to_right(fitted):
    reflected = np.linalg.det(fitted[:, :, :2]) < 0
    assert abs(reflected.mean() - 0.5) < 5 * math.sqrt(0.25 / len(fitted))
    # left to right: the columns change sign, the rows do not
    assert (np.sign(fitted[:, 0, 0]) == np.where(reflected, -1, 1)).all()
    assert (fitted[:, 1, 1] > 0).all()


def uniform_on(values: np.ndarray, most: float) -> None:
    """All within +-most, mean and variance within five standard errors of a uniform's, both ends reached."""
    n = len(values)
    assert np.abs(values).max() <= most * (1 + 1e-3)
    assert abs(values.mean()) < 5 * most / math.sqrt(3 * n)
    assert np.mean(values**2) == pytest.approx(most**2 / 3, rel=5 * math.sqrt(0.8 / n))
    assert values.max() > 0.98 * most and values.min() < -0.98 * most


def test_angles_are_uniform_up_to_10_degrees(fitted):
    uniform_on(np.degrees(np.arcsin(fitted[:, 0, 1])), 10)


def test_shifts_are_uniform_up_to_a_fifth_of_the_size_both_ways(fitted):
    uniform_on(fitted[:, 0, 2], 0.2 * SIZE)
    uniform_on(fitted[:, 1, 2], 0.2 * SIZE)


def test_what_is_drawn_is_independent_between_images_and_between_transformations(fitted):
    draws = np.stack([fitted[:, 0, 1], fitted[:, 0, 2], fitted[:, 1, 2], np.linalg.det(fitted[:, :, :2])])
    correlations = np.corrcoef(np.vstack([draws[:, 1:], draws[:, :-1]]))
    assert np.abs(correlations - np.eye(8)).max() < 5 / math.sqrt(len(fitted))


def test_what_enters_the_frame_repeats_the_border(rng):
    """Nothing is made up: values stay within those of the image, and a flat image stays as it is."""
    x = torch.rand(64, 3, 16, 16) + 1
    out = keskar(x, generator())
    assert out.shape == x.shape and out.dtype == x.dtype
    assert (out.amax((2, 3)) <= x.amax((2, 3)) + 1e-5).all()
    assert (out.amin((2, 3)) >= x.amin((2, 3)) - 1e-5).all()
    flat = torch.rand(64, 3, 1, 1).expand(64, 3, 16, 16).contiguous()
    torch.testing.assert_close(keskar(flat, generator()), flat)


def test_only_the_generator_handed_in_is_used(rng):
    x, before = torch.rand(8, 1, 8, 8), torch.get_rng_state()
    first = keskar(x, generator(3))
    assert torch.equal(first, keskar(x, generator(3)))
    assert not torch.equal(first, keskar(x, generator(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_successive_batches_differ(rng):
    x, source = torch.rand(8, 1, 8, 8), generator()
    assert not torch.equal(keskar(x, source), keskar(x, source))


def test_the_input_is_not_changed(rng):
    x = torch.rand(8, 1, 8, 8)
    before = x.clone()
    AUGMENTATIONS["keskar"](x, generator())
    assert torch.equal(x, before)
