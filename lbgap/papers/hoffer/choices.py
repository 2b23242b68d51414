"""What the choices decide: the code against the text, another pair of batch sizes, the best rate for each."""

import math
from collections.abc import Callable

from lbgap.papers.hoffer.recipes import COLUMNS, Column, Recipes, accuracy, column
from lbgap.papers.paper import Table, best_on_the_others, difference
from lbgap.papers.recipe import Recipe


def disagreements(recipes: Recipes) -> dict[str, tuple[Column, Column]]:
    """For each point of disagreement: the column as chosen here, and as varied."""
    out: dict[str, tuple[Column, Column]] = {}

    def add(n: str, what: str, name: str, change: Callable[[Recipe], Recipe]) -> None:
        if n in recipes:
            of, batch = column(recipes[n], name)
            out[f"{n}, {name}: {what}"] = ((of, batch), (change(of), batch))

    def optimizer(**values) -> Callable[[Recipe], Recipe]:
        return lambda s: s.changed(optimizer=s.optimizer.model_copy(update=values))

    add("F1", "rate refers to a batch twice SB (256, not 128)", "+LR", lambda s: s.changed(factor=s.factor / math.sqrt(2)))
    for name in ("LB", "+GBN"):
        add("F1", "momentum lost at each epoch's end", name, optimizer(fresh_each_epoch=True))
    add("F1", "running averages once a batch", "+GBN", lambda s: s.fixing(ghost_averaging="mean"))
    add("F1", "no gradient clipping", "+GBN", optimizer(clip_norm=0.0))
    add("C1", "momentum 0.9 (text), not 0 (code)", "+GBN", optimizer(momentum=0.9))
    add(
        "C1",
        "scales of batch norm start in U(0, 1) (2017), not at 1",
        "+GBN",
        lambda s: s.changed(options={"gamma": "uniform"}),
    )
    for n, name in (("F1", "SB"), ("F1", "LB"), ("F1", "+GBN"), ("C1", "+GBN")):
        if n in recipes and recipes[n].fixed.get("precision") == "bfloat16":
            add(n, "float32, not bfloat16", name, lambda s: s.fixing(precision="float32"))
    return out


def released(recipes: Recipes) -> Table:
    """Each disagreement: as chosen, as varied, and the difference."""
    cells = []
    for row, (chosen, varied) in disagreements(recipes).items():
        one, other = accuracy(chosen), accuracy(varied)
        columns = {"as chosen": one, "as varied": other, "difference": difference(other, one)}
        cells += recipes[chosen[0].network].cells(row, columns)
    title = "The code, the text and our own choices: one thing varied at a time"
    return Table("released", title, "validation accuracy, percent", tuple(cells))


def other_batch(s: Recipe) -> Table:
    """The ladder with a quarter of the small and the large batch, and the same rates: what the choice of batch decides."""
    other = s.changed(small=s.small // 4, large=s.large // 4, ghosts=s.small // 4)
    columns = {c: accuracy(column(other, c)) for c in COLUMNS if c != "+RA"}
    columns["LB - SB"] = difference(columns["LB"], columns["SB"])
    columns["+GBN - +LR"] = difference(columns["+GBN"], columns["+LR"])
    title = "F1 with a quarter of both batch sizes, same rates"
    return Table("quarter", title, "validation accuracy, percent; points", tuple(other.cells("F1", columns)))


# ---------------------------------------------------------------- the best rate for each

SEARCHED = {"SB": "SB", "LB": "LB", "LB, ghost batch norm": "+GBN"}
# the search began with 0.25 and 1 to 16; the small batch was best at the edge, so that lower ones and 0.5 were added
FACTORS = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def _at_rate(s: Recipe, name: str, factor: float) -> Column:
    of, batch = column(s, SEARCHED[name])
    return of.changed(factor=factor), batch


def search(s: Recipe) -> Table:
    """Every rate for each batch, and for each seed the rate that is best on the other seeds."""
    words = s.words.replace(f"at {s.optimizer.learning_rate:g}", "at the rate of the row")
    cells = [
        s.cell(f"rate {s.optimizer.learning_rate * f:g}", name, accuracy(_at_rate(s, name, f)), words=words)
        for f in FACTORS
        for name in SEARCHED
    ]
    for name in SEARCHED:
        best = best_on_the_others([accuracy(_at_rate(s, name, f)) for f in FACTORS])
        cells.append(s.cell("best on the other seeds", name, best, words=words))
    return Table("search", "F1 at other initial rates; later rates in proportion", "validation accuracy, percent", tuple(cells))
