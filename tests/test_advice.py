"""What the front page advises: gains and costs against the records, read another way."""

from types import SimpleNamespace

import numpy as np
import pytest

from lbgap import advice, papers, report, trace
from lbgap.records import Store

STORE = Store()
GAINS = [(gain, found) for row in advice.rows() for gain in row["gains"] for found in [gain["paper"]]]


@pytest.fixture(scope="module")
def found():
    return [gain for row in advice.advice(STORE, papers.names()) for gain in row.gains]


def behind(paper: str, table: str, place: tuple[str, str]):
    """The values of a cell by seed, and the runs behind it, as its fold shows them."""
    lines = trace.of(paper, table, STORE).lines
    lines = lines[(lines["row"] == place[0]) & (lines["column"] == place[1])].set_index("seed")
    jobs = [STORE.of_key(key).job for key in dict.fromkeys(key for keys in lines["records"] for key in keys)]
    return lines["value"], jobs


def before(run) -> int:
    """Updates that a run's start had behind it."""
    return run.start.epoch * run.start.run.updates_per_epoch if run.start else 0


def test_there_are_at_most_eight_rows_and_each_gain_has_five_seeds(found):
    assert len(advice.rows()) <= 8
    assert min(gain.estimate.n for gain in found) >= 5


def test_a_gain_is_the_mean_difference_of_the_folds_and_its_cost_that_of_their_records(found):
    for (written, _), gain in zip(GAINS, found, strict=True):
        one, ran = behind(gain.paper, gain.table, tuple(written["cell"]))
        other, compared = behind(gain.paper, written.get("over_table", gain.table), tuple(written["over"]))
        better = other - one if written.get("error") else one - other
        assert gain.estimate.effect == pytest.approx(np.mean(better))
        assert gain.estimate.low < gain.estimate.effect < gain.estimate.high
        made, others = (sum(j.updates + before(j) for j in runs) for runs in (ran, compared))
        assert gain.updates == pytest.approx(made / others)


def test_what_sees_the_same_images_at_the_same_passes_costs_the_same(found):
    cost = {(gain.paper, gain.table, *gain.place): gain.compute for gain in found}
    assert cost["keskar", "table2", "F1", "test_SB"] == 1
    assert cost["hoffer", "table1", "F1", "+LR"] == 1
    assert cost["hoffer", "search", "best on the other seeds", "LB"] == 9  # rates, the published one among them
    assert cost["keskar", "robust", "LB, stability", "test"] == 2  # a pass over the images, and one over noisy copies


def test_only_the_papers_own_setting_is_called_so(found):
    own = {(gain.paper, *gain.place) for gain in found if gain.scope == "paper"}
    assert own == {("keskar", network, "test_SB") for network in ("F1", "C1")}


def test_advice_on_cells_of_other_seeds_is_refused(monkeypatch):
    gain = {
        "paper": "keskar",
        "table": "fresh_seeds",
        "cell": ["F1, LB", "test"],
        "over_table": "table2",
        "over": ["F1", "test_LB"],
    }
    monkeypatch.setattr(advice, "rows", lambda: ({"situation": "s", "do": "d", "gains": [gain]},))
    with pytest.raises(
        ValueError, match="^advice compares F1, LB, test with F1, test_LB; accepted are cells of the same seeds$"
    ):
        advice.advice(STORE, ["keskar"])


def test_advice_on_a_cell_that_is_not_there_is_refused(monkeypatch):
    gain = {"paper": "hoffer", "table": "table1", "cell": ["F1", "+XX"], "over": ["F1", "LB"]}
    monkeypatch.setattr(advice, "rows", lambda: ({"situation": "s", "do": "d", "gains": [gain]},))
    with pytest.raises(ValueError, match=r"^advice asks for F1, \+XX; table1 of hoffer has no such cell$"):
        advice.advice(STORE, ["hoffer"])
    assert advice.advice(STORE, ["keskar"]) == [], "a row without gains in these papers is left out"


def test_a_diverged_run_leaves_its_pair_out_of_a_gain(monkeypatch):
    written, _ = GAINS[0]
    whole = advice._gain(STORE, **written).estimate
    holed = SimpleNamespace(**vars(report))
    holed.values = lambda quantity, store: [np.nan, *report.values(quantity, store)[1:]]
    monkeypatch.setattr(advice, "report", holed)
    found = advice._gain(STORE, **written).estimate
    assert (found.n, whole.n) == (4, 5) and np.isfinite([found.effect, found.low, found.high]).all()
