"""Claims K1 to K14 as rules; when each was fixed or changed, and which changed after its records, history.yaml tells."""

from collections.abc import Iterator

from lbgap.papers.keskar.figures import SHAPES, batch_sizes, epochs_shown, path, sharpness_after, warm_started
from lbgap.papers.keskar.recipes import EPSILONS, FACTS, ROBUST, VARIANTS, Recipes, augment, conserve, robustly, vary
from lbgap.papers.keskar.tables import share_of_the_rise
from lbgap.papers.paper import Case, Claim, Quantity, claims, combined, constant, dig, ratio
from lbgap.papers.recipe import Recipe, published_effect
from lbgap.stats import Difference, Equivalence, Ratio, Rule, Trend

NOTES = {
    "K1": "small batch and large batch had the same rate and as many epochs, so that the large one made fewer updates; F1's "
    "seeds share one order of the data, and Q8 has the same without; Q6 and Q10 have tuned rates; the reduced C1 and C3 "
    "have 60 epochs on 2,500 images",
    "K2": "the epoch is the one that is best on the other seeds' test curves; whether the small "
    "batch's curve comes down as far on 2,500 images, five seeds do not tell; at full size C1's half point is missed narrowly",
    "K3": "the factor on the line is large because the loss hardly changes around SB there; the curve says more",
    "K4": "at one rate for both batches: at four times LB's, on 10,000 images, most of the factor is gone (Q11); direction and "
    "lower end, a factor of ten, are tested; on F1 and C1 the magnitude lies above the published one; that "
    "the solver's objective is scaled is ours, and no reading of the metric, a maximum: unscaled, the solver stops near "
    "where it started, and the order turns on the one seed tried",
    "K5": "the scale of A, which the paper leaves open, decides on F1, and how batch norm is read on C1 and C3; scaled so "
    "that SB has its published value, LB is sharper by the published factor on F1 and C1 (Q5)",
    "K6": "tested on the flat half and on LB alone since 25 November 2026; the first rule, fixed before its records, asked for "
    "the 5% of the dimensions too, of single weights, and was contradicted; SB, which might pass as well, is not measured",
    "K7": "a trend is tested, not a threshold, nor that sharpness grows more slowly beyond it; on ten fresh seeds (Q7) "
    "accuracy falls too",
    "K8": "by Page's test since 25 November 2026; by the first rule, an interval over seeds, it had been inconclusive; on "
    "ten fresh seeds (Q7) both hold; that the earliest iterates do not help has no rule: here one epoch of SB already does",
    "K9": "at one rate for both batches: at four times LB's, on 10,000 images, the factor is below two (Q10's table); "
    "direction and lower end, a factor of three, are tested; on F1 the magnitude lies above the range of 3 to 10",
    "K10": "at equal epochs, from the first on; whether the two are alike at high loss, and whether SB's stays level before it "
    "falls, is not tested",
    "K11": "by the sharpness alone: 'becomes comparable' presupposes a gap, and is not asked where plain training shows none; "
    "with augmentation one opens on 2,500 images",
    "K12": "the sharpness rule compares with plain LB since 25 November 2026; compared with the small batch, a proxy, it had "
    "been replicated",
    "K13": "SB was not treated, so that this says nothing of the gap, of which Q3 asks; the treated minima are sharper than "
    "SB's and flatter than plain LB's; strengths are ours",
    "K14": "changes chosen here; judged on fit and sharpness without accuracy, since on 6,000 images five seeds tell no gap of "
    "plain F1",
}


def claims_on(
    recipes: Recipes, along: Recipes | None = None, treated: Recipes | None = None, only: tuple[str, ...] = ()
) -> tuple[Claim, ...]:
    """``along`` and ``treated`` are None where only the solutions themselves are judged, in one reading."""
    on = [(_on_solutions, recipes), (_on_figures, along or {}), (_on_treatments, treated or {})]
    if along is not None and "F1" in recipes:
        on += [(_on_robust_training, {"F1": recipes["F1"]}), (_on_variants, {"F1": (recipes | along)["F1"]})]
    rules = (rule for rules_on, of in on for n, s in of.items() for rule in rules_on(n, s))
    if along is None:
        rules = ((claim, case) for claim, case in rules if not case.reading)
    return claims(FACTS["claims"], rules, only, notes=NOTES)


def _published(rule: Rule, n: str, *places: tuple[str, str]) -> dict:
    return {"published": published_effect(FACTS, rule, n, *places)}


def _on_solutions(n: str, s: Recipe) -> Iterator[tuple[str, Case]]:
    lower, gap = Difference("below"), _gap(n, s)
    yield "K1", gap
    # the largest difference that the paper itself calls comparable is 1.64 points (F2)
    fitted, alike = (s.accuracy(b, "train") for b in ("LB", "SB")), Equivalence(2.0)
    reported_fit = _published(alike, n, ("table2", "train_LB"), ("table2", "train_SB"))
    yield "K1", s.case(f"{n}: training accuracy, LB - SB", alike, *fitted, **reported_fit)
    for reading, of in (
        ("running averages", lambda b: s.accuracy(b, reading="running")),
        ("best epoch", s.chosen_test_accuracy),
    ):
        yield "K1", s.case(f"{n}, {reading}: test accuracy, LB - SB", lower, of("LB"), of("SB"), reading=reading)

    best = s.chosen_test_accuracy("LB")
    yield "K2", s.case(f"{n}: LB, best epoch - last", Equivalence(0.5), best, s.accuracy("LB"), central=True)
    yield "K2", s.case(f"{n}: LB's best epoch - SB's last", lower, best, s.accuracy("SB"), given=gap)

    for shape in SHAPES:
        large, small = (Quantity(path(s, shape), lambda r, at=at: _rise(r, at)) for at in (1.0, 0.0))
        central = shape == "curvilinear"
        yield "K3", s.case(f"{n}, {shape}: rise of the loss, LB / SB", Ratio(2), large, small, central=central)

    # "one to two orders of magnitude": the lower end, fixed before the runs; the paper's own C3 misses it at 1e-3 (8.7)
    for claim, space, table in (("K4", "full", "table3"), ("K5", "random", "table4")):
        for epsilon, e in EPSILONS.items():
            fields = _published(Ratio(10), n, (table, f"{epsilon}_LB"), (table, f"{epsilon}_SB")) | {"central": e == 1e-3}
            large, small = (s.sharp(b, e, space=space) for b in ("LB", "SB"))
            fields |= {"scope": "reading"} if claim == "K5" else {}
            yield claim, s.case(f"{n}, epsilon {e:g}: sharpness, LB / SB", Ratio(10), large, small, **fields)
            if claim == "K5":
                large, small = (s.sharp(b, e, space=space, batch_norm="running") for b in ("LB", "SB"))
                label, running = f"{n}, running averages, epsilon {e:g}: sharpness, LB / SB", "running averages"
                yield claim, s.case(label, Ratio(10), large, small, reading=running)

    # "flat in most directions": a random corner of the box rises by less than a tenth of the most
    share = combined(lambda rise: 100 * rise, share_of_the_rise(s, "random"))
    label = f"{n}: LB, rise at a random corner in percent of the largest"
    yield "K6", s.case(label, Difference("below", -10.0), share, constant(share), central=True, unit="percent")

    label = f"{n}: distance, SB / LB"
    yield "K9", s.case(label, Ratio(3), s.distance("SB"), s.distance("LB"), central=True, published=(3.0, 10.0))


def trends(label: str, s: Recipe, only: tuple[str, ...] = ("K7", "K8", "K10")) -> Iterator[tuple[str, Case]]:
    """The trends of Figs 4 to 6, on labels that begin with ``label``."""
    sizes, epochs = batch_sizes(s), epochs_shown(s)
    accuracies, sharpnesses = zip(*(warm_started(s, e) for e in epochs), strict=True)
    large = [Quantity(sharpness_after(s, "LB", e), dig("value")) for e in epochs]
    for claim, what, trend, central, quantities in (
        ("K7", "test accuracy against batch size", Trend("falling"), True, [s.accuracy(b) for b in sizes]),
        ("K7", "sharpness against batch size", Trend("rising"), False, [s.sharp(b) for b in sizes]),
        ("K8", "accuracy against SB epochs before", Trend("rising"), True, accuracies),
        ("K8", "sharpness against SB epochs before", Trend("falling"), False, sharpnesses),
        ("K10", "LB sharpness along training", Trend("rising", along_a_run=True), True, large),
    ):
        if claim in only:
            row = combined(lambda *values: values, *quantities)
            yield claim, s.case(f"{label}: {what}", trend, row, central=central)


def _on_figures(n: str, s: Recipe) -> Iterator[tuple[str, Case]]:
    yield from trends(n, s)
    large, small = ([Quantity(sharpness_after(s, b, e), dig("value")) for e in epochs_shown(s)] for b in ("LB", "SB"))
    last, first = (ratio(large[i], small[i]) for i in (-1, 0))
    yield "K10", s.case(f"{n}: LB / SB, last epoch against first", Ratio(10), last, first)


def _gap(n: str, s: Recipe) -> Case:
    """K1's rule on a network, which what closes a gap presupposes."""
    reported = _published(Difference("below"), n, ("table2", "test_LB"), ("table2", "test_SB"))
    sides = (s.accuracy(b) for b in ("LB", "SB"))
    return s.case(f"{n}: test accuracy, LB - SB", Difference("below"), *sides, central=True, **reported)


def _on_treatments(n: str, s: Recipe) -> Iterator[tuple[str, Case]]:
    if n.startswith("C"):
        a, rule = augment(s), Difference("above", -2.0)
        # published differences: -1.13, +0.44, -1.52, +2.83 points; "comparable" is read as at most 2 points worse
        fields = _published(rule, n, ("table6", "test_LB"), ("table6", "test_SB"))
        fields |= {"central": True, "scope": "reading", "given": _gap(n, s)}
        yield "K11", s.case(f"{n}, augmented: test accuracy, LB - SB", rule, a.accuracy("LB"), a.accuracy("SB"), **fields)
        # published: 3.5 (C3) to 54 (C2)
        fields = _published(Ratio(2), n, ("table6", "eps1e-3_LB"), ("table3", "eps1e-3_SB")) | {"scope": "reading"}
        yield "K11", s.case(f"{n}: sharpness, augmented LB / plain SB", Ratio(2), a.sharp("LB"), s.sharp("SB"), **fields)
        label, running = f"{n}, augmented, running averages: test accuracy, LB - SB", "running averages"
        sides = (a.accuracy(b, reading="running") for b in ("LB", "SB"))
        yield "K11", s.case(label, rule, *sides, reading=running, given=_gap(n, s))

    c, rule = conserve(s), Difference("above")
    fields = _published(rule, n, ("table7", "test_LB"), ("table2", "test_LB"))
    label = f"{n}: test accuracy, conservative - plain LB"
    yield "K12", s.case(label, rule, c.accuracy("LB"), s.accuracy("LB"), **fields)
    # "but not LB sharpness": at least half of it is left; published: 0.68 (C2) to 3.0 (F2)
    fields = _published(Ratio(0.5), n, ("table7", "eps1e-3_LB"), ("table3", "eps1e-3_LB")) | {"central": True}
    yield "K12", s.case(f"{n}: sharpness, conservative / plain LB", Ratio(0.5), c.sharp("LB"), s.sharp("LB"), **fields)
    why = "a proxy: not whether conservative training changes LB's sharpness"
    yield "K12", s.case(f"{n}: sharpness, conservative LB / SB", Ratio(10), c.sharp("LB"), s.sharp("SB"), unasked=why)


def _on_robust_training(n: str, s: Recipe) -> Iterator[tuple[str, Case]]:
    for kind in ROBUST:
        # "no benefit": it closes less than half of the gap, which the plain runs on record put at 0.49 points
        rule, of = Difference("below", -0.25), robustly(s, kind)
        label = f"{n}, {kind}: test accuracy, LB so trained - plain LB"
        yield "K13", s.case(label, rule, of.accuracy("LB"), s.accuracy("LB"), central=True, scope="reading")
        label, running = f"{n}, {kind}, running averages: test accuracy, LB so trained - plain LB", "running averages"
        yield "K13", s.case(label, rule, *(t.accuracy("LB", reading="running") for t in (of, s)), reading=running)


def _on_variants(n: str, s: Recipe) -> Iterator[tuple[str, Case]]:
    for variant in list(VARIANTS)[1:]:
        v = vary(s, variant)
        fitted = (v.accuracy(b, "train") for b in ("LB", "SB"))
        yield "K14", v.case(f"{n}, {variant}: training accuracy, LB - SB", Equivalence(2.0), *fitted, scope="reading")
        # sharper at all, as in K3 and K11: in the paper's own table the factor falls to 8.7 from network to network
        sharp, fields = (v.sharp(b) for b in ("LB", "SB")), {"scope": "reading", "central": variant == "tanh"}
        yield "K14", v.case(f"{n}, {variant}: sharpness, LB / SB", Ratio(2), *sharp, **fields)


def _rise(r: dict, at: float, step: float = 0.25) -> float:
    """Mean rise of the training loss a quarter of the way to either side of a solution."""
    loss = {round(a, 6): v for a, v in zip(r["alpha"], r["train_loss"], strict=True)}
    return (loss[round(at - step, 6)] + loss[round(at + step, 6)]) / 2 - loss[at]
