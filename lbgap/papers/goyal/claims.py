"""Claims G1 to G10 as rules; when each was fixed or changed, history.yaml tells."""

import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from lbgap.papers.goyal.recipes import FACTS, OWN, Recipe
from lbgap.papers.goyal.tables import around_the_jump, begun, times, warmed
from lbgap.papers.paper import Case, Claim, Quantity, claims, combined, constant, difference, side_by_side
from lbgap.papers.recipe import published_difference
from lbgap.stats import Difference, Equivalence

MARGIN = 1.0  # point of error within which a curve counts as flat, and two curves as one
SHARPLY = 5.0  # points by which the largest batch is worse
COINCIDE = 20  # of 90 epochs: from there on the curves are one (section 5.2)
NOTES = {
    "G1": "flat to within a point, batch by batch, from the reference batch up to the large one; no smaller one is run; the "
    "published numbers are those of batches that stand to the paper's large one as these to ours",
    "G2": "twice the large batch against it, and the largest against the reference by five points, which the paper has at "
    "eight times its large batch and not yet at four, the largest here",
    "G3": "against the same batch with gradual warmup, which is ours, since with it, too, training error may lie above the "
    "reference batch's; against the reference batch, the paper's comparison, both halves hold (table)",
    "G4": "the spike is a rise of the training error from the last epoch of the warmup to the next one, in which it falls "
    "otherwise; against that fall there is one (table)",
    "G5": "the mean distance of the two training errors after 20/90 of the epochs, within a point; the paper gives no number; "
    "two seeds of one batch lie about a point apart too",
    "G7": "that it helps the large batch more is shown and not judged",
    "G8": "by the mean loss of half and of twice the rule's rate, which is ours; twice the rate decides",
}
REASONS = {
    "G9": "detection and segmentation on COCO have no place in this library, which trains classifiers from scratch",
    "G10": "ImageNet-5k is not to be had; other data sets differ in more than their size",
}


def claims_on(s: Recipe, only: tuple[str, ...] = ()) -> tuple[Claim, ...]:
    """The claims, judged on one network."""
    rules = itertools.chain(_on_the_sweep(s), _on_warmup(s), _on_curves(s), _on_rates(s), _on_gammas(s))
    return claims(FACTS["claims"], rules, only, notes=NOTES, reasons=REASONS)


_published = partial(published_difference, FACTS)


def _on_the_sweep(s: Recipe) -> Iterator[tuple[str, Case]]:
    reference = s.error("SB")

    def above(batch: int, other: int) -> float | None:
        """What the paper reports of the batches that stand to its reference and large one as these to ours."""
        one, two = (
            FACTS["sweep"].get(OWN["large"] * b / s.large if b >= s.large else OWN["reference"] * b / s.small)
            for b in (batch, other)
        )
        return one[0] - two[0] if one and two else None

    for b in (b for b in s.sizes if b != s.small and b <= s.large):
        label, fields = f"{s.network}, {times(s, b)}: error - the reference batch's", {"published": above(b, s.small)}
        yield "G1", s.case(label, Equivalence(MARGIN), s.error(b), reference, central=b == s.large, **fields)
    for b in (b for b in s.sizes if b == 2 * s.large):
        label, fields = f"{s.network}, {times(s, b)}: error - the large batch's", {"published": above(b, s.large)}
        yield "G2", s.case(label, Difference("above"), s.error(b), s.error("LB"), central=True, **fields)
    largest = max(s.sizes)
    if largest > s.large:
        label, fields = (
            f"{s.network}, {times(s, largest)}: error - the reference batch's",
            {"published": above(largest, s.small)},
        )
        yield "G2", s.case(label, Difference("above", SHARPLY), s.error(largest), reference, **fields)


def _on_warmup(s: Recipe) -> Iterator[tuple[str, Case]]:
    none, constant, gradual = (warmed(s, kind) for kind in ("no", "constant", "gradual"))
    higher, ours = Difference("above"), {"scope": "reading"}
    reported = _published("table1", ("no warmup", "error"), ("gradual warmup", "error"))
    label = f"{s.network}, validation: no warmup - gradual"
    yield "G3", s.case(label, higher, none.error("LB"), gradual.error("LB"), central=True, published=reported, **ours)
    label = f"{s.network}, training: no warmup - gradual"
    yield "G3", s.case(label, higher, none.error("LB", "train"), gradual.error("LB", "train"), **ours)
    reported = _published("table1", ("constant warmup", "error"), ("no warmup", "error"))
    label = f"{s.network}, validation: constant warmup - none"
    yield "G4", s.case(label, higher, constant.error("LB"), none.error("LB"), central=True, published=reported)
    if (around := around_the_jump(constant)) is not None:
        label = f"{s.network}, training error: first epoch after the jump - last before it"
        yield "G4", s.case(label, higher, *around)


def _on_curves(s: Recipe) -> Iterator[tuple[str, Case]]:
    first = math.ceil(s.epochs * COINCIDE / OWN["epochs"])

    def apart(large: dict, small: dict) -> float:
        one, other = (np.array(r["curve"]["train_accuracy"][first:]) for r in (large, small))
        return float(np.abs(one - other).mean())

    distance = Quantity(side_by_side(s.runs("LB"), s.runs("SB")), apart)
    label = f"{s.network}: mean distance of the training errors after epoch {first}, large and reference batch"
    yield "G5", s.case(label, Difference("below", -MARGIN), distance, constant(distance), central=True, scope="reading")
    runs = s.runs("SB")
    same = Quantity(side_by_side(runs, (*runs[1:], runs[0])), apart)
    label, why = f"{s.network}: the same of the reference batch and its next seed", "what chance alone sets apart"
    yield "G5", s.case(label, Difference("below", -MARGIN), same, constant(same), scope="reading", unasked=why)


def _on_rates(s: Recipe) -> Iterator[tuple[str, Case]]:
    for scaling, row in (("square root", "large, square root"), ("none", "large, no scaling")):
        reported = _published("table2a", ("large, linear", "error"), (row, "error"))
        label = f"{s.network}: linear scaling - {'no' if scaling == 'none' else scaling} scaling"
        other, fields = s.changed(scaling=scaling), {"central": scaling == "square root", "published": reported}
        yield "G6", s.case(label, Difference("below"), s.error("LB"), other.error("LB"), **fields)
    rows = {"SB": ("reference, {}", "reference, the rate"), "LB": ("large, linear, {}", "large, linear")}
    reported = {
        batch: np.mean(
            [
                _published("table2a", (row.format(words), "error"), (middle, "error"))
                for words in ("half the rate", "twice the rate")
            ]
        )
        for batch, (row, middle) in rows.items()
    }
    label = f"{s.network}: what half and twice the rate lose on average, large - reference batch"
    sides = (sensitivity(s, "LB"), sensitivity(s, "SB"))
    fields = {"published": float(reported["LB"] - reported["SB"]), "central": True, "scope": "reading"}
    yield "G8", s.case(label, Difference("above"), *sides, **fields)


def sensitivity(s: Recipe, batch: str) -> Quantity:
    """By how much the error rises on average at half and at twice the rule's rate, points."""
    at = [s.changed(factor=factor).error(batch) for factor in (0.5, 1.0, 2.0)]
    return combined(lambda half, rule, twice: (half + twice) / 2 - rule, *at)


def _on_gammas(s: Recipe) -> Iterator[tuple[str, Case]]:
    gains = {}
    for row, batch in (("large", "LB"), ("reference", "SB")):
        zero, one = (begun(s, gamma).error(batch) for gamma in (0, 1))
        gains[batch] = difference(zero, one)
        reported = _published("table2b", (row, "gamma 0"), (row, "gamma 1"))
        label = f"{s.network}, {row} batch: scale 0 - scale 1"
        yield "G7", s.case(label, Difference("below"), zero, one, central=batch == "LB", published=reported)
    reported = _published("table2b", ("large", "gamma 0"), ("large", "gamma 1"))
    reported -= _published("table2b", ("reference", "gamma 0"), ("reference", "gamma 1"))
    why = f"the published step, {abs(reported):.2f} points, is smaller than five seeds can resolve"
    label = f"{s.network}: scale 0 - scale 1, large - reference batch"
    yield "G7", s.case(label, Difference("below"), gains["LB"], gains["SB"], published=reported, unasked=why)
