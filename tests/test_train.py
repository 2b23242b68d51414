"""Training, against loops written here, recomputation from the weights handed out, and properties of one seed."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import digits_run
from torch import nn

from lbgap import augment, models, train
from lbgap.data import Data, Split, load
from lbgap.evaluate import loss_and_metric
from lbgap.records import tidy
from lbgap.spec import DataSpec, OptimizerSpec, Phase, Train

SMALL = DataSpec(name="digits", n_train=96, n_test=50)


def full_batch(updates: int = 5, **changes) -> Train:
    """One update an epoch: no order of the data to speak of."""
    return digits_run(**{"data": SMALL, "batch_size": 96, "epochs": updates} | changes)


def convolutional(**changes) -> Train:
    """C1, with batch norm and dropout, for a few updates on 8x8 images."""
    return digits_run(**{"data": SMALL, "batch_size": 40, "epochs": 2, "model": "keskar.C1", "options": {}} | changes)


def plain(**changes) -> Train:
    """F1 on the data of :func:`convolutional`: batch norm, no dropout."""
    return digits_run(**{"data": SMALL, "batch_size": 40, "epochs": 2} | changes)


def adam(**changes) -> OptimizerSpec:
    return OptimizerSpec(**{"name": "adam", "learning_rate": 1e-3} | changes)


def sgd(**changes) -> OptimizerSpec:
    return OptimizerSpec(**{"name": "sgd", "learning_rate": 0.1} | changes)


def trained(spec: Train, **arguments) -> tuple[dict, dict[int, dict[str, torch.Tensor]]]:
    """What a run returns, and its weights after every epoch."""
    states = {}
    result = train.fit(spec, keep=range(spec.epochs + 1), on_weights=states.__setitem__, **arguments)
    return result, states


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def network(spec: Train, state: dict[str, torch.Tensor]) -> nn.Module:
    with torch.random.fork_rng():
        model = models.build(spec.model, (1, 8, 8), 10, **spec.options)
    model.load_state_dict(state)
    return model


# ---------------------------------------------------------------- one seed


@pytest.mark.parametrize("make", [digits_run, convolutional])
def test_one_spec_is_one_run(make, rng):
    first, states = trained(make())
    torch.manual_seed(99)
    np.random.default_rng().random()
    second, again = trained(make())
    assert second == first
    assert all(same(states[epoch], again[epoch]) for epoch in states)


def test_another_seed_is_another_run():
    (one, states), (other, others) = trained(digits_run(seed=1)), trained(digits_run(seed=2))
    assert not torch.equal(states[0]["1.weight"], others[0]["1.weight"])
    assert one["loss_at"]["1"] != other["loss_at"]["1"]


def test_all_batches_and_optimizers_of_one_seed_start_from_one_network():
    """Small and large batch, as the parametric plots of Keskar et al. 2017 need it; another seed starts elsewhere."""
    specs = digits_run(32), digits_run(1000), digits_run(optimizer=sgd()), digits_run(32, epochs=1)
    initial = [trained(spec)[1][0] for spec in specs]
    assert all(same(state, initial[0]) for state in initial)


def test_dropout_follows_the_seed():
    """From one start and with all data in the first batch, the loss of another seed differs by its dropout, and without
    dropout only by the order of a sum."""

    def first_loss(make, seed):
        parent = make(batch_size=96, epochs=1)
        return train.fit(make(batch_size=96, epochs=1, seed=seed, start=parent.at(0)), start=trained(parent)[1][0])["loss_at"][
            "1"
        ]

    assert first_loss(convolutional, 1) == first_loss(convolutional, 1)
    assert first_loss(convolutional, 1) != pytest.approx(first_loss(convolutional, 2), rel=1e-5)
    assert first_loss(plain, 1) == pytest.approx(first_loss(plain, 2), rel=1e-6)


@pytest.mark.parametrize("make", [digits_run, convolutional])
def test_the_global_generator_is_neither_used_nor_moved(make, rng):
    before = torch.get_rng_state()
    train.fit(make())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_largest_seed_that_a_spec_accepts_can_be_run():
    for seed in (2**31, 2**32, 2**40):
        try:
            spec = digits_run(seed=seed, epochs=1)
        except ValueError as refused:
            assert str(refused).startswith(f"seed is {seed}")
            continue
        train.fit(spec, stop_after=1)


# ---------------------------------------------------------------- batches


class Recorder(nn.Module):
    """A linear network that keeps every training batch it is shown, and every logit it answers."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.batches, self.logits = [], []

    def forward(self, x):
        logits = self.linear(x.flatten(1))
        if self.training:
            self.batches.append(x.clone())
            self.logits.append(logits.detach().clone())
        return logits


@pytest.fixture
def recorder(monkeypatch) -> list[Recorder]:
    """The networks of the runs to come."""
    built = []

    def build(*_, **__):
        built.append(Recorder())
        return built[-1]

    monkeypatch.setattr(models, "build", build)
    return built


def where(batch: torch.Tensor, x: torch.Tensor) -> list[int]:
    """Positions of the rows of a batch in the data."""
    places = {row.numpy().tobytes(): i for i, row in enumerate(x)}
    return [places[row.numpy().tobytes()] for row in batch]


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own(recorder):
    train.fit(digits_run(128, epochs=3))
    batches = recorder[0].batches
    assert [len(b) for b in batches] == 3 * ([128] * 11 + [30])  # 1438 = 11 x 128 + 30
    x = load("digits").train.x
    orders = [where(torch.cat(batches[i : i + 12]), x) for i in (0, 12, 24)]
    assert all(sorted(order) == list(range(1438)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_the_order_is_of_the_seed_and_not_of_the_batch_size(recorder):
    for spec in (digits_run(128, epochs=1), digits_run(500, epochs=1), digits_run(128, seed=1, epochs=1)):
        train.fit(spec)
    x = load("digits").train.x
    orders = [where(torch.cat(r.batches), x) for r in recorder]
    assert orders[0] == orders[1] != orders[2]


def test_runs_of_one_data_seed_share_the_order_and_not_the_start(recorder):
    for spec in (digits_run(128, seed=seed, epochs=1, data_seed=5) for seed in (0, 1)):
        train.fit(spec)
    x = load("digits").train.x
    first, second = recorder
    assert where(torch.cat(first.batches), x) == where(torch.cat(second.batches), x)
    assert not torch.equal(first.logits[0], second.logits[0])


def test_a_budget_ends_within_an_epoch(recorder):
    result = train.fit(digits_run(128, updates=15))
    assert [len(b) for b in recorder[0].batches] == [128] * 11 + [30] + [128] * 3
    assert result["updates"] == 15
    assert result["curve"]["update"] == [12, 15] and result["curve"]["epoch"] == [1, 2]


def test_recorded_training_loss_and_metric_are_means_over_the_examples_of_the_epoch(recorder):
    """The smaller last batch counts by its size."""
    result = train.fit(digits_run(128, updates=15))
    x, y = load("digits").train.x, load("digits").train.y
    for epoch, part in enumerate((slice(0, 12), slice(12, 15))):
        logits = torch.cat(recorder[0].logits[part]).double()
        labels = y[[i for batch in recorder[0].batches[part] for i in where(batch, x)]]
        expected = nn.functional.cross_entropy(logits, labels).item()
        assert result["curve"]["train_loss"][epoch] == pytest.approx(expected, rel=1e-6)
        hits = 100 * (logits.argmax(1) == labels).double().mean().item()
        assert result["curve"]["train_accuracy"][epoch] == pytest.approx(hits, rel=1e-12)


# ---------------------------------------------------------------- updates, by a second implementation


def by_hand(spec: Train, w: np.ndarray, b: np.ndarray, epochs: list[list[tuple[np.ndarray, np.ndarray]]]) -> list[np.ndarray]:
    """Softmax regression in NumPy: [W, b] after each epoch, given as its batches, by the formulae of SGD with momentum (as
    PyTorch has it: v = mu v + g, w -= eta v) and Adam (Kingma & Ba 2015, algorithm 1). The proximal term is added to the
    gradient, a longer one is cut to ``clip_norm``, then weight decay is added. A phase begins when its updates are done."""
    o, changes = spec.optimizer, {phase.update: phase for phase in spec.phases}
    rate, decay = o.learning_rate, o.weight_decay
    theta = np.column_stack([w, b])
    m, v, t, done, path = np.zeros_like(theta), np.zeros_like(theta), 0, 0, []
    for batches in epochs:
        for x, y in batches:
            if done in changes:
                rate = rate if changes[done].learning_rate is None else changes[done].learning_rate
                decay = decay if changes[done].weight_decay is None else changes[done].weight_decay
            x1, hot, anchor = np.column_stack([x, np.ones(len(x))]), np.eye(10)[y], theta.copy()
            for _ in range(o.inner_steps):
                t += 1
                logits = x1 @ theta.T
                softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                g = (softmax - hot).T @ x1 / len(x) + o.proximal * (theta - anchor)
                length = np.sqrt(np.sum(g**2))
                if 0 < o.clip_norm < length:
                    g *= o.clip_norm / length
                g = g + decay * theta
                if o.name == "sgd":
                    v = o.momentum * v + g
                    theta = theta - rate * v
                else:
                    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                    theta = theta - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            done += 1
        if o.fresh_each_epoch:
            m, v, t = np.zeros_like(theta), np.zeros_like(theta), 0
        path.append(theta)
    return path


def follows_the_formulae(spec: Train, recorder: list[Recorder]) -> None:
    """Every epoch's weights are those of :func:`by_hand` on the batches that were shown.

    Float32 leaves about 1e-7 of the gradient; where the gradient is no larger Adam's step may differ by some of its
    length, which is why the bound is a hundredth of what the weights have moved."""
    _, states = trained(spec)
    data, shown = load("digits", 96).train, recorder[-1].batches[:: spec.optimizer.inner_steps]
    batches = [(x.flatten(1).double().numpy(), data.y[where(x, data.x)].numpy()) for x in shown]
    epochs = [batches[i : i + spec.updates_per_epoch] for i in range(0, len(batches), spec.updates_per_epoch)]
    first = [states[0][k].double().numpy() for k in ("linear.weight", "linear.bias")]
    start = np.column_stack(first)
    expected = by_hand(spec, *first, epochs)
    assert len(expected) == spec.epochs
    for epoch, theta in enumerate(expected, start=1):
        got = np.column_stack([states[epoch][k].double().numpy() for k in ("linear.weight", "linear.bias")])
        assert np.abs(got - theta).max() < 0.01 * np.abs(theta - start).max()
        assert np.abs(got - theta).mean() < 1e-5 * np.abs(theta - start).mean() + 1e-8


@pytest.mark.parametrize(
    "optimizer",
    [
        sgd(),
        sgd(momentum=0.9),
        sgd(weight_decay=0.1),
        sgd(momentum=0.5, weight_decay=0.01),
        adam(),
        adam(weight_decay=0.1),
        sgd(proximal=2.0, inner_steps=3),
        adam(proximal=2.0, inner_steps=3),
        sgd(inner_steps=2),
        sgd(clip_norm=0.1),
        sgd(clip_norm=0.1, momentum=0.9, weight_decay=0.1),
        sgd(clip_norm=0.1, proximal=2.0, inner_steps=3),
        adam(clip_norm=0.1, weight_decay=0.1),
    ],
    ids=str,
)
def test_updates_are_those_of_the_formulae(recorder, optimizer):
    follows_the_formulae(full_batch(4, optimizer=optimizer), recorder)


REGIMES = [
    (Phase(update=1, learning_rate=0.02),),
    (Phase(update=4, learning_rate=0.01), Phase(update=5, weight_decay=0.5), Phase(update=6, weight_decay=0.0)),
    (Phase(update=3, learning_rate=0.3, weight_decay=0.1), Phase(update=7, learning_rate=0.03)),
]


@pytest.mark.parametrize("phases", REGIMES, ids=lambda phases: ",".join(str(p.update) for p in phases))
@pytest.mark.parametrize(
    "optimizer",
    [
        sgd(),
        sgd(momentum=0.9, weight_decay=0.01),
        adam(weight_decay=0.1),
        sgd(clip_norm=0.3, momentum=0.9),
        sgd(momentum=0.9, fresh_each_epoch=True),
        adam(fresh_each_epoch=True),
        sgd(proximal=2.0, inner_steps=2, momentum=0.9, fresh_each_epoch=True),
    ],
    ids=str,
)
def test_updates_of_a_regime_are_those_of_the_formulae(recorder, optimizer, phases):
    """Three epochs of three updates; phases begin within epochs and at their start."""
    follows_the_formulae(plain(epochs=3, optimizer=optimizer, phases=phases), recorder)


def test_a_phase_changes_nothing_before_its_update():
    """Two updates are done when it begins: the third is the first of another length."""
    one, states = trained(full_batch(4))
    for phase in (Phase(update=2, learning_rate=1e-2), Phase(update=2, weight_decay=0.1)):
        _, others = trained(full_batch(4, phases=(phase,)))
        assert [same(states[epoch], others[epoch]) for epoch in range(5)] == [True, True, True, False, False]
    assert trained(full_batch(4, phases=(Phase(update=4, learning_rate=1.0),)))[0] == one


def test_a_clipped_step_has_the_length_of_the_bound():
    """Plain SGD: rate times ``clip_norm`` over all parameters together, and no more than that a step in a row. Of a weight
    near 0.1 float32 leaves 4e-9, a few thousandths of what the shortest of these steps moves it, at random over 2000."""
    longest = train.fit(full_batch(1, optimizer=sgd()))["distance"]["value"][0]
    for bound in (1e-3, 1e-2, 0.05):
        assert 0.1 * bound < longest
        result = train.fit(full_batch(4, optimizer=sgd(clip_norm=bound)))
        assert result["distance"]["value"][0] == pytest.approx(0.1 * bound, rel=1e-3)
        assert result["distance"]["value"][-1] <= 4 * 0.1 * bound * (1 + 1e-3)


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_a_bound_that_no_gradient_reaches_changes_nothing(optimizer):
    free, states = trained(convolutional(optimizer=optimizer()))
    bound, others = trained(convolutional(optimizer=optimizer(clip_norm=1e6)))
    assert bound == free and same(states[2], others[2])


def test_fresh_each_epoch_one_update_an_epoch_knows_no_momentum():
    """And with more than one it does."""
    for make, forgotten in ((full_batch, True), (plain, False)):
        fresh = trained(make(optimizer=sgd(momentum=0.9, fresh_each_epoch=True)))[1]
        without = trained(make(optimizer=sgd()))[1]
        assert same(fresh[max(fresh)], without[max(without)]) is forgotten


def test_the_proximal_term_holds_the_weights_back(recorder):
    """Conservative training: more inner steps go farther, the pull to the batch's first weights shortens the way."""
    distance = {
        pull: train.fit(full_batch(4, optimizer=sgd(proximal=pull, inner_steps=3)))["distance"]["value"][-1]
        for pull in (0.0, 1.0, 5.0)
    }
    assert distance[0.0] > distance[1.0] > distance[5.0] > 0


def test_the_loss_of_a_conservative_update_is_that_of_its_first_inner_step(recorder):
    """Recorded is the loss before the update, which inner steps do not change."""
    one, three = (train.fit(full_batch(1, optimizer=sgd(inner_steps=n)))["loss_at"]["1"] for n in (1, 3))
    assert one == three


# ---------------------------------------------------------------- what is recorded


def test_recorded_training_loss_is_that_of_the_weights_before_each_update():
    spec = full_batch(12)
    result, states = trained(spec)
    data = load("digits", 96, 50).train
    for epoch in (1, 2, 10, 12):
        model = network(spec, states[epoch - 1]).train()
        logits = model(data.x).detach().double()
        loss = nn.functional.cross_entropy(logits, data.y).item()
        assert result["curve"]["train_loss"][epoch - 1] == pytest.approx(loss, rel=1e-5)
        hits = 100 * (logits.argmax(1) == data.y).double().mean().item()
        assert result["curve"]["train_accuracy"][epoch - 1] == pytest.approx(hits, rel=1e-12)
    assert result["loss_at"] == {k: result["curve"]["train_loss"][int(k) - 1] for k in ("1", "10")}


def test_recorded_test_loss_is_that_of_the_weights_after_each_epoch_in_one_batch():
    spec = full_batch(4)
    result, states = trained(spec)
    data = load("digits", 96, 50).test
    for epoch in range(1, 5):
        logits = network(spec, states[epoch]).train()(data.x).detach().double()
        expected = nn.functional.cross_entropy(logits, data.y).item()
        assert result["curve"]["test_loss"][epoch - 1] == pytest.approx(expected, rel=1e-5)
    batch = result["final"]["test"]["batch"]
    assert (batch["loss"], batch["accuracy"]) == (result["curve"]["test_loss"][-1], result["curve"]["test_accuracy"][-1])


def test_final_values_are_those_of_both_readings_on_both_splits():
    spec = full_batch(3)
    result, states = trained(spec)
    data = load("digits", 96, 50)
    for split, part in (("train", data.train), ("test", data.test)):
        logits = network(spec, states[3]).eval()(part.x).detach().double()
        got = result["final"][split]["running"]
        assert got["loss"] == pytest.approx(nn.functional.cross_entropy(logits, part.y).item(), rel=1e-6)
        hits = 100 * (logits.argmax(1) == part.y).double().mean().item()
        assert got["accuracy"] == pytest.approx(hits, rel=1e-12)
        assert got != result["final"][split]["batch"]


def test_recorded_distances_are_those_of_the_weights_from_their_start():
    """Trainable weights alone; every update up to log-spaced ones, the last always."""
    result, states = trained(full_batch(30))
    names = [name for name in states[0] if "running" not in name and "batches" not in name]
    updates = result["distance"]["update"]
    assert updates[0] == 1 and updates[-1] == 30 and updates == sorted(set(updates))
    assert len(result["distance"]["value"]) == len(updates)
    for update, value in zip(updates, result["distance"]["value"], strict=True):
        squares = [(states[update][k].double() - states[0][k].double()).square().sum().item() for k in names]
        assert value == pytest.approx(math.sqrt(sum(squares)), rel=1e-6)


def test_distances_of_layers_are_those_of_each_parameter_and_make_up_the_whole():
    spec = full_batch(30, layers=True)
    result, states = trained(spec)
    distance = result["distance"]
    assert list(distance["layers"]) == [name for name, _ in network(spec, states[0]).named_parameters()]
    for name, values in distance["layers"].items():
        moved = [(states[u][name].double() - states[0][name].double()).square().sum().sqrt().item() for u in distance["update"]]
        assert values == pytest.approx(moved, rel=1e-6)
    whole = np.sqrt(np.sum(np.square(list(distance["layers"].values())), axis=0))
    np.testing.assert_allclose(distance["value"], whole, rtol=1e-12)


@pytest.mark.parametrize("make", [plain, convolutional])
def test_recording_layers_changes_nothing_else(make):
    one, states = trained(make())
    other, others = trained(make(layers=True))
    assert set(one["distance"]) == {"update", "value"}
    assert set(other["distance"].pop("layers")) <= set(states[0])
    assert other == one and all(same(states[epoch], others[epoch]) for epoch in states)


def test_a_curve_of_the_running_reading_is_that_of_the_weights_with_their_running_averages():
    spec = plain(epochs=3, curve_reading="running")
    result, states = trained(spec)
    data = load("digits", 96, 50).test
    for epoch in (1, 2, 3):
        loss, accuracy = loss_and_metric(network(spec, states[epoch]), data.x, data.y, "running")
        assert result["curve"]["test_loss"][epoch - 1] == pytest.approx(loss, rel=1e-6)
        assert result["curve"]["test_accuracy"][epoch - 1] == pytest.approx(accuracy, rel=1e-12)
    running = result["final"]["test"]["running"]
    assert (running["loss"], running["accuracy"]) == (result["curve"]["test_loss"][-1], result["curve"]["test_accuracy"][-1])


@pytest.mark.parametrize("make", [plain, convolutional])
def test_the_reading_of_the_curve_changes_the_test_curve_alone(make):
    one, states = trained(make())
    other, others = trained(make(curve_reading="running"))
    assert one["curve"].pop("test_loss") != other["curve"].pop("test_loss")
    for result in (one, other):
        del result["curve"]["test_accuracy"]
    assert other == one and all(same(states[epoch], others[epoch]) for epoch in states)


def test_a_sparser_curve_is_of_the_same_run_and_keeps_its_end():
    dense, states = trained(convolutional(epochs=3))
    sparse, others = trained(convolutional(epochs=3, evaluate_every=2))
    assert dense["curve"]["epoch"] == [1, 2, 3] and sparse["curve"]["epoch"] == [2, 3]
    assert sparse["curve"]["test_loss"] == dense["curve"]["test_loss"][1:]
    assert sparse["final"] == dense["final"] and same(states[3], others[3])


def test_parameters_and_checksum_are_those_of_the_network_and_the_data():
    result = train.fit(full_batch(1))
    assert result["parameters"] == 64 * 16 + 16 + 4 * (16 * 16 + 16) + 5 * 2 * 16 + 16 * 10 + 10
    assert result["checksum"] == load("digits").checksum


def test_what_is_returned_is_ready_for_json():
    result = train.fit(full_batch(2))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


# ---------------------------------------------------------------- weights handed out


def test_weights_are_handed_out_at_the_end_and_where_asked():
    handed = []
    train.fit(full_batch(5), keep=(0, 3), on_weights=lambda epoch, _: handed.append(epoch))
    assert handed == [0, 3, 5]


def test_weights_handed_out_are_copies():
    spec = convolutional()
    expected, _ = trained(spec)
    spoiled = train.fit(spec, keep=range(3), on_weights=lambda _, state: [v.fill_(7) for v in state.values()])
    assert spoiled == expected


def test_weights_handed_out_fit_the_network_in_plain_layout():
    spec = convolutional()
    _, states = trained(spec)
    reference = models.build(spec.model, (1, 8, 8), 10).state_dict()
    for state in states.values():
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in reference.items()}
        assert all(v.is_contiguous() and v.dtype == reference[k].dtype for k, v in state.items())


# ---------------------------------------------------------------- warm start


def test_a_warm_start_begins_with_those_weights_and_a_fresh_optimizer():
    """Its first update is that of torch's SGD, new, on a copy of the network: no momentum yet."""
    parent = full_batch(6, optimizer=sgd(momentum=0.9))
    start = trained(parent)[1][4]
    spec = full_batch(1, optimizer=sgd(momentum=0.9), start=parent.at(4), seed=5)
    result, states = trained(spec, start=start)
    assert same(states[0], start)
    data, model = load("digits", 96).train, network(parent, start).train()
    loss = nn.functional.cross_entropy(model(data.x), data.y)
    assert result["loss_at"]["1"] == pytest.approx(loss.item(), rel=1e-6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss.backward()
    optimizer.step()
    moved = sum((p.detach() - start[k]).double().square().sum().item() for k, p in model.named_parameters())
    assert result["distance"]["value"] == [pytest.approx(math.sqrt(moved), rel=1e-4)]
    for k, value in model.state_dict().items():
        torch.testing.assert_close(states[1][k], value, rtol=1e-4, atol=1e-6)


def test_a_warm_start_does_not_change_the_weights_it_was_given():
    start = trained(full_batch(1))[1][1]
    before = {k: v.clone() for k, v in start.items()}
    train.fit(full_batch(2, start=full_batch(1).at(1)), start=start)
    assert same(start, before)


def test_starting_weights_are_given_exactly_when_the_spec_has_them():
    spec = full_batch(1)
    with pytest.raises(ValueError, match="^start is None; this spec needs starting weights$"):
        train.fit(full_batch(1, start=spec.at(0)))
    with pytest.raises(ValueError, match="^start is given; this spec has no starting weights$"):
        train.fit(spec, start=trained(spec)[1][0])


# ---------------------------------------------------------------- ghost batch norm


@pytest.fixture
def shown(monkeypatch) -> list[torch.Tensor]:
    """The training batches of the runs to come whose data are ``SHOWN``."""
    batches = []
    monkeypatch.setitem(augment.AUGMENTATIONS, "keskar", lambda x, _: (batches.append(x.clone()), x)[1])
    return batches


SHOWN = DataSpec(name="digits", n_train=96, n_test=50, augment="keskar")


@pytest.mark.parametrize("batch_size", [48, 40])
@pytest.mark.parametrize("make", [plain, convolutional])
def test_one_ghost_batch_a_batch_is_batch_norm(make, batch_size):
    """To the bit; with 40 of 96 the last batch is of 16, less than a ghost batch."""
    one, states = trained(make(batch_size=batch_size))
    other, others = trained(make(batch_size=batch_size, ghost_batch_size=batch_size))
    assert other == one and all(same(states[epoch], others[epoch]) for epoch in states)


@pytest.mark.parametrize("make", [plain, convolutional])
def test_smaller_ghost_batches_are_another_run_from_the_same_start(make):
    one, states = trained(make())
    other, others = trained(make(ghost_batch_size=20))
    assert same(states[0], others[0])
    assert one["loss_at"]["1"] != other["loss_at"]["1"]
    assert not any(torch.equal(states[1][k], others[1][k]) for k in states[0] if states[0][k].is_floating_point())
    assert one["parameters"] == other["parameters"]


def test_a_ghost_run_is_a_plain_network_on_one_ghost_batch_after_another(shown):
    """Its gradients added up before each update, as the released code trains; the last batch, of 16, is whole."""
    spec = plain(data=SHOWN, ghost_batch_size=20, optimizer=sgd(momentum=0.9))
    result, states = trained(spec)
    assert [len(x) for x in shown] == [40, 40, 16] * 2
    data, model = load("digits", 96).train, network(spec, states[0]).train()
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), []
    for x in shown:
        optimizer.zero_grad()
        losses.append(0.0)
        for part in x.split(20):
            loss = nn.functional.cross_entropy(model(part), data.y[where(part, data.x)]) * len(part) / len(x)
            loss.backward()
            losses[-1] += loss.item()
        optimizer.step()
    assert result["loss_at"]["1"] == pytest.approx(losses[0], rel=1e-6)
    assert result["curve"]["train_loss"][0] == pytest.approx(np.average(losses[:3], weights=[40, 40, 16]), rel=1e-4)
    for k, value in model.state_dict().items():
        torch.testing.assert_close(states[2][k], value, rtol=1e-4, atol=1e-6)


def test_weights_of_a_ghost_run_are_those_of_a_plain_network():
    """Evaluated like any other, in either reading; each kind of run begins from the weights of the other."""
    one, ghosts = plain(), plain(ghost_batch_size=20)
    (_, states), (result, others) = trained(one), trained(ghosts)
    data, model = load("digits", 96, 50), network(ghosts, others[2])
    for split, part in (("train", data.train), ("test", data.test)):
        for reading in ("batch", "running"):
            expected = dict(zip(("loss", "accuracy"), loss_and_metric(model, part.x, part.y, reading), strict=True))
            assert result["final"][split][reading] == pytest.approx(expected, rel=1e-6)
    for spec, start in ((plain(start=ghosts.at()), others[2]), (plain(start=one.at(), ghost_batch_size=20), states[2])):
        assert same(trained(spec, start=start)[1][0], start)


def test_the_averaging_of_ghost_statistics_changes_the_running_averages_alone():
    one, states = trained(plain(ghost_batch_size=20))
    other, others = trained(plain(ghost_batch_size=20, ghost_averaging="mean"))
    differ = {k for k in states[2] if not torch.equal(states[2][k], others[2][k])}
    assert differ == {k for k in states[2] if "running" in k or "num_batches" in k}
    assert other["curve"] == one["curve"] and other["distance"] == one["distance"]
    assert all(other["final"][split]["batch"] == one["final"][split]["batch"] for split in ("train", "test"))
    assert other["final"]["test"]["running"] != one["final"]["test"]["running"]


def test_ghost_batches_in_bfloat16():
    """A relative error of 2^-9 an operation, as of batch norm."""
    half = train.fit(full_batch(3, precision="bfloat16", ghost_batch_size=32))
    single = train.fit(full_batch(3, ghost_batch_size=32))
    assert half["loss_at"]["1"] != single["loss_at"]["1"]
    assert half["curve"]["train_loss"] == pytest.approx(single["curve"]["train_loss"], rel=0.05)


# ---------------------------------------------------------------- divergence


def finite(value) -> bool:
    """No number in nested lists and dicts is infinite or not a number."""
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def test_a_run_that_diverges_ends_early_and_says_so():
    spec = digits_run(epochs=5, optimizer=sgd(learning_rate=1e12))
    result, states = trained(spec)
    assert result["diverged"] is True
    assert result["updates"] < spec.updates
    assert result["final"] == {} and finite(result["curve"])
    assert all(finite(v.tolist()) for state in states.values() for v in state.values())
    json.dumps(tidy(result), allow_nan=False)


@pytest.mark.parametrize("updates", [1, 2])
def test_a_run_whose_last_update_diverges_says_so_too(updates):
    """Every batch loss is finite, for each is taken before its update; the weights that are left are not."""
    result, states = trained(full_batch(updates, optimizer=sgd(learning_rate=1e38 if updates == 1 else 1e20)))
    assert result["diverged"] is True
    assert result["final"] == {} and finite(result["curve"])
    assert list(states) == [0]


def test_a_run_that_does_not_diverge_says_so():
    result = train.fit(full_batch(2))
    assert result["diverged"] is False and finite(result)


# ---------------------------------------------------------------- stopping, precision, augmentation


@pytest.mark.parametrize("make", [lambda: digits_run(128, epochs=5), lambda: convolutional(epochs=18)])
def test_stopping_early_gives_the_losses_of_the_full_run(make):
    full = train.fit(make())
    assert set(full["loss_at"]) == {"1", "10", "50"}
    assert train.fit(make(), stop_after=50) == {"loss_at": full["loss_at"]}
    assert train.fit(make(), stop_after=10) == {"loss_at": {k: full["loss_at"][k] for k in ("1", "10")}}


@pytest.mark.parametrize("make", [lambda: digits_run(128, epochs=5), lambda: convolutional(epochs=4)])
def test_a_run_for_its_weights_alone_is_the_same_run_without_its_evaluations(make, monkeypatch):
    full, states = trained(make())
    monkeypatch.setattr(train, "loss_and_metric", None)
    result, again = trained(make(), losses_only=True)
    assert result == {"loss_at": full["loss_at"]}
    assert again.keys() == states.keys()
    assert all(same(again[epoch], states[epoch]) for epoch in states)


def test_bfloat16_rounds_what_is_computed_and_not_the_weights():
    """Its 8 bits leave a relative error of 2^-9 an operation; seven layers of it stay below 5% of the loss."""
    half, states = trained(full_batch(3, precision="bfloat16"))
    single = train.fit(full_batch(3))
    assert half["loss_at"]["1"] != single["loss_at"]["1"]
    assert half["curve"]["train_loss"] == pytest.approx(single["curve"]["train_loss"], rel=0.05)
    assert {v.dtype for v in states[3].values() if v.is_floating_point()} == {torch.float32}


def test_augmentation_takes_no_random_number_from_elsewhere(monkeypatch):
    """One that draws and changes nothing leaves initialisation, order and dropout as they are without it."""
    shown, draws = [], []

    def idle(x, generator):
        shown.append(len(x))
        draws.append(torch.rand(1000, generator=generator))
        return x

    monkeypatch.setitem(augment.AUGMENTATIONS, "keskar", idle)
    augmented = DataSpec(name="digits", n_train=96, n_test=50, augment="keskar")
    plain, states = trained(convolutional())
    result, others = trained(convolutional(data=augmented))
    assert result == plain and same(states[2], others[2])
    assert shown == [40, 40, 16] * 2  # training batches alone, not the evaluations
    train.fit(convolutional(data=augmented, seed=1))
    assert len({tuple(d.tolist()) for d in draws}) == 12  # other numbers for each batch and for each seed


def test_augmentation_changes_what_is_trained_on():
    augmented = DataSpec(name="digits", n_train=96, n_test=50, augment="keskar")
    assert train.fit(full_batch(1, data=augmented))["loss_at"] != train.fit(full_batch(1))["loss_at"]


def test_a_last_batch_of_one_is_refused():
    """1438 = 3 x 479 + 1: batch norm has no statistics of one example."""
    with pytest.raises(ValueError, match="^batch_size is 479; with 1438 training examples the last batch has 1, "):
        train.fit(digits_run(479, epochs=1))


@pytest.mark.parametrize("field, sizes", [("n_train", (5001, 20)), ("n_test", (20, 5001))])
def test_an_evaluation_that_would_end_on_one_example_is_refused_before_the_run(monkeypatch, field, sizes):
    """5001 = 5000 + 1."""
    digits = load("digits", 20, 20)
    ends = [Split(digits.train.x[:1].expand(n, *digits.train.x.shape[1:]), digits.train.y[:1].expand(n)) for n in sizes]
    monkeypatch.setattr(train, "load_data", lambda *_: Data(*ends, digits.n_classes, digits.checksum))
    losses = []
    monkeypatch.setattr(train.Training, "_loss", lambda *_: losses.append(1))
    with pytest.raises(ValueError, match=f"^{field} is 5001; read in chunks of 5000 the last has 1, "):
        train.fit(digits_run(13, epochs=1))
    assert not losses


def test_held_out_examples_are_evaluated_like_a_split_of_their_own():
    states = []
    spec = digits_run(32, epochs=2, data=DataSpec(name="digits", n_train=96, n_test=50, n_validation=40))
    result = train.fit(spec, on_weights=lambda _, state: states.append(state))
    held_out = load("digits", 96, 50, n_validation=40).validation
    loss, accuracy = loss_and_metric(network(spec, states[-1]), held_out.x, held_out.y, "batch")
    assert result["final"]["validation"]["batch"] == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-6)
    assert result["curve"]["validation_accuracy"][-1] == pytest.approx(accuracy)
    assert len(result["curve"]["validation_accuracy"]) == 2
