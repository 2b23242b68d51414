"""A rate of the large batch's own, where one rate for both leaves a gap: C1 on 10,000 images, F1 on 6,000 (Q10 to Q13).

LB alone is searched, and by test accuracy itself: both favour it, so that a gap that is left is no smaller where SB is searched
too. On F1, which is cheap, SB is searched as well (Q13). Accuracies are means over the last evaluations, as in Q6. The seeds of
F1 are the ten fresh ones of Q7.
"""

from collections.abc import Iterator, Sequence

from lbgap.papers.keskar.data_size import at_size
from lbgap.papers.keskar.fresh_seeds import fresh
from lbgap.papers.keskar.recipes import Recipes
from lbgap.papers.keskar.tuned import at_rate, late
from lbgap.papers.paper import Case, Quantity, Table, best_on_the_others, difference, ratio
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference, Ratio

IMAGES = 10_000  # of C1
# LB's: the paper's, and up from there until one tests worse than the one before. SB's, of F1 alone: to both sides of it.
RATES = (1e-3, 4e-3, 1.6e-2)
SMALL_RATES = (2.5e-4, 1e-3, 4e-3)
PAPERS, BEST = f"Adam at {RATES[0]:g}", "the best for the other seeds"


def searched(recipes: Recipes, along: Recipes) -> Recipes:
    """The networks, of those that are chosen, under the names of their rows."""
    chosen = ([at_size(IMAGES)] if "C1" in recipes else []) + [fresh(s) for n, s in along.items() if n == "F1"]
    return {s.title: s for s in chosen}


def solutions(s: Recipe) -> dict[str, tuple[Recipe, dict[str, Quantity]]]:
    """What is shown of each row: a batch at each of its rates, and at the one that tests best for the other seeds."""
    return _by_rate(s, "SB", SMALL_RATES if s.network == "F1" else RATES[:1]) | _by_rate(s, "LB", RATES)


def _by_rate(s: Recipe, batch: str, rates: Sequence[float]) -> dict[str, tuple[Recipe, dict[str, Quantity]]]:
    of = {rate: (at_rate(rate, s), _numbers(at_rate(rate, s), batch)) for rate in rates}
    rows, tried = {f"{batch}, Adam at {rate:g}": row for rate, row in of.items()}, [numbers for _, numbers in of.values()]
    if len(rates) == 1:
        return rows
    accuracy = [numbers["test"] for numbers in tried]
    best = {name: best_on_the_others([numbers[name] for numbers in tried], by=accuracy) for name in tried[0]}
    return rows | {f"{batch}, {BEST}": (s, best)}


def _numbers(s: Recipe, batch: str) -> dict[str, Quantity]:
    found = {"training": s.accuracy(batch, "train"), "test": late(s, batch, "test")}
    return found | {"eps1e-3": s.sharp(batch), "distance": s.distance(batch)}


def table(of: Recipes) -> Table:
    """Fit, test accuracy, sharpness and distance of the large batch by its rate, beside the small batch's at the paper's."""
    cells = []
    for n, s in of.items():
        rows = solutions(s)
        _, small = rows[f"SB, {PAPERS}"]
        for row, (at, numbers) in rows.items():
            columns = dict(numbers)
            if row.startswith("LB"):
                columns["test, - SB"] = difference(numbers["test"], small["test"])
                columns["eps1e-3, / SB"] = ratio(numbers["eps1e-3"], small["eps1e-3"])
            cells += at.cells(f"{n}, {row}", columns)
    title = "The large batch at rates of its own"
    return Table("own_rate", title, "percent; metric 2.1; distance from the start; points; ratio", tuple(cells))


def rules(of: Recipes) -> Iterator[tuple[str, Case]]:
    """K1's rule at LB's best rate, where there is a gap at one for both, and K4's there: Q10 and Q11 on C1, Q12 on F1.

    Q13 has K1's rule on F1 with both searched.
    """
    lower = Difference("below")
    for n, s in of.items():
        found = {row: numbers for row, (_, numbers) in solutions(s).items()}
        small, plain, best = (found[row] for row in (f"SB, {PAPERS}", f"LB, {PAPERS}", f"LB, {BEST}"))
        one = s.case(f"{n}, one rate: test accuracy, LB - SB", lower, plain["test"], small["test"])
        accuracy, sharpness = ("Q10", "Q11") if s.network == "C1" else ("Q12", "Q12")
        label, fields = f"{n}, LB's rate tuned", {"central": True, "given": one}
        yield accuracy, s.case(f"{label}: test accuracy, LB - SB", lower, best["test"], small["test"], **fields)
        fields = {"central": accuracy != sharpness}
        yield sharpness, s.case(f"{label}: sharpness, LB / SB", Ratio(10), best["eps1e-3"], small["eps1e-3"], **fields)
        if both := found.get(f"SB, {BEST}"):
            label = f"{n}, both rates tuned: test accuracy, LB - SB"
            yield "Q13", s.case(label, lower, best["test"], both["test"], central=True)
