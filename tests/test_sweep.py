"""Sweeps: whatever interrupts one, the next call ends with the records of an undisturbed one, and no process is left."""

import contextlib
import io
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from conftest import digits_run, topics_run

import lbgap
from lbgap import executors, networks, papers, sweep, train
from lbgap.executors import Here
from lbgap.jobs import Cache
from lbgap.records import Store
from lbgap.spec import DataSpec, Job, Measure, OptimizerSpec, SamSpec, Train

PATH = [str(Path(__file__).parent), str(Path(lbgap.__file__).parents[1])]
PATIENCE = 180  # seconds after which a process that should have ended is called stuck


def sharpness_of(run: Train, epoch: int | None = None, **arguments) -> Measure:
    """A short sharpness measurement."""
    return Measure(kind="sharpness", arguments={"iterations": 2} | arguments, of=(run.at(epoch),))


def study(seeds: int = 2) -> list[Job]:
    """Small and large batches, a chain of warm starts, measurements, some children before their parents; ghost batches, SAM
    on accumulated slices, a language model."""
    jobs: list[Job] = []
    for seed in range(seeds):
        small, large = digits_run(64, seed), digits_run(719, seed)
        warm = digits_run(300, seed, start=small.at(1))
        warmer = digits_run(400, seed, start=warm.at(2))
        jobs += [
            small,
            sharpness_of(small, epoch=1),
            sharpness_of(warmer),
            Measure(kind="path", arguments={"points": 3}, of=(small.at(), large.at())),
            large,
            sharpness_of(large, space="random", p=3),
            warm,
        ]
    sgd = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9)
    return jobs + [
        digits_run(256, epochs=1, ghost_batch_size=64),
        digits_run(256, epochs=1, optimizer=sgd, slice_size=64, sam=SamSpec(rho=0.05)),
        topics_run(),
    ]


def stuck(seed: int = 0) -> Train:
    """A run that waits for its data as long as :func:`hang` is in force: it ends only with its process."""
    return digits_run(50, seed, epochs=1, data=DataSpec(name="mnist", n_train=100, n_test=20))


def _data_files() -> dict[Path, np.ndarray]:
    folder = Path(os.environ["LBGAP_DATA"]) / "MNIST" / "raw"
    images, labels = np.arange(120 * 784).reshape(120, 28, 28) % 256, np.arange(120) % 10
    return {
        folder / "train-images-idx3-ubyte": images[:100],
        folder / "train-labels-idx1-ubyte": labels[:100],
        folder / "t10k-images-idx3-ubyte": images[100:],
        folder / "t10k-labels-idx1-ubyte": labels[100:],
    }


def hang() -> None:
    """Put pipes that nobody writes to where the data of :func:`stuck` should be."""
    for path in _data_files():
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)


def release() -> None:
    """Put the data there."""
    for path, array in _data_files().items():
        path.unlink()
        header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes()
        path.write_bytes(header + array.astype(np.uint8).tobytes())


def everything() -> set[Job]:
    """The jobs of the study and the run that only a measurement names."""
    return set(study()) | {parent.run for job in study() for parent in job.parents}


def quietly(jobs, store, cache, **arguments) -> sweep.Outcome:
    """A sweep in this process, unless told otherwise, with its progress thrown away."""
    return sweep.complete(jobs, store, cache, **{"workers": 0, "device": "cpu", "progress": io.StringIO()} | arguments)


def contents(store: Store) -> dict[Job, dict]:
    """What the records of a store say, by job."""
    return {record.job: record.results for record in store}


def stamps(store: Store) -> dict[Path, tuple[bytes, int]]:
    """The bytes of every record and when they were written."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in store.folder.glob("??/*.json")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[Job, dict]:
    """The records of a sweep that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    store = Store(folder / "results")
    outcome = quietly(study(), store, Cache(folder / "weights"))
    assert (outcome.done, outcome.left, outcome.failed) == (len(everything()), 0, {})
    return contents(store)


# ---------------------------------------------------------------- plans


def test_a_plan_has_each_missing_job_once_parents_first(store, cache, rng):
    jobs = study()
    for _ in range(20):
        tasks = sweep.plan([jobs[i] for i in rng.permutation(len(jobs))] + jobs[:3], store, cache)
        order = [task.job for task in tasks]
        assert len(order) == len(set(order))
        assert set(order) == everything()
        for i, task in enumerate(tasks):
            assert {w.run for w in task.needs} == {w.run for w in task.job.parents}
            assert {w.run for w in task.needs} <= set(order[:i])


def test_a_plan_keeps_the_epochs_that_others_wait_for(store, cache):
    run = digits_run(epochs=4)
    jobs = [sharpness_of(run, 1), run, sharpness_of(run), digits_run(seed=1, start=run.at(2))]
    kept = {task.job: task.keep for task in sweep.plan(jobs, store, cache)}
    assert kept[run] == {1, 2, 4}
    quietly(jobs, store, cache)
    assert [epoch for epoch in range(5) if run.at(epoch) in cache] == [1, 2, 4]


def test_what_is_recorded_is_not_planned(store, cache):
    runs = [digits_run(seed=seed) for seed in range(3)]
    quietly(runs[:1], store, cache)
    assert sweep.missing(runs, store) == runs[1:]
    assert [task.job for task in sweep.plan(runs, store, cache)] == runs[1:]


# ---------------------------------------------------------------- the same records, however they are made


def test_a_second_sweep_does_nothing(store, cache, undisturbed):
    assert quietly(study(), store, cache).done == len(everything())
    before = stamps(store)
    again = quietly(study(), store, cache)
    assert (again.done, again.left, again.failed) == (0, 0, {})
    assert stamps(store) == before
    assert contents(store) == undisturbed


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_records_of_one_process(store, cache, undisturbed, workers):
    outcome = quietly(study(), store, cache, workers=workers)
    assert (outcome.done, outcome.left, outcome.failed) == (len(everything()), 0, {})
    assert contents(store) == undisturbed


def test_the_order_asked_for_does_not_matter(store, cache, undisturbed):
    quietly(reversed(study()), store, cache)
    assert contents(store) == undisturbed


def test_progress_counts_every_job_and_names_each_as_it_is_recorded(store, cache, capsys):
    runs, seen, stream = [digits_run(seed=seed) for seed in range(3)], [], io.StringIO()
    sweep.complete(runs, store, cache, workers=0, progress=stream, on_record=lambda job: seen.append((job, len(list(store)))))
    assert seen == [(run, i) for i, run in enumerate(runs, 1)]
    assert "3/3" in stream.getvalue()
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- weights that are gone


def test_a_run_whose_weights_are_gone_is_repeated_and_its_record_stays(store, cache, monkeypatch):
    """Its weights are all that is wanted: nothing is evaluated again."""
    run = digits_run()
    quietly([run], store, cache)
    before = stamps(store)
    shutil.rmtree(cache.folder)
    monkeypatch.setattr(train, "loss_and_metric", None)
    outcome = quietly([sharpness_of(run)], store, cache)
    assert (outcome.done, outcome.left) == (2, 0)
    assert before.items() <= stamps(store).items()
    assert set(contents(store)) == {run, sharpness_of(run)}


def test_a_whole_chain_whose_weights_are_gone_is_repeated(store, cache, undisturbed):
    """Of a warm start's weights nothing is left, not even its parent's: the measurement still comes out the same."""
    last = study()[2]
    chain = [last.of[0].run, last.of[0].run.start.run, last.of[0].run.start.run.start.run]
    quietly(chain, store, cache)
    before = stamps(store)
    shutil.rmtree(cache.folder)
    assert quietly([last], store, cache).done == 4
    assert contents(store)[last] == undisturbed[last]
    assert before.items() <= stamps(store).items()


def test_an_epoch_not_kept_is_made_again(store, cache, undisturbed):
    early = study()[1]
    quietly([early.of[0].run], store, cache)
    assert early.of[0] not in cache
    assert [task.until for task in sweep.plan([early], store, cache)] == [early.of[0].epoch, None]
    assert quietly([early], store, cache).done == 2
    assert contents(store)[early] == undisturbed[early]


def test_weights_without_a_record_do_not_spare_the_run(store, cache, undisturbed):
    """What a kill between the two leaves; the run is no job of its own here, only what a measurement needs."""
    last = study()[2]
    chain = everything() & {last, last.of[0].run, last.of[0].run.start.run, last.of[0].run.start.run.start.run}
    quietly([last], store, cache)
    store.path(last.key).unlink()
    store.path(last.of[0].run.key).unlink()
    assert quietly([last], store, cache).done == 2
    assert contents(store) == {job: undisturbed[job] for job in chain}


# ---------------------------------------------------------------- folders taken away in mid-run


@pytest.mark.parametrize("workers", [0, 1])
def test_weights_taken_away_in_mid_run_are_made_again(store, cache, workers):
    """The run's record is there and its weights are gone before its measurement begins: the run is repeated, once."""
    run = digits_run()
    thefts = []

    def steal(job: Job) -> None:
        if job == run and not thefts:
            thefts.append(job)
            shutil.rmtree(cache.folder)

    outcome = quietly([run, sharpness_of(run)], store, cache, workers=workers, on_record=steal)
    assert thefts
    assert (outcome.done, outcome.left, outcome.failed) == (2, 0, {})
    assert set(contents(store)) == {run, sharpness_of(run)}


def test_weights_that_vanish_again_and_again_end_in_a_sentence(store, cache, monkeypatch):
    run = digits_run()
    monkeypatch.setattr(Cache, "put", lambda *_: None)
    stream = io.StringIO()
    outcome = quietly([run, sharpness_of(run)], store, cache, progress=stream)
    assert set(outcome.failed) == {sharpness_of(run).key}
    assert f"weights of run {run.key} after epoch 3 are not in {cache.folder}" in stream.getvalue()
    assert outcome.left == 0


def test_records_taken_away_in_mid_run_stop_nothing(store, cache):
    jobs = [digits_run(seed=seed) for seed in range(3)]
    outcome = quietly(jobs, store, cache, on_record=lambda job: shutil.rmtree(store.folder) if job == jobs[1] else None)
    assert (outcome.done, outcome.left, outcome.failed) == (3, 0, {})
    assert set(contents(store)) == {jobs[2]}
    assert quietly(jobs, store, cache).done == 2
    assert set(contents(store)) == set(jobs)


def test_a_file_in_the_place_of_a_folder_fails_one_job_in_a_sentence(store, cache):
    jobs = [digits_run(seed=seed) for seed in range(2)]
    store.folder.mkdir()
    folder = store.path(jobs[0].key).parent
    cache.folder.mkdir()
    (cache.folder / jobs[1].key).write_text("")
    folder.write_text("")
    with pytest.raises(ValueError, match=f"^record {store.path(jobs[0].key)} cannot be read \\(not a directory\\)"):
        quietly(jobs, store, cache)
    folder.unlink()
    outcome = quietly(jobs, store, cache)
    assert outcome.done == 1
    assert outcome.failed[jobs[1].key].startswith(f"weights {cache.path(jobs[1].at())} cannot be written (")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"minutes": "5"}, "minutes is '5'; accepted is a number above 0"),
        ({"minutes": 0}, "minutes is 0; accepted is a number above 0"),
        ({"minutes": float("inf")}, "minutes is inf; accepted is a number above 0"),
        ({"minutes": True}, "minutes is True; accepted is a number above 0"),
        ({"workers": "2"}, "workers is '2'; accepted is 0 or more"),
        ({"workers": 1.5}, "workers is 1.5; accepted is 0 or more"),
        ({"workers": -1}, "workers is -1; accepted is 0 or more"),
    ],
)
def test_limits_are_checked(store, cache, arguments, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        quietly([digits_run()], store, cache, **arguments)


def test_more_workers_than_jobs_are_no_more_than_these(store, cache, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, "Pool", lambda workers: asked.append(workers) or Here())
    assert quietly([digits_run()], store, cache, workers=10**12).done == 1
    assert asked == [1]


def test_folders_are_handed_to_workers_as_they_are_seen_from_here(tmp_path, monkeypatch):
    """A worker of a cluster may stand in another directory."""
    monkeypatch.chdir(tmp_path)
    handed, perform = [], sweep._perform

    def elsewhere(task, folder, cache_folder, *rest):
        handed.append((folder, cache_folder))
        return perform(task, folder, cache_folder, *rest)

    monkeypatch.setattr(sweep, "_perform", elsewhere)
    assert quietly([digits_run()], Store("results"), Cache(Path("weights"))).done == 1
    assert handed == [(tmp_path / "results", tmp_path / "weights")]


def test_limits_may_be_numpy_numbers(store, cache):
    assert quietly([digits_run()], store, cache, minutes=np.float64(5), workers=np.int64(0)).done == 1


# ---------------------------------------------------------------- jobs that fail, runs that diverge


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_job_does_not_stop_the_others(store, cache, workers):
    """Its measurement is not recorded either: nothing is known of weights that were never made."""
    lost = digits_run(data=DataSpec(name="mnist"), updates=3)
    child = digits_run(seed=7, data=DataSpec(name="mnist"), updates=3, start=lost.at(0))
    well = [digits_run(), sharpness_of(digits_run())]
    stream = io.StringIO()
    outcome = quietly([lost, sharpness_of(lost), child, *well], store, cache, workers=workers, progress=stream)
    assert set(contents(store)) == set(well)
    assert (outcome.done, outcome.left) == (2, 0)
    assert set(outcome.failed) == {lost.key, sharpness_of(lost).key, child.key}
    assert "data set 'mnist' not found" in outcome.failed[lost.key]
    assert stream.getvalue().count("3 jobs cannot run: data set 'mnist' not found") == 1, "said once, before anything starts"
    assert not any("\n" in sentence for sentence in outcome.failed.values())
    assert {task.job for task in sweep.plan([sharpness_of(lost), child], store, cache)} == {lost, sharpness_of(lost), child}


def test_what_a_diverged_run_cannot_give_is_recorded_as_diverged(store, cache):
    run = digits_run(optimizer=OptimizerSpec(name="sgd", learning_rate=1e12))
    child = digits_run(seed=1, start=run.at())
    jobs = [sharpness_of(run), child, sharpness_of(child)]
    outcome = quietly(jobs, store, cache)
    assert (outcome.done, outcome.left, outcome.failed) == (4, 0, {})
    assert all(contents(store)[job]["diverged"] is True for job in (run, *jobs))
    assert sweep.plan(jobs, store, cache) == []
    # and a later question about the same run does not repeat it
    assert [task.job for task in sweep.plan([sharpness_of(run, epsilon=0.1)], store, cache)] == [sharpness_of(run, epsilon=0.1)]


def test_what_a_run_gives_before_it_diverges_does_not_depend_on_when_one_asks(store, cache, tmp_path):
    """Weights that grow threefold with each update overflow in the seventh epoch; those of the first are sound."""
    run = digits_run(epochs=12, optimizer=OptimizerSpec(name="sgd", learning_rate=1.0, weight_decay=4.0))
    early = sharpness_of(run, epoch=1)
    quietly([run, early], store, cache)
    together = contents(store)
    assert together[run]["diverged"]
    assert math.isfinite(together[early]["value"])
    later = Store(tmp_path / "later")
    quietly([run], later, Cache(tmp_path / "elsewhere"))
    quietly([early], later, Cache(tmp_path / "elsewhere"))
    assert contents(later) == together


# ---------------------------------------------------------------- limits and interruptions


@pytest.fixture
def stuck_workers():
    """Pipes that nobody writes to; should a sweep wait for its stuck workers, they are ended and the test fails."""
    hang()
    late = threading.Event()

    def end() -> None:
        late.set()
        for worker in workers_of(psutil.Process()):
            worker.kill()

    timer = threading.Timer(PATIENCE, end)
    timer.start()
    yield
    timer.cancel()
    assert not late.is_set(), "the sweep waited for a worker that it should have ended"


def test_a_time_limit_keeps_the_finished_and_abandons_the_rest(store, cache, monkeypatch, stuck_workers):
    """The clock of the sweep stands still until the first record and is then far beyond the limit."""
    clock = SimpleNamespace(now=time.time())
    clock.time = lambda: clock.now
    jobs = [digits_run(), stuck(), sharpness_of(digits_run(), epsilon=0.1)]
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "time", clock)
        outcome = quietly(
            jobs, store, cache, workers=2, minutes=10, on_record=lambda job: setattr(clock, "now", clock.now + 1e6)
        )
    assert set(contents(store)) == {jobs[0]}
    assert (outcome.done, outcome.left, outcome.failed) == (1, 2, {})
    assert workers_of(psutil.Process()) == []
    before = stamps(store)
    release()
    assert quietly(jobs, store, cache, workers=1, minutes=60).done == 2
    assert set(contents(store)) == set(jobs)
    assert before.items() <= stamps(store).items()


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The processes below one; Python's own, which end with it (of shared memory, of other tests' forks), are none of them."""
    python = ("resource_tracker", "multiprocessing.forkserver")
    return [p for p in process.children(recursive=True) if not any(own in " ".join(p.cmdline()) for own in python)]


def test_an_interruption_while_a_job_is_handed_over_ends_the_workers(store, cache, monkeypatch, stuck_workers):
    """Starting a worker takes longest, so that Ctrl-C is likely to come just then."""
    hand_over = executors.ProcessPoolExecutor.submit

    def interrupted(*arguments):
        hand_over(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(executors.ProcessPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quietly([stuck()], store, cache, workers=1)
    assert not workers_of(psutil.Process())


def test_a_time_limit_puts_runs_down_and_the_next_call_goes_on_with_them(store, cache, tmp_path):
    """A run of hours; half a second passes before the first worker has imported torch."""
    long = digits_run(epochs=100_000, evaluate_every=100_000)
    outcome = quietly([long], store, cache, workers=0, minutes=0.01)
    assert (outcome.done, outcome.left, outcome.failed) == (0, 1, {})
    (file,) = (cache.folder.with_name("checkpoints")).iterdir()
    assert torch.load(file, weights_only=True)["state"]["place"]["update"] >= 1


def test_a_worker_that_is_killed_is_replaced(store, cache, stuck_workers):
    killed = []

    def kill(_: Job) -> None:
        if not killed:
            killed.extend(workers_of(psutil.Process()))
            for worker in killed:
                worker.kill()
            release()

    jobs = [digits_run(), stuck(0), sharpness_of(digits_run(seed=1))]
    outcome = quietly(jobs, store, cache, workers=2, on_record=kill)
    assert outcome.failed == {} and outcome.left == 0
    assert set(contents(store)) >= set(jobs)
    assert killed and workers_of(psutil.Process()) == []


DEADLY = """
import os
import signal

from lbgap import networks
from lbgap.papers.paper import Settings as PaperSettings
from lbgap.papers.paper import Study

PROFILES = ("quick",)


def deadly(shape, n_classes):
    os.kill(os.getpid(), signal.SIGKILL)


def study(settings):
    return Study("deadly", settings.profile)


networks.register("deadly.net", deadly)
"""


def test_a_job_whose_workers_die_again_and_again_fails_alone(store, cache, tmp_path, monkeypatch):
    """Its network, which a paper of one's own brings along, kills the process; jobs lost with it are not blamed."""
    (tmp_path / "deadly.yaml").write_text("claims: {}\n")
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.setenv("LBGAP_PAPERS", str(tmp_path))
    papers.papers()
    try:
        deadly = digits_run(model="deadly.net", options={})
        others = [digits_run(), digits_run(seed=1)]
        outcome = quietly([deadly, *others], store, cache, workers=2)
    finally:
        del networks.NETWORKS["deadly.net"]
    assert outcome.failed == {
        deadly.key: "its worker died 3 times; has the machine enough memory, and a script its __main__ guard?"
    }
    assert set(contents(store)) == set(others)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shares_are_disjoint_whole_and_need_no_run_of_another(of):
    jobs = [digits_run(seed=s) for s in range(5)]
    jobs += [sharpness_of(digits_run(seed=s)) for s in range(6)]
    jobs += [digits_run(seed=9, start=digits_run(seed=8).at(1)), sharpness_of(digits_run(seed=8))]
    jobs += [Measure(kind="path", of=(digits_run(seed=3).at(), digits_run(seed=4).at()))]
    parts = [sweep.share(jobs, i, of) for i in range(1, of + 1)]
    assert sorted(job.key for part in parts for job in part) == sorted(job.key for job in jobs)

    def runs(job):
        return {job.key} | {k for w in job.parents for k in runs(w.run)}

    needed = [{key for job in part for key in runs(job)} for part in parts]
    assert sum(map(len, needed)) == len(set().union(*needed))
    assert len([part for part in parts if part]) == min(of, 6)


@pytest.mark.parametrize("part, of", [(0, 2), (3, 2), (1, 0)])
def test_a_share_that_is_none_is_refused(part, of):
    with pytest.raises(ValueError, match=f"^share is {part}/{of}; accepted is i/n with i from 1 to n$"):
        sweep.share([], part, of)


# ---------------------------------------------------------------- killed from outside

DRIVER = """
import signal, sys
from pathlib import Path
from test_sweep import die, study, stuck
from lbgap import sweep
from lbgap.jobs import Cache
from lbgap.records import Store
folder, workers, how, at = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
die(how, at)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts in the background
jobs = study() + ([stuck()] if workers else [])
sweep.complete(jobs, Store(folder / "results"), Cache(folder / "weights"), workers=workers, device="cpu")
"""


def die(how: str, at: int) -> None:
    """Have this process killed at its ``at``-th record, just before it or just after, or at its ``at``-th backward pass."""
    calls = itertools.count(1)
    link, backward = os.link, torch.Tensor.backward

    def now() -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def linked(*args, **kwargs):
        if how == "before":
            now()
        link(*args, **kwargs)
        if how == "after":
            now()

    def passed(*args, **kwargs):
        backward(*args, **kwargs)
        now()

    if how in ("before", "after"):
        os.link = linked
    if how == "epoch":
        torch.Tensor.backward = passed


@pytest.fixture
def start():
    """Start the study's sweep in a process group of its own; with workers, a run follows that never ends."""
    begun: list[subprocess.Popen] = []

    def begin(folder: Path, workers: int = 0, how: str = "", at: int = 0) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", DRIVER, str(folder), str(workers), how, str(at)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(PATH)},
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        with contextlib.suppress(ProcessLookupError):  # only where a test has failed is anything left to end
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)


def finish(folder: Path, undisturbed: dict[Job, dict]) -> None:
    """Start again: only what was missing is done, no record changes, and all is as if nothing had happened."""
    store, cache = Store(folder / "results"), Cache(folder / "weights")
    before, held = stamps(store), contents(store)
    outcome = quietly(study(), store, cache)
    assert (outcome.done, outcome.left, outcome.failed) == (len(everything()) - len(held), 0, {})
    assert before.items() <= stamps(store).items()
    assert contents(store) == undisturbed


def await_records(folder: Path, process: subprocess.Popen, n: int) -> None:
    """Return once the store holds n records and a worker is there; the sweep must still be at work."""
    until = time.monotonic() + PATIENCE
    while len(list(folder.glob("results/??/*.json"))) < n or not workers_of(psutil.Process(process.pid)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def assert_gone(processes: list[psutil.Process]) -> None:
    """Every process ends by itself; psutil tells a process from another that was given its number later."""
    until = time.monotonic() + PATIENCE
    while alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < until, f"still running: {alive}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("how", "at", "records"),
    [
        ("before", 6, 5),
        ("after", 6, 6),
        ("epoch", 23 + 11, 0),  # 23 updates an epoch: in the middle of the first run's second
    ],
)
def test_killed_at_the_worst_moments(start, tmp_path, undisturbed, how, at, records):
    process = start(tmp_path, 0, how, at)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == -signal.SIGKILL, errors
    assert len(list(Store(tmp_path / "results"))) == records
    finish(tmp_path, undisturbed)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_three_times_at_random_with_workers(start, tmp_path, undisturbed, rng, workers):
    """Each time the workers go with their parent, and the next sweep goes on."""
    hang()
    for new in rng.integers(1, 5, 3):
        n = min(len(contents(Store(tmp_path / "results"))) + new, len(everything()))
        process = start(tmp_path, workers)
        await_records(tmp_path, process, n)
        time.sleep(rng.random() * 0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        assert 1 <= len(workers_of(psutil.Process(process.pid))) <= workers
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL
        assert_gone(children)
        held = contents(Store(tmp_path / "results"))
        assert len(held) >= n
        assert held.items() <= undisturbed.items()
    finish(tmp_path, undisturbed)


def test_ctrl_c_keeps_the_finished_and_leaves_no_process(start, tmp_path, undisturbed):
    """A terminal sends SIGINT to the whole group, workers too."""
    hang()
    process = start(tmp_path, 2)
    await_records(tmp_path, process, 3)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert_gone(children)
    finish(tmp_path, undisturbed)


def test_two_sweeps_on_one_store_lose_nothing(start, tmp_path, undisturbed):
    sweeps = [start(tmp_path), start(tmp_path)]
    for process in sweeps:
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0, errors
    assert contents(Store(tmp_path / "results")) == undisturbed
    assert not list((tmp_path / "results").rglob("*.part"))
    assert not list((tmp_path / "weights").rglob("*.part"))
