"""The gradient noise scale along training, by both estimators, and the bend that it predicts (Q1)."""

import math
from collections.abc import Iterator

from lbgap.papers.paper import Axis, Case, Figure, Quantity, Series, Table, combined, dig, ratio
from lbgap.papers.smith import curves
from lbgap.papers.smith.curves import Networks, Sweeps
from lbgap.papers.smith.setups import Setup
from lbgap.sources import lookup
from lbgap.spec import Measure, Train
from lbgap.stats import Equivalence

BATCHES = {"small": 32, "big": 512}  # of the two-batch estimator
PARTS = {"start": 0.0, "an eighth": 0.125, "a quarter": 0.25, "half": 0.5, "end": 1.0}
MIDDLE = "half"  # the end of the held rate
OCTAVE = 1.0  # a factor of two


def measured(s: Setup) -> bool:
    """Whether there are examples in memory to take gradients of, and not pictures on disk; of a text they are segments."""
    return not lookup(s.data.name).on_disk


def estimators(s: Setup) -> dict[str, dict]:
    """Arguments of both estimators; an LSTM has its single examples one after another, since vmap is slower there."""
    one = {"estimator": "two-batch", **BATCHES, "small": 1} if s.data.is_text else {"estimator": "per-example"}
    return {"two-batch": {"estimator": "two-batch", **BATCHES}, "per-example": one}


def followed(sweeps: Sweeps) -> tuple[Train, ...]:
    """The runs whose noise is measured: the largest of the small batches, with momentum, in the middle of its first grid."""
    s, batch = sweeps.setup, sweeps.setup.small[-1]
    rates = s.rates or s.grids["momentum"].first(batch)
    return sweeps.epochs["momentum"][batch].runs[rates[len(rates) // 2]]


def scale(sweeps: Sweeps, part: str, estimator: str) -> Quantity:
    """The noise scale, in examples, after a part of the epochs; undefined where the gradient is lost in its noise."""
    arguments, epoch = estimators(sweeps.setup)[estimator], round(PARTS[part] * sweeps.setup.epochs)
    jobs = (Measure(kind="noise_scale", arguments=arguments, of=(run.at(epoch),)) for run in followed(sweeps))
    return Quantity(tuple((job,) for job in jobs), lambda r: _finite(dig("noise_scale")(r)))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def bends(sweeps: Sweeps) -> dict[str, Quantity]:
    """The bend of each optimizer, in examples."""
    by = sweeps.setup.chooses
    return {o: curves.power(curves.bend(sweep, by)) for o, sweep in sweeps.epochs.items()}


def table(networks: Networks) -> Table:
    """Noise scales, and the bends."""
    cells = []
    for n, sweeps in networks.items():
        s, found = sweeps.setup, bends(sweeps)
        for estimator in estimators(s):
            columns = {part: scale(sweeps, part, estimator) for part in PARTS} if measured(s) else {}
            columns |= {f"bend, {optimizer}": q for optimizer, q in found.items()}
            if measured(s):
                columns["bend, momentum / half"] = ratio(columns["bend, momentum"], columns[MIDDLE])
            words = f"{s.words}, measured at batch {s.small[-1]}"
            cells += s.cells(f"{n}, {estimator}", columns, words=words)
    title = "The gradient noise scale after parts of the epochs, and the batch at which the best rate levels off"
    return Table("noise", title, "examples; ratio", tuple(cells), digits=1)


def figure(networks: Networks) -> Figure:
    """Both estimates along training, and the bends as levels."""
    panels, series = [], []
    for n, sweeps in networks.items():
        if not measured(sweeps.setup):
            continue
        panels.append(Axis(n, "part of the epochs", "examples", log_y=True, ticks=tuple(PARTS)))
        for estimator in estimators(sweeps.setup):
            series += [_at(n, f"noise scale, {estimator}", i, scale(sweeps, p, estimator)) for i, p in enumerate(PARTS)]
        for optimizer, quantity in bends(sweeps).items():
            series += [_at(n, f"bend, {optimizer}", i, quantity) for i in range(len(PARTS))]
    return Figure(
        "noise_along", "The noise scale along training beside the bends", tuple(panels), tuple(series), mark="interval"
    )


def _at(panel: str, line: str, x: float, quantity: Quantity) -> Series:
    return Series(panel, line, quantity.jobs, lambda *results: [(x, quantity.value(*results))])


def rules(n: str, sweeps: Sweeps) -> Iterator[tuple[str, Case]]:
    """Q1: the bend within an octave of the noise scale at half of the epochs."""
    s = sweeps.setup
    if not measured(s):
        return
    rule, fields = Equivalence(OCTAVE), {"scope": "reading", "unit": "octaves"}
    middle = combined(math.log2, scale(sweeps, MIDDLE, "two-batch"))
    for optimizer, sweep in sweeps.epochs.items():
        bend = curves.bend(sweep, s.chooses)
        label = f"{n}, {optimizer}: log2 of the bend - log2 of the noise scale"
        yield "Q1", s.case(label, rule, bend, middle, central=optimizer == "momentum", **fields)
