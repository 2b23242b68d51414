"""The gradient noise scale: exact sample formulas, no bias on a known distribution, the two estimators against each other."""

import importlib
import math

import numpy as np
import pytest
import torch
from test_parts import Shift, half_square
from test_sharpness import condition, network  # noqa: F401
from torch import nn

from lbgap.measure import mean_cross_entropy, noise_scale
from lbgap.models.smith import SkipInit


def sample(rng, n: int, mean, deviation) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(rng.normal(mean, deviation, size=(n, len(mean)))), torch.arange(n)


def test_per_example_it_is_the_sample_covariance(rng):
    """The gradient of half the squared distance is w - x: its covariance is that of x."""
    w = rng.normal(size=4)
    x, y = sample(rng, 50, [1.0, 2, 3, 4], [1.0, 0.5, 2, 3])
    result = noise_scale(Shift(w), x, y, "per-example", loss=half_square)
    trace = np.trace(np.cov(x.numpy().T))
    squared = np.square(w - x.numpy().mean(0)).sum() - trace / 50
    assert (result["trace"], result["gradient_squared"]) == pytest.approx((trace, squared), rel=1e-9)
    assert result["noise_scale"] == pytest.approx(trace / squared, rel=1e-9) and result["draws"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"estimator": "per-example"},
        {"estimator": "two-batch", "small": 2, "big": 8},
        {"estimator": "two-batch", "small": 4, "big": 20, "draws": 1},
    ],
    ids=str,
)
def test_numerator_and_denominator_are_unbiased(arguments, rng):
    """Over many samples of a known distribution the means lie within five standard errors of the truth."""
    mean, deviation, w = np.array([1.0, -1, 0.5]), np.array([1.0, 2, 0.5]), np.zeros(3)
    found = []
    for _ in range(400):
        x, y = sample(rng, 24, mean, deviation)
        result = noise_scale(Shift(w), x, y, loss=half_square, **arguments)
        found.append((result["trace"], result["gradient_squared"]))
    found = np.array(found)
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    truth = np.array([np.square(deviation).sum(), np.square(w - mean).sum()])
    assert (np.abs(found.mean(0) - truth) < 5 * error).all() and (error < 0.05 * truth).all()


def test_the_seed_decides_which_examples_are_drawn(rng):
    x, y = sample(rng, 50, [1.0, 2], [1.0, 0.5])
    one, again, other = (
        noise_scale(Shift(np.zeros(2)), x, y, small=2, big=8, draws=2, seed=seed, loss=half_square) for seed in (1, 1, 2)
    )
    assert one == again and one["trace"] != other["trace"]


@pytest.fixture
def classifier(rng) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """With convolution, batch norm that has seen something, a frozen layer, and a weight that is a scalar."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(27, 8), nn.Linear(8, 3),
        SkipInit(),
    ).double()  # fmt: skip
    nn.init.constant_(model[7].scale, 0.5)
    model[5].bias.requires_grad_(False)
    x, y = torch.randn(40, 1, 5, 5, dtype=torch.float64), torch.from_numpy(rng.integers(3, size=40))
    model(2 * x + 1)
    return model, x, y


@pytest.mark.parametrize("at_once", [1, 1 << 26, 3000])
def test_single_examples_at_once_are_single_examples_one_after_another(classifier, at_once, monkeypatch):
    """Two-batch with b = 1 and B = n: the formulas are the same, the gradients come from ordinary backward passes."""
    monkeypatch.setattr(importlib.import_module("lbgap.measure.noise"), "AT_ONCE", at_once)
    one = noise_scale(*classifier, "per-example")
    other = noise_scale(*classifier, "two-batch", small=1, big=40)
    assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("batch_norm", ["running", "reestimated", "batch"])
def test_two_batch_is_the_formula_of_the_gradients_of_its_parts(classifier, batch_norm):
    """Gradients by hand, of networks in the mode that the reading stands for; the draws as the loss was asked for them."""
    model, x, y = classifier
    asked = []

    def loss(x, y):
        asked.append((x, y))
        return mean_cross_entropy(x, y)

    result = noise_scale(model, x, y, small=5, big=15, batch_norm=batch_norm, loss=loss, data=x)
    parts = [part for part in asked if len(part[0]) == 5]
    assert len(parts) == 6 and result["draws"] == 2
    if batch_norm == "reestimated":
        model[1].momentum = 1.0
        model.train()(x)
    model.eval()
    if batch_norm == "batch":
        model[1].running_mean = model[1].running_var = None
    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = np.stack(
        [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(nn.functional.cross_entropy(model(a), b), weights)]).numpy()
            for a, b in parts
        ]
    ).reshape(2, 3, -1)
    small, big = np.square(gradients).sum(2).mean(), np.square(gradients.mean(1)).sum(1).mean()
    assert result["trace"] == pytest.approx((small - big) / (1 / 5 - 1 / 15), rel=1e-9)
    assert result["gradient_squared"] == pytest.approx((15 * big - 5 * small) / 10, rel=1e-9)
    assert result["noise_scale"] == pytest.approx(result["trace"] / result["gradient_squared"], rel=1e-12)


def test_where_the_gradient_cannot_be_told_from_0_the_scale_is_infinite(rng):
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    result = noise_scale(Shift(np.zeros(1)), x, torch.arange(4), "per-example", loss=half_square)
    assert result["gradient_squared"] < 0 and result["noise_scale"] == math.inf


@pytest.mark.parametrize(
    "arguments",
    [{"estimator": "per-example"}, {"small": 5, "big": 20}, {"small": 5, "big": 20, "batch_norm": "batch"}],
    ids=str,
)
def test_the_network_comes_back_as_it_was(network, arguments):  # noqa: F811
    model, x, y = network
    before, generator = condition(model), torch.get_rng_state()
    assert noise_scale(model, x, y, **arguments)["trace"] > 0
    assert condition(model) == before and torch.equal(torch.get_rng_state(), generator)


class Branching(nn.Module):
    """Which way it goes depends on the values, as vmap cannot."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        y = self.linear(x)
        return y if y.sum() > 0 else 2 * y


def test_a_network_that_vmap_cannot_run_is_refused_and_can_be_had_otherwise(rng):
    model, x, y = Branching(), torch.randn(12, 3), torch.from_numpy(rng.integers(2, size=12))
    with pytest.raises(ValueError, match=r"^estimator is 'per-example'; torch.func.vmap cannot run this network, [^\n]*$"):
        noise_scale(model, x, y, "per-example")
    assert noise_scale(model, x, y, small=1, big=12)["trace"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"estimator": "three-batch"}, "estimator is 'three-batch'; accepted are two-batch, per-example"),
        (
            {"estimator": "per-example", "batch_norm": "batch"},
            "batch_norm is 'batch'; accepted for single examples are running, reestimated",
        ),
        ({"big": 41}, "big is 41; accepted is an integer from 2 to 40"),
        ({"small": 0}, "small is 0; accepted is an integer from 1 to 19"),
        ({"small": 20}, "small is 20; accepted is an integer from 1 to 19"),
        ({"small": 3}, "big is 20; accepted is a multiple of small, 3"),
        ({"draws": 3}, "draws is 3; accepted is an integer from 1 to 2"),
        ({"seed": -1}, "seed is -1; accepted is an integer from 0"),
    ],
)
def test_a_bad_argument_is_refused_in_one_sentence(arguments, sentence, rng):
    x, y = sample(rng, 40, [0.0, 1], [1.0, 1])
    with pytest.raises(ValueError) as caught:
        noise_scale(Shift(np.ones(2)), x, y, **({"small": 5, "big": 20, "loss": half_square} | arguments))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("estimator", ["two-batch", "per-example"])
def test_one_example_has_no_covariance(estimator):
    with pytest.raises(ValueError, match="^x has 1 examples; accepted are 2 or more$"):
        noise_scale(Shift(np.zeros(2)), torch.ones(1, 2), torch.arange(1), estimator, loss=half_square)
    with pytest.raises(ValueError, match="^x has 3 examples and y has 1; accepted are as many$"):
        noise_scale(Shift(np.zeros(2)), torch.ones(3, 2), torch.arange(1), estimator, loss=half_square)


@pytest.mark.parametrize("estimator", ["two-batch", "per-example"])
def test_a_gradient_that_is_not_finite_is_refused(estimator, rng):
    x, y = sample(rng, 8, [0.0, 1], [1.0, 1])
    with pytest.raises(ValueError, match="^(loss|gradient) is [^\n]* at the solution; accepted is a finite (loss|gradient)$"):
        noise_scale(Shift(np.array([1.0, math.nan])), x, y, estimator, small=2, big=8, loss=half_square)
