"""Where a curve over rates is best, and how the best rate goes with the batch: in proportion, then flat.

Rates and batch sizes are their logarithms of base 2 throughout.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy

LEAST = 1e-3  # of an error rate in percent, or a loss: its logarithm shall be finite
RESAMPLES = 999


def peak(rates: Sequence[float], badness: Sequence[float]) -> float:
    """The rate at which a badness (an error, a loss) is least: the vertex of a parabola in the logarithm of the badness.

    The parabola goes through the best rate of the grid and its two neighbours, and the vertex lies within half a step of the
    best one; at an end of the grid it is that end. Rates that diverged (NaN) count as the worst of the others. NaN where all
    diverged.
    """
    y = np.asarray(badness, float)
    if not np.isfinite(y).any():
        return np.nan
    y = np.log(np.maximum(np.where(np.isfinite(y), y, np.nanmax(y[np.isfinite(y)])), LEAST))
    best = int(y.argmin())
    if best in (0, len(y) - 1):
        return float(rates[best])
    left, middle, right = y[best - 1 : best + 2]
    bend = left - 2 * middle + right
    shift = 0.0 if bend <= 0 else float(np.clip((left - right) / (2 * bend), -0.5, 0.5))
    step = rates[best + 1] - rates[best] if shift > 0 else rates[best] - rates[best - 1]
    return float(rates[best] + shift * step)


class Fit(NamedTuple):
    """A law of the best rate: the batch at which it bends, the rate at which it levels off, and the root mean square of
    what it leaves, all in octaves."""

    bend: float
    top: float
    residual: float


def corner(x: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """In proportion to the batch up to the bend, then flat; 0 is the flat part."""
    return np.minimum(x - bend, 0.0)


def saturation(x: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """B / (B + bend): as proportional in the end and as flat, with a gradual passage (McCandlish et al. 2018, equation 2.7)."""
    return -np.log2(1 + 2.0 ** (bend - x))


def fit(batches: Sequence[float], rates: Sequence[float], law: Callable = corner) -> Fit:
    """Least squares of a law of two parameters, bend and level; the bend within the batches, to a 64th of an octave."""
    x, y = np.asarray(batches, float), np.asarray(rates, float)
    if not np.isfinite(y).all():
        return Fit(np.nan, np.nan, np.nan)
    bends = np.arange(x.min(), x.max() + 1e-9, 1 / 64)
    shape = law(x[None], bends[:, None])
    tops = (y - shape).mean(1)
    residuals = np.sqrt(np.square(y - shape - tops[:, None]).mean(1))
    best = int(residuals.argmin())
    return Fit(float(bends[best]), float(tops[best]), float(residuals[best]))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of a least-squares line: 1 where y doubles with x, 0 where it stays."""
    return float(np.polyfit(x, y, 1)[0]) if np.isfinite(y).all() else np.nan


def interval(seeds: int, of: Callable[[np.ndarray], float], level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap over seeds of what ``of`` makes of the seeds drawn; one seed alone has no interval."""
    if seeds < 2:
        return np.nan, np.nan
    found = scipy.stats.bootstrap(
        (np.arange(seeds),),
        lambda drawn: of(drawn.astype(int)),
        n_resamples=RESAMPLES,
        confidence_level=level,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
