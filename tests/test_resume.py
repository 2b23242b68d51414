"""A job that is put down and taken up again, however often, leaves the record of an undisturbed one."""

import io
import multiprocessing
import os
import time
import zipfile
from contextlib import nullcontext

import pytest
import torch
from conftest import digits_run, topics_run

from lbgap import jobs, measure, train
from lbgap.jobs import Cache, Checkpoint, execute
from lbgap.pauses import Stopped
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Phase, SamSpec, Train, Warmup

SMALL = DataSpec(name="digits", n_train=200, n_test=100)
TEXT = DataSpec(name="topics", n_train=2000, n_test=500)
SGD = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
KINDS = {
    "plain": digits_run(32, epochs=4, data=SMALL, layers=True),
    "momentum, ghosts, augmentation, dropout": digits_run(
        50,
        epochs=4,
        optimizer=SGD,
        ghost_batch_size=25,
        phases=(Phase(update=7, learning_rate=0.01),),
        data=SMALL.model_copy(update={"augment": "keskar"}),
        options={"width": 16, "dropout": 0.5},
    ),
    "sam in slices": digits_run(
        64, epochs=3, optimizer=SGD, slice_size=16, sam=SamSpec(rho=0.05), warmup=Warmup(updates=5, start=0.1), data=SMALL
    ),
    "robust": digits_run(64, epochs=3, data=SMALL, robust={"kind": "stability", "size": 0.1, "weight": 0.5}),
    "fresh optimizer": digits_run(64, epochs=3, data=SMALL, optimizer=SGD.model_copy(update={"fresh_each_epoch": True})),
    "language model": topics_run(
        data=TEXT, optimizer=OptimizerSpec(name="sgd", learning_rate=1.0, clip_norm=5.0), updates=25, seed=3, annealing="cosine"
    ),
}


class Interrupted(Exception):
    """In place of a kill."""


class Memory:
    """A pause that saves at chosen updates and then ends the process's work."""

    def __init__(self, at: int, saved: dict | None = None):
        self.at, self.saved, self.asked = at, saved, 0

    def load(self):
        return self.saved

    def due(self):
        self.asked += 1
        return self.asked == self.at

    def save(self, state):
        # through bytes, as a file would take them: nothing in it may change with the run
        file = io_of(state)
        self.saved = torch.load(file, weights_only=True)
        raise Interrupted


def io_of(state) -> io.BytesIO:
    """A file in memory that holds a state."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_put_down_after_any_update_ends_as_if_it_had_not_been(kind):
    spec = KINDS[kind]
    weights, again = {}, {}
    undisturbed = train.fit(spec, keep=(1,), on_weights=weights.__setitem__)
    saved = None
    for at in (1, 2, 3, 1, 4):  # five interruptions, after updates 1, 3, 6, 7, 11
        pause = Memory(at, saved)
        with pytest.raises(Interrupted):
            train.fit(spec, keep=(1,), on_weights=again.__setitem__, pause=pause)
        saved = pause.saved
    resumed = train.fit(spec, keep=(1,), on_weights=again.__setitem__, pause=Memory(-1, saved))
    assert resumed == undisturbed
    assert set(weights) == set(again)
    assert all(torch.equal(weights[e][k], again[e][k]) for e in weights for k in weights[e])


@pytest.mark.parametrize("at", range(1, 9))
def test_ends_of_epochs_and_of_the_budget_are_no_exception(at):
    """Batches of 64 of 200: four updates an epoch, the budget ends within the second."""
    spec = digits_run(64, updates=8, data=SMALL)
    pause = Memory(at)
    with pytest.raises(Interrupted):
        train.fit(spec, pause=pause)
    assert train.fit(spec, pause=Memory(-1, pause.saved)) == train.fit(spec)


# ---------------------------------------------------------------- measurements of many parts


def measured(kind: str, pause: Memory | None) -> tuple[dict, int]:
    """A measure of a small network in ten parts, and the passes that it took."""
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(3, 2), torch.randn(100, 3), torch.randint(2, (100,))
    first, second = ({name: p + i for name, p in model.state_dict().items()} for i in (0, 1))
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    of = {
        "m-sharpness": lambda: measure.m_sharpness(model, x, y, m=10, pause=pause),
        "noise scale": lambda: measure.noise_scale(model, x, y, small=5, big=10, pause=pause),
        "path": lambda: measure.path(model, first, second, {"train": (x, y)}, points=10, pause=pause),
    }
    try:
        return of[kind](), len(passes)
    except Interrupted:
        return {}, len(passes)


@pytest.mark.parametrize("kind", ["m-sharpness", "noise scale", "path"])
def test_a_measurement_put_down_after_any_part_goes_on_with_the_next(kind):
    undisturbed, passes = measured(kind, None)
    saved, taken = None, []
    for at in (1, 3, 1):  # after parts 1, 4, 5
        pause = Memory(at, saved)
        _, n = measured(kind, pause)
        saved = pause.saved
        taken.append(n)
    found, rest = measured(kind, Memory(-1, saved))
    assert found == undisturbed
    assert [*taken, rest] == [passes // 10 * parts for parts in (1, 3, 1, 5)]


def test_a_deadline_puts_a_measurement_down_and_the_next_call_goes_on(spec, cache):
    execute(spec, cache)
    job = Measure(kind="m_sharpness", arguments={"m": 50}, of=(spec.at(),))
    undisturbed = execute(job, cache)
    with pytest.raises(Stopped, match=f"^job {job.key} was put down$"):
        execute(job, cache, deadline=time.monotonic())
    record = execute(job, cache)
    assert record.results == undisturbed.results
    assert record.provenance["resumed"] == 1 and "resumed" not in undisturbed.provenance
    jobs.finished(job, cache)
    assert not Checkpoint(job, cache).path.exists()


# ---------------------------------------------------------------- the file


@pytest.fixture
def spec() -> Train:
    """Twelve updates."""
    return digits_run(64, epochs=3, data=SMALL)


def put_down(spec: Train, cache: Cache, **changes) -> Checkpoint:
    """A checkpoint of a run past its deadline: it is saved after the first update."""
    with pytest.raises(Stopped, match=f"^job {spec.key} was put down$"):
        execute(spec, cache, deadline=time.monotonic())
    return Checkpoint(spec, cache, **changes)


def test_a_deadline_puts_a_run_down_and_the_next_call_goes_on(spec, cache):
    undisturbed = execute(spec, Cache(cache.folder / "other"))
    put_down(spec, cache)
    record = execute(spec, cache)
    assert record.agrees(undisturbed)
    assert record.provenance["resumed"] == 1 and "resumed" not in undisturbed.provenance
    jobs.finished(spec, cache)
    assert not Checkpoint(spec, cache).path.exists()


def test_weights_that_are_repeated_have_a_checkpoint_of_their_own(spec, cache):
    with pytest.raises(Stopped):
        jobs.make_weights(spec, cache, deadline=time.monotonic())
    assert not Checkpoint(spec, cache).path.exists()
    jobs.make_weights(spec, cache)
    undisturbed = Cache(cache.folder / "other")
    execute(spec, undisturbed)
    assert all(torch.equal(v, cache.get(spec.at())[k]) for k, v in undisturbed.get(spec.at()).items())
    assert not list(cache.folder.with_name("checkpoints").iterdir())


@pytest.mark.parametrize("epochs", [(0,), (1,), (0, 2), (1, 3)])
def test_weights_are_repeated_no_further_than_the_last_epoch_that_is_asked_for(spec, cache, epochs, monkeypatch):
    undisturbed = Cache(cache.folder / "other")
    execute(spec, undisturbed, keep=epochs)
    made, advance = [], train.Training.advance
    monkeypatch.setattr(train.Training, "advance", lambda self, item: (made.append(1), advance(self, item)))
    with pytest.raises(Stopped) if max(epochs) else nullcontext():
        jobs.make_weights(spec, cache, keep=epochs, deadline=time.monotonic())  # put down wherever it can be, and taken up
    jobs.make_weights(spec, cache, keep=epochs)
    assert len(made) == max(epochs) * spec.updates_per_epoch
    for e in epochs:
        assert all(torch.equal(v, cache.get(spec.at(e))[k]) for k, v in undisturbed.get(spec.at(e)).items())


OTHERS = [f"other {what}" for what in ("job", "version", "layout", "torch", "device")]


@pytest.mark.parametrize("fault", ["cut", "noise", "empty", "flipped", *OTHERS])
def test_a_checkpoint_that_is_not_this_runs_is_passed_over_with_one_line(spec, cache, fault, capsys, monkeypatch):
    path = put_down(spec, cache).path
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif fault == "noise":
        path.write_bytes(os.urandom(300))
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "flipped":  # a byte of the largest part, which torch would take for a weight
        with zipfile.ZipFile(path) as file:
            part = max(file.infolist(), key=lambda info: info.file_size)
        data = bytearray(path.read_bytes())
        data[part.header_offset + 30 + len(part.filename) + 64 + part.file_size // 2] ^= 0xFF
        path.write_bytes(data)
    elif fault == "other job":
        put_down(digits_run(64, epochs=3, data=SMALL, seed=1), cache).path.replace(path)
    elif fault == "other version":
        monkeypatch.setattr("lbgap.__version__", "0.0")
    else:
        held, what = torch.load(path, weights_only=True), fault.removeprefix("other ")
        torch.save(held | {"header": held["header"] | {what: {"torch": "1.0", "device": "cuda", "layout": 0}[what]}}, path)
    record = execute(spec, cache)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"checkpoint {path} ") and said.endswith("; the job begins anew\n")
    assert record.agrees(execute(spec, Cache(cache.folder / "other")))
    assert "resumed" not in record.provenance


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("the writer failed")])
def test_a_checkpoint_that_cannot_be_written_costs_a_line_and_not_the_run(spec, cache, error, monkeypatch, capsys):
    def fail(held, file):
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    undisturbed = execute(spec, Cache(cache.folder / "other"))
    monkeypatch.setattr(torch, "save", fail)
    assert execute(spec, cache).agrees(undisturbed)
    path = Checkpoint(spec, cache).path
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == spec.updates and len(set(lines)) == 1
    assert lines[0].startswith(f"checkpoint {path} cannot be written (") and lines[0].endswith("; the job goes on without")
    assert not list(path.parent.iterdir())
    with pytest.raises(OSError, match="^checkpoint .* cannot be written"):  # at its deadline there is nothing to go on from
        execute(spec, cache, deadline=time.monotonic())


def test_a_resumed_run_tells_the_processor_time_of_all_its_pieces(spec, cache):
    path = put_down(spec, cache).path
    held = torch.load(path, weights_only=True)
    assert 0 < held["processor_seconds"] < 100
    torch.save(held | {"processor_seconds": 1000.0}, path)
    assert 1000 < execute(spec, cache).provenance["processor_seconds"] < 1100


def test_a_checkpoint_past_weights_that_are_gone_is_of_no_use(spec, cache, capsys):
    with pytest.raises(Stopped):
        execute(spec, cache, keep=(0,), deadline=time.monotonic())
    cache.path(spec.at(0)).unlink()
    execute(spec, cache, keep=(0,))
    assert "is past epoch 0, whose weights are gone; the job begins anew" in capsys.readouterr().err
    assert spec.at(0) in cache


# ---------------------------------------------------------------- real kills


def _run_and_save_always(spec: Train, folder) -> None:
    Checkpoint.due = lambda self: True
    execute(spec, Cache(folder))


@pytest.mark.parametrize("kind", ["plain", "sam in slices", "language model"])
def test_a_run_killed_five_times_ends_with_the_same_record(kind, cache, rng):
    """SIGKILL at random moments once the run has saved at least once more."""
    spec = KINDS[kind].model_copy(update={"updates": 20 * KINDS[kind].updates})
    undisturbed = execute(spec, Cache(cache.folder / "other"))
    file = Checkpoint(spec, cache).path
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lbgap.jobs"])  # torch is imported once
    for _ in range(5):
        before = file.stat().st_mtime_ns if file.exists() else 0
        process = context.Process(target=_run_and_save_always, args=(spec, cache.folder))
        process.start()
        while process.is_alive() and not (file.exists() and file.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.2)))
        process.kill()
        process.join()
    record = execute(spec, cache)
    assert record.agrees(undisturbed)
    assert record.provenance["resumed"] == 5


@pytest.mark.parametrize("name", ["this one", "another"])
def test_a_record_names_every_processor_that_its_pieces_ran_on(spec, cache, name, monkeypatch):
    here = jobs.processor()
    put_down(spec, cache)
    monkeypatch.setattr(jobs, "processor", lambda: here if name == "this one" else name)
    assert execute(spec, cache).provenance["device"] == (here if name == "this one" else f"{here}, {name}")


def test_a_run_is_saved_every_so_often_without_a_deadline(spec, cache):
    """Where it is always due it is saved after every update, where it is due in an hour never."""
    for every, expected in ((0.0, spec.updates), (3600.0, 0)):
        checkpoint, saved = Checkpoint(spec, cache, every=every), []
        checkpoint.save = lambda state, saved=saved: saved.append(state["place"]["update"])
        train.fit(spec, pause=checkpoint)
        assert len(saved) == len(set(saved))
        assert expected - 1 <= len(saved) <= expected
