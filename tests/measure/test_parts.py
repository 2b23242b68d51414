"""m-sharpness: closed forms, brute force on every part, and what it leaves untouched."""

import copy
import math

import numpy as np
import pytest
import torch
from test_sharpness import condition, network  # noqa: F401
from torch import nn

from lbgap.measure import m_sharpness, mean_cross_entropy


class Shift(nn.Module):
    """x - w, for n vectors."""

    def __init__(self, w: np.ndarray, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=dtype))

    def forward(self, x):
        return x - self.w


def half_square(x, y):
    """Mean over examples of half the squared distance of w from x."""
    return lambda model: 0.5 * model(x).square().sum(1).mean()


@pytest.mark.parametrize("rho", [1e-3, 0.5])
def test_of_the_whole_set_it_is_the_rise_along_the_gradient(rho, rng):
    """The gradient g = w - mean x; from |g| to |g| + rho half the square rises by rho |g| + rho^2 / 2, the spread apart."""
    x, w = rng.normal(size=(30, 4)), rng.normal(size=4)
    result = m_sharpness(Shift(w), torch.tensor(x), torch.arange(30), rho, 30, loss=half_square)
    length = np.linalg.norm(w - x.mean(0))
    assert result["value"] == pytest.approx(rho * length + rho**2 / 2, rel=1e-9)
    assert result["loss"] == pytest.approx(0.5 * np.square(x - w).sum(1).mean(), rel=1e-12)
    assert result["loss_max"] - result["loss"] == result["value"] and result["parts"] == 1


def test_of_single_examples_it_is_the_mean_of_their_rises(rng):
    x, w, rho = rng.normal(size=(30, 4)), rng.normal(size=4), 0.1
    result = m_sharpness(Shift(w), torch.tensor(x), torch.arange(30), rho, 1, loss=half_square)
    assert result["value"] == pytest.approx(np.mean(rho * np.linalg.norm(w - x, axis=1) + rho**2 / 2), rel=1e-9)
    assert result["parts"] == 30


def test_a_part_whose_gradient_is_0_does_not_rise(rng):
    w = rng.normal(size=4)
    x = np.stack([w, w + 1])  # the first example is at its minimum; the second has a gradient of length 2
    result = m_sharpness(Shift(w), torch.tensor(x), torch.arange(2), 0.1, 1, loss=half_square)
    assert result["value"] == pytest.approx((0 + 0.1 * 2 + 0.005) / 2, rel=1e-9)


def recorded(x, y, chosen: list):
    """The mean cross entropy, with a note of the examples that it is asked for."""

    def loss(x, y):
        chosen.append((x, y))
        return mean_cross_entropy(x, y)

    return loss


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_of_a_network_it_is_brute_force_on_each_part(batch_norm, rng):
    """Another network for every part, moved by hand, in the mode that the reading stands for."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.from_numpy(rng.integers(3, size=50))
    model(2 * x + 1)
    chosen, rho = [], 0.05
    result = m_sharpness(model, x, y, rho, 12, batch_norm, recorded(x, y, chosen))
    parts = [part for part in chosen if len(part[0]) == 12]
    assert result["parts"] == len(parts) == 4
    taken = torch.cat([part for part, _ in parts])
    assert len(torch.unique(taken, dim=0)) == 48 and all((row == x).all(1).any() for row in taken)
    rises, mode = [], batch_norm == "batch"
    for a, b in parts:
        other = copy.deepcopy(model).train(mode)
        other[3].p = 0.0
        before = nn.functional.cross_entropy(other(a), b)
        before.backward()
        length = math.sqrt(sum(float(p.grad.square().sum()) for p in other.parameters()))
        with torch.no_grad():
            for p in other.parameters():
                p += rho * p.grad / length
            rises.append(float(nn.functional.cross_entropy(other(a), b) - before))
    assert result["value"] == pytest.approx(np.mean(rises), rel=1e-8)


def test_the_seed_decides_the_parts_and_their_number_may_be_bounded(rng):
    x, w = torch.tensor(rng.normal(size=(40, 4))), rng.normal(size=4)

    def of(**arguments):
        return m_sharpness(Shift(w), x, torch.arange(40), m=5, loss=half_square, **arguments)

    assert of() == of(seed=0) and of()["value"] != of(seed=1)["value"]
    assert of(parts=3)["parts"] == 3 and of(parts=8) == of()


def test_smaller_parts_are_sharper(rng):
    """Foret et al. 2021, section 4.1; here |g_S| has the noise of m examples in it, by Jensen's inequality more for fewer."""
    x, w = torch.tensor(rng.normal(size=(64, 4))), np.zeros(4)
    found = [m_sharpness(Shift(w), x, torch.arange(64), 0.1, m, loss=half_square)["value"] for m in (1, 4, 16, 64)]
    assert found == sorted(found, reverse=True)


def test_further_ascents_start_where_the_one_before_ended(rng):
    """On half a quadratic form, whose gradient is known; linearised again and again, a convex loss only rises further."""
    x, w, rho = rng.normal(size=(30, 4)), rng.normal(size=4), 0.5
    form = torch.tensor(np.diag([1.0, 2.0, 5.0, 9.0]))

    def loss(x, y):
        return lambda model: 0.5 * torch.einsum("ni,ij,nj->n", model(x), form, model(x)).mean()

    found = [m_sharpness(Shift(w), torch.tensor(x), torch.arange(30), rho, 30, loss=loss, ascents=k) for k in range(1, 6)]
    e, expected, at = np.zeros(4), [], w - x.mean(0)
    for _ in found:
        g = form.numpy() @ (at + e)
        e = rho * g / np.linalg.norm(g)
        expected.append(0.5 * (at + e) @ form.numpy() @ (at + e) - 0.5 * at @ form.numpy() @ at)
    assert [result["value"] for result in found] == pytest.approx(expected, rel=1e-9)
    assert np.all(np.diff(expected) > 0)


@pytest.mark.parametrize("batch_norm", ["batch", "running", "reestimated"])
def test_the_network_comes_back_as_it_was(network, batch_norm):  # noqa: F811
    model, x, y = network
    before, generator = condition(model), torch.get_rng_state()
    assert m_sharpness(model, x, y, 0.05, 20, batch_norm, data=x)["value"] > 0
    assert condition(model) == before and torch.equal(torch.get_rng_state(), generator)


def test_inputs_and_targets_are_as_many(rng):
    x = torch.ones(5, 2)
    with pytest.raises(ValueError, match="^x has 5 examples and y has 4; accepted are as many$"):
        m_sharpness(Shift(np.zeros(2)), x, torch.arange(4), m=2, loss=half_square)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rho", 0.0),
        ("rho", math.inf),
        ("rho", 1e-9),
        ("m", 0),
        ("m", 41),
        ("m", 2.5),
        ("parts", 0),
        ("parts", 9),
        ("seed", -1),
        ("ascents", 0),
    ],
)
def test_a_bad_argument_is_refused_by_name(name, value):
    """1e-9 of a weight of about 1 is below the resolution of float32."""
    model, x = Shift(np.ones(4), torch.float32), torch.ones(40, 4) * torch.arange(40)[:, None]
    with pytest.raises(ValueError, match=rf"^{name} is {value}; accepted is [^\n]*$"):
        m_sharpness(model, x, torch.arange(40), **({"m": 5, "loss": half_square} | {name: value}))
