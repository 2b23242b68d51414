"""What is read of one batch size, under one budget, tried at every rate of its grid."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lbgap.papers.paper import Jobs, Quantity, combined, dig
from lbgap.papers.smith import peaks
from lbgap.papers.smith.setups import LEAST_UPDATES, Setup
from lbgap.spec import Train

Read = Callable[[dict], float]  # a number of one run's results


@dataclass(frozen=True, eq=False)
class Curve:
    """The runs of a setup at one batch size and budget in ``epochs`` or ``steps``, at every rate of its grid.

    ``rates`` are logarithms, base 2, of effective rates. The final weights are read with running averages of batch norm.
    """

    setup: Setup
    batch: int
    momentum: float
    updates: int
    rates: tuple[float, ...]

    @cached_property
    def runs(self) -> dict[float, tuple[Train, ...]]:
        """By rate, a run a seed."""
        s = self.setup
        return {
            rate: tuple(s.train(self.batch, rate, self.momentum, self.updates, seed) for seed in s.all_seeds)
            for rate in self.rates
        }

    def at(self, rate: float, read: Read) -> Quantity:
        """A number of the runs at one rate."""
        return Quantity(tuple((run,) for run in self.runs[rate]), read)

    @cached_property
    def own_runs(self) -> Jobs:
        """For each seed its runs at every rate."""
        return tuple(zip(*self.runs.values(), strict=True))

    @cached_property
    def all_runs(self) -> Jobs:
        """For each seed its runs at every rate, then those of the other seeds."""
        return tuple(sum(self.own_runs[i:] + self.own_runs[:i], ()) for i in range(len(self.own_runs)))

    def rows(self, results: Sequence[dict], read: Read) -> np.ndarray:
        """Seeds by rates; NaN where a run diverged."""
        values = [math.nan if r["diverged"] else read(r) for r in results]
        return np.reshape(values, (-1, len(self.rates)))

    def best_rate(self, by: str) -> Quantity:
        """Each seed's best effective rate, log2: the :func:`peaks.peak` of its own curve."""
        read = self.setup.badness(by)
        return Quantity(self.own_runs, lambda *r: float(peaks.peak(self.rates, self.rows(r, read)[0])), reads_diverged=True)

    def at_best(self, read: Read, by: str) -> Quantity:
        """A number of each seed at the one rate of the grid whose mean badness over all seeds is least.

        A rate at which a run diverged is not chosen.
        """
        judge = self.setup.badness(by)

        def chosen(*results: dict) -> float:
            means = np.nan_to_num(self.rows(results, judge).mean(0), nan=np.inf)
            return self.rows(results[: len(self.rates)], read)[0, means.argmin()]

        return Quantity(self.all_runs, chosen, reads_diverged=True)

    def metric(self, split: str, by: str) -> Quantity:
        """The task's metric on a split at the rate that is best ``by`` another."""
        return self.at_best(self.setup.metric(split), by)

    def interval(self, by: str, end: int) -> Quantity:
        """An end of the best rate's 95% interval: bootstrap over seeds of the peak of their mean curve (of few, too narrow)."""
        read = self.setup.badness(by)

        def found(*results: dict) -> float:
            rows = self.rows(results, read)
            return peaks.interval(len(rows), lambda drawn: peaks.peak(self.rates, rows[drawn].mean(-2)))[end]

        return Quantity(self.all_runs[:1], found, reads_diverged=True, pooled=True)


Sweep = dict[int, Curve]  # by batch size, or by budget in epochs


@dataclass(frozen=True, eq=False)
class Sweeps:
    """The sweeps of a setup."""

    setup: Setup

    @cached_property
    def epochs(self) -> dict[str, Sweep]:
        """By optimizer, every batch for as many epochs; not those that would make too few updates."""
        s = self.setup
        updates = {b: s.epochs * s.data.updates_per_epoch(b) for b in s.batches}
        return {
            optimizer: {b: Curve(s, b, momentum, n, s.grid(optimizer, b)) for b, n in updates.items() if n >= LEAST_UPDATES}
            for optimizer, momentum in s.momenta.items()
        }

    @cached_property
    def steps(self) -> Sweep:
        """Every batch for as many updates, with momentum."""
        s = self.setup
        return {b: Curve(s, b, s.momentum, s.steps, s.grid("steps", b)) for b in s.step_batches}

    @cached_property
    def budgets(self) -> Sweep:
        """One batch for more and more epochs, with momentum."""
        s, b = self.setup, self.setup.budget_batch
        return {e: Curve(s, b, s.momentum, e * s.data.updates_per_epoch(b), s.grid("budgets", e)) for e in s.budgets}


Networks = dict[str, Sweeps]


def power(exponent: Quantity) -> Quantity:
    """2 to what is a logarithm: a rate, or a batch size."""
    return combined(lambda x: 2.0**x, exponent)


def along(sweep: Sweep, of: Callable[..., float], *values: Quantity) -> Quantity:
    """A number of each seed made of a row of values, one for each place of a sweep, and the places' logarithms."""
    places = np.log2(list(sweep))
    return combined(lambda *row: of(places, np.array(row)), *values)


def best_rates(sweep: Sweep, by: str) -> list[Quantity]:
    """The best rate at each place of a sweep."""
    return [curve.best_rate(by) for curve in sweep.values()]


def bend(sweep: Sweep, by: str, law: Callable = peaks.corner) -> Quantity:
    """Each seed's bend, log2 of a batch size."""
    return along(sweep, lambda x, y: float(peaks.fit(x, y, law).bend), *best_rates(sweep, by))


def bend_interval(sweep: Sweep, by: str, end: int) -> Quantity:
    """An end of the 95% interval of the bend: bootstrap over seeds (of few, too narrow), drawn for all batches at once."""
    curves = list(sweep.values())
    read = curves[0].setup.badness(by)
    places = np.log2(list(sweep))

    def found(*results: dict) -> float:
        rest, rows = iter(results), []
        for curve in curves:
            rows.append(curve.rows([next(rest) for _ in curve.all_runs[0]], read))

        def of(drawn: np.ndarray) -> np.ndarray:
            best = [peaks.peak(c.rates, r[drawn].mean(-2)) for c, r in zip(curves, rows, strict=True)]
            return peaks.fit(places, np.stack(best, -1)).bend

        return peaks.interval(len(rows[0]), of)[end]

    jobs = (sum((curve.all_runs[0] for curve in curves), ()),)
    return Quantity(jobs, found, reads_diverged=True, pooled=True)


def fitted_slope(sweep: Sweep, by: str, places: Sequence[int] = ()) -> Quantity:
    """How the best rate goes with the places of a sweep, or some of them: the slope of its logarithm on theirs."""
    part = {x: curve for x, curve in sweep.items() if not places or x in places}
    return along(part, peaks.slope, *best_rates(part, by))


def loss(split: str) -> Read:
    """A final loss, with running averages."""
    return dig(f"final.{split}.running.loss")
