"""Intervals and verdicts, against SciPy's own tests and sequences small enough to judge by hand."""

import numpy as np
import pytest
from scipy import stats

from lbgap.stats import (
    MIN_SEEDS,
    Difference,
    Equivalence,
    Estimate,
    Finding,
    Ratio,
    Trend,
    combine,
    judge,
    rank_correlation,
    t_interval,
)

RULES = [Difference("below"), Difference("above", 1.0), Equivalence(0.5), Ratio(10), Trend("rising"), Trend("falling")]


def between(low: float, high: float) -> Estimate:
    """An estimate of which only the interval matters."""
    return Estimate((low + high) / 2, low, high, 5)


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_of_a_mean_is_that_of_scipys_t_test(rng, n, level):
    values = rng.normal(3, 2, size=n)
    estimate = t_interval(values, level)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert (estimate.effect, estimate.n) == (pytest.approx(values.mean()), n)


@pytest.mark.parametrize("side", ["above", "below"])
def test_equal_sides_are_neither_above_nor_below(side):
    equal = np.full(5, 100.0)
    assert judge(Difference(side), equal, equal).verdict == "inconclusive"
    assert judge(Difference(side, 0.5), equal, equal).verdict == "contradicted"


@pytest.mark.parametrize("rule", [Difference("below"), Equivalence()])
def test_a_difference_is_paired(rng, rule):
    """What the seeds share drops out: the interval of SciPy's paired test, not of the unpaired one."""
    shared = 10 * rng.normal(size=8)
    a, b = shared + rng.normal(size=8), shared + rng.normal(size=8)
    estimate = judge(rule, a, b).estimate
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert estimate.high - estimate.low < 0.5 * np.subtract(*stats.ttest_ind(a, b).confidence_interval(0.95)[::-1])


def test_a_ratio_is_the_paired_difference_of_logarithms(rng):
    a, b = np.exp(rng.normal(4, 1, size=7)), np.exp(rng.normal(0, 1, size=7))
    estimate = judge(Ratio(2), a, b).estimate
    expected = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)), rel=1e-10)
    assert estimate.effect == pytest.approx(stats.gmean(a) / stats.gmean(b), rel=1e-10)


def test_a_ratio_and_its_inverse_have_inverse_intervals(rng):
    a, b = np.exp(rng.normal(size=6)), np.exp(rng.normal(size=6))
    one, other = judge(Ratio(1), a, b).estimate, judge(Ratio(1), b, a).estimate
    assert (one.effect, one.low, one.high) == pytest.approx((1 / other.effect, 1 / other.high, 1 / other.low))


def test_one_value_has_no_interval():
    assert t_interval([2.5]) == Estimate(2.5, -np.inf, np.inf, 1)


def test_equal_values_have_an_interval_of_no_width():
    assert t_interval([2.5] * 5) == Estimate(2.5, 2.5, 2.5, 5)


def test_the_interval_covers_as_often_as_it_says(rng):
    """Of 2000 intervals 95% hold the mean; five standard errors are 2.4 points."""
    hits = [e.low < 1 < e.high for e in (t_interval(rng.normal(1, 1, size=5)) for _ in range(2000))]
    assert abs(np.mean(hits) - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 2000)


def test_rank_correlation_without_ties_is_spearmans_formula(rng):
    x, y = rng.normal(size=9), rng.normal(size=9)
    d = np.argsort(np.argsort(x)) - np.argsort(np.argsort(y))
    assert rank_correlation(x, y) == pytest.approx(1 - 6 * np.sum(d**2) / (9 * (81 - 1)))


def test_rank_correlation_sees_order_alone():
    x = np.array([1.0, 2, 3, 10])
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)


@pytest.mark.parametrize("x, y", [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_what_is_constant_has_no_trend(x, y):
    assert rank_correlation(x, y) == 0


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    "rule, low, high, verdict",
    [
        (Difference("below"), -2, -0.1, "replicated"),
        (Difference("below"), -2, 0.1, "inconclusive"),
        (Difference("below"), 0.1, 2, "contradicted"),
        (Difference("above"), 0.1, 2, "replicated"),
        (Difference("above"), -0.1, 2, "inconclusive"),
        (Difference("above"), -2, -0.1, "contradicted"),
        (Difference("above", 1), 1.1, 2, "replicated"),
        (Difference("above", 1), 0.9, 2, "inconclusive"),
        (Difference("above", 1), 0.1, 0.9, "contradicted"),
        (Difference("below", 1), -2, -1.1, "replicated"),
        (Difference("below", 1), -2, -0.9, "inconclusive"),
        (Difference("below", 1), -0.9, -0.1, "contradicted"),
        (Equivalence(0.5), -0.4, 0.4, "replicated"),
        (Equivalence(0.5), -0.6, 0.4, "inconclusive"),
        (Equivalence(0.5), 0.4, 0.6, "inconclusive"),
        (Equivalence(0.5), -1, 1, "inconclusive"),
        (Equivalence(0.5), 0.6, 1, "contradicted"),
        (Equivalence(0.5), -1, -0.6, "contradicted"),
        (Ratio(10), 10, 20, "replicated"),
        (Ratio(10), 9, 20, "inconclusive"),
        (Ratio(10), 2, 9, "contradicted"),
        (Trend("rising"), 0.1, 0.9, "replicated"),
        (Trend("rising"), -0.1, 0.9, "inconclusive"),
        (Trend("rising"), -0.9, -0.1, "contradicted"),
        (Trend("falling"), -0.9, -0.1, "replicated"),
        (Trend("falling"), 0.1, 0.9, "contradicted"),
    ],
    ids=str,
)
def test_a_verdict_is_where_the_whole_interval_lies(rule, low, high, verdict):
    assert rule.verdict(between(low, high)) == verdict


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_below_is_above_mirrored(rng, bound):
    for low in rng.uniform(-3, 3, size=50):
        e, mirrored = between(low, low + 1), between(-low - 1, -low)
        assert Difference("above", bound).verdict(e) == Difference("below", bound).verdict(mirrored)
        assert Trend("rising").verdict(e) == Trend("falling").verdict(mirrored)


def rows(rng, slope: float, seeds: int = 6, places: int = 5) -> np.ndarray:
    """A row of noise a seed, with a slope."""
    return slope * np.arange(places) + rng.normal(size=(seeds, places))


@pytest.mark.parametrize("along_a_run", [False, True])
def test_a_trend_is_the_mean_rank_correlation_with_the_order(rng, along_a_run):
    a = rows(rng, 0.5)
    estimate = judge(Trend("rising", along_a_run), a, a).estimate
    each = [stats.spearmanr(range(5), row).statistic for row in a]
    expected = stats.ttest_1samp(each, 0).confidence_interval()
    assert estimate.effect == pytest.approx(np.mean(each))
    assert (estimate.low, estimate.high) == pytest.approx((max(expected.low, -1), min(expected.high, 1)))


def test_pages_l_is_a_linear_function_of_the_mean_rank_correlation(rng):
    """So that the effect shown is what the test is about: rho = 12 L / (m n (n^2 - 1)) - 3 (n + 1) / (n - 1)."""
    a = rows(rng, 0.3)
    m, n = a.shape
    at = 12 * stats.page_trend_test(a).statistic / (m * n * (n * n - 1)) - 3 * (n + 1) / (n - 1)
    assert judge(Trend("rising"), a, a).estimate.effect == pytest.approx(at)


@pytest.mark.parametrize("slope, verdict", [(2, "replicated"), (-2, "contradicted"), (0, "inconclusive")])
def test_a_trend_is_judged_by_pages_test_in_either_direction(rng, slope, verdict):
    a = rows(rng, slope)
    found = judge(Trend("rising"), a, a)
    up, down = stats.page_trend_test(a).pvalue, stats.page_trend_test(a[:, ::-1]).pvalue
    assert found.estimate.p == pytest.approx(min(1, 2 * min(up, down)))
    assert found.verdict == verdict == judge(Trend("falling"), a[:, ::-1], a).verdict


def test_along_a_run_a_trend_is_judged_over_seeds(rng):
    """Walks without a trend: within each the points go one way or the other, and Page's test is wrong far too often."""
    walks = [np.cumsum(rows(rng, 0, seeds=5, places=6), axis=1) for _ in range(300)]
    wrong = [sum(judge(Trend("rising", along), w, w).verdict != "inconclusive" for w in walks) / 300 for along in (False, True)]
    assert wrong[0] > 0.05 + 5 * np.sqrt(0.05 * 0.95 / 300) > wrong[1]


def test_the_interval_of_a_trend_stays_within_its_bounds_and_covers(rng):
    """The mean rank correlation of very many rows lies in more of these intervals than in those of the percentile bootstrap."""
    truth = np.mean([stats.spearmanr(range(5), row).statistic for row in rows(rng, 0.5, seeds=4000)])
    hits = {"t": 0, "bootstrap": 0}
    for _ in range(200):
        a = rows(rng, 0.5, seeds=5)
        e = judge(Trend("rising", along_a_run=True), a, a).estimate
        each = [stats.spearmanr(range(5), row).statistic for row in a]
        drawn = np.mean(rng.choice(each, size=(500, 5)), axis=1)
        assert -1 <= e.low <= e.high <= 1
        hits["t"] += e.holds(truth)
        hits["bootstrap"] += np.quantile(drawn, 0.025) <= truth <= np.quantile(drawn, 0.975)
    assert hits["t"] > hits["bootstrap"]
    assert hits["t"] > 0.85 * 200


def test_a_trend_of_two_places_is_none():
    a = np.tile([1.0, 2.0], (6, 1))
    assert judge(Trend("rising"), a, a).verdict == "inconclusive"


def test_an_interval_without_width_is_said_to_be_one():
    a = np.tile(np.arange(6.0), (5, 1))
    found = judge(Trend("rising"), a, a)
    assert (found.verdict, found.estimate.low, found.estimate.high) == ("replicated", 1, 1)
    assert found.reason == "all 5 values are the same, so that the interval has no width"


@pytest.mark.parametrize("rule", [Difference("below"), Ratio(2)])
def test_the_unpaired_interval_is_welchs(rng, rule):
    a, b = np.exp(rng.normal(1, 0.5, size=7)), np.exp(rng.normal(size=7))
    of = (np.log(a), np.log(b)) if rule == Ratio(2) else (a, b)
    found = judge(rule, a, b)
    expected = stats.ttest_ind(*of, equal_var=False).confidence_interval(0.95)
    ends = np.log([found.unpaired.low, found.unpaired.high]) if rule == Ratio(2) else (found.unpaired.low, found.unpaired.high)
    assert tuple(ends) == pytest.approx((expected.low, expected.high))
    assert found.unpaired.effect == pytest.approx(found.estimate.effect)
    assert found.correlation == pytest.approx(stats.pearsonr(a, b).statistic)


def test_what_does_not_vary_on_one_side_has_no_unpaired_interval(rng):
    found = judge(Difference("below"), rng.normal(size=6), np.zeros(6))
    assert (found.unpaired, found.correlation) == (None, None)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_interval_within_the_region_of_a_rule_replicates_it(rule):
    low, high = (np.clip(v, -50, 50) for v in rule.region)
    inside = between(low + 0.01 * (high - low), high - 0.01 * (high - low))
    assert rule.verdict(inside) == "replicated"
    if not isinstance(rule, Trend):  # a rank correlation does not lie beyond -1 or 1
        assert rule.verdict(between(low - 2, low - 1) if low > -50 else between(high + 1, high + 2)) == "contradicted"


@pytest.mark.parametrize(
    "rule, text",
    [
        (Difference("below"), "A - B < 0"),
        (Difference("below", 0.5), "A - B < -0.5"),
        (Difference("above"), "A - B > 0"),
        (Difference("above", 2), "A - B > 2"),
        (Equivalence(1.5), "|A - B| < 1.5"),
        (Ratio(10), "A / B >= 10"),
        (Trend("falling"), "rank correlation < 0 (Page's L)"),
        (Trend("rising", along_a_run=True), "rank correlation > 0 (t)"),
    ],
)
def test_a_rule_says_what_it_asks(rule, text):
    assert str(rule) == text


# ---------------------------------------------------------------- findings


def pairs(n: int, rule=None) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that differ by about 20, with ratio above 10; rows of three that rise for a trend."""
    a, b = 22 + 0.1 * np.arange(n), np.full(n, 2.0)
    return (np.column_stack([a, 2 * a, 3 * a]),) * 2 if isinstance(rule, Trend) else (a, b)


def test_a_clear_effect_has_its_verdict_without_a_reason():
    finding = judge(Ratio(5), *pairs(MIN_SEEDS))
    assert (finding.verdict, finding.reason) == ("replicated", "")


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_too_few_pairs_give_an_estimate_but_no_verdict(rule):
    for n in range(1, MIN_SEEDS):
        finding = judge(rule, *pairs(n, rule))
        assert finding.verdict == "not run" and finding.estimate.n == n
        assert f"n is {n}" in finding.reason and str(MIN_SEEDS) in finding.reason
    assert judge(rule, *pairs(MIN_SEEDS, rule)).verdict != "not run"


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_pairs_are_not_run(rule):
    assert judge(rule, [], []) == Finding("not run", None, "no records")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_diverged_run_takes_its_pair_with_it_and_is_counted(bad, side):
    sequences = pairs(8)
    sequences[side][3] = bad
    kept = [np.delete(s, 3) for s in sequences]
    finding, expected = judge(Difference("above", 1), *sequences), judge(Difference("above", 1), *kept)
    assert (finding.verdict, finding.estimate) == (expected.verdict, expected.estimate)
    assert finding.reason == "1 of 8 pairs have no finite value" and finding.lost == 1


def test_where_too_few_are_left_both_reasons_are_given():
    a, b = pairs(6)
    a[:2] = np.nan
    assert judge(Difference("above"), a, b).reason == f"2 of 6 pairs have no finite value; n is 4, {MIN_SEEDS} are needed"


def test_where_all_diverged_there_is_no_estimate():
    assert judge(Difference("above"), [np.nan] * 5, [1.0] * 5) == Finding(
        "not run", None, "5 of 5 pairs have no finite value", 5
    )


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize("side", [0, 1])
def test_a_ratio_of_what_is_not_positive_is_inconclusive(value, side):
    sequences = pairs(6)
    sequences[side][2] = value
    finding = judge(Ratio(5), *sequences)
    assert finding.verdict == "inconclusive" and "not positive" in finding.reason


def test_sequences_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^a and b have shapes \(3,\) and \(2,\); accepted are two sequences of one length$"):
        judge(Difference("above"), [1, 2, 3], [1, 2])


# ---------------------------------------------------------------- several settings


@pytest.mark.parametrize(
    "verdicts, needed, expected",
    [
        ("RRR", 3, "replicated"),
        ("RRC", 2, "replicated"),
        ("RRN", 2, "replicated"),  # enough hold, whatever the missing one says
        ("RRC", 3, "contradicted"),
        ("CCN", 2, "contradicted"),  # one is left, two are needed
        ("RCI", 2, "inconclusive"),
        ("RCN", 2, "not run"),
        ("RIN", 2, "not run"),
        ("III", 1, "inconclusive"),
        ("NNN", 1, "not run"),
        ("C", 1, "contradicted"),
        ("", 1, "not run"),
        ("RA", 1, "replicated"),
        ("RCA", 3, "contradicted"),  # what is not asked does not count, nor can it be needed
        ("RRA", 3, "replicated"),
        ("RC", None, "contradicted"),
        ("A", None, "not run"),
    ],
)
def test_a_claim_holds_with_enough_settings_and_falls_with_too_few_left(verdicts, needed, expected):
    names = {"R": "replicated", "C": "contradicted", "I": "inconclusive", "N": "not run", "A": "not asked"}
    assert combine([Finding(names[v], None) for v in verdicts], needed) == expected


@pytest.mark.parametrize("factor", [2, 3, 5, 10])
def test_a_ratio_that_is_exact_is_at_least_itself(factor):
    """Rounding of a logarithm and back takes nothing from it, and adds nothing to what is less."""
    for b in ([3.0] * 5, [7.0] * 5):
        a = [factor * value for value in b]
        assert judge(Ratio(factor), a, b).verdict == "replicated"
        assert judge(Ratio(factor * (1 + 1e-9)), a, b).verdict == "contradicted"


@pytest.mark.parametrize("rule, shape", [(Trend("rising"), (5,)), (Difference("below"), (5, 3)), (Ratio(2), (5, 3))])
def test_a_trend_reads_rows_and_the_others_single_values(rule, shape):
    with pytest.raises(ValueError, match="^a and b have shapes .* accepted are two"):
        judge(rule, np.ones(shape), np.ones(shape))
