"""Where a curve over rates is best, and how the best rate goes with the batch: in proportion, then flat.

Rates and batch sizes are their logarithms of base 2 throughout. Leading axes, such as one of bootstrap samples, pass through.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

LEAST = 1e-3  # of an error rate in percent, or a loss: its logarithm shall be finite
RESAMPLES = 999


def peak(rates: ArrayLike, badness: ArrayLike) -> np.ndarray:
    """The rate at which a badness (an error, a loss) is least: the vertex of a parabola in the logarithm of the badness.

    The parabola goes through the best rate of the grid and its two neighbours, and the vertex lies within half a step of the
    best one; at an end of the grid it is that end. Rates that diverged (NaN) count as the worst of the others. NaN where all
    diverged.

    Args:
        rates: (rates,), rising.
        badness: (..., rates).
    """
    rates, y = np.asarray(rates, float), np.asarray(badness, float)
    finite = np.isfinite(y)
    worst = np.where(finite, y, -np.inf).max(-1, keepdims=True)
    y = np.log(np.maximum(np.where(finite, y, worst), LEAST))
    best = y.argmin(-1)
    found = rates[best]
    if len(rates) > 2:
        inner = np.clip(best, 1, len(rates) - 2)
        before, after = (rates[inner + i] - rates[inner] for i in (-1, 1))  # below 0, above 0
        left, middle, right = (np.take_along_axis(y, (inner + i)[..., None], -1)[..., 0] for i in (-1, 0, 1))
        left, right = left - middle, right - middle
        # a + b t + c t^2 through (before, left), (0, 0), (after, right), times the same positive number
        c, b = right * -before + left * after, right * before**2 - left * after**2
        vertex = -b / np.where(c > 0, 2 * c, np.inf)
        found = np.where(best == inner, found + vertex, found)
    return np.where(finite.any(-1), found, np.nan)


class Fit(NamedTuple):
    """A law of the best rate: the batch at which it bends, the rate at which it levels off, and the root mean square of
    what it leaves, all in octaves."""

    bend: np.ndarray
    top: np.ndarray
    residual: np.ndarray


def corner(x: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """In proportion to the batch up to the bend, then flat; 0 is the flat part."""
    return np.minimum(x - bend, 0.0)


def saturation(x: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """B / (B + bend): as proportional in the end and as flat, with a gradual passage (McCandlish et al. 2018, equation 2.7)."""
    return -np.log2(1 + 2.0 ** (bend - x))


def fit(batches: ArrayLike, rates: ArrayLike, law: Callable = corner) -> Fit:
    """Least squares of a law of two parameters, bend and level; the bend within the batches, to a 64th of an octave.

    Args:
        batches: (batches,).
        rates: (..., batches), the best rate of each.
    """
    x, y = np.asarray(batches, float), np.asarray(rates, float)
    bends = np.arange(x.min(), x.max() + 1e-9, 1 / 64)
    left = y[..., None, :] - law(x, bends[:, None])  # (..., bends, batches)
    tops = left.mean(-1)
    residuals = left.std(-1)
    best = np.nan_to_num(residuals, nan=np.inf).argmin(-1)[..., None]
    top, residual = (np.take_along_axis(of, best, -1)[..., 0] for of in (tops, residuals))
    return Fit(np.where(np.isfinite(residual), bends[best[..., 0]], np.nan), top, residual)


def slope(x: ArrayLike, y: ArrayLike) -> float:
    """Of a least-squares line: 1 where y doubles with x, 0 where it stays."""
    return float(np.polyfit(x, y, 1)[0]) if np.isfinite(y).all() else np.nan


def interval(seeds: int, of: Callable[[np.ndarray], np.ndarray], level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap over seeds of what ``of`` makes of the seeds drawn; one seed alone has no interval.

    Of as few seeds as five it is too narrow: it holds the true value less often than ``level`` says.

    Args:
        of: of (..., seeds) indices, (...) numbers.
    """
    if seeds < 2:
        return np.nan, np.nan
    found = scipy.stats.bootstrap(
        (np.arange(seeds),),
        lambda drawn, axis: of(np.moveaxis(drawn, axis, -1)),
        n_resamples=RESAMPLES,
        confidence_level=level,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
