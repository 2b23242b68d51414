"""At equal compute: SAM at a large batch, whose steps cost twice as much, against the same cost spent otherwise; all tuned."""

from collections.abc import Iterator
from dataclasses import dataclass

from lbgap import schedule
from lbgap.papers.paper import Axis, Case, Figure, Table, difference
from lbgap.papers.recipe import Recipe, point
from lbgap.papers.sam import grid
from lbgap.papers.sam.recipes import Arms, M, Recipes, at_rate
from lbgap.papers.sam.search import choice, tuned, tuned_sam
from lbgap.spec import Warmup
from lbgap.stats import Difference, Ratio

WARMUP = 0.2  # of the budget, from the small batch's rate up
MARGIN = 0.5  # points of accuracy within which a gap counts as closed
HALF = {"LB, SAM, twice the updates": "LB, SAM", "LB, four times the updates": "LB, twice the updates"}  # on which A2 looks


@dataclass(frozen=True)
class Way:
    """A way to train: the recipe and its batch, and what it costs, in gradients of the plain training of as many epochs."""

    recipe: Recipe
    batch: str
    cost: float


def longer(s: Recipe, times: int) -> Recipe:
    """As many times the epochs."""
    return s.changed(epochs=s.epochs * times, evaluate_every=s.evaluate_every * times)


def by_rule(s: Recipe, rule) -> Recipe:
    """The large batch at the rate that a rule makes of the small batch's, with a gradual warmup (Goyal et al. 2017)."""
    start = choice(s, "SB").plain
    rate = rule(start, s.large, s.small)
    updates = round(WARMUP * s.epochs * s.data.updates_per_epoch(s.large))
    return at_rate(s, rate).fixing(warmup=Warmup(updates=updates, start=start / rate))


def rescue(s: Recipe) -> dict[str, Way]:
    """What the title asks about, by what a row calls it."""
    small, large = tuned(s, "SB"), tuned(s, "LB")
    return {
        "SB": Way(small, "SB", 1),
        "LB": Way(large, "LB", 1),
        "LB, SAM": Way(tuned_sam(s, "LB"), "LB", 2),
        "LB, twice the updates": Way(longer(large, 2), "LB", 2),
    }


def ways(s: Recipe) -> dict[str, Way]:
    """Every way, by what a row calls it; where SAM was searched at the large batch alone, :func:`rescue`."""
    if choice(s, "SB").with_sam is None:
        return rescue(s)
    large = tuned(s, "LB")
    normed = large.changed(options={**s.options, "batch_norm": True})
    normed_sam = tuned_sam(s, "LB").changed(options=normed.options)
    return rescue(s) | {
        "SB, SAM": Way(tuned_sam(s, "SB"), "SB", 2),
        "LB, linear rule with warmup": Way(by_rule(s, schedule.linear_scaling), "LB", 1),
        "LB, square-root rule with warmup": Way(by_rule(s, schedule.square_root_scaling), "LB", 1),
        f"LB, SAM, m = {M}": Way(tuned_sam(s, "LB", M), "LB", 2),
        "LB, SAM, twice the updates": Way(longer(tuned_sam(s, "LB"), 2), "LB", 4),
        "LB, four times the updates": Way(longer(large, 4), "LB", 4),
        "LB, batch norm": Way(normed, "LB", 1),
        "LB, ghost batch norm": Way(normed.fixing(ghost_batch_size=s.small), "LB", 1),
        "LB, batch norm, SAM": Way(normed_sam, "LB", 2),
    }


def table(recipes: Recipes) -> Table:
    """Accuracy and losses of every way, and its distance from the small batch and from the plain large one."""
    cells = []
    for n, s in recipes.items():
        of = ways(s)
        test = {row: way.recipe.accuracy(way.batch, "test", "running") for row, way in of.items()}
        for row, way in of.items():
            runs = way.recipe.of_runs(way.batch, lambda r, cost=way.cost: cost)
            columns = {"cost": runs, "test": test[row], "test loss": grid.loss(way.recipe, way.batch)}
            columns["train loss"] = grid.loss(way.recipe, way.batch, "train")
            if row != "SB":
                columns["test, - SB"] = difference(test[row], test["SB"])
            if row != "LB":
                columns["test, - LB"] = difference(test[row], test["LB"])
            if row in HALF:
                columns["test, - at half the updates"] = difference(test[row], test[HALF[row]])
            cells += way.recipe.cells(f"{n}, {row}", columns)
    title = "What to spend on: accuracy at a large batch, and what it costs"
    return Table("compute", title, "gradients of the plain run; percent; nats; points", tuple(cells))


def tuned_table(arms: Arms) -> Table:
    """Both optimizers at the rates that were chosen for each batch; with SAM where it was searched, at the radius too."""
    cells = []
    for (n, optimizer), s in arms.items():
        for batch in ("SB", "LB"):
            with_sam = {"SAM": tuned_sam(s, batch)} if choice(s, batch).with_sam else {}
            for row, of in {"plain": tuned(s, batch), **with_sam}.items():
                columns = {"train loss": grid.loss(of, batch, "train"), "test loss": grid.loss(of, batch)}
                columns["test"] = of.accuracy(batch, "test", "running")
                if (batch, row) == ("LB", "plain"):
                    columns["test, - SB"] = difference(columns["test"], tuned(s, "SB").accuracy("SB", "test", "running"))
                cells += of.cells(f"{n}, {optimizer}, {batch}, {row}", columns)
    return Table("tuned", "Both optimizers at the rate tuned for each batch", "nats; percent", tuple(cells))


def tuned_rules(arms: Arms) -> Iterator[tuple[str, Case]]:
    """V1 to V3 once more, at the tuned rates and radii: a second reading, since the report searched nothing."""
    above, fields = Difference("above"), {"reading": "tuned", "unit": "nats"}
    for (n, optimizer), s in arms.items():
        sides = (grid.loss(tuned(s, batch), batch) for batch in ("LB", "SB"))
        yield "V1", s.case(f"{n}, {optimizer}, tuned: test loss, batch {s.large} - {s.small}", above, *sides, **fields)
        for batch, size in (("SB", s.small), ("LB", s.large)):
            if choice(s, batch).with_sam is None:
                continue
            pair = (tuned_sam(s, batch), tuned(s, batch))
            if optimizer == "SGD":
                label = f"{n}, tuned, batch {size}: test loss, SAM - plain"
                yield "V2", s.case(label, above, *(grid.loss(of, batch) for of in pair), **fields)
            if batch == "LB":
                label = f"{n}, {optimizer}, tuned, batch {size}: sharpness, SAM / plain"
                sides = (grid.sharp(of, batch) for of in pair)
                yield "V3", s.case(label, Ratio(1), *sides, **fields | {"unit": "times"})


# lines of the figure: what a row of the table adds at each cost
LINES = {
    "SB": ("SB",),
    "SB, SAM": ("SB, SAM",),
    "LB": ("LB", "LB, twice the updates", "LB, four times the updates"),
    "LB, SAM": ("LB, SAM", "LB, SAM, twice the updates"),
}


def figure(recipes: Recipes) -> Figure:
    """Accuracy against cost: more updates, SAM, and both; the small batch without and with SAM."""
    panels, series = [], []
    for n, s in recipes.items():
        panels.append(Axis(n, "cost, in gradients of the plain run", "test accuracy, percent", log_x=True))
        of = ways(s)
        for line, rows in LINES.items():
            for way in (of[row] for row in rows if row in of):
                series.append(point(n, line, way.cost, way.recipe.accuracy(way.batch, "test", "running")))
    return Figure("spent", "Accuracy against what it costs", tuple(panels), tuple(series), mark="interval")


def rules(recipes: Recipes) -> Iterator[tuple[str, Case]]:
    """The title's question (Q1), equal compute (Q2), and Foret et al.'s claims that the tuned runs bear on."""
    for n, s in recipes.items():
        of = ways(s)
        test = {row: way.recipe.accuracy(way.batch, "test", "running") for row, way in of.items()}

        def step(label: str, rule, a: str, b: str, test=test, of=of, **fields) -> Case:
            return of[a].recipe.case(label, rule, test[a], test[b], **fields)

        above, m = Difference("above"), f"LB, SAM, m = {M}"
        # "rescued": not worse than the small batch by the margin
        yield "Q1", step(f"{n}: LB with SAM - SB", Difference("above", -MARGIN), "LB, SAM", "SB", central=True)
        yield "Q1", step(f"{n}: LB with SAM - LB", above, "LB, SAM", "LB")
        yield "Q2", step(f"{n}: LB with SAM - LB, twice the updates", above, "LB, SAM", "LB, twice the updates", central=True)
        yield "Q6", step(f"{n}: LB - SB, both tuned", Difference("below"), "LB", "SB", central=True)
        for batch, size in (("SB", s.small), ("LB", s.large)):
            if f"{batch}, SAM" in of:
                label = f"{n}, batch {size}: accuracy, SAM - plain"
                yield "A1", step(label, above, f"{batch}, SAM", batch, central=batch == "SB")
        if m not in of:
            continue
        twice = "twice the updates"
        label = f"{n}, plain: accuracy, four times the updates - twice"
        overfits = step(label, Difference("below"), "LB, four times the updates", f"LB, {twice}")
        label, sides = f"{n}, SAM: accuracy, {twice} - once", (f"LB, SAM, {twice}", "LB, SAM")
        yield "A2", step(label, above, *sides, central=True, given=overfits)
        yield "A3", step(f"{n}, batch {s.large}: accuracy, m = {M} - m = {s.large}", above, m, "LB, SAM", central=True)
