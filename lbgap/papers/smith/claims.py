"""Claims S1 to S10 and questions Q1 to Q3 as rules; when each was fixed or changed, history.yaml tells."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lbgap.papers.paper import Case, Claim, Quantity, claims, combined, constant, difference, own_questions
from lbgap.papers.smith import curves, noise, peaks
from lbgap.papers.smith.curves import Networks, Sweep, Sweeps
from lbgap.papers.smith.setups import FACTS, Setup
from lbgap.papers.smith.tables import budget_words, flattery, steps_words
from lbgap.sources import metric_of
from lbgap.stats import Difference, Equivalence, Ratio, Trend

MARGIN = 0.5  # points of accuracy within which two settings test alike
PART = 0.05  # of an error, likewise, where the metric is not accuracy
HALF = 0.5  # the slope of a square root: a slope within it of 1 is called proportional, within it of 0 flat
SLOPE = {"scope": "reading", "unit": "slope"}  # of a case about how the best rate goes
NOTES = {
    "S1": "which batches are small was fixed after a pilot; inconclusive before the Wide-ResNet without batch norm was "
    "asked too",
    "S2": "which batches are large was fixed after a pilot",
    "S3": "read as: a corner leaves less of the best rates unexplained than a gradual law with as many parameters; asked where "
    "the best rate goes as S1 and S2 have it, since rates that do not follow the batch favour the corner by themselves",
    "S5": "the intermediate batch was fixed after a pilot; the largest is the whole training set; it held before the "
    "Wide-ResNet was asked too",
    "S6": "the largest batch against the intermediate one",
    "S7": "the grids of rates move with the batch, by less than in proportion too, and what is chance alone would follow them; "
    "that nearly all best rates lie within them speaks against chance",
    "S8": "the last doubling of the budget against the first",
    "S9": "of slopes on the budget, both logarithms; 'hardly changes' is read as flatter than a square root",
    "S10": "by the error at the largest batch and the smallest, and the slopes of the best rate",
}


def is_accuracy(s: Setup) -> bool:
    """Whether the rules of accuracy apply."""
    return metric_of(s.data.name).name == "accuracy"


def claims_on(networks: Networks, only: tuple[str, ...] = ()) -> tuple[Claim, ...]:
    """The paper's claims."""
    rules = itertools.chain(*(_of(n, sweeps) for n, sweeps in networks.items()))
    return claims(FACTS["claims"], rules, only, notes=NOTES, reasons={"S10": "no network of another kind is in this profile"})


def questions_on(networks: Networks) -> tuple[Claim, ...]:
    """What we ask beyond the paper."""
    rules = itertools.chain(*(_asked(n, sweeps) for n, sweeps in networks.items()))
    return own_questions(FACTS["questions"], rules)


def _of(n: str, sweeps: Sweeps) -> Iterator[tuple[str, Case]]:
    s = sweeps.setup
    if s.further:
        yield from _elsewhere(n, s, sweeps.epochs["momentum"])
        return
    yield from _on_small_batches(n, s, sweeps.epochs)
    yield from _on_large_batches(n, s, sweeps.epochs)
    yield from _on_the_passage(n, s, sweeps.epochs)
    if sweeps.steps:
        yield from _on_equal_steps(n, s, sweeps.steps)
    if sweeps.budgets:
        yield from _on_budgets(n, s, sweeps.budgets)


def _tested(sweep: Sweep, batch: int, s: Setup) -> Quantity:
    return sweep[batch].metric("test", s.chooses)


def _rate_grows(n: str, s: Setup, sweep: Sweep, batches: tuple[int, ...], by: float, what: str) -> Case:
    """The best rate's slope over some batches is that of a law: 1 in proportion, 0 flat."""
    slope = curves.fitted_slope(sweep, s.chooses, batches)
    label = f"{n}: slope of the best rate over {what}"
    return s.case(label, Equivalence(HALF), slope, constant(slope, by), **SLOPE)


def _on_small_batches(n: str, s: Setup, sweeps: dict[str, Sweep]) -> Iterator[tuple[str, Case]]:
    alike, (first, last) = Equivalence(MARGIN), (s.small[0], s.small[-1])
    apart = [difference(_tested(sweeps["momentum"], b, s), _tested(sweeps["SGD"], b, s)) for b in s.small]
    mean = combined(lambda *row: float(np.mean(row)), *apart)
    label = f"{n}: momentum - SGD, mean over batches of {first} to {last}"
    yield "S1", s.case(label, alike, mean, constant(mean, 0.0), central=True)
    for optimizer, sweep in sweeps.items():
        a, b = (_tested(sweep, batch, s) for batch in (last, first))
        yield "S1", s.case(f"{n}, {optimizer}: batch {last} - batch {first}", alike, a, b)
        yield "S1", _rate_grows(f"{n}, {optimizer}", s, sweep, s.small, 1.0, "small batches, against 1")


def _on_large_batches(n: str, s: Setup, sweeps: dict[str, Sweep]) -> Iterator[tuple[str, Case]]:
    first, last = s.large[0], s.large[-1]
    for optimizer, sweep in sweeps.items():
        a, b = (_tested(sweep, batch, s) for batch in (last, first))
        central = optimizer == "momentum"
        yield "S2", s.case(f"{n}, {optimizer}: batch {last} - batch {first}", Difference("below"), a, b, central=central)
        yield "S2", _rate_grows(f"{n}, {optimizer}", s, sweep, s.large, 0.0, "large batches, against 0")
    a, b = (_tested(sweeps[optimizer], last, s) for optimizer in ("momentum", "SGD"))
    yield "S2", s.case(f"{n}: momentum - SGD, batch {last}", Difference("above"), a, b)


def _on_the_passage(n: str, s: Setup, sweeps: dict[str, Sweep]) -> Iterator[tuple[str, Case]]:
    for optimizer, sweep in sweeps.items():
        best = curves.best_rates(sweep, s.chooses)
        gradual, sharp = (
            curves.along(sweep, lambda x, y, law=law: float(peaks.fit(x, y, law).residual), *best)
            for law in (peaks.saturation, peaks.corner)
        )
        fields = {"scope": "reading", "unit": "octaves", "central": optimizer == "momentum"}
        label = f"{n}, {optimizer}: residual of the gradual law - of the corner"
        # best rates that do not follow the batch at all leave the corner ahead, so both regimes have to be there
        grows = _rate_grows(f"{n}, {optimizer}", s, sweep, s.small, 1.0, "small batches, against 1")
        stays = _rate_grows(f"{n}, {optimizer}", s, sweep, s.large, 0.0, "large batches, against 0")
        yield "S3", s.case(label, Difference("above"), gradual, sharp, given=replace(stays, given=grows), **fields)
        losses = [curve.at_best(curves.loss("train"), s.chooses) for curve in sweep.values()]
        row = combined(lambda *values: values, *losses)
        label = f"{n}, {optimizer}: training loss against batch"
        yield "S4", s.case(label, Trend("rising"), row, central=optimizer == "momentum")


def _on_equal_steps(n: str, s: Setup, sweep: Sweep) -> Iterator[tuple[str, Case]]:
    words = {"where": steps_words(s)}
    first, last = s.step_batches[0], s.step_batches[-1]
    reported = {int(row.rpartition(" ")[2]): values for row, values in FACTS["tables"]["steps"]["rows"].items()}
    ends, best = (min(reported), max(reported)), max(reported, key=lambda b: reported[b][0])
    falls = {b: reported[best][0][0] - reported[end][0][0] for b, end in zip((first, last), ends, strict=True)}
    at = {b: _tested(sweep, b, s) for b in (first, s.middle, last)}
    for other, central in ((first, False), (last, True)):
        fields = {"central": central, "published": falls[other]} | words
        label = f"{n}: batch {s.middle} - batch {other}"
        yield "S5", s.case(label, Difference("above"), at[s.middle], at[other], **fields)
    label = f"{n}: test accuracy, batch {last} - batch {s.middle}"
    fields = {"central": True, "published": -falls[last]} | words
    yield "S6", s.case(label, Difference("below"), at[last], at[s.middle], **fields)
    loss = {b: sweep[b].at_best(curves.loss("train"), s.chooses) for b in (s.middle, last)}
    label = f"{n}: training loss, batch {s.middle} / batch {last}"
    yield "S6", s.case(label, Ratio(1.0), loss[s.middle], loss[last], **words)
    grown = [b for b in reported if b != FACTS["doubted"]]
    slope = peaks.slope(np.log2(grown), [reported[b][1] for b in grown])
    yield "S7", _less_than_proportion(n, s, sweep, central=True, published=slope - 1)
    slope, fields = curves.fitted_slope(sweep, s.chooses), SLOPE | words
    yield "S7", s.case(f"{n}: slope of the best rate", Difference("above"), slope, constant(slope, 0.0), **fields)


def _less_than_proportion(n: str, s: Setup, sweep: Sweep, **fields) -> Case:
    """At equal updates the best rate grows less than the batch."""
    slope = curves.fitted_slope(sweep, s.chooses)
    label = f"{n}: slope of the best rate, less that of proportion"
    return s.case(label, Difference("below"), slope, constant(slope, 1.0), where=steps_words(s), **SLOPE, **fields)


def _on_budgets(n: str, s: Setup, sweep: Sweep) -> Iterator[tuple[str, Case]]:
    words = {"where": budget_words(s)}
    first, second, *_, before, last = s.budgets
    at = {e: sweep[e].metric("test", s.chooses) for e in (first, second, before, last)}
    label = f"{n}: {last} epochs - {before} epochs"
    yield "S8", s.case(label, Equivalence(MARGIN), at[last], at[before], central=True, **words)
    yield "S8", s.case(f"{n}: {second} epochs - {first} epochs", Difference("above", MARGIN), at[second], at[first], **words)
    train, test = _on_the_budget(sweep)
    fields, of = SLOPE | words, FACTS["budgets"]
    falls = {k: -np.log2(of[f"{k}_optimal_falls"]) / np.log2(of["growth"]) for k in ("test", "train")}
    yield "S9", _falls_faster(n, s, sweep, central=True, published=float(falls["train"] - falls["test"]))
    none = constant(train, 0.0)
    label = f"{n}: slope of the best rate for the training loss"
    yield "S9", s.case(label, Difference("below"), train, none, published=float(falls["train"]), **fields)
    label = f"{n}: slope of the best rate for the test set"
    yield "S9", s.case(label, Equivalence(HALF), test, none, published=float(falls["test"]), **fields)


def _on_the_budget(sweep: Sweep) -> tuple[Quantity, Quantity]:
    """Slopes on the budget of the rates that are best for the training loss and for the test set."""
    train, test = (curves.fitted_slope(sweep, by) for by in ("loss", "test"))
    return train, test


def _falls_faster(n: str, s: Setup, sweep: Sweep, **fields) -> Case:
    """The rate that is best for the training loss falls faster with the budget than the one that is best for the test set."""
    label = f"{n}: slope of the best rate on the budget, training loss - test"
    return s.case(label, Difference("below"), *_on_the_budget(sweep), where=budget_words(s), **SLOPE, **fields)


def _elsewhere(n: str, s: Setup, sweep: Sweep) -> Iterator[tuple[str, Case]]:
    """S10: the two regimes on a network of another kind."""
    first, last = s.small[0], s.large[-1]
    worse = [sweep[b].at_best(s.badness("test"), s.chooses) for b in (last, first)]
    label = f"{n}: test {'error' if is_accuracy(s) else metric_of(s.data.name).name}, batch {last} / batch {first}"
    yield "S10", s.case(label, Ratio(1.0), *worse, central=True)
    yield "S10", _rate_grows(n, s, sweep, s.small, 1.0, "small batches, against 1")
    yield "S10", _rate_grows(n, s, sweep, s.large, 0.0, "large batches, against 0")


def _on_other_budgets(n: str, s: Setup, sweeps: Sweeps) -> Iterator[tuple[str, Case]]:
    """Q3: S6 to S9 on a network of another kind, by parts of its error where they have points of accuracy."""

    def errors(sweep: Sweep, *places: int) -> tuple[Quantity, ...]:
        return tuple(sweep[place].at_best(s.badness("test"), s.chooses) for place in places)

    if steps := sweeps.steps:
        words, last = {"where": steps_words(s)}, s.step_batches[-1]
        label = f"{n}: test error at equal updates, batch {last} / batch {s.middle}"
        yield "Q3", s.case(label, Ratio(1.0), *errors(steps, last, s.middle), central=True, **words)
        yield "Q3", _less_than_proportion(n, s, steps)
    if budgets := sweeps.budgets:
        *_, before, last = s.budgets
        change = combined(lambda a, b: a / b - 1, *errors(budgets, last, before))
        label = f"{n}: test error, {last} / {before} epochs, less one"
        fields = {"where": budget_words(s), "unit": "part of the error"}
        yield "Q3", s.case(label, Equivalence(PART), change, constant(change, 0.0), **fields)
        yield "Q3", _falls_faster(n, s, budgets)


def _asked(n: str, sweeps: Sweeps) -> Iterator[tuple[str, Case]]:
    yield from noise.rules(n, sweeps)
    s = sweeps.setup
    if s.further:
        yield from _on_other_budgets(n, s, sweeps)
    if s.chooses != "test" and is_accuracy(s):
        gain = flattery(sweeps.epochs["momentum"])
        label = f"{n}: rate chosen on the test set - on held-out examples, mean over batches"
        yield "Q2", s.case(label, Difference("above"), gain, constant(gain, 0.0), central=True)
