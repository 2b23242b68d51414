"""Specs: what the key depends on and what it does not, what is refused and in which words."""

import contextlib
import hashlib
import json
import pickle
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import digits_run

from lbgap import papers, spec
from lbgap.measurements import MEASUREMENTS
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Phase, RobustSpec, SamSpec, Train, Warmup, Weights, job_from_json
from lbgap.values import same_code

# The canonical JSON of a small run and of a measurement on it, written by hand from the rule in spec.py: keys sorted, no
# blanks, defaults left out, parents inside. The two keys are the first 16 digits of their SHA-256, computed once. A change of
# either would orphan every committed record, so it must be a decision, not an accident.
RUN_JSON = (
    '{"batch_size":128,"data":{"name":"digits"},"model":"keskar.F1","optimizer":{"learning_rate":0.001,"name":"adam"},'
    '"options":{"width":16},"seed":0,"semantics":1,"updates":36}'
)
RUN_KEY = "1c938852af27dfa3"
MEASURE_JSON = '{"arguments":{"epsilon":0.001},"kind":"sharpness","of":[{"epoch":3,"run":' + RUN_JSON + '}],"semantics":1}'
MEASURE_KEY = "8a2e813ed6a3e42b"

ROBUST = RobustSpec(kind="adversarial", size=0.25, weight=0.5)
# One other value for every field of a run; each must change the key.
CHANGES = {
    "data.name": {"data": DataSpec(name="mnist")},
    "data.n_train": {"data": DataSpec(name="digits", n_train=1000)},
    "data.subset": {"data": DataSpec(name="digits", n_train=1000, subset=1)},
    "data.n_validation": {"data": DataSpec(name="digits", n_train=1000, n_validation=100)},
    "data.label_noise": {"data": DataSpec(name="digits", label_noise=0.4)},
    "data.n_test": {"data": DataSpec(name="digits", n_test=100)},
    "data.augment": {"data": DataSpec(name="digits", augment="keskar")},
    "model": {"model": "keskar.F2"},
    "options": {"options": {"width": 17}},
    "optimizer.name": {"optimizer": OptimizerSpec(name="sgd", learning_rate=1e-3)},
    "optimizer.learning_rate": {"optimizer": OptimizerSpec(name="adam", learning_rate=1.0000001e-3)},
    "optimizer.momentum": {"optimizer": OptimizerSpec(name="sgd", learning_rate=1e-3, momentum=0.9)},
    "optimizer.weight_decay": {"optimizer": OptimizerSpec(name="adam", learning_rate=1e-3, weight_decay=1e-4)},
    "optimizer.proximal": {"optimizer": OptimizerSpec(name="adam", learning_rate=1e-3, proximal=1e-3, inner_steps=2)},
    "optimizer.inner_steps": {"optimizer": OptimizerSpec(name="adam", learning_rate=1e-3, inner_steps=2)},
    "optimizer.clip_norm": {"optimizer": OptimizerSpec(name="adam", learning_rate=1e-3, clip_norm=0.1)},
    "optimizer.fresh_each_epoch": {"optimizer": OptimizerSpec(name="adam", learning_rate=1e-3, fresh_each_epoch=True)},
    "optimizer.nesterov": {"optimizer": OptimizerSpec(name="sgd", learning_rate=1e-3, momentum=0.9, nesterov=True)},
    "optimizer.decay_exempt": {"optimizer": OptimizerSpec(name="adam", learning_rate=1e-3, decay_exempt="norms")},
    "optimizer.loss_scale": {"optimizer": OptimizerSpec(name="sgd", learning_rate=1e-3, loss_scale=2.0)},
    "optimizer.momentum_buffer": {
        "optimizer": OptimizerSpec(name="sgd", learning_rate=1e-3, momentum=0.9, momentum_buffer="steps")
    },
    "batch_size": {"batch_size": 129},
    "updates": {"updates": 37},
    "seed": {"seed": 1},
    "data_seed": {"data_seed": 1},
    "precision": {"precision": "bfloat16"},
    "evaluate_every": {"evaluate_every": 2},
    "start": {"start": digits_run(seed=9).at(1)},
    "teacher": {"teacher": digits_run(seed=9).at(1)},
    "start's seed": {"start": digits_run(seed=8).at(1)},
    "start's epoch": {"start": digits_run(seed=9).at(2)},
    "phases": {"phases": (Phase(update=12),)},
    "phases.update": {"phases": (Phase(update=13),)},
    "phases.learning_rate": {"phases": (Phase(update=12, learning_rate=1e-3),)},
    "phases.weight_decay": {"phases": (Phase(update=12, weight_decay=0.0),)},
    "phases' number": {"phases": (Phase(update=12), Phase(update=13))},
    "ghost_batch_size": {"ghost_batch_size": 128},
    "ghost_averaging": {"ghost_averaging": "mean"},
    "curve_reading": {"curve_reading": "running"},
    "layers": {"layers": True},
    "robust": {"robust": ROBUST},
    "robust.kind": {"robust": RobustSpec(kind="stability", size=0.25, weight=0.5)},
    "robust.size": {"robust": RobustSpec(kind="adversarial", size=0.26, weight=0.5)},
    "robust.weight": {"robust": RobustSpec(kind="adversarial", size=0.25, weight=1.0)},
    "warmup": {"warmup": Warmup(updates=12, start=0.1)},
    "warmup.updates": {"warmup": Warmup(updates=13, start=0.1)},
    "warmup.start": {"warmup": Warmup(updates=12, start=0.0)},
    "annealing": {"annealing": "cosine"},
    "slice_size": {"slice_size": 64},
    "normalised_by": {"slice_size": 64, "normalised_by": "slice"},
    "shuffling": {"slice_size": 64, "shuffling": "each slice"},
    "sam": {"sam": SamSpec(rho=0.05)},
    "sam.rho": {"sam": SamSpec(rho=0.1)},
    "sam.norm": {"sam": SamSpec(rho=0.05, norm="inf")},
    "sam.adaptive": {"sam": SamSpec(rho=0.05, adaptive=True)},
    "sam.ascents": {"sam": SamSpec(rho=0.05, ascents=2)},
    "sam.averages": {"sam": SamSpec(rho=0.05, averages="last")},
    "sam.inference_mode": {"sam": SamSpec(rho=0.05, inference_mode="ascent", averages="last")},
    "sam.decay_ascends": {"sam": SamSpec(rho=0.05, decay_ascends=True)},
    "semantics": {"semantics": 1000},
}


def measure(**changes) -> Measure:
    """Sharpness at the end of the small run."""
    return Measure(
        **{"kind": "sharpness", "arguments": {"epsilon": 1e-3}, "of": (digits_run().at(),), "semantics": 1} | changes
    )


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("job", "text", "key"), [(digits_run(semantics=1), RUN_JSON, RUN_KEY), (measure(), MEASURE_JSON, MEASURE_KEY)]
)
def test_the_key_of_a_known_job_never_changes(job, text, key):
    assert job.canonical() == json.loads(text)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == key
    assert job.key == key


def test_the_key_does_not_depend_on_the_order_of_fields(rng):
    values = {
        "data": {"name": "digits", "n_train": 1000, "augment": "keskar"},
        "model": "keskar.F1",
        "options": {"width": 16, "batch_norm": False},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        "batch_size": 100,
        "updates": 50,
        "seed": 3,
    }

    def shuffled(value):
        if not isinstance(value, dict):
            return value
        names = list(value)
        return {names[i]: shuffled(value[names[i]]) for i in rng.permutation(len(names))}

    jobs = [Train(**shuffled(values)) for _ in range(10)]
    assert len({job.key for job in jobs}) == 1
    assert len(set(jobs)) == 1
    arguments = {"epsilon": 1e-3, "space": "random", "p": 10}
    assert len({measure(arguments=shuffled(arguments)).key for _ in range(10)}) == 1


def _explicit_defaults(cls) -> list[tuple[str, object]]:
    return [
        (name, field.get_default(call_default_factory=True))
        for name, field in cls.model_fields.items()
        if not field.is_required() and name != "semantics"  # its default stands for "older than the number itself"
    ]


@pytest.mark.parametrize("cls", [DataSpec, OptimizerSpec, Phase, Train, Measure])
def test_the_key_does_not_depend_on_defaults_being_written_out(cls):
    base = {
        DataSpec: {"name": "digits"},
        OptimizerSpec: {"name": "adam", "learning_rate": 0.1},
        Phase: {"update": 12},
        Train: {
            "data": DataSpec(name="digits"),
            "model": "keskar.F1",
            "optimizer": OptimizerSpec(name="adam", learning_rate=0.1),
            "batch_size": 100,
            "updates": 50,
            "seed": 3,
        },
        Measure: {"kind": "sharpness", "of": (digits_run().at(),)},
    }[cls]
    plain, defaults = cls(**base), _explicit_defaults(cls)
    assert defaults
    for name, value in defaults:
        written = cls(**base, **{name: value})
        assert written.key == plain.key, name
        assert written == plain


def test_a_new_field_at_its_default_keeps_the_key():
    class Longer(OptimizerSpec):
        nesterov: bool = False

    values = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}
    assert Longer(**values).key == OptimizerSpec(**values).key
    assert Longer(**values, nesterov=True).key != OptimizerSpec(**values).key


def test_every_field_of_a_run_changes_its_key():
    keys = {name: digits_run(**change).key for name, change in CHANGES.items()} | {"unchanged": digits_run().key}
    assert len(set(keys.values())) == len(keys)
    named = {name.split(".")[0].split("'")[0] for name in CHANGES}
    assert named == set(Train.model_fields) - {"kind"}, "a new field needs a line in CHANGES"
    for outer, cls in (
        ("data", DataSpec),
        ("optimizer", OptimizerSpec),
        ("phases", Phase),
        ("warmup", Warmup),
        ("sam", SamSpec),
    ):
        assert {name.partition(".")[2] for name in CHANGES if name.startswith(f"{outer}.")} == set(cls.model_fields)


def test_a_measurement_is_keyed_by_its_parents_and_their_order():
    one, two = digits_run(seed=0), digits_run(seed=1)
    keys = [
        measure().key,
        measure(arguments={"epsilon": 5e-4}).key,
        measure(arguments={"epsilon": 1e-3, "p": 100}).key,
        measure(kind="directions").key,
        measure(of=(one.at(2),)).key,
        measure(of=(two.at(),)).key,
        measure(kind="path", arguments={}, of=(one.at(), two.at())).key,
        measure(kind="path", arguments={}, of=(two.at(), one.at())).key,
        measure(of=(digits_run(start=two.at()).at(),)).key,
        measure(semantics=2).key,
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("job", [digits_run(), Measure(kind="sharpness", of=(digits_run().at(),))])
def test_raising_the_semantics_gives_new_jobs_new_keys_and_leaves_old_records_theirs(job, monkeypatch):
    old, text = job.key, json.dumps(job.canonical())
    if job.kind == "train":
        monkeypatch.setattr(spec, "SEMANTICS", spec.SEMANTICS + 1)
    else:
        known = MEASUREMENTS[job.kind]
        monkeypatch.setitem(MEASUREMENTS, job.kind, replace(known, semantics=known.semantics + 1))
    fresh = digits_run() if job.kind == "train" else Measure(kind="sharpness", of=(digits_run().at(),))
    assert fresh.key != old
    assert job_from_json(json.loads(text)).key == old


def test_raising_the_semantics_of_training_changes_what_is_measured_on_it(monkeypatch):
    before = Measure(kind="sharpness", of=(digits_run().at(),)).key
    monkeypatch.setattr(spec, "SEMANTICS", spec.SEMANTICS + 1)
    assert Measure(kind="sharpness", of=(digits_run().at(),)).key != before


def test_jobs_survive_json_and_pickle(rng):
    """Random jobs, warm starts and measurements among them: the same value and key after the way through text."""
    previous: list[Train] = []
    width = int(rng.integers(1, 99))  # weights go into networks of the same shape alone
    for _ in range(25):
        start = previous[rng.integers(len(previous))].at(1) if previous and rng.random() < 0.5 else None
        boundaries = np.sort(rng.choice(np.arange(1, 50), size=int(rng.integers(0, 4)), replace=False)).tolist()
        run = digits_run(
            batch_size=int(rng.integers(1, 1438)),
            seed=int(rng.integers(1000)),
            epochs=int(rng.integers(1, 6)),
            width=width,
            start=start,
            data=DataSpec(name="digits", n_test=int(rng.integers(1, 359))),
            optimizer=OptimizerSpec(name="sgd", learning_rate=float(rng.random() + 1e-9), momentum=float(rng.random())),
            phases=[Phase(update=u, learning_rate=float(rng.random() + 1e-9)) for u in boundaries],
        )
        previous.append(run)
        of = tuple(r.at() for r in (run, previous[-2:][0]))
        plot = Measure(kind="path", arguments={"low": float(-rng.random()), "points": int(rng.integers(2, 9))}, of=of)
        for job in (run, plot):
            again = job_from_json(json.loads(json.dumps(job.canonical())))
            assert again == job
            assert again.key == job.key
            assert again.canonical() == job.canonical()
            assert pickle.loads(pickle.dumps(job)).key == job.key


def test_types_of_options_survive_json():
    """1, 1.0, True and "1" are four options; JSON keeps them apart, and so must the key."""
    runs = [digits_run(options={"width": value}) for value in (1, 1.0, True, "1")]
    again = [job_from_json(json.loads(json.dumps(run.canonical()))) for run in runs]
    assert [type(run.options["width"]) for run in again] == [int, float, bool, str]
    assert len({run.key for run in again}) == 4


# ---------------------------------------------------------------- values


def test_a_spec_cannot_be_changed():
    run = digits_run()
    key = run.key
    for change in (
        lambda: setattr(run, "seed", 5),
        lambda: setattr(run.optimizer, "learning_rate", 1.0),
        lambda: delattr(run, "seed"),
        lambda: setattr(run, "anything", 1),
    ):
        with pytest.raises(ValueError):
            change()
    assert digits_run().canonical() == run.canonical()
    assert run.key == key


@pytest.mark.parametrize("field, name", [("options", "width"), ("arguments", "p")])
def test_a_spec_cannot_be_changed_through_its_dictionaries(field, name):
    given = {name: 16}
    job = digits_run(options=given) if field == "options" else measure(arguments=given)
    before = job.canonical()
    given[name] = 99
    assert job.canonical() == before
    with contextlib.suppress(TypeError):
        getattr(job, field)[name] = 99
    assert job.canonical() == before


def test_a_changed_copy_has_the_key_of_the_same_spec_built_anew():
    for run in (digits_run(), digits_run(seed=5)):
        assert run.key  # computed once, and kept
        copy = run.model_copy(update={"seed": 5})
        assert copy.key == digits_run(seed=5).key
    assert digits_run().model_copy(update={"seed": 5}) != digits_run()


def test_equality_is_of_type_and_value():
    assert {digits_run(), digits_run(), digits_run(seed=1)} == {digits_run(seed=1), digits_run()}
    assert digits_run() != digits_run().canonical()
    assert digits_run() != "digits"

    class Twin(OptimizerSpec):
        pass

    values = {"name": "sgd", "learning_rate": 0.1}
    assert Twin(**values) != OptimizerSpec(**values)


def test_epochs_and_updates_are_those_of_a_counted_loop(rng):
    for _ in range(30):
        n, epochs = int(rng.integers(1, 1438)), int(rng.integers(1, 5))
        batch = int(rng.integers(1, n + 1))
        counted = sum(1 for _ in range(epochs) for _ in range(0, n, batch))
        data = DataSpec(name="digits", n_train=n)
        run = digits_run(batch, data=data, updates=counted)
        assert run.updates_per_epoch == len(range(0, n, batch))
        assert run.epochs == epochs
        assert digits_run(batch, data=data, updates=counted + 1).epochs == epochs + 1


def test_phases_are_the_same_as_values_and_as_dictionaries():
    """As a paper's YAML file has them; whole numbers are no other learning rates than the same with a point."""
    written = [{"update": 3, "learning_rate": 1}, {"update": 7, "weight_decay": 0}]
    run = digits_run(phases=written)
    assert run == digits_run(phases=(Phase(update=3, learning_rate=1.0), Phase(update=7, weight_decay=0.0)))
    assert [(p.update, p.learning_rate, p.weight_decay) for p in run.phases] == [(3, 1.0, None), (7, None, 0.0)]
    assert run.canonical()["phases"] == written


def test_a_ghost_batch_may_be_as_large_as_the_batch():
    assert digits_run(ghost_batch_size=128).ghost_batch_size == 128
    assert digits_run(batch_size=1, updates=5, ghost_batch_size=1).ghost_batch_size == 1


def test_weights_are_named_by_run_and_epoch():
    run = digits_run(epochs=3)
    assert [run.at(e).epoch for e in (0, 1, 3, None)] == [0, 1, 3, 3]
    assert run.at().run == run
    assert run.parents == ()
    assert digits_run(seed=1, start=run.at(2)).parents == (run.at(2),)
    assert measure(kind="path", arguments={}, of=(run.at(1), run.at(2))).parents == (run.at(1), run.at(2))
    assert DataSpec(name="digits").size == 1438
    assert DataSpec(name="digits", n_train=7).size == 7


# ---------------------------------------------------------------- what is refused

ADAM = {"name": "adam", "learning_rate": 1e-3}
SGD = {"name": "sgd", "learning_rate": 1}
REFUSED = [
    # builder, parameter, value, something that is accepted
    (lambda: DataSpec(name="digit"), "data", "'digit'", "digits, digits.inputs, mnist"),
    (lambda: DataSpec(name="digits", n_train=1439), "n_train", "1439", "1 to 1438"),
    (lambda: DataSpec(name="digits", n_test=360), "n_test", "360", "1 to 359"),
    (lambda: DataSpec(name="digits", n_train=0), "n_train", "0", "1"),
    (lambda: DataSpec(name="digits", subset=2), "subset", "2", "0"),
    (lambda: DataSpec(name="digits", n_validation=2), "n_validation", "2", "none"),
    (lambda: DataSpec(name="digits", n_train=1000, n_validation=439), "n_validation", "439", "1 to 438"),
    (lambda: DataSpec(name="digits", n_train=10.5), "n_train", "10.5", "integer"),
    (lambda: DataSpec(name="digits", augment="flip"), "augment", "'flip'", "'keskar'"),
    (lambda: OptimizerSpec(name="adan", learning_rate=1.0), "name", "'adan'", "'adam', 'adamw' or 'sgd'"),
    (lambda: OptimizerSpec(name="adam", learning_rate=0), "learning_rate", "0", "greater than 0"),
    (lambda: OptimizerSpec(name="adam", learning_rate=float("nan")), "learning_rate", "nan", "finite"),
    (lambda: OptimizerSpec(name="adam", learning_rate="fast"), "learning_rate", "'fast'", "number"),
    (lambda: OptimizerSpec(name="sgd", learning_rate=1, momentum=1), "momentum", "1", "less than 1"),
    (lambda: OptimizerSpec(**ADAM, weight_decay=-1e-4), "weight_decay", "-0.0001", "0"),
    (lambda: OptimizerSpec(**ADAM, weight_decay=float("inf")), "weight_decay", "inf", "finite"),
    (lambda: OptimizerSpec(**ADAM, proximal=float("inf")), "proximal", "inf", "finite"),
    (lambda: OptimizerSpec(**ADAM, inner_steps=0), "inner_steps", "0", "1"),
    (lambda: OptimizerSpec(**ADAM, clip_norm=-0.1), "clip_norm", "-0.1", "0"),
    (lambda: OptimizerSpec(**ADAM, clip_norm=float("inf")), "clip_norm", "inf", "finite"),
    (lambda: OptimizerSpec(**ADAM, fresh_each_epoch="often"), "fresh_each_epoch", "'often'", "boolean"),
    (lambda: OptimizerSpec(name="adam"), "learning_rate", "missing", "OptimizerSpec"),
    (lambda: OptimizerSpec(**ADAM, lr=1), "lr", "not known", "learning_rate"),
    (lambda: digits_run(batch_size=1439, updates=5), "batch_size", "1439", "1 to 1438"),
    (lambda: digits_run(updates=5, data=DataSpec(name="digits", n_train=100)), "batch_size", "128", "1 to 100"),
    (lambda: digits_run(updates=0), "updates", "0", "1"),
    (lambda: digits_run(updates=1.5), "updates", "1.5", "integer"),
    (lambda: digits_run(seed=-1), "seed", "-1", "0"),
    (lambda: digits_run(seed=True), "seed", "True", "no truth value"),
    (lambda: digits_run(precision="float16"), "precision", "'float16'", "'float32' or 'bfloat16'"),
    (lambda: digits_run(epoch=3), "epoch", "not known", "updates"),
    (lambda: digits_run(optimizer={"name": "adam", "learning_rate": -1}), "learning_rate", "-1", "greater than 0"),
    (lambda: digits_run(ghost_batch_size=129), "ghost_batch_size", "129", "1 to 128"),
    (lambda: digits_run(ghost_batch_size=0), "ghost_batch_size", "0", "1"),
    (lambda: digits_run(ghost_batch_size=64.5), "ghost_batch_size", "64.5", "integer"),
    (lambda: digits_run(ghost_averaging="median"), "ghost_averaging", "'median'", "'sequential' or 'mean'"),
    (lambda: digits_run(curve_reading="reestimated"), "curve_reading", "'reestimated'", "'batch' or 'running'"),
    (lambda: digits_run(layers="all"), "layers", "'all'", "boolean"),
    (lambda: RobustSpec(kind="robust", size=0.25, weight=0.5), "kind", "'robust'", "'adversarial' or 'stability'"),
    (lambda: RobustSpec(kind="stability", size=0.0, weight=0.5), "size", "0.0", "0"),
    (lambda: RobustSpec(kind="stability", size=0.1, weight=1.5), "weight", "1.5", "1"),
    (lambda: digits_run(phases=(Phase(update=5), Phase(update=3))), "phases", "5, 3", "increasing"),
    (lambda: digits_run(phases=(Phase(update=3), Phase(update=3))), "phases", "3, 3", "increasing"),
    (lambda: Phase(update=0), "update", "0", "1"),
    (lambda: Phase(update=2.5), "update", "2.5", "integer"),
    (lambda: Phase(update=1, learning_rate=0.0), "learning_rate", "0.0", "greater than 0"),
    (lambda: Phase(update=1, weight_decay=-1e-4), "weight_decay", "-0.0001", "0"),
    (lambda: Phase(update=1, momentum=0.9), "momentum", "not known", "learning_rate, weight_decay"),
    (lambda: Phase(learning_rate=0.1), "update", "missing", "Phase"),
    (lambda: digits_run(phases=[{"update": 3, "learning_rate": -1}]), "learning_rate", "-1", "greater than 0"),
    (lambda: digits_run(epochs=3).at(4), "epoch", "4", "0 to 3"),
    (lambda: Weights(run=digits_run(), epoch=-1), "epoch", "-1", "0"),
    (lambda: OptimizerSpec(**ADAM, momentum=0.9), "momentum", "0.9", "0"),
    (lambda: OptimizerSpec(**SGD, nesterov=True), "nesterov", "True", "momentum above 0"),
    (lambda: OptimizerSpec(**ADAM, proximal=1e-3), "inner_steps", "1", "2 or more"),
    (lambda: OptimizerSpec(**ADAM, decay_exempt="all"), "decay_exempt", "'all'", "'norms'"),
    (lambda: OptimizerSpec(**ADAM, loss_scale=2), "loss_scale", "2", "1"),
    (lambda: OptimizerSpec(**SGD, loss_scale=0), "loss_scale", "0", "greater than 0"),
    (lambda: OptimizerSpec(**SGD, momentum_buffer="steps"), "momentum_buffer", "'steps'", "momentum above 0"),
    (lambda: digits_run(normalised_by="slice"), "normalised_by", "'slice'", "'batch'"),
    (lambda: digits_run(slice_size=128, shuffling="each slice"), "shuffling", "'each slice'", "'once'"),
    (lambda: SamSpec(rho=-0.1), "rho", "-0.1", "0"),
    (lambda: SamSpec(rho=0.1, norm="1"), "norm", "'1'", "'2' or 'inf'"),
    (lambda: SamSpec(rho=0.1, ascents=0), "ascents", "0", "1"),
    (lambda: digits_run(slice_size=129), "slice_size", "129", "1 to the batch's 128"),
    (lambda: digits_run(slice_size=32, ghost_batch_size=32), "slice_size", "32", "none beside ghost_batch_size"),
    (lambda: digits_run(sam=SamSpec(rho=0.1), robust=ROBUST), "sam", "given", "none"),
    (lambda: digits_run(warmup=Warmup(updates=37, start=0.1)), "warmup.updates", "37", "1 to the budget's 36"),
    (lambda: Warmup(updates=5, start=1.0), "start", "1.0", "less than 1"),
    (lambda: digits_run(annealing="linear"), "annealing", "'linear'", "'cosine'"),
    (lambda: digits_run(model="keskar.F3"), "model", "'keskar.F3'", "keskar.F1"),
    (lambda: digits_run(data=DataSpec(name="topics"), batch_size=40_001), "batch_size", "40001", "1 to 40000"),
    (lambda: DataSpec(name="topics", n_train=100, subset=1), "subset", "1", "0"),
    (lambda: DataSpec(name="mnist.inputs", augment="keskar"), "augment", "'keskar'", "none"),
    (lambda: DataSpec(name="mnist.inputs", label_noise=0.5), "label_noise", "0.5", "0"),
    (lambda: DataSpec(name="digits", label_noise=1.5), "label_noise", "1.5", "1"),
    (lambda: digits_run(data=DataSpec(name="topics"), slice_size=2), "slice_size", "2", "none"),
    (lambda: digits_run(data=DataSpec(name="digits.inputs"), robust=ROBUST), "robust", "adversarial", "none"),
    (lambda: measure(arguments={"epsilon": -1}), "epsilon", "-1", "greater than 0"),
    (lambda: measure(arguments={"eps": 1e-3}), "eps", "not known", "epsilon"),
    (lambda: measure(of=(digits_run().at(), digits_run().at())), "of", "2", "1"),
    (lambda: Measure(kind="sharp", of=(digits_run().at(),)), "kind", "'sharp'", "sharpness"),
    (lambda: Measure(kind="sharpness", of=()), "of", "()", "at least 1"),
    (lambda: job_from_json({"kind": "sharpness"}), "of", "missing", "Measure"),
]


@pytest.mark.parametrize(("build", "parameter", "value", "accepted"), REFUSED)
def test_bad_input_ends_in_one_sentence(build, parameter, value, accepted):
    with pytest.raises(ValueError) as caught:
        build()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith(parameter)
    assert value in sentence
    assert accepted in sentence
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_unknown_name_is_named_before_other_faults():
    with pytest.raises(ValueError, match="^learning_rte is not known to OptimizerSpec; accepted are .*learning_rate"):
        OptimizerSpec(name="adam", learning_rte=1e-3)


def test_a_definition_that_is_run_again_is_the_same_code():
    """As a notebook's cell is; two functions without a name of their own are two."""

    def define():
        def build():
            pass

        return build, lambda: None

    (one, nameless), (again, other) = define(), define()
    assert same_code(one, one) and same_code(one, again) and same_code("module:one", "module:one")
    assert not same_code(nameless, other) and not same_code(one, define) and not same_code(partial(one), partial(one))


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"options": {"width": 24}}, "options is {'width': 24}; {} {'width': 16}"),
        ({"model": "keskar.C1", "options": {}}, "model is keskar.C1; {} keskar.F1"),
    ],
)
def test_weights_go_into_no_other_network(changed, sentence):
    """Those of another shape would fail after their run has trained, those of another meaning not at all."""
    run = digits_run()
    other = digits_run().model_copy(update=changed)
    sentence = sentence.replace("{'width': 16}", str(run.options)).replace("keskar.F1", run.model)
    with pytest.raises(
        ValueError, match=f"^of has a run whose {re.escape(sentence.replace('{}', 'beside the first accepted is'))}$"
    ):
        Measure(kind="path", of=(run.at(), other.at()))
    with pytest.raises(
        ValueError, match=f"^start is of a run whose {re.escape(sentence.replace('{}', 'accepted is one of'))}$"
    ):
        run.model_copy(update={"start": other.at()})


def test_a_path_between_networks_of_other_data_is_refused():
    mnist, fashion = (digits_run(data=DataSpec(name=name), model="keskar.F1") for name in ("cifar10", "cifar100"))
    with pytest.raises(ValueError, match="^of has a run whose data is cifar100; beside the first accepted is cifar10$"):
        Measure(kind="path", of=(mnist.at(), fashion.at()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: OptimizerSpec(name="sgd", learning_rate=True),
        lambda: DataSpec(name="digits", n_train=True),
        lambda: papers.settings("hoffer", profile="quick", seeds=True),
        lambda: papers.settings("hoffer", profile="quick", learning_rate=True),
        lambda: Measure(kind="sharpness", arguments={"epsilon": True}, of=(digits_run().at(),)),
    ],
)
def test_a_truth_value_is_no_number(make):
    with pytest.raises(ValueError, match=" is True; accepted is no truth value$"):
        make()


def test_what_may_be_true_or_false_still_may():
    assert OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True).nesterov
    assert digits_run(layers=True).layers


@pytest.mark.parametrize(
    "kind, arguments, sentence",
    [
        ("m_sharpness", {"m": 32, "parts": 45}, "parts is 45; of 32 examples each this training set accepts 1 to 44"),
        ("noise_scale", {"small": 128, "big": 2048}, "big is 2048; this training set accepts 1 to 1438"),
        (
            "noise_scale",
            {"estimator": "per-example", "examples": 2048},
            "examples is 2048; this training set accepts 1 to 1438",
        ),
    ],
)
def test_a_measurement_of_more_than_there_is_is_refused_before_anything_trains(kind, arguments, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Measure(kind=kind, arguments=arguments, of=(digits_run().at(),))


@pytest.mark.parametrize("field", ["n_train", "n_test", "n_validation"])
def test_one_word_of_a_text_predicts_nothing(field):
    with pytest.raises(ValueError, match=f"^{field} is 1; topics accepts 2 .*, since a word is predicted from the one before$"):
        DataSpec(name="topics", **{"n_train": 2000, field: 1})
