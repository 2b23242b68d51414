"""F1 with an order of the data of each seed's own (Q8), where the five trials of the tables share one."""

from collections.abc import Iterator

from lbgap.papers.keskar.recipes import BATCHES
from lbgap.papers.paper import Case, Table, ratio
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference, Ratio


def _orders(recipe: Recipe) -> dict[str, Recipe]:
    return {"one order": recipe, "own orders": recipe.fixing(data_seed=None)}


def table(recipe: Recipe) -> Table:
    """Accuracy and sharpness of both batches, under the shared order and under own ones."""
    cells = []
    for row, s in _orders(recipe).items():
        columns = {f"test_{b}": s.accuracy(b) for b in BATCHES} | {f"eps1e-3_{b}": s.sharp(b) for b in BATCHES}
        columns["LB / SB"] = ratio(s.sharp("LB"), s.sharp("SB"))
        cells += s.cells(f"F1, {row}", columns)
    return Table("own_order", "F1 with an order of the data of each seed's own", "percent; metric 2.1", tuple(cells))


def rules(recipe: Recipe) -> Iterator[tuple[str, Case]]:
    """The rules of K1 and K4 on own orders."""
    s = _orders(recipe)["own orders"]
    label = "F1, own orders: test accuracy, LB - SB"
    yield "Q8", s.case(label, Difference("below"), s.accuracy("LB"), s.accuracy("SB"), central=True)
    yield "Q8", s.case("F1, own orders: sharpness, LB / SB", Ratio(10), s.sharp("LB"), s.sharp("SB"))
