"""Which jobs have no record? Run them, within a time limit, losing nothing that was finished."""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from scipy.cluster.hierarchy import DisjointSet
from tqdm import tqdm

from lbgap import jobs as job_files
from lbgap import papers, paths, replicas
from lbgap.executors import Dask, Here, Pool
from lbgap.jobs import Cache, Checkpoint, Group, default_device, execute, execute_together, make_weights
from lbgap.pauses import Stopped
from lbgap.records import Record, Store
from lbgap.sources import DataMissing, locate
from lbgap.spec import Job, Train, Weights
from lbgap.values import is_real, is_whole


@dataclass
class Outcome:
    """What a sweep did: records written, jobs left, and the sentence of each job that failed."""

    done: int = 0
    left: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A job to run, the epochs of its weights that others wait for, and the weights it waits for itself.

    ``until``: the last epoch of a run that has its record and is repeated for its weights; ``beside``: the tasks of runs
    that train together with this one.
    """

    job: Job
    keep: frozenset[int]
    needs: frozenset[Weights]
    until: int | None = None
    beside: tuple["Task", ...] = ()

    @property
    def each(self) -> "tuple[Task, ...]":
        """This task and those beside it, one by one."""
        return replace(self, beside=()), *self.beside


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
            None if store.get(job) is None else max(wanted[job]),
        )
        for job in order
    ]


def complete(
    jobs: Iterable[Job],
    store: Store | None = None,
    cache: Cache | None = None,
    minutes: float | None = None,
    workers: int = 1,
    device: str | None = None,
    progress: IO[str] | None = None,
    on_record: Callable[[Job], None] | None = None,
    scheduler: str | None = None,
) -> Outcome:
    """Run what is missing, in the order given, ``workers`` processes at a time.

    Records are written by the process that computed them, the moment they are done; Ctrl-C or a kill loses what jobs in
    flight did since their last checkpoint, and the next call goes on with what is missing. Two sweeps may share a store.
    Of a tolerant store, jobs whose record is damaged, and those that need its weights, fail with the sentence that says so.
    A job whose worker dies begins again in another, a training run from its checkpoint; three times, then it has failed.

    Args:
        minutes: stop after so long; training runs in flight are put down, and the next call goes on with them.
        workers: 0 runs in this process; else so many spawned processes, which know the networks, data sets and measures of
            this library and of ``LBGAP_PAPERS`` alone, and of a script that is the main program need its ``__main__`` guard.
        scheduler: of a Dask cluster, in place of processes of this machine: its address, or "local" for one of ``workers``.
        progress: stream of the progress bar (None: stderr).
    Raises:
        ValueError: minutes or workers out of range, a folder that cannot be written to, a scheduler that does not answer.
    """
    check_limits(minutes, workers, least=0)
    store, cache = store or Store(), cache or Cache()
    tasks = plan(jobs, store, cache)
    if tasks:
        paths.writable("results", store.folder)
        paths.writable("cache", cache.folder)
    outcome = Outcome(left=len(tasks))
    deadline = time.time() + 60 * minutes if minutes is not None else None
    with tqdm(total=len(tasks), file=progress or sys.stderr, unit="job", dynamic_ncols=progress is None) as bar:

        def done(task: Task, error: BaseException | None) -> None:
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
        tasks = [t for t in tasks if t.job not in faults]
        if tasks:
            workers = min(workers, len(tasks))
            executor = Dask(scheduler, workers) if scheduler else Pool(workers) if workers else Here()
            if (device or default_device()) == "cpu":  # where it was measured to pay
                tasks = together(tasks, store, cache, executor.places)
            _through(executor, tasks, store, cache, deadline, device, done)
    return outcome


def check_limits(minutes: float | None, workers: int, least: int = 1) -> None:
    """ValueError where a time limit is not a finite number above 0, or there are fewer than ``least`` workers."""
    if minutes is not None and not (is_real(minutes) and 0 < minutes < math.inf):
        raise ValueError(f"minutes is {_shown(minutes)}; accepted is a number above 0")
    if not is_whole(workers) or workers < least:
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


def together(tasks: list[Task], store: Store, cache: Cache, places: int) -> list[Task]:
    """The tasks, with runs that are quicker together than one after another as groups, in the place of their first.

    A group has 4 to 20 runs, and there are as many groups as an executor has places if there are runs enough. What was
    begun alone, and what is repeated for its weights, stays alone; a group that was put down is the same group again. One of
    which a run has been recorded since cannot be taken up for the others: its checkpoint goes. Groups of other sweeps stay.
    """
    alike: dict[str, list[Task]] = {}
    for task in tasks:
        if isinstance(task.job, Train) and (kind := replicas.kind(task.job)) and store.get(task.job) is None:
            if not Checkpoint(task.job, cache).path.exists():
                alike.setdefault(kind, []).append(task)
    free = {task.job.key: task for members in alike.values() for task in members}
    parts = []
    for checkpoint, keys in job_files.put_down_together(cache).items():
        if all(key in free for key in keys):
            parts.append([free.pop(key) for key in keys])
        elif any(key in free for key in keys) and any(store.path(key).exists() for key in keys):
            checkpoint.unlink(missing_ok=True)
    for kind in alike.values():
        members = [task for task in kind if task.job.key in free]
        if len(members) < replicas.LEAST or not replicas.pays(members[0].job):
            continue
        number = max(math.ceil(len(members) / replicas.MOST), min(places, len(members) // replicas.LEAST))
        parts += [members[i * len(members) // number : (i + 1) * len(members) // number] for i in range(number)]
    groups: dict[Job, Task | None] = {}
    for first, *others in parts:
        groups |= {first.job: replace(first, beside=tuple(others))} | {other.job: None for other in others}
    return [group for task in tasks if (group := groups.get(task.job, task)) is not None]


def _perform(task: Task, folder: Path, cache_folder: Path, device: str | None, deadline: float | None) -> list[Record]:
    """Do one task, in whatever process; training runs are put down at ``deadline`` (of ``time.time()``).

    The records are written here, and handed back too, since this may be another machine; not those that were there already.
    """
    papers.papers()  # a process of its own does not know yet the networks, data sets and measures that they bring along
    until = None if deadline is None else time.monotonic() + deadline - time.time()
    store, cache = Store(folder), Cache(cache_folder)
    todo = [t for t in task.each if store.get(t.job) is None]
    if len(todo) < replicas.LEAST:
        records = (_alone(t, store, cache, device, until) for t in task.each)
        return [record for record in records if record is not None]
    for t in task.each:
        if t not in todo:
            _alone(t, store, cache, device, until)
    group = Group(tuple(t.job for t in todo))
    records = [store.put(r) for r in execute_together(group, cache, device, [t.keep for t in todo], until)]
    job_files.finished(group, cache)
    return records


def _alone(task: Task, store: Store, cache: Cache, device: str | None, until: float | None) -> Record | None:
    if isinstance(task.job, Train) and store.get(task.job):
        if not all(task.job.at(e) in cache for e in task.keep):  # else another sweep on this store was faster
            make_weights(task.job, cache, device, task.keep, until)
        return None
    diverged = False
    for weights in task.job.parents:
        diverged |= not _there(weights, store, cache, device, until)
    record = store.put(execute(task.job, cache, device, task.keep, diverged, until))
    job_files.finished(task.job, cache)
    return record


def _there(weights: Weights, store: Store, cache: Cache, device: str | None, until: float | None) -> bool:
    """Whether there are such weights, after repeating a recorded run whose weights have vanished since the plan was made."""
    record = store.get(weights.run)
    if cache.sound(weights) or record is None:
        return True
    if record.results["diverged"] and weights.epoch * weights.run.updates_per_epoch >= record.results["updates"]:
        return False
    for parent in weights.run.parents:
        _there(parent, store, cache, device, until)
    make_weights(weights.run, cache, device, {weights.epoch}, until)
    return True


DEATHS = 3  # of workers under one task
GRACE = 20.0  # seconds after the deadline in which runs put themselves down


def _through(
    executor: Here | Pool | Dask,
    tasks: list[Task],
    store: Store,
    cache: Cache,
    deadline: float | None,
    device: str | None,
    done: Callable[[Task, BaseException | None], None],
) -> None:
    """Run tasks through an executor, children after their parents, as many at a time as it has places."""
    waiting, running, finished = list(tasks), {}, False
    folders = store.folder.resolve(), cache.folder.resolve()  # a worker may stand in another directory
    deaths: Counter[Job] = Counter()
    try:
        while waiting or running:
            now = time.time()
            if deadline is not None and now >= deadline:
                waiting = []
            # a child whose parent failed is run too: it finds no weights and fails with a sentence of its own
            planned = {t.job for task in (*waiting, *running.values()) for t in task.each}
            ready = [t for t in waiting if not any(w.run in planned for w in t.needs)]
            suspects = [t for t in (*ready, *running.values()) if deaths[t.job] == DEATHS - 1]
            if suspects:  # a pool breaks as a whole: the last attempt is made alone, so that no other task is blamed
                ready = [] if running else suspects[:1]
            for task in ready[: max(0, executor.places - len(running))]:
                waiting.remove(task)
                running[executor.submit(_perform, task, *folders, device, deadline)] = task
            if deadline is not None and now >= deadline + GRACE:
                return
            until = None if deadline is None else (deadline if now < deadline else deadline + GRACE) - now
            ended, _ = wait(running, timeout=until, return_when=FIRST_COMPLETED)
            for future in ended:
                task, error = running.pop(future), future.exception()
                if executor.died(error):
                    deaths[task.job] += 1
                    if deaths[task.job] < DEATHS:
                        waiting.insert(0, task)
                        continue
                    error = RuntimeError(
                        f"its worker died {DEATHS} times; has the machine enough memory, and a script its __main__ guard?"
                    )
                if isinstance(error, Stopped):
                    continue
                if error and task.beside:  # each run by itself says what is wrong with it
                    del deaths[task.job]
                    waiting = [*task.each, *waiting]
                    continue
                for record in () if error else future.result():
                    if record.job not in store:  # written on another machine's disk
                        store.put(record)
                for t in task.each:
                    done(t, error)
        finished = True
    finally:
        executor.close(finished)


def share(jobs: Iterable[Job], part: int, of: int) -> list[Job]:
    """The ``part``-th (from 1) of ``of`` shares of the jobs: no two shares need one training run.

    Runs, what is measured on them, and runs that start from them stay together; such groups are dealt out evenly.

    Raises:
        ValueError: a part that is not 1 to ``of``.
    """
    if not 1 <= part <= of:
        raise ValueError(f"share is {part}/{of}; accepted is i/n with i from 1 to n")
    jobs = list(jobs)

    def roots(job: Job) -> list[Train]:
        own = [job] if isinstance(job, Train) else []
        return own + [root for weights in job.parents for root in roots(weights.run)]

    together = DisjointSet(run for job in jobs for run in roots(job))
    for job in jobs:
        first, *others = roots(job)
        for other in others:
            together.merge(first, other)
    # by their keys, an order without pattern: else one share might get all the small batches
    groups = sorted({together[roots(job)[0]] for job in jobs}, key=lambda run: run.key)
    place = {group: i % of for i, group in enumerate(groups)}
    return [job for job in jobs if place[together[roots(job)[0]]] == part - 1]
