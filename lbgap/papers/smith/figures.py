"""Figures: the sweeps against the batch, heat maps of accuracy over rate and batch, budgets, and what is held equal."""

import math
from collections.abc import Callable

import numpy as np

from lbgap.papers.paper import Axis, Figure, Quantity, combined
from lbgap.papers.recipe import point
from lbgap.papers.smith import curves
from lbgap.papers.smith.curves import Curve, Networks
from lbgap.papers.smith.setups import Setup
from lbgap.sources import metric_of

RATE = "ε / (1 - m)"  # the effective rate, for an axis


def _against_batch(
    name: str, title: str, y: Callable[[Setup], str], networks: Networks, of: Callable[[Curve], Quantity], log_y: bool = False
) -> Figure:
    """Something of every curve at equal epochs, a line an optimizer."""
    panels, series = [], []
    for n, sweeps in networks.items():
        panels.append(Axis(n, "batch", y(sweeps.setup), log_x=True, log_y=log_y))
        series += [point(n, o, b, of(curve)) for o, sweep in sweeps.epochs.items() for b, curve in sweep.items()]
    return Figure(name, title, tuple(panels), tuple(series), mark="interval")


def _test_metric(c: Curve) -> Quantity:
    return c.metric("test", c.setup.chooses)


def _training_loss(c: Curve) -> Quantity:
    return c.at_best(curves.loss("train"), c.setup.chooses)


def _best_rate(c: Curve) -> Quantity:
    return curves.power(c.best_rate(c.setup.chooses))


def metric_words(s: Setup) -> str:
    """The test metric, for an axis."""
    metric = metric_of(s.data.name)
    return f"test {metric.name}, {metric.unit}"


def accuracies(networks: Networks) -> Figure:
    """The test metric at the best rate."""
    title = "Equal epochs: the test metric at the best rate"
    return _against_batch("at_equal_epochs", title, metric_words, networks, _test_metric)


def best_rates(networks: Networks) -> Figure:
    """The best effective rate."""
    return _against_batch("best_rates", "Equal epochs: the best effective rate", lambda _: RATE, networks, _best_rate, True)


def losses(networks: Networks) -> Figure:
    """The training loss at the best rate."""
    title = "Equal epochs: the training loss"
    return _against_batch("losses", title, lambda _: "training loss", networks, _training_loss, True)


def heat(networks: Networks) -> Figure:
    """Test accuracy over rate and batch at equal epochs, a panel an optimizer."""
    panels, series = [], []
    for n, sweeps in networks.items():
        s = sweeps.setup
        if not metric_of(s.data.name).higher_is_better:  # the highest of a column is framed
            continue
        for optimizer, sweep in sweeps.epochs.items():
            panel = f"{n}, {optimizer}"
            panels.append(Axis(panel, "batch", metric_words(s), ticks=tuple(map(str, sweep))))
            rates = sorted({rate for curve in sweep.values() for rate in curve.rates})
            series += [
                point(panel, f"{2.0**rate:g}", i, sweep[b].at(rate, s.metric("test")))
                for rate in rates
                for i, b in enumerate(sweep)
                if rate in sweep[b].rates
            ]
    return Figure("heat", "Equal epochs: every rate of every batch", tuple(panels), tuple(series), mark="heat")


def steps(networks: Networks) -> Figure:
    """At equal updates, with momentum: the test metric, the training loss and the best rate."""
    panels, series = [], []
    for n, sweeps in networks.items():
        s = sweeps.setup
        if not s.steps:
            continue
        shown = {
            f"test {metric_of(s.data.name).name}": (metric_words(s), _test_metric, False),
            "training loss": ("training loss", _training_loss, True),
            "best rate": (RATE, _best_rate, True),
        }
        for what, (y, of, log_y) in shown.items():
            panels.append(Axis(f"{n}, {what}", "batch", y, log_x=True, log_y=log_y))
            series += [point(f"{n}, {what}", "momentum", b, of(curve)) for b, curve in sweeps.steps.items()]
    return Figure("at_equal_steps", "Equal updates", tuple(panels), tuple(series), mark="interval")


def budgets(networks: Networks) -> Figure:
    """Growing budgets: the test metric, and both best rates."""
    panels, series = [], []
    for n, sweeps in networks.items():
        s = sweeps.setup
        if not s.budgets:
            continue
        metric, rate = f"{n}, test {metric_of(s.data.name).name}", f"{n}, best rate"
        panels += [Axis(metric, "epochs", metric_words(s), log_x=True)]
        panels += [Axis(rate, "epochs", RATE, log_x=True, log_y=True)]
        for epochs, curve in sweeps.budgets.items():
            series.append(point(metric, "test", epochs, curve.metric("test", s.chooses)))
            for line, by in (("test", "test"), ("train", "loss")):
                series.append(point(rate, line, epochs, curves.power(curve.best_rate(by))))
    return Figure("growing_budgets", "Growing budgets at one batch", tuple(panels), tuple(series), mark="interval")


# ---------------------------------------------------------------- equal what?


def reached(r: dict, target: float, name: str, higher: bool) -> float:
    """The update at which a run's test curve first reaches a target, by a line between two points; NaN if it never does.

    Where the curve begins beyond the target it is that of the first point, an upper bound.
    """
    y = np.array(r["curve"][f"test_{name}"], float)
    x = np.array(r["curve"]["update"], float)
    there = np.flatnonzero(y >= target if higher else y <= target)
    if not len(there):
        return math.nan
    i = there[0]
    if i == 0:
        return float(x[0])
    return float(np.interp(target, *((v[i - 1 : i + 1] if higher else v[i - 1 : i + 1][::-1]) for v in (y, x))))


def soonest(curve: Curve, target: float) -> Quantity:
    """The least number of updates to a target over the rates of a curve, for each seed."""
    metric = metric_of(curve.setup.data.name)

    def least(*results: dict) -> float:
        found = [reached(r, target, metric.name, metric.higher_is_better) for r in results if not r["diverged"]]
        return float(np.nanmin(found)) if np.isfinite(found).any() else math.nan

    return Quantity(curve.own_runs, least, reads_diverged=True)


def equal(networks: Networks) -> list[Figure]:
    """The same sweeps at equal epochs, at equal updates, and by updates and images to a target (Shallue et al. 2019)."""
    panels, series = [], []
    for n, sweeps in networks.items():
        s = sweeps.setup
        if not (s.steps and s.target):
            continue
        epochs, steps = f"{n}: {s.epochs} epochs each", f"{n}: {s.steps:,} updates each"
        updates, images = f"{n}: updates to {s.target:g}%", f"{n}: images to {s.target:g}%"
        panels += [Axis(panel, "batch", metric_words(s), log_x=True) for panel in (epochs, steps)]
        panels.append(Axis(updates, "batch", "updates", log_x=True, log_y=True))
        panels.append(Axis(images, "batch", "images", log_x=True, log_y=True))
        for o, sweep in sweeps.epochs.items():
            for b, curve in sweep.items():
                least = soonest(curve, s.target)
                series.append(point(epochs, o, b, curve.metric("test", s.chooses)))
                series.append(point(updates, o, b, least))
                series.append(point(images, o, b, combined(lambda u, b=b: u * b, least)))
        for b, curve in sweeps.steps.items():
            series.append(point(steps, "momentum", b, curve.metric("test", s.chooses)))
    if not panels:
        return []
    return [Figure("equal", "Equal what? The same sweeps, four readings", tuple(panels), tuple(series), mark="interval")]
