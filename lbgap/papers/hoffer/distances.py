"""The walk away from the start, and a longer high-rate phase."""

import math
from collections.abc import Callable

from lbgap.papers import walk
from lbgap.papers.hoffer.recipes import Column, accuracy
from lbgap.papers.paper import Axis, Figure, Quantity, Table, difference, side_by_side
from lbgap.papers.recipe import Recipe, point
from lbgap.schedule import square_root_scaling

WALK_EPOCHS = {"F1": 20, "ResNet44": 81}
TREATMENTS = {"as is": False, "corrected": True}


def walked(n: str, s: Recipe, batch_size: int, corrected: bool) -> Column:
    """A run at the initial rate throughout; corrected: square-root scaling and ghost batch norm, as in +GBN."""
    s = s.changed(epochs=WALK_EPOCHS[n], evaluate_every=WALK_EPOCHS[n], regime=()).fixing(layers=True)
    if corrected and batch_size != s.small:
        s = s.changed(factor=square_root_scaling(1.0, batch_size, s.small))
        s = s.fixing(ghost_batch_size=s.ghosts) if batch_size > s.ghosts else s
    return s, batch_size


def batch_sizes(s: Recipe) -> list[int]:
    """A quarter of the small batch, the small batch, four times it, and the large batch."""
    return [s.small // 4, s.small, s.small * 4, s.large]


def read_of(column: Column, read: Callable[[dict], float]) -> Quantity:
    """A number of each record of a column."""
    recipe, batch = column
    return recipe.of_runs(batch, read)


def apart(n: str, s: Recipe, batch_size: int, corrected: bool, at_the_end: bool = False, first: float = walk.FIRST) -> Quantity:
    """How far the walk is from the small batch's at the updates that both make, percent of the latter's distance."""
    large, of_small = (recipe.runs(b) for recipe, b in (walked(n, s, batch_size, corrected), walked(n, s, s.small, False)))
    return Quantity(side_by_side(large, of_small), lambda *both: walk.apart(*both, at_the_end, first))


def table(n: str, s: Recipe) -> Table:
    """Laws fitted to the distance, and how far apart the walks are, by batch size; as is and corrected."""
    cells, plain = [], walked(n, s, s.small, False)[0].words
    words = plain.replace(f"batch {s.small} / {s.large}", "the batch of the row") + ", constant rate, scaled where corrected"
    for treatment, corrected in TREATMENTS.items():
        for b in (b for b in batch_sizes(s) if not corrected or b != s.small):
            of = walked(n, s, b, corrected)
            columns = {
                "distance at the end": read_of(of, lambda r: r["distance"]["value"][-1]),
                "slope per e-fold of t": read_of(of, lambda r: walk.log_fit(r).slope),
                "r² of log t": read_of(of, lambda r: walk.log_fit(r).rvalue ** 2),
                "r² of √t": read_of(of, lambda r: walk.root_fit(r).rvalue ** 2),
                "exponent of t": read_of(of, walk.exponent),
                "most apart from SB, %": apart(n, s, b, corrected),
                "apart in the end, %": apart(n, s, b, corrected, at_the_end=True),
            }
            cells += s.cells(f"{n}, batch {b}, {treatment}", columns, words=words)
    return Table(
        "walk", "Distance from the start at the initial rate", f"fits from update {walk.FIRST} on", tuple(cells), digits=3
    )


BEGINNINGS = (walk.FIRST, 20, 30, 100)


def beginnings(n: str, s: Recipe) -> Table:
    """What H5 and H6 would see if the walk were looked at from a later update on; walks at least four times as long alone."""
    sizes, cells = dict(zip(("SB / 4", "SB", "4 SB", "LB"), batch_sizes(s), strict=True)), []
    for first in BEGINNINGS:
        lasting = {name: b for name, b in sizes.items() if walked(n, s, b, False)[0].train(b, 0).updates >= 4 * first}
        columns = {
            f"log - root, {name}": read_of(walked(n, s, b, False), lambda r, first=first: walk.logarithm_over_root(r, first))
            for name, b in lasting.items()
        }
        columns |= {f"apart, {name}, %": apart(n, s, b, True, first=first) for name, b in lasting.items() if b > s.small}
        cells += walked(n, s, s.small, False)[0].cells(f"{n}, from update {first}", columns)
    title = "What the first update decides: log over root as is, most apart from SB corrected"
    return Table("beginnings", title, "difference of r²; percent", tuple(cells), digits=3)


def figure(n: str, s: Recipe) -> Figure:
    """Distance against updates (Fig. 2 of the paper)."""
    panels = [
        Axis(f"{n}, {treatment}", "update", "distance from the start", log_x=True, fit_from=walk.FIRST)
        for treatment in TREATMENTS
    ]
    series = []
    for axis, corrected in zip(panels, TREATMENTS.values(), strict=True):
        for b in batch_sizes(s):
            of, batch = walked(n, s, b, corrected)
            series.append(of.travelled(axis.name, batch, line=f"batch {b}"))
    return Figure("distance", "Distance from the start against updates", tuple(panels), tuple(series))


def layers(n: str, s: Recipe) -> Figure:
    """The same, weight matrix by weight matrix: small and corrected large batch."""
    panels, series = [], []
    for label, b, corrected in (("SB", s.small, False), ("LB, corrected", s.large, True)):
        of, batch = walked(n, s, b, corrected)
        panels.append(Axis(f"{n}, {label}", "update", "distance from the start", log_x=True))
        series.append(of.travelled_by_layer(panels[-1].name, batch))
    return Figure("layers", "Distance from the start, layer by layer", tuple(panels), tuple(series))


# ---------------------------------------------------------------- a longer high-rate phase (H8)

LONGER = (1, 2, 4, 8)


def prolonged(s: Recipe, times: int) -> Column:
    """SB with the first phase so many times as long, the later ones as they are.

    Of the small batch, because a large one has not reached a plateau: to it every further update helps.
    """
    more = (times - 1) * s.regime[0][0]
    return s.changed(epochs=s.epochs + more, regime=tuple((epoch + more, values) for epoch, values in s.regime)), "SB"


def before_the_drop(of: Column) -> Quantity:
    """Validation accuracy at the last recorded epoch of the high-rate phase: the plateau."""
    recipe, batch = of

    def read(r: dict) -> float:
        at = [i for i, epoch in enumerate(r["curve"]["epoch"]) if epoch <= recipe.regime[0][0]]
        return r["curve"]["test_accuracy"][at[-1]] if at else math.nan

    return recipe.of_runs(batch, read)


def longer(n: str, s: Recipe) -> Table:
    """Both accuracies by the length of the high-rate phase, times the regime's, and what the last doubling adds."""
    cells = []
    for column, read in (("before the rate drops", before_the_drop), ("at the end", accuracy)):
        rows = {f"{n}, × {times}": read(prolonged(s, times)) for times in LONGER}
        *_, before, last = rows
        rows[f"{n}, × {LONGER[-1]} - × {LONGER[-2]}"] = difference(rows[last], rows[before])
        cells += [s.cell(row, column, quantity) for row, quantity in rows.items()]
    return Table("longer", "High-rate phases times as long as the regime's", "validation accuracy, percent", tuple(cells))


def plateau(n: str, s: Recipe) -> Figure:
    """Validation accuracy before the rate drops and at the end, by the length of the high-rate phase."""
    ticks = tuple(f"{times}" for times in LONGER)
    axis = Axis(n, "length of the high-rate phase, times the regime's", "validation accuracy, percent", ticks=ticks)
    series = [
        point(n, line, i, quantity(prolonged(s, times)))
        for line, quantity in (("at the end", accuracy), ("before the rate drops", before_the_drop))
        for i, times in enumerate(LONGER)
    ]
    return Figure("plateau", "A longer high-rate phase", (axis,), tuple(series), mark="interval")
