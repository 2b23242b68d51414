"""Networks of Goyal et al. 2017: how they begin, against torchvision's own and against what a zero scale means."""

import pytest
import torch
from torch import nn

from lbgap import data, models
from lbgap.models import goyal, hoffer


def small(**options) -> nn.Module:
    """A ResNet-14 for pictures of 16 x 16 pixels."""
    return models.build("goyal.ResNet", (3, 16, 16), 10, depth=14, **options)


def bottlenecks(depth: int) -> nn.Module:
    """A network for ImageNet without values."""
    with torch.device("meta"):
        return models.build(f"goyal.ResNet-{depth}", (3, 256, 256), 1000)


def test_with_zero_scales_every_block_begins_as_its_shortcut(rng):
    """Whatever its convolutions are; with scales of one none does."""
    for gamma, same in ((0.0, True), (1.0, False)):
        model, x, blocks = small(last_gamma=gamma), torch.rand(8, 3, 16, 16), 0
        for layer in model:
            before, x = x, layer(x)
            if isinstance(layer, hoffer.BasicBlock):
                blocks += 1
                assert torch.equal(x, torch.relu(layer.shortcut(before))) == same
        assert blocks == 6


def test_only_the_last_scale_of_a_block_is_zero(rng):
    for model in (small(), models.build("goyal.ResNet-50", (3, 64, 64), 10)):
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        last = goyal.last_norms(model)
        blocks = [m for m in model.modules() if type(m).__name__ in ("BasicBlock", "Bottleneck")]
        assert len(last) == len(blocks) > 0
        for norm in norms:
            assert torch.equal(norm.weight, torch.zeros_like(norm.weight) if norm in last else torch.ones_like(norm.weight))
            assert not norm.bias.any()


def test_the_final_layer_is_drawn_with_a_deviation_of_a_hundredth(rng):
    (*_, final) = (m for m in models.build("goyal.ResNet-50", (3, 64, 64), 1000).modules() if isinstance(m, nn.Linear))
    assert final.weight.std().item() == pytest.approx(0.01, rel=0.01)  # of two million draws
    assert abs(final.weight.mean().item()) < 1e-4
    assert not final.bias.any()


@pytest.mark.parametrize("depth, parameters", [(50, 25_557_032), (101, 44_549_160)])
def test_imagenets_networks_are_torchvisions_with_the_stride_on_the_3x3_convolution(depth, parameters):
    """The numbers of parameters that torchvision states for its weights."""
    model = bottlenecks(depth)
    assert models.count_parameters(model) == parameters
    blocks = [m for m in model.modules() if type(m).__name__ == "Bottleneck"]
    halving = [b for b in blocks if b.downsample is not None and b.conv2.stride == (2, 2)]
    assert len(halving) == 3
    assert all(b.conv1.stride == b.conv3.stride == (1, 1) for b in blocks)
    theirs = getattr(data.torchvision().models, f"resnet{depth}")
    with torch.device("meta"):
        assert [p.shape for p in theirs().parameters()] == [p.shape for p in model.parameters()]


def test_imagenet_is_evaluated_on_the_middle_of_the_picture(rng):
    model = models.build("goyal.ResNet-50", (3, 256, 256), 7).eval()
    nn.init.ones_(goyal.last_norms(model)[-1].weight)
    x = torch.rand(1, 3, 256, 256)
    outputs = model(x)
    edge = x.clone()
    edge[:, :, :16] = 0
    assert outputs.shape == (1, 7)
    assert torch.equal(model(edge), outputs)
    assert not torch.equal(model(x.flip(3).roll(5, 2)), outputs)


def test_a_stem_of_stride_two_halves_the_picture_and_nothing_else(rng):
    plain, halved = (small(stem_stride=stride) for stride in (1, 2))
    x = torch.rand(2, 3, 16, 16)
    assert plain[:4](x).shape[2:] == (16, 16)
    assert halved[:4](x).shape[2:] == (8, 8)
    assert [p.shape for p in plain.parameters()] == [p.shape for p in halved.parameters()]


@pytest.mark.parametrize("name, depth", [("goyal.ResNet", 9), ("goyal.ResNet-50", 18)])
def test_a_depth_that_is_not_there_is_refused(name, depth):
    with pytest.raises(ValueError, match=f"^depth is {depth}; accepted "):
        models.build(name, (3, 64, 64), 10, depth=depth)
