"""Figures: error against the batch (Figs 1 and 3), training under the three warmups (Fig. 2), the training loss of every
batch (Fig. 4), and sensitivity to the rate (Fig. 5)."""

from lbgap.papers.goyal.recipes import FACTS, OWN, Recipe
from lbgap.papers.goyal.tables import warmed
from lbgap.papers.goyal.tuned import tuned
from lbgap.papers.paper import Axis, Figure, Series, difference, published
from lbgap.papers.recipe import point


def sweep(s: Recipe) -> Figure:
    """Error above the reference batch's own, against the batch in multiples of it; and our errors as they are."""
    above = Axis("above the reference batch", "batch / reference batch", "validation error, points", log_x=True)
    plain = Axis("ours", "batch", "error, percent", log_x=True)
    reference, series = s.error("SB"), []
    for b in s.sizes:
        series += [
            point(above.name, "linear scaling", b / s.small, difference(s.error(b), reference)),
            point(plain.name, "linear scaling", b, s.error(b)),
        ]
    for b in s.sizes if s.data.n_validation else ():
        series += [
            point(above.name, "tuned rate", b / s.small, difference(tuned(s, b), tuned(s, s.small))),
            point(plain.name, "tuned rate", b, tuned(s, b)),
        ]
    series += [point(plain.name, "linear scaling, training", b, s.error(b, "train")) for b in s.sizes]
    base = FACTS["sweep"][OWN["reference"]][0]
    series.append(published(above.name, *((b / OWN["reference"], error - base) for b, (error, _) in FACTS["sweep"].items())))
    return Figure("sweep", "Error against the batch", (above, plain), tuple(series), mark="interval")


def warmups(s: Recipe) -> Figure:
    """Training error of the large batch under each warmup, the reference batch's beside it."""
    axis = Axis("training error", "epoch", "percent")
    lines = {f"LB, {kind} warmup": (warmed(s, kind), "LB") for kind in ("no", "constant", "gradual")} | {"SB": (s, "SB")}
    series = tuple(_training_error(axis.name, line, of, batch) for line, (of, batch) in lines.items())
    return Figure("warmups", "Training under three warmups", (axis,), series)


def _training_error(panel: str, line: str, s: Recipe, batch) -> Series:
    def read(r: dict):
        return (
            (epoch, 100 - accuracy) for epoch, accuracy in zip(r["curve"]["epoch"], r["curve"]["train_accuracy"], strict=True)
        )

    return Series(panel, line, s.runs(batch), read)


def matching(s: Recipe) -> Figure:
    """Training loss of every batch, linear scaling and gradual warmup."""
    axis = Axis("training loss", "epoch", "cross entropy (nats)")
    series = tuple(s.curve(axis.name, b, "train_loss", line=f"batch {b}") for b in s.sizes)
    return Figure("matching", "Training loss against the epoch", (axis,), series)


def sensitivity(s: Recipe) -> Figure:
    """Error above that at the rule's rate, at half, the same and twice the rate."""
    panels, series = [], []
    reported = {row: entries[0][0] for row, entries in FACTS["tables"]["table2a"]["rows"].items()}
    rows = {
        "reference batch": ("SB", "reference, the rate", "reference"),
        "large batch": ("LB", "large, linear", "large, linear"),
    }
    for name, (batch, middle, stem) in rows.items():
        panels.append(Axis(name, "rate / the rule's", "error above the rule's, points", log_x=True))
        at = {0.5: f"{stem}, half the rate", 1.0: middle, 2.0: f"{stem}, twice the rate"}
        for factor in at:
            excess = difference(s.changed(factor=factor).error(batch), s.error(batch))
            series.append(point(name, "ours", factor, excess))
        series.append(published(name, *((factor, reported[row] - reported[middle]) for factor, row in at.items())))
    return Figure("sensitivity", "Sensitivity to the rate", tuple(panels), tuple(series), mark="interval")
