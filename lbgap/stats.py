"""Intervals over seeds, and the verdict a rule draws from them. Arrays in, findings out; no records, no papers."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import scipy  # its parts are loaded when they are used
from numpy.typing import ArrayLike

MIN_SEEDS = 5
ROUNDING = 1e-12  # relative, of a logarithm and back, by which 6 / 3 is not 2
Verdict = Literal["replicated", "contradicted", "inconclusive", "not run", "not asked"]


@dataclass(frozen=True)
class Estimate:
    """A mean effect with its 95% interval over ``n`` seeds (for a ratio: the geometric mean).

    ``p`` is the two-sided p-value of a test that stands in for the interval where a verdict is drawn.
    """

    effect: float
    low: float
    high: float
    n: int
    p: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Finding:
    """What one rule says of one case.

    ``unpaired`` is the estimate that does not use which seed is which, ``correlation`` that of the two sides over seeds.
    """

    verdict: Verdict
    estimate: Estimate | None
    reason: str = ""
    lost: int = 0  # pairs without a finite value: a run diverged, or a ratio has no value
    unpaired: Estimate | None = None
    correlation: float | None = None


def t_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Student's t interval of a mean; with one value the interval is the whole line."""
    values = np.asarray(values, float)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, -np.inf, np.inf, n)
    half = float(scipy.stats.t.ppf((1 + level) / 2, n - 1) * scipy.stats.sem(values))
    return Estimate(mean, mean - half, mean + half, n)


def geometric_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """The geometric mean of positive numbers, such as ratios, with Student's t interval of their logarithms."""
    return _exponential(t_interval(np.log(values), level))


def welch_interval(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate | None:
    """Welch's t interval of the difference of two means, for samples that are not paired.

    None where one side does not vary: a constant has no seeds to be paired with.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    interval = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return Estimate(float(a.mean() - b.mean()), float(interval.low), float(interval.high), min(len(a), len(b)))


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation; 0 where one side is constant (no order, no trend)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(scipy.stats.spearmanr(x, y).statistic)


@dataclass(frozen=True)
class Difference:
    """a - b, paired by seed: "below" (or "above") by more than ``by``."""

    direction: Literal["below", "above"]
    by: float = 0.0

    def estimate(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Mean difference a - b."""
        return t_interval(a - b)

    def unpaired(self, a: np.ndarray, b: np.ndarray) -> Estimate | None:
        """The same by Welch's interval."""
        return welch_interval(a, b)

    @property
    def region(self) -> tuple[float, float]:
        """The effects that the rule asks for."""
        return (-np.inf, -self.by) if self.direction == "below" else (self.by, np.inf)

    def verdict(self, e: Estimate) -> Verdict:
        """Replicated where the whole interval lies beyond ``by``, contradicted where it lies wholly on the other side."""
        low, high = (e.low, e.high) if self.direction == "above" else (-e.high, -e.low)
        return "replicated" if low > self.by else "contradicted" if high < self.by else "inconclusive"

    def __str__(self) -> str:
        return f"A - B {'<' if self.direction == 'below' else '>'} {0 - self.by if self.direction == 'below' else self.by:g}"


@dataclass(frozen=True)
class Equivalence:
    """|a - b| within ``margin``, paired by seed."""

    margin: float = 0.5

    def estimate(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Mean difference a - b."""
        return t_interval(a - b)

    def unpaired(self, a: np.ndarray, b: np.ndarray) -> Estimate | None:
        """The same by Welch's interval."""
        return welch_interval(a, b)

    @property
    def region(self) -> tuple[float, float]:
        """The effects that the rule asks for."""
        return -self.margin, self.margin

    def verdict(self, e: Estimate) -> Verdict:
        """Replicated where the whole interval lies within the margin, contradicted where it lies wholly outside."""
        if -self.margin < e.low and e.high < self.margin:
            return "replicated"
        return "contradicted" if e.low > self.margin or e.high < -self.margin else "inconclusive"

    def __str__(self) -> str:
        return f"|A - B| < {self.margin:g}"


@dataclass(frozen=True)
class Ratio:
    """a / b at least ``at_least``, paired by seed, on the log scale."""

    at_least: float

    def estimate(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Geometric mean of a / b; not a number where a value is not positive."""
        if np.any(a <= 0) or np.any(b <= 0):
            return Estimate(np.nan, np.nan, np.nan, len(a))
        return geometric_interval(a / b)

    def unpaired(self, a: np.ndarray, b: np.ndarray) -> Estimate | None:
        """The same by Welch's interval of the logarithms."""
        if np.any(a <= 0) or np.any(b <= 0):
            return None
        return _exponential(welch_interval(np.log(a), np.log(b)))

    @property
    def region(self) -> tuple[float, float]:
        """The effects that the rule asks for."""
        return self.at_least, np.inf

    def verdict(self, e: Estimate) -> Verdict:
        """Replicated where the whole interval lies at or above ``at_least``, contradicted where wholly below."""
        least = self.at_least * (1 - ROUNDING)
        return "replicated" if e.low >= least else "contradicted" if e.high < least else "inconclusive"

    def __str__(self) -> str:
        return f"A / B >= {self.at_least:g}"


@dataclass(frozen=True)
class Trend:
    """A rank correlation above or below 0, of values (a: a row a seed) with the order in which they stand; b is not used.

    The places of a row are judged by Page's L, the test made for an order that was named beforehand (Page 1963; SciPy's
    ``page_trend_test``); without ties L is a linear function of the seeds' mean rank correlation, which is the effect shown.
    Page's null is that within a row every order is equally likely. Points of one run, one after the other, are not like
    that even where nothing trends: ``along_a_run`` keeps to Student's t of the seeds' rank correlations.

    The interval is Student's t of the rank correlations, cut at -1 and 1: what lies beyond holds no value that could be
    true, so that cutting costs no coverage. The percentile bootstrap stays within too, but over five seeds covers 80% where
    95% are meant.
    """

    direction: Literal["falling", "rising"]
    along_a_run: bool = False

    def estimate(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Mean rank correlation, with the two-sided p-value of Page's L."""
        e = t_interval([rank_correlation(range(a.shape[1]), row) for row in a])
        return Estimate(e.effect, max(e.low, -1.0), min(e.high, 1.0), e.n, None if self.along_a_run else page_p(a))

    def unpaired(self, a: np.ndarray, b: np.ndarray) -> None:
        """A trend compares nothing across seeds."""

    @property
    def region(self) -> tuple[float, float]:
        """The effects that the rule asks for."""
        return (-1.0, 0.0) if self.direction == "falling" else (0.0, 1.0)

    def verdict(self, e: Estimate) -> Verdict:
        """By the side of 0 on which the effect lies, where Page's p is below 0.05; along a run, on which its interval lies."""
        low, high = (e.low, e.high) if e.p is None else (e.effect, e.effect) if e.p < 0.05 else (-1.0, 1.0)
        low, high = (low, high) if self.direction == "rising" else (-high, -low)
        return "replicated" if low > 0 else "contradicted" if high < 0 else "inconclusive"

    def __str__(self) -> str:
        test = "t" if self.along_a_run else "Page's L"
        return f"rank correlation {'<' if self.direction == 'falling' else '>'} 0 ({test})"


def page_p(rows: np.ndarray) -> float:
    """Two-sided p-value of Page's trend test, twice that of the side that the ranks point to; 1 below 2 rows or 3 places."""
    n, places = rows.shape
    if n < 2 or places < 3:
        return 1.0
    orders = range(1, places + 1), range(places, 0, -1)
    return min(1.0, 2 * float(min(scipy.stats.page_trend_test(rows, predicted_ranks=order).pvalue for order in orders)))


def _exponential(e: Estimate | None) -> Estimate | None:
    return e and Estimate(*(float(np.exp(v)) for v in (e.effect, e.low, e.high)), e.n)


Rule = Difference | Equivalence | Ratio | Trend


def judge(rule: Rule, a: ArrayLike, b: ArrayLike) -> Finding:
    """Apply a rule to two sequences of values paired by seed; a trend reads a row of values for each seed.

    A pair with a value that is not finite (NaN: a run diverged) is left out and counted as ``lost``.
    Fewer than :data:`MIN_SEEDS` pairs give an estimate but no verdict.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    rows = isinstance(rule, Trend)
    if a.shape != b.shape or (a.size and a.ndim != 1 + rows):
        what = "two arrays of one shape, a row a seed" if rows else "two sequences of one length"
        raise ValueError(f"a and b have shapes {a.shape} and {b.shape}; accepted are {what}")
    finite = np.isfinite(a) & np.isfinite(b)
    finite = finite.all(axis=1) if a.ndim == 2 else finite
    lost = int((~finite).sum())
    note = f"{lost} of {len(a)} pairs have no finite value" if lost else ""
    if not finite.any():
        return Finding("not run", None, note or "no records", lost)
    a, b = a[finite], b[finite]
    estimate, unpaired = rule.estimate(a, b), rule.unpaired(a, b)
    correlation = float(np.corrcoef(a, b)[0, 1]) if unpaired else None
    found = partial(Finding, estimate=estimate, lost=lost, unpaired=unpaired, correlation=correlation)
    if estimate.n < MIN_SEEDS:
        few = f"n is {estimate.n}, {MIN_SEEDS} are needed"
        return found("not run", reason="; ".join(filter(None, [note, few])))
    if not np.isfinite(estimate.effect):
        return found("inconclusive", reason="a value is not positive, so there is no ratio")
    if estimate.low == estimate.high:
        note = "; ".join(filter(None, [note, f"all {estimate.n} values are the same, so that the interval has no width"]))
    return found(rule.verdict(estimate), reason=note)


def combine(findings: Iterable[Finding], needed: int | None = None) -> Verdict:
    """The verdict of a claim that must hold on ``needed`` of the cases; on all where that is None.

    A claim holds once enough cases hold, and falls once too many have fallen; cases without records leave it open.
    What is not asked does not count.
    """
    findings = [f for f in findings if f.verdict != "not asked"]
    if not findings:
        return "not run"
    needed = len(findings) if needed is None else min(needed, len(findings))
    count = {v: sum(f.verdict == v for f in findings) for v in ("replicated", "contradicted", "not run")}
    if count["replicated"] >= needed:
        return "replicated"
    if len(findings) - count["contradicted"] < needed:
        return "contradicted"
    return "not run" if count["not run"] else "inconclusive"
