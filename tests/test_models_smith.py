"""The wide residual networks of Smith et al. 2020: sizes, SkipInit, ghost batch norm."""

import pytest
import torch
from torch import nn

from lbgap import models
from lbgap.ghost import GhostBatchNorm, convert
from lbgap.models.smith import PreActivationBlock, SkipInit

SHAPE = (3, 32, 32)


def blocks(model: nn.Module) -> list[PreActivationBlock]:
    return [m for m in model.modules() if isinstance(m, PreActivationBlock)]


def parameters(n: int, k: int, plain: bool) -> int:
    """Written out: 3x3 convolutions of three stages of n blocks, 16, 32, 64 times k wide, and what stands around them."""
    bias = 1 if plain else 0
    widths = [16] + [16 * k * 2**stage for stage in range(3) for _ in range(n)]
    total = 3 * 16 * 9 + 16 * bias
    for a, b in zip(widths, widths[1:], strict=False):
        total += (a + b) * b * 9 + 2 * b * bias  # both convolutions
        total += 1 if plain else 2 * a + 2 * b  # SkipInit's scalar, or both batch norms
        total += a * b + b * bias if a != b else 0  # the shortcut
    return total + (0 if plain else 2 * widths[-1]) + widths[-1] * 10 + 10


@pytest.mark.parametrize("norm", ["batch", "skipinit"])
@pytest.mark.parametrize(("depth", "widen"), [(16, 4), (10, 1), (22, 2)])
def test_parameters_are_those_of_the_layers_written_out(depth, widen, norm):
    with torch.device("meta"):
        model = models.build("smith.WRN", SHAPE, 10, depth=depth, widen=widen, norm=norm)
    assert models.count_parameters(model) == parameters((depth - 4) // 6, widen, norm == "skipinit")


def test_wrn_16_4_has_2_7_million_parameters():
    with torch.device("meta"):
        found = [models.count_parameters(models.build("smith.WRN", SHAPE, 10, norm=norm)) for norm in ("batch", "skipinit")]
    assert [round(n / 1e6, 2) for n in found] == [2.75, 2.75]


def test_skipinit_begins_as_the_identity_and_then_learns(rng):
    model = models.build("smith.WRN", SHAPE, 10, depth=10, widen=1, norm="skipinit")
    x = torch.randn(4, 16, 8, 8)
    first, second, _ = blocks(model)
    assert first.shortcut is None and torch.equal(first(x), x)
    assert torch.equal(second(x), second.shortcut(x.relu()))
    loss = nn.functional.cross_entropy(model(torch.rand(8, *SHAPE)), torch.arange(8))
    loss.backward()
    scales = [m.scale for m in model.modules() if isinstance(m, SkipInit)]
    assert len(scales) == 3 and all(float(s.grad.abs()) > 0 for s in scales)
    with torch.no_grad():
        scales[0].fill_(1.0)
    assert not torch.equal(first(x), x)


def test_without_batch_norm_examples_do_not_know_each_other(rng):
    model = models.build("smith.WRN", SHAPE, 10, depth=10, widen=1, norm="skipinit").train()
    for m in model.modules():
        if isinstance(m, SkipInit):
            nn.init.constant_(m.scale, 0.5)
    x = torch.rand(6, *SHAPE)
    torch.testing.assert_close(model(x)[:2], model(x[:2]), rtol=1e-4, atol=1e-5)


def test_ghost_batches_stand_for_the_batch(rng):
    """A batch of two ghost batches is normalised as each of them alone."""
    model = models.build("smith.WRN", SHAPE, 10, depth=10, widen=1).train()
    x = torch.rand(128, *SHAPE)
    alone = torch.cat([model(part) for part in x.split(64)])
    convert(model, 64)
    norms = [m for m in model.modules() if isinstance(m, GhostBatchNorm)]
    assert len(norms) == 7  # two a block, one at the end
    torch.testing.assert_close(model(x), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depth": 12}, "depth is 12; accepted is 6n + 4: 10, 16, 22, ..."),
        ({"norm": "layer"}, "norm is 'layer'; accepted are batch, skipinit"),
    ],
)
def test_bad_options_end_in_one_sentence(options, sentence):
    with pytest.raises(ValueError) as caught:
        models.build("smith.WRN", SHAPE, 10, **options)
    assert str(caught.value) == sentence
