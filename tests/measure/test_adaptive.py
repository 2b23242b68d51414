"""Adaptive sharpness: closed forms, its invariance, and what it leaves untouched."""

import copy

import numpy as np
import pytest
import torch
from test_sharpness import Counting, Weights, condition, linear, network, quadratic  # noqa: F401
from torch import nn

from lbgap.measure import adaptive_sharpness, mean_cross_entropy, sharpness


def test_of_a_linear_loss_is_the_rise_to_the_corner(rng):
    """max g'z over |z_i| <= rho |w_i|."""
    w, g, rho = rng.normal(size=40), rng.normal(size=40), 0.02
    result = adaptive_sharpness(Weights(w), linear(g, 3.0), rho, iterations=60)
    assert result["value"] == pytest.approx(rho * np.abs(g) @ np.abs(w), rel=1e-9)
    assert result["loss"] == pytest.approx(3 + g @ w, rel=1e-12)
    assert result["loss_max"] - result["loss"] == result["value"] and result["at_bound"] == 1


def test_of_a_convex_bowl_is_the_farthest_corner(rng):
    w, c, h, rho = rng.normal(size=40), rng.normal(size=40), rng.uniform(0.1, 10, size=40), 0.05
    highest = 0.5 * h @ (np.abs(w - c) + rho * np.abs(w)) ** 2
    result = adaptive_sharpness(Weights(w), quadratic(h, c), rho, iterations=60)
    assert result["loss_max"] == pytest.approx(highest, rel=1e-9)


def test_weights_of_0_do_not_move(rng):
    seen, loss = [], linear(np.ones(4), 1.0)

    def recording(model):
        seen.append(model.w.detach().numpy().copy())
        return loss(model)

    w = np.array([0.0, -2.0, 0.0, 1.0])
    assert adaptive_sharpness(Weights(w), recording, 0.1)["value"] == pytest.approx(0.3)
    assert len(seen) > 1 and not np.array(seen)[:, [0, 2]].any()
    assert adaptive_sharpness(Weights(np.zeros(4)), loss, 0.1)["value"] == 0


def test_a_loss_below_0_has_one_too():
    assert adaptive_sharpness(Weights(np.ones(2)), linear(np.ones(2), -7.0), 0.1)["value"] == pytest.approx(0.2)


def test_at_an_exact_stationary_point_the_search_starts_at_random(rng):
    w = rng.normal(size=10)
    result = adaptive_sharpness(Weights(w), quadratic(np.ones(10), w), 0.1, iterations=60)
    assert result["value"] == pytest.approx(0.5 * 0.01 * w @ w, rel=1e-9)


@pytest.mark.parametrize("factor", [1e-2, 30.0])
@pytest.mark.parametrize("rho", [1e-3, 5e-2])
def test_rescaling_the_layers_of_a_relu_network_changes_nothing(factor, rho, rng):
    """Hidden weights and biases times a, the next layer's weights by a: the same function; the box of Keskar et al. is not."""
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    x, y = torch.randn(80, 5, dtype=torch.float64), torch.from_numpy(rng.integers(3, size=80))
    rescaled, loss = copy.deepcopy(model), mean_cross_entropy(x, y)
    with torch.no_grad():
        rescaled[0].weight.mul_(factor)
        rescaled[0].bias.mul_(factor)
        rescaled[2].weight.div_(factor)
    one, other = (adaptive_sharpness(m, loss, rho) for m in (model, rescaled))
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-12)
    assert other["value"] == pytest.approx(one["value"], rel=1e-6) and one["value"] > 0
    fixed = [sharpness(m, loss, rho).value for m in (model, rescaled)]
    assert abs(fixed[1] / fixed[0] - 1) > 0.1


@pytest.mark.parametrize("batch_norm", ["batch", "running", "reestimated"])
def test_the_network_comes_back_as_it_was(network, batch_norm):  # noqa: F811
    model, x, y = network
    before = condition(model)
    result = adaptive_sharpness(model, mean_cross_entropy(x, y, 25), 1e-2, batch_norm, data=x)
    assert result["value"] > 0
    assert result["loss"] == sharpness(model, mean_cross_entropy(x, y, 25), batch_norm=batch_norm, data=x).loss
    assert condition(model) == before


def test_buffers_of_ones_own_come_back_too(network):  # noqa: F811
    _, x, y = network
    model = Counting()
    adaptive_sharpness(model, mean_cross_entropy(x, y))
    assert model.calls == 0 and model.first is None


@pytest.mark.parametrize(
    ("name", "value"), [("rho", 0.0), ("rho", -1.0), ("rho", float("nan")), ("iterations", 0), ("seed", -1), ("rho", 1e-9)]
)
def test_a_bad_argument_is_refused_by_name(name, value):
    """1e-9 of a weight is below the resolution of float32."""
    with pytest.raises(ValueError, match=rf"^{name} is {value}; accepted is [^\n]*$"):
        adaptive_sharpness(Weights(np.ones(5), torch.float32), linear(np.ones(5), 1.0), **{name: value})
