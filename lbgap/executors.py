"""Where jobs run: in this process, in processes of this machine, or on a Dask cluster.

Each is a ``concurrent.futures.Executor`` with a number of places, and knows what to do when a worker dies.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from lbgap.workers import WorkersLost


class Here(Executor):
    """Runs what is submitted at once, in this process."""

    places = 1

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """A future that is done."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except WorkersLost:  # of the group that this process is one of: nothing more can be run
            raise
        except Exception as error:
            future.set_exception(error)
        return future

    def died(self, error: BaseException | None) -> bool:
        """Whether a task was lost with its worker; here the worker is this process."""
        return False

    def close(self, finished: bool) -> None:
        """Nothing is left running."""


def _begin() -> None:
    """In a spawned worker: leave Ctrl-C to the parent, and die with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class Pool(Executor):
    """Spawned processes of this machine; one that dies is replaced."""

    def __init__(self, places: int):
        self.places = places
        self._others = multiprocessing.active_children()
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self.places, mp_context=context, initializer=_begin)

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As in ``concurrent.futures``; a broken pool is opened anew first."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pool.shutdown(wait=True)
            self._open()
            return self._pool.submit(fn, *args, **kwargs)

    def died(self, error: BaseException | None) -> bool:
        """Whether a task was lost with its worker, or with another's: a pool breaks as a whole."""
        return isinstance(error, BrokenProcessPool)

    def close(self, finished: bool) -> None:
        """End the workers; those still at work are killed where not everything is ``finished``."""
        processes = [child for child in multiprocessing.active_children() if child not in self._others]
        self._pool.shutdown(wait=False, cancel_futures=True)
        if not finished:  # the time limit, or Ctrl-C, which may come while a worker is being started
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        for process in processes:
            process.join()


TIMEOUT = 10.0  # seconds in which a scheduler is to answer


class Dask(Executor):
    """Workers of a Dask cluster, which share this machine's folders of results, cache and data.

    Args:
        address: of a scheduler, such as "tcp://node:8786", or "local": a scheduler and ``workers`` processes here.
    Raises:
        ValueError: no scheduler there, Dask is not installed, or a worker with several threads, whose runs would share one
            random generator.
    """

    def __init__(self, address: str, workers: int = 1):
        try:
            import dask
            from distributed import Client, LocalCluster
            from distributed.scheduler import KilledWorker
        except ModuleNotFoundError:
            raise ValueError(
                f"scheduler is '{address}', which needs Dask; accepted where 'pip install lbgap[cluster]' was run"
            ) from None
        self._killed, self._cluster = KilledWorker, None
        if address == "local":
            # a worker computes in a thread beside its first, see lbgap.jobs.keep_freed_memory
            with dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1}):
                self._cluster = LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", protocol="tcp"
                )
        try:
            self._client = Client(self._cluster or address, timeout=TIMEOUT)
        except (OSError, ValueError) as error:
            raise ValueError(f"scheduler is '{address}'; accepted is 'local' or the address of one that answers") from error
        threads = self._client.nthreads()
        if wide := [worker for worker, n in threads.items() if n > 1]:
            self.close(False)
            raise ValueError(
                f"scheduler is '{address}', whose worker {wide[0]} has {threads[wide[0]]} threads; accepted are workers of one "
                "(dask worker --nthreads 1)"
            )
        self._executor = self._client.get_executor(pure=False)

    @property
    def places(self) -> int:
        """Workers at present: they may come and go."""
        return max(1, len(self._client.nthreads()))

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As in ``concurrent.futures``."""
        return self._executor.submit(fn, *args, **kwargs)

    def died(self, error: BaseException | None) -> bool:
        """Whether a task was given up because its workers died again and again; once, the scheduler moves it by itself."""
        return isinstance(error, self._killed)

    def close(self, finished: bool) -> None:
        """Leave the cluster, or end the local one; training runs still at work put themselves down at their deadline."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
