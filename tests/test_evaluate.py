"""Loss, accuracy and the three readings of batch norm, against what they say in formulae."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lbgap.evaluate import batch_norm_reading, loss_and_metric


@pytest.fixture
def model(rng) -> nn.Sequential:
    """Two batch norms, one with a momentum of its own, statistics of some training, modes that are not all alike."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(27, 6),
        nn.BatchNorm1d(6, momentum=0.3), nn.ReLU(), nn.Linear(6, 4),
    )  # fmt: skip
    for _ in range(3):
        model(2 * torch.randn(16, 1, 5, 5) + 1)
    model[1].eval()
    return model


@pytest.fixture
def xy(rng) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(50, 1, 5, 5), torch.from_numpy(rng.integers(4, size=50))


def norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def condition(model: nn.Module) -> tuple:
    """Everything that must come back: parameters and buffers byte for byte, modes, momentum."""
    tensors = {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()}
    return tensors, [m.training for m in model.modules()], [m.momentum for m in norms(model)]


def scored(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean cross entropy in nats and accuracy in percent."""
    logits = logits.astype(float)
    highest = logits.max(1)
    log_sum = highest + np.log(np.exp(logits - highest[:, None]).sum(1))
    return float(np.mean(log_sum - logits[np.arange(len(y)), y])), 100 * float(np.mean(logits.argmax(1) == y))


# ---------------------------------------------------------------- readings


def test_batch_is_what_training_computes_in_each_chunk_without_dropout(model, xy):
    x, y = xy
    training = copy.deepcopy(model).train()
    training[4].p = 0.0
    logits = torch.cat([training(part) for part in x.split(20)]).detach().numpy()
    assert loss_and_metric(model, x, y, "batch", chunk=20) == pytest.approx(scored(logits, y.numpy()), rel=1e-6)


def test_batch_depends_on_the_chunks_and_running_does_not(model, xy):
    def losses(reading):
        return [loss_and_metric(model, *xy, reading, chunk)[0] for chunk in (10, 25, 50)]

    assert losses("running") == pytest.approx([losses("running")[0]] * 3, rel=1e-6)
    assert np.ptp(losses("batch")) > 1e-4


def test_running_normalises_by_the_buffers(rng):
    bn = nn.BatchNorm1d(3)
    bn.running_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    bn.running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))
    x = torch.randn(7, 3)
    with batch_norm_reading(bn, "running"), torch.no_grad():
        got = bn(x)
    expected = (x - torch.tensor([1.0, -2.0, 0.5])) / (torch.tensor([4.0, 0.25, 1.0]) + 1e-5).sqrt()
    torch.testing.assert_close(got, expected)


def test_reestimated_averages_the_statistics_of_the_chunks(model, xy):
    x, _ = xy
    first = model[0](x).detach().numpy().transpose(1, 0, 2, 3)  # what enters the first batch norm, (3, n, ...)
    parts = [first[:, i : i + 17].reshape(3, -1) for i in (0, 17, 34)]  # 50 in chunks of at most 20, as alike as they can be
    with batch_norm_reading(model, "reestimated", x, chunk=20):
        mean, variance = model[1].running_mean.numpy().copy(), model[1].running_var.numpy().copy()
    np.testing.assert_allclose(mean, np.mean([p.mean(1) for p in parts], axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, np.mean([p.var(1, ddof=1) for p in parts], axis=0), rtol=1e-4)


def test_no_example_counts_more_for_standing_at_the_end(rng):
    """10 examples in chunks of at most 8: two chunks of 5, whose mean is that of all."""
    norm, x = nn.Sequential(nn.BatchNorm1d(2)), torch.from_numpy(rng.normal(size=(10, 2)))
    x[8:] += 100
    with batch_norm_reading(norm.double(), "reestimated", x, chunk=8):
        torch.testing.assert_close(norm[0].running_mean, x.mean(0))


def test_reestimated_over_one_chunk_is_batch_up_to_the_unbiased_variance(xy, rng):
    """One batch norm over n x 9 values: PyTorch normalises by the biased variance, its buffer holds the unbiased one."""
    x, y = xy
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, eps=1e-12), nn.Flatten(), nn.Linear(27, 4, bias=False))
    n = len(x) * 9
    with torch.no_grad():
        with batch_norm_reading(model, "batch"):
            batch = model(x)
        with batch_norm_reading(model, "reestimated", x):
            reestimated = model(x)
    torch.testing.assert_close(reestimated, batch * math.sqrt((n - 1) / n), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reading", ["batch", "running", "reestimated"])
def test_the_model_comes_back_as_it_was(model, xy, reading):
    before = condition(model)
    loss_and_metric(model, *xy, reading, chunk=20, estimate_on=xy[0])
    assert condition(model) == before


@pytest.mark.parametrize("reading", ["batch", "running", "reestimated"])
def test_the_model_comes_back_as_it_was_when_something_fails_inside(model, xy, reading):
    before = condition(model)
    with pytest.raises(RuntimeError, match="midway"), batch_norm_reading(model, reading, xy[0]):
        model(xy[0])
        raise RuntimeError("midway")
    assert condition(model) == before


def test_the_model_comes_back_as_it_was_when_reestimation_fails(model):
    before = condition(model)
    with pytest.raises(RuntimeError), batch_norm_reading(model, "reestimated", torch.zeros(8, 2, 5, 5)):
        pass
    assert condition(model) == before


def test_dropout_is_off_and_the_global_generator_unused(model, xy):
    before = torch.get_rng_state()
    assert loss_and_metric(model, *xy) == loss_and_metric(model, *xy)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("reading", ["batch", "running", "reestimated"])
def test_a_batch_norm_without_buffers_reads_the_batch(reading, rng):
    kept, none = nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False)
    x, y = torch.randn(12, 4), torch.arange(12) % 4
    assert loss_and_metric(none, x, y, reading, estimate_on=x) == loss_and_metric(kept, x, y, "batch")


# ---------------------------------------------------------------- loss and accuracy


@pytest.mark.parametrize("chunk", [7, 50, 5000])
def test_loss_and_metric_are_those_of_the_formula(rng, chunk):
    model = nn.Linear(6, 5)
    x, y = torch.randn(50, 6), torch.from_numpy(rng.integers(5, size=50))
    expected = scored(model(x).detach().numpy(), y.numpy())
    assert loss_and_metric(model, x, y, chunk=chunk) == pytest.approx(expected, rel=1e-6)


def test_a_loss_below_the_resolution_of_float32_is_not_lost():
    """Ten classes, the right one ahead by 20: the loss is log(1 + 9 exp(-20)), which float32 rounds to 0."""
    x, y = 20 * torch.eye(10), torch.arange(10)
    assert loss_and_metric(nn.Identity(), x, y)[0] == pytest.approx(math.log1p(9 * math.exp(-20)), rel=1e-6)


def test_an_unknown_reading_is_refused():
    with pytest.raises(ValueError, match="^batch_norm is 'eval'; accepted are batch, running, reestimated$"):
        loss_and_metric(nn.Identity(), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), "eval")


def test_reestimation_needs_data():
    with pytest.raises(ValueError, match="^batch_norm is 'reestimated' without data"):
        with batch_norm_reading(nn.BatchNorm1d(2), "reestimated"):
            pass
