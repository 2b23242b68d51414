"""Tables as HTML: what of a table without published values is not run stands beneath it, not in it."""

import pandas as pd
import pytest

from lbgap import render
from lbgap.papers.paper import Table


def frame(published: float, runs: dict[str, int]) -> pd.DataFrame:
    """A column "x" of rows with so many seeds each."""
    return pd.DataFrame(
        {
            "row": row,
            "column": "x",
            "published": published,
            "published_std": float("nan"),
            "mean": 1.5 if n else float("nan"),
            "std": float("nan"),
            "n": n,
            "diverged": 0,
            "undefined": 0,
        }
        for row, n in runs.items()
    )


@pytest.mark.parametrize(
    "published, runs, shown",
    [
        (float("nan"), {"a": 5, "b": 0}, ["5"]),
        (float("nan"), {"a": 0, "b": 0}, ["not run", "not run"]),
        (2.5, {"a": 5, "b": 0}, ["published", "ours, n = 5", "published", "ours: not run"]),
    ],
)
def test_rows_that_are_not_run(published, runs, shown):
    text = render.table(Table("t", "A table", "percent", ()), frame(published, runs))
    cells = [part.split("</td>")[0] for part in text.split("</th><td>")[1:]]
    assert cells == shown


def test_a_deviation_is_set_apart_and_a_reading_names_its_rows():
    of = frame(float("nan"), {"a": 5})
    of["std"] = 0.25
    assert "<td>1.50 <span class='deviation'>± 0.25</span></td>" in render.table(Table("t", "A table", "", ()), of)
    both = pd.concat([of, of.assign(column="x running")], ignore_index=True)
    text = render.table(Table("t", "A table", "", ()), both)
    assert [part.split("</td>")[0] for part in text.split("</th><td>")[1:]] == ["ours, n = 5", "ours, running, n = 5"]


@pytest.mark.parametrize("places, shown", [((10.0, 2.0), ("2", "10")), (("ten & more", "two"), ("ten &amp; more", "two"))])
def test_a_line_of_a_figure_is_told_by_its_ends(places, shown):
    """Numbers in their order, names in the order of the ticks."""
    points = [("p", "a", seed, x, y + seed) for seed in (0, 2) for x, y in zip(places, (5.0, 1.0), strict=True)]
    text = render.figure_numbers(pd.DataFrame(points, columns=["panel", "line", "seed", "x", "y"]), "cpu")
    means = (2.0, 6.0) if shown[0] == "2" else (6.0, 2.0)
    assert "<td>2</td>" + "".join(f"<td>{x}</td><td>{y:g}</td>" for x, y in zip(shown, means, strict=True)) + "</tr>" in text


@pytest.mark.parametrize(
    "rows, words",
    [
        (["F1, as is", "F1, corrected"], "F1"),
        (["F1, as is"], "F1, as is"),
        (["F1, as is", "F1, corrected", "C1: plain"], "F1, C1"),
        (["F1, as is", "C1: plain"], "F1, as is; C1"),
        (["C1: plain", "small batch"], "C1, small batch"),
    ],
)
def test_rows_are_named_by_their_networks_where_all_of_them_are_meant(rows, words):
    assert render.rows_in_words(rows, ["F1, as is", "F1, corrected", "C1: plain", "small batch"]) == words
