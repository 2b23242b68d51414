"""Steep and flat directions: closed forms on linear and one-sided losses."""

import numpy as np
import pytest
import torch
from test_sharpness import Weights, linear

from lbgap.jobs import execute
from lbgap.measure import directions
from lbgap.spec import Measure


def box(w: np.ndarray, epsilon: float) -> np.ndarray:
    return epsilon * (np.abs(w) + 1)


def test_a_linear_loss_rises_by_the_sum_of_its_steepest_coordinates(rng):
    """max g'z over |z_i| <= b_i is sum |g_i| b_i, each coordinate giving its own term."""
    w, g = rng.normal(size=40), rng.normal(size=40)
    found = directions(Weights(w), linear(g, 100.0), epsilon=0.01, fraction=0.25, draws=400, iterations=200)
    terms = np.sort(np.abs(g) * box(w, 0.01))
    assert found["largest"] == pytest.approx(terms.sum())
    assert found["steep"] == pytest.approx(terms[-10:].sum())
    assert found["rest"] == pytest.approx(terms[:-10].sum())
    # a random corner rises by a sum of random signs: mean 0, variance the sum of squares
    assert abs(found["random"]) < 4 * np.sqrt((terms**2).sum() / 400)


def test_a_loss_that_is_steep_in_a_few_coordinates_has_its_rise_there(rng):
    g = np.full(200, 1e-6)
    g[:10] = 1.0
    found = directions(Weights(np.zeros(200)), linear(g, 100.0), epsilon=0.01, fraction=0.05)
    assert found["steep"] == pytest.approx(0.1)
    assert found["rest"] == pytest.approx(190e-8)
    assert found["random"] < found["largest"]


def test_even_steepness_gives_the_chosen_fraction_of_the_rise():
    found = directions(Weights(np.zeros(200)), linear(np.ones(200), 100.0), epsilon=0.01, fraction=0.05)
    assert found["steep"] / found["largest"] == pytest.approx(0.05)


def test_a_random_corner_of_a_bowl_rises_by_half_its_curvature(rng):
    """f = 1/2 sum h_i w_i^2 + g w from w = 0: at any corner +-b the rise is 1/2 sum h_i b^2, and g times a sum of signs."""
    h = rng.uniform(1, 3, size=30)
    curvature, slope = torch.from_numpy(h), 1e-4
    found = directions(
        Weights(np.zeros(30)), lambda m: 0.5 * (curvature * m.w**2).sum() + slope * m.w.sum() + 1, epsilon=0.1, draws=5
    )
    assert found["random"] == pytest.approx(0.5 * (h * 0.1**2).sum(), abs=slope * 30 * 0.1)


def test_what_contributes_is_weighed_by_the_gradients_at_both_ends():
    """Ten coordinates begin steeper and bend down, ten begin flatter, bend up and rise by more: 0.06 each and 0.09."""
    g, h = torch.tensor([1.0] * 10 + [0.5] * 10), torch.tensor([-8.0] * 10 + [8.0] * 10)
    found = directions(Weights(np.zeros(20)), lambda m: (g * m.w + 0.5 * h * m.w**2).sum() + 1, epsilon=0.1, fraction=0.5)
    assert found["largest"] == pytest.approx(10 * 0.06 + 10 * 0.09)
    assert found["steep"] == pytest.approx(10 * 0.09) and found["rest"] == pytest.approx(10 * 0.06)


def test_weights_come_back(rng):
    model = Weights(rng.normal(size=7))
    before = model.w.detach().clone()
    directions(model, linear(np.ones(7), 100.0))
    assert torch.equal(model.w, before)


@pytest.mark.parametrize(
    ("name", "value"), [("fraction", 0.0), ("fraction", 1.0), ("draws", 0), ("epsilon", 0.0), ("iterations", 0), ("seed", -1)]
)
def test_a_bad_argument_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; accepted is "):
        directions(Weights(np.ones(5)), linear(np.ones(5), 100.0), **{name: value})


def test_a_job_of_this_kind_records_the_four_rises(cache):
    from conftest import digits_run

    run = digits_run(epochs=1)
    execute(run, cache, "cpu")
    results = execute(Measure(kind="directions", arguments={"draws": 2}, of=(run.at(),)), cache, "cpu").results
    assert results["largest"] >= max(results["steep"], results["rest"], results["random"]) > 0
