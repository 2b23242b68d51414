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
        (float("nan"), {"a": 5, "b": 0}, ["ours, n = 5"]),
        (float("nan"), {"a": 0, "b": 0}, ["ours: not run", "ours: not run"]),
        (2.5, {"a": 5, "b": 0}, ["published", "ours, n = 5", "published", "ours: not run"]),
    ],
)
def test_rows_that_are_not_run(published, runs, shown):
    text = render.table(Table("t", "A table", "percent", ()), frame(published, runs))
    cells = [part.split("</td>")[0] for part in text.split("</th><td>")[1:]]
    assert cells == shown
