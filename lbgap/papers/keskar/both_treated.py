"""Adversarial and stability training of both batches (Q3): K13 treats the large batch alone, which says nothing of the gap."""

from collections.abc import Iterator

from lbgap.papers.keskar.recipes import BATCHES, ROBUST, robustly, vary
from lbgap.papers.paper import Case, Table, difference
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference

VARIANT = "dropout of 0.5"  # the variant of F1 on 6,000 images in which the large batch tests worse


def _treatments(recipe: Recipe) -> dict[str, Recipe]:
    plain = vary(recipe, VARIANT)
    return {"plain": plain} | {kind: robustly(plain, kind) for kind in ROBUST}


def table(recipe: Recipe) -> Table:
    """Both batches under each treatment, the gap, and how much narrower it is than the plain one."""
    of = _treatments(recipe)
    gaps = {kind: difference(s.accuracy("LB"), s.accuracy("SB")) for kind, s in of.items()}
    cells = []
    for kind, s in of.items():
        columns = {f"{split}_{b}": s.accuracy(b, split) for split in ("train", "test") for b in BATCHES}
        columns |= {"test, LB - SB": gaps[kind], "gap, treated - plain": difference(gaps[kind], gaps["plain"])}
        cells += [s.cell(f"F1, {kind}", c, q) for c, q in columns.items() if (kind, c[:3]) != ("plain", "gap")]
    return Table("both_treated", "Robust training of both batches: F1 with dropout", "percent; points", tuple(cells))


def rules(recipe: Recipe) -> Iterator[tuple[str, Case]]:
    """Q3: there is a gap, and each treatment leaves one that is smaller."""
    of = _treatments(recipe)
    plain = of.pop("plain")
    gap = plain.case("F1, plain: test accuracy, LB - SB", Difference("below"), plain.accuracy("LB"), plain.accuracy("SB"))
    yield "Q3", gap
    before = difference(plain.accuracy("LB"), plain.accuracy("SB"))
    for kind, s in of.items():
        after = difference(s.accuracy("LB"), s.accuracy("SB"))
        label = f"F1, {kind}: LB - SB, treated - plain"
        yield "Q3", s.case(label, Difference("above"), after, before, central=True, scope="reading")
