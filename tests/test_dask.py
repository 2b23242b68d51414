"""A sweep on a Dask cluster: a real scheduler, real worker processes, one of them killed."""

import io
import os
import signal

import pytest
from conftest import digits_run

from lbgap import executors, sweep
from lbgap.jobs import Cache
from lbgap.records import Store
from lbgap.spec import Job, Measure

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread each."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster:
        yield cluster


def jobs() -> list[Job]:
    """Runs, and measurements that wait for them."""
    runs = [digits_run(64, seed, epochs=20) for seed in range(4)]
    return runs + [Measure(kind="sharpness", arguments={"iterations": 2}, of=(run.at(),)) for run in runs]


def contents(store: Store) -> dict[Job, dict]:
    """Results by job."""
    return {record.job: record.results for record in store}


def test_a_killed_worker_loses_nothing(cluster, store, cache, tmp_path):
    undisturbed = Store(tmp_path / "other")
    sweep.complete(jobs(), undisturbed, Cache(tmp_path / "elsewhere" / "weights"), workers=0, progress=io.StringIO())
    killed = []

    def kill(_: Job) -> None:
        if not killed:
            killed.append(next(iter(cluster.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    address = cluster.scheduler_address
    outcome = sweep.complete(jobs(), store, cache, progress=io.StringIO(), scheduler=address, on_record=kill)
    assert killed
    assert (outcome.left, outcome.failed) == (0, {})
    assert contents(store) == contents(undisturbed)


def test_a_scheduler_that_does_not_answer_is_refused(store, cache, monkeypatch):
    monkeypatch.setattr(executors, "TIMEOUT", 0.5)
    with pytest.raises(ValueError, match="^scheduler is 'tcp://127.0.0.1:1'; accepted is 'local' or the address of one"):
        sweep.complete(jobs(), store, cache, progress=io.StringIO(), scheduler="tcp://127.0.0.1:1")


def test_workers_of_several_threads_are_refused(store, cache):
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as wide:
        with pytest.raises(ValueError, match="has 2 threads; accepted are workers of one"):
            sweep.complete(jobs(), store, cache, progress=io.StringIO(), scheduler=wide.scheduler_address)
    assert list(store) == []


def test_a_cluster_of_ones_own_is_started_and_ended(store, cache):
    executor = executors.Dask("local", 1)
    assert executor.submit(os.environ.get, "MALLOC_ARENA_MAX").result() == "1"  # its thread, too, keeps freed memory
    executor.close(True)
    some = jobs()[:1]
    outcome = sweep.complete(some, store, cache, workers=1, progress=io.StringIO(), scheduler="local")
    assert (outcome.done, outcome.left) == (1, 0)
    assert set(contents(store)) == set(some)
