"""What a job costs: operations against those counted by hand, and that more work costs more."""

import pytest
from conftest import digits_run, topics_run

from lbgap import cost
from lbgap.spec import DataSpec, Measure, OptimizerSpec, RobustSpec, Train

N_TRAIN, N_TEST = 1438, 359


def f1(n_in: int, width: int, n_out: int) -> tuple[int, int]:
    """Operations of F1 for one example, a multiplication and an addition each: forward; forward and backward.

    Backward, a layer's product is taken once more for its weights and once more for its input, except that the first
    layer's input needs no gradient.
    """
    first, others = 2 * n_in * width, 4 * 2 * width * width + 2 * width * n_out
    return first + others, 2 * first + 3 * others


def measured(kind: str = "sharpness", run: Train | None = None, **arguments) -> Measure:
    run = run or digits_run()
    return Measure(kind=kind, arguments=arguments, of=(run.at(),) * (2 if kind == "path" else 1))


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("width", [16, 100])
def test_training_costs_its_passes_and_its_evaluations(width):
    forward, both = f1(64, width, 10)
    run = digits_run(epochs=3, width=width)
    training = 3 * N_TRAIN * both
    # the test set after each epoch, and both sets in both readings of batch norm at the end
    evaluation = 3 * N_TEST * forward + 2 * (N_TRAIN + N_TEST) * forward
    assert cost.operations(run) == training + evaluation


def test_the_network_of_the_paper_on_mnist():
    forward, both = f1(784, 512, 10)
    data = DataSpec(name="mnist")
    run = Train(
        data=data,
        model="keskar.F1",
        optimizer=OptimizerSpec(name="adam", learning_rate=1e-3),
        batch_size=6000,
        updates=10,
        seed=0,
    )
    assert cost.operations(run) == 60_000 * both + forward * (10_000 + 2 * 70_000)


def test_convolutions_cost_a_product_for_every_pixel_and_channel():
    """C1 on 1x8x8: maps of 8x8, pooled to 4x4 and 2x2."""
    data = DataSpec(name="digits", n_train=100, n_test=50)
    one, two = (
        digits_run(data=data, batch_size=100, epochs=n, model="keskar.C1", options={}, evaluate_every=9) for n in (1, 2)
    )
    first = 2 * 64 * (25 * 1 * 64)
    others = 2 * 16 * (25 * 64 * 64) + 2 * (256 * 384 + 384 * 192 + 192 * 10)
    assert cost.operations(two) - cost.operations(one) == 100 * (2 * first + 3 * others)


def test_a_path_costs_a_forward_pass_over_both_sets_at_each_point():
    forward, _ = f1(64, 16, 10)
    assert cost.operations(measured("path", points=7)) == 7 * (N_TRAIN + N_TEST) * forward
    assert cost.operations(measured("path")) == 25 * (N_TRAIN + N_TEST) * forward


def test_sharpness_costs_at_least_a_gradient_at_the_solution_and_one_an_iteration():
    _, both = f1(64, 16, 10)
    for iterations in (1, 10, 50):
        passes = cost.operations(measured(iterations=iterations)) / (N_TRAIN * both)
        assert 1 + iterations <= passes < 1 + 2 * iterations


# ---------------------------------------------------------------- more work, more cost


@pytest.mark.parametrize(
    "less, more",
    [
        (digits_run(epochs=2), digits_run(epochs=3)),
        (digits_run(width=16), digits_run(width=17)),
        (digits_run(), digits_run(model="keskar.F2")),
        (digits_run(), digits_run(optimizer=OptimizerSpec(name="adam", learning_rate=1e-3, proximal=1e-3, inner_steps=3))),
        (digits_run(), digits_run(robust=RobustSpec(kind="stability", size=0.1, weight=0.5))),
        (digits_run(128), digits_run(16)),  # the same passes in more updates
        (digits_run(evaluate_every=3), digits_run()),
        (digits_run(data=DataSpec(name="digits", n_train=1000)), digits_run()),
        (measured(iterations=5), measured(iterations=10)),
        (measured(), measured(run=digits_run(width=32))),
        (measured("path", points=5), measured("path", points=25)),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_work_is_expected_to_take_longer(less, more, device):
    assert 0 < cost.seconds(less, device) < cost.seconds(more, device)


def test_a_measurement_does_not_cost_its_parents():
    assert cost.operations(measured(run=digits_run(epochs=50))) == cost.operations(measured(run=digits_run(epochs=1)))


def test_inner_steps_multiply_the_updates_alone():
    run = {"epochs": 3, "width": 16}
    three = OptimizerSpec(name="adam", learning_rate=1e-3, inner_steps=3)
    _, both = f1(64, 16, 10)
    extra = cost.operations(digits_run(**run, optimizer=three)) - cost.operations(digits_run(**run))
    assert extra == 2 * 3 * N_TRAIN * both


def test_a_repetition_for_weights_costs_the_passes_of_its_epochs():
    _, both = f1(64, 16, 10)
    run = digits_run(epochs=10)
    assert cost.operations(run, until=2) == 2 * N_TRAIN * both
    assert cost.operations(run, until=10) == 10 * N_TRAIN * both < cost.operations(run)
    assert cost.seconds(run, until=2) == pytest.approx(cost.seconds(run, until=10) / 5)


def test_counting_builds_nothing_in_memory():
    """C4 has 15 million weights; counted on the meta device, so also a width that no machine could hold."""
    run = digits_run(width=10_000_000)
    assert cost.operations(run) > 3 * N_TRAIN * 4 * 2 * 10**14


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.4, "0 s"),
        (40, "40 s"),
        (89, "89 s"),
        (90, "2 min"),
        (720, "12 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (12_600, "3.5 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert cost.in_words(seconds) == words


def test_a_measure_of_a_part_of_the_set_costs_that_part():
    forward, both = f1(64, 16, 10)
    run = digits_run()
    assert cost.operations(measured("m_sharpness", run, m=32, parts=8)) == 8 * 32 * (forward + both)
    assert cost.operations(measured("m_sharpness", run, m=32)) == N_TRAIN * (forward + both)
    assert cost.operations(measured("noise_scale", run, small=32, big=64, draws=5)) == 5 * 64 * both
    assert cost.operations(measured("sharpness", run, examples=100)) * N_TRAIN == pytest.approx(
        cost.operations(measured("sharpness", run)) * 100, rel=1e-6
    )


def test_an_update_of_a_text_reads_a_segment_of_each_stream():
    run = topics_run()
    assert cost.of_an_update(run) * run.updates_per_epoch == pytest.approx(cost.of_training(run, until=1), rel=0.05)
