"""One job in, one record out."""

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
import time
import uuid
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

import lbgap
from lbgap import measurements, models, paths, replicas, train
from lbgap.data import Data
from lbgap.measure.recorded import Solution
from lbgap.pauses import Stopped
from lbgap.records import Record, tidy
from lbgap.spec import Job, Measure, Train, Weights
from lbgap.tasks import task_of
from lbgap.workers import Workers

LAYOUT = 1  # of a checkpoint: raised by hand when what a job saves of itself changes its form


class WeightsMissing(FileNotFoundError):
    """Weights that a job needs are not in the cache."""


class Cache:
    """Weights by run and epoch, as safetensors in an ignored folder: what is gone is computed again."""

    def __init__(self, folder: Path | str | None = None):
        self.folder = Path(folder) if folder else paths.cache() / "weights"

    def path(self, weights: Weights) -> Path:
        """Where the weights of a run after an epoch lie."""
        return self.folder / weights.run.key / f"{weights.epoch}.safetensors"

    def __contains__(self, weights: Weights) -> bool:
        """Whether they are there, whole: a file that was cut off by a full disk or a power cut is as good as gone."""
        try:
            with safe_open(self.path(weights), "pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def sound(self, weights: Weights) -> bool:
        """Whether they are there and what was written: a power cut can leave a file of full length with holes in it.

        That reads the whole file, and takes one without a digest, of earlier versions, as it is.
        """
        if weights not in self:
            return False
        with safe_open(self.path(weights), "pt") as file:
            written = (file.metadata() or {}).get("digest")
        return written is None or written == _digest(load_file(self.path(weights)))

    def get(self, weights: Weights) -> train.State:
        """The state dict; WeightsMissing where it is not there."""
        if weights not in self:
            raise WeightsMissing(f"weights of run {weights.run.key} after epoch {weights.epoch} are not in {self.folder}")
        return load_file(self.path(weights))

    def put(self, weights: Weights, state: train.State) -> None:
        """Write a state dict, whole or not at all."""
        path = self.path(weights)
        partial = path.with_name(f".{path.name}.{time.time_ns()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(state, partial, {"digest": _digest(state)})
            _to_disk(partial)
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise OSError(f"weights {path} cannot be written ({error})") from error


def _digest(state: train.State) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _to_disk(file: Path) -> None:
    """Before a file takes another's name: else a power cut may leave the name and not what was written."""
    with file.open("rb") as written:
        os.fsync(written.fileno())


@dataclass(frozen=True)
class Group:
    """Training runs of one :func:`lbgap.replicas.kind`, which train together and are put down together."""

    runs: tuple[Train, ...]

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the runs' keys."""
        return hashlib.sha256(" ".join(run.key for run in self.runs).encode()).hexdigest()[:16]


@dataclass
class Checkpoint:
    """Where a job or a group is put down, in the cache, every ``every`` seconds and at ``deadline`` (:mod:`lbgap.pauses`).

    A file of another job, of another version of this library or of torch, of another layout, from another kind of device, or
    a damaged one, is passed over with one line. It goes when the job is done.
    """

    job: Job | Group
    cache: Cache
    keep: frozenset[Weights] = frozenset()
    purpose: str = "record"  # or "weights": a run that is repeated for its weights records nothing else
    device: str = "cpu"
    every: float = 120.0
    deadline: float | None = None  # of time.monotonic()
    before: float = 0.0  # seconds that earlier pieces of the job took
    processor_before: float = 0.0  # of the processor
    resumed: int = 0
    devices: tuple[str, ...] = ()  # the names of those that earlier pieces ran on
    _begun: float = field(default_factory=time.perf_counter)
    _processor_begun: float = field(default_factory=time.process_time)
    _saved: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> Path:
        """The file, which is there while the job is not done."""
        return self.cache.folder.with_name("checkpoints") / f"{self.job.key}.{self.purpose}.pt"

    def _header(self) -> dict[str, Any]:
        return {
            "key": self.job.key,
            "version": lbgap.__version__,
            "layout": LAYOUT,
            "torch": str(torch.__version__),
            "device": self.device,
            # of a group, so that the next sweep can tell which runs it was of
            "runs": [run.key for run in self.job.runs] if isinstance(self.job, Group) else [],
        }

    def seconds(self) -> float:
        """What the job has taken so far, earlier pieces included."""
        return self.before + time.perf_counter() - self._begun

    def processor_seconds(self) -> float:
        """What the job has taken of the processor so far, earlier pieces included."""
        return self.processor_before + time.process_time() - self._processor_begun

    def load(self) -> dict[str, Any] | None:
        """The state last saved of this job, by this version; None where there is none, or weights on the way are gone."""
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as file:
                if part := file.testzip():  # torch does not look at the checksums
                    raise ValueError(f"{part} is not what was written")
            held = torch.load(self.path, map_location="cpu", weights_only=True)
            header, state = held["header"], held["state"]
            passed = sorted((w for w in self.keep if w.epoch <= state["place"]["epoch"]), key=lambda w: w.epoch)
            times = held["seconds"], held["processor_seconds"], held["resumed"] + 1, tuple(held.get("devices", ()))
        except Exception as error:  # whatever a damaged file makes of it
            print(f"checkpoint {self.path} is damaged ({type(error).__name__}); the job begins anew", file=sys.stderr)
            return None
        faults = [f"is of {k} {header.get(k)}, not {v}" for k, v in self._header().items() if header.get(k) != v]
        faults += [f"is past epoch {w.epoch}, whose weights are gone" for w in passed if w not in self.cache]
        if faults:
            print(f"checkpoint {self.path} {faults[0]}; the job begins anew", file=sys.stderr)
            return None
        self.before, self.processor_before, self.resumed, self.devices = times
        return state

    def ran_on(self) -> tuple[str, ...]:
        """The names of the devices that the job has run on so far, this one last unless it was one of the earlier."""
        return tuple(dict.fromkeys((*self.devices, device_name(self.device))))

    def due(self) -> bool:
        """Whether ``every`` seconds have passed since the last one, or the deadline has."""
        now = time.monotonic()
        return now - self._saved >= self.every or (self.deadline is not None and now >= self.deadline)

    def save(self, state: dict[str, Any]) -> None:
        """Write a state, whole or not at all; raises :class:`Stopped` past the deadline.

        Where it cannot be written, a line says so and the job goes on: a full disk costs its pieces, not the job.

        Raises:
            OSError: it cannot be written past the deadline.
        """
        # its own name on every machine that shares the folder: process numbers repeat
        partial = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.part")
        times = {"seconds": self.seconds(), "processor_seconds": self.processor_seconds(), "resumed": self.resumed}
        times["devices"] = list(self.ran_on())
        fault = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"header": self._header(), **times, "state": state}, partial)
            _to_disk(partial)
            partial.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch's writer raises the second
            fault = OSError(f"checkpoint {self.path} cannot be written ({paths.in_words(error)})")
        finally:
            partial.unlink(missing_ok=True)
        self._saved = time.monotonic()
        if self.deadline is not None and self._saved >= self.deadline:
            raise fault or Stopped(f"job {self.job.key} was put down")
        if fault:
            print(f"{fault}; the job goes on without", file=sys.stderr)

    def discard(self) -> None:
        """The job is done."""
        self.path.unlink(missing_ok=True)


def default_device() -> str:
    """ "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def execute(
    job: Job,
    cache: Cache,
    device: str | None = None,
    keep: Collection[int] = (),
    parent_diverged: bool = False,
    deadline: float | None = None,
) -> Record:
    """Run one job and return its record (unwritten); a run's weights at its end and at ``keep`` go to the cache.

    A job goes on from its checkpoint in the cache; once the record is written, :func:`finished` removes it.

    Args:
        parent_diverged: there are no weights to start from or to measure; the record says so.
        deadline: of ``time.monotonic()``: a training run, or a measurement of many parts, is put down then.
    Raises:
        WeightsMissing: the weights of a parent are not in the cache.
        Stopped: the deadline came first; the next call goes on.
    """
    device = _prepared(device)
    begun = datetime.now(UTC)
    checkpoint, checksum, pieces = _checkpoint(job, cache, device, keep, deadline=deadline), None, {}
    if parent_diverged:
        results = train.nothing(job) if isinstance(job, Train) else {"diverged": True}
    elif isinstance(job, Train):
        results = _train(job, cache, device, keep, checkpoint)
        checksum = results.pop("checksum")
        pieces["processor_seconds"] = round(checkpoint.processor_seconds(), 3)
        if crew := train.divided(job):
            pieces["workers"] = crew.size
    else:
        data = train.load_data(job.run, device)
        solution = _solution(job, data, [cache.get(w) for w in job.of], device, checkpoint)
        results, checksum = measurements.lookup(job.kind).measure(solution, job.arguments), data.checksum
    if checkpoint.resumed:
        pieces["resumed"] = checkpoint.resumed
    return Record(job, tidy(results), _provenance(checkpoint, begun, checkpoint.seconds(), checksum) | pieces)


def execute_together(
    group: Group,
    cache: Cache,
    device: str | None = None,
    keep: Sequence[Collection[int]] | None = None,
    deadline: float | None = None,
) -> list[Record]:
    """As :func:`execute`, of training runs that train together: a record each, with ``keep`` of each run.

    The provenance names the number of ``replicas``; its seconds are the time of the group divided by it.

    Raises:
        ValueError: runs that cannot train together.
        Stopped: the deadline came first; the next call for the same group goes on.
    """
    device, begun, n = _prepared(device), datetime.now(UTC), len(group.runs)
    keep = keep or [()] * n
    kept = frozenset(run.at(e) for run, epochs in zip(group.runs, keep, strict=True) for e in epochs)
    checkpoint = Checkpoint(group, cache, kept, device=device, deadline=deadline)
    found = replicas.fit(group.runs, device, keep, lambda run, e, state: cache.put(run.at(e), state), checkpoint)
    more = {"replicas": n} | ({"resumed": checkpoint.resumed} if checkpoint.resumed else {})
    seconds = checkpoint.seconds() / n
    checksums = [results.pop("checksum") for results in found]
    return [
        Record(run, tidy(results), _provenance(checkpoint, begun, seconds, checksum) | more)
        for run, results, checksum in zip(group.runs, found, checksums, strict=True)
    ]


def device_name(device: str) -> str:
    """A GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else processor()


def _provenance(checkpoint: Checkpoint, begun: datetime, seconds: float, checksum: str | None) -> dict[str, Any]:
    return {
        "version": lbgap.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": ", ".join(checkpoint.ran_on()),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 2),
        "begun": begun.isoformat(timespec="seconds"),
        "data": checksum,
    }


def _checkpoint(
    job: Job, cache: Cache, device: str, keep: Collection[int] = (), purpose: str = "record", deadline: float | None = None
) -> Checkpoint:
    kept = frozenset(job.at(e) for e in keep) if isinstance(job, Train) else frozenset()
    return Checkpoint(job, cache, kept, purpose, device, deadline=deadline)


def _train(
    job: Train, cache: Cache, device: str, keep: Collection[int], checkpoint: Checkpoint, stop_after: int | None = None
) -> dict:
    start, teacher = (cache.get(weights) if weights else None for weights in (job.start, job.teacher))
    losses_only = checkpoint.purpose == "weights"

    def put(epoch: int, state: train.State) -> None:
        cache.put(job.at(epoch), state)

    return train.fit(job, device, start, keep, put, stop_after, losses_only, checkpoint, teacher)


def follow(crew: Workers) -> None:
    """What every worker but the first does: take part in its training runs, and leave records and weights to it."""
    train.follow(crew, _prepared(None))


def put_down_together(cache: Cache) -> dict[Path, list[str]]:
    """The groups that lie in the cache, put down: by checkpoint, the keys of their runs."""
    groups = {}
    for path in cache.folder.with_name("checkpoints").glob("*.record.pt"):
        with contextlib.suppress(Exception):  # a damaged file is told of when its job is taken up
            if runs := torch.load(path, map_location="cpu", weights_only=True, mmap=True)["header"]["runs"]:
                groups[path] = runs
    return groups


def finished(job: Job | Group, cache: Cache) -> None:
    """A job's record is written, or those of a group: nothing of it needs to be taken up again."""
    Checkpoint(job, cache).discard()


def make_weights(
    run: Train, cache: Cache, device: str | None = None, keep: Collection[int] = (), deadline: float | None = None
) -> None:
    """Repeat a run for its weights alone, to the last of the epochs to ``keep`` (none: to its end).

    They go to the cache as in :func:`execute`, and nothing is evaluated.
    """
    device = _prepared(device)
    checkpoint = _checkpoint(run, cache, device, keep, "weights", deadline)
    _train(run, cache, device, keep, checkpoint, stop_after=run.updates_per_epoch * max(keep) if keep else None)
    checkpoint.discard()


def _prepared(device: str | None) -> str:
    """The device, with this process set so that a record can be repeated."""
    device = device or default_device()
    if device == "cpu":
        # the order of float sums depends on the number of threads: one thread a job
        torch.set_num_threads(1)
        keep_freed_memory()
    else:  # what the last job of this process held is for the other workers' too
        torch.cuda.empty_cache()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return device


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
GLIBC = "libc.so.6"


def keep_freed_memory() -> None:
    """Where the C library is glibc, have it keep freed memory for the next tensor of this process.

    By default it returns blocks of more than 32 MiB to the system, and each activation of a large batch, or the outputs of a
    language model, then begin with a page fault every 4 KiB (``memory`` in tools/benchmark.py). Numbers do not depend on it.
    The process keeps what it once needed, until it ends, and as glibc 2.36 leaves crumbs between its blocks, about twice that:
    12.5 GB for a pass of Keskar's C1 over 5,000 images, forward and back in float32. (Not by M_MMAP_THRESHOLD, of which
    mallopt(3) promises 32 MiB at most.) A thread beside the first has such blocks from the system all the same, unless
    ``MALLOC_ARENA_MAX=1`` was in the environment when its process began.
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


def _solution(job: Measure, data: Data, states: list[train.State], device: str, checkpoint: Checkpoint) -> Solution:
    with torch.random.fork_rng(devices=[]):
        model = train.initial_model(job.run, data)
    model.load_state_dict(states[0])
    model.to(device, memory_format=models.memory_format(model))
    return Solution(model, states, data, task_of(job.run.data.name), checkpoint)
