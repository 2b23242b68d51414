"""Robust losses of softmax regression, against formulae in NumPy and finite differences."""

import numpy as np
import pytest
import torch
from conftest import digits_run

from lbgap import robust, train
from lbgap.data import load
from lbgap.spec import DataSpec, OptimizerSpec, RobustSpec, Train


@pytest.fixture
def problem(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (4 classes, 7 inputs), inputs (6, 7), labels."""
    return rng.normal(size=(4, 7)), rng.normal(size=(6, 7)), rng.integers(0, 4, 6)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def cross_entropy(w: np.ndarray, x: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the rows of ``x``, against distributions."""
    return float(-(targets * np.log(softmax(x @ w.T))).sum(1).mean())


def evaluated(loss, w: np.ndarray, x: np.ndarray, y: np.ndarray, *arguments):
    """A loss of :mod:`lbgap.robust` on x -> w x: its value, its gradient with respect to w, the logits."""
    weights = torch.tensor(w, requires_grad=True)
    value, logits = loss(lambda x: x @ weights.T, torch.tensor(x), torch.tensor(y), *arguments)
    value.backward()
    return value.item(), weights.grad.numpy(), logits.detach().numpy()


@pytest.mark.parametrize("size, weight", [(0.1, 0.5), (0.7, 0.2), (0.3, 1.0)])
def test_adversarial_loss_is_that_of_the_inputs_moved_along_the_sign(problem, size, weight):
    w, x, y = problem
    hot = np.eye(4)[y]
    moved = x + size * np.sign((softmax(x @ w.T) - hot) @ w)
    value, gradient, logits = evaluated(robust.adversarial, w, x, y, size, weight)
    parts = [(1 - weight, x), (weight, moved)]
    assert value == pytest.approx(sum(share * cross_entropy(w, at, hot) for share, at in parts))
    # the moved inputs are constants: no gradient runs through the move
    expected = sum(share * (softmax(at @ w.T) - hot).T @ at / len(x) for share, at in parts)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)
    np.testing.assert_allclose(logits, x @ w.T)
    assert cross_entropy(w, moved, hot) > cross_entropy(w, x, hot)


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """What a generator of that seed draws next."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize("size, weight", [(0.1, 0.5), (2.0, 0.01)])
def test_stability_loss_is_the_cross_entropy_between_the_outputs_and_those_on_noise(problem, size, weight):
    w, x, y = problem
    noisy = x + size * noise(x.shape, 3)

    def by_hand(w):
        return cross_entropy(w, x, np.eye(4)[y]) + weight * cross_entropy(w, noisy, softmax(x @ w.T))

    value, gradient, logits = evaluated(robust.stability, w, x, y, size, weight, torch.Generator().manual_seed(3))
    assert value == pytest.approx(by_hand(w))
    np.testing.assert_allclose(logits, x @ w.T)
    step = 1e-6
    for i, j in np.ndindex(*w.shape):  # both sides of the second term take gradients
        there = np.zeros_like(w)
        there[i, j] = step
        assert gradient[i, j] == pytest.approx((by_hand(w + there) - by_hand(w - there)) / (2 * step), abs=1e-8)


# ---------------------------------------------------------------- in training

SMALL = DataSpec(name="digits", n_train=96, n_test=50)
KINDS = {
    "adversarial": RobustSpec(kind="adversarial", size=0.1, weight=0.5),
    "stability": RobustSpec(kind="stability", size=0.5, weight=1.0),
}


def run(**changes) -> Train:
    """Plain steps on the whole of a small set, of a network without batch norm."""
    start = {"data": SMALL, "batch_size": 96, "epochs": 1, "options": {"width": 16, "batch_norm": False}}
    return digits_run(**start | {"optimizer": OptimizerSpec(name="sgd", learning_rate=0.1)} | changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_updates_descend_the_robust_loss(kind, batch_norm):
    """Steps of gradient descent, repeated here from the weights that the run began with; the noise goes on, it is not drawn
    anew from its beginning."""
    spec, states = run(epochs=2, robust=KINDS[kind], options={"width": 16, "batch_norm": batch_norm}), {}
    losses = train.fit(spec, keep=range(3), on_weights=states.__setitem__)["curve"]["train_loss"]
    data = load("digits", 96, 50)
    model = train.initial_model(spec, data).train()
    model.load_state_dict(states[0])
    order, noise = (torch.Generator().manual_seed(train._stream(spec.seed, use)) for use in ("order", "augment"))
    for update in (1, 2):
        index = torch.randperm(96, generator=order)
        arguments = (data.train.x[index], data.train.y[index], spec.robust.size, spec.robust.weight)
        if kind == "adversarial":
            loss, _ = robust.adversarial(model, *arguments)
        else:
            loss, _ = robust.stability(model, *arguments, noise)
        model.zero_grad()
        loss.backward()
        assert losses[update - 1] == pytest.approx(loss.item(), rel=1e-5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter -= 0.1 * parameter.grad
                torch.testing.assert_close(states[update][name], parameter.detach())
    assert losses[0] != pytest.approx(train.fit(run(options=spec.options))["loss_at"]["1"], rel=1e-3)


def test_moved_inputs_are_a_batch_of_their_own_to_batch_norm():
    """Against the two batches passed one after the other by hand."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 4)).double()
    x, y = torch.randn(6, 7, dtype=torch.float64), torch.arange(6) % 4
    loss, _ = robust.adversarial(model, x, y, 0.3, 0.5)
    assert model[0].num_batches_tracked == 2
    at = x.clone().requires_grad_()
    plain = torch.nn.functional.cross_entropy(model(at), y)
    plain.backward()
    moved = torch.nn.functional.cross_entropy(model(x + 0.3 * at.grad.sign()), y)
    assert loss.item() == pytest.approx((plain + moved).item() / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_robust_runs_are_repeated_exactly(kind):
    spec = run(robust=KINDS[kind], epochs=3, options={"width": 16})
    assert train.fit(spec) == train.fit(spec)


def test_accuracy_along_training_is_that_of_the_inputs_as_they_are():
    """At a rate too small to move anything, moving the inputs changes the recorded loss and not the accuracy."""
    still = OptimizerSpec(name="sgd", learning_rate=1e-12)
    moved = RobustSpec(kind="adversarial", size=0.5, weight=1.0)
    plain, asked = (train.fit(run(optimizer=still, robust=r))["curve"] for r in (None, moved))
    assert asked["train_accuracy"] == plain["train_accuracy"]
    assert asked["train_loss"][0] > 1.1 * plain["train_loss"][0]
