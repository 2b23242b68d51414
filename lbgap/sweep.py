"""Which jobs have no record? Run them, within a time limit, losing nothing that was finished."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import IO

from tqdm import tqdm

from lbgap import jobs as job_files
from lbgap import paths
from lbgap.jobs import Cache, WeightsMissing, execute, make_weights
from lbgap.records import Store
from lbgap.sources import DataMissing, locate
from lbgap.spec import Job, Train, Weights


@dataclass
class Outcome:
    """What a sweep did: records written, jobs left, and the sentence of each job that failed."""

    done: int = 0
    left: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A job to run, the epochs of its weights that others wait for, and the weights it waits for itself."""

    job: Job
    keep: frozenset[int]
    needs: frozenset[Weights]


def missing(jobs: Iterable[Job], store: Store) -> list[Job]:
    """The jobs without a record, each once, in order."""
    return [job for job in dict.fromkeys(jobs) if store.get(job) is None]


def plan(jobs: Iterable[Job], store: Store, cache: Cache) -> list[Task]:
    """What must run, parents before children: the jobs without a record, and the runs whose weights they lack.

    A run that has its record but whose weights are gone is repeated; one that diverged is not, since it has none. Weights
    without their run's record are what a sweep left that was killed between the two: that run is repeated too.
    """
    order: dict[Job, None] = {}
    wanted: dict[Train, set[int]] = {}

    def lacking(weights: Weights) -> bool:
        record = store.get(weights.run)
        if record is not None and weights in cache:
            return False
        if record is None or not record.results["diverged"]:
            return True
        # the epochs before the one in which it diverged are sound
        return weights.epoch * weights.run.updates_per_epoch < record.results["updates"]

    def add(job: Job) -> None:
        if job in order:
            return
        for weights in job.parents:
            if lacking(weights):
                wanted.setdefault(weights.run, set()).add(weights.epoch)
                add(weights.run)
        order[job] = None

    for job in missing(jobs, store):
        add(job)
    # also keep what jobs already planned will want of runs that are to be made anyway
    return [
        Task(
            job,
            frozenset(wanted.get(job, ())) if isinstance(job, Train) else frozenset(),
            frozenset(w for w in job.parents if w.run in order),
        )
        for job in order
    ]


def run(
    jobs: Iterable[Job],
    store: Store | None = None,
    cache: Cache | None = None,
    minutes: float | None = None,
    workers: int = 1,
    device: str | None = None,
    progress: IO[str] | None = None,
    on_record: Callable[[Job], None] | None = None,
) -> Outcome:
    """Run what is missing, in the order given, ``workers`` processes at a time.

    Records are written by the process that computed them, the moment they are done; a time limit, Ctrl-C or a kill
    therefore loses only jobs in flight, and the next call goes on with what is missing. Two sweeps may share a store.

    A run whose weights were taken away while others still waited for them is repeated, once. Of a tolerant store, jobs whose
    record is damaged, and those that need its weights, fail with the sentence that says so.

    Args:
        minutes: stop after so long; jobs in flight are abandoned.
        workers: 0 runs in this process; else so many spawned processes.
        progress: stream of the progress bar (None: stderr).
    Raises:
        ValueError: minutes or workers out of range, a folder that cannot be written to.
    """
    check_limits(minutes, workers, least=0)
    store, cache = store or Store(), cache or Cache()
    tasks = plan(jobs, store, cache)
    if tasks:
        paths.writable("results", store.folder)
        paths.writable("cache", cache.folder)
    outcome = Outcome(left=len(tasks))
    robbed: list[Job] | None = []  # jobs that found no weights although the run that makes them did not fail
    deadline = time.monotonic() + 60 * minutes if minutes is not None else None
    with tqdm(total=len(tasks), file=progress or sys.stderr, unit="job", dynamic_ncols=progress is None) as bar:

        def done(task: Task, error: BaseException | None) -> None:
            if isinstance(error, WeightsMissing) and robbed is not None:
                if not any(w.run.key in outcome.failed for w in task.job.parents):
                    robbed.append(task.job)
                    return
            outcome.left -= 1
            if error is None:
                outcome.done += 1
                if on_record:
                    on_record(task.job)
            else:
                why = paths.in_words(error)
                if why not in outcome.failed.values():
                    bar.write(f"{task.job.kind} {task.job.key} failed: {why}", file=progress or sys.stderr)
                outcome.failed[task.job.key] = why
            bar.update()

        faults = _faults(tasks, store)
        for why, n in Counter(map(str, faults.values())).items():
            bar.write(f"{n} {'job' if n == 1 else 'jobs'} cannot run: {why}", file=progress or sys.stderr)
        outcome.failed = {job.key: str(fault) for job, fault in faults.items()}
        outcome.left -= len(faults)
        bar.update(len(faults))
        runner = _here if workers == 0 else _spawned
        runner([t for t in tasks if t.job not in faults], store, cache, deadline, workers, device, done)
        if robbed:
            tasks = plan(robbed, store, cache)
            bar.total += len(tasks) - len(robbed)
            outcome.left += len(tasks) - len(robbed)
            robbed = None
            runner(tasks, store, cache, deadline, workers, device, done)
    return outcome


def check_limits(minutes: float | None, workers: int, least: int = 1) -> None:
    """ValueError where a time limit is not above 0, or there are fewer than ``least`` workers."""
    if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, Real) or not minutes > 0):
        raise ValueError(f"minutes is {_shown(minutes)}; accepted is a number above 0")
    if isinstance(workers, bool) or not isinstance(workers, Integral) or workers < least:
        raise ValueError(f"workers is {_shown(workers)}; accepted is {least} or more")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _faults(tasks: list[Task], store: Store) -> dict[Job, Exception]:
    """What keeps jobs from being run, known before a process starts: data that are not there, damaged records."""
    absent, damaged = missing_data(task.job for task in tasks), {}
    for job in (task.job for task in tasks):  # parents come before children
        of_parents = (damaged[weights.run] for weights in job.parents if weights.run in damaged)
        if fault := store.damaged.get(store.path(job.key)) or next(of_parents, None):
            damaged[job] = fault
    return {t.job: absent[t.job.run.data.name] for t in tasks if t.job.run.data.name in absent} | damaged


def missing_data(jobs: Iterable[Job]) -> dict[str, DataMissing]:
    """By name, the data sets of the jobs that are not where they are looked for."""
    missing = {}
    for name in dict.fromkeys(job.run.data.name for job in jobs):
        try:
            locate(name)
        except DataMissing as error:
            missing[name] = error
    return missing


def _perform(task: Task, folder: Path, cache_folder: Path, device: str | None, seconds: float | None = None) -> None:
    """Do one task; a training run is put down after ``seconds``, with :class:`~lbgap.train.Stopped`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    store, cache = Store(folder), Cache(cache_folder)
    if isinstance(task.job, Train) and store.get(task.job):
        if not all(task.job.at(e) in cache for e in task.keep):  # else another sweep on this store was faster
            make_weights(task.job, cache, device, task.keep, deadline)
        return
    lacking = [store.get(w.run) for w in task.job.parents if w not in cache]
    diverged = any(record is not None and record.results["diverged"] for record in lacking)
    store.put(execute(task.job, cache, device, task.keep, diverged, deadline))
    job_files.finished(task.job, cache)


def _here(tasks, store, cache, deadline, workers, device, done) -> None:
    for task in tasks:
        if deadline is not None and time.monotonic() > deadline:
            return
        try:
            _perform(task, store.folder, cache.folder, device)
        except Exception as error:
            done(task, error)
        else:
            done(task, None)


def _worker_begins() -> None:
    """In a spawned worker: leave Ctrl-C to the parent, one thread a job, and die with the parent however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _spawned(tasks, store, cache, deadline, workers, device, done) -> None:
    context = multiprocessing.get_context("spawn")
    waiting = list(tasks)
    running: dict[Future, Task] = {}
    finished, others = False, multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_worker_begins)
    try:
        while waiting or running:
            # a child whose parent failed is run too: it finds no weights and fails with a sentence of its own
            planned = {t.job for t in waiting} | {t.job for t in running.values()}
            ready = [t for t in waiting if not any(w.run in planned for w in t.needs)]
            for task in ready[: workers - len(running)]:
                waiting.remove(task)
                running[pool.submit(_perform, task, store.folder, cache.folder, device)] = task
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            ended, _ = wait(running, timeout=left, return_when=FIRST_COMPLETED)
            for future in ended:
                task = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise RuntimeError("a worker process was killed; run again to go on with what is missing") from error
                done(task, error)
        finished = True
    finally:
        processes = [child for child in multiprocessing.active_children() if child not in others]
        pool.shutdown(wait=False, cancel_futures=True)
        if not finished:  # the time limit, or Ctrl-C, which may come while a worker is being started
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        for process in processes:
            process.join()
