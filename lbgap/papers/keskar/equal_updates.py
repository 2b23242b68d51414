"""Sharp at equal updates? F1's large batch for as many updates as the small one makes, and both at equal training loss (Q4).

At equal epochs the large batch makes a fraction of the updates, so that its minimum may be sharp because it is not reached yet.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from lbgap.papers.keskar.recipes import BATCHES
from lbgap.papers.paper import Case, Jobs, Quantity, Table, difference, dig, ratio, side_by_side
from lbgap.papers.recipe import Recipe
from lbgap.spec import Measure
from lbgap.stats import Ratio

# Of the large batch, beside its last one: where it is looked for SB's training loss, which it passes before its tenth.
EPOCHS = (4, 6, 8, 10, 50, 100, 200, 400, 800)
# Within which it passes that loss on every seed: the other measures, which are dearer, are taken there alone.
CURVED = (4, 6, 8)


def _solutions(s: Recipe) -> dict[str, tuple[Recipe, str]]:
    return {b: (s, b) for b in BATCHES} | {"LB, as many updates": (s.changed(adapted=True), "LB")}


CURVATURE = {"largest eigenvalue": ("eigenvalues", "eigenvalue_1"), "adaptive sharpness": ("adaptive_sharpness", "value")}
MEASURED = {"eps1e-3": lambda s, b: s.sharp(b)} | {
    name: lambda s, b, kind=kind, field=field: s.measured(b, kind, field) for name, (kind, field) in CURVATURE.items()
}


def at_the_loss_of_sb(s: Recipe) -> Quantity:
    """LB's sharpness where its training loss is the one that SB ends with."""
    longer = s.changed(adapted=True)
    along = [*_sharpness(longer, EPOCHS), longer.sharp("LB").jobs]
    return _where_losses_meet(s, along, along, "value")


def curvature_at_the_loss_of_sb(s: Recipe) -> dict[str, Quantity]:
    """The other two measures there, by name."""
    longer = s.changed(adapted=True)
    losses = _sharpness(longer, CURVED)

    def along(kind: str) -> list[Jobs]:
        return [longer.each(lambda seed, e=e: Measure(kind=kind, of=(longer.train("LB", seed).at(e),))) for e in CURVED]

    return {name: _where_losses_meet(s, along(kind), losses, field) for name, (kind, field) in CURVATURE.items()}


def _sharpness(longer: Recipe, epochs: Sequence[int]) -> list[Jobs]:
    """Sharpness of the large batch's weights at epochs on its way, with the losses there."""
    return [longer.each(lambda seed, e=e: longer.sharpness(longer.train("LB", seed), epoch=e)) for e in epochs]


def _where_losses_meet(s: Recipe, measured: Sequence[Jobs], losses: Sequence[Jobs], field: str) -> Quantity:
    """A ``field`` of what was ``measured`` on LB's way, where its loss is the one that SB ends with.

    It is taken between the two points whose ``losses`` hold that one, on logarithms; not a number where they reach not so far.
    """
    n = len(measured)

    def read(of_small: dict, *of_large: dict) -> float:
        value, loss = np.log([dig(field)(r) for r in of_large[:n]]), np.log([r["loss"] for r in of_large[n:]])
        order, wanted = loss.argsort(), np.log(of_small["loss"])
        inside = loss.min() <= wanted <= loss.max()
        return float(np.exp(np.interp(wanted, loss[order], value[order]))) if inside else float("nan")

    return Quantity(side_by_side(s.sharp("SB").jobs, *measured, *losses), read)


def table(s: Recipe) -> Table:
    """Accuracy, loss and three measures of sharpness of SB, LB at equal epochs and LB at equal updates."""
    cells = []
    for row, (of, b) in _solutions(s).items():
        columns = {"test": of.accuracy(b), "training loss": of.of_runs(b, dig("final.train.batch.loss"))}
        columns |= {name: measured(of, b) for name, measured in MEASURED.items()}
        if row != "SB":
            columns["test, - SB"] = difference(of.accuracy(b), s.accuracy("SB"))
            columns["eps1e-3, / SB"] = ratio(of.sharp(b), s.sharp("SB"))
        cells += of.cells(f"F1, {row}", columns)
    columns = {"eps1e-3": at_the_loss_of_sb(s)} | curvature_at_the_loss_of_sb(s)
    for name in MEASURED:
        columns[f"{name}, / SB"] = ratio(columns[name], MEASURED[name](s, "SB"))
    cells += s.changed(adapted=True).cells("F1, LB at SB's training loss", columns)
    return Table("equal_updates", "F1 at equal epochs, updates and training loss", "percent; nats; measures", tuple(cells))


def rules(s: Recipe) -> Iterator[tuple[str, Case]]:
    """Q4: the large batch is sharper by two or more, by each measure, and at equal training loss too."""
    longer = s.changed(adapted=True)
    for name, measured in MEASURED.items():
        label = f"F1, at equal updates: {name}, LB / SB"
        central = name == "eps1e-3"
        yield "Q4", longer.case(label, Ratio(2), measured(longer, "LB"), measured(s, "SB"), central=central)
    label = "F1, at equal training loss: eps1e-3, LB / SB"
    yield "Q4", longer.case(label, Ratio(2), at_the_loss_of_sb(s), s.sharp("SB"))
