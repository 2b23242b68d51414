"""One job in, one record out."""

import contextlib
import ctypes
import platform
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import lbgap
from lbgap import measure, models, paths, train
from lbgap.data import Data
from lbgap.records import Record, tidy
from lbgap.spec import Job, Measure, Train, Weights


class Cache:
    """Weights by run and epoch, as safetensors in an ignored folder: what is gone is computed again."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder or paths.cache() / "weights"

    def path(self, weights: Weights) -> Path:
        """Where the weights of a run after an epoch lie."""
        return self.folder / weights.run.key / f"{weights.epoch}.safetensors"

    def __contains__(self, weights: Weights) -> bool:
        return self.path(weights).exists()

    def get(self, weights: Weights) -> train.State:
        """The state dict; FileNotFoundError where it is not there."""
        if weights not in self:
            raise FileNotFoundError(f"weights of run {weights.run.key} after epoch {weights.epoch} are not in {self.folder}")
        return load_file(self.path(weights))

    def put(self, weights: Weights, state: train.State) -> None:
        """Write a state dict, whole or not at all."""
        path = self.path(weights)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{time.time_ns()}.part")
        save_file(state, partial)
        partial.replace(path)


def default_device() -> str:
    """ "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def execute(
    job: Job, cache: Cache, device: str | None = None, keep: Collection[int] = (), parent_diverged: bool = False
) -> Record:
    """Run one job and return its record (unwritten); a run's weights at its end and at ``keep`` go to the cache.

    Args:
        parent_diverged: there are no weights to start from or to measure; the record says so.
    Raises:
        FileNotFoundError: the weights of a parent are not in the cache.
    """
    device = _prepared(device)
    begun, clock = datetime.now(UTC), time.perf_counter()
    if parent_diverged:
        results, checksum = (train.NOTHING if isinstance(job, Train) else {"diverged": True}), None
    elif isinstance(job, Train):
        start = cache.get(job.start) if job.start else None
        results = train.run(job, device, start, keep, lambda epoch, state: cache.put(job.at(epoch), state))
        checksum = results.pop("checksum")
    else:
        data = job.run.data.load(device)
        results, checksum = MEASURES[job.kind](job, data, [cache.get(w) for w in job.of], device), data.checksum
    return Record(
        job,
        tidy(results),
        {
            "version": lbgap.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
            "threads": torch.get_num_threads(),
            "seconds": round(time.perf_counter() - clock, 2),
            "begun": begun.isoformat(timespec="seconds"),
            "data": checksum,
        },
    )


def make_weights(run: Train, cache: Cache, device: str | None = None, keep: Collection[int] = ()) -> None:
    """Repeat a run for its weights alone: they go to the cache as in :func:`execute`, and nothing is evaluated."""
    start = cache.get(run.start) if run.start else None
    train.run(run, _prepared(device), start, keep, lambda epoch, state: cache.put(run.at(epoch), state), losses_only=True)


def _prepared(device: str | None) -> str:
    """The device, with this process set so that a record can be repeated."""
    device = device or default_device()
    if device == "cpu":
        # the order of float sums depends on the number of threads: one thread a job
        torch.set_num_threads(1)
        keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return device


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
GLIBC = "libc.so.6"


def keep_freed_memory() -> None:
    """Where the C library is glibc, have it keep freed memory for the next tensor of this process.

    By default it returns blocks of more than 32 MiB to the system, and each activation of a large batch then begins with a
    page fault every 4 KiB (``memory`` in tools/benchmark.py). Numbers do not depend on it.
    """
    with contextlib.suppress(OSError):  # another C library
        mallopt = ctypes.CDLL(GLIBC).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def processor() -> str:
    """The CPU's name, as far as the machine tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _model(job: Measure, data: Data, state: train.State, device: str) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        model = train.initial_model(job.run, data)
    model.load_state_dict(state)
    return model.to(device, memory_format=models.memory_format(model))


def _sharpness(job: Measure, data: Data, states: list[train.State], device: str) -> dict:
    model = _model(job, data, states[0], device)
    loss = measure.mean_cross_entropy(data.train.x, data.train.y)
    return measure.sharpness(model, loss, data=data.train.x, **job.arguments).as_dict()


def _directions(job: Measure, data: Data, states: list[train.State], device: str) -> dict:
    loss = measure.mean_cross_entropy(data.train.x, data.train.y)
    return measure.directions(_model(job, data, states[0], device), loss, **job.arguments)


def _path(job: Measure, data: Data, states: list[train.State], device: str) -> dict:
    splits = {"train": (data.train.x, data.train.y), "test": (data.test.x, data.test.y)}
    return measure.path(_model(job, data, states[0], device), *states, splits, **job.arguments)


MEASURES: dict[str, Callable[[Measure, Data, list[train.State], str], dict]] = {
    "sharpness": _sharpness,
    "directions": _directions,
    "path": _path,
}
