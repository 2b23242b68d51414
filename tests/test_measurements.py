"""Every measurement as a job: arguments checked beforehand, and the numbers of the function that it names."""

import math

import pytest
import torch
from conftest import digits_run, topics_run

from lbgap import measure, measurements, models, train
from lbgap.data import load
from lbgap.jobs import execute
from lbgap.measurements import MEASUREMENTS, Measurement, Passes
from lbgap.spec import DataSpec, Measure
from lbgap.values import Frozen

RUN = digits_run(32, epochs=2, data=DataSpec(name="digits", n_train=200, n_test=50))


@pytest.fixture
def solution(cache):
    """The network of the run with its weights, its data, and the cache that holds them."""
    execute(RUN, cache)
    data = train.load_data(RUN)
    with torch.random.fork_rng():
        model = models.build(RUN.model, (1, 8, 8), 10, **RUN.options)
    model.load_state_dict(cache.get(RUN.at()))
    return model, data.train


@pytest.mark.parametrize("kind", [kind for kind, of in MEASUREMENTS.items() if of.of == 1 and of.on != "text"])
def test_a_job_gives_what_its_function_gives(kind, solution, cache):
    model, split = solution
    loss = measure.mean_cross_entropy(split.x, split.y)
    functions = {
        "sharpness": lambda: measure.sharpness(model, loss, epsilon=1e-2).as_dict(),
        "directions": lambda: measure.directions(model, loss, draws=2),
        "adaptive_sharpness": lambda: measure.adaptive_sharpness(model, loss, rho=1e-2),
        "eigenvalues": lambda: measure.largest_eigenvalues(model, loss, k=2),
        "m_sharpness": lambda: measure.m_sharpness(model, split.x, split.y, m=50),
        "noise_scale": lambda: measure.noise_scale(model, split.x, split.y, small=10, big=100),
    }
    arguments = {
        "sharpness": {"epsilon": 1e-2},
        "directions": {"draws": 2},
        "adaptive_sharpness": {"rho": 1e-2},
        "eigenvalues": {"k": 2},
        "m_sharpness": {"m": 50},
        "noise_scale": {"small": 10, "big": 100},
    }
    record = execute(Measure(kind=kind, arguments=arguments[kind], of=(RUN.at(),)), cache)
    expected = functions[kind]()
    assert set(record.results) == set(expected)
    for name, value in expected.items():
        if isinstance(value, float):
            assert float(record.results[name]) == pytest.approx(value, rel=1e-5)


def test_a_fixed_sample_stands_for_the_training_set(solution, cache):
    jobs = [Measure(kind="sharpness", arguments={"examples": n}, of=(RUN.at(),)) for n in (60, 60, 200)]
    first, again, whole = (execute(job, cache).results for job in jobs)
    assert first == again != whole
    assert whole == execute(Measure(kind="sharpness", of=(RUN.at(),)), cache).results
    with pytest.raises(ValueError, match="^examples is 201; this training set accepts 1 to 200$"):
        execute(Measure(kind="sharpness", arguments={"examples": 201}, of=(RUN.at(),)), cache)


SPOKEN = topics_run(4, data=DataSpec(name="topics", n_train=600, n_test=200), batch_size=5, updates=3)


def test_a_language_model_has_its_sharpness(cache):
    record = execute(SPOKEN, cache)
    sharp = execute(Measure(kind="sharpness", arguments={"iterations": 2}, of=(SPOKEN.at(),)), cache).results
    assert sharp["loss"] == pytest.approx(record.results["final"]["train"]["running"]["loss"], rel=1e-5)
    assert sharp["loss_max"] > sharp["loss"]
    for kind, arguments, sentence in (
        ("m_sharpness", {}, "^kind is 'm_sharpness', which draws examples; "),
        ("sharpness", {"examples": 10}, "^examples is 10; of a network trained on a text accepted is None$"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Measure(kind=kind, arguments=arguments, of=(SPOKEN.at(),))


def test_the_noise_of_a_language_model_is_that_of_its_segments(cache):
    """Against the gradient of every segment of 20 words, its mean cross entropy differentiated from no state."""
    execute(SPOKEN, cache)
    data = load("topics", 600, 200)
    model = models.build("smith.LSTM", (), data.n_classes, width=4, depth=1)
    model.load_state_dict(cache.get(SPOKEN.at()))
    gradients = []
    for start in range(0, 580, 20):
        words = data.train.x[start : start + 21]
        loss = torch.nn.functional.cross_entropy(model(words[None, :-1])[0][0], words[1:])
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(model.parameters()))]).double())
    rows = torch.stack(gradients)
    trace, mean, n = rows.var(0).sum(), rows.mean(0).square().sum(), len(rows)
    arguments = {"estimator": "two-batch", "small": 1, "big": n}
    found = execute(Measure(kind="noise_scale", arguments=arguments, of=(SPOKEN.at(),)), cache).results
    assert n == 29  # the last word of all has none after it
    assert found["trace"] == pytest.approx(float(trace), rel=1e-4)
    assert found["gradient_squared"] == pytest.approx(float(mean - trace / n), rel=1e-3)


def test_frequencies_of_words_are_measured_of_texts_alone(cache):
    """Against the definition, word by word."""
    execute(SPOKEN, cache)
    data = load("topics", 600, 200)
    train, test = data.train.x.tolist(), data.test.x.tolist()
    surprise = [-math.log((train.count(word) + 1) / (len(train) + data.n_classes)) for word in test]
    found = execute(Measure(kind="unigram", of=(SPOKEN.at(),)), cache).results["perplexity"]
    assert found == pytest.approx(math.exp(sum(surprise) / len(test)))
    with pytest.raises(ValueError, match="^kind is 'unigram'; accepted is a network trained on a text$"):
        Measure(kind="unigram", of=(RUN.at(0),))


class Nothing(Frozen):
    """No arguments."""


def test_a_measurement_of_ones_own_is_run_like_any_other(solution, cache, monkeypatch):
    model, _ = solution
    monkeypatch.setattr(measurements, "MEASUREMENTS", dict(MEASUREMENTS))

    def norm(of):
        return {"norm": math.sqrt(sum(float(p.detach().double().square().sum()) for p in of.model.parameters()))}

    measurements.register("norm", Measurement(norm, Nothing, lambda _: Passes()))
    record = execute(Measure(kind="norm", of=(RUN.at(),)), cache)
    flat = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    assert record.results["norm"] == pytest.approx(float(flat.norm()), rel=1e-5)
    with pytest.raises(ValueError, match="^kind is 'path', which is taken"):
        measurements.register("path", Measurement(norm, Nothing, lambda _: Passes()))


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        ("directions", {"batch_norm": "reestimated"}, "^batch_norm is 'reestimated'; accepted is 'batch' or 'running'"),
        ("noise_scale", {"estimator": "per-example", "batch_norm": "batch"}, "^batch_norm is 'batch', which ties "),
        ("noise_scale", {"small": 30, "big": 100}, "^big is 100; accepted is a multiple of small, 30, above it$"),
        ("noise_scale", {"small": 30, "big": 30}, "^big is 30; accepted is a multiple of small, 30, above it$"),
        ("m_sharpness", {"m": 201}, "^m is 201; this training set accepts 1 to 200$"),
        ("sharpness", {"examples": 201}, "^examples is 201; this training set accepts 1 to 200$"),
        ("sharpness", {"seed": 2**32}, "^seed is 4294967296; accepted is less than 4294967296$"),
    ],
)
def test_what_can_never_run_is_refused_before_anything_trains(kind, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Measure(kind=kind, arguments=arguments, of=(RUN.at(),))
