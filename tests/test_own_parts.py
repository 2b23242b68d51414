"""A paper brings a network, a data set of a task that is none of labels, and a measure: the example of the book does."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import python
from safetensors.numpy import load_file
from scipy import stats
from sklearn.datasets import load_digits

from lbgap import papers
from lbgap.records import Store
from lbgap.sources import METRICS

EXAMPLE = Path(__file__).resolve().parents[1] / "book" / "example_paper"
CELLS = [
    'from lbgap.chapter import Chapter\n\nchapter = Chapter("halves", globals())',
    "chapter.verdicts()",
    'chapter.table("table1")',
    'chapter.figure("curves")',
    'chapter.prose("LB: {table1:linear:LB}. E1: {E1}.")',
    "chapter.live()",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The folder of the example, its records made on the command line by two processes."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(EXAMPLE, home / "papers")
    done = lbgap(home, "run", "halves", "--profile", "cpu", "--workers", "2")
    assert done.startswith("20 done, 0 left, 0 failed")
    return home


def lbgap(home: Path, *arguments: str) -> str:
    """What the command line prints."""
    done = python(home, "-W", "error", "-m", "lbgap", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(home: Path, kind: str) -> list[dict]:
    """The records of a kind as they lie on the disk."""
    read = [json.loads(path.read_text()) for path in sorted((home / "results").rglob("*.json"))]
    return [record for record in read if record["job"]["kind"] == kind]


def by_batch(home: Path, kind: str) -> dict[int, np.ndarray]:
    """By batch size, the error or the norm of each seed."""
    out: dict[int, dict[int, float]] = {}
    for record in records(home, kind):
        run = record["job"] if kind == "train" else record["job"]["of"][0]["run"]
        results = record["results"]
        value = results["final"]["test"]["batch"]["error"] if kind == "train" else results["norm"]
        out.setdefault(run["batch_size"], {})[run["seed"]] = value
    return {batch: np.array([of[seed] for seed in sorted(of)]) for batch, of in out.items()}


def test_the_example_keeps_the_contract(home):
    assert lbgap(home, "check", "halves") == "halves: nothing to mend\n"


def test_what_is_recorded_is_what_the_weights_do(home):
    """The error and the norm with NumPy, from the weights that a run left."""
    pictures = load_digits().data[1400:] / 16
    x, y = pictures[:, :32], pictures[:, 32:]
    weights = {path.parent.name: load_file(path) for path in (home / "cache" / "weights").rglob("*.safetensors")}
    errors = [((x @ w["weight"].T + w["bias"] - y) ** 2).mean() for w in weights.values()]
    norms = [np.sqrt(sum((p.astype(float) ** 2).sum() for p in w.values())) for w in weights.values()]
    of_runs, of_measures = by_batch(home, "train"), by_batch(home, "weight_norm")
    assert len(errors) == 10
    assert sorted(np.concatenate([*of_runs.values()])) == pytest.approx(sorted(errors), rel=1e-5)
    assert sorted(np.concatenate([*of_measures.values()])) == pytest.approx(sorted(norms), rel=1e-5)


def test_status_counts_runs_and_measurements(home):
    rows = json.loads(lbgap(home, "status", "halves", "--json"))
    counted = {(row["profile"], row["table"]): (row["done"], row["missing"]) for row in rows}
    names = ("table1", "curves", "E1", "E2")
    assert counted == {(p, n): (10, 0) if p == "cpu" else (0, 4) for p in ("quick", "cpu") for n in names}


def test_verdicts_are_drawn_from_its_own_metric_and_its_own_measure(home):
    rows = {row["id"]: row for row in json.loads(lbgap(home, "verdicts", "halves", "--json"))}
    for claim, kind, wanted in (("E1", "train", 1), ("E2", "weight_norm", -1)):
        of = by_batch(home, kind)
        difference = of[350] - of[20]
        expected = stats.ttest_1samp(difference, 0).confidence_interval()
        assert rows[claim]["n"] == 5
        assert rows[claim]["effect"] == pytest.approx(difference.mean(), rel=1e-5)
        signs = {np.sign(wanted * expected.low), np.sign(wanted * expected.high)}
        verdict = {1.0: "replicated", -1.0: "contradicted"}[signs.pop()] if len(signs) == 1 else "inconclusive"
        assert rows[claim]["verdict"] == verdict


def test_a_dry_run_says_what_is_missing_and_what_it_costs(home):
    lines = lbgap(home, "run", "halves", "--profile", "quick", "--dry-run").splitlines()
    assert len(lines) == 9
    assert sum("weight_norm" in line for line in lines) == 4
    assert lines[-1].startswith("8 jobs to run, for 8 of profile quick")


def test_its_records_come_out_again(home):
    lines = lbgap(home, "verify", "--sample", "4").splitlines()
    assert len(lines) == 4
    assert all(" agrees " in line for line in lines)


def test_its_records_are_packed_and_merged(home, tmp_path):
    assert lbgap(home, "records", "pack", str(tmp_path / "all")).startswith("20 records")
    merged = lbgap(home, "records", "merge", str(tmp_path / "all"), "--results", str(tmp_path / "other"))
    assert merged.startswith("20 added")


def test_its_data_set_is_listed(home):
    assert re.search(r"^halves +1,400 / +397  embedded$", lbgap(home, "data"), re.M)


def test_its_notebook_shows_the_committed_records_and_runs_a_profile(home):
    notebook = nbformat.v4.new_notebook()
    parameters = nbformat.v4.new_code_cell("profile = None\nworkers = 1")
    parameters.metadata["tags"] = ["parameters"]
    notebook.cells = [parameters, *map(nbformat.v4.new_code_cell, CELLS)]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, home / "halves.ipynb")
    done = python(home, "-m", "papermill", "halves.ipynb", "out.ipynb", "--no-progress-bar", "-p", "profile", "quick")
    assert done.returncode == 0, done.stderr
    cells = [c for c in nbformat.read(home / "out.ipynb", as_version=4).cells if c.source in CELLS]
    shown = ["".join(str(o.get("data", o)) for o in cell.outputs) for cell in cells]
    _, verdicts, table, _, prose, live = (re.sub("<span[^>]*>|</span>", "", text) for text in shown)
    error = by_batch(home, "train")[350]
    ours = f"{error.mean():.4f} ± {error.std(ddof=1):.4f}"
    assert "the higher test error" in verdicts
    assert ours in table
    assert ours in prose
    assert "8 jobs were run for this page, 0 are left" in live
    assert len(list((home / "cache" / "scratch").rglob("*.json"))) == 8


def test_the_page_says_what_every_field_of_its_records_means(home):
    """And which names the metrics have; the quantities inside a curve or a split are named in the same table."""
    cells = nbformat.read(EXAMPLE.parent / "add_a_paper.ipynb", as_version=4).cells
    said = set(re.findall(r"`(\w+)`", "".join(cell.source for cell in cells if cell.cell_type == "markdown")))
    written = {"error"}
    for record in records(home, "train"):
        written |= record.keys() | record["results"].keys() | record["provenance"].keys() | record["results"]["final"].keys()
        written |= {k for k in record["results"]["curve"] if not k.endswith("_error")}
        written |= {k for reading in record["results"]["final"]["test"].values() for k in reading}
    assert written - said == set()
    assert {metric.name for metric in METRICS.values()} <= said


def test_nothing_of_it_is_known_without_its_folder(home):
    """Neither the library nor its tests name any of it: what is recorded cannot be read without the paper."""
    assert "halves" not in papers.papers()
    store = Store(home / "results", tolerant=True)
    assert list(store) == []
    assert len(store.damaged) == 20
