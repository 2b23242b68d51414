"""Do the committed runs come out again? Repeat their first updates, or all of them, and compare."""

import math
import random
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lbgap import train
from lbgap.jobs import Cache, default_device, execute
from lbgap.records import Record, Store
from lbgap.sources import DataMissing
from lbgap.spec import Train

TOLERANCE = 1e-3  # relative; what different processors of one kind leave between two runs after 50 updates is far below


@dataclass(frozen=True)
class Check:
    """One repeated run: the largest relative difference of its losses, and (full) of its final accuracies in points."""

    key: str
    verdict: str  # agrees | differs | skipped
    loss_difference: float | None = None
    accuracy_difference: float | None = None
    note: str = ""

    def as_dict(self) -> dict:
        """Plain values for ``--json``."""
        return asdict(self)


def verify(store: Store, sample: int = 3, full: bool = False, seed: int = 0, device: str | None = None) -> Iterator[Check]:
    """Repeat ``sample`` recorded training runs, drawn with ``seed``, and yield a check for each.

    The first 50 updates take seconds; ``full`` repeats the whole run. Runs that start from other runs' weights, and those that
    were recorded on another kind of device, are not drawn.
    """
    if sample < 1:
        raise ValueError(f"sample is {sample}; accepted is 1 or more")
    device = device or default_device()
    runs = [
        r
        for r in store
        if isinstance(r.job, Train)
        and r.job.start is None
        and not r.results["diverged"]
        and ("NVIDIA" in r.provenance["device"]) == (device == "cuda")
    ]
    for record in random.Random(seed).sample(runs, min(sample, len(runs))):
        try:
            yield _repeat_all(record, device) if full else _repeat_beginning(record, device)
        except DataMissing as missing:
            yield Check(record.key, "skipped", note=str(missing))


def _loss_difference(recorded: dict[str, float], repeated: dict[str, float]) -> float:
    differences = [abs(float(repeated[k]) - v) / max(abs(v), 1e-12) for k, v in recorded.items()]
    return max(d if math.isfinite(d) else math.inf for d in differences)


def _repeat_beginning(record: Record, device: str) -> Check:
    if device == "cpu":
        torch.set_num_threads(record.provenance["threads"])
    recorded = record.results["loss_at"]
    repeated = train.run(record.job, device, stop_after=max(int(k) for k in recorded))["loss_at"]
    difference = _loss_difference(recorded, repeated)
    return Check(record.key, "agrees" if difference <= TOLERANCE else "differs", difference)


def _repeat_all(record: Record, device: str) -> Check:
    with tempfile.TemporaryDirectory() as folder:  # the cached weights stay those that measurements were made on
        repeated = execute(record.job, Cache(Path(folder)), device).results
    loss = _loss_difference(record.results["loss_at"], repeated["loss_at"])
    if repeated["diverged"]:
        return Check(record.key, "differs", loss, note="diverged when repeated")
    accuracy = max(
        abs(record.results["final"][split][reading]["accuracy"] - values["accuracy"])
        for split, readings in repeated["final"].items()
        for reading, values in readings.items()
    )
    note = "identical" if repeated == record.results else ""
    # rounding differences grow over a whole run: half a point is the margin that the book's equivalences use
    return Check(record.key, "agrees" if loss <= TOLERANCE and accuracy <= 0.5 else "differs", loss, accuracy, note)
