"""Tables, verdicts, figures and states from made-up records of a made-up paper, small enough to be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy
from conftest import digits_run

from lbgap import cost, papers, render, report, trace, verdicts
from lbgap.papers.paper import (
    Axis,
    Case,
    Cell,
    Claim,
    Figure,
    Paper,
    Published,
    Quantity,
    Series,
    Settings,
    Study,
    Table,
    best_on_the_others,
    difference,
    dig,
    published,
    ratio,
)
from lbgap.records import Record, Store
from lbgap.spec import Train
from lbgap.stats import Difference, Equivalence, Ratio, judge

EPOCHS = {"quick": 1, "cpu": 3, "paper": 4}  # another budget, so other jobs
SEEDS = 5
T_2 = 4.302653  # Student's t, 97.5%, 2 degrees of freedom, from a printed table
T_4 = 2.776445  # Student's t, 97.5%, 4 degrees of freedom, from a printed table
SMALL, LARGE, HUGE = 100, 200, 400


def run(batch_size: int, seed: int, profile: str = "cpu") -> Train:
    """The run of a batch size and a seed."""
    return digits_run(batch_size, seed, epochs=EPOCHS[profile])


def accuracy(batch_size: int, profile: str = "cpu", seeds: int = SEEDS) -> Quantity:
    """Test accuracy of a batch size."""
    return Quantity(tuple((run(batch_size, s, profile),) for s in range(seeds)), dig("accuracy"))


def toy(profile: str) -> Study:
    """Two rows of two cells and one that nobody runs; claims of one, two and no settings; a figure of two panels."""
    of = {name: accuracy(b, profile) for name, b in (("SB", SMALL), ("LB", LARGE), ("XB", HUGE))}
    cells = (
        Cell("a", "SB", Published(98.0, 0.1), of["SB"], "digits", "a"),
        Cell("a", "LB", Published(97.0), of["LB"], "digits", "a"),
        Cell("b", "XB", None, of["XB"], "digits, huge", "b"),
        Cell("c", "SB", Published(50.0), None),
    )
    ratio = Quantity(tuple((run(LARGE, s, profile), run(SMALL, s, profile)) for s in range(SEEDS)), _ratio)
    scope = {"scope": "paper" if profile == "paper" else "reduced"}
    claims = (
        Claim("T1", "LB below SB", (Case("a: LB - SB", Difference("below"), of["LB"], of["SB"], "a", **scope),)),
        Claim(
            "T2",
            "on one of two",
            (
                Case("a, plain: LB near SB", Equivalence(0.5), of["LB"], of["SB"], "a", **scope),
                Case("b: XB at least twice SB", Ratio(2), of["XB"], of["SB"], "b", central=True, **scope),
            ),
            needed=1,
        ),
        Claim("T3", "nobody runs this", reason="no code for it"),
    )
    curve = lambda r: zip(r["epochs"], r["losses"], strict=True)  # noqa: E731
    figure = Figure(
        "fig",
        "A figure",
        (Axis("left", "epoch", "loss"), Axis("right", "epoch", "loss", log_y=True)),
        (Series("left", "SB", of["SB"].jobs, curve), Series("right", "LB", of["LB"].jobs, curve)),
    )
    table = Table("tab", "A table", "percent", cells, number=2)
    smaller = (Cell("d", "LB / SB", None, ratio),) if profile == "cpu" else ()  # a row that the larger profile leaves out
    other = Quantity(tuple((run(HUGE, s, profile), run(SMALL, s, profile)) for s in range(SEEDS)), _ratio)
    both = (Cell("a", "LB / SB", None, ratio), Cell("b", "LB / SB", None, other))
    ratios = Table("ratios", "Ratios", "", (*both, *smaller))
    return Study("toy", profile, (table, ratios), (figure,), claims)


def _ratio(large: dict, small: dict) -> float:
    return large["accuracy"] / small["accuracy"] if small["accuracy"] else math.inf


@pytest.fixture(autouse=True)
def paper(monkeypatch):
    """The toy is the only paper."""
    of = Paper("toy", {}, Settings, lambda s: toy(s.profile), ("quick", "cpu", "paper"))
    monkeypatch.setattr(papers, "papers", lambda: {"toy": of})


def put(store: Store, batch_size: int, accuracies, profile: str = "cpu") -> None:
    """A record for each seed; None puts none, NaN a diverged run."""
    for seed, value in enumerate(accuracies):
        if value is not None:
            results = {"diverged": math.isnan(value), "epochs": [1, 2], "losses": [2.0 + seed, 1.0 + seed]}
            results |= {} if math.isnan(value) else {"accuracy": float(value)}
            store.put(Record(run(batch_size, seed, profile), results, {"seconds": 2.0, "device": "made up"}))


def cell(frame, row: str, column: str):
    """One line of a table's frame."""
    (line,) = frame[(frame["row"] == row) & (frame["column"] == column)].to_dict("records")
    return line


NAN = float("nan")

# ---------------------------------------------------------------- values and cells


def test_values_are_read_by_seed(store):
    put(store, SMALL, [90.0, None, NAN, 93.0, 94.0])
    got = report.values(accuracy(SMALL), store)
    assert [got[0], got[1], got[3], got[4]] == [90.0, None, 93.0, 94.0]
    assert math.isnan(got[2])


def test_differences_of_differences_read_all_of_their_records(store):
    for batch_size, of in ((SMALL, [50.0, 40.0]), (LARGE, [25.0, 60.0]), (HUGE, [10.0, 70.0])):
        put(store, batch_size, of)
    small, large, huge = (accuracy(b, seeds=2) for b in (SMALL, LARGE, HUGE))
    assert report.values(difference(difference(huge, small), large), store) == [-65.0, -30.0]
    assert report.values(difference(huge, difference(small, large)), store) == [-15.0, 90.0]


def test_a_quantity_may_read_diverged_runs_itself(store):
    put(store, SMALL, [90.0, NAN, None, 93.0, 94.0])
    of = Quantity(accuracy(SMALL).jobs, lambda r: -1.0 if r["diverged"] else r["accuracy"], reads_diverged=True)
    assert report.values(of, store) == [90.0, -1.0, None, 93.0, 94.0]


def test_a_value_of_several_records_needs_them_all(store):
    both = next(t for t in toy("cpu").tables if t.name == "ratios").cells[0].quantity
    put(store, SMALL, [50.0, 40.0, 50.0, NAN])
    put(store, LARGE, [25.0, 60.0, None, 60.0])
    got = report.values(both, store)
    assert got[:2] == [0.5, 1.5]
    assert got[2] is None
    assert math.isnan(got[3])
    assert got[4] is None


def test_a_cell_is_mean_deviation_and_n(store):
    put(store, SMALL, [90.0, 92.0, 94.0])
    put(store, LARGE, [97.0])
    frame = report.table_frame(toy("cpu").tables[0], "cpu", store)
    small, large, absent = cell(frame, "a", "SB"), cell(frame, "a", "LB"), cell(frame, "b", "XB")
    assert (small["mean"], small["std"], small["n"]) == (92.0, 2.0, 3)  # deviations -2, 0, 2; 8 / (3 - 1)
    half = T_2 * 2.0 / math.sqrt(3)
    assert (small["low"], small["high"]) == pytest.approx((92.0 - half, 92.0 + half))
    assert (small["published"], small["published_std"], small["setting"], small["profile"]) == (98.0, 0.1, "digits", "cpu")
    assert (large["mean"], large["n"], large["published"]) == (97.0, 1, 97.0)
    assert all(math.isnan(large[of_several]) for of_several in ("std", "low", "high"))
    assert math.isnan(large["published_std"])
    assert (absent["n"], absent["diverged"]) == (0, 0)
    assert math.isnan(absent["mean"])
    assert math.isnan(absent["published"])
    unrun = cell(frame, "c", "SB")
    assert (unrun["n"], unrun["published"]) == (0, 50.0)


def test_diverged_runs_are_counted_and_left_out_of_the_mean(store):
    put(store, SMALL, [NAN, 92.0, 94.0, NAN])
    line = cell(report.table_frame(toy("cpu").tables[0], "cpu", store), "a", "SB")
    assert (line["mean"], line["n"], line["diverged"]) == (93.0, 2, 2)
    assert line["std"] == pytest.approx(math.sqrt(2))


def test_a_run_that_another_choice_leaves_behind_is_no_divergence_of_the_value(store):
    """Two choices, five seeds; seed 0 of the second diverged, and the others keep clear of it."""
    put(store, SMALL, [90.0, 91.0, 92.0, 93.0, 94.0])
    put(store, LARGE, [NAN, 10.0, 10.0, 10.0, 10.0])
    best = best_on_the_others([accuracy(SMALL), accuracy(LARGE)])
    (line,) = report.table_frame(Table("tab", "", "", (Cell("a", "best", None, best),)), "cpu", store).to_dict("records")
    assert (line["mean"], line["n"], line["diverged"], line["undefined"]) == (92.0, 5, 0, 0)


def test_a_ratio_has_one_value_in_a_table_and_under_a_rule(store):
    """The geometric mean and the interval of the logarithms, by SciPy; the deviation has no place beside them."""
    put(store, SMALL, [10.0, 20.0, 40.0, 10.0, 10.0])
    put(store, LARGE, [20.0, 80.0, 320.0, 10.0, 40.0])
    quantity = ratio(accuracy(LARGE), accuracy(SMALL))
    (line,) = report.table_frame(Table("tab", "", "", (Cell("a", "ratio", None, quantity),)), "cpu", store).to_dict("records")
    powers = np.array([1, 2, 3, 0, 2])
    low, high = scipy.stats.t.interval(0.95, 4, powers.mean(), scipy.stats.sem(powers))
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((2**1.6, 2**low, 2**high))
    assert math.isnan(line["std"]) and line["scale"] == "ratio"
    rule = judge(Ratio(2), *(np.array(report.values(accuracy(b), store), float) for b in (LARGE, SMALL))).estimate
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((rule.effect, rule.low, rule.high))
    assert render.mean(pd.Series(line), 2) == f"× {2**1.6:.3g} [{2**low:.3g}, {2**high:.3g}]"


def test_a_ratio_to_zero_is_infinite_and_no_divergence(store):
    """Nothing diverged: the small batch's number is 0."""
    put(store, SMALL, [0.0, 50.0])
    put(store, LARGE, [25.0, 25.0])
    line = cell(report.table_frame(toy("cpu").tables[1], "cpu", store), "a", "LB / SB")
    assert (line["mean"], line["n"], line["diverged"]) == (math.inf, 2, 0)


# ---------------------------------------------------------------- which profile speaks


def profiles(store: Store) -> dict[str, set[str]]:
    """Which profile fills each row of the table."""
    _, frame = report.committed_table("toy", "tab", store)
    return {row: set(part["profile"]) for row, part in frame.groupby("row")}


def test_without_records_the_papers_own_profile_stands_there_empty(store):
    table, frame = report.committed_table("toy", "tab", store)
    assert profiles(store) == {"a": {"paper"}, "b": {"paper"}, "c": {"paper"}}
    assert frame["n"].sum() == 0
    assert list(frame["published"].dropna()) == [98.0, 97.0, 50.0]
    assert table.number == 2


def test_a_row_speaks_through_the_profile_that_fills_it(store):
    put(store, SMALL, range(90, 95))
    put(store, LARGE, range(80, 85))
    assert profiles(store) == {"a": {"cpu"}, "b": {"paper"}, "c": {"paper"}}
    # one record short of the whole row
    put(store, SMALL, range(70, 75), "paper")
    put(store, LARGE, range(60, 64), "paper")
    assert profiles(store)["a"] == {"cpu"}
    _, frame = report.committed_table("toy", "tab", store)
    assert (cell(frame, "a", "SB")["mean"], cell(frame, "a", "LB")["mean"]) == (92.0, 82.0)
    put(store, LARGE, range(60, 65), "paper")
    assert profiles(store)["a"] == {"paper"}
    _, frame = report.committed_table("toy", "tab", store)
    assert (cell(frame, "a", "SB")["mean"], cell(frame, "a", "LB")["mean"]) == (72.0, 62.0)
    assert set(frame[frame["row"] == "a"]["n"]) == {5}, "profiles are never put together"


def test_what_is_begun_shows_before_what_is_not(store):
    put(store, SMALL, [90.0], "cpu")
    assert profiles(store)["a"] == {"cpu"}
    put(store, SMALL, [70.0], "paper")
    assert profiles(store)["a"] == {"paper"}, "equally much: the paper's own"
    put(store, LARGE, [80.0], "cpu")
    assert profiles(store)["a"] == {"cpu"}, "more cells"


def test_a_profile_whose_runs_diverge_is_complete(store):
    put(store, SMALL, [90.0] * 5, "paper")
    put(store, LARGE, [NAN] * 5, "paper")
    put(store, SMALL, [80.0] * 5, "cpu")
    put(store, LARGE, [80.0] * 5, "cpu")
    assert profiles(store)["a"] == {"paper"}
    _, frame = report.committed_table("toy", "tab", store)
    assert (cell(frame, "a", "LB")["n"], cell(frame, "a", "LB")["diverged"]) == (0, 5)


def test_a_second_reading_does_not_decide_which_profile_speaks(store, monkeypatch):
    """It may take as long as the first; the paper's own setting does not wait for it."""

    def with_a_reading(profile: str) -> Study:
        of = toy(profile)
        more = replace(of.tables[0].cells[1], reading="running", published=None, quantity=accuracy(HUGE, profile))
        return replace(of, tables=(replace(of.tables[0], cells=(*of.tables[0].cells, more)), *of.tables[1:]))

    of = Paper("toy", {}, Settings, lambda s: with_a_reading(s.profile), ("quick", "cpu", "paper"))
    monkeypatch.setattr(papers, "papers", lambda: {"toy": of})
    report._committed_studies.cache_clear()
    for batch in (SMALL, LARGE, HUGE):
        put(store, batch, [80.0] * 5, "cpu")
    for batch in (SMALL, LARGE):
        put(store, batch, [70.0] * 5, "paper")
    row = report.committed_table("toy", "tab", store)[1].query("row == 'a'")
    assert set(row["profile"]) == {"paper"}
    assert list(row[row["reading"] == "running"]["n"]) == [0]
    report._committed_studies.cache_clear()


def test_quick_records_never_speak(store):
    put(store, SMALL, range(90, 95), "quick")
    put(store, LARGE, range(80, 85), "quick")
    assert report.committed_table("toy", "tab", store)[1]["n"].sum() == 0
    assert {row["verdict"] for row in verdicts.verdict_rows("toy", store)} == {"not run"}
    assert report.committed_figure("toy", "fig", store)[1].empty


def test_a_row_that_one_profile_alone_has_is_shown_too(store):
    put(store, SMALL, [50.0] * 5)
    put(store, LARGE, [75.0] * 5)
    _, frame = report.committed_table("toy", "ratios", store)
    assert list(frame["row"]) == ["a", "b", "d"]
    assert cell(frame, "d", "LB / SB")["mean"] == 1.5
    assert set(frame["profile"]) == {"cpu"}


def test_rows_of_our_own_tables_speak_through_one_profile(store):
    """Rows of the paper's tables stand beside what it published, rows of ours beside each other."""
    for batch, value in ((SMALL, 50.0), (LARGE, 75.0), (HUGE, 100.0)):
        put(store, batch, [value] * 5)
    for batch, value in ((SMALL, 40.0), (LARGE, 80.0)):
        put(store, batch, [value] * 5, "paper")
    _, frame = report.committed_table("toy", "ratios", store)
    assert list(zip(frame["row"], frame["profile"], frame["mean"], strict=True)) == [
        ("a", "cpu", 1.5),
        ("b", "cpu", 2.0),
        ("d", "cpu", 1.5),
    ]
    assert profiles(store)["a"] == {"paper"}
    put(store, HUGE, [120.0] * 5, "paper")
    _, frame = report.committed_table("toy", "ratios", store)
    # the row that the larger profile leaves out is shown all the same
    assert list(zip(frame["row"], frame["profile"], frame["mean"], strict=True)) == [
        ("a", "paper", 2.0),
        ("b", "paper", 3.0),
        ("d", "cpu", 1.5),
    ]


def test_an_unknown_table_is_refused(store):
    with pytest.raises(ValueError, match="^table is 'table9'; toy has tab, ratios$"):
        report.committed_table("toy", "table9", store)


# ---------------------------------------------------------------- figures


def test_a_figure_is_its_points_by_seed(store):
    put(store, SMALL, [90.0, None, 90.0])
    frame = report.figure_frame(toy("cpu").figures[0], store)
    # losses of seed s are 2 + s and 1 + s at epochs 1 and 2
    assert [tuple(line) for line in frame.to_numpy()] == [
        ("left", "SB", 0, 1.0, 2.0),
        ("left", "SB", 0, 2.0, 1.0),
        ("left", "SB", 2, 1.0, 4.0),
        ("left", "SB", 2, 2.0, 3.0),
    ]


def test_published_points_stand_beside_ours_alone(store):
    drawn = toy("cpu").figures[0]
    drawn = replace(drawn, series=(*drawn.series, published("left", (4.0, 0.5)), published("right", (4.0, 0.25))))
    assert report.figure_frame(drawn, store).empty
    put(store, SMALL, [90.0])
    frame = report.figure_frame(drawn, store)
    assert frame[frame["line"] == "published"][["panel", "x", "y"]].to_numpy().tolist() == [["left", 4.0, 0.5]]
    assert set(frame["panel"]) == {"left"}


def test_places_that_have_names_are_shown_by_them():
    figure = Figure("f", "F", (Axis("named", "length", "y", ticks=("once", "twice")), Axis("plain", "update", "y")), ())
    lines = [("named", "a", 0, 1.0, 5.0), ("plain", "a", 0, 1.0, 6.0), ("named", "a", 0, 0.0, 7.0)]
    data = pd.DataFrame(lines, columns=["panel", "line", "seed", "x", "y"])
    shown = report.with_tick_names(figure, data)
    assert list(shown["x"]) == ["twice", 1.0, "once"]
    assert list(shown["y"]) == [5.0, 6.0, 7.0]
    unnamed = replace(figure, panels=(Axis("named", "length", "y"), figure.panels[1]))
    pd.testing.assert_frame_equal(report.with_tick_names(unnamed, data), data)
    assert report.with_tick_names(figure, data[:0]).empty


def test_each_panel_speaks_through_one_profile(store):
    put(store, SMALL, [90.0, 90.0], "cpu")
    put(store, LARGE, [90.0], "cpu")
    put(store, LARGE, [90.0] * 3, "paper")
    figure, frame, used = report.committed_figure("toy", "fig", store)
    assert {panel: set(part["seed"]) for panel, part in frame.groupby("panel")} == {"left": {0, 1}, "right": {0, 1, 2}}
    assert {axis.name: axis.log_y for axis in figure.panels} == {"left": False, "right": True}
    assert figure.title == "A figure"
    assert set(used.split(", ")) == {"cpu", "paper"}


def test_a_panel_that_is_only_begun_gives_way_to_one_that_is_full(store):
    put(store, LARGE, [90.0] * 5, "cpu")
    put(store, LARGE, [70.0] * 2, "paper")
    panels = report.committed_panels("toy", "fig", store)
    assert {panel: profile for panel, (profile, _) in panels.items()} == {"right": "cpu"}
    put(store, LARGE, [70.0] * 5, "paper")
    assert {panel: profile for panel, (profile, _) in report.committed_panels("toy", "fig", store).items()} == {
        "right": "paper"
    }
    assert set(trace.of("toy", "fig", store).lines["profile"]) == {"paper"}


def test_a_panel_that_is_mostly_without_records_is_drawn_where_it_stands_alone(store, monkeypatch):
    def spread(profile: str) -> Study:
        of = toy(profile)
        lines = [Series("right", str(b), accuracy(b, profile).jobs, of.figures[0].series[0].read) for b in (SMALL, LARGE, HUGE)]
        return replace(of, figures=(replace(of.figures[0], series=(of.figures[0].series[0], *lines[1:], lines[0])),))

    of = Paper("toy", {}, Settings, lambda s: spread(s.profile), ("quick", "cpu", "paper"))
    monkeypatch.setattr(papers, "papers", lambda: {"toy": of})
    report._committed_studies.cache_clear()
    put(store, HUGE, [90.0] * 5)
    assert set(report.committed_panels("toy", "fig", store)) == {"right"}, "one line of three, and nothing else"
    put(store, SMALL, [90.0] * 5)
    assert set(report.committed_panels("toy", "fig", store)) == {"left", "right"}, "two of three"
    own = Store(store.folder.with_name("own"))
    put(own, SMALL, [90.0] * 5)
    assert set(report.committed_panels("toy", "fig", own)) == {"left"}, "one of three, beside a whole one"
    report._committed_studies.cache_clear()


def test_a_row_of_another_profile_that_is_only_begun_waits(store):
    for batch, value in ((SMALL, 40.0), (LARGE, 80.0), (HUGE, 120.0)):
        put(store, batch, [value] * 5, "paper")
    for batch in (SMALL, LARGE):
        put(store, batch, [50.0] * 2)
    assert list(report.committed_table("toy", "ratios", store)[1]["row"]) == ["a", "b"]
    for batch in (SMALL, LARGE):
        put(store, batch, [50.0] * 5)
    assert list(report.committed_table("toy", "ratios", store)[1]["row"]) == ["a", "b", "d"]


# ---------------------------------------------------------------- state


def test_status_counts_jobs_and_their_cost(store):
    put(store, SMALL, [90.0, 91.0])
    put(store, LARGE, [90.0])
    frame = report.status("toy", store)
    assert {"paper", "profile", "table", "done", "missing"} <= set(frame.columns)
    counted = {(line["profile"], line["table"]): (line["done"], line["missing"]) for line in frame.to_dict("records")}
    assert counted["cpu", "tab"] == (3, 12)
    assert counted["cpu", "ratios"] == (3, 12)
    assert counted["cpu", "fig"] == (3, 7)
    assert counted["cpu", "T1"] == (3, 7)
    assert counted["cpu", "T2"] == (3, 12)
    assert ("cpu", "T3") not in counted, "nobody runs it"
    assert counted["paper", "tab"] == (0, 15)
    assert {name for _, name in counted} == {"tab", "ratios", "fig", "T1", "T2"}
    one = cost.seconds(run(SMALL, 0)), cost.seconds(run(LARGE, 0))
    (line,) = frame[(frame["profile"] == "cpu") & (frame["table"] == "T1")].to_dict("records")
    assert line["seconds"] == pytest.approx(3 * one[0] + 4 * one[1])
    assert set(report.status("toy", store, ("paper",))["profile"]) == {"paper"}


def test_an_edited_record_is_never_shown(store):
    put(store, SMALL, [90.0] * 5)
    path = store.path(run(SMALL, 3).key)
    path.write_text(path.read_text().replace("90.0", "99.0"))
    for show in (
        lambda s: report.table_frame(toy("cpu").tables[0], "cpu", s),
        lambda s: report.committed_table("toy", "tab", s),
        lambda s: report.figure_frame(toy("cpu").figures[0], s),
        lambda s: report.status("toy", s),
    ):
        with pytest.raises(ValueError, match="was edited"):
            show(Store(store.folder))


@pytest.mark.parametrize("only", ["cpu", "paper"])
def test_a_paper_of_one_profile_is_reported_too(store, monkeypatch, only):
    of = Paper(f"solo-{only}", {}, Settings, lambda s: toy(s.profile), (only,))
    monkeypatch.setattr(papers, "papers", lambda: {of.name: of})
    assert set(report.committed_table(of.name, "tab", store)[1]["profile"]) == {only}
    assert set(report.status(of.name, store)["profile"]) == {only}


def test_a_pooled_number_is_of_all_its_seeds_and_has_no_deviation(store):
    """It is there once all of them have records."""
    jobs = (tuple(run(SMALL, seed) for seed in range(3)),)
    pooled = Quantity(jobs, lambda *results: max(r["accuracy"] for r in results), pooled=True)
    table = Table("t", "T", "percent", (Cell("a", "most", None, pooled, "digits"),))
    for seed, job in enumerate(jobs[0]):
        line = report.table_frame(table, "cpu", store).iloc[0]
        assert line["n"] == 0 and math.isnan(line["mean"])
        store.put(Record(job, {"accuracy": 90.0 + seed, "diverged": False}, {}))
    line = report.table_frame(table, "cpu", store).iloc[0]
    assert (line["n"], line["mean"]) == (3, 92.0)
    assert math.isnan(line["std"]) and math.isnan(line["low"])
