"""Replicas: runs that train together are, each for itself, the run that trains alone."""

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import digits_run

import lbgap
from lbgap import jobs, replicas, sweep, train
from lbgap.data import Data, Split
from lbgap.jobs import Cache, Checkpoint, Group
from lbgap.pauses import Stopped
from lbgap.records import Store
from lbgap.spec import DataSpec, OptimizerSpec, Phase, SamSpec, Train, Warmup

SMALL = DataSpec(name="digits", n_train=210, n_test=100, n_validation=40)
PATH = [str(Path(__file__).parent), str(Path(lbgap.__file__).parents[1])]
PATIENCE = 180  # seconds


def sgd(rate: float = 0.02, **changes) -> OptimizerSpec:
    """SGD."""
    return OptimizerSpec(name="sgd", learning_rate=rate, **changes)


def small(seed: int, optimizer: OptimizerSpec, **changes) -> Train:
    """100 updates on batches of 32 of 210, the last of each epoch of 18."""
    return digits_run(32, seed, optimizer=optimizer, **{"updates": 100, "data": SMALL} | changes)


def adam(name: str, rate: float, **changes) -> OptimizerSpec:
    """Adam or AdamW."""
    return OptimizerSpec(name=name, learning_rate=rate, **changes)


BARE = {"width": 16, "batch_norm": False}
TANH = BARE | {"activation": "tanh"}
RATES = (0.01, 0.02, 0.03, 0.02)
KINDS: dict[str, list[Train]] = {
    "plain": [small(i, sgd(r)) for i, r in enumerate(RATES)],
    "momentum": [small(i, sgd(r, momentum=m)) for i, (r, m) in enumerate(zip(RATES, (0.0, 0.5, 0.9, 0.8), strict=True))],
    "nesterov": [small(i, sgd(0.01, momentum=m, nesterov=True)) for i, m in enumerate((0.5, 0.9, 0.3))],
    "decay": [small(i, sgd(0.02, weight_decay=d, decay_exempt="norms and biases")) for i, d in enumerate((0.0, 0.1, 0.01))],
    "phases": [
        small(0, sgd(), phases=(Phase(update=7, learning_rate=0.005), Phase(update=40, weight_decay=0.1))),
        small(1, sgd(), phases=(Phase(update=30, learning_rate=0.001),)),
        small(2, sgd(), warmup=Warmup(updates=20, start=0.1), annealing="cosine"),
    ],
    "orders": [small(0, sgd(), data_seed=5), small(1, sgd(), data_seed=5), small(1, sgd())],
    "ghosts": [small(i, sgd(r, momentum=0.5), ghost_batch_size=8) for i, r in enumerate(RATES)],
    "averaged ghosts": [small(i, sgd(), ghost_batch_size=16, ghost_averaging="mean") for i in range(2)],
    "clipped": [small(i, sgd(r, clip_norm=0.5, fresh_each_epoch=True, momentum=0.9)) for i, r in enumerate(RATES)],
    "hardly clipped": [small(i, sgd(r, clip_norm=50.0)) for i, r in enumerate(RATES)],
    # without batch norm: before it the gradient of a bias is rounding alone, and Adam makes whole steps of it
    "adam": [small(i, adam("adam", r / 20, weight_decay=r), options=TANH) for i, r in enumerate(RATES)],
    "adamw": [small(i, adam("adamw", r / 20, weight_decay=r), options=TANH) for i, r in enumerate(RATES)],
    "dropout": [small(i, sgd(), options={"width": 16, "dropout": 0.3}, layers=True) for i in range(3)],
    "sam": [small(i, sgd(0.02 + r, momentum=0.5), sam=SamSpec(rho=r)) for i, r in enumerate((0.05, 0.0, 0.1))],
    "adaptive sam": [
        small(i, sgd(), sam=SamSpec(rho=r, adaptive=True, ascents=2, averages="last"), options={"width": 16, "dropout": 0.3})
        for i, r in enumerate((0.05, 0.1))
    ],
    "sam in a box": [small(i, sgd(), sam=SamSpec(rho=r, norm="inf"), ghost_batch_size=8) for i, r in enumerate((1e-3, 2e-3))],
    "tanh": [small(i, sgd(), options=TANH) for i in range(3)],
    "hoffer": [small(i, sgd(), model="hoffer.F1", curve_reading="running", evaluate_every=3) for i in range(3)],
    "autoencoder": [
        small(
            i,
            sgd(1e-3),
            model="smith.autoencoder",
            options={"widths": "20-8"},
            data=DataSpec(name="digits.inputs", n_train=210, n_test=100),
        )
        for i in range(2)
    ],
}


def close(mine, theirs, rel: float, where: str = "") -> None:
    """Same structure, same words, and numbers within ``rel``."""
    if isinstance(theirs, dict):
        assert list(mine) == list(theirs), where
        for key in theirs:
            close(mine[key], theirs[key], rel, f"{where}.{key}")
    elif isinstance(theirs, list):
        assert len(mine) == len(theirs), where
        for i, pair in enumerate(zip(mine, theirs, strict=True)):
            close(*pair, rel, f"{where}.{i}")
    else:
        assert type(mine) is type(theirs), where
        assert mine == (pytest.approx(theirs, rel=rel, nan_ok=True) if isinstance(theirs, float) else theirs), where


@pytest.mark.parametrize("kind", KINDS)
def test_losses_in_float32_are_those_of_the_single_run(kind):
    for together, spec in zip(replicas.fit(KINDS[kind]), KINDS[kind], strict=True):
        close(together["loss_at"], train.fit(spec, stop_after=50)["loss_at"], 1e-5)


def doubled(data: Data) -> Data:
    """The data in float64."""
    parts = {name: Split(part.x.double(), _double(part.y)) for name, part in data.splits.items()}
    return dataclasses.replace(data, **parts)


def _double(y: torch.Tensor) -> torch.Tensor:
    return y.double() if y.is_floating_point() else y


@pytest.mark.parametrize("kind", KINDS)
def test_in_float64_everything_recorded_is_that_of_the_single_run(kind, monkeypatch):
    """Losses after each of 100 updates among it."""
    monkeypatch.setattr(train, "CHECKPOINTS", range(1, 101))
    specs, alone, networks, generators = KINDS[kind], [], [], []
    data = doubled(train.load_data(specs[0]))
    with torch.random.fork_rng():
        for spec in specs:
            for copy in ("together", "alone"):
                torch.manual_seed(spec.seed)
                network = train.initial_model(spec, data).double()
                if copy == "together":
                    networks.append(network)
                    generators.append(torch.Generator().set_state(torch.get_rng_state()))
            alone.append(train.Training(spec, network, data, "cpu").fit(set(), None, None, None))
    together = replicas.Replicas(specs, networks, data, generators).fit([()] * len(specs), None, None)
    assert all(len(result["loss_at"]) == 100 for result in alone)
    close(together, alone, 1e-10)


@pytest.mark.parametrize("kind", ["momentum", "ghosts", "dropout"])
def test_weights_of_kept_epochs_are_handed_out_as_the_single_run_would(kind):
    specs = [spec.model_copy(update={"updates": 14}) for spec in KINDS[kind]]  # two epochs
    keep = [(), (0,), (1,), (0, 1)][: len(specs)]
    found: dict[Train, dict] = {spec: {} for spec in specs}
    replicas.fit(specs, keep=keep, on_weights=lambda spec, epoch, state: found[spec].setdefault(epoch, state))
    for spec, epochs in zip(specs, keep, strict=True):
        alone = {}
        train.fit(spec, keep=epochs, on_weights=alone.__setitem__)
        assert found[spec].keys() == alone.keys() == {*epochs, 2}
        for epoch in alone:
            assert list(found[spec][epoch]) == list(alone[epoch])
            for name, value in alone[epoch].items():
                torch.testing.assert_close(found[spec][epoch][name], value, rtol=1e-4, atol=1e-6)
            if epoch == 0:
                assert all(torch.equal(found[spec][0][name], value) for name, value in alone[0].items())


def test_a_replica_that_diverges_is_recorded_as_alone_and_leaves_the_others_as_they_are():
    calm = [small(i, sgd(0.01, momentum=0.5), options=BARE, layers=True) for i in range(3)]
    wild = small(3, sgd(1e6, momentum=0.5), options=BARE, layers=True)
    weights = []
    first, diverged, *rest = replicas.fit([calm[0], wild, *calm[1:]], on_weights=lambda spec, *_: weights.append(spec))
    assert weights == calm
    others = [first, *rest]
    alone = train.fit(wild)
    assert diverged["diverged"] and diverged["updates"] == alone["updates"] < 100
    assert (diverged["curve"], diverged["final"]) == (alone["curve"], {})
    assert [len(v) for v in diverged["distance"]["layers"].values()] == [len(v) for v in alone["distance"]["layers"].values()]
    for mine, spec in zip(others, calm, strict=True):
        assert not mine["diverged"] and mine["updates"] == 100
        close(mine["loss_at"], train.fit(spec, stop_after=50)["loss_at"], 1e-5)
    first, _, *rest = replicas.fit([calm[0], calm[0].model_copy(update={"seed": 9}), *calm[1:]])
    assert others == [first, *rest]


def test_all_may_diverge():
    results = replicas.fit([small(i, sgd(1e6), options=BARE) for i in range(2)])
    assert [result["diverged"] for result in results] == [True, True]


# ---------------------------------------------------------------- which runs


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 5},
        {"data_seed": 5},
        {"optimizer": sgd(0.5, momentum=0.9, weight_decay=0.1)},
        {"phases": (Phase(update=3, learning_rate=0.1),)},
        {"warmup": Warmup(updates=3, start=0.5)},
        {"annealing": "cosine"},
        {"sam": SamSpec(rho=0.1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_seeds_and_rates_are_free(changes):
    spec = small(0, sgd(), sam=SamSpec(rho=0.05))
    assert replicas.kind(spec) == replicas.kind(spec.model_copy(update=changes)) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 33},
        {"updates": 101},
        {"evaluate_every": 2},
        {"layers": True},
        {"sam": SamSpec(rho=0.05)},
        {"curve_reading": "running"},
        {"ghost_batch_size": 8},
        {"options": {"width": 17}},
        {"model": "keskar.F2"},
        {"data": SMALL.model_copy(update={"n_test": 99})},
        {"data": SMALL.model_copy(update={"subset": 1})},
        {"optimizer": sgd(momentum=0.9, nesterov=True)},
        {"optimizer": sgd(clip_norm=1.0)},
        {"optimizer": sgd(decay_exempt="norms")},
        {"optimizer": sgd(fresh_each_epoch=True)},
        {"optimizer": adam("adam", 0.02)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_runs_that_differ_otherwise_are_of_another_kind(changes):
    spec = small(0, sgd())
    other = spec.model_copy(update=changes)
    assert replicas.kind(other) not in (None, replicas.kind(spec))
    with pytest.raises(ValueError, match="^specs has runs of 2 kinds; accepted are runs that differ in seed and rates alone$"):
        replicas.fit([spec, other])


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"data": SMALL.model_copy(update={"augment": "keskar"})},
        {"robust": {"kind": "adversarial", "size": 0.1, "weight": 0.5}},
        {"slice_size": 8},
        {"sam": SamSpec(rho=0.05, inference_mode="ascent", averages="last")},
        {"optimizer": sgd(proximal=0.1, inner_steps=2)},
        {"optimizer": sgd(loss_scale=2.0)},
        {"optimizer": sgd(momentum=0.9, momentum_buffer="steps")},
        {"start": digits_run(32, data=SMALL).at(1)},
        {"model": "keskar.C1", "options": {}},
        {"model": "hoffer.ResNet", "options": {}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_cannot_be_stacked_trains_alone(changes):
    spec = small(0, sgd()).model_copy(update=changes)
    assert not replicas.pays(spec)
    with pytest.raises(ValueError, match=f"^specs has run {spec.key}, which trains alone; accepted are "):
        replicas.fit([spec, spec.model_copy(update={"seed": 1})])


# ---------------------------------------------------------------- put down, taken up


class Interrupted(Exception):
    """In place of a kill."""


class Memory:
    """A pause that saves after so many updates and then ends the work."""

    def __init__(self, at: int, saved: bytes | None = None):
        self.at, self.saved, self.asked = at, saved, 0

    def load(self):
        return None if self.saved is None else torch.load(io.BytesIO(self.saved), weights_only=True)

    def due(self):
        self.asked += 1
        return self.asked == self.at

    def save(self, state):
        file = io.BytesIO()
        torch.save(state, file)
        self.saved = file.getvalue()
        raise Interrupted


@pytest.mark.parametrize("kind", ["clipped", "adam", "dropout", "phases"])
def test_a_group_put_down_after_any_update_ends_as_if_it_had_not_been(kind):
    specs = [spec.model_copy(update={"updates": 18}) for spec in KINDS[kind] if not spec.warmup]
    undisturbed, saved = replicas.fit(specs), None
    for at in (1, 2, 4, 1, 6):  # seven updates an epoch: its end is among them
        pause = Memory(at, saved)
        with pytest.raises(Interrupted):
            replicas.fit(specs, pause=pause)
        saved = pause.saved
    assert replicas.fit(specs, pause=Memory(-1, saved)) == undisturbed


def test_a_deadline_puts_a_group_down_and_the_next_call_goes_on(cache):
    group = Group(tuple(KINDS["momentum"]))
    undisturbed = jobs.execute_together(group, Cache(cache.folder / "other"))
    with pytest.raises(Stopped, match=f"^job {group.key} was put down$"):
        jobs.execute_together(group, cache, deadline=time.monotonic())
    records = jobs.execute_together(group, cache)
    assert [r.results for r in records] == [r.results for r in undisturbed]
    assert [(r.provenance["replicas"], r.provenance["resumed"]) for r in records] == [(4, 1)] * 4
    assert all(run.at() in cache for run in group.runs)
    jobs.finished(group, cache)
    assert not list(cache.folder.with_name("checkpoints").iterdir())


# ---------------------------------------------------------------- in a sweep


def test_a_group_that_was_put_down_is_the_same_group_in_the_next_sweep(store, cache):
    """Though other runs of its kind have records by then, and would be parted otherwise."""
    runs = [small(i, sgd(), updates=14) for i in range(12)]
    first, second = (group.each for group in sweep.together(sweep.plan(runs, store, cache), store, cache, 2))
    with pytest.raises(Stopped):
        jobs.execute_together(Group(tuple(t.job for t in second)), cache, deadline=time.monotonic())
    quietly([t.job for t in first[:4]], store, cache)
    (again, rest) = sorted(sweep.together(sweep.plan(runs, store, cache), store, cache, 1), key=lambda t: -len(t.each))[:2]
    assert [t.job for t in again.each] == [t.job for t in second] and not rest.beside
    outcome = quietly(runs, store, cache)
    assert (outcome.done, outcome.failed) == (8, {})
    assert [store.get(t.job).provenance.get("resumed") for t in second] == [1] * 6


def test_the_checkpoint_of_a_group_of_which_a_run_is_recorded_goes(store, cache):
    runs = [small(i, sgd(), updates=14) for i in range(4)]
    with pytest.raises(Stopped):
        jobs.execute_together(Group(tuple(runs)), cache, deadline=time.monotonic())
    store.put(jobs.execute(runs[0], cache))
    assert not any(task.beside for task in sweep.together(sweep.plan(runs, store, cache), store, cache, 1))
    assert not list(cache.folder.with_name("checkpoints").iterdir())


def test_the_checkpoint_of_another_sweeps_group_stays(store, cache):
    """Of which this store, for another study, happens to hold a run."""
    runs = [small(i, sgd(), updates=14) for i in range(4)]
    with pytest.raises(Stopped):
        jobs.execute_together(Group(tuple(runs)), cache, deadline=time.monotonic())
    store.put(jobs.execute(runs[0], cache))
    quietly([small(i, sgd(), updates=15) for i in range(4)], store, cache)
    assert Checkpoint(Group(tuple(runs)), cache).path.exists()


def quietly(of, store, cache, **arguments) -> sweep.Outcome:
    """A sweep in this process."""
    return sweep.complete(of, store, cache, **{"workers": 0, "device": "cpu", "progress": io.StringIO()} | arguments)


def study() -> list[Train]:
    """Two kinds of replicas, one of them too few, and a run by itself."""
    many = [small(i, sgd(r), updates=70) for i in range(3) for r in (0.01, 0.02)]
    few = [small(i, sgd(), updates=70, options={"width": 8}) for i in range(replicas.LEAST - 1)]
    return [*many, *few, small(0, sgd(), updates=70, slice_size=16)]


def test_a_sweep_groups_what_pays_and_ends_with_the_records_of_single_runs(store, cache):
    of, noted = study(), []
    outcome = quietly(of, store, cache, on_record=noted.append)
    assert (outcome.done, outcome.left, outcome.failed) == (len(of), 0, {})
    assert sorted(run.key for run in noted) == sorted(run.key for run in of)
    assert [store.get(run).provenance.get("replicas") for run in of] == [6] * 6 + [None] * 4
    for run in of:
        alone = jobs.execute(run, Cache(cache.folder / "other"))
        assert store.get(run).agrees(alone) and alone.agrees(store.get(run))
        assert run.at() in cache


def test_weights_that_others_wait_for_are_kept_of_each_replica(store, cache):
    runs = [small(i, sgd(), updates=14) for i in range(4)]
    warm = small(9, sgd(), updates=7, start=runs[2].at(1))
    outcome = quietly([warm, *runs], store, cache)
    assert (outcome.done, outcome.failed) == (5, {})
    assert store.get(runs[2]).provenance["replicas"] == 4
    assert [run.at(1) in cache for run in runs] == [False, False, True, False]


def test_groups_have_4_to_20_runs_and_are_as_many_as_there_are_places(store, cache):
    for n in range(1, 50):
        tasks = sweep.plan([small(i, sgd()) for i in range(n)], store, cache)
        for places in (1, 2, 3):
            found = sweep.together(tasks, store, cache, places)
            sizes = [len(task.each) for task in found]
            assert [t for task in found for t in task.each] == tasks
            assert sizes == [1] * n if n < 4 else min(sizes) >= 4 and max(sizes) <= 20
            assert len(sizes) >= min(places, n // 4)


def test_what_was_begun_alone_goes_on_alone(store, cache):
    runs = [small(i, sgd()) for i in range(5)]
    with pytest.raises(Stopped):
        jobs.execute(runs[0], cache, deadline=time.monotonic())
    tasks = sweep.together(sweep.plan(runs, store, cache), store, cache, 1)
    assert [[t.job for t in task.each] for task in tasks] == [[runs[0]], runs[1:]]


def test_a_group_that_fails_is_taken_apart(store, cache, monkeypatch):
    def fail(*_):
        raise MemoryError("no room for so many")

    monkeypatch.setattr(sweep, "execute_together", fail)
    runs = [small(i, sgd(), updates=14) for i in range(4)]
    outcome = quietly(runs, store, cache)
    assert (outcome.done, outcome.failed) == (4, {})
    assert all("replicas" not in store.get(run).provenance for run in runs)


def test_a_sweep_of_workers_spreads_the_replicas(store, cache):
    runs = [small(i, sgd(), updates=14) for i in range(9)]
    outcome = sweep.complete(runs, store, cache, workers=2, device="cpu", progress=io.StringIO())
    assert (outcome.done, outcome.failed) == (9, {})
    assert [store.get(run).provenance["replicas"] for run in runs] == [4] * 4 + [5] * 5


SWEEP = """
import sys
from pathlib import Path
sys.path[:0] = {path}
from lbgap.jobs import Cache, Checkpoint
from lbgap.records import Store
from test_replicas import long_study, quietly
Checkpoint.due = lambda self: True
quietly(long_study(), Store({results!r}), Cache(Path({weights!r})))
"""


def long_study() -> list[Train]:
    """A group of some seconds."""
    return [small(i, sgd(), updates=500) for i in range(4)]


def test_a_grouped_sweep_that_is_killed_ends_with_complete_records(store, cache, tmp_path):
    undisturbed = Store(tmp_path / "elsewhere" / "results")
    quietly(long_study(), undisturbed, Cache(tmp_path / "elsewhere" / "weights"))
    code = SWEEP.format(path=PATH, results=str(store.folder), weights=str(cache.folder))
    checkpoints = cache.folder.with_name("checkpoints")
    for _ in range(2):
        before = {path: path.stat().st_mtime_ns for path in checkpoints.glob("*.pt")}
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            if {path: path.stat().st_mtime_ns for path in checkpoints.glob("*.pt")} != before:
                break
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert list(store) == []
    outcome = quietly(long_study(), store, cache)
    assert (outcome.done, outcome.left, outcome.failed) == (4, 0, {})
    assert {r.job: r.results for r in store} == {r.job: r.results for r in undisturbed}
    assert {r.provenance["resumed"] for r in store} == {2}
    assert not list(checkpoints.glob("*.pt"))
