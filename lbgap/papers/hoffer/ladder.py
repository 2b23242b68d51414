"""Tables 1 and 2, the ladder: each remedy added to the last."""

from lbgap.papers.hoffer.recipes import COLUMNS, FACTS, Recipes, accuracy, column
from lbgap.papers.paper import Axis, Figure, Table, difference, published
from lbgap.papers.recipe import point, published_table


def table(name: str, recipes: Recipes) -> Table:
    """One of the two tables of the paper."""
    rows = FACTS["tables"][name]["rows"]
    return published_table(
        FACTS,
        name,
        {n: s for n, s in recipes.items() if n in rows},
        {c: lambda s, c=c: accuracy(column(s, c)) for c in COLUMNS},
    )


def figure(recipes: Recipes, own: bool) -> Figure:
    """The columns of the tables as steps, beside the published ones unless the settings are ``own``."""
    panels = tuple(Axis(n, "each remedy added to the last", "validation accuracy, percent", ticks=COLUMNS) for n in recipes)
    series = [point(n, "ours", i, accuracy(column(s, c))) for n, s in recipes.items() for i, c in enumerate(COLUMNS)]
    if not own:
        reported = FACTS["tables"]["table1"]["rows"] | FACTS["tables"]["table2"]["rows"]
        series += [published(n, *enumerate(reported[n])) for n in recipes]
    return Figure("ladder", "The ladder: each remedy added to the last", panels, tuple(series), mark="interval")


def curves(recipes: Recipes) -> Figure:
    """Validation accuracy of each column."""
    panels, series = [], []
    for n, s in recipes.items():
        panels.append(Axis(n, "update", "validation accuracy, percent", log_x=True))
        for c in COLUMNS:
            of, batch = column(s, c)
            series.append(of.curve(n, batch, "test_accuracy", x="update", line=c))
    return Figure("curves", "Validation accuracy against updates", tuple(panels), tuple(series))


def fitted(recipes: Recipes) -> Table:
    """How far each column fits its training set."""
    cells = []
    for n, s in recipes.items():
        for c in COLUMNS:
            of, batch = column(s, c)
            cells.append(s.cell(n, c, of.accuracy(batch, "train", "running")))
        large, small = (of.accuracy(batch, "train", "running") for of, batch in (column(s, c) for c in ("+LR", "SB")))
        cells.append(s.cell(n, "+LR - SB", difference(large, small)))
    return Table("fitted", "Training accuracy of the same runs, without augmentation and dropout", "percent", tuple(cells))
