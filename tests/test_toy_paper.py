"""A paper is added by one module, one YAML file and one notebook in a folder of one's own, and by nothing else."""

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import python
from scipy import stats

from lbgap import papers
from lbgap.records import Store

MODULE = '''
"""A paper of our own: do larger batches travel less far in three epochs of digits?"""

import math
from pathlib import Path

import yaml

from lbgap.papers.paper import Axis, Cell, Claim, Figure, Published, Quantity, Series, Case, Settings, Study, Table, dig
from lbgap.spec import DataSpec, OptimizerSpec, Train
from lbgap.stats import Difference

PROFILES = ("quick", "cpu")
FACTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())


class PaperSettings(Settings):
    """What may be set."""

    width: int = 16


def study(settings):
    """Two batch sizes."""
    data, seeds = DataSpec(name="digits"), settings.seeds or (1 if settings.profile == "quick" else 5)

    def jobs(batch):
        return tuple(
            (
                Train(
                    data=data,
                    model="keskar.F1",
                    options={"width": settings.width},
                    optimizer=OptimizerSpec(name="adam", learning_rate=1e-3),
                    batch_size=batch,
                    updates=(2 if settings.profile == "quick" else 3) * math.ceil(data.size / batch),
                    seed=seed,
                ),
            )
            for seed in range(seeds)
        )

    def travelled(batch):
        return Quantity(jobs(batch), lambda r: r["distance"]["value"][-1])

    facts = FACTS["tables"]["table1"]
    published = dict(zip(facts["columns"], (Published(*v) for v in facts["rows"]["digits"]), strict=True))
    cells = tuple(
        Cell("digits", f"batch {b}", published[f"batch {b}"], Quantity(jobs(b), dig("final.test.batch.accuracy")), "digits")
        for b in (100, 700)
    )
    rule = Case("digits: distance, large - small", Difference("below"), travelled(700), travelled(100), "digits")
    curves = tuple(
        Series("distance", str(b), jobs(b), lambda r: zip(r["distance"]["update"], r["distance"]["value"], strict=True))
        for b in (100, 700)
    )
    return Study(
        "toy",
        settings.profile,
        (Table("table1", facts["title"], facts["unit"], cells, 1),),
        (Figure("travel", "Distance", (Axis("distance", "update", "distance"),), curves),),
        (Claim("Y1", FACTS["claims"]["Y1"], (rule,)),),
    )
'''
FACTS = """
citation: {key: toy2024, title: A toy}
tables:
  table1:
    title: Test accuracy
    unit: percent
    columns: [batch 100, batch 700]
    rows:
      digits: [[97.5, 0.5], [94.25, 0.75]]
claims:
  Y1: Large batches travel less far
"""
CELLS = [
    'from lbgap.chapter import Chapter\n\nchapter = Chapter("toy", globals())',
    "chapter.box()",
    "chapter.verdicts()",
    'chapter.table("table1")',
    'chapter.figure("travel")',
    'chapter.records("travel")',
    'chapter.prose("Small batches reach {table1:digits:batch 100}; Y1 is {Y1}, {Y1:effect}.")',
    "chapter.live()",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The folder of the paper, its records made on the command line; everything else that is written lies beside it."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "papers"
    folder.mkdir()
    (folder / "toy.py").write_text(MODULE)
    (folder / "toy.yaml").write_text(FACTS)
    notebook = nbformat.v4.new_notebook()
    parameters = nbformat.v4.new_code_cell("profile = None\nseeds = None\nworkers = 1")
    parameters.metadata["tags"] = ["parameters"]
    notebook.cells = [nbformat.v4.new_markdown_cell("# A toy"), parameters, *map(nbformat.v4.new_code_cell, CELLS)]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "toy.ipynb")
    done = python(home, "-W", "error", "-m", "lbgap", "run", "toy", "--profile", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 done, 0 left, 0 failed")
    return home


def travelled(home: Path, batch: int) -> np.ndarray:
    """How far the runs of a batch size went, by seed, straight from the records."""
    records = sorted((r for r in Store(home / "results") if r.job.batch_size == batch), key=lambda r: r.job.seed)
    return np.array([r.results["distance"]["value"][-1] for r in records])


def execute(home: Path, name: str, *parameters: str) -> list[str]:
    """The notebook through papermill: what each code cell shows, as text."""
    out = home / f"{name}.ipynb"
    notebook = home / "papers" / "toy.ipynb"
    done = python(home, "-m", "papermill", str(notebook), str(out), "--no-progress-bar", *parameters)
    assert done.returncode == 0, done.stderr
    shown = []
    for cell in nbformat.read(out, as_version=4).cells:
        if cell.cell_type == "code" and cell.source in CELLS:
            pieces = [o.get("data", {}) for o in cell.outputs]
            assert all("data" in o for o in cell.outputs), cell.outputs
            shown.append(
                " ".join(p.get("text/html", p.get("text/markdown", "image" if "image/png" in p else "")) for p in pieces)
            )
    return shown


def test_status_counts_its_records(home):
    done = python(home, "-W", "error", "-m", "lbgap", "status", "toy", "--json")
    assert done.returncode == 0, done.stderr
    rows = {(row["profile"], row["table"]): (row["done"], row["missing"]) for row in json.loads(done.stdout)}
    assert rows == {
        ("cpu", "table1"): (10, 0),
        ("cpu", "travel"): (10, 0),
        ("cpu", "Y1"): (10, 0),
        ("quick", "table1"): (0, 2),
        ("quick", "travel"): (0, 2),
        ("quick", "Y1"): (0, 2),
    }


def test_a_package_is_a_paper_too(home, tmp_path):
    """The same paper in two files of a folder, its facts beside the folder: the same jobs, under the same records."""
    package = tmp_path / "papers" / "toy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from lbgap.papers.toy.whole import PROFILES, PaperSettings, study\n")
    (package / "whole.py").write_text(MODULE.replace("Path(__file__)", "Path(__file__).parent"))
    package.with_suffix(".yaml").write_text(FACTS)
    as_module, as_package = (
        python(folder, "-W", "error", "-m", "lbgap", "status", "toy", "--json", "--results", str(home / "results"))
        for folder in (home, tmp_path)
    )
    assert as_package.returncode == 0, as_package.stderr
    assert json.loads(as_package.stdout) == json.loads(as_module.stdout) != []


def test_verdicts_judge_its_claim_beside_those_of_the_other_papers(home):
    done = python(home, "-W", "error", "-m", "lbgap", "verdicts", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["paper"] for row in rows} == {*papers.papers(), "toy"}
    (row,) = [row for row in rows if row["paper"] == "toy"]
    difference = travelled(home, 700) - travelled(home, 100)
    expected = stats.ttest_1samp(difference, 0).confidence_interval()
    assert (row["id"], row["claim"], row["profile"], row["n"]) == ("Y1", "Large batches travel less far", "cpu", 5)
    assert row["effect"] == pytest.approx(difference.mean(), rel=1e-5)
    assert row["interval"] == pytest.approx([expected.low, expected.high], rel=1e-5)
    side = "replicated" if expected.high < 0 else "contradicted" if expected.low > 0 else "inconclusive"
    assert row["verdict"] == side


def test_its_notebook_shows_the_committed_records_and_trains_nothing(home):
    before = {path: path.stat().st_mtime_ns for path in (home / "results").rglob("*.json")}
    pieces = execute(home, "committed")[1:]
    box, verdicts, table, figure, numbers, prose, live = (re.sub("<span[^>]*>|</span>", "", piece) for piece in pieces)
    assert "of 1 claims, one for each scope, reduced or under our readings: 1 " in box
    assert "10 of 10 jobs" in box
    assert "Large batches travel less far" in verdicts
    assert "97.50 ± 0.50" in table
    accuracy = [r.results["final"]["test"]["batch"]["accuracy"] for r in Store(home / "results") if r.job.batch_size == 100]
    ours = f"{np.mean(accuracy):.2f} ± {np.std(accuracy, ddof=1):.2f}"
    assert ours in table
    assert 'role="img" aria-label="distance: ' in figure
    assert "toy-travel.csv" in numbers
    assert ours in prose
    assert f"{(travelled(home, 700) - travelled(home, 100)).mean():+.3g} [" in prose
    assert "Nothing was trained" in live
    assert {path: path.stat().st_mtime_ns for path in (home / "results").rglob("*.json")} == before


def test_its_notebook_runs_a_profile_with_ones_own_settings(home):
    before = len(list((home / "results").rglob("*.json")))
    live = execute(home, "live", "-p", "profile", "quick", "-p", "seeds", "1")[-1]
    assert "**Live: quick.** 2 jobs were run for this page, 0 are left" in live
    scratch = list(Store(home / "cache" / "scratch"))
    assert {r.job.batch_size for r in scratch} == {100, 700}
    assert all(f"{r.results['final']['test']['batch']['accuracy']:.2f}" in live for r in scratch)
    assert len(list((home / "results").rglob("*.json"))) == before
