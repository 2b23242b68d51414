"""The mistakes R1 to R4 of Goyal et al. 2017, section 3, and the right ways beside them, against loops written by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import digits_run

from lbgap import train
from lbgap.data import Split
from lbgap.optimizers import StepsSGD
from lbgap.spec import DataSpec, OptimizerSpec, Phase, Train
from lbgap.tasks import CLASSIFY

N, BATCH, SLICE = 120, 48, 12  # batches of 48, 48 and 24: four workers, the last time two
STEPS = (5, 0.02)  # the rate changes after so many updates


def run_of(**changes) -> Train:
    """Twelve updates of a small network without batch norm, with momentum and weight decay."""
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.05} | changes.pop("optimizer", {})
    return digits_run(
        BATCH,
        updates=12,
        data=DataSpec(name="digits", n_train=N, n_test=50),
        optimizer=OptimizerSpec(**optimizer),
        options={"width": 16, "batch_norm": False},
        phases=(Phase(update=STEPS[0], learning_rate=STEPS[1]),),
        slice_size=SLICE,
        **changes,
    )


def trained(spec: Train) -> torch.Tensor:
    """The weights that a run ends with, as one vector."""
    states = {}
    train.fit(spec, on_weights=states.__setitem__)
    return torch.cat([v.reshape(-1) for v in states[spec.epochs].values()])


def by_hand(loss_of, buffer: str = "gradients", shuffled_apart: bool = False) -> torch.Tensor:
    """The same run as a loop: ``loss_of(sums, counts)`` of the summed losses of each worker's examples."""
    spec = run_of()
    data, m, d = train.load_data(spec), 0.9, 0.05
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        model = train.initial_model(spec, data)
    order, parameters = train.data_order(spec), list(model.parameters())
    moving, last, done = [torch.zeros_like(p) for p in parameters], 0.1, 0
    while done < 12:
        shuffles = [torch.randperm(N, generator=order) for _ in range(4 if shuffled_apart else 1)]
        for start in range(0, N, BATCH):
            size = min(BATCH, N - start)
            if shuffled_apart:
                parts = [own[start // 4 : start // 4 + SLICE] for own in shuffles[: size // SLICE]]
            else:
                parts = shuffles[0][start : start + size].split(SLICE)
            sums = [F.cross_entropy(model(data.train.x[i]), data.train.y[i], reduction="sum") for i in parts]
            gradients = torch.autograd.grad(loss_of(torch.stack(sums), [len(i) for i in parts]), parameters)
            rate = 0.1 if done < STEPS[0] else STEPS[1]
            with torch.no_grad():
                for p, g, v in zip(parameters, gradients, moving, strict=True):
                    g = g + d * p
                    if buffer == "gradients":
                        v.copy_(m * v + g)
                        p.sub_(rate * v)
                    else:
                        v.copy_((rate / last if buffer == "corrected steps" else 1) * m * v + rate * g)
                        p.sub_(v)
            last, done = rate, done + 1
    return torch.cat([p.detach().reshape(-1) for p in parameters])


def mean(sums, counts):
    """The loss that is meant."""
    return sums.sum() / sum(counts)


WAYS = {
    "right": ({}, {"loss_of": mean}),
    "R1": ({"optimizer": {"loss_scale": 3.0}}, {"loss_of": lambda sums, counts: 3 * mean(sums, counts)}),
    "R2": ({"optimizer": {"momentum_buffer": "steps"}}, {"loss_of": mean, "buffer": "steps"}),
    "R2, corrected": ({"optimizer": {"momentum_buffer": "corrected steps"}}, {"loss_of": mean, "buffer": "corrected steps"}),
    "R3": ({"normalised_by": "slice"}, {"loss_of": lambda sums, counts: sums.sum() / SLICE}),
    "R4": ({"shuffling": "each slice"}, {"loss_of": mean, "shuffled_apart": True}),
}


@pytest.fixture(scope="module")
def loops() -> dict[str, torch.Tensor]:
    """Where the loop written by hand ends, either way."""
    return {name: by_hand(**way) for name, (_, way) in WAYS.items()}


@pytest.mark.parametrize("name", WAYS)
def test_a_run_is_its_loop_written_by_hand_and_none_of_the_others(name, loops):
    found = trained(run_of(**WAYS[name][0]))
    near = {other for other, expected in loops.items() if torch.allclose(found, expected, rtol=0, atol=1e-5)}
    assert near == ({"right", "R2, corrected"} if name in ("right", "R2, corrected") else {name})


def test_the_recorded_loss_is_that_of_the_data_whatever_is_done_with_it():
    plain, *others = (train.fit(run_of(**changes), stop_after=1)["loss_at"]["1"] for changes, _ in list(WAYS.values())[:5])
    assert all(loss == plain for loss in others)


# ---------------------------------------------------------------- R1


def test_a_scaled_loss_is_a_scaled_rate_with_the_decay_left_behind():
    """eta (k g + d w) = k eta (g + d / k w): scaling by k loses all but a k-th of the decay."""
    phases = {"phases": (Phase(update=5, learning_rate=0.01),)}
    scaled = run_of(optimizer={"learning_rate": 0.02, "loss_scale": 4.0}).model_copy(update=phases)
    phases = {"phases": (Phase(update=5, learning_rate=0.04),)}
    rate = run_of(optimizer={"learning_rate": 0.08, "weight_decay": 0.05 / 4}).model_copy(update=phases)
    meant = run_of(optimizer={"learning_rate": 0.08}).model_copy(update=phases)
    torch.testing.assert_close(trained(scaled), trained(rate), rtol=0, atol=1e-5)
    assert (trained(scaled) - trained(meant)).abs().max() > 1e-3


# ---------------------------------------------------------------- R2


def steps_of(optimizer, p, rates, gradients) -> list[float]:
    """How far a weight goes at each update."""
    out = []
    for rate, g in zip(rates, gradients, strict=True):
        before = p.item()
        optimizer.param_groups[0]["lr"], p.grad = rate, torch.full_like(p, g)
        optimizer.step()
        out.append(before - p.item())
    return out


def test_steps_by_hand_when_the_rate_falls_to_a_tenth():
    """Gradient 1, momentum 0.5: v = 1, 1.5, then 0.75 + 0.1 without, 0.075 + 0.1 with the correction."""
    for corrected, expected in ((False, [1.0, 1.5, 0.85, 0.525]), (True, [1.0, 1.5, 0.175, 0.1875])):
        p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        sgd = StepsSGD([p], 1.0, momentum=0.5, weight_decay=0.0, nesterov=False, corrected=corrected)
        assert steps_of(sgd, p, [1.0, 1.0, 0.1, 0.1], [1.0] * 4) == pytest.approx(expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_corrected_steps_are_torchs_own_form_under_any_schedule(nesterov, rng):
    rates, gradients = rng.uniform(0.01, 1, 30).tolist(), rng.normal(size=30).tolist()
    ours, theirs = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    common = {"momentum": 0.9, "weight_decay": 0.1, "nesterov": nesterov}
    expected = steps_of(torch.optim.SGD([theirs], 1.0, **common), theirs, rates, gradients)
    assert steps_of(StepsSGD([ours], 1.0, corrected=True, **common), ours, rates, gradients) == pytest.approx(expected)
    ours = torch.ones(1, dtype=torch.float64, requires_grad=True)
    uncorrected = steps_of(StepsSGD([ours], 1.0, corrected=False, **common), ours, rates, gradients)
    assert uncorrected[0] == pytest.approx(expected[0]) and uncorrected[1:] != pytest.approx(expected[1:], rel=0.01)


def test_a_closure_is_called_for_its_loss_before_the_step():
    p = torch.ones(1, requires_grad=True)
    sgd = StepsSGD([p], 0.1, momentum=0.9, weight_decay=0.0, nesterov=False, corrected=False)

    def closure():
        sgd.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert sgd.step(closure).item() == 1.0
    assert p.item() == pytest.approx(0.8)


def test_a_rate_that_begins_at_zero_is_corrected_by_nothing():
    """A warmup from 0: there is no step yet that could be corrected."""
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    sgd = StepsSGD([p], 0.0, momentum=0.5, weight_decay=0.0, nesterov=False, corrected=True)
    assert steps_of(sgd, p, [0.0, 0.5, 1.0], [1.0] * 3) == pytest.approx([0.0, 0.5, 1.5])


# ---------------------------------------------------------------- R4


def examples(n: int) -> Split:
    """Examples whose input is their place."""
    return Split(torch.arange(n), torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize("n", [96, 101, 50])
def test_one_shuffle_meets_every_example_once_and_its_slices_are_the_workers(n):
    batches = CLASSIFY.epoch(examples(n), 32, torch.Generator().manual_seed(3))
    assert sorted(torch.cat(batches).tolist()) == list(range(n))


@pytest.mark.parametrize("n", [96, 101, 50])
def test_workers_that_shuffle_on_their_own_never_repeat_themselves_but_each_other(n):
    together = CLASSIFY.epoch(examples(n), 32, torch.Generator().manual_seed(3))
    batches = CLASSIFY.epoch(examples(n), 32, torch.Generator().manual_seed(3), 8)
    assert [len(batch) for batch in batches] == [len(batch) for batch in together]
    assert len(set(torch.cat(batches).tolist())) < n
    for place in range(4):
        own = torch.cat([batch[8 * place : 8 * place + 8] for batch in batches]).tolist()
        assert len(own) == len(set(own))


def test_workers_that_shuffle_on_their_own_miss_examples_as_independent_draws_do():
    """Each of k = 4 workers meets a quarter: (3/4)^4 of the examples are met by none."""
    generator, n, epochs = torch.Generator().manual_seed(3), 400, 100
    met = [set(torch.cat(CLASSIFY.epoch(examples(n), 40, generator, 10)).tolist()) for _ in range(epochs)]
    share = sum(n - len(of) for of in met) / (n * epochs)
    assert share == pytest.approx(0.75**4, abs=5 * math.sqrt(0.75**4 * (1 - 0.75**4) / (n * epochs)))


# ---------------------------------------------------------------- words


def test_a_run_says_its_mistakes():
    assert run_of().mistakes == run_of(optimizer={"momentum_buffer": "corrected steps"}).mistakes == ()
    of = run_of(
        optimizer={"loss_scale": 4.0, "momentum_buffer": "steps"}, normalised_by="slice", shuffling="each slice"
    ).mistakes
    assert of == (
        "the loss times 4 in place of the rate",
        "momentum of steps, not corrected when the rate changes",
        "each of 4 workers divides its gradient by its own 12",
        "each of 4 workers shuffles on its own",
    )
