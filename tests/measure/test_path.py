"""Loss and accuracy between two solutions: ends, middle, what is interpolated and what comes back."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lbgap.evaluate import loss_and_metric
from lbgap.measure import path


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


@pytest.fixture
def splits(rng) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (torch.randn(n, 6), torch.from_numpy(rng.integers(3, size=n))) for name, n in (("train", 40), ("test", 25))}


@pytest.fixture
def ends(rng) -> list[dict[str, torch.Tensor]]:
    """Two solutions, each with batch-norm statistics of its own."""
    found = []
    for shift in (1.0, -2.0):
        model = network()
        for p in model.parameters():
            nn.init.normal_(p)
        model(torch.randn(30, 6) + shift)
        found.append(copy.deepcopy(model.state_dict()))
    return found


def read(state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Loss and accuracy of a solution with the statistics of the batch, by hand."""
    w1, b1, gamma, beta, w2, b2 = (
        state[k].double() for k in ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias")
    )
    h = x.double() @ w1.T + b1
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt() * gamma + beta
    logits = h.clamp(min=0) @ w2.T + b2
    loss = logits.logsumexp(1) - logits[torch.arange(len(y)), y]
    return float(loss.mean()), 100 * float((logits.argmax(1) == y).double().mean())


def between(a: float, first: dict, b: float, second: dict) -> dict:
    return {k: a * first[k].double() + b * second[k].double() for k in first if first[k].is_floating_point()}


def at(result: dict, alpha: float, split: str) -> tuple[float, float]:
    i = int(np.argmin(np.abs(np.array(result["alpha"]) - alpha)))
    assert result["alpha"][i] == pytest.approx(alpha, abs=1e-12)
    return result[f"{split}_loss"][i], result[f"{split}_accuracy"][i]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("shape", ["linear", "curvilinear"])
def test_the_path_begins_at_the_first_and_ends_at_the_second_solution(ends, splits, shape):
    result = path(network(), *ends, splits, shape, low=0, high=1, points=3)
    for alpha, state in zip((0, 1), ends, strict=True):
        for name, xy in splits.items():
            assert at(result, alpha, name) == pytest.approx(read(state, *xy), rel=1e-4)


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 2.0])
def test_a_linear_path_is_of_weighted_means(ends, splits, alpha):
    result = path(network(), *ends, splits)
    expected = between(1 - alpha, ends[0], alpha, ends[1])
    for name, xy in splits.items():
        assert at(result, alpha, name) == pytest.approx(read(expected, *xy), rel=1e-4)


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 2.0])
def test_a_curvilinear_path_is_an_arc(ends, splits, alpha):
    result = path(network(), *ends, splits, "curvilinear")
    expected = between(math.cos(alpha * math.pi / 2), ends[0], math.sin(alpha * math.pi / 2), ends[1])
    for name, xy in splits.items():
        assert at(result, alpha, name) == pytest.approx(read(expected, *xy), rel=1e-4)


def test_by_default_25_equally_spaced_points_from_minus_1_to_2(ends, splits):
    result = path(network(), *ends, splits)
    np.testing.assert_allclose(result["alpha"], [-1 + i / 8 for i in range(25)], atol=1e-12)
    assert result.keys() == {"alpha", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    assert {len(values) for values in result.values()} == {25}
    assert {type(v) for values in result.values() for v in values} == {float}


def test_exchanging_the_solutions_mirrors_the_path(ends, splits):
    there, back = path(network(), *ends, splits, points=7), path(network(), *ends[::-1], splits, points=7)
    assert there["train_loss"] == pytest.approx(back["train_loss"][::-1], rel=1e-4)


# ---------------------------------------------------------------- batch norm


def test_buffers_are_neither_interpolated_nor_used(ends, splits):
    expected = path(network(), *ends, splits, points=3)
    for state in ends:
        state["1.running_mean"].fill_(1e6)
        state["1.running_var"].fill_(1e-6)
    assert path(network(), *ends, splits, points=3) == expected


def test_reestimated_statistics_are_those_of_the_weights_at_the_point(ends, splits):
    model = network()
    model.load_state_dict(ends[1])
    expected = loss_and_metric(model, *splits["train"], "reestimated", estimate_on=splits["train"][0])
    result = path(network(), *ends, splits, low=0, high=1, points=2, batch_norm="reestimated")
    assert at(result, 1, "train") == expected


def test_reestimated_statistics_are_those_of_the_training_inputs_on_every_split(ends, splits):
    """The test inputs lie elsewhere; expected by hand, with the training inputs' unbiased variance."""
    splits["test"] = splits["test"][0] + 3, splits["test"][1]
    result = path(network(), *ends, splits, low=0, high=1, points=2, batch_norm="reestimated")
    w1, b1, gamma, beta, w2, b2 = (ends[1][k] for k in ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"))
    train, (x, y) = splits["train"][0] @ w1.T + b1, splits["test"]
    h = (x @ w1.T + b1 - train.mean(0)) / (train.var(0) + 1e-5).sqrt() * gamma + beta
    expected = nn.functional.cross_entropy(h.clamp(min=0) @ w2.T + b2, y)
    assert at(result, 1, "test")[0] == pytest.approx(float(expected), rel=1e-5)


def test_reestimation_needs_a_split_to_take_its_statistics_from(ends, splits):
    with pytest.raises(ValueError, match="^batch_norm is 'reestimated' without data"):
        path(network(), *ends, {"test": splits["test"]}, points=2, batch_norm="reestimated")


# ---------------------------------------------------------------- what comes back, and bad input


def condition(model: nn.Module) -> tuple:
    return (
        {k: v.detach().numpy().tobytes() for k, v in model.state_dict().items()},
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
    )


@pytest.mark.parametrize("batch_norm", ["batch", "reestimated"])
def test_the_model_and_the_solutions_come_back_as_they_were(ends, splits, batch_norm):
    model = network()
    model[1].eval()
    before, solutions = condition(model), copy.deepcopy(ends)
    path(model, *ends, splits, points=3, batch_norm=batch_norm)
    assert condition(model) == before
    assert all(torch.equal(a[k], b[k]) for a, b in zip(ends, solutions, strict=True) for k in a)


def test_the_model_comes_back_as_it_was_when_evaluation_fails(ends, splits):
    model = network()
    before = condition(model)
    with pytest.raises(RuntimeError):
        path(model, *ends, splits | {"wrong": (torch.zeros(4, 7), torch.zeros(4, dtype=torch.long))})
    assert condition(model) == before


def test_a_model_that_is_one_of_the_solutions_may_be_used(ends, splits):
    """Its state dict shares its memory: moving the weights must not move the end of the path."""
    model = network()
    model.load_state_dict(ends[0])
    assert path(model, model.state_dict(), ends[1], splits, points=5) == path(network(), *ends, splits, points=5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"shape": "spiral"}, "^shape is 'spiral'; accepted are linear, curvilinear$"),
        ({"batch_norm": "running"}, "^batch_norm is 'running'; accepted on a path are batch, reestimated$"),
        ({"batch_norm": "eval"}, "^batch_norm is 'eval'; accepted on a path are batch, reestimated$"),
        ({"points": 0}, "^points is 0; accepted is 1 or more$"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(ends, splits, arguments, message):
    with pytest.raises(ValueError, match=message):
        path(network(), *ends, splits, **arguments)
