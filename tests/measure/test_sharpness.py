"""Sharpness where the maximum over the box is known, against another maximiser, and what it leaves untouched."""

import copy
import doctest
import importlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from conftest import digits_run
from torch import nn

from lbgap import models, train
from lbgap.data import load
from lbgap.measure import RandomSubspace, mean_cross_entropy, sharpness

MODULE, BOX = (importlib.import_module(f"lbgap.measure.{name}") for name in ("sharpness", "box"))


class Weights(nn.Module):
    """Nothing but a vector of weights; the loss says what is done with them."""

    def __init__(self, w: np.ndarray, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=dtype))


def linear(g: np.ndarray, constant: float):
    """constant + g'w, in float64."""
    g = torch.tensor(g)
    return lambda model: constant + g @ model.w.double()


def quadratic(h: np.ndarray, c: np.ndarray, constant: float = 0.0):
    """constant + 1/2 sum_i h_i (w_i - c_i)^2, in float64."""
    h, c = torch.tensor(h), torch.tensor(c)
    return lambda model: constant + 0.5 * (h * (model.w.double() - c) ** 2).sum()


def metric(at_solution: float, highest: float) -> float:
    return 100 * (highest - at_solution) / (1 + at_solution)


# ---------------------------------------------------------------- full space: closed forms


def test_of_a_linear_loss_is_the_rise_to_the_corner(rng):
    w, g, epsilon = rng.normal(size=40), rng.normal(size=40), 1e-2
    f = 100 + g @ w
    result = sharpness(Weights(w), linear(g, 100.0), epsilon, iterations=60)
    assert result.loss == pytest.approx(f, rel=1e-12)
    assert result.loss_max == pytest.approx(f + np.abs(g) @ (epsilon * (np.abs(w) + 1)), rel=1e-12)
    assert result.at_bound == 1


def test_of_a_convex_bowl_is_the_farthest_corner(rng):
    """Separable: each weight goes to the side of the box that is farther from c."""
    w, c, h, epsilon = rng.normal(size=40), rng.normal(size=40), rng.uniform(0.1, 10, size=40), 5e-2
    box = epsilon * (np.abs(w) + 1)
    f, highest = 0.5 * h @ (w - c) ** 2, 0.5 * h @ (np.abs(w - c) + box) ** 2
    result = sharpness(Weights(w), quadratic(h, c), epsilon, iterations=60)
    assert result.value == pytest.approx(metric(f, highest), rel=1e-9)
    assert result.at_bound == 1


def test_of_a_hill_inside_the_box_is_its_top(rng):
    w, h, epsilon = rng.normal(size=20), -rng.uniform(1, 3, size=20), 1e-1
    c = w + rng.uniform(-0.9, 0.9, size=20) * epsilon * (np.abs(w) + 1)
    result = sharpness(Weights(w), quadratic(h, c, constant=5.0), epsilon, iterations=60)
    assert result.loss_max == pytest.approx(5, rel=1e-12)
    assert result.at_bound == 0


def test_of_a_saddle_is_corner_one_way_and_top_the_other(rng):
    w, epsilon = rng.normal(size=20), 1e-1
    box = epsilon * (np.abs(w) + 1)
    h, c = np.where(np.arange(20) < 10, 2.0, -2.0), w + 0.5 * box
    highest = 5 + 0.5 * 2 * np.sum((1.5 * box[:10]) ** 2)
    result = sharpness(Weights(w), quadratic(h, c, constant=5.0), epsilon, iterations=60)
    assert result.loss_max == pytest.approx(highest, rel=1e-9)
    assert result.at_bound == 0.5


def test_large_weights_may_move_farther():
    """One weight at a time: the rise of the loss g w is epsilon (|w| + 1)."""
    for w in (0.0, 1.0, -9.0):
        result = sharpness(Weights(np.array([w])), linear(np.array([1.0]), 20.0), 1e-3)
        assert result.loss_max - result.loss == pytest.approx(1e-3 * (abs(w) + 1), rel=1e-9)


@pytest.mark.parametrize("epsilon", [1e-3, 0.3])
@pytest.mark.parametrize("start", ["solution", "random"])
def test_the_box_is_never_left(rng, epsilon, start):
    w = rng.normal(size=30)
    seen, loss = [], quadratic(rng.uniform(1, 2, size=30), rng.normal(size=30))

    def recording(model):
        seen.append(model.w.detach().numpy().copy())
        return loss(model)

    sharpness(Weights(w), recording, epsilon, start=start)
    assert len(seen) > 2
    assert (np.abs(np.array(seen) - w) <= epsilon * (np.abs(w) + 1) * (1 + 1e-9)).all()


# ---------------------------------------------------------------- random subspace: closed forms


N, P = 300, 6


def subspace_box(w: np.ndarray, epsilon: float, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """A written out, and the half-widths of the box by NumPy's own pseudo-inverse."""
    a = RandomSubspace(N, P, seed=4, scale=scale)
    matrix = np.stack([a.matvec(e).double().numpy() for e in torch.eye(P)], axis=1)
    return matrix, epsilon * (np.abs(np.linalg.pinv(matrix) @ w) + 1)


def corners(box: np.ndarray) -> np.ndarray:
    return np.array(list(itertools.product((-1, 1), repeat=len(box)))) * box


# The weights are float32 and move by about 0.05 (box), 0.01 (unit) or 0.1 (standard): their rounding, 6e-8 of
# about 1 each way, is below 1e-5 of that.
@pytest.mark.parametrize("scale", ["box", "unit", "standard"])
def test_of_a_linear_loss_in_the_subspace_is_the_rise_to_the_corner(rng, scale):
    w, g = rng.normal(size=N).astype(np.float32).astype(float), rng.normal(size=N)
    matrix, box = subspace_box(w, 0.05, scale)
    result = sharpness(
        Weights(w, torch.float32), linear(g, 100.0), 0.05, "random", P, seed=4, iterations=60, subspace_scale=scale
    )
    assert result.loss_max - result.loss == pytest.approx(np.abs(matrix.T @ g) @ box, rel=1e-4)
    assert result.at_bound == 1


def test_of_a_convex_bowl_in_the_subspace_is_the_highest_corner(rng):
    w = rng.normal(size=N).astype(np.float32).astype(float)
    matrix, box = subspace_box(w, 0.05, "box")
    c, h = w + matrix @ rng.choice([-1, 1], size=P), rng.uniform(0.5, 2, size=N)
    hessian, slope = (matrix.T * h) @ matrix, matrix.T @ (h * (w - c))
    # one corner alone is a local maximum where no step inside the box can turn the slope's sign
    assert (np.abs(slope) > np.abs(hessian) @ box).all()
    values = [0.5 * h @ (w + matrix @ y - c) ** 2 for y in corners(box)]
    result = sharpness(Weights(w, torch.float32), quadratic(h, c), 0.05, "random", P, seed=4, iterations=60)
    assert result.value == pytest.approx(metric(0.5 * h @ (w - c) ** 2, max(values)), rel=1e-4)


def test_the_solver_works_in_the_subspace(rng, monkeypatch):
    """SciPy is given p variables, however many weights there are."""
    sizes, minimize = [], BOX.minimize

    def recording(fun, x0, **arguments):
        sizes.append((len(x0), len(arguments["bounds"].lb)))
        return minimize(fun, x0, **arguments)

    monkeypatch.setattr(BOX, "minimize", recording)
    model, loss = Weights(rng.normal(size=N), torch.float32), linear(rng.normal(size=N), 100.0)
    sharpness(model, loss, space="random", p=P)
    sharpness(model, loss)
    assert sizes == [(P, P), (N, N)]


def test_the_seed_decides_the_subspace(rng):
    model, loss = Weights(rng.normal(size=N), torch.float32), linear(rng.normal(size=N), 100.0)
    values = [sharpness(model, loss, space="random", p=P, seed=seed).value for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_a_network_in_float64_has_a_subspace_too(rng):
    w, g = rng.normal(size=N), rng.normal(size=N)
    matrix, box = subspace_box(w, 1e-3, "box")
    result = sharpness(Weights(w), linear(g, 100.0), 1e-3, "random", P, seed=4, iterations=60)
    # what float32 leaves: the products with A
    assert result.loss_max - result.loss == pytest.approx(np.abs(matrix.T @ g) @ box, rel=1e-4)


# ---------------------------------------------------------------- scaling, tolerance, start


def bowl(rng, dtype=torch.float64):
    """Weights near, not at, the bottom of a flat bowl."""
    w = rng.normal(size=30)
    return Weights(w, dtype), quadratic(rng.uniform(0.5, 2, size=30), w + 1e-7 * rng.choice([-1, 1], size=30))


def test_auto_makes_the_first_step_the_half_diagonal_of_the_box(rng):
    """``scaling`` times the gradient at the solution is as long as the box's half diagonal."""
    w, g = rng.normal(size=30), rng.normal(size=30)
    result = sharpness(Weights(w), linear(g, 100.0), 1e-3)
    assert result.scaling == pytest.approx(np.linalg.norm(1e-3 * (np.abs(w) + 1)) / np.linalg.norm(g), rel=1e-12)


@pytest.mark.parametrize("space", ["full", "random"])
def test_a_multiple_of_the_loss_has_the_same_maximiser(rng, space):
    """By a power of two the solver sees the same numbers to the bit; the metric is not invariant, for its 1 + f."""
    w = rng.normal(size=30)
    loss = quadratic(rng.uniform(0.5, 2, size=30), rng.normal(size=30))
    one = sharpness(Weights(w, torch.float32), loss, 1e-2, space, 5)
    many = sharpness(Weights(w, torch.float32), lambda m: 64 * loss(m), 1e-2, space, 5)
    assert (many.loss, many.loss_max, many.scaling) == (64 * one.loss, 64 * one.loss_max, one.scaling / 64)
    assert (many.iterations, many.evaluations, many.at_bound) == (one.iterations, one.evaluations, one.at_bound)
    assert many.value == pytest.approx(metric(64 * one.loss, 64 * one.loss_max), rel=1e-12)


def test_a_scaling_is_what_multiplying_the_loss_would_do(rng):
    model, loss = bowl(rng)
    scaled = sharpness(model, loss, scaling=1024.0)
    multiplied = sharpness(model, lambda m: 1024 * loss(m), scaling=1.0)
    assert scaled.scaling == 1024
    assert 1024 * scaled.loss_max == multiplied.loss_max
    assert (scaled.evaluations, scaled.at_bound) == (multiplied.evaluations, multiplied.at_bound)


def test_unscaled_with_scipys_tolerances_a_flat_minimum_ends_the_search_and_the_result_says_so(rng):
    model, loss = bowl(rng)  # a gradient of about 1e-7, below SciPy's 1e-5
    stopped = sharpness(model, loss, scaling=1.0, tolerance="scipy")
    assert (stopped.value, stopped.iterations, stopped.at_bound, stopped.scaling) == (0, 0, 0, 1)
    assert "NORM OF PROJECTED GRADIENT" in stopped.message
    found = sharpness(model, loss)
    assert found.value > 0 and found.iterations > 0
    assert "NORM OF PROJECTED GRADIENT" not in found.message or found.at_bound == 1


@pytest.mark.parametrize("space", ["full", "random"])
def test_at_an_exact_stationary_point_the_search_starts_at_random_and_says_so(rng, space):
    w = rng.normal(size=60)
    model, loss = Weights(w), quadratic(np.ones(60), w)
    result = sharpness(model, loss, 1e-2, space, 4, seed=3, iterations=60)
    random = sharpness(model, loss, 1e-2, space, 4, seed=3, iterations=60, start="random")
    assert result.value > 0 and result.message.startswith(
        "gradient 0 at the solution, started from a random point of the box; "
    )
    assert result.message.endswith(random.message) and "random" not in random.message
    assert (result.loss_max, result.evaluations) == (random.loss_max, random.evaluations)
    if space == "full":
        assert result.loss_max == pytest.approx(0.5 * np.sum((1e-2 * (np.abs(w) + 1)) ** 2), rel=1e-9)


@pytest.mark.parametrize("start", ["solution", "random"])
def test_at_the_exact_top_of_a_hill_sharpness_is_0(rng, start):
    """Every other point of the box is lower; the maximum over it is the solution."""
    w = rng.normal(size=10)
    result = sharpness(Weights(w), quadratic(-np.ones(10), w, constant=5.0), 1e-2, start=start, iterations=1)
    assert (result.value, result.loss_max, result.at_bound) == (0, 5, 0)


def test_a_random_start_leaves_an_exact_stationary_point(rng):
    w = rng.normal(size=10)
    result = sharpness(Weights(w), quadratic(np.ones(10), w), 1e-2, start="random", iterations=60)
    assert result.loss_max == pytest.approx(0.5 * np.sum((1e-2 * (np.abs(w) + 1)) ** 2), rel=1e-9)


def test_a_random_start_is_decided_by_the_seed_and_ends_at_the_same_corner_of_a_linear_loss(rng):
    w, g = rng.normal(size=30), rng.normal(size=30)

    def first_and_result(seed):
        seen, loss = [], linear(g, 100.0)

        def recording(model):
            seen.append(model.w.detach().numpy().copy())
            return loss(model)

        result = sharpness(Weights(w), recording, start="random", seed=seed, iterations=60)
        return seen[1], result

    (a, one), (b, again), (c, other) = first_and_result(1), first_and_result(1), first_and_result(2)
    assert np.array_equal(a, b) and one == again
    assert np.abs(a - c).min() > 0
    assert one.loss_max == pytest.approx(other.loss_max, rel=1e-12)


def test_evaluations_and_iterations_are_counted(rng):
    calls, loss = [], quadratic(rng.uniform(0.1, 10, size=30), rng.normal(size=30))

    def counting(model):
        calls.append(1)
        return loss(model)

    result = sharpness(Weights(rng.normal(size=30)), counting, iterations=3)
    assert result.evaluations == len(calls)
    assert 1 <= result.iterations <= 3
    assert result.evaluations >= result.iterations


def test_of_the_solution_itself_is_never_negative(rng):
    """At the top of a hill every step goes down; the solution counts as a point evaluated."""
    w = rng.normal(size=10)
    top = quadratic(-np.ones(10), w + 1e-9, constant=5.0)
    assert sharpness(Weights(w), top, scaling=1e6).value >= 0


@pytest.mark.parametrize("start", ["solution", "random"])
def test_the_best_point_evaluated_counts_and_not_the_last(rng, start):
    """The loss of the solver's third point is high, as float32 noise may make it, and the search goes on from there."""
    values, loss = [], linear(rng.normal(size=20), 100.0)

    def spiked(model):
        value = loss(model) + (5.0 if len(values) == 2 else 0.0)
        values.append(value.item())
        return value

    result = sharpness(Weights(rng.normal(size=20)), spiked, start=start)
    assert len(values) > 3 and values[2] > max(values[3:])
    assert result.loss_max == values[2]


def test_the_result_is_ready_for_a_record(rng):
    result = sharpness(*bowl(rng))
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False)) == result.as_dict()
    assert result.value == pytest.approx(metric(result.loss, result.loss_max), rel=1e-12)
    with pytest.raises(AttributeError):
        result.value = 0


# ---------------------------------------------------------------- networks


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A small F1 with batch norm after a few epochs on digits, and its training set."""
    run, states = digits_run(epochs=4), {}
    train.fit(run, on_weights=states.__setitem__)
    with torch.random.fork_rng():
        model = models.build(run.model, (1, 8, 8), 10, **run.options)
    model.load_state_dict(states[4])
    digits = load("digits").train
    return model, digits.x, digits.y


@pytest.mark.parametrize("space", ["full", "random"])
def test_grows_with_epsilon(trained, space):
    model, x, y = trained
    loss = mean_cross_entropy(x, y)
    values = [sharpness(model, loss, epsilon, space, 10).value for epsilon in (1e-4, 5e-4, 1e-3, 2e-3)]
    assert values[0] > 0
    assert all(a < b for a, b in itertools.pairwise(values))


def test_more_iterations_never_find_less(trained):
    """The search from one start is one sequence; a longer one contains the shorter."""
    model, x, y = trained
    values = [sharpness(model, mean_cross_entropy(x, y), iterations=n).value for n in (1, 2, 5, 10)]
    assert values == sorted(values) and values[0] < values[-1]


def ascent(model: nn.Module, loss, epsilon: float, start: torch.Tensor, steps: int = 200) -> float:
    """Another maximiser: projected steps along the sign of the gradient, in units of the box, shrinking to nothing."""
    origin = nn.utils.parameters_to_vector(model.parameters()).detach()
    box, z, best = epsilon * (origin.abs() + 1), start.clone(), -math.inf
    shapes = {name: p for name, p in model.named_parameters()}
    for step in range(steps):
        w = (origin + box * z).requires_grad_()
        parts = w.split([p.numel() for p in shapes.values()])
        weights = {name: part.view_as(p) for (name, p), part in zip(shapes.items(), parts, strict=True)}
        value = loss(lambda x, weights=weights: torch.func.functional_call(model, weights, x))
        best = max(best, float(value.detach()))
        (gradient,) = torch.autograd.grad(value, w)
        z = (z + 0.5 * (1 - step / steps) * gradient.sign()).clamp(-1, 1)
    return best


def classifier(updates: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network of 67 weights after so many full-batch updates; after 15 it still has a slope, after 100 hardly any."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.randn(90, 4, dtype=torch.float64)
    y = (x @ torch.randn(4, 3, dtype=torch.float64)).argmax(1)
    descent = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(updates):
        descent.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        descent.step()
    return model, x, y


def test_finds_what_another_maximiser_finds_where_the_slope_decides_the_corner(rng):
    """Six ascents, from the solution and five random corners, end within 1% of one rise: there is one maximum to find."""
    model, x, y = classifier(updates=15)
    starts = [torch.zeros(67, dtype=torch.float64)]
    starts += [torch.from_numpy(rng.choice([-1.0, 1.0], size=67)) for _ in range(5)]
    result = sharpness(model, mean_cross_entropy(x, y), 1e-3, iterations=100)
    rises = [ascent(model, lambda f: nn.functional.cross_entropy(f(x), y), 1e-3, s) - result.loss for s in starts]
    assert min(rises) > 0.99 * max(rises)
    assert result.loss_max - result.loss == pytest.approx(max(rises), rel=0.01)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 5e-2])
def test_near_a_minimum_it_ends_where_another_maximiser_finds_nothing_better_nearby(rng, epsilon):
    """There the maxima over the box are many and the search is local; from its best point an ascent gains less than 1%."""
    model, x, y = classifier(updates=100)
    origin = nn.utils.parameters_to_vector(model.parameters()).detach()
    seen, loss = [], mean_cross_entropy(x, y)

    def recording(m):
        seen.append(nn.utils.parameters_to_vector(m.parameters()).detach())
        return sum(loss(m))

    result = sharpness(model, recording, epsilon, iterations=100)
    values = []
    for w in seen:
        nn.utils.vector_to_parameters(w, model.parameters())
        values.append(float(sum(loss(model)).detach()))
    nn.utils.vector_to_parameters(origin, model.parameters())
    assert max(values) == pytest.approx(result.loss_max, rel=1e-12)
    best = (seen[int(np.argmax(values))] - origin) / (epsilon * (origin.abs() + 1))
    higher = ascent(model, lambda f: nn.functional.cross_entropy(f(x), y), epsilon, best)
    assert higher - result.loss < 1.01 * (result.loss_max - result.loss)


@pytest.fixture
def network(rng) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Everything that could be disturbed: batch norm, dropout, a frozen layer, gradients, modes that are not all alike."""
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.BatchNorm1d(8),
        nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip
    x, y = torch.randn(60, 6), torch.from_numpy(rng.integers(3, size=60))
    for _ in range(3):
        nn.functional.cross_entropy(model(2 * x + 1), y).backward()
    model[4].weight.grad = None
    model[4].weight.requires_grad_(False)
    model[5].eval()
    return model, x, y


def condition(model: nn.Module) -> tuple:
    """Everything that must come back, tensors byte for byte and at their place."""
    norms = [m for m in model if isinstance(m, nn.BatchNorm1d)]
    return (
        {k: (v.detach().numpy().tobytes(), v.data_ptr()) for k, v in model.state_dict().items()},
        [(p.requires_grad, None if p.grad is None else p.grad.numpy().tobytes()) for p in model.parameters()],
        [m.training for m in model.modules()],
        [(m.momentum, m.track_running_stats, set(m._buffers)) for m in norms],
    )


@pytest.mark.parametrize("space", ["full", "random"])
@pytest.mark.parametrize("batch_norm", ["batch", "running", "reestimated"])
def test_the_network_comes_back_as_it_was(network, space, batch_norm):
    model, x, y = network
    before, generator = condition(model), torch.get_rng_state()
    result = sharpness(model, mean_cross_entropy(x, y, 25), 1e-2, space, 10, batch_norm=batch_norm, data=x)
    assert result.value > 0
    assert condition(model) == before
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("batch_norm", ["batch", "running", "reestimated"])
@pytest.mark.parametrize("call", [1, 4])
def test_the_network_comes_back_as_it_was_when_the_loss_fails(network, batch_norm, call):
    model, x, y = network
    before, calls = condition(model), []

    def failing(m):
        calls.append(1)
        yield nn.functional.cross_entropy(m(x[:30]), y[:30])
        if len(calls) == call:
            raise RuntimeError("midway")
        yield nn.functional.cross_entropy(m(x[30:]), y[30:])

    with pytest.raises(RuntimeError, match="midway"):
        sharpness(model, failing, 1e-2, batch_norm=batch_norm, data=x)
    assert len(calls) == call
    assert condition(model) == before


def test_batch_is_the_loss_of_training_in_chunks_without_dropout(network):
    model, x, y = network
    training = copy.deepcopy(model).train()
    training[3].p = 0.0
    terms = zip(x.split(25), y.split(25), strict=True)
    with torch.no_grad():
        expected = sum(nn.functional.cross_entropy(training(a).double(), b, reduction="sum").item() for a, b in terms) / 60
    assert sharpness(model, mean_cross_entropy(x, y, 25)).loss == pytest.approx(expected, rel=1e-6)


def test_running_is_the_loss_of_evaluation(network):
    model, x, y = network
    expected = nn.functional.cross_entropy(copy.deepcopy(model).eval()(x).double(), y).item()
    assert sharpness(model, mean_cross_entropy(x, y, 25), batch_norm="running").loss == pytest.approx(expected, rel=1e-6)


def test_reestimated_statistics_are_those_of_the_solution_all_along(network):
    """As evaluation, once the buffers hold what one pass over the data leaves there."""
    model, x, y = network
    estimated = copy.deepcopy(model).train()
    estimated[3].p = 0.0
    for m in (estimated[1], estimated[5]):
        m.momentum = 1.0
    estimated(x)
    loss = mean_cross_entropy(x, y, 25)
    expected = sharpness(estimated, loss, batch_norm="running")
    result = sharpness(model, loss, batch_norm="reestimated", data=x)
    assert (result.loss, result.value) == pytest.approx((expected.loss, expected.value), rel=1e-4)


def test_frozen_parameters_have_no_part_in_the_box(rng):
    model = Weights(rng.normal(size=5))
    model.frozen = nn.Parameter(torch.ones(3, dtype=torch.float64), requires_grad=False)
    g = rng.normal(size=5)
    result = sharpness(model, lambda m: 100 + torch.tensor(g) @ m.w + m.frozen.sum(), iterations=60)
    box = 1e-3 * (np.abs(model.w.detach().numpy()) + 1)
    assert result.loss_max - result.loss == pytest.approx(np.abs(g) @ box, rel=1e-9)


class Counting(nn.Module):
    """Buffers that batch norm knows nothing of, changed with every pass: in place, by another tensor, from nothing."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("last", torch.full((3,), math.nan), persistent=False)
        self.register_buffer("first", None)

    def forward(self, x):
        y = self.linear(x)
        self.calls += 1
        self.last = y.detach().mean(0)
        if self.first is None:
            self.first = self.last.clone()
        return y


def test_buffers_of_ones_own_come_back_too(network):
    _, x, y = network
    model = Counting()
    before = {name: b for name, b in model.named_buffers()}
    result = sharpness(model, mean_cross_entropy(x, y))
    assert result.value > 0
    assert dict(model.named_buffers()).keys() == before.keys() == {"calls", "last"} and model.first is None
    assert all(b is before[name] for name, b in model.named_buffers())
    assert model.calls == 0 and model.last.isnan().all()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "name, value",
    [
        ("epsilon", 0.0),
        ("epsilon", -1e-3),
        ("epsilon", math.nan),
        ("epsilon", math.inf),
        ("space", "half"),
        ("p", 0),
        ("p", 6),
        ("batch_norm", "eval"),
        ("iterations", 0),
        ("iterations", 2.5),
        ("scaling", 0.0),
        ("scaling", math.nan),
        ("scaling", math.inf),
        ("scaling", "none"),
        ("tolerance", -1e-9),
        ("tolerance", math.nan),
        ("tolerance", "none"),
        ("start", "zero"),
        ("seed", -1),
        ("subspace_scale", "wide"),
    ],
)
def test_a_bad_argument_is_refused_in_one_sentence_that_names_it(name, value):
    """In the space and from the start that the argument belongs to."""
    arguments = {"space": "random", "p": 3, "start": "random"} | {name: value}
    with pytest.raises(ValueError) as caught:
        sharpness(Weights(np.ones(5), torch.float32), linear(np.ones(5), 100.0), **arguments)
    message = str(caught.value)
    assert message.startswith(f"{name} is ")
    assert str(value) in message and "accepted" in message and "\n" not in message


def test_a_scale_of_the_subspace_is_checked_in_full_space_too():
    with pytest.raises(ValueError, match="scale is 'wide'; accepted are box, unit, standard"):
        sharpness(Weights(np.ones(5)), linear(np.ones(5), 100.0), subspace_scale="wide")


def test_reestimation_needs_data():
    with pytest.raises(ValueError, match="^batch_norm is 'reestimated' without data"):
        sharpness(Weights(np.ones(5)), linear(np.ones(5), 100.0), batch_norm="reestimated")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused_and_the_weights_come_back(bad):
    model = Weights(np.ones(5))
    with pytest.raises(ValueError, match=f"^loss is {bad} at the solution; accepted is a finite loss$"):
        sharpness(model, linear(np.ones(5), bad))
    assert (model.w == 1).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_half_precision_are_refused(dtype):
    """A step of epsilon 1e-3 from 1 is below their resolution: what comes of it is not the step."""
    model = Weights(np.ones(5), getattr(torch, dtype))
    with pytest.raises(ValueError) as caught:
        sharpness(model, linear(np.ones(5), 100.0))
    sentence = f"model has weights in {dtype}, where small steps are rounded away; accepted are float32 and float64"
    assert str(caught.value) == sentence


@pytest.mark.parametrize("space", ["full", "random"])
def test_a_box_below_the_resolution_of_the_weights_is_refused(rng, space):
    w, epsilon = rng.normal(size=N), 1e-7
    accepted = "accepted is one at which rounding the weights takes at most 1% off a step"
    with pytest.raises(ValueError, match=rf"^epsilon is 1e-07; {accepted}, here \d+%$"):
        sharpness(Weights(w, torch.float32), linear(np.ones(N), 100.0), epsilon, space, P)
    assert sharpness(Weights(w), linear(np.ones(N), 100.0), epsilon, space, P).value > 0


@pytest.mark.parametrize("constant", [-1.0, -0.5, -7.0])
def test_a_loss_below_0_has_no_sharpness(constant):
    """The metric divides by 1 + loss."""
    model = Weights(np.zeros(5))
    with pytest.raises(ValueError, match=f"^loss is {constant} at the solution; accepted is a loss of 0 or more$"):
        sharpness(model, linear(np.ones(5), constant))


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="^gradient is not finite at the solution; accepted is a finite gradient$"):
        sharpness(Weights(np.zeros(5)), lambda m: m.w.sqrt().sum())


# ---------------------------------------------------------------- documentation


def test_the_example_of_the_docstring_runs(rng):
    results = doctest.testmod(MODULE)
    assert results.attempted > 0 and results.failed == 0
