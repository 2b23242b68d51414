"""The rate tuned at each batch size (Q1, Q2), which Shallue et al. (2019) ask of every comparison across batches.

A seed's rate is the one that is best on the held-out images of the other seeds.
"""

import math
from collections.abc import Iterator

from lbgap.papers.goyal.recipes import LAST, Recipe
from lbgap.papers.goyal.tables import ERROR, times
from lbgap.papers.paper import Case, Quantity, Table, best_on_the_others, combined, difference
from lbgap.stats import Difference

MARGIN = 1.0  # point of error that counts as nothing given up


def factors(s: Recipe, batch: int) -> tuple[float, ...]:
    """The rates tried at a batch, in multiples of the linear rule's.

    Up to the large batch they lie to both sides of the rule's; beyond it they are a quarter, half and all of the rate that
    the rule gives the large batch, and the rule's own.
    """
    if batch <= 2 * s.small:
        return 0.5, 1.0, 2.0
    if batch <= s.large:
        return 0.25, 0.5, 1.0, 2.0
    return *(share * s.large / batch for share in (0.25, 0.5, 1.0)), 1.0


def _chosen(s: Recipe, batch: int, of) -> Quantity:
    tried = [(factor, s.changed(factor=factor)) for factor in factors(s, batch)]
    held_out = [at.late(batch, "validation_accuracy", LAST) for _, at in tried]
    return best_on_the_others([of(factor, at) for factor, at in tried], by=held_out)


def tuned(s: Recipe, batch: int) -> Quantity:
    """Error at the rate that is best on the held-out images of the other seeds."""
    return _chosen(s, batch, lambda _, at: at.error(batch))


def chosen_factor(s: Recipe, batch: int) -> Quantity:
    """That rate, in multiples of the linear rule's."""
    return _chosen(s, batch, lambda factor, at: combined(lambda _: factor, at.error(batch)))


def table(s: Recipe) -> Table:
    """The rule's error, that of the tuned rate, and which rate that is."""
    cells = []
    for b in s.sizes:
        linear, best = s.error(b), tuned(s, b)
        columns = {"linear rule": linear, "tuned rate": best, "rule - tuned": difference(linear, best)}
        if b > s.small:
            columns["tuned, above the reference batch's"] = difference(best, tuned(s, s.small))
        columns["tuned / rule's rate"] = combined(math.log2, chosen_factor(s, b))
        cells += s.cells(times(s, b), columns)
    title = "The rate tuned at each batch, in multiples of the reference batch"
    return Table("tuned", title, f"{ERROR}; ratio of rates as a power of 2", tuple(cells))


def grid(s: Recipe) -> Table:
    """Error at every rate that was tried."""
    cells = [
        s.cell(times(s, b), f"{factor:g} × the rule's rate", s.changed(factor=factor).error(b))
        for b in s.sizes
        for factor in factors(s, b)
    ]
    return Table("grid", "Every rate tried, by batch in multiples of the reference batch", ERROR, tuple(cells))


def rules(s: Recipe) -> Iterator[tuple[str, Case]]:
    """Q1 up to the large batch, Q2 beyond it."""
    for b in s.sizes:
        label, words = f"{s.network}, {times(s, b)}: rule - tuned rate", {"where": s.words}
        if b <= s.large:
            yield "Q1", s.case(label, Difference("below", -MARGIN), s.error(b), tuned(s, b), central=b == s.large, **words)
        else:
            yield "Q2", s.case(label, Difference("above"), s.error(b), tuned(s, b), central=b == 2 * s.large, **words)
            label = f"{s.network}, {times(s, b)}, tuned rates: error - the reference batch's"
            yield "Q2", s.case(label, Difference("above"), tuned(s, b), tuned(s, s.small), **words)
