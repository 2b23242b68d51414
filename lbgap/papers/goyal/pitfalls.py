"""The four mistakes that section 3 of the paper warns of, each made at the large batch (Q3)."""

from collections.abc import Iterator

from lbgap.papers.goyal.recipes import Recipe
from lbgap.papers.goyal.tables import ERROR
from lbgap.papers.paper import Case, Table, difference
from lbgap.stats import Difference


def mistakes(s: Recipe) -> dict[str, Recipe]:
    """The recipe with each mistake.

    R1: the loss is multiplied in place of the rate, so that weight decay alone is another. R2: momentum holds the rate and is
    not corrected when it changes. R3: each worker's gradient is divided by n, not kn. R4: each worker shuffles on its own.
    """
    k = s.large / s.small

    def optimizer(**values) -> Recipe:
        return s.changed(optimizer=s.optimizer.model_copy(update=values))

    return {
        "R1, loss scaled in place of the rate": optimizer(loss_scale=k).changed(factor=1 / k),
        "R2, momentum not corrected": optimizer(momentum_buffer="steps"),
        "R3, gradient divided by n": s.fixing(normalised_by="slice"),
        "R4, every worker shuffles on its own": s.fixing(shuffling="each slice"),
    }


def table(s: Recipe) -> Table:
    """The large batch as it should be, and with each mistake."""
    right, cells = s.error("LB"), [s.cell("as it should be", "error", s.error("LB"))]
    for row, wrong in mistakes(s).items():
        cells += [s.cell(row, "error", wrong.error("LB")), s.cell(row, "cost", difference(wrong.error("LB"), right))]
    return Table("pitfalls", "What each mistake of section 3 costs at the large batch", f"{ERROR}; points", tuple(cells))


def rules(s: Recipe) -> Iterator[tuple[str, Case]]:
    """Q3: each of them costs validation error."""
    for name, wrong in mistakes(s).items():
        label = f"{s.network}: {name}: wrong - right"
        yield "Q3", s.case(label, Difference("above"), wrong.error("LB"), s.error("LB"), central=name.startswith("R1"))
