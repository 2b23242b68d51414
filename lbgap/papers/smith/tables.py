"""Tables: accuracy and best rate at equal epochs, at equal updates beside the published ones, under growing budgets; bends."""

from lbgap.papers.paper import Cell, Quantity, Table, combined, difference
from lbgap.papers.recipe import published_cells
from lbgap.papers.smith import curves, peaks
from lbgap.papers.smith.curves import Curve, Networks, Sweep
from lbgap.papers.smith.setups import FACTS, Setup
from lbgap.sources import metric_of


def unit(networks: Networks) -> str:
    """The metrics of the networks."""
    return "; ".join(dict.fromkeys(metric_of(s.data.name).unit for s in (of.setup for of in networks.values())))


def epochs(networks: Networks) -> Table:
    """Test metric and training loss at the rate chosen on held-out examples, and what choosing on the test set adds."""
    cells = []
    for n, of in networks.items():
        s, sweeps = of.setup, of.epochs
        for b in s.batches:
            columns: dict[str, Quantity] = {}
            for optimizer, sweep in sweeps.items():
                if b in sweep:
                    columns |= _columns(sweep[b], f"{optimizer}, ")
            cells += s.cells(f"{n}, batch {b}", columns)
    title = "Equal epochs: the metric on the test set and the training loss at the best rate"
    return Table("epochs", title, f"{unit(networks)}; nats", tuple(cells))


def _columns(curve: Curve, prefix: str = "") -> dict[str, Quantity]:
    by = curve.setup.chooses
    out = {f"{prefix}test": curve.metric("test", by)}
    if by != "test":
        out[f"{prefix}test, chosen on it"] = curve.metric("test", "test")
    return out | {f"{prefix}training loss": curve.at_best(curves.loss("train"), by)}


def rates(networks: Networks) -> Table:
    """Best effective rates at equal epochs: each seed's own, and the bootstrap's interval."""
    cells = []
    for n, of in networks.items():
        s, sweeps = of.setup, of.epochs
        for b in s.batches:
            for optimizer, sweep in sweeps.items():
                if b in sweep:
                    columns = _rate(sweep[b], s.chooses, f"{optimizer}, ")
                    cells += s.cells(f"{n}, batch {b}", columns)
    title = "Equal epochs: the best effective rate, and its interval over bootstrapped seeds"
    return Table("rates", title, "exponents of 2", tuple(cells))


def _rate(curve: Curve, by: str, prefix: str = "") -> dict[str, Quantity]:
    ends = {f"{prefix}{name}": curve.interval(by, end) for end, name in enumerate(("from", "to"))}
    return {f"{prefix}best rate": curve.best_rate(by), **ends}


def bends(networks: Networks) -> Table:
    """Where the best rate levels off, with the interval, the level, and how well a sharp and a gradual law fit."""
    cells = []
    for n, of in networks.items():
        s = of.setup
        for optimizer, sweep in of.epochs.items():
            by = s.chooses
            best = curves.best_rates(sweep, by)
            columns = {"bend": curves.power(curves.bend(sweep, by))}
            for end, name in enumerate(("from", "to")):
                ends = curves.bend_interval(sweep, by, end)
                columns[name] = Quantity(ends.jobs, lambda *r, of=ends: 2.0 ** of.value(*r), True, pooled=True)
            columns["bend, on the test set"] = curves.power(curves.bend(sweep, "test"))
            columns["level, exponent of 2"] = curves.along(sweep, lambda x, y: float(peaks.fit(x, y).top), *best)
            for name, law in (("sharp", peaks.corner), ("gradual", peaks.saturation)):
                residual = curves.along(sweep, lambda x, y, law=law: float(peaks.fit(x, y, law).residual), *best)
                columns[f"residual, {name}"] = residual
            cells += s.cells(f"{n}, {optimizer}", columns)
    title = "Equal epochs: where the best rate stops growing with the batch"
    return Table("bends", title, "examples; octaves", tuple(cells))


def steps(networks: Networks) -> Table:
    """The table at equal updates, ours beside the published one; those of networks of ours below."""
    of, published, cells = FACTS["tables"]["steps"], published_cells(FACTS, "steps"), []
    ours = {f"{n}, batch {b}": curve for n, sweeps in networks.items() for b, curve in sweeps.steps.items()}
    for row in dict.fromkeys([*of["rows"], *ours]):
        columns = {}
        if row in ours:
            curve = ours[row]
            s = curve.setup
            metric = metric_of(s.data.name).name
            columns = {f"test {metric}": curve.metric("test", s.chooses), **_rate(curve, s.chooses)}
            columns["training loss"] = curve.at_best(curves.loss("train"), s.chooses)
        for c in dict.fromkeys([*(c for c in of["columns"] if (row, c) in published), *columns]):
            if c in columns:
                cells.append(s.cell(row, c, columns[c], published.get((row, c)), words=steps_words(s)))
            else:
                cells.append(Cell(row, c, published[row, c], None, network=of["network"]))
    title = "Equal updates: the optimal metric on the test set, and the effective rate"
    of_these = unit({n: sweeps for n, sweeps in networks.items() if sweeps.steps})
    return Table("steps", title, f"{of_these}; exponents of 2; nats", tuple(cells))


def steps_words(s: Setup) -> str:
    """The setting of the sweep at equal updates."""
    return f"{s.where}, {s.steps:,} updates"


def steps_by_rate(networks: Networks) -> Table:
    """The metric at equal updates at every rate tried: whether a best rate hangs on single seeds."""
    cells = []
    for n, of in networks.items():
        s = of.setup
        tried = sorted({rate for curve in of.steps.values() for rate in curve.rates})
        for b, curve in of.steps.items():
            columns = {f"rate 2^{rate:g}": curve.at(rate, s.metric("test")) for rate in tried if rate in curve.rates}
            cells += s.cells(f"{n}, batch {b}", columns, words=steps_words(s))
    title = "Equal updates: the metric on the test set at every effective rate"
    return Table("steps_by_rate", title, unit(networks), tuple(cells))


def budgets(networks: Networks) -> Table:
    """One batch for more and more epochs: the test metric, and the rates that are best for the test set and for the loss."""
    cells = []
    for n, of in networks.items():
        s = of.setup
        for epochs, curve in of.budgets.items():
            columns = {"test": curve.metric("test", s.chooses)}
            columns |= {"best rate, test": curve.best_rate("test"), "best rate, training loss": curve.best_rate("loss")}
            columns["training loss, at its best"] = curve.at_best(curves.loss("train"), "loss")
            cells += s.cells(f"{n}, {epochs} epochs", columns, words=budget_words(s))
    title = "Growing budgets: the best rate for the test set and for the training loss"
    of_these = unit({n: sweeps for n, sweeps in networks.items() if sweeps.budgets})
    return Table("budgets", title, f"{of_these}; exponents of 2; nats", tuple(cells), digits=2)


def budget_words(s: Setup) -> str:
    """The setting of the sweep over budgets."""
    return f"{s.where}, batch {s.budget_batch}"


def choices(networks: Networks) -> Table:
    """What choosing the rate on the test set adds, over the batches of a sweep (Q2)."""
    cells = []
    for n, of in networks.items():
        s = of.setup
        for optimizer, sweep in of.epochs.items():
            if s.chooses != "test":
                cells.append(s.cell(f"{n}, {optimizer}", "gain", flattery(sweep)))
    title = (
        "Equal epochs: the metric with the rate chosen on the test set, minus chosen on held-out examples, mean over batches"
    )
    return Table("choices", title, unit(networks), tuple(cells), digits=3)


def flattery(sweep: Sweep) -> Quantity:
    """By how much the test metric is higher where the rate is chosen on the test set: mean over the batches."""
    gains = [difference(c.metric("test", "test"), c.metric("test", c.setup.chooses)) for c in sweep.values()]
    return combined(lambda *row: sum(row) / len(row), *gains)
