"""Intervals over seeds, and the verdict a rule draws from them. Arrays in, findings out; no records, no papers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MIN_SEEDS = 5
Verdict = Literal["replicated", "contradicted", "inconclusive", "not run"]


@dataclass(frozen=True)
class Estimate:
    """A mean effect with its 95% interval over ``n`` seeds (for a ratio: the geometric mean)."""

    effect: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Finding:
    """What one rule says of one setting."""

    verdict: Verdict
    estimate: Estimate | None
    reason: str = ""
    lost: int = 0  # pairs without a finite value: a run diverged, or a ratio has no value


def t_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Student's t interval of a mean; with one value the interval is the whole line."""
    values = np.asarray(values, float)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, -np.inf, np.inf, n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(values))
    return Estimate(mean, mean - half, mean + half, n)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation; 0 where one side is constant (no order, no trend)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


@dataclass(frozen=True)
class Difference:
    """a - b, paired by seed: "below" (or "above") by more than ``by``."""

    direction: Literal["below", "above"]
    by: float = 0.0

    def estimate(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Mean difference a - b."""
        return t_interval(a - b)

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
        e = t_interval(np.log(a) - np.log(b))
        return Estimate(*(float(np.exp(v)) for v in (e.effect, e.low, e.high)), e.n)

    def verdict(self, e: Estimate) -> Verdict:
        """Replicated where the whole interval lies at or above ``at_least``, contradicted where wholly below."""
        return "replicated" if e.low >= self.at_least else "contradicted" if e.high < self.at_least else "inconclusive"

    def __str__(self) -> str:
        return f"A / B >= {self.at_least:g}"


@dataclass(frozen=True)
class Trend:
    """The mean over seeds of a rank correlation (a) is above or below 0; b is not used."""

    direction: Literal["falling", "rising"]

    def estimate(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Mean rank correlation."""
        return t_interval(a)

    def verdict(self, e: Estimate) -> Verdict:
        """By the side of 0 on which the whole interval lies."""
        low, high = (e.low, e.high) if self.direction == "rising" else (-e.high, -e.low)
        return "replicated" if low > 0 else "contradicted" if high < 0 else "inconclusive"

    def __str__(self) -> str:
        return f"rank correlation {'<' if self.direction == 'falling' else '>'} 0"


Rule = Difference | Equivalence | Ratio | Trend


def judge(rule: Rule, a: ArrayLike, b: ArrayLike) -> Finding:
    """Apply a rule to two sequences of values paired by seed.

    A pair with a value that is not finite (NaN: a run diverged) is left out and counted as ``lost``.
    Fewer than :data:`MIN_SEEDS` pairs give an estimate but no verdict.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a and b have shapes {a.shape} and {b.shape}; accepted are two sequences of one length")
    finite = np.isfinite(a) & np.isfinite(b)
    lost = int((~finite).sum())
    note = f"{lost} of {len(a)} pairs have no finite value" if lost else ""
    if not finite.any():
        return Finding("not run", None, note or "no records", lost)
    estimate = rule.estimate(a[finite], b[finite])
    if estimate.n < MIN_SEEDS:
        few = f"n is {estimate.n}, {MIN_SEEDS} are needed"
        return Finding("not run", estimate, "; ".join(filter(None, [note, few])), lost)
    if not np.isfinite(estimate.effect):
        return Finding("inconclusive", estimate, "a value is not positive, so there is no ratio", lost)
    return Finding(rule.verdict(estimate), estimate, note, lost)


def combine(findings: list[Finding], needed: int) -> Verdict:
    """The verdict of a claim that must hold on ``needed`` of the settings.

    A claim holds once enough settings hold, and falls once too many have fallen; settings without records leave it open.
    """
    if not findings:
        return "not run"
    count = {v: sum(f.verdict == v for f in findings) for v in ("replicated", "contradicted", "not run")}
    if count["replicated"] >= needed:
        return "replicated"
    if len(findings) - count["contradicted"] < needed:
        return "contradicted"
    return "not run" if count["not run"] else "inconclusive"
