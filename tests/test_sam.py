"""SAM around any torch optimizer, held to the formula, to the base optimizer, and to the training runs of the library."""

import copy
import math

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from conftest import digits_run
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lbgap import train
from lbgap.sam import SAM
from lbgap.spec import DataSpec, OptimizerSpec, SamSpec

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2),
}


@pytest.fixture
def problem(rng):
    """A network in float64 with batch norm, and a batch of 12."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    return model, torch.tensor(rng.normal(size=(12, 6))), torch.tensor(rng.integers(3, size=12))


def loss_of(model):
    """The mean loss of a batch under a network."""
    return lambda x, y: F.cross_entropy(model(x), y)


def weights(model) -> list[torch.Tensor]:
    """A copy of a network's parameters."""
    return [p.detach().clone() for p in model.parameters()]


def trained(model, make, x, y, steps: int, **values) -> list[torch.Tensor]:
    """Parameters of a copy after some steps, with SAM where there are ``values``."""
    model = copy.deepcopy(model)
    optimizer = make(model.parameters())
    sam = SAM(optimizer, model, **values) if values else None
    torch.manual_seed(5)  # dropout
    for _ in range(steps):
        if sam:
            sam.backward(loss_of(model), x, y)
        else:
            optimizer.zero_grad()
            loss_of(model)(x, y).backward()
        optimizer.step()
    return weights(model)


def by_the_formula(model, x, y, rho: float, decay: float = 0.0, adaptive: bool = False, ascents: int = 1):
    """The gradient at w + e(w), e(w) = rho T² g / ||T g|| with T = 1, or |w| where it is adaptive: equation 2 written out."""
    model = copy.deepcopy(model)
    start, step = weights(model), [torch.zeros_like(p) for p in model.parameters()]
    for ascent in range(ascents + 1):
        with torch.no_grad():
            for p, w, e in zip(model.parameters(), start, step, strict=True):
                p.copy_(w + e)
        g = torch.autograd.grad(loss_of(model)(x, y), list(model.parameters()))
        if ascent == ascents:
            return list(g)
        size = [w.abs() if adaptive else torch.ones_like(w) for w in start]
        g = [a + decay * p.detach() for a, p in zip(g, model.parameters(), strict=True)]
        length = math.sqrt(sum(float((t * a).square().sum()) for t, a in zip(size, g, strict=True)))
        step = [rho * t * t * a / length for t, a in zip(size, g, strict=True)]


def same(one, other) -> bool:
    return all(map(torch.equal, one, other))


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_radius_of_zero_is_the_base_optimizer_bit_for_bit(problem, name, dropout):
    """20 updates; the passes of an update share their dropout masks."""
    model, x, y = problem
    model = nn.Sequential(*model[:3], nn.Dropout(dropout), model[3])
    assert same(*(trained(model, OPTIMIZERS[name], x, y, 20, **values) for values in ({}, {"rho": 0.0})))
    assert not same(*(trained(model, OPTIMIZERS[name], x, y, 1, **values) for values in ({}, {"rho": 0.5})))


BOTH = {"ascents": 3, "decay_ascends": True}  # the decay is that of the weights where each gradient is taken


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("values", [{}, {"adaptive": True}, {"ascents": 3}, {"decay_ascends": True}, BOTH], ids=str)
def test_a_step_is_the_optimizers_with_the_gradient_of_the_formula(problem, name, values):
    model, x, y = problem
    ours = trained(model, OPTIMIZERS[name], x, y, 1, rho=0.3, **values)
    other = copy.deepcopy(model)
    optimizer = OPTIMIZERS[name](other.parameters())
    decay = optimizer.param_groups[0]["weight_decay"] if values.get("decay_ascends") else 0.0
    expected = by_the_formula(other, x, y, 0.3, decay, values.get("adaptive", False), values.get("ascents", 1))
    for p, g in zip(other.parameters(), expected, strict=True):
        p.grad = g
    optimizer.step()
    for a, b in zip(ours, other.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=1e-9)


def test_a_batch_has_as_many_targets_as_inputs(problem):
    model, x, y = problem
    with pytest.raises(ValueError, match=f"^x has {len(x)} examples and y has {len(y) - 1}; accepted are as many$"):
        SAM(OPTIMIZERS["sgd"](model.parameters()), model, m=2).backward(loss_of(model), x, y[1:])


def test_the_network_is_looked_at_a_distance_of_rho_away_and_comes_back(problem):
    model, x, y = problem
    start, seen = weights(model), []

    def watched(x, y):
        seen.append(weights(model))
        return loss_of(model)(x, y)

    SAM(OPTIMIZERS["sgd"](model.parameters()), model, rho=0.25, ascents=2).backward(watched, x, y)
    away = [sum(float((a - b).square().sum()) for a, b in zip(at, start, strict=True)) ** 0.5 for at in seen]
    assert away == pytest.approx([0.0, 0.25, 0.25])
    assert same(weights(model), start)


def test_each_part_of_m_examples_has_an_e_of_its_own(problem):
    model, x, y = problem
    sam = SAM(OPTIMIZERS["sgd"](model.parameters()), model, rho=0.3, m=5)
    sam.backward(loss_of(model), x, y)
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for part in (slice(0, 5), slice(5, 10), slice(10, 12)):
        for total, g in zip(expected, by_the_formula(model, x[part], y[part], 0.3), strict=True):
            total += g * len(y[part]) / 12
    for p, g in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-6, atol=1e-9)


def test_m_of_the_whole_batch_is_sam(problem):
    model, x, y = problem
    assert same(*(trained(model, OPTIMIZERS["sgd"], x, y, 5, rho=0.1, m=m) for m in (None, 12)))


def test_batch_norms_averages_move_once_a_step_by_the_pass_at_the_weights(problem):
    model, x, y = problem
    once = copy.deepcopy(model)
    once(x)
    SAM(OPTIMIZERS["sgd"](model.parameters()), model, rho=0.5, ascents=2).backward(loss_of(model), x, y)
    assert same(model.buffers(), once.buffers())
    assert int(model[1].num_batches_tracked) == 1


def test_adaptive_steps_do_not_hang_on_how_layers_are_scaled(rescaled):
    """Networks of one function are perturbed to one function."""
    one, other, x, y = rescaled

    def losses(model, adaptive):
        seen = []

        def watched(x, y):
            seen.append(loss_of(model)(x, y))
            return seen[-1]

        SAM(OPTIMIZERS["sgd"](model.parameters()), model, rho=0.1, adaptive=adaptive).backward(watched, x, y)
        return [float(loss.detach()) for loss in seen]

    assert losses(one, True) == pytest.approx(losses(other, True), rel=1e-9)
    assert losses(one, False)[1] != pytest.approx(losses(other, False)[1], rel=1e-3)


def test_it_is_what_a_training_run_of_the_library_does():
    """The same run in one's own loop: weights to the last bit."""
    spec = digits_run(
        32,
        updates=6,
        data=DataSpec(name="digits", n_train=96, n_test=20),
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-3, clip_norm=0.5),
        sam=SamSpec(rho=0.1, decay_ascends=True),
        slice_size=8,
        options={"width": 8},
    )
    kept = {}
    train.fit(spec, on_weights=kept.__setitem__)
    data = train.load_data(spec)
    torch.manual_seed(spec.seed)
    model = train.initial_model(spec, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    sam, order = SAM(optimizer, model, rho=0.1, m=8, decay_ascends=True), train.data_order(spec)
    for _ in range(2):
        for batch in torch.randperm(96, generator=order).split(32):
            sam.backward(loss_of(model), data.train.x[batch], data.train.y[batch])
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    assert all(torch.equal(value, kept[2][name]) for name, value in model.state_dict().items())


# ---------------------------------------------------------------- beside others


def test_the_loss_is_that_at_the_weights_and_old_gradients_are_replaced(problem):
    model, x, y = problem
    expected = float(loss_of(copy.deepcopy(model))(x, y).detach())
    sam = SAM(OPTIMIZERS["sgd"](model.parameters()), model, rho=0.5)
    assert float(sam.backward(loss_of(model), x, y)) == pytest.approx(expected)
    first = [p.grad.clone() for p in model.parameters()]
    sam.backward(loss_of(model), x, y)
    for p, g in zip(model.parameters(), first, strict=True):
        torch.testing.assert_close(p.grad, g)


@pytest.mark.parametrize("decay_ascends", [False, True])
def test_a_scaler_scales_the_gradient_and_moves_no_perturbation(problem, decay_ascends):
    model, x, y = problem
    unscaled = trained(model, OPTIMIZERS["sgd"], x, y, 1, rho=0.3, decay_ascends=decay_ascends)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = SAM(optimizer, model, rho=0.3, decay_ascends=decay_ascends).backward(loss_of(model), x, y, scaler)
    assert float(loss) < 10
    scaler.step(optimizer)
    scaler.update()
    for a, b in zip(weights(model), unscaled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_a_scaler_skips_a_step_whose_first_gradient_overflows(problem):
    model, x, y = problem
    start, optimizer = weights(model), OPTIMIZERS["sgd"](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    SAM(optimizer, model, rho=0.3).backward(lambda x, y: loss_of(model)(x, y) * math.inf, x, y, scaler)
    scaler.step(optimizer)
    assert same(weights(model), start)


@pytest.mark.parametrize("m", [None, 4])
def test_gradients_are_exchanged_once_a_step(problem, tmp_path, monkeypatch, m):
    """DistributedDataParallel with one process: as without it, and every pass but the last runs under no_sync."""
    model, x, y = problem
    alone = copy.deepcopy(model)
    SAM(OPTIMIZERS["sgd"](alone.parameters()), alone, rho=0.3, m=m).backward(loss_of(alone), x, y)

    def exchange() -> list[bool]:
        wrapped = DistributedDataParallel(model)
        exchanged = []

        def watched(x, y):
            exchanged.append(wrapped.require_backward_grad_sync)
            return loss_of(wrapped)(x, y)

        SAM(OPTIMIZERS["sgd"](wrapped.parameters()), wrapped, rho=0.3, m=m).backward(watched, x, y)
        return exchanged

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        # the wrapped model goes before the group: as its last owner it waits for the group's threads, which may wait for it
        exchanged = exchange()
        assert exchanged == [False] * (len(exchanged) - 1) + [True]
        assert len(exchanged) == (2 if m is None else 6)
        for p, q in zip(model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
    finally:
        torch.distributed.destroy_process_group()


def test_it_does_not_matter_where_autocast_begins():
    """Around the loss, or around the whole step: the weights that autocast keeps in bfloat16 are those at w + e(w)."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(12, 6), torch.randint(3, (12,))
    sam = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=2.0)

    def inside(x, y):
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(model)(x, y)

    found = []
    for outer in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=outer):
            sam.backward(loss_of(model) if outer else inside, x, y)
        found.append([p.grad.clone() for p in model.parameters()])
    assert same(*found)
    loss_of(model)(x, y).backward()
    assert not same([p.grad / 2 for p in model.parameters()], found[0])


def test_model_and_optimizer_belong_together(problem):
    model, _, _ = problem
    of = torch.optim.SGD(model.parameters(), lr=0.1)
    for wrong, sentence in (
        ((model, of), "^optimizer is a Sequential; accepted is a torch Optimizer$"),
        ((of, of), "^model is a SGD; accepted is a torch Module$"),
        ((of, copy.deepcopy(model)), "^optimizer has parameters that are not the model's; accepted is one of this model$"),
    ):
        with pytest.raises(ValueError, match=sentence):
            SAM(*wrong)


def test_half_precision_is_refused():
    model = nn.Linear(2, 2).bfloat16()
    with pytest.raises(ValueError, match="^model has weights in bfloat16, where small steps are rounded away; accepted are"):
        SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rho": -0.1}, "^rho is -0.1; accepted is greater than or equal to 0$"),
        ({"m": 0}, "^m is 0; accepted is a whole number from 1, or None for the whole batch$"),
        ({"m": True}, "^m is True; accepted is a whole number from 1, or None for the whole batch$"),
        ({"norm": "1"}, "^norm is '1'; accepted is '2' or 'inf'$"),
        ({"ascents": 0}, "^ascents is 0; accepted is greater than or equal to 1$"),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(problem, values, sentence):
    model, _, _ = problem
    with pytest.raises(ValueError, match=sentence):
        SAM(OPTIMIZERS["sgd"](model.parameters()), model, **values)
