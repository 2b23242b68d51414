"""The networks of Keskar et al. 2017: layers, sizes, initial weights, and what they compute."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lbgap import models
from lbgap.networks import NETWORKS


def build(name: str, shape, n_classes: int = 10, **options) -> nn.Sequential:
    """A network without memory: sizes only."""
    with torch.device("meta"):
        return models.build(name, shape, n_classes, **options)


def dense(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


def conv(n_in: int, n_out: int, k: int) -> int:
    return k * k * n_in * n_out + n_out


def norm(n: int) -> int:
    return 2 * n


def shallow_parameters(n_classes: int) -> int:
    """C1 and C3 on 3x32x32: the second pool leaves 64 maps of 8x8."""
    convolutions = conv(3, 64, 5) + norm(64) + conv(64, 64, 5) + norm(64)
    return convolutions + dense(64 * 8 * 8, 384) + norm(384) + dense(384, 192) + norm(192) + dense(192, n_classes)


def deep_parameters(n_classes: int) -> int:
    """C2 and C4 on 3x32x32: five pools leave 512 maps of 1x1."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(conv(a, b, 3) + norm(b) for a, b in zip(channels, channels[1:], strict=False))
    return convolutions + dense(512, 512) + norm(512) + dense(512, n_classes)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "name, shape, n_classes, expected",
    [
        ("F1", (1, 28, 28), 10, dense(784, 512) + 4 * dense(512, 512) + 5 * norm(512) + dense(512, 10)),
        ("F2", (360,), 1973, dense(360, 512) + 6 * dense(512, 512) + 7 * norm(512) + dense(512, 1973)),
        ("C1", (3, 32, 32), 10, shallow_parameters(10)),
        ("C3", (3, 32, 32), 100, shallow_parameters(100)),
        ("C2", (3, 32, 32), 10, deep_parameters(10)),
        ("C4", (3, 32, 32), 100, deep_parameters(100)),
    ],
)
def test_parameters_are_those_of_the_layers_written_out(name, shape, n_classes, expected):
    assert models.count_parameters(build(f"keskar.{name}", shape, n_classes)) == expected


@pytest.mark.parametrize("name", ["keskar.F1", "keskar.C1"])
def test_without_batch_norm_only_its_two_vectors_a_layer_are_gone(name):
    plain, normed = build(name, (1, 8, 8), batch_norm=False), build(name, (1, 8, 8))
    widths = [m.num_features for m in normed.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert models.count_parameters(normed) - models.count_parameters(plain) == 2 * sum(widths)
    assert not [m for m in plain.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def test_width_is_that_of_every_hidden_layer():
    assert models.count_parameters(build("keskar.F1", (1, 8, 8), width=16)) == (
        dense(64, 16) + 4 * dense(16, 16) + 5 * norm(16) + dense(16, 10)
    )


def test_frozen_parameters_are_not_counted():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert models.count_parameters(model) == 6


@pytest.mark.parametrize("name, shape", [("F1", (1, 28, 28)), ("F2", (360,)), ("C1", (3, 32, 32)), ("C4", (3, 32, 32))])
def test_output_is_one_logit_a_class(name, shape):
    assert build(f"keskar.{name}", shape, 17)(torch.zeros(2, *shape, device="meta")).shape == (2, 17)


# ---------------------------------------------------------------- layers


def letters(model: nn.Sequential) -> str:
    """The order of the layers: one letter each."""
    names = {"Conv2d": "c", "Linear": "l", "ReLU": "r", "Tanh": "t", "MaxPool2d": "p", "Dropout": "d", "Flatten": "f"}
    return "".join(names.get(type(m).__name__, "b") for m in model)


def test_order_of_layers():
    assert letters(build("keskar.F1", (1, 28, 28))) == "f" + "lbr" * 5 + "l"
    assert letters(build("keskar.F2", (360,))) == "f" + "lbr" * 7 + "l"
    assert letters(build("keskar.F1", (1, 28, 28), depth=2, activation="tanh")) == "f" + "lbt" * 2 + "l"
    assert letters(build("keskar.F1", (1, 28, 28), batch_norm=False, dropout=0.2)) == "f" + "lrd" * 5 + "l"
    assert letters(build("keskar.C1", (3, 32, 32))) == "cbrp" * 2 + "f" + "lbrd" * 2 + "l"
    two, three = "cbrd" + "cbr" + "p", "cbrd" * 2 + "cbr" + "p"
    assert letters(build("keskar.C2", (3, 32, 32))) == two * 2 + three * 3 + "fd" + "lbrd" + "l"


def test_dropout_rates():
    def rates(name):
        return [m.p for m in build(name, (3, 32, 32)) if isinstance(m, nn.Dropout)]

    assert rates("keskar.C1") == [0.5, 0.5]
    assert rates("keskar.F1") == []
    assert [m.p for m in build("keskar.F1", (1, 8, 8), dropout=0.2) if isinstance(m, nn.Dropout)] == [0.2] * 5
    # 0.3 in the first stack, 0.4 in the others (one, then two each), 0.5 around the dense layer
    assert rates("keskar.C2") == [0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5, 0.5]


@pytest.mark.parametrize(
    "name, maps", [("C1", [32, 16, 16, 8]), ("C2", [32, 32, 16, 16, 16, 8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 1])]
)
def test_convolutions_keep_the_size_of_a_map_and_pools_halve_it(name, maps):
    seen, x = [], torch.zeros(2, 3, 32, 32, device="meta")
    for layer in build(f"keskar.{name}", (3, 32, 32)):
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            assert x.shape[2] == x.shape[3]
            seen.append(x.shape[2])
    assert seen == maps


@pytest.mark.parametrize("size", [7, 8, 9, 15])
def test_the_dense_layers_of_c1_fit_every_size_of_input(size):
    assert build("keskar.C1", (1, size, size + 2))(torch.zeros(2, 1, size, size + 2, device="meta")).shape == (2, 10)


def test_batch_norm_has_the_epsilon_of_keras_1():
    model = build("keskar.C2", (3, 32, 32))
    assert {m.eps for m in model if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)} == {1e-5}


# ---------------------------------------------------------------- initial weights and forward pass


@pytest.mark.parametrize("name, shape", [("keskar.F1", (1, 28, 28)), ("keskar.C1", (3, 32, 32))])
def test_weights_are_glorot_uniform_and_biases_zero(name, shape, rng):
    for layer in models.build(name, shape, 10):
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        area = math.prod(layer.weight.shape[2:])
        bound = math.sqrt(6 / (area * (layer.weight.shape[0] + layer.weight.shape[1])))
        values = layer.weight.detach().double()
        assert values.abs().max() <= bound * (1 + 1e-6)
        # n draws from U(-b, b): the variance is b^2/3, its standard error sqrt(4/5 / n) of that
        assert float(values.square().mean()) == pytest.approx(bound**2 / 3, rel=5 * math.sqrt(0.8 / values.numel()))
        assert not layer.bias.detach().any()


def test_initial_weights_follow_the_global_generator():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().reshape(-1) for p in models.build("keskar.F1", (1, 8, 8), 10, width=8).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_f1_computes_what_its_formula_says(rng):
    model = models.build("keskar.F1", (1, 8, 8), 10, width=7).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    for layer in model:
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    x = rng.normal(size=(5, 64))
    h, layers = x, [m for m in model if isinstance(m, nn.Linear | nn.BatchNorm1d)]
    for linear, bn in zip(layers[::2], layers[1::2], strict=False):
        h = h @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        h = (h - bn.running_mean.numpy()) / np.sqrt(bn.running_var.numpy() + 1e-5)
        h = np.maximum(h * bn.weight.detach().numpy() + bn.bias.detach().numpy(), 0)
    expected = h @ layers[-1].weight.detach().numpy().T + layers[-1].bias.detach().numpy()
    got = model(torch.tensor(x).reshape(5, 1, 8, 8)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-9)


# ---------------------------------------------------------------- bad input


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="^model is 'F1'; accepted are .*keskar.F1.*keskar.C4") as caught:
        models.build("F1", (1, 8, 8), 10)
    with pytest.raises(ValueError, match=r"^activation is 'gelu'; accepted are relu, tanh$"):
        models.build("keskar.F1", (1, 8, 8), 10, activation="gelu")
    assert all(name in str(caught.value) for name in NETWORKS)


# ---------------------------------------------------------------- the Vienna report, Foret et al. 2021


def test_the_reports_network_is_two_convolutions_and_one_dense_layer():
    """28 -> 26 -> 13 -> 11 -> 5: 64 maps of 5x5 reach the dense layer."""
    plain, normed = (build("vienna.CNN", (1, 28, 28), batch_norm=wanted) for wanted in (False, True))
    assert models.count_parameters(plain) == conv(1, 32, 3) + conv(32, 64, 3) + dense(64 * 5 * 5, 10)
    assert models.count_parameters(normed) == models.count_parameters(plain) + norm(32) + norm(64)
    assert [m.p for m in plain.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    assert not [m for m in build("vienna.CNN", (1, 28, 28), dropout=0.0).modules() if isinstance(m, nn.Dropout)]


def test_the_reports_network_takes_images_of_eight_pixels_when_padded():
    model = models.build("vienna.CNN", (1, 8, 8), 10, padding=1)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_wide_residual_network_has_the_published_number_of_parameters():
    """Zagoruyko & Komodakis 2016: 36.5 million for WRN-28-10."""
    assert models.count_parameters(build("foret.WRN", (3, 32, 32))) == pytest.approx(36.5e6, abs=0.05e6)


def test_the_wide_residual_network_of_another_depth(rng):
    model = models.build("foret.WRN", (3, 32, 32), 10, depth=10, widen=1)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 1 + 3 * 2 + 2  # two shortcuts: the first stage keeps 16
    with pytest.raises(ValueError, match=r"^depth is 12; accepted is 6n \+ 4: 10, 16, 22, ...$"):
        build("foret.WRN", (3, 32, 32), depth=12)
