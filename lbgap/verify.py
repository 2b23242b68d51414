"""Do the committed records come out again? Repeat runs and measurements, or the beginnings of their runs, and compare.

How closely two runs can agree depends on where they were made. With one arithmetic (the processor and the torch that a
record names) a run comes out the same to the last digit. Elsewhere sums are rounded otherwise, and training amplifies that: the
first loss agrees, the fiftieth may differ by a half. So elsewhere the first loss alone is compared, save for a paper's
reference jobs: short runs on embedded data, in which rounding is hardly amplified.
"""

import io
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lbgap import cost, papers, sweep, train
from lbgap.jobs import Cache, processor
from lbgap.records import Record, Store
from lbgap.spec import Job, Train

# Relative differences that are accepted. With one arithmetic none is expected but that of the six digits of a record.
SAME = 1e-4
# Of the first loss elsewhere: found were 2e-6 in float32, and 1e-4 in bfloat16, whose numbers have three digits.
FIRST = {"float32": 2e-5, "bfloat16": 2e-4}
# Of the numbers of reference jobs elsewhere: found were 0.005 between the instruction sets of one processor, and no
# difference of accuracy, of which one of 359 test images is 0.0028.
REFERENCE, ACCURACY = 0.03, 0.005
CHEAP = 10.0  # seconds, by estimate, within which a job is repeated whole


@dataclass(frozen=True)
class Check:
    """One record repeated: what was compared, and the largest relative difference found in it."""

    key: str
    kind: str
    verdict: str  # agrees | differs | skipped
    compared: str = ""
    difference: float | None = None
    note: str = ""

    def as_dict(self) -> dict:
        """Plain values for ``--json``."""
        return asdict(self)


def verify(store: Store, sample: int = 3, full: bool = False, seed: int = 0, keys: Sequence[str] = ()) -> Iterator[Check]:
    """Repeat the papers' reference jobs and ``sample`` other records, drawn with ``seed``, and yield a check for each.

    With ``keys`` these records, and no others.

    Of a record the first updates are repeated, for a measurement those of the runs whose weights it measures; with one
    arithmetic what takes few seconds, or with ``full`` everything, is then repeated whole. Records of diverged runs, and those
    made on a GPU where there is none, are not drawn; a data set that is not there is named once, as skipped.
    """
    if sample < 0:
        raise ValueError(f"sample is {sample}; accepted is 0 or more")
    references = [r for r in map(store.get, reference_jobs()) if r and _repeatable(r, store)]
    known = {r.key for r in references}
    if keys:
        others, references, sample = [store.of_key(key) for key in keys], [], len(keys)
        if why := next(filter(None, (_obstacle(r, store) for r in others)), None):
            raise ValueError(why)
    else:
        others = [r for r in store if r.key not in known and _repeatable(r, store)]
        random.Random(seed).shuffle(others)
    absent = sweep.missing_data(r.job for r in others)
    drawn = [r for r in others if r.job.run.data.name not in absent][:sample]
    for name, why in absent.items() if sample else ():
        yield Check(next(r.key for r in others if r.job.run.data.name == name), "", "skipped", note=str(why))
    with tempfile.TemporaryDirectory() as folder:  # the cached weights stay those that measurements were made on
        again, cache = Store(Path(folder) / "records"), Cache(Path(folder) / "weights")
        for record in references + drawn:
            yield _check(record, store, again, cache, record.key in known, full)


def reference_jobs() -> list[Job]:
    """The reference jobs of every paper that has a profile ``quick``."""
    of = [paper for paper in papers.papers().values() if "quick" in paper.profiles]
    return [job for paper in of for job in paper.study(paper.settings(profile="quick")).reference]


def _roots(job: Job) -> list[Train]:
    """The runs from random weights that a job rests on; of such a run, itself."""
    return [root for weights in job.parents for root in _roots(weights.run)] if job.parents else [job.run]


def _below(job: Job) -> list[Train]:
    """Every run that a job rests on."""
    return [run for weights in job.parents for run in (weights.run, *_below(weights.run))]


def _repeatable(record: Record, store: Store) -> bool:
    """Whether there are numbers to compare, on a device that is at hand."""
    return _obstacle(record, store) is None


def _obstacle(record: Record, store: Store) -> str | None:
    """Why there are none, in a sentence."""
    roots = {root.key: store.get(root) for root in _roots(record.job)}
    if absent := next((key for key, root in roots.items() if root is None), None):
        return f"key is '{record.key}', which rests on run {absent}; accepted is one whose runs have records"
    if record.results.get("diverged") or any("1" not in r.results["loss_at"] for r in roots.values()):
        return f"key is '{record.key}'; accepted is one of a run that did not diverge"
    if _device(record) == "cuda" and not torch.cuda.is_available():
        return f"key is '{record.key}', made on {record.provenance['device']}; accepted is one made on a device that is here"
    return None


def _device(record: Record) -> str:
    return "cuda" if "NVIDIA" in record.provenance["device"] else "cpu"


def _at_home(records: list[Record]) -> bool:
    """Whether numbers come out here as they did: on a GPU they do nowhere, since its sums have no fixed order.

    Nor do those of a run that trained together with others, which is repeated alone; nor what rests on such a run.
    """
    here = (processor(), torch.__version__)
    return all("replicas" not in r.provenance and (r.provenance["device"], r.provenance["torch"]) == here for r in records)


def _seconds(job: Job) -> float:
    return cost.seconds(job) + sum(_seconds(weights.run) for weights in job.parents)


def _check(record: Record, store: Store, again: Store, cache: Cache, reference: bool, full: bool) -> Check:
    job, device = record.job, _device(record)
    home = _at_home([record, *filter(None, map(store.get, _below(job)))])
    first, worst = [], 0.0
    if device == "cpu":  # sums depend on it
        torch.set_num_threads(record.provenance["threads"])
    for root in _roots(job):
        of = store.get(root).results["loss_at"]
        first = list(of) if home else ["1"]
        repeated = train.fit(root, device, stop_after=int(first[-1]))["loss_at"]
        accepted = SAME if home else FIRST[root.precision]
        difference, agrees = _compare({k: of[k] for k in first}, repeated, lambda _, accepted=accepted: accepted)
        worst = max(worst, difference)
        if not agrees:
            return _differs(record, _updates(first), difference)
    if not reference and not (home and (full or _seconds(job) <= CHEAP)):
        return Check(record.key, job.kind, "agrees", _updates(first), worst)
    outcome = sweep.complete([job], again, cache, workers=0, device=device, progress=io.StringIO())
    if outcome.failed:
        raise RuntimeError(next(iter(outcome.failed.values())))
    repeated = again.get(job).results
    difference, agrees = _compare(record.results, repeated, lambda name: SAME if home else _elsewhere(name))
    if not agrees:
        return _differs(record, "all numbers", difference)
    note = "identical" if repeated == record.results else ""
    return Check(record.key, job.kind, "agrees", "all numbers", difference, note)


def _differs(record: Record, compared: str, difference: float) -> Check:
    """JSON has no infinity: a number that only one of the two has, or that is not finite in one, has no difference."""
    if math.isfinite(difference):
        return Check(record.key, record.job.kind, "differs", compared, difference)
    note = f"of {compared}, one of the two has others, or one that is not finite"
    return Check(record.key, record.job.kind, "differs", compared, None, note)


def _updates(of: list[str]) -> str:
    return f"update{'s' if len(of) > 1 else ''} {', '.join(of)}"


def _elsewhere(name: str) -> float:
    return ACCURACY if "accuracy" in name else REFERENCE


def _compare(recorded: Any, repeated: Any, accepted: Callable[[str], float]) -> tuple[float, bool]:
    """The relative difference of two results where it is worst for what is accepted of a number of that name."""
    these, those = dict(_numbers(recorded)), dict(_numbers(repeated))
    if these.keys() != those.keys():
        return math.inf, False
    found = [(_relative(a, those[name]), accepted(name)) for name, a in these.items()]
    difference, tolerance = max(found, key=lambda pair: pair[0] / pair[1])
    return difference, difference <= tolerance


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a record's results by its place; what is not finite was recorded as text."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, f"{name}.{key}")
    elif not isinstance(value, str) or value in ("inf", "-inf", "nan"):
        yield name, float(value)


def _relative(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    difference = abs(a - b) / max(abs(a), abs(b))
    return difference if math.isfinite(difference) else math.inf
