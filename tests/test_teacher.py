"""Bootstrapping: a run whose training labels another run's network predicts."""

import io

import pytest
import torch

from lbgap import data, models, sweep, train
from lbgap.jobs import Cache, execute
from lbgap.records import Store
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Train


def run(n_train: int = 300, seed: int = 0, **values) -> Train:
    """A small network on digits with batch norm and dropout, in which evaluation differs from training."""
    return Train(
        data=DataSpec(name="digits", n_train=n_train, label_noise=0.4),
        model="vienna.CNN",
        options={"padding": 1, "batch_norm": True},
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.05, momentum=0.9),
        batch_size=50,
        updates=12,
        seed=seed,
        **values,
    )


FIRST = run()
SECOND = run(seed=1, teacher=FIRST.at())


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Cache:
    cache = Cache(tmp_path_factory.mktemp("weights"))
    execute(FIRST, cache)
    return cache


def network(spec: Train, state) -> torch.nn.Module:
    """A run's network as it stands at the end, ready to predict."""
    with torch.random.fork_rng(devices=[]):
        model = models.build(spec.model, (1, 8, 8), 10, **spec.options)
    model.load_state_dict(state)
    return model.eval()


def test_it_is_trained_on_what_the_first_network_predicts(cache):
    """Its record's training accuracy is the share of its own predictions that are those of the first network."""
    states = {}
    results = train.fit(SECOND, teacher=cache.get(FIRST.at()), on_weights=states.__setitem__)
    x = data.load("digits", 300).train.x
    first, second = (network(of, state)(x).argmax(1) for of, state in ((FIRST, cache.get(FIRST.at())), (SECOND, states[2])))
    agreed = 100 * (first == second).float().mean()
    assert results["final"]["train"]["running"]["accuracy"] == pytest.approx(float(agreed))
    noisy = data.load("digits", 300, label_noise=0.4).train.y
    assert 0 < (first == noisy).float().mean() < 1  # or nothing would have been replaced


def test_only_the_labels_change(cache):
    """With the labels left as they were it is the run without a teacher: the same start, order and dropout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "relabelled", lambda given, *_: given)
        again = train.fit(SECOND, teacher=cache.get(FIRST.at()))
    assert again == train.fit(run(seed=1))
    assert again["loss_at"] != train.fit(SECOND, teacher=cache.get(FIRST.at()))["loss_at"]


def test_a_sweep_trains_the_teacher_first(tmp_path):
    store, cache = Store(tmp_path / "results"), Cache(tmp_path / "weights")
    outcome = sweep.complete([SECOND], store, cache, workers=0, progress=io.StringIO())
    assert (outcome.done, outcome.failed) == (2, {})
    assert store.get(SECOND).results == execute(SECOND, cache).results


def test_what_cannot_be_labelled_so_is_refused(cache):
    with pytest.raises(ValueError, match="^teacher was trained on digits; accepted is one trained on mnist$"):
        Train(**run().model_dump() | {"data": DataSpec(name="mnist"), "teacher": FIRST.at()})
    with pytest.raises(ValueError, match="^teacher is None; this spec needs weights of a teacher$"):
        train.fit(SECOND)
    with pytest.raises(ValueError, match="^teacher is given; this spec has no weights of a teacher$"):
        train.fit(FIRST, teacher={})
    with pytest.raises(ValueError, match="^of has a run that a teacher labelled; accepted are others, since"):
        Measure(kind="sharpness", of=(SECOND.at(),))
