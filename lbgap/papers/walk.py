"""The walk of the weights away from their start: laws fitted to the distances of a run's record, and two walks compared."""

import math

import numpy as np
from scipy import stats

FIRST = 10  # updates before this one are left out: the start of a run is not yet a walk


def _walked(r: dict, last: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """Updates from FIRST to ``last``, and the distances there."""
    t, d = (np.array(r["distance"][k], float) for k in ("update", "value"))
    within = (t >= FIRST) & (t <= last)
    return t[within], d[within]


def log_fit(r: dict, last: float = math.inf):
    """Distance as a + b log t up to update ``last`` (Hoffer et al. 2017, claim H5): SciPy's ``linregress``, slope b and r."""
    t, d = _walked(r, last)
    return stats.linregress(np.log(t), d)


def root_fit(r: dict):
    """Distance as a + b sqrt(t), an ordinary random walk's law: as many parameters as the logarithm, on the same points."""
    t, d = _walked(r)
    return stats.linregress(np.sqrt(t), d)


def exponent(r: dict) -> float:
    """The exponent of a power law of t, fitted on logarithms."""
    t, d = _walked(r)
    return float(stats.linregress(np.log(t), np.log(d)).slope)


def in_common(*results: dict) -> float:
    """The last update that all of the runs have made."""
    return min(r["distance"]["update"][-1] for r in results)


def apart(r: dict, reference: dict, at_the_end: bool = False) -> float:
    """The largest difference from the reference's distance at an update that both runs have made, percent of the latter.

    ``at_the_end``: at the last such update, with its sign.
    """
    at = np.log(np.geomspace(FIRST, in_common(r, reference), 40))
    of_this, of_that = (np.interp(at, np.log(x["distance"]["update"]), x["distance"]["value"]) for x in (r, reference))
    difference = 100 * (of_this / of_that - 1)
    return float(difference[-1] if at_the_end else np.abs(difference).max())
