"""All records as one table, a line a record, and what its columns mean: what the records page shows and offers."""

import json
from pathlib import Path

import pandas as pd

from lbgap import trace
from lbgap.records import Record, Store

COLUMNS = {
    "key": "the job's key, a hash of its specification; the record is results/<first two letters>/<key>.json",
    "kind": "train, or the kind of a measurement, such as sharpness",
    "used_by": "tables, figures and claims that read the record, by paper",
    "model": "network of the run, or of the first run that is measured (so are the columns down to seed)",
    "options": "what of the network is not its default, as JSON",
    "data": "data set",
    "n_train": "number of training examples",
    "augment": "augmentation of the training inputs",
    "optimizer": "adam or sgd",
    "learning_rate": "at the start; the regime after it stands in json",
    "momentum": "of SGD",
    "weight_decay": "at the start",
    "batch_size": "examples an update",
    "ghost_batch_size": "examples a ghost batch; none: plain batch norm, or no batch norm",
    "updates": "budget of the run",
    "epochs": "passes over the training set in that budget",
    "precision": "float32 or bfloat16",
    "seed": "decides initialisation, order of the data, augmentation and dropout",
    "arguments": "of a measurement, as JSON",
    "of": "keys of the runs whose weights are measured or started from, with the epoch: key@epoch",
    "diverged": "the training loss stopped being finite",
    "train_loss": "final loss (nats, of labels and words), batch norm read with the statistics of each batch",
    "train_accuracy": "final, percent, the same reading",
    "test_accuracy": "final, percent, the same reading",
    "test_accuracy_running": "final, percent, batch norm read with its running averages",
    "distance": "Euclidean distance of the final weights from the start",
    "sharpness": "metric 2.1 of Keskar et al. 2017, percent",
    "seconds": "wall time of the job",
    "device": "what computed it",
    "threads": "of the CPU",
    "torch": "version of PyTorch",
    "version": "version of this library",
    "begun": "time of the beginning, UTC",
    "json": "the whole record, as it lies in the repository",
}
# What the page's own table shows; the rest is in the downloads.
SHOWN = ["key", "kind", "used_by", "model", "data", "n_train", "batch_size", "updates", "seed", "arguments"]
SHOWN += ["test_accuracy", "sharpness"]


def frame(store: Store) -> pd.DataFrame:
    """A line a record, the columns of :data:`COLUMNS`; a value that a record does not have is missing."""
    uses = trace.uses()
    lines = [_line(record, uses.get(record.key, [])) for record in store]
    return pd.DataFrame(lines, columns=list(COLUMNS)).convert_dtypes()


def _line(record: Record, uses: list[str]) -> dict:
    job, run, results = record.job, record.job.run, record.results
    final = results.get("final") or {}

    def accuracy(split: str, reading: str, field: str = "accuracy") -> float | None:
        return final.get(split, {}).get(reading, {}).get(field)

    return {
        "key": record.key,
        "kind": job.kind,
        "used_by": ", ".join(uses),
        "model": run.model,
        "options": json.dumps(dict(run.options), sort_keys=True) if run.options else None,
        "data": run.data.name,
        "n_train": run.data.size,
        "augment": run.data.augment,
        "optimizer": run.optimizer.name,
        "learning_rate": run.optimizer.learning_rate,
        "momentum": run.optimizer.momentum,
        "weight_decay": run.optimizer.weight_decay,
        "batch_size": run.batch_size,
        "ghost_batch_size": run.ghost_batch_size,
        "updates": run.updates,
        "epochs": run.epochs,
        "precision": run.precision,
        "seed": run.seed,
        "arguments": None if job is run else json.dumps(dict(job.arguments), sort_keys=True),
        "of": " ".join(f"{w.run.key}@{w.epoch}" for w in job.parents) or None,
        "diverged": results.get("diverged"),
        "train_loss": accuracy("train", "batch", "loss"),
        "train_accuracy": accuracy("train", "batch"),
        "test_accuracy": accuracy("test", "batch"),
        "test_accuracy_running": accuracy("test", "running"),
        # a word in JSON where the weights of a diverged run were no numbers
        "distance": next((float(v) for v in reversed((results.get("distance") or {}).get("value", ()))), None),
        "sharpness": results.get("value") if job.kind == "sharpness" else None,
        **{name: record.provenance.get(name) for name in ("seconds", "device", "threads", "torch", "version", "begun")},
        "json": record.to_json(),
    }


def write(records: pd.DataFrame, folder: Path) -> None:
    """``records.parquet`` with every column, ``records.csv`` without the records' own text."""
    records.to_parquet(folder / "records.parquet", index=False)
    records.drop(columns="json").to_csv(folder / "records.csv", index=False)
