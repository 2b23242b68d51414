"""The walk of the weights away from their start: laws fitted to the distances of a run's record, and two walks compared."""

import math

import numpy as np
import scipy

FIRST = 10  # updates before this one are left out: the start of a run is not yet a walk


def _walked(r: dict, last: float = math.inf, first: float = FIRST) -> tuple[np.ndarray, np.ndarray]:
    """Updates from ``first`` to ``last``, and the distances there."""
    t, d = (np.array(r["distance"][k], float) for k in ("update", "value"))
    within = (t >= first) & (t <= last)
    return t[within], d[within]


def log_fit(r: dict, last: float = math.inf, first: float = FIRST):
    """Distance as a + b log t between two updates (Hoffer et al. 2017, claim H5): SciPy's ``linregress``, slope b and r."""
    t, d = _walked(r, last, first)
    return scipy.stats.linregress(np.log(t), d)


def root_fit(r: dict, first: float = FIRST):
    """Distance as a + b sqrt(t), an ordinary random walk's law: as many parameters as the logarithm, on the same points."""
    t, d = _walked(r, first=first)
    return scipy.stats.linregress(np.sqrt(t), d)


def logarithm_over_root(r: dict, first: float = FIRST) -> float:
    """By how much a logarithm fits better than a square root: r² of the one, minus that of the other."""
    return log_fit(r, first=first).rvalue ** 2 - root_fit(r, first).rvalue ** 2


def exponent(r: dict) -> float:
    """The exponent of a power law of t, fitted on logarithms."""
    t, d = _walked(r)
    return float(scipy.stats.linregress(np.log(t), np.log(d)).slope)


def in_common(*results: dict) -> float:
    """The last update that all of the runs have made."""
    return min(r["distance"]["update"][-1] for r in results)


def apart(r: dict, reference: dict, at_the_end: bool = False, first: float = FIRST) -> float:
    """The largest difference from the reference's distance at an update that both runs have made, percent of the latter.

    Updates before ``first`` are left out. ``at_the_end``: at the last such update, with its sign.
    """
    at = np.log(np.geomspace(first, in_common(r, reference), 40))
    of_this, of_that = (np.interp(at, np.log(x["distance"]["update"]), x["distance"]["value"]) for x in (r, reference))
    difference = 100 * (of_this / of_that - 1)
    return float(difference[-1] if at_the_end else np.abs(difference).max())
