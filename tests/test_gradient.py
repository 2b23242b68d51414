"""Gradient rules against formulas written out: slices, SAM and ASAM, and what they leave as they found it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import digits_run
from torch import nn

from lbgap import gradient, train
from lbgap.ascent import ascended, perturbation
from lbgap.spec import DataSpec, OptimizerSpec, SamSpec
from lbgap.tasks import CLASSIFY

SMALL = DataSpec(name="digits", n_train=200, n_test=50)
SGD = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-3)


@pytest.fixture
def problem(rng):
    """A network with batch norm in float64, and a batch of 12."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.tensor(rng.normal(size=(12, 6))), torch.tensor(rng.integers(3, size=12))
    return model, x, y


def filled(model, x, y, **rule) -> list[torch.Tensor]:
    """The gradients that a rule leaves in ``.grad``."""
    parameters = list(model.parameters())

    def forward(x, y):
        outputs = model(x)
        return F.cross_entropy(outputs, y), CLASSIFY.score(outputs.detach(), y)

    gradient.fill(model, parameters, forward, x, y, **rule)
    return [p.grad.clone() for p in parameters]


def gradients_at(model, x, y, steps=None) -> list[torch.Tensor]:
    """Gradients of a copy of the network, moved by ``steps``."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for p, step in zip(model.parameters(), steps or [], strict=False):
            p.add_(step)
    return list(torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters())))


def assert_close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def step_of(gradients, rho):
    """rho g / ||g||, over all tensors together (Foret et al. 2021, eq. 2)."""
    length = sum(float(g.square().sum()) for g in gradients) ** 0.5
    return [rho * g / length for g in gradients]


# ---------------------------------------------------------------- SAM


def test_sam_is_the_gradient_at_the_ascended_weights(problem):
    model, x, y = problem
    expected = gradients_at(model, x, y, step_of(gradients_at(model, x, y), 0.1))
    before = copy.deepcopy(model.state_dict())
    assert_close(filled(model, x, y, sam=SamSpec(rho=0.1)), expected)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_further_ascents_start_from_the_gradient_of_the_last(problem):
    model, x, y = problem
    step = None
    for _ in range(3):
        step = step_of(gradients_at(model, x, y, step), 0.1)
    assert_close(filled(model, x, y, sam=SamSpec(rho=0.1, ascents=3)), gradients_at(model, x, y, step))


def test_each_slice_has_a_perturbation_of_its_own(problem):
    model, x, y = problem
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for part in (slice(0, 5), slice(5, 10), slice(10, 12)):
        step = step_of(gradients_at(model, x[part], y[part]), 0.1)
        for total, g in zip(expected, gradients_at(model, x[part], y[part], step), strict=True):
            total += g * (part.stop - part.start) / 12
    assert_close(filled(model, x, y, slice_size=5, sam=SamSpec(rho=0.1)), expected)


def test_a_slice_of_the_whole_batch_is_no_slice(problem):
    model, x, y = problem
    whole = filled(model, x, y, sam=SamSpec(rho=0.1))
    assert all(map(torch.equal, whole, filled(model, x, y, slice_size=12, sam=SamSpec(rho=0.1))))


@pytest.mark.parametrize("norm", ["2", "inf"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_perturbation_lies_on_its_ball(rng, norm, adaptive):
    """||e|| = rho, and ||e / |w||| = rho for the adaptive one (Kwon et al. 2021)."""
    weights, gradients = ([torch.tensor(rng.normal(size=n)) for n in (5, 7)] for _ in range(2))
    steps = perturbation(weights, gradients, 0.3, norm, adaptive)
    flat = torch.cat([s / w.abs() if adaptive else s for s, w in zip(steps, weights, strict=True)])
    assert float(torch.linalg.vector_norm(flat, float(norm))) == pytest.approx(0.3)
    # and no other point of the ball is steeper: Hölder's inequality with equality
    along = sum(float((s * g).sum()) for s, g in zip(steps, gradients, strict=True))
    dual = torch.cat([g * w.abs() if adaptive else g for g, w in zip(gradients, weights, strict=True)])
    assert along == pytest.approx(0.3 * float(torch.linalg.vector_norm(dual, 2 if norm == "2" else 1)))


def test_the_adaptive_rise_does_not_change_when_layers_are_rescaled(rescaled):
    one, other, x, y = rescaled

    def rise(model, adaptive):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        with ascended(model.parameters(), 0.1, adaptive=adaptive):
            return float((F.cross_entropy(model(x), y) - loss).detach())

    assert rise(one, True) == pytest.approx(rise(other, True), rel=1e-9)
    assert rise(one, False) != pytest.approx(rise(other, False), rel=0.1)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_sam_of_radius_zero_is_plain_training_bit_for_bit(dropout):
    """20 updates; the passes of an update share their dropout masks."""
    options = {"width": 16, "dropout": dropout}
    spec = digits_run(32, updates=20, optimizer=SGD, data=SMALL, options=options)
    plain, sam = {}, {}
    one = train.fit(spec, on_weights=plain.__setitem__)
    other = train.fit(spec.model_copy(update={"sam": SamSpec(rho=0.0)}), on_weights=sam.__setitem__)
    assert one == other
    assert all(torch.equal(v, sam[e][k]) for e in plain for k, v in plain[e].items())


def test_batch_norms_averages_move_once_a_step_from_the_chosen_pass(problem):
    model, x, y = problem
    start = copy.deepcopy(model)
    for averages, ascends in (("first", False), ("last", True)):
        ours, theirs = copy.deepcopy(start), copy.deepcopy(start)
        filled(ours, x, y, sam=SamSpec(rho=0.5, averages=averages))
        steps = step_of(gradients_at(start, x, y), 0.5) if ascends else []
        with torch.no_grad():
            for p, step in zip(theirs.parameters(), steps, strict=False):
                p.add_(step)
        theirs(x)
        for name, buffer in theirs.named_buffers():
            torch.testing.assert_close(dict(ours.named_buffers())[name], buffer)
        assert int(ours[1].num_batches_tracked) == 1


def test_inference_mode_reads_the_running_averages_in_the_chosen_passes(problem):
    model, x, y = problem
    model(x + 1)  # averages that are not those of x
    evaluating = copy.deepcopy(model).eval()
    step = step_of(gradients_at(evaluating, x, y), 0.1)
    moved = copy.deepcopy(model)  # its last pass moves the averages
    ascent = filled(moved, x, y, sam=SamSpec(rho=0.1, inference_mode="ascent", averages="last"))
    assert_close(ascent, gradients_at(model, x, y, step))
    both = filled(model, x, y, sam=SamSpec(rho=0.1, inference_mode="both"))
    assert_close(both, gradients_at(evaluating, x, y, step))
    assert all(m.training for m in model.modules())


def test_a_pass_in_evaluation_is_not_the_one_that_moves_the_averages():
    for mode, averages, accepted in (("ascent", "first", "last"), ("both", "last", "first")):
        sentence = (
            f"^averages is '{averages}'; with inference_mode '{mode}', in which that pass moves no running average, "
            f"accepted is '{accepted}'$"
        )
        with pytest.raises(ValueError, match=sentence):
            SamSpec(rho=0.1, inference_mode=mode, averages=averages)


def test_weights_come_back_when_the_loss_fails(problem):
    model, x, y = problem
    F.cross_entropy(model(x), y).backward()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="^lost$"), ascended(model.parameters(), 0.1):
        assert not all(map(torch.equal, before, model.parameters()))
        raise RuntimeError("lost")
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-23, 1e-10, 1.0, 1e19, 1e38])
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_is_as_long_as_asked_whatever_the_size_of_the_gradient(size, adaptive):
    """Of two equal gradients each takes half of the squared length, also where their squares are not in float32's range."""
    weights, gradients = [torch.ones(1000), torch.ones(1000)], [torch.full((1000,), size)] * 2
    for step in perturbation(weights, gradients, 0.05, adaptive=adaptive):
        torch.testing.assert_close(step, torch.full((1000,), 0.05 / 2000**0.5))


def test_the_range_of_squares_costs_no_rounding(rng):
    """float32, usual sizes: bit for bit the formula as it stands."""
    weights, gradients = ([torch.tensor(rng.normal(size=n), dtype=torch.float32) for n in (50, 70)] for _ in range(2))
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    for step, g in zip(perturbation(weights, gradients, 0.3), gradients, strict=True):
        assert torch.equal(step, g * (0.3 / length))


@pytest.mark.parametrize("given", [1, 3])
def test_gradients_are_one_for_each_parameter(given):
    weights = [torch.ones(2, requires_grad=True) for _ in range(2)]
    with pytest.raises(ValueError, match=f"^gradients has {given} entries; accepted are 2, one for each trainable parameter$"):
        with ascended(weights, gradients=[torch.ones(2)] * given):
            pass
    with pytest.raises(ValueError, match="^gradients is None and no parameter has a .grad; accepted is a model after backward"):
        with ascended(weights):
            pass


def test_a_gradient_of_zero_has_no_direction():
    weights = [torch.ones(3)]
    for norm in ("2", "inf"):
        assert torch.equal(perturbation(weights, [torch.zeros(3)], 0.1, norm)[0], torch.zeros(3))
    assert perturbation(weights, [None], 0.1) == [None]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"rho": -0.1}, "^rho is -0.1; accepted is a number from 0$"),
        ({"rho": float("nan")}, "^rho is nan; accepted is a number from 0$"),
        ({"rho": 0.1, "norm": "1"}, "^norm is '1'; accepted are '2', 'inf'$"),
    ],
)
def test_a_bad_radius_or_norm_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        perturbation([torch.ones(1)], [torch.ones(1)], **arguments)


# ---------------------------------------------------------------- slices


def test_without_batch_norm_slices_add_up_to_the_batch(rng):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.tensor(rng.normal(size=(12, 6))), torch.tensor(rng.integers(3, size=12))
    for size in (1, 5, 6, 11):
        assert_close(filled(model, x, y, slice_size=size), gradients_at(model, x, y))


def test_each_slice_is_normalised_alone_and_the_first_moves_the_averages(problem):
    model, x, y = problem
    first = copy.deepcopy(model)
    first(x[:4])
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        for total, g in zip(expected, gradients_at(model, x[part], y[part]), strict=True):
            total += g / 3
    assert_close(filled(model, x, y, slice_size=4), expected)
    for name, buffer in first.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], buffer)


def test_the_loss_and_score_are_those_of_the_weights_as_they_are(problem):
    model, x, y = problem
    model.eval()  # so that slices do not change the outputs
    outputs = model(x).detach()
    expected = float(F.cross_entropy(outputs, y)), int((outputs.argmax(1) == y).sum())

    def forward(x, y):
        out = model(x)
        return F.cross_entropy(out, y), CLASSIFY.score(out.detach(), y)

    for rule in ({}, {"slice_size": 5}, {"sam": SamSpec(rho=0.5)}, {"slice_size": 5, "sam": SamSpec(rho=0.5, ascents=2)}):
        loss, score = gradient.fill(model, list(model.parameters()), forward, x, y, **rule)
        assert (float(loss), int(score)) == pytest.approx(expected)
