"""Claims K1 to K14: each rule fixed in a commit before the records that it judges."""

from collections.abc import Iterator, Sequence

from lbgap.papers.keskar.figures import SHAPES, batch_sizes, epochs_shown, path, sharpness_after, warm_started
from lbgap.papers.keskar.setups import EPSILONS, FACTS, ROBUST, VARIANTS, Setups, augment, conserve, robustly, vary
from lbgap.papers.keskar.tables import share_of_the_rise, sharpness_ratio
from lbgap.papers.paper import Claim, Quantity, Setting, claims, combined, dig
from lbgap.papers.setup import Setup
from lbgap.stats import Difference, Equivalence, Ratio, Trend, rank_correlation

NOTES = {
    "K4": "tested for the lower end of the range, a factor of ten, and not for the upper one",
    "K5": "under our scale of A, which the paper leaves open, and with batch statistics; the chapter shows other scales, on "
    "one pair of solutions, and running averages",
    "K6": "read on single weights, and 'steeply' as half of the rise; what all the others make alone is shown, not judged",
    "K9": "tested for the lower end of the range, a factor of three, and not for the upper one",
    "K10": "at equal epochs, from the first on; whether the two are alike at high loss is not tested",
    "K11": "'comparable' is at most two points worse; plain training may pass this too (see the chapter)",
    "K12": "sharpness against the small batch's at epsilon 1e-3, not against plain LB's, which is higher",
    "K13": "on F1's LB and its accuracy, read with batch statistics, under settings chosen here; the paper gives neither "
    "settings nor numbers",
    "K14": "on F1, under changes chosen here; on fit and sharpness alone, since plain F1 on 6,000 images shows no gap",
}


def claims_on(
    setups: Setups, along: Setups | None = None, treated: Setups | None = None, only: tuple[str, ...] = ()
) -> tuple[Claim, ...]:
    """``along`` and ``treated`` are None where only the solutions themselves are judged."""
    on = [(_on_solutions, setups), (_on_figures, along or {}), (_on_treatments, treated or {})]
    if along is not None and "F1" in setups:
        on += [(_on_robust_training, {"F1": setups["F1"]}), (_on_variants, {"F1": (setups | along)["F1"]})]
    rules = (rule for rules_on, of in on for n, s in of.items() for rule in rules_on(n, s))
    return claims(FACTS["claims"], rules, only, notes=NOTES)


def _on_solutions(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    yield "K1", Setting(f"{n}: test accuracy, LB - SB", Difference("below"), s.accuracy("LB"), s.accuracy("SB"))
    # the largest difference that the paper itself calls comparable is 1.64 points (F2)
    fitted = (s.accuracy(b, "train") for b in ("LB", "SB"))
    yield "K1", Setting(f"{n}: training accuracy, LB - SB", Equivalence(2.0), *fitted)
    peak = s.peak_test_accuracy("LB")
    yield "K2", Setting(f"{n}: LB, peak - last", Equivalence(0.5), peak, s.accuracy("LB"))
    yield "K2", Setting(f"{n}: LB's peak - SB's last", Difference("below"), peak, s.accuracy("SB"))
    for shape in SHAPES:
        large, small = (Quantity(path(s, shape), lambda r, at=at: _rise(r, at)) for at in (1.0, 0.0))
        yield "K3", Setting(f"{n}, {shape}: rise of the loss, LB / SB", Ratio(2), large, small)
    # "one to two orders of magnitude": the lower end, fixed before the runs; the paper's own C3 misses it at 1e-3 (8.7)
    for claim, space in (("K4", "full"), ("K5", "random")):
        for e in EPSILONS.values():
            large, small = (s.sharp(b, e, space=space) for b in ("LB", "SB"))
            yield claim, Setting(f"{n}, epsilon {e:g}: LB / SB", Ratio(10), large, small)
    # "flat in most directions": a random corner of the box rises by less than a tenth of the most; "about 5% of the
    # dimensions": those coordinates of the maximiser alone make more than half of the rise
    for label, part, side, share in (
        ("share of the largest rise at a random corner, minus 0.1", "random", "below", 0.1),
        ("share of the largest rise in the steepest 5%, minus 0.5", "steep", "above", 0.5),
    ):
        of_the_rise = share_of_the_rise(s, part)
        bound = Quantity(of_the_rise.jobs, lambda r, share=share: share)
        yield "K6", Setting(f"{n}: LB, {label}", Difference(side), of_the_rise, bound)
    yield "K9", Setting(f"{n}: distance, SB / LB", Ratio(3), s.distance("SB"), s.distance("LB"))


def _on_figures(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    sizes, epochs = batch_sizes(s), epochs_shown(s)
    accuracies, sharpnesses = zip(*(warm_started(s, e) for e in epochs), strict=True)
    large, small = ([Quantity(sharpness_after(s, b, e), dig("value")) for e in epochs] for b in ("LB", "SB"))
    for claim, label, side, x, quantities in (
        ("K7", "test accuracy against batch size", "falling", sizes, [s.accuracy(b) for b in sizes]),
        ("K7", "sharpness against batch size", "rising", sizes, [s.sharp(b) for b in sizes]),
        ("K8", "accuracy against SB epochs before", "rising", epochs, accuracies),
        ("K8", "sharpness against SB epochs before", "falling", epochs, sharpnesses),
        ("K10", "LB sharpness along training", "rising", epochs, large),
    ):
        yield claim, Setting(f"{n}: {label}", Trend(side), _rank(x, quantities))
    last, first = (combined(sharpness_ratio, large[i], small[i]) for i in (-1, 0))
    yield "K10", Setting(f"{n}: LB / SB, last epoch against first", Ratio(10), last, first)


def _rank(x: Sequence[float], quantities: Sequence[Quantity]) -> Quantity:
    """Rank correlation of x with one quantity at each x, per seed."""
    return combined(lambda *y: rank_correlation(x, y), *quantities)


def _on_treatments(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    if n.startswith("C"):
        a = augment(s)
        # published differences: -1.13, +0.44, -1.52, +2.83 points; "comparable" is read as at most 2 points worse
        label = f"{n}, augmented: test accuracy, LB - SB"
        yield "K11", Setting(label, Difference("above", -2.0), a.accuracy("LB"), a.accuracy("SB"))
        # published: 3.5 (C3) to 54 (C2)
        yield "K11", Setting(f"{n}: sharpness, augmented LB / plain SB", Ratio(2), a.sharp("LB"), s.sharp("SB"))
    c = conserve(s)
    label = f"{n}: test accuracy, conservative - plain LB"
    yield "K12", Setting(label, Difference("above"), c.accuracy("LB"), s.accuracy("LB"))
    # published: 11 (C3) to 668 (F2)
    yield "K12", Setting(f"{n}: sharpness, conservative LB / SB", Ratio(10), c.sharp("LB"), s.sharp("SB"))


def _on_robust_training(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    for kind in ROBUST:
        # "no benefit": it closes less than half of the gap, which the plain runs on record put at 0.49 points
        label = f"{n}: test accuracy, {kind} - plain LB"
        yield "K13", Setting(label, Difference("below", -0.25), robustly(s, kind).accuracy("LB"), s.accuracy("LB"))


def _on_variants(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    for variant in list(VARIANTS)[1:]:
        v = vary(s, variant)
        fitted = (v.accuracy(b, "train") for b in ("LB", "SB"))
        yield "K14", Setting(f"{n}, {variant}: training accuracy, LB - SB", Equivalence(2.0), *fitted)
        # sharper at all, as in K3 and K11: in the paper's own table the factor falls to 8.7 from network to network
        yield "K14", Setting(f"{n}, {variant}: sharpness, LB / SB", Ratio(2), v.sharp("LB"), v.sharp("SB"))


def _rise(r: dict, at: float, step: float = 0.25) -> float:
    """Mean rise of the training loss a quarter of the way to either side of a solution."""
    loss = {round(a, 6): v for a, v in zip(r["alpha"], r["train_loss"], strict=True)}
    return (loss[round(at - step, 6)] + loss[round(at + step, 6)]) / 2 - loss[at]
