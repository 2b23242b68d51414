"""K7 and K8 on ten seeds that no one had looked at (Q7): their rules, one contrast named beforehand, and what no rule asks."""

from collections.abc import Iterator

from lbgap.papers.keskar.claims import trends
from lbgap.papers.keskar.figures import epochs_shown, warm_started
from lbgap.papers.keskar.recipes import BATCHES
from lbgap.papers.paper import Case, Table, difference, ratio
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference

FIRST, SEEDS = 5, 10
CONTRAST = (150, 6000)  # batch sizes


def fresh(s: Recipe) -> Recipe:
    """The recipe on the fresh seeds alone."""
    return s.changed(first_seed=FIRST, seeds=SEEDS)


def table(s: Recipe) -> Table:
    """The plain solutions and the warm-started ones, beside plain SB and plain LB."""
    s = fresh(s)
    rows = {b: (s.accuracy(b), s.sharp(b)) for b in BATCHES}
    rows |= {f"LB, warm start after SB's epoch {e}": warm_started(s, e) for e in epochs_shown(s)}
    cells = []
    for row, (accuracy, sharpness) in rows.items():
        columns = {"test": accuracy, "eps1e-3": sharpness}
        if row != "SB":
            columns["test, - SB"] = difference(accuracy, rows["SB"][0])
        if row not in BATCHES:
            columns["test, - LB"] = difference(accuracy, rows["LB"][0])
            columns["eps1e-3, / LB"] = ratio(sharpness, rows["LB"][1])
        cells += s.cells(f"F1, {row}", columns)
    return Table("fresh_seeds", "F1 on ten fresh seeds", "percent; points; metric 2.1, epsilon 1e-3", tuple(cells))


def rules(s: Recipe) -> Iterator[tuple[str, Case]]:
    """The trends of K7 and K8 on the fresh seeds alone, and the test accuracy of batch 6,000 against 150."""
    of = fresh(s)
    for _, setting in trends("F1, fresh seeds", of, ("K7", "K8")):
        yield "Q7", setting
    middle, whole = (of.accuracy(b) for b in CONTRAST)
    label = f"F1, fresh seeds: test accuracy, batch {CONTRAST[1]:,} - {CONTRAST[0]}"
    yield "Q7", of.case(label, Difference("below"), whole, middle, central=True)
