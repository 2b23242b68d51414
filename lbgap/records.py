"""The store: one JSON file a job, at ``<first two letters>/<key>.json``, written whole or not at all."""

import errno
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbgap import paths
from lbgap.spec import Job, job_from_json

DIGITS = 6
# Relative differences that are accepted between the losses of a run alone and among replicas, by update. Training amplifies
# rounding: found were 2e-7 at update 1, 1e-4 at 10, 0.1 at 50, and at the end 1.7 points of accuracy on 359 images, which
# is what another seed does, so that later numbers say nothing of whether it was the same run.
ROUNDING = {"1": 1e-5, "10": 1e-3}
NO_LINKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.ENOSYS}  # of a file system that has no hard links


class BadRecord(ValueError):
    """A record that is truncated, edited, unreadable, or not the record of the job whose key it bears."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the sentence."""
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Record:
    """What one job produced, and the provenance of that: who, when, how fast, and how many ``replicas`` trained together."""

    job: Job
    results: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def key(self) -> str:
        """The job's key."""
        return self.job.key

    @property
    def readable(self) -> dict[str, Any]:
        """What a quantity reads: the results, and as ``provenance`` what they were made with, such as the time."""
        return self.results | {"provenance": self.provenance}

    def agrees(self, other: "Record") -> bool:
        """Same job and same numbers; of runs that trained together, the same up to their rounding (:data:`ROUNDING`)."""
        if self.key != other.key or not {"replicas"} & (self.provenance.keys() | other.provenance.keys()):
            return self.key == other.key and self.results == other.results
        mine, theirs = self.results, other.results
        return mine["diverged"] == theirs["diverged"] and all(
            math.isclose(float(mine["loss_at"][at]), float(theirs["loss_at"][at]), rel_tol=accepted)
            for at, accepted in ROUNDING.items()
            if at in mine["loss_at"] and at in theirs["loss_at"]
        )

    def to_json(self) -> str:
        """The file's text; ``digest`` covers everything else."""
        body = {"job": _written(self.job), "results": self.results, "provenance": self.provenance}
        return json.dumps(body | {"digest": _digest(body)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str, key: str | None = None, job: Job | None = None) -> "Record":
        """Parse and check a record's text, the record of ``job`` or ``key`` where one is given.

        Raises:
            BadRecord: names ``name`` and what is wrong.
        """
        try:
            body = json.loads(text)
            digest = body.pop("digest")
            fields = body["job"], body["results"], body["provenance"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadRecord(f"record {name} is truncated or not a record; delete it or restore it") from None
        if digest != _digest(body):
            raise BadRecord(f"record {name} was edited after it was written (digest differs); delete it or restore it")
        if job is not None and fields[0] == _written(job):  # as is nearly always so: nothing to validate again
            return cls(job, *fields[1:])
        try:
            record = cls(job_from_json(fields[0]), *fields[1:])
        except ValueError as error:
            raise BadRecord(f"record {name} holds a job that this version does not know: {error}") from None
        if (key or (job and job.key)) not in (None, record.key):
            raise BadRecord(f"record {name} belongs to job {record.key}; delete it or rename it")
        return record


def _written(job: Job) -> dict:
    return job.canonical() | {"kind": job.kind, "semantics": job.semantics}


def _digest(body: dict) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def tidy(value: Any) -> Any:
    """JSON-ready: floats to six significant digits, non-finite floats as strings, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): tidy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(v) for v in value]
    if hasattr(value, "item"):  # a number of NumPy's or torch's
        return tidy(value.item())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    return value


class Store:
    """A folder of records.

    Reading checks every record; a bad one raises :class:`BadRecord` and is never read past. A ``tolerant`` store reads on:
    to it a bad record is none, and ``damaged`` says of each that was met what is wrong, by its path. Writing replaces nothing:
    where a record of the key exists, it stays.
    """

    def __init__(self, folder: Path | str | None = None, tolerant: bool = False):
        self.folder = Path(folder) if folder else paths.results()
        if (self.folder.exists() or self.folder.is_symlink()) and not self.folder.is_dir():
            raise ValueError(f"results is {self.folder}; accepted is a folder of records")
        self.tolerant = tolerant
        self.damaged: dict[Path, BadRecord] = {}
        self._read: dict[str, tuple[tuple[int, int], Record]] = {}  # what was parsed, by the file's time and size

    def path(self, key: str) -> Path:
        """Where the record of a key lies."""
        return self.folder / key[:2] / f"{key}.json"

    def __contains__(self, job: Job) -> bool:
        return self.path(job.key).exists()

    def get(self, job: Job) -> Record | None:
        """The record of a job, or None where there is none."""
        path = self.path(job.key)
        try:
            state = path.stat()
            stamp = state.st_mtime_ns, state.st_size
            known, record = self._read.get(job.key, (None, None))
            if known != stamp:
                record = Record.from_json(path.read_bytes(), str(path), job=job)
        except FileNotFoundError:
            if not path.is_symlink():
                return None
            return self._refuse(path, BadRecord(f"record {path} is a link to nothing; delete it or restore it"))
        except OSError as error:
            return self._refuse(path, BadRecord(f"record {path} cannot be read ({paths.why(error)}); delete it or restore it"))
        except BadRecord as error:
            return self._refuse(path, error)
        self._read[job.key] = stamp, record
        return record

    def of_key(self, key: str) -> Record:
        """The record of a key, or of the beginning of one that no other key shares.

        Raises:
            ValueError: no record, or several.
        """
        found = sorted(self.folder.glob(f"{key[:2]}/{key}*.json")) if re.fullmatch(r"[0-9a-f]{4,}", key) else []
        if len(found) != 1:
            many = f"; {len(found)} records begin so" if found else ""
            raise ValueError(
                f"key is '{key}'; accepted is the key of a record in {self.folder}, or its first letters, four or more{many}"
            )
        return Record.from_json(found[0].read_bytes(), str(found[0]), found[0].stem)

    def _refuse(self, path: Path, error: BadRecord) -> None:
        if not self.tolerant:
            raise error
        self.damaged[path] = error

    def __iter__(self) -> Iterator[Record]:
        """Every sound record, by key; BadRecord, once all were read, names every other one."""
        damaged = {}
        for path in self._files(damaged):
            try:
                yield Record.from_json(path.read_bytes(), str(path), path.stem)
            except OSError as error:
                damaged[path] = BadRecord(f"record {path} cannot be read ({paths.why(error)}); delete it or restore it")
            except BadRecord as error:
                damaged[path] = error
        if damaged and not self.tolerant:
            raise BadRecord("; ".join(map(str, damaged.values())))
        self.damaged |= damaged

    def _files(self, damaged: dict[Path, BadRecord]) -> Iterator[Path]:
        """The files that should be records; a folder that cannot be listed is ``damaged``, as a glob would not notice."""

        def names(folder: Path) -> list[str]:
            try:
                return sorted(os.listdir(folder))
            except OSError as error:
                damaged[folder] = BadRecord(f"folder {folder} of records cannot be read ({paths.why(error)})")
                return []

        for part in names(self.folder) if self.folder.exists() else ():
            if len(part) == 2:
                for name in names(self.folder / part):
                    if name.endswith(".json") and not name.startswith("."):
                        yield self.folder / part / name

    def put(self, record: Record) -> Record:
        """Write a record unless its key has one; returns what the store then holds."""
        path = self.path(record.key)
        try:
            try:
                self._write(record, path)
            except FileNotFoundError:  # the folder was taken away in between
                self._write(record, path)
        except OSError as error:
            raise OSError(f"record {path} cannot be written ({paths.why(error)})") from error
        return self.get(record.job)

    @staticmethod
    def _write(record: Record, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{record.key}.", suffix=".part")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(record.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o644)
            try:
                os.link(partial, path)  # atomic, and refuses to replace: the first of two writers wins
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                if not path.exists():  # of two writers at the same moment the second wins
                    os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)


@dataclass(frozen=True)
class Merge:
    """What a merge did: keys added, keys already there and equal, keys whose numbers differ (what was there stayed)."""

    added: list[str]
    same: list[str]
    conflicts: list[str]


def pack(store: Store, file: Path) -> int:
    """Write every record of a store into one file, a JSON line each; returns their number.

    Raises:
        ValueError: no place for a file, or no record to write.
    """
    if file.is_dir() or not file.parent.is_dir():
        raise ValueError(f"file is {file}; accepted is the name of a file, in a folder that is there")
    lines = [json.dumps(json.loads(r.to_json()), separators=(",", ":")) for r in store]
    if not lines:
        raise ValueError(f"results is {store.folder}, which holds no record; accepted is a folder of records")
    partial = file.with_name(f".{file.name}.part")
    try:
        partial.write_text("".join(line + "\n" for line in lines))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return len(lines)


def _packed(line: bytes, name: str) -> Record:
    try:
        return Record.from_json(line, name)
    except BadRecord as error:
        wanted = "accepted is a file that 'records pack' wrote"
        raise BadRecord(str(error).replace("delete it or restore it", wanted)) from None


def merge(store: Store, file: Path) -> Merge:
    """Add the records of a packed file to a store; every line is checked before the first is written.

    Numbers measured on runs that trained among replicas in one place and alone in the other differ as the runs do, and are no
    conflict. A ``tolerant`` store says which of its records are damaged; nothing is added in their place.

    Raises:
        ValueError: no such file, or no record in it.
        BadRecord: a line that is no sound record.
    """
    if not file.is_file():
        raise ValueError(f"file is {file}; accepted is a file that 'records pack' wrote")
    records = [_packed(line, f"{file}, line {i}") for i, line in enumerate(file.read_bytes().splitlines(), 1)]
    if not records:
        raise ValueError(f"file is {file}, which holds no record; accepted is a file that 'records pack' wrote")
    out = Merge([], [], [])
    given = {record.key: record for record in records}

    def among_replicas(run: Job) -> bool:
        own = (given.get(run.key), store.get(run))
        return any("replicas" in r.provenance for r in own if r) or any(among_replicas(w.run) for w in run.parents)

    for record in records:
        held = store.get(record.job)
        if store.path(record.key) in store.damaged:
            continue
        if held is None:
            store.put(record)
            out.added.append(record.key)
        else:
            same = held.agrees(record) or any(among_replicas(weights.run) for weights in record.job.parents)
            (out.same if same else out.conflicts).append(record.key)
    return out
