"""A rate of the large batch's own, where one rate for both leaves a gap: C1 on 10,000 images (Q10, Q11), F1 on 6,000 (Q12).

LB alone is searched, and by test accuracy itself: both favour it, so that a gap that is left is no smaller where SB is searched
too. Accuracies are means over the last evaluations, as where both are searched (Q6). F1's seeds are the ten fresh ones of Q7.
"""

from collections.abc import Iterator

from lbgap.papers.keskar.data_size import at_size
from lbgap.papers.keskar.fresh_seeds import fresh
from lbgap.papers.keskar.recipes import Recipes
from lbgap.papers.keskar.tuned import at_rate, late
from lbgap.papers.paper import Case, Quantity, Table, best_on_the_others, difference, ratio
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference, Ratio

IMAGES = 10_000  # of C1
# The paper's, and up from there until one tests worse than the one before.
RATES = (1e-3, 4e-3, 1.6e-2)


def searched(recipes: Recipes, along: Recipes) -> Recipes:
    """The networks, of those that are chosen, under the names of their rows."""
    chosen = ([at_size(IMAGES)] if "C1" in recipes else []) + [fresh(s) for n, s in along.items() if n == "F1"]
    return {s.title: s for s in chosen}


def solutions(s: Recipe) -> dict[str, tuple[Recipe, dict[str, Quantity]]]:
    """What is shown of each row: SB, LB at each rate, and at the one that tests best for the other seeds."""
    by_rate = {f"LB, Adam at {rate:g}": at_rate(rate, s) for rate in RATES}
    rows = {"SB": (s, _numbers(s, "SB"))} | {row: (of, _numbers(of, "LB")) for row, of in by_rate.items()}
    large = [numbers for of, numbers in list(rows.values())[1:]]
    accuracy = [numbers["test"] for numbers in large]
    best = {name: best_on_the_others([numbers[name] for numbers in large], by=accuracy) for name in large[0]}
    return rows | {"LB, the best for the other seeds": (s, best)}


def _numbers(s: Recipe, batch: str) -> dict[str, Quantity]:
    found = {"training": s.accuracy(batch, "train"), "test": late(s, batch, "test")}
    return found | {"eps1e-3": s.sharp(batch), "distance": s.distance(batch)}


def table(of: Recipes) -> Table:
    """Fit, test accuracy, sharpness and distance of the large batch by its rate, beside the small batch's at the paper's."""
    cells = []
    for n, s in of.items():
        rows = solutions(s)
        _, small = rows["SB"]
        for row, (at, numbers) in rows.items():
            columns = dict(numbers)
            if row != "SB":
                columns["test, - SB"] = difference(numbers["test"], small["test"])
                columns["eps1e-3, / SB"] = ratio(numbers["eps1e-3"], small["eps1e-3"])
            cells += at.cells(f"{n}, {row}", columns)
    title = "The large batch at rates of its own"
    return Table("own_rate", title, "percent; metric 2.1; distance from the start; points; ratio", tuple(cells))


def rules(of: Recipes) -> Iterator[tuple[str, Case]]:
    """K1's rule at LB's best rate, where there is a gap at one for both, and K4's there: Q10 and Q11 on C1, Q12 on F1."""
    lower = Difference("below")
    for n, s in of.items():
        (_, small), (_, plain), *_, (_, best) = solutions(s).values()
        one = s.case(f"{n}, one rate: test accuracy, LB - SB", lower, plain["test"], small["test"])
        accuracy, sharpness = ("Q10", "Q11") if s.network == "C1" else ("Q12", "Q12")
        label, fields = f"{n}, LB's rate tuned", {"central": True, "given": one}
        yield accuracy, s.case(f"{label}: test accuracy, LB - SB", lower, best["test"], small["test"], **fields)
        fields = {"central": accuracy != sharpness}
        yield sharpness, s.case(f"{label}: sharpness, LB / SB", Ratio(10), best["eps1e-3"], small["eps1e-3"], **fields)
