"""Augmentation of Hoffer et al. 2017's code, read off images whose pixels say where they come from."""

import math

import numpy as np
import pytest
import torch

from lbgap.augment import AUGMENTATIONS, hoffer

SHAPES = {"cifar": (3, 32, 32), "mnist": (1, 28, 28), "digits": (1, 8, 8), "imagenet": (3, 256, 256)}
PAD = {"cifar": 4, "mnist": 2, "digits": 1, "imagenet": 0}
FILL = {"cifar": 127 / 255, "mnist": 0.0, "digits": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    """An image whose pixels hold 1 + their number, counted row by row: nothing that padding could be taken for."""
    channels, height, width = shape
    return (torch.arange(height * width, dtype=torch.float64).reshape(height, width) + 1).expand(channels, height, width)


def moves(kind: str, n: int, seed: int = 0) -> np.ndarray:
    """For each of ``n`` images (row and column of the input at the first pixel of the crop, 1 where reflected).

    Negative where the crop begins in the padding. The middle of the crop lies in the image, whatever was drawn: its pixel
    and the next one to its right say all three.
    """
    _, height, width = SHAPES[kind]
    out = hoffer(numbered(SHAPES[kind]).expand(n, *SHAPES[kind]), generator(seed))[:, 0].numpy()
    row, column = out.shape[1] // 2, out.shape[2] // 2
    here, right = out[:, row, column].astype(int) - 1, out[:, row, column + 1].astype(int) - 1
    reflected = right < here
    assert (np.abs(right - here) == 1).all()
    top = here // width - row
    # without a reflection the first column of the crop is as far to the left as here; with one, the last is
    left = np.where(reflected, here % width - (out.shape[2] - 1 - column), here % width - column)
    return np.stack([top, left, reflected])


def by_hand(image: np.ndarray, top: int, left: int, reflected: bool, size: tuple[int, int], fill: float) -> np.ndarray:
    """The crop of one image whose first pixel lies at (top, left) of it, pixel by pixel."""
    channels, height, width = image.shape
    out = np.full((channels, *size), fill)
    for i in range(size[0]):
        for j in range(size[1]):
            row, column = top + i, left + (size[1] - 1 - j if reflected else j)
            if 0 <= row < height and 0 <= column < width:
                out[:, i, j] = image[:, row, column]
    return out


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("kind", ["cifar", "mnist", "digits"])
def test_images_are_those_of_a_slow_reference(kind, rng):
    """What was drawn is read off the numbered images; other images under the same seed must have undergone the same."""
    x = torch.from_numpy(rng.random(size=(40, *SHAPES[kind])))
    out = hoffer(x, generator(3))
    assert out.shape == x.shape and out.dtype == x.dtype
    for image, got, move in zip(x.numpy(), out.numpy(), moves(kind, 40, seed=3).T, strict=True):
        np.testing.assert_array_equal(got, by_hand(image, *move, SHAPES[kind][1:], FILL[kind]))


def test_large_images_are_those_of_a_slow_reference(rng):
    """Larger than 32 pixels: crops, and no padding; small ones of ImageNet's kind, for the sake of the loop."""
    x = torch.from_numpy(rng.random(size=(12, 3, 64, 40)))
    out = hoffer(x, generator(3)).numpy()
    assert out.shape == (12, 3, 56, 35)
    for image, got in zip(x.numpy(), out, strict=True):
        crops = (
            (top, left, reflected) for top in range(64 - 56 + 1) for left in range(40 - 35 + 1) for reflected in (False, True)
        )
        fits = [
            move
            for move in crops
            if np.array_equal(image[:, move[0], move[1] + (34 if move[2] else 0)], got[:, 0, 0])
            and np.array_equal(by_hand(image, *move, (56, 35), np.nan), got)
        ]
        assert len(fits) == 1


@pytest.mark.parametrize("kind", ["cifar", "mnist", "digits"])
def test_what_enters_the_frame_is_grey_in_colour_and_black_in_grey(kind):
    """Padding shows exactly where a crop reaches over the edge: a shift by (a, b) leaves that many rows and columns."""
    channels, height, width = SHAPES[kind]
    x = torch.full((300, channels, height, width), 0.75)
    out, (top, left, _) = hoffer(x, generator(5)), moves(kind, 300, seed=5)
    padding = out != 0.75
    assert (out[padding] == torch.tensor(FILL[kind], dtype=x.dtype)).all()
    expected = height * width - (height - np.abs(top)) * (width - np.abs(left))
    np.testing.assert_array_equal(padding.sum((2, 3)).numpy(), np.stack([expected] * channels, axis=1))


# ---------------------------------------------------------------- what is drawn


def uniform_on(values: np.ndarray, low: int, high: int) -> None:
    """Whole numbers, each as often as the others within five standard errors, and no others."""
    n, p = len(values), 1 / (high - low + 1)
    counts = np.array([(values == v).sum() for v in range(low, high + 1)])
    assert counts.sum() == n
    assert (np.abs(counts / n - p) < 5 * math.sqrt(p * (1 - p) / n)).all()


@pytest.mark.parametrize("kind", ["cifar", "mnist", "digits"])
def test_shifts_are_uniform_whole_numbers_up_to_the_padding_both_ways(kind):
    """4 pixels for CIFAR, 2 for MNIST: an eighth of colour images, a fourteenth of grey ones."""
    top, left, _ = moves(kind, 3000)
    uniform_on(top, -PAD[kind], PAD[kind])
    uniform_on(left, -PAD[kind], PAD[kind])


def test_crops_of_imagenet_are_of_224_pixels_anywhere_in_the_image():
    x = numbered(SHAPES["imagenet"])[:1].expand(400, 1, 256, 256)
    assert hoffer(x, generator()).shape == (400, 1, 224, 224)
    top, left, _ = moves("imagenet", 400)
    for values in (top, left):
        assert values.min() == 0 and values.max() == 32
        # U{0, ..., 32}: variance (33^2 - 1) / 12 about 16
        assert abs(values.mean() - 16) < 5 * math.sqrt((33**2 - 1) / 12 / 400)


@pytest.mark.parametrize(("kind", "n"), [("cifar", 2000), ("mnist", 2000), ("digits", 20_000), ("imagenet", 200)])
def test_half_the_images_are_reflected_left_to_right(kind, n):
    reflected = moves(kind, n)[2]
    assert abs(reflected.mean() - 0.5) < 5 * math.sqrt(0.25 / n)


def test_what_is_drawn_is_independent_between_images_and_between_transformations():
    draws = moves("cifar", 3000).astype(float)
    correlations = np.corrcoef(np.vstack([draws[:, 1:], draws[:, :-1]]))
    assert np.abs(correlations - np.eye(6)).max() < 5 / math.sqrt(3000)


def test_channels_of_an_image_move_together(rng):
    plane = torch.rand(20, 1, 32, 32)
    out = hoffer(plane.expand(20, 3, 32, 32), generator())
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 1], out[:, 2])


# ---------------------------------------------------------------- generators


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 64, 64)])
def test_only_the_generator_handed_in_is_used(shape, rng):
    x, before = torch.rand(8, *shape), torch.get_rng_state()
    first = hoffer(x, generator(3))
    assert torch.equal(first, hoffer(x, generator(3)))
    assert not torch.equal(first, hoffer(x, generator(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_successive_batches_differ(rng):
    x, source = torch.rand(8, 1, 8, 8), generator()
    assert not torch.equal(hoffer(x, source), hoffer(x, source))


def test_the_input_is_not_changed(rng):
    x = torch.rand(8, 3, 32, 32)
    before = x.clone()
    AUGMENTATIONS["hoffer"](x, generator()).zero_()
    assert torch.equal(x, before)
