"""Learning rates: the square-root rule by what it keeps, regimes against arrays that hold a value for every update."""

import math

import numpy as np
import pytest
import torch
from conftest import digits_run
from torch import nn

from lbgap import models, schedule, train
from lbgap.schedule import at, regime, square_root_scaling
from lbgap.spec import DataSpec, OptimizerSpec, Phase, Train, Warmup

SGD = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=5e-4)


def stairs(start: float, steps: list[tuple[int, float | None]], updates: int) -> np.ndarray:
    """The value at every update: a step holds from its update to the end, or until the next; None is no step."""
    values = np.full(updates, start)
    for update, value in steps:
        if value is not None:
            values[update:] = value
    return values


def followed(phases, updates: int, optimizer: OptimizerSpec = SGD) -> tuple[np.ndarray, np.ndarray]:
    """Learning rate and weight decay of every update."""
    rates, decays = zip(*(at(optimizer, phases, update) for update in range(updates)), strict=True)
    return np.array(rates), np.array(decays)


# ---------------------------------------------------------------- square-root rule


def test_the_square_root_rule_keeps_the_covariance_of_an_update(rng):
    """The mean of M independent gradients has covariance C/M, an update with rate r then r^2 C/M: the same for every M."""
    for _ in range(20):
        rate, reference, batch = float(rng.uniform(1e-3, 1)), int(rng.integers(1, 500)), int(rng.integers(1, 10_000))
        scaled = square_root_scaling(rate, batch, reference)
        assert scaled**2 / batch == pytest.approx(rate**2 / reference, rel=1e-12)
        # by way of a third batch size, and back
        half_way = square_root_scaling(rate, 777, reference)
        assert square_root_scaling(half_way, batch, 777) == pytest.approx(scaled, rel=1e-12)
        assert square_root_scaling(scaled, reference, batch) == pytest.approx(rate, rel=1e-12)


def test_the_square_root_rule_in_whole_numbers():
    assert square_root_scaling(0.1, 128, 128) == 0.1
    assert square_root_scaling(0.1, 512, 128) == 0.2
    assert square_root_scaling(0.1, 32, 128) == 0.05


def test_the_variance_of_simulated_updates_is_that_of_the_small_batch(rng):
    """Means of 4 and of 64 normal gradients, 20,000 times: the sample variance has a relative error of sqrt(2/n)."""
    n, gradients = 20_000, rng.normal(size=(20_000, 64))
    small = 0.1 * gradients[:, :4].mean(1)
    large = square_root_scaling(0.1, 64, 4) * gradients.mean(1)
    assert large.var() / small.var() == pytest.approx(1, rel=5 * math.sqrt(4 / n))


# ---------------------------------------------------------------- regimes

# In the manner of the released code's regimes, in fewer epochs; not every entry sets both.
BOUNDARIES = [
    (3, {"learning_rate": 1e-2}),
    (5, {"learning_rate": 1e-3, "weight_decay": 0.0}),
    (7, {"weight_decay": 1e-4}),
    (8, {"learning_rate": 5e-4}),
]


@pytest.mark.parametrize("factor", [1.0, 4.0])
@pytest.mark.parametrize("updates_per_epoch", [1, 7])
def test_a_regime_changes_at_the_first_update_of_its_epochs(updates_per_epoch, factor):
    """Against a loop over epochs and their updates."""
    optimizer = SGD.model_copy(update={"learning_rate": SGD.learning_rate * factor})
    rates, decays = [], []
    rate, decay = optimizer.learning_rate, optimizer.weight_decay
    for epoch in range(10):
        for boundary, values in BOUNDARIES:
            if boundary == epoch:
                rate = values["learning_rate"] * factor if "learning_rate" in values else rate
                decay = values.get("weight_decay", decay)
        rates += [rate] * updates_per_epoch
        decays += [decay] * updates_per_epoch
    got = followed(regime(BOUNDARIES, updates_per_epoch, factor), 10 * updates_per_epoch, optimizer)
    np.testing.assert_array_equal(got, [rates, decays])


def test_the_factor_multiplies_learning_rates_and_nothing_else():
    plain, scaled = regime(BOUNDARIES, 5), regime(BOUNDARIES, 5, factor=8.0)
    for one, other in zip(plain, scaled, strict=True):
        assert (one.update, one.weight_decay) == (other.update, other.weight_decay)
        assert other.learning_rate == (None if one.learning_rate is None else 8 * one.learning_rate)


def test_a_regime_without_boundaries_is_the_optimizers_own():
    assert regime([], 391) == ()
    np.testing.assert_array_equal(followed((), 5), [[0.1] * 5, [5e-4] * 5])


# ---------------------------------------------------------------- the values of an update


def test_a_phase_holds_from_its_update_on():
    """``update`` updates are done when it begins; the first update is 0."""
    phases = (Phase(update=1, learning_rate=0.5), Phase(update=3, weight_decay=0.25))
    assert [at(SGD, phases, u) for u in range(5)] == [(0.1, 5e-4), (0.5, 5e-4), (0.5, 5e-4), (0.5, 0.25), (0.5, 0.25)]


def test_every_update_has_the_values_of_a_step_function(rng):
    for _ in range(20):
        updates = np.sort(rng.choice(np.arange(1, 60), size=int(rng.integers(0, 6)), replace=False)).tolist()
        rates = [None if rng.random() < 0.3 else float(rng.uniform(1e-3, 1)) for _ in updates]
        decays = [None if rng.random() < 0.3 else float(rng.choice([0.0, 1e-4, 1e-2])) for _ in updates]
        phases = [
            Phase(update=u, learning_rate=rate, weight_decay=decay)
            for u, rate, decay in zip(updates, rates, decays, strict=True)
        ]
        expected = (
            stairs(SGD.learning_rate, list(zip(updates, rates, strict=True)), 60),
            stairs(SGD.weight_decay, list(zip(updates, decays, strict=True)), 60),
        )
        np.testing.assert_array_equal(followed(phases, 60), expected)


def test_weight_decay_can_be_switched_off():
    """0 is a value, and not "as before"."""
    assert at(SGD, [Phase(update=2, weight_decay=0.0)], 2) == (0.1, 0.0)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("epoch", [0, -1])
def test_what_holds_from_the_start_belongs_to_the_optimizer(epoch):
    with pytest.raises(ValueError, match=f"^epoch is {epoch}; accepted is 1 or more, [^\n]*optimizer$"):
        regime([(epoch, {"learning_rate": 0.1})], 10)


@pytest.mark.parametrize("values", [{"learning_rate": 0.0}, {"learning_rate": -0.1}, {"weight_decay": -1e-4}])
def test_values_that_no_phase_accepts_are_refused(values):
    name, value = next(iter(values.items()))
    with pytest.raises(ValueError, match=f"^{name} is {value}; accepted is [^\n]*$"):
        regime([(1, values)], 10)


def test_a_regime_that_changes_something_else_is_refused():
    with pytest.raises(ValueError, match="^regime changes 'lr'; accepted are learning_rate, weight_decay$"):
        regime([(1, {"lr": 0.1})], 10)


# ---------------------------------------------------------------- ramps, cosines, and what they are composed with


def rates(run: Train) -> list[float]:
    """The learning rate of every update."""
    return [schedule.of(run, u)[0] for u in range(run.updates)]


def test_gradual_warmup_rises_in_equal_steps_by_hand():
    """Goyal et al. 2017: from 0.1 to 0.8 in 7 updates, then x 0.1 from update 9 on."""
    sgd = OptimizerSpec(name="sgd", learning_rate=0.8)
    run = digits_run(
        updates=11, optimizer=sgd, warmup=Warmup(updates=7, start=0.125), phases=(Phase(update=9, learning_rate=0.08),)
    )
    assert rates(run) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.08, 0.08])


def test_constant_warmup_by_hand():
    low, phases = schedule.constant_warmup(0.8, 0.1, 3)
    run = digits_run(updates=5, optimizer=OptimizerSpec(name="sgd", learning_rate=low), phases=phases)
    assert rates(run) == [0.1, 0.1, 0.1, 0.8, 0.8]


# Goyal et al. 2017 with two updates an epoch: 90 epochs, the rate 1.1 for a batch of 11 references, whose rate is 0.1.
# Written out update by update: 5 epochs of warmup, then drops after epochs 30, 60 and 80.
DROPS = [(epoch, {"learning_rate": rate}) for epoch, rate in ((30, 0.11), (60, 0.011), (80, 0.0011))]
AFTER = [1.1] * 50 + [0.11] * 60 + [0.011] * 40 + [0.0011] * 20
GRADUAL = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize("way", ["gradual", "constant", "none"])
def test_goyals_three_warmups_over_ninety_epochs_by_hand(way):
    target, drops = schedule.linear_scaling(0.1, 2816, 256), regime(DROPS, 2)
    first, phases, warmup = {
        "gradual": (target, (), Warmup(updates=10, start=0.1 / target)),
        "constant": (*schedule.constant_warmup(target, 0.1, 10), None),
        "none": (target, (), None),
    }[way]
    sgd = OptimizerSpec(name="sgd", learning_rate=first, momentum=0.9, nesterov=True)
    run = digits_run(updates=180, optimizer=sgd, phases=(*phases, *drops), warmup=warmup)
    expected = {"gradual": GRADUAL, "constant": [0.1] * 10, "none": [1.1] * 10}[way] + AFTER
    assert len(expected) == run.updates == 180
    assert rates(run) == pytest.approx(expected)


def test_hold_then_halve_by_hand():
    """Smith et al. 2020, as recalled: half of the budget, then halved every twentieth of it."""
    run = digits_run(
        updates=40, optimizer=OptimizerSpec(name="sgd", learning_rate=1.0), phases=schedule.hold_then_halve(1.0, 40)
    )
    assert rates(run) == [1.0] * 20 + [0.5**k for k in range(1, 11) for _ in range(2)]
    for values, sentence in (
        ({"updates": 19}, "updates is 19; accepted is 20 or more"),
        ({"updates": 19, "pieces": 0}, "pieces is 0; accepted is 1 or more"),
        ({"updates": 20, "hold": 0.0}, "hold is 0; accepted is one piece, 1/20, to 1"),
        ({"updates": 20, "hold": 1.5}, "hold is 1.5; accepted is one piece, 1/20, to 1"),
    ):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            schedule.hold_then_halve(1.0, **values)


@pytest.mark.parametrize("rule", [schedule.linear_scaling, schedule.square_root_scaling])
@pytest.mark.parametrize("name", ["batch_size", "reference"])
@pytest.mark.parametrize("value", [0, -5])
def test_a_rule_of_the_batch_size_refuses_what_is_none(rule, name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; accepted is 1 or more$"):
        rule(0.1, **{"batch_size": 64, "reference": 32} | {name: value})


def test_a_cosine_falls_from_the_whole_rate_after_the_warmup_to_nothing():
    sgd = OptimizerSpec(name="sgd", learning_rate=2.0)
    plain = digits_run(updates=9, optimizer=sgd, annealing="cosine")
    assert rates(plain)[0] == 2.0
    assert rates(plain)[3] == pytest.approx(2.0 * (1 + math.cos(math.pi / 3)) / 2)
    warmed = digits_run(updates=13, optimizer=sgd, annealing="cosine", warmup=Warmup(updates=4, start=0.0))
    assert rates(warmed)[:4] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert rates(warmed)[4:] == pytest.approx(rates(plain))


def test_linear_scaling_multiplies_by_the_ratio_of_batches():
    assert schedule.linear_scaling(0.1, 8192, 256) == 3.2
    assert schedule.linear_scaling(0.1, 3, 1) == 0.3 != 0.1 * 3


def test_a_schedule_says_itself_in_words():
    sgd = OptimizerSpec(name="sgd", learning_rate=0.8, weight_decay=1e-4)
    phases = (Phase(update=1000, learning_rate=0.08), Phase(update=2000, weight_decay=0.0))
    run = digits_run(updates=3000, optimizer=sgd, warmup=Warmup(updates=70, start=0.125), phases=phases, annealing="cosine")
    assert schedule.words(run) == (
        "0.8, ramped up from 0.1 over 70 updates, 0.08 from update 1,000, weight decay 0 from update 2,000, "
        "down to 0 by a cosine"
    )
    assert schedule.words(digits_run()) == "0.001"


def test_the_rates_of_a_run_are_those_of_its_schedule(monkeypatch):
    """The optimizer sees them update by update, and the decay that a group is exempt from stays 0."""
    seen = []
    step = torch.optim.SGD.step

    def recording(self, *args):
        seen.append([(g["lr"], g["weight_decay"]) for g in self.param_groups])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", recording)
    sgd = OptimizerSpec(name="sgd", learning_rate=0.1, weight_decay=1e-3, momentum=0.9, nesterov=True, decay_exempt="norms")
    data = DataSpec(name="digits", n_train=100, n_test=50)
    run = digits_run(25, updates=6, data=data, optimizer=sgd, warmup=Warmup(updates=3, start=0.0), annealing="cosine")
    train.fit(run, stop_after=6)
    assert seen == [[schedule.of(run, u), (schedule.of(run, u)[0], 0.0)] for u in range(6)]


def test_scales_and_shifts_of_batch_norm_are_exempt_and_nothing_else():
    """F1 of width 16: five hidden layers with batch norm, six linear ones."""
    model = models.build("keskar.F1", (1, 8, 8), 10, width=16)
    named = {id(p): name for name, p in model.named_parameters()}
    norms = {f"{i}.{kind}" for i, m in enumerate(model) if isinstance(m, nn.BatchNorm1d) for kind in ("weight", "bias")}
    linear_biases = {f"{i}.bias" for i, m in enumerate(model) if isinstance(m, nn.Linear)}
    for exempt, expected in (("norms", norms), ("norms and biases", norms | linear_biases)):
        spec = OptimizerSpec(name="sgd", learning_rate=0.1, weight_decay=1e-4, decay_exempt=exempt)
        decayed, free = train.optimizer(spec, model).param_groups
        assert {named[id(p)] for p in free["params"]} == expected
        assert {named[id(p)] for p in decayed["params"]} == set(named.values()) - expected
        assert (decayed["weight_decay"], free["weight_decay"]) == (1e-4, 0.0)
    assert len(norms) == 10 and len(linear_biases) == 6


def test_norms_and_biases_of_any_kind_are_exempt():
    """Attention's bias ends in its name, a recurrent layer's begins with it."""
    model = nn.ModuleDict(
        {
            "instance": nn.InstanceNorm1d(4, affine=True), "rms": nn.RMSNorm(4), "group": nn.GroupNorm(2, 4),
            "attention": nn.MultiheadAttention(4, 2), "lstm": nn.LSTM(4, 4),
        }
    )  # fmt: skip
    spec = OptimizerSpec(name="sgd", learning_rate=0.1, weight_decay=1e-4, decay_exempt="norms and biases")
    decayed, _ = train.optimizer(spec, model).param_groups
    named = {id(p): name for name, p in model.named_parameters()}
    assert {named[id(p)] for p in decayed["params"]} == {
        "attention.in_proj_weight", "attention.out_proj.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0",
    }  # fmt: skip


def test_without_a_gradient_all_but_gamma_and_beta_of_batch_norm_decay():
    """A residual network: each update takes rate times decay of every weight, and leaves batch norm's where they were."""
    torch.manual_seed(3)
    model = models.build("hoffer.ResNet", (3, 32, 32), 10, depth=8)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in (m.weight, m.bias)}
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(1, 2)
    before = [p.detach().clone() for p in model.parameters()]
    sgd = train.optimizer(OptimizerSpec(name="sgd", learning_rate=0.5, weight_decay=0.1, decay_exempt="norms"), model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    sgd.step()
    kept = [torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True)]
    shrunk = [torch.allclose(p, 0.95 * was) for p, was in zip(model.parameters(), before, strict=True)]
    assert kept == [id(p) in norms for p in model.parameters()] == [not s for s in shrunk]
    assert len(norms) >= 14
