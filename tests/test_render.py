"""Tables as HTML: named heads, rows that are not run, deviations, reductions, and each number a link to its place in a fold."""

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lbgap import render
from lbgap.papers.paper import Axis, Table
from lbgap.stats import Estimate


def frame(published: float, runs: dict[str, int]) -> pd.DataFrame:
    """A column "x" of rows with so many seeds each."""
    return pd.DataFrame(
        {
            "row": row,
            "column": "x",
            "network": "",
            "heading": "x",
            "reading": "",
            "published": published,
            "published_std": float("nan"),
            "scale": "",
            "mean": 1.5 if n else float("nan"),
            "std": float("nan"),
            "n": n,
            "diverged": 0,
            "undefined": 0,
        }
        for row, n in runs.items()
    )


def read(text: str) -> list[list[str]]:
    """The rows of a table's body, as lists of the cells' text."""
    rows = BeautifulSoup(text, "html.parser").tbody.find_all("tr")
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in rows]


@pytest.mark.parametrize(
    "published, runs, shown",
    [
        (float("nan"), {"a": 5, "b": 0}, [["a", "5", "1.50"]]),
        (float("nan"), {"a": 0, "b": 0}, [["a", "not run", ""], ["b", "not run", ""]]),
        (
            2.5,
            {"a": 5, "b": 0},
            [["a", "published", "2.50"], ["ours, n = 5", "1.50"], ["b", "published", "2.50"], ["ours: not run", ""]],
        ),
    ],
)
def test_rows_that_are_not_run(published, runs, shown):
    assert read(render.table(Table("t", "A table", "percent", ()), frame(published, runs))) == shown


def test_a_row_without_published_numbers_has_no_line_for_them():
    of = frame(2.5, {"a": 5, "b": 5})
    of.loc[of["row"] == "b", "published"] = float("nan")
    shown = read(render.table(Table("t", "A table", "percent", ()), of))
    assert shown == [["a", "published", "2.50"], ["ours, n = 5", "1.50"], ["b", "ours, n = 5", "1.50"]]


def test_a_ratio_stands_with_its_interval():
    of = frame(float("nan"), {"a": 5}).assign(scale="ratio", low=1.2, high=2.0)
    assert read(render.table(Table("t", "A table", "", ()), of)) == [["a", "5", "× 1.5 [1.2, 2]"]]


def test_a_deviation_is_set_apart_and_a_reading_names_its_rows():
    of = frame(float("nan"), {"a": 5})
    of["std"] = 0.25
    assert "1.50 <span class='deviation'>± 0.25</span>" in render.table(Table("t", "A table", "", ()), of)
    both = pd.concat([of, of.assign(column="x running", reading="running")], ignore_index=True)
    rows = read(render.table(Table("t", "A table", "", ()), both))
    assert [row[-2] for row in rows] == ["ours, n = 5", "ours, running, n = 5"]


@pytest.mark.parametrize(
    "mean, std, digits, shown",
    [
        (98.034, 0.0712, 2, "98.03 ± 0.07"),
        (4721.13, 302.4, 2, "4,721 ± 302"),
        (0.00123, 0.0004567, 2, "0.0012 ± 0.0005"),
        (5.0, 0.00123, 2, "5.00 ± 0.00"),
        (1.5, float("nan"), 1, "1.5"),
        (float("nan"), float("nan"), 2, ""),
        (float("inf"), float("nan"), 2, "∞"),
        (-0.004, 0.02, 2, "-0.0040 ± 0.0200"),
        (0.0, 0.0, 2, "0.00 ± 0.00"),
    ],
)
def test_a_deviation_has_the_decimals_of_its_mean(mean, std, digits, shown):
    assert render.number(mean, std, digits) == shown


def test_a_table_is_named_numbered_scrolled_by_keyboard_and_has_no_empty_head():
    text = render.table(Table("t", "A < table", "percent", (), number=3), frame(2.5, {"a": 5}), "paper", 4)
    page = BeautifulSoup(text, "html.parser")
    assert page.caption.get_text() == "Table 4. A < table (percent; Table 3 of the paper)"
    assert (page.div["role"], page.div["tabindex"], page.div["aria-label"], page.div["id"]) == (
        "region",
        "0",
        "A < table",
        "paper-t",
    )
    assert all(head.get_text() and head["scope"] for head in page.find_all("th"))
    assert {cell["data-label"] for cell in page.find_all("td")} == {"x"}


def test_a_number_of_ours_leads_to_its_place_in_the_fold():
    text = render.table(Table("t", "A table", "percent", ()), frame(2.5, {"a b": 5}), "paper")
    (link,) = BeautifulSoup(text, "html.parser").find_all("a")
    assert (link["href"], link.get_text()) == ("#paper-t-a-b-x", "1.50")


def test_a_reduction_says_so_beside_its_number_and_the_published_one_too():
    of = frame(2.5, {"a": 5, "b": 5}).assign(reduced=[True, False])
    rows = read(render.table(Table("t", "A table", "percent", ()), of))
    assert [row[-2] for row in rows] == ["published, full size", "ours, reduced, n = 5", "published, full size", "ours, n = 5"]


@pytest.mark.parametrize(
    "column, shown", [("eps1e-3_SB", "ε = 10⁻³, SB"), ("eps5e-4_LB", "ε = 5·10⁻⁴, LB"), ("test_SB", "test SB")]
)
def test_columns_are_headed_in_a_reader_s_signs(column, shown):
    text = render.table(Table("t", "A table", "", ()), frame(2.5, {"a": 5}).assign(heading=column))
    assert BeautifulSoup(text, "html.parser").find_all("th")[2].get_text() == shown


@pytest.mark.parametrize("effect, shown", [(9.49e-05, "9.49·10⁻⁵"), (-1e-7, "-10⁻⁷"), (2.5e21, "2.5·10²¹"), (0.0001, "0.0001")])
def test_far_powers_of_ten_are_written_as_a_reader_would(effect, shown):
    assert render.interval(Estimate(effect, effect, effect, 5), signed=False) == f"{shown} [{shown}, {shown}]"


@pytest.mark.parametrize("places, shown", [((10.0, 2.0), ("2", "10")), (("ten & more", "two"), ("ten & more", "two"))])
def test_a_line_of_a_figure_is_told_by_its_ends(places, shown):
    """Numbers in their order, names in the order of the ticks."""
    points = [("p", "a", x, y, y - 1, y + 1, 2) for x, y in zip(places, (5.0, 1.0), strict=True)]
    text = render.figure_numbers(pd.DataFrame(points, columns=["panel", "line", "x", "mean", "low", "high", "n"]))
    ends = ("1 [0, 2]", "5 [4, 6]") if shown[0] == "2" else ("5 [4, 6]", "1 [0, 2]")
    assert read(text) == [["p", "a", "2", shown[0], ends[0], shown[1], ends[1]]]


def test_a_panel_is_told_in_words_by_its_ends_and_their_order():
    points = [
        ("p", line, x, y) for line, ys in (("SB", (1.0, 98.5)), ("LB", (2.0, 97.25))) for x, y in zip((1, 100), ys, strict=True)
    ]
    said = render.panel_words(Axis("p", "epoch", "percent"), pd.DataFrame(points, columns=["panel", "line", "x", "mean"]))
    assert said == (
        "p: percent against epoch. SB goes from 1 at 1 to 98.5 at 100; LB goes from 2 at 1 to 97.25 at 100; "
        "at 100 the order from the highest down is SB, LB."
    )


@pytest.mark.parametrize(
    "rows, words",
    [
        (["F1, as is", "F1, corrected"], "F1"),
        (["F1, as is"], "F1, as is"),
        (["F1, as is", "F1, corrected", "C1: plain"], "F1, C1"),
        (["F1, as is", "C1: plain"], "F1, as is; C1"),
        (["C1: plain", "2,500 images"], "C1; 2,500 images"),
    ],
)
def test_rows_are_named_by_their_networks_where_all_of_them_are_meant(rows, words):
    networks = {"F1, as is": "F1", "F1, corrected": "F1", "C1: plain": "C1", "2,500 images": "C1"}
    among = pd.DataFrame(networks.items(), columns=["row", "network"])
    assert render.rows_in_words(rows, among) == words
