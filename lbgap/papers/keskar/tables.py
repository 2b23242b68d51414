"""Tables 2, 3, 4, 6 and 7, and our own, which show what the claims' rules do not."""

import math
from collections.abc import Callable, Iterable

from lbgap.papers.keskar.recipes import BATCHES, EPSILONS, FACTS, ROBUST, VARIANTS, Recipes, augment, conserve, robustly, vary
from lbgap.papers.paper import Jobs, Quantity, Table, combined, difference, dig, ratio
from lbgap.papers.recipe import Columns, Recipe, published_table
from lbgap.spec import Measure


def accuracies(recipes: Recipes) -> Table:
    """Table 2, with running statistics beside it."""
    columns = {f"{split}_{b}": lambda s, b=b, split=split: s.accuracy(b, split) for split in ("train", "test") for b in BATCHES}
    running = {f"test_{b}": lambda s, b=b: s.accuracy(b, "test", "running") for b in BATCHES}
    return published_table(FACTS, "table2", recipes, columns, {"running": running})


def sharpnesses(recipes: Recipes, second: tuple[str, ...] = ()) -> list[Table]:
    """Tables 3 (full space) and 4 (random subspace), in the authors' reading of batch norm and in ``second`` ones."""

    def columns(space: str, reading: str) -> Columns:
        return {
            f"{label}_{b}": lambda s, b=b, e=e: s.sharp(b, e, space=space, batch_norm=reading)
            for label, e in EPSILONS.items()
            for b in BATCHES
        }

    return [
        published_table(FACTS, name, recipes, columns(space, "batch"), {reading: columns(space, reading) for reading in second})
        for name, space in (("table3", "full"), ("table4", "random"))
    ]


def augmented(recipes: Recipes) -> Table:
    """Table 6."""
    columns = {f"test_{b}": lambda s, b=b: augment(s).accuracy(b) for b in BATCHES}
    columns |= {f"{label}_LB": lambda s, e=e: augment(s).sharp("LB", e) for label, e in EPSILONS.items()}
    return published_table(FACTS, "table6", {n: s for n, s in recipes.items() if n.startswith("C")}, columns)


def conservative(recipes: Recipes) -> Table:
    """Table 7."""
    columns = {"test_SB": lambda s: s.accuracy("SB"), "test_LB": lambda s: conserve(s).accuracy("LB")}
    columns |= {f"{label}_LB": lambda s, e=e: conserve(s).sharp("LB", e) for label, e in EPSILONS.items()}
    return published_table(FACTS, "table7", recipes, columns)


def peaks(recipes: Iterable[Recipe]) -> Table:
    """How far test accuracy has come down from the epoch best on the other seeds, and LB there against where SB ends (K2)."""
    cells = []
    for s in recipes:
        best = {b: s.chosen_test_accuracy(b) for b in BATCHES}
        columns = {f"{b}, best - last": difference(best[b], s.accuracy(b)) for b in BATCHES}
        columns["LB's best - SB's last"] = difference(best["LB"], s.accuracy("SB"))
        cells += s.cells(s.title, columns)
    return Table("peaks", "The epoch that is best on the other seeds against the last", "points of test accuracy", tuple(cells))


READINGS: dict[str, Callable[[Recipe, str], Quantity]] = {
    "last epoch": Recipe.accuracy,
    "last epoch, running averages": lambda s, b: s.accuracy(b, "test", "running"),
    "best epoch": Recipe.chosen_test_accuracy,
}


def gap(s: Recipe, reading: Callable[[Recipe, str], Quantity] = Recipe.accuracy) -> Quantity:
    """LB - SB in test accuracy, in points."""
    return difference(reading(s, "LB"), reading(s, "SB"))


def gaps(recipes: Iterable[Recipe], treated: Recipes) -> Table:
    """LB - SB in test accuracy under three readings, plain and with the augmentation of Table 6 (K1, K11)."""
    cells = []
    for s in recipes:
        n = s.title
        for column, reading in READINGS.items():
            rows = {n: gap(s, reading)}
            if treated.get(s.network) == s and n.startswith("C"):  # the others are not augmented
                rows[f"{n}, augmented"] = gap(augment(s), reading)
                rows[f"{n}, augmented - plain"] = difference(rows[f"{n}, augmented"], rows[n])
            cells += [s.cell(name, column, quantity) for name, quantity in rows.items()]
    return Table("gaps", "The gap in test accuracy, LB - SB, read in three ways", "points", tuple(cells))


def box_of(recipe: Recipe) -> Jobs:
    """The measurement of parts of the box around LB's solutions (K6)."""
    return recipe.each(
        lambda seed: Measure(kind="directions", arguments={"epsilon": 1e-3}, of=(recipe.train("LB", seed).at(),))
    )


def share_of_the_rise(recipe: Recipe, part: str) -> Quantity:
    """What a part of the box makes of the largest rise found in it, as a fraction; undefined where nothing rises."""
    return Quantity(box_of(recipe), lambda r: r[part] / r["largest"] if r["largest"] > 0 else math.nan)


PARTS = {"steepest 5% of the weights": "steep", "the other 95%": "rest", "random corners": "random"}


def directions(recipes: Recipes) -> Table:
    """The rise of the loss in parts of the box, as percent of the largest rise (K6)."""
    cells = []
    for s in recipes.values():
        for column, part in PARTS.items():
            share = share_of_the_rise(s, part)
            cells.append(s.cell(s.title, column, combined(lambda rise: 100 * rise, share)))
    title = "LB: the rise of the loss in parts of the box"
    return Table("directions", title, "percent of the largest rise, epsilon 1e-3", tuple(cells))


def treated(recipes: Recipes) -> Table:
    """Plain, augmented and conservative training side by side: fit, test and sharpness (K11, K12)."""
    cells = []
    for n, s in recipes.items():
        if not n.startswith("C"):  # the others are not augmented
            continue
        rows = {f"{s.title}, {b}{label}": (of, b) for label, of in (("", s), (", augmented", augment(s))) for b in BATCHES}
        rows[f"{s.title}, LB, conservative"] = conserve(s), "LB"
        for name, (of, b) in rows.items():
            columns = {split: of.accuracy(b, split) for split in ("train", "test")}
            columns["training loss"] = of.of_runs(b, dig("final.train.batch.loss"))
            columns["eps1e-3"] = of.sharp(b)
            cells += s.cells(name, columns)
    return Table("treated", "The two remedies beside plain training", "percent; nats; metric 2.1", tuple(cells))


def robust(recipe: Recipe) -> Table:
    """The large batch under adversarial and stability training, beside both batches as they are (E.3)."""
    rows = {b: (recipe, b) for b in BATCHES} | {f"LB, {kind}": (robustly(recipe, kind), "LB") for kind in ROBUST}
    cells = []
    for row, (s, batch) in rows.items():
        cells += s.cells(row, {split: s.accuracy(batch, split) for split in ("train", "test")})
        cells.append(s.cell(row, "test", s.accuracy(batch, "test", "running"), reading="running"))
        cells += s.cells(row, {label: s.sharp(batch, e) for label, e in EPSILONS.items()})
    return Table("robust", "Adversarial and stability training of F1", "percent; metric 2.1", tuple(cells))


def variants(recipe: Recipe) -> Table:
    """F1 with another activation, without batch norm, with dropout, with fewer layers: is the large batch sharper?"""
    cells = []
    for row in VARIANTS:
        s = vary(recipe, row)
        columns = {f"{split}_{b}": s.accuracy(b, split) for split in ("train", "test") for b in BATCHES}
        columns["test, LB - SB"] = difference(columns["test_LB"], columns["test_SB"])
        columns |= {f"eps1e-3_{b}": s.sharp(b) for b in BATCHES}
        cells += s.cells(row, columns)
    return Table("variants", "F1 with one thing changed", "percent; points; metric 2.1, epsilon 1e-3", tuple(cells))


RULERS: dict[str, dict] = {
    "as in the paper's Table 3": {},
    "start: random in the box": {"start": "random"},
    "tolerances: SciPy's defaults": {"tolerance": "scipy"},
    "objective unscaled": {"scaling": 1.0},
    "objective unscaled, SciPy's tolerances": {"scaling": 1.0, "tolerance": "scipy"},
    "objective x 100": {"scaling": 100.0},
    "objective x 10,000": {"scaling": 10_000.0},
    "100 iterations": {"iterations": 100},
    "batch norm: running statistics": {"batch_norm": "running"},
    "batch norm: re-estimated": {"batch_norm": "reestimated"},
    "after 20 epochs": {"epoch": 20},
    "as in the paper's Table 4 (entries N(0, 1/100))": {"space": "random"},
    "subspace: columns of norm 1": {"space": "random", "subspace_scale": "unit"},
    "subspace: entries N(0, 1)": {"space": "random", "subspace_scale": "standard"},
}


def ruler(recipe: Recipe) -> Table:
    """How much of sharpness is the ruler: one factor at a time, on seed 0's SB and LB solutions, epsilon 1e-3."""
    one = recipe.changed(seeds=1)
    rows = [(label, one, arguments) for label, arguments in RULERS.items()]
    rows.insert(11, ("network without batch norm", one.changed(options={"batch_norm": False}), {}))
    cells = []
    for label, of, arguments in rows:
        small, large = (of.sharp(b, **arguments) for b in BATCHES)
        cells += [of.cell(label, c, q) for c, q in (("SB", small), ("LB", large), ("LB / SB", ratio(large, small)))]
    return Table("ruler", "The same two solutions under different rulers", "metric 2.1, epsilon 1e-3", tuple(cells))
