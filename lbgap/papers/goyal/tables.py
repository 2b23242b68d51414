"""Tables 1 and 2, the batches of Figures 1 and 3, and the hours that a run takes."""

import math

from lbgap.papers.goyal.recipes import FACTS, OWN, Recipe
from lbgap.papers.paper import Cell, Published, Quantity, Table, difference
from lbgap.papers.recipe import published_cells, published_difference

ERROR = "validation error, percent"
RISE = "rise of the training error after the warmup's epochs"


def _table(name: str, ours: dict[tuple[str, str], Quantity], s: Recipe | None) -> Table:
    """A table of the paper: every published number, and ours at the same place or in a column beside it."""
    of, published = FACTS["tables"][name], published_cells(FACTS, name)
    cells = [
        s.cell(*place, ours[place], published=published.get(place)) if place in ours else Cell(*place, published[place], None)
        for place in dict.fromkeys((*published, *ours))
    ]
    return Table(name, of["title"], of["unit"], tuple(cells), int(name[5]))


def warmups(s: Recipe) -> Table:
    """Table 1, with training error beside it."""
    rows = {"reference batch": (s, "SB")} | {
        f"{kind} warmup": (warmed(s, kind), "LB") for kind in ("no", "constant", "gradual")
    }
    ours = {
        (row, column): of.error(batch, split)
        for row, (of, batch) in rows.items()
        for column, split in (("error", "test"), ("training error", "train"))
    }
    return _table("table1", ours, s)


def warmup_costs(s: Recipe) -> Table:
    """What no warmup costs against the reference batch, as the paper compares, and what training error does after a warmup."""
    cells = []
    for column, split in (("error", "test"), ("training error", "train")):
        above = difference(warmed(s, "no").error("LB", split), s.error("SB", split))
        cells.append(
            s.cell("no warmup", f"{column} above the reference batch's", above, published=_above_the_reference(column))
        )
    around = {kind: around_the_jump(warmed(s, kind)) for kind in ("no", "constant", "gradual")}
    rises = {kind: difference(*pair) for kind, pair in around.items() if pair}
    cells += [s.cell(f"{kind} warmup", RISE, rise) for kind, rise in rises.items()]
    if rises:
        cells.append(s.cell("constant warmup", f"{RISE}, - without", difference(rises["constant"], rises["no"])))
    return Table("warmup", "The large batch against the reference batch, and after the warmup's epochs", "points", tuple(cells))


def _above_the_reference(column: str) -> Published:
    """What the paper reports of the large batch without warmup, against its reference batch."""
    if column == "training error":
        return Published(FACTS["training_without_warmup"])
    return Published(published_difference(FACTS, "table1", ("no warmup", column), ("reference batch", column)))


def around_the_jump(s: Recipe) -> tuple[Quantity, Quantity] | None:
    """LB's training error in the first epoch after the warmup's and in its last, percent; None where no epoch comes after."""
    last = math.ceil(s.warmup_epochs)
    if last >= s.epochs:
        return None
    return tuple(s.of_runs("LB", lambda r, at=at: 100 - r["curve"]["train_accuracy"][at]) for at in (last, last - 1))


def warmed(s: Recipe, kind: str) -> Recipe:
    """The same with another warmup: gradual, constant or no."""
    return s.changed(warmup="none" if kind == "no" else kind)


def rates(s: Recipe) -> Table:
    """Table 2a."""
    ours = {}
    for factor, words in ((0.5, "half the rate"), (1.0, "the rate"), (2.0, "twice the rate")):
        large = "large, linear" if factor == 1.0 else f"large, linear, {words}"
        ours[f"reference, {words}", "error"] = s.changed(factor=factor).error("SB")
        ours[large, "error"] = s.changed(factor=factor).error("LB")
    ours["large, no scaling", "error"] = s.changed(scaling="none").error("LB")
    ours["large, square root", "error"] = s.changed(scaling="square root").error("LB")
    return _table("table2a", ours, s)


def begun(s: Recipe, gamma: float) -> Recipe:
    """The same with the last scale of each residual block at ``gamma`` when training begins; 0 is the recipe's own."""
    return s.changed(options={**s.options, "last_gamma": gamma}) if gamma else s


def gammas(s: Recipe) -> Table:
    """Table 2b."""
    ours = {
        (row, f"gamma {gamma}"): begun(s, gamma).error(batch)
        for row, batch in (("reference", "SB"), ("large", "LB"))
        for gamma in (1, 0)
    }
    return _table("table2b", ours, s)


def deeper(s: Recipe | None) -> Table:
    """Table 2c: another network by the same rule."""
    ours = {(row, "error"): s.error(batch) for row, batch in (("reference", "SB"), ("large", "LB"))} if s else {}
    if s:
        ours["large", "error above the reference batch's"] = difference(ours["large", "error"], ours["reference", "error"])
    return _table("table2c", ours, s)


def times(s: Recipe, batch: int) -> str:
    """A batch in multiples of the reference batch: "x 8"."""
    return f"× {batch / s.small:g}"


def published_error(s: Recipe, batch: int) -> Published | None:
    """The paper's error of the batch that is as many times its reference batch."""
    entry = FACTS["sweep"].get(OWN["reference"] * batch / s.small)
    return Published(*entry) if entry else None


def sweep(s: Recipe, name: str = "batches") -> Table:
    """Figures 1 and 3: error by batch, in multiples of the reference batch; every published number too."""
    cells = []
    published = {b * s.small / OWN["reference"] for b in FACTS["sweep"]} if name == "batches" else set()
    for b in sorted({*s.sizes, *published}):
        row = times(s, b)
        beside = published_error(s, b) if name == "batches" else None
        if b not in s.sizes:
            cells.append(Cell(row, "error", beside, None))
            continue
        cells += [s.cell(row, "error", s.error(b), published=beside), s.cell(row, "training error", s.error(b, "train"))]
        if b != s.small:
            cells.append(s.cell(row, "error above the reference batch's", difference(s.error(b), s.error("SB"))))
    title = f"Batches in multiples of the reference batch ({OWN['reference']} in the paper), linear scaling, gradual warmup"
    if name != "batches":
        title = f"{s.network}: {title[0].lower()}{title[1:]}"
    return Table(name, title, ERROR, tuple(cells))


def hours() -> Table:
    """Published run times: 90 epochs on ImageNet."""
    cells = [
        Cell(
            f"{r['network']}, {r['images']} images on {r['GPUs']} GPUs",
            "hours",
            Published(r["hours"]),
            None,
            network=r["network"],
        )
        for r in FACTS["hours"]
    ]
    return Table("hours", "Time of a run of 90 epochs on ImageNet, by workers", "hours", tuple(cells))
