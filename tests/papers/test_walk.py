"""Walks made up from laws, and what is found in them."""

import math

import numpy as np
import pytest

from lbgap.papers import walk


def walked(updates, distances) -> dict:
    """A record's distances."""
    return {"distance": {"update": [int(t) for t in updates], "value": list(distances)}}


def test_fits_find_the_law_they_look_for():
    t = np.unique(np.geomspace(1, 5000, 40).round())
    log = walked(t, 2 + 3 * np.log(t))
    assert walk.log_fit(log).slope == pytest.approx(3)
    assert walk.log_fit(log).rvalue ** 2 == pytest.approx(1)
    assert walk.root_fit(log).rvalue ** 2 < 0.99
    power = walked(t, 0.5 * t**0.25)
    assert walk.exponent(power) == pytest.approx(0.25)
    assert walk.log_fit(power).rvalue ** 2 < 0.99
    root = walked(t, 1 + 0.5 * np.sqrt(t))
    assert walk.root_fit(root).slope == pytest.approx(0.5)
    assert walk.root_fit(root).rvalue ** 2 == pytest.approx(1)
    assert walk.log_fit(root).rvalue ** 2 < 0.95
    # over a part of the updates the slope of a power law is another
    assert walk.log_fit(power, 100).slope < walk.log_fit(power).slope
    # what happens before the tenth update is left out
    early = walked(t, np.where(t < 10, 1e6, 2 + 3 * np.log(t)))
    assert walk.log_fit(early).slope == pytest.approx(3)
    # a logarithm that turns into a square root: which of them fits better hangs on where one begins to look
    turning = walked(t, np.where(t < 300, np.log(t), np.log(300) + np.sqrt(t) - np.sqrt(300)))
    assert walk.logarithm_over_root(log, 100) > 0 > walk.logarithm_over_root(turning, 300)
    t_late = t[t >= 300]
    assert walk.root_fit(turning, 300).rvalue ** 2 == pytest.approx(1)
    r_log = np.corrcoef(np.log(t_late), np.sqrt(t_late))[0, 1]
    assert walk.logarithm_over_root(turning, 300) == pytest.approx(r_log**2 - 1)


def test_distances_are_compared_at_the_same_updates():
    """Logarithms are straight in log t, so that interpolation is exact on them."""
    t = np.unique(np.geomspace(1, 4000, 40).round())
    small = walked(t, 5 * np.log(t))
    assert walk.apart(walked([1, 100], [0.0, 1.2 * 5 * math.log(100)]), small) == pytest.approx(20)
    # a run that goes on for longer is read where the small batch ends; sides do not cancel
    assert walk.apart(walked([1, 4000, 9000], [0.0, 0.5 * 5 * math.log(4000), 99]), small) == pytest.approx(50)
    crossing = walked([1, 10, 100, 1000], [0.0, 0.7 * 5 * math.log(10), 1.2 * 5 * math.log(100), 5 * math.log(1000)])
    assert walk.apart(crossing, small) == pytest.approx(30)
    assert walk.apart(crossing, small, at_the_end=True) == pytest.approx(0)
    assert walk.apart(crossing, small, first=100) == pytest.approx(20)
    assert walk.apart(small, small) == pytest.approx(0, abs=1e-9)
    assert walk.in_common(small, crossing) == 1000
