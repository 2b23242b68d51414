"""A rate of the large batch's own, where one rate for both leaves a gap (Q10, Q11): C1 on 10,000 images, 100 epochs.

LB alone is searched, and by test accuracy itself: both favour it, so that a gap that is left is no smaller where SB is searched
too. Accuracies are means over the last evaluations, as where both are searched (Q6).
"""

from collections.abc import Iterator

from lbgap.papers.keskar.data_size import at_size
from lbgap.papers.keskar.tuned import at_rate, late
from lbgap.papers.paper import Case, Quantity, Table, best_on_the_others, difference, ratio
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference, Ratio

IMAGES = 10_000
# The paper's, and up from there until one tests worse than the one before.
RATES = (1e-3, 4e-3, 1.6e-2)


def _solutions() -> dict[str, tuple[Recipe, dict[str, Quantity]]]:
    """What is shown of each row: SB, LB at each rate, and at the one that tests best for the other seeds."""
    s = at_size(IMAGES)
    by_rate = {f"LB, Adam at {rate:g}": at_rate(rate, s) for rate in RATES}
    rows = {"SB": (s, _numbers(s, "SB"))} | {row: (of, _numbers(of, "LB")) for row, of in by_rate.items()}
    large = [numbers for of, numbers in list(rows.values())[1:]]
    accuracy = [numbers["test"] for numbers in large]
    best = {name: best_on_the_others([numbers[name] for numbers in large], by=accuracy) for name in large[0]}
    return rows | {"LB, the best for the other seeds": (s, best)}


def _numbers(s: Recipe, batch: str) -> dict[str, Quantity]:
    found = {"training": s.accuracy(batch, "train"), "test": late(s, batch, "test")}
    return found | {"eps1e-3": s.sharp(batch), "distance": s.distance(batch)}


def table() -> Table:
    """Fit, test accuracy, sharpness and distance of the large batch by its rate, beside the small batch's at the paper's."""
    cells, rows = [], _solutions()
    _, small = rows["SB"]
    for row, (s, numbers) in rows.items():
        columns = dict(numbers)
        if row != "SB":
            columns["test, - SB"] = difference(numbers["test"], small["test"])
            columns["eps1e-3, / SB"] = ratio(numbers["eps1e-3"], small["eps1e-3"])
        cells += s.cells(f"C1, {IMAGES:,} images, {row}", columns)
    title = "C1 on 10,000 images, the large batch at rates of its own"
    return Table("own_rate", title, "percent; metric 2.1; distance from the start; points; ratio", tuple(cells))


def rules() -> Iterator[tuple[str, Case]]:
    """Q10: K1's rule at LB's best rate, where there is a gap at one for both; Q11: K4's rule there."""
    (s, small), (_, plain), *_, (_, best) = _solutions().values()
    lower, label = Difference("below"), f"C1, {IMAGES:,} images"
    one = s.case(f"{label}, one rate: test accuracy, LB - SB", lower, plain["test"], small["test"])
    tuned = f"{label}, LB's rate tuned"
    yield "Q10", s.case(f"{tuned}: test accuracy, LB - SB", lower, best["test"], small["test"], central=True, given=one)
    yield "Q11", s.case(f"{tuned}: sharpness, LB / SB", Ratio(10), best["eps1e-3"], small["eps1e-3"], central=True)
