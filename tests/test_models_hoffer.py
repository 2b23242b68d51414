"""The networks of Hoffer et al. 2017 as their released code builds them: layers, sizes, initial weights, what they compute."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lbgap import models
from lbgap.models.hoffer import BasicBlock, CenterCrop, Standardize
from lbgap.networks import NETWORKS

COLOUR, GREY = (3, 32, 32), (1, 28, 28)
NORMS = nn.BatchNorm1d | nn.BatchNorm2d


def build(name: str, shape, n_classes: int = 10, **options) -> nn.Sequential:
    """A network without memory: sizes only."""
    with torch.device("meta"):
        return models.build(f"hoffer.{name}", shape, n_classes, **options)


def dense(n_in: int, n_out: int, bias: bool = True) -> int:
    return n_in * n_out + bias * n_out


def conv(n_in: int, n_out: int, k: int, bias: bool = False) -> int:
    return k * k * n_in * n_out + bias * n_out


def norm(n: int) -> int:
    return 2 * n


def fully_connected_parameters(size: int, n_classes: int, width: int = 512) -> int:
    """F1: five hidden layers, each with batch norm."""
    return dense(size, width) + 4 * dense(width, width) + 5 * norm(width) + dense(width, n_classes)


def shallow_parameters(n_classes: int) -> int:
    """C1 and C3 on 3x32x32: pools without padding leave 64 maps of 15x15, then of 7x7; no bias before batch norm."""
    convolutions = conv(3, 64, 5) + norm(64) + conv(64, 64, 5) + norm(64)
    hidden = dense(64 * 7 * 7, 384, bias=False) + norm(384) + dense(384, 192, bias=False) + norm(192)
    return convolutions + hidden + dense(192, n_classes)


def block(n_in: int, n_out: int) -> int:
    """Two 3x3 convolutions, and a 1x1 one around them where the number of maps changes."""
    shortcut = conv(n_in, n_out, 1) + norm(n_out) if n_in != n_out else 0
    return conv(n_in, n_out, 3) + norm(n_out) + conv(n_out, n_out, 3) + norm(n_out) + shortcut


def residual_parameters(blocks: int, stem: int, n_classes: int) -> int:
    """Three stages, the maps doubled at the second and the third."""
    a, b, c = stem, 2 * stem, 4 * stem
    stages = blocks * block(a, a) + block(a, b) + (blocks - 1) * block(b, b) + block(b, c) + (blocks - 1) * block(c, c)
    return conv(3, stem, 3) + norm(stem) + stages + dense(c, n_classes)


def vgg_parameters(n_classes: int) -> int:
    """Thirteen convolutions with a bias; five pools leave 512 maps of 1x1."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(conv(a, b, 3, bias=True) + norm(b) for a, b in zip(channels, channels[1:], strict=False))
    return convolutions + dense(512, n_classes)


def alexnet_parameters(n_classes: int) -> int:
    """On 3x224x224: 55, 27, 13 and 6 pixels."""
    maps = [(3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3)]
    convolutions = sum(conv(a, b, k) + norm(b) for a, b, k in maps)
    hidden = dense(256 * 6 * 6, 4096, bias=False) + norm(4096) + dense(4096, 4096, bias=False) + norm(4096)
    return convolutions + hidden + dense(4096, n_classes)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "name, shape, n_classes, options, expected",
    [
        ("F1", GREY, 10, {}, fully_connected_parameters(28 * 28, 10)),
        ("F1", (1, 8, 8), 10, {"width": 16}, fully_connected_parameters(64, 10, 16)),
        ("C1", COLOUR, 10, {}, shallow_parameters(10)),
        ("C3", COLOUR, 100, {}, shallow_parameters(100)),
        ("ResNet", COLOUR, 10, {}, residual_parameters(7, 16, 10)),
        ("ResNet", COLOUR, 100, {"depth": 8}, residual_parameters(1, 16, 100)),
        ("WResNet", COLOUR, 100, {}, residual_parameters(2, 64, 100)),
        ("WResNet", COLOUR, 10, {"depth": 28, "widen": 10}, residual_parameters(4, 160, 10)),
        ("VGG", COLOUR, 10, {}, vgg_parameters(10)),
        ("AlexNet", (3, 224, 224), 1000, {}, alexnet_parameters(1000)),
    ],
)
def test_parameters_are_those_of_the_layers_written_out(name, shape, n_classes, options, expected):
    assert models.count_parameters(build(name, shape, n_classes, **options)) == expected


def test_resnet_44_has_the_size_that_its_paper_gives():
    """He et al. 2016, table 6: 0.66 million."""
    assert round(models.count_parameters(build("ResNet", COLOUR)) / 1e6, 2) == 0.66


@pytest.mark.parametrize("n_classes", [2, 17])
@pytest.mark.parametrize(
    "name, shape",
    [
        *[("F1", shape) for shape in ((1, 8, 8), GREY, COLOUR)],
        *[(name, shape) for name in ("C1", "C3") for shape in ((1, 8, 8), GREY, COLOUR, (3, 9, 14))],
        *[(name, shape) for name in ("ResNet", "WResNet") for shape in (COLOUR, GREY, (3, 48, 32))],
        *[("VGG", shape) for shape in (COLOUR, (1, 32, 32), (3, 64, 32))],
        *[("AlexNet", shape) for shape in ((3, 224, 224), (3, 256, 256), (1, 224, 240))],
    ],
)
def test_output_is_one_logit_a_class(name, shape, n_classes):
    assert build(name, shape, n_classes)(torch.zeros(2, *shape, device="meta")).shape == (2, n_classes)


def test_every_network_of_the_paper_is_tried_here():
    marks = [test_output_is_one_logit_a_class, test_parameters_are_those_of_the_layers_written_out]
    for test in marks:
        tried = {case[0] for mark in test.pytestmark if "name, " in mark.args[0] for case in mark.args[1]}
        assert {f"hoffer.{name}" for name in tried} == {name for name in NETWORKS if name.startswith("hoffer.")}


# ---------------------------------------------------------------- layers


def letters(model: nn.Sequential) -> str:
    """The order of the layers: one letter each."""
    names = {
        "Standardize": "s", "CenterCrop": "m", "Conv2d": "c", "Linear": "l", "ReLU": "r", "MaxPool2d": "p", "Dropout": "d",
        "Flatten": "f", "BatchNorm1d": "b", "BatchNorm2d": "b", "BasicBlock": "R", "AdaptiveAvgPool2d": "a",
    }  # fmt: skip
    return "".join(names[type(m).__name__] for m in model)


def test_order_of_layers():
    """In C1, C3 and AlexNet the pool comes before batch norm and ReLU; AlexNet's batch norm moves behind ReLU after block 1."""
    assert letters(build("F1", GREY)) == "sf" + "lbr" * 5 + "l"
    assert letters(build("C1", COLOUR)) == letters(build("C3", COLOUR)) == "s" + "cpbr" * 2 + "f" + "lbrd" * 2 + "l"
    assert letters(build("ResNet", COLOUR)) == "scbr" + "R" * 21 + "afl"
    assert letters(build("WResNet", COLOUR)) == "scbr" + "R" * 6 + "afl"
    two, three = "cbr" * 2 + "p", "cbr" * 3 + "p"
    assert letters(build("VGG", COLOUR)) == "s" + two * 2 + three * 3 + "fl"
    assert letters(build("AlexNet", (3, 224, 224))) == "sm" + "cpbr" + "cprb" + "crb" * 2 + "cprb" + "f" + "lbrd" * 2 + "l"


def test_dropout_rates():
    for name, shape in (("C1", COLOUR), ("C3", COLOUR), ("AlexNet", (3, 224, 224))):
        assert [m.p for m in build(name, shape) if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def sizes(model: nn.Sequential, shape) -> list[int]:
    """Pixels on a side after every convolution, residual block and pool of a square image."""
    seen, x = [], torch.zeros(2, *shape, device="meta")
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | BasicBlock):
            assert x.shape[2] == x.shape[3]
            seen.append(x.shape[2])
    return seen


def test_sizes_of_the_maps():
    assert sizes(build("C1", COLOUR), COLOUR) == [32, 15, 15, 7]
    assert sizes(build("ResNet", COLOUR), COLOUR) == [32] + [32] * 7 + [16] * 7 + [8] * 7
    assert sizes(build("WResNet", COLOUR), COLOUR) == [32] + [32] * 2 + [16] * 2 + [8] * 2
    assert sizes(build("VGG", COLOUR), COLOUR) == [32, 32, 16, 16, 16, 8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 1]
    assert sizes(build("AlexNet", (3, 256, 256)), (3, 256, 256)) == [55, 27, 27, 13, 13, 13, 13, 6]


@pytest.mark.parametrize("name, blocks, stem", [("ResNet", 7, 16), ("WResNet", 2, 64)])
def test_residual_stages(name, blocks, stem):
    """Three, each of so many blocks; a 1x1 convolution exactly where the shape changes, with the stride of the body."""
    model = build(name, COLOUR)
    assert model[1].out_channels == stem
    into, stage = stem, []
    for i, layer in enumerate(m for m in model if isinstance(m, BasicBlock)):
        filters, stride = stem * 2 ** (i // blocks), 2 if i in (blocks, 2 * blocks) else 1
        first, second = (m for m in layer.body if isinstance(m, nn.Conv2d))
        assert letters(layer.body) == "cbrcb"
        assert (first.in_channels, first.out_channels, first.stride) == (into, filters, (stride, stride))
        assert (second.in_channels, second.out_channels, second.stride) == (filters, filters, (1, 1))
        assert letters(layer.shortcut) == ("cb" if stride == 2 else "")
        for shortcut in (m for m in layer.shortcut if isinstance(m, nn.Conv2d)):
            assert shortcut.kernel_size == (1, 1) and shortcut.stride == (stride, stride)
            assert (shortcut.in_channels, shortcut.out_channels) == (into, filters)
        into = filters
        stage.append(i // blocks)
    assert stage == [0] * blocks + [1] * blocks + [2] * blocks


def test_depth_counts_the_layers_with_weights_on_the_long_way():
    """6n + 2: the stem, two convolutions a block, and the linear layer."""
    for depth in (8, 14, 44, 56):
        model = build("ResNet", COLOUR, depth=depth)
        blocks = [m for m in model if isinstance(m, BasicBlock)]
        assert 1 + sum(isinstance(m, nn.Conv2d) for b in blocks for m in b.body) + 1 == depth


def test_the_depth_of_a_wide_network_is_rounded_down():
    """16 is the paper's name for 14 layers; widen multiplies every stage and the stem."""
    assert letters(build("WResNet", COLOUR, depth=16)) == letters(build("WResNet", COLOUR, depth=14))
    narrow, wide = build("ResNet", COLOUR, depth=14), build("WResNet", COLOUR)
    pairs = zip((m for m in narrow.modules()), (m for m in wide.modules()), strict=True)
    widths = [(a.num_features, b.num_features) for a, b in pairs if isinstance(a, nn.BatchNorm2d)]
    assert widths and all(b == 4 * a for a, b in widths)


# ---------------------------------------------------------------- what they compute


def test_a_block_is_the_rectified_sum_of_its_body_and_its_shortcut(rng):
    """Where the last batch norm is 0 the body is too, and the shortcut is left: the input, or its 1x1 convolution."""
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    for filters, stride in ((3, 1), (5, 1), (3, 2), (5, 2)):
        layer = BasicBlock(3, filters, stride).double()
        plain = (filters, stride) == (3, 1)
        weights = None if plain else layer.shortcut[0].weight[:, :, 0, 0]
        passed = x if plain else torch.einsum("oi,nihw->nohw", weights, x[:, :, ::stride, ::stride])
        if not plain:
            mean, variance = passed.mean((0, 2, 3), keepdim=True), passed.var((0, 2, 3), unbiased=False, keepdim=True)
            passed = (passed - mean) / (variance + 1e-5).sqrt()
        torch.testing.assert_close(layer(x), (layer.body(x) + passed).clamp(min=0))
        nn.init.zeros_(layer.body[-1].weight)
        torch.testing.assert_close(layer(x), passed.clamp(min=0))


def test_f1_computes_what_its_formula_says(rng):
    model = models.build("hoffer.F1", (1, 8, 8), 10, width=7).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    for layer in model:
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    x = rng.random(size=(5, 64))
    h, layers = 2 * x - 1, [m for m in model if isinstance(m, nn.Linear | nn.BatchNorm1d)]
    for linear, bn in zip(layers[::2], layers[1::2], strict=False):
        h = h @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        h = (h - bn.running_mean.numpy()) / np.sqrt(bn.running_var.numpy() + 1e-5)
        h = np.maximum(h * bn.weight.detach().numpy() + bn.bias.detach().numpy(), 0)
    expected = h @ layers[-1].weight.detach().numpy().T + layers[-1].bias.detach().numpy()
    got = model(torch.tensor(x).reshape(5, 1, 8, 8)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_colour_is_normalised_by_the_mean_and_deviation_of_imagenet(rng):
    """torchvision's constants, channel by channel; rounded to float32, which moves a mean by 2^-25 or a few of them."""
    x = rng.random(size=(4, 3, 5, 6))
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = np.stack([(x[:, c] - mean[c]) / deviation[c] for c in range(3)], axis=1)
    np.testing.assert_allclose(Standardize(3)(torch.tensor(x)).numpy(), expected, rtol=1e-6, atol=2**-22)


@pytest.mark.parametrize("channels", [1, 2])
def test_grey_is_taken_from_0_1_to_minus_1_1(channels):
    x = torch.linspace(0, 1, 6).expand(2, channels, 1, 6)
    torch.testing.assert_close(Standardize(channels)(x), torch.linspace(-1, 1, 6).expand(2, channels, 1, 6))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_constants_of_normalisation_are_neither_trained_nor_stored(channels):
    layer = Standardize(channels)
    assert list(layer.parameters()) == [] and not layer.state_dict()
    assert len(list(layer.buffers())) == 2  # and yet they move to a device with the network
    assert not [key for key in build("C1", (channels, 32, 32)).state_dict() if key.startswith("0.")]
    assert isinstance(build("C1", (channels, 32, 32))[0], Standardize)


def test_larger_images_are_cropped_to_their_middle():
    """Every pixel says where it comes from; as much is cut on one side as on the other."""
    rows, columns = torch.meshgrid(torch.arange(256), torch.arange(240), indexing="ij")
    out = CenterCrop(224)(torch.stack([rows, columns])[None])
    assert out.shape == (1, 2, 224, 224)
    assert (out[0, 0] == torch.arange(16, 240)[:, None]).all() and (out[0, 1] == torch.arange(8, 232)).all()


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (2, 1, 32, 32), (2, 3, 224, 17)])
def test_images_that_are_not_larger_pass(shape, rng):
    x = torch.randn(shape)
    assert torch.equal(CenterCrop(224)(x), x)


# ---------------------------------------------------------------- initial weights


@pytest.mark.parametrize("name, options", [("ResNet", {"depth": 14}), ("WResNet", {}), ("VGG", {})])
def test_convolutions_are_he_normal_by_fan_out(name, options, rng):
    """Variance 2 / (k^2 outputs); of n normal draws it has the relative standard error sqrt(2/n), their mean sqrt(var/n)."""
    convolutions = [m for m in models.build(f"hoffer.{name}", COLOUR, 10, **options).modules() if isinstance(m, nn.Conv2d)]
    assert convolutions
    for layer in convolutions:
        values = layer.weight.detach().double()
        n, variance = values.numel(), 2 / (math.prod(layer.kernel_size) * layer.out_channels)
        assert float(values.square().mean()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
        assert abs(float(values.mean())) < 5 * math.sqrt(variance / n)
        # of a normal variable the fourth moment is three times the squared variance (standard error sqrt(96/9 / n) of that)
        assert float(values.pow(4).mean()) == pytest.approx(3 * variance**2, rel=5 * math.sqrt(96 / 9 / n))
        assert layer.bias is None or not layer.bias.detach().any()


@pytest.mark.parametrize("name, shape", [("F1", GREY), ("C1", COLOUR)])
def test_other_weights_are_pytorchs_uniform_by_fan_in(name, shape, rng):
    """U(-b, b) with b = 1/sqrt(fan in), weights and biases; the standard error of the variance is sqrt(4/5 / n) of it."""
    for layer in models.build(f"hoffer.{name}", shape, 10):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            values = layer.weight.detach().double()
            bound = 1 / math.sqrt(values[0].numel())
            assert values.abs().max() <= bound * (1 + 1e-6)
            assert float(values.square().mean()) == pytest.approx(bound**2 / 3, rel=5 * math.sqrt(0.8 / values.numel()))
            assert layer.bias is None or layer.bias.detach().abs().max() <= bound * (1 + 1e-6)


def scales(model: nn.Module) -> np.ndarray:
    return torch.cat([m.weight.detach() for m in model.modules() if isinstance(m, NORMS)]).double().numpy()


@pytest.mark.parametrize("name, shape", [("F1", GREY), ("C1", COLOUR), ("C3", COLOUR)])
def test_scales_are_ones_or_uniform(name, shape, rng):
    """U(0, 1) has mean 1/2 and variance 1/12; of n draws the variance has the relative standard error sqrt(4/5 / n)."""
    assert (scales(models.build(f"hoffer.{name}", shape, 10)) == 1).all()
    assert (scales(models.build(f"hoffer.{name}", shape, 10, gamma="ones")) == 1).all()
    model = models.build(f"hoffer.{name}", shape, 10, gamma="uniform")
    values = scales(model)
    n = len(values)
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert np.square(values - 0.5).mean() == pytest.approx(1 / 12, rel=5 * math.sqrt(0.8 / n))
    assert not any(m.bias.detach().any() for m in model.modules() if isinstance(m, NORMS))


def test_in_residual_networks_the_scales_are_ones(rng):
    model = models.build("hoffer.ResNet", COLOUR, 10, depth=8)
    assert (scales(model) == 1).all()
    assert not any(m.bias.detach().any() for m in model.modules() if isinstance(m, NORMS))


@pytest.mark.parametrize("name, options", [("F1", {"width": 8, "gamma": "uniform"}), ("ResNet", {"depth": 8})])
def test_initial_weights_follow_the_global_generator(name, options):
    def weights(seed):
        torch.manual_seed(seed)
        model = models.build(f"hoffer.{name}", (3, 8, 8), 10, **options)
        return torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("name, shape", [("F1", GREY), ("C1", COLOUR), ("C3", COLOUR)])
def test_unknown_scales_are_refused(name, shape):
    with pytest.raises(ValueError, match="^gamma is 'normal'; accepted are ones, uniform$"):
        build(name, shape, gamma="normal")


@pytest.mark.parametrize("depth", [-4, 2, 7, 16, 43])
def test_a_depth_that_no_residual_network_has_is_refused(depth):
    with pytest.raises(ValueError, match=rf"^depth is {depth}; accepted is 6n \+ 2: [^\n]*$"):
        build("ResNet", COLOUR, depth=depth)


def test_a_wide_network_too_shallow_is_refused_by_the_depth_given():
    with pytest.raises(ValueError, match="^depth is 7; accepted is 8 or more$"):
        build("WResNet", COLOUR, depth=7)
