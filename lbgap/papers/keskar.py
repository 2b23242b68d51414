"""Keskar et al. 2017: small and large batches at equal epochs and rate, and how sharp the minima are that they find.

Readings chosen, and fixed before any record was made:

- Adam 1e-3 for both batch sizes (the released code names "adam" without a rate; the library default of the time).
- Batch norm is read with the statistics of each batch of 5000 at test time, the authors' Keras mode 2; running statistics
  are measured beside it. Sharpness: L-BFGS-B, 10 iterations, zero tolerances, objective scaled ("auto").
- SB and LB of one seed start from the same weights, as in the released plotting script.
- 100 epochs (Figs 4 and 5); the paper gives no budget for its tables, the released
  script has 20 (its PyTorch version 150); 20 is measured in ``ruler``.
- K13 and K14 come without numbers or settings. The strengths in ``ROBUST`` and the changes in ``VARIANTS`` were chosen when
  the plain runs of F1 were on record, and before any run with them: K13 on all of MNIST, where there is a gap to close, K14
  on sharpness, because on 6,000 images there is none.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import Field

from lbgap.data import lookup
from lbgap.papers.paper import (
    Axis,
    Cell,
    Claim,
    Figure,
    Jobs,
    Quantity,
    Series,
    Setting,
    Settings,
    Study,
    Table,
    claims,
    dig,
    side_by_side,
)
from lbgap.papers.setup import Setup, named, point, published_table
from lbgap.spec import DataSpec, Measure, OptimizerSpec, RobustSpec, Train
from lbgap.stats import Difference, Equivalence, Ratio, Trend, rank_correlation

PROFILES = ("quick", "cpu", "paper")
FACTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
DATA = {"F1": "mnist", "F2": "timit", "C1": "cifar10", "C2": "cifar10", "C3": "cifar100", "C4": "cifar100"}
ADAM = OptimizerSpec(name="adam", learning_rate=1e-3)
CONSERVATIVE = {"proximal": 1e-3, "inner_steps": 3}  # appendix E.2
EPSILONS = {"eps1e-3": 1e-3, "eps5e-4": 5e-4}
BATCHES = ("SB", "LB")
# The five trials of F1 differ in their starting points and share one order of the data: a fault of the first version kept
# the seed from reaching the order, and these runs say what they did. All other runs vary both.
F1_ORDER = 4113142680
# the adversarial one is Goodfellow et al.'s for MNIST; inputs lie between 0 and 1
ROBUST = {
    "adversarial": RobustSpec(kind="adversarial", size=0.25, weight=0.5),
    "stability": RobustSpec(kind="stability", size=0.2, weight=0.5),
}
VARIANTS: dict[str, dict] = {
    "as it is": {},
    "without batch norm": {"batch_norm": False},
    "tanh": {"activation": "tanh"},
    "dropout of 0.5": {"dropout": 0.5},
    "two hidden layers": {"depth": 2},
}
EPOCHS_SHOWN = (1, 2, 5, 10, 20, 50, 100)  # Figs 5 and 6
Setups = dict[str, Setup]


class PaperSettings(Settings):
    """What a re-runner may set for this chapter."""

    networks: Annotated[tuple[Literal["F1", "F2", "C1", "C2", "C3", "C4"], ...], Field(min_length=1)] | None = None
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None
    small_batch: Annotated[int, Field(ge=1)] | None = None
    large_batch: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    setups = _setups(settings)
    tables, figures = [_accuracies(setups)], [_curves(setups), _distance(setups)]
    if settings.profile == "quick":
        return Study(
            "keskar",
            "quick",
            (*tables, *_sharpnesses(setups, ("batch",))),
            tuple(figures),
            _claims(setups, only=("K1", "K4", "K5", "K9")),
        )
    tables += _sharpnesses(setups, ("batch", "running"))
    figures.append(_paths(setups))
    if settings.own:  # another batch, rate or budget: what the paper varies further does not apply
        return Study("keskar", settings.profile, tuple(tables), tuple(figures), _claims(setups))
    along, treated = _along_setups(settings, setups), _treated_setups(settings, setups)
    tables += [_augmented(treated), _conservative(treated)]
    if "F1" in setups:
        tables += [_ruler(setups["F1"]), _robust(setups["F1"]), _variants((setups | along)["F1"])]
    figures += [_batch_sweep(along), _along(along), _warm_start(along)]
    return Study("keskar", settings.profile, tuple(tables), tuple(figures), _claims(setups, along, treated))


# ---------------------------------------------------------------- setups


def _setups(settings: PaperSettings) -> Setups:
    """The networks of a profile, with a re-runner's own settings laid over them."""
    full = {n: _setup(n, DataSpec(name=d), 256, lookup(d).n_train // 10, 100) for n, d in DATA.items()}
    full["F1"] = full["F1"].fixing(data_seed=F1_ORDER)
    setups = {
        "quick": lambda: {
            "F1": _setup("F1", DataSpec(name="digits"), 16, 375, 40).changed(options={"width": 128}, evaluate_every=4, seeds=3)
        },
        # C1 and C3: 2,500 images, 10% of them the large batch, the small one at about the paper's ratio of 19.5
        "cpu": lambda: (
            {"F1": full["F1"]}
            | {n: _setup(n, DataSpec(name=DATA[n], n_train=2500), 13, 250, 60).changed(evaluate_every=5) for n in ("C1", "C3")}
        ),
        "paper": lambda: full,
    }[settings.profile]()
    rate = {"learning_rate": settings.learning_rate} if settings.learning_rate else {}
    return {
        n: s.changed(
            small=settings.small_batch,
            large=settings.large_batch,
            epochs=settings.epochs,
            seeds=settings.seeds,
            optimizer=s.optimizer.model_copy(update=rate),
        )
        for n, s in named(setups, settings).items()
    }


def _setup(network: str, data: DataSpec, small: int, large: int, epochs: int) -> Setup:
    return Setup(f"keskar.{network}", data, small, large, epochs, ADAM, evaluate_every=2)


def _along_setups(settings: PaperSettings, setups: Setups) -> Setups:
    """Where Figs 4 to 6 are made: F2 and C1 as in the paper; in ``cpu``, F1 on 6,000 images at the paper's ratio."""
    if settings.profile == "paper":
        return {n: setups[n] for n in ("F2", "C1") if n in setups}
    small = _setup("F1", DataSpec(name="mnist", n_train=6000), 26, 600, 50).changed(seeds=settings.seeds)
    return {"F1": small} if "F1" in setups else {}


def _treated_setups(settings: PaperSettings, setups: Setups) -> Setups:
    """Where Tables 6 and 7 are made: in ``cpu``, C1 alone."""
    return {n: s for n, s in setups.items() if n == "C1" or settings.profile == "paper"}


def _augment(setup: Setup) -> Setup:
    return setup.changed(data=setup.data.model_copy(update={"augment": "keskar"}))


def _conserve(setup: Setup) -> Setup:
    return setup.changed(optimizer=setup.optimizer.model_copy(update=CONSERVATIVE))


def _asked(setup: Setup, kind: str) -> Setup:
    return setup.fixing(robust=ROBUST[kind])


def _varied(setup: Setup, variant: str) -> Setup:
    return setup.changed(options=VARIANTS[variant])


# ---------------------------------------------------------------- tables


def _accuracies(setups: Setups) -> Table:
    columns = {f"{split}_{b}": lambda s, b=b, split=split: s.accuracy(b, split) for split in ("train", "test") for b in BATCHES}
    columns |= {f"test_{b} running": lambda s, b=b: s.accuracy(b, "test", "running") for b in BATCHES}
    return published_table(FACTS, "table2", setups, columns)


def _sharpnesses(setups: Setups, readings: tuple[str, ...]) -> list[Table]:
    return [
        published_table(
            FACTS,
            name,
            setups,
            {
                f"{label}_{b}{'' if reading == 'batch' else ' ' + reading}": lambda s, b=b, e=e, r=reading, space=space: (
                    s.sharp(b, e, space=space, batch_norm=r)
                )
                for reading in readings
                for label, e in EPSILONS.items()
                for b in BATCHES
            },
        )
        for name, space in (("table3", "full"), ("table4", "random"))
    ]


def _augmented(setups: Setups) -> Table:
    columns = {f"test_{b}": lambda s, b=b: _augment(s).accuracy(b) for b in BATCHES}
    columns |= {f"{label}_LB": lambda s, e=e: _augment(s).sharp("LB", e) for label, e in EPSILONS.items()}
    return published_table(FACTS, "table6", {n: s for n, s in setups.items() if n.startswith("C")}, columns)


def _conservative(setups: Setups) -> Table:
    columns = {"test_SB": lambda s: s.accuracy("SB"), "test_LB": lambda s: _conserve(s).accuracy("LB")}
    columns |= {f"{label}_LB": lambda s, e=e: _conserve(s).sharp("LB", e) for label, e in EPSILONS.items()}
    return published_table(FACTS, "table7", setups, columns)


def _robust(setup: Setup) -> Table:
    """The large batch under adversarial and stability training, beside both batches as they are (E.3)."""
    rows = {"small batch": (setup, "SB"), "large batch": (setup, "LB")}
    rows |= {f"large batch with {kind} training": (_asked(setup, kind), "LB") for kind in ROBUST}
    cells = []
    for row, (s, batch) in rows.items():
        columns = {split: s.accuracy(batch, split) for split in ("train", "test")}
        columns |= {label: s.sharp(batch, e) for label, e in EPSILONS.items()}
        cells += [Cell(row, column, None, quantity, s.words) for column, quantity in columns.items()]
    return Table("robust", "Adversarial and stability training of F1", "percent; metric 2.1", tuple(cells))


def _variants(setup: Setup) -> Table:
    """F1 with another activation, without batch norm, with dropout, with fewer layers: is the large batch sharper?"""
    cells = []
    for row in VARIANTS:
        s = _varied(setup, row)
        columns = {f"{split}_{b}": s.accuracy(b, split) for split in ("train", "test") for b in BATCHES}
        columns |= {f"eps1e-3_{b}": s.sharp(b) for b in BATCHES}
        cells += [Cell(row, column, None, quantity, s.words) for column, quantity in columns.items()]
    return Table("variants", "F1 with one thing changed", "percent; metric 2.1, epsilon 1e-3", tuple(cells))


RULERS: dict[str, dict] = {
    "as in Table 3": {},
    "start: random in the box": {"start": "random"},
    "tolerances: SciPy's defaults": {"tolerance": "scipy"},
    "objective unscaled": {"scaling": 1.0},
    "objective unscaled, SciPy's tolerances": {"scaling": 1.0, "tolerance": "scipy"},
    "objective x 100": {"scaling": 100.0},
    "objective x 10,000": {"scaling": 10_000.0},
    "100 iterations": {"iterations": 100},
    "batch norm: running statistics": {"batch_norm": "running"},
    "batch norm: re-estimated": {"batch_norm": "reestimated"},
    "after 20 epochs": {"epoch": 20},
    "as in Table 4 (entries N(0, 1/p))": {"space": "random"},
    "subspace: columns of norm 1": {"space": "random", "subspace_scale": "unit"},
    "subspace: entries N(0, 1)": {"space": "random", "subspace_scale": "standard"},
}


def _ruler(setup: Setup) -> Table:
    """How much of sharpness is the ruler: one factor at a time, on seed 0's SB and LB solutions, epsilon 1e-3."""
    one = setup.changed(seeds=1)
    rows = [(label, one, arguments) for label, arguments in RULERS.items()]
    rows.insert(11, ("network without batch norm", one.changed(options={"batch_norm": False}), {}))
    cells = []
    for label, of, arguments in rows:
        small, large = (of.sharp(b, **arguments) for b in BATCHES)
        ratio = Quantity(side_by_side(large.jobs, small.jobs), _ratio)
        cells += [Cell(label, c, None, q, of.words) for c, q in (("SB", small), ("LB", large), ("LB / SB", ratio))]
    return Table("ruler", "The same two solutions under different rulers", "metric 2.1, epsilon 1e-3", tuple(cells))


def _ratio(large: dict, small: dict) -> float:
    a, b = dig("value")(large), dig("value")(small)
    return a / b if b > 0 else math.inf if a > 0 else math.nan  # 0 / 0: shown as undefined


# ---------------------------------------------------------------- figures


def _curves(setups: Setups) -> Figure:
    panels, series = [], []
    for n, s in setups.items():
        panels += [
            Axis(f"{n}, training loss", "epoch", "cross entropy (nats)", log_y=True),
            Axis(f"{n}, test accuracy", "epoch", "percent"),
        ]
        for b in BATCHES:
            series += [s.curve(panels[-2].name, b, "train_loss"), s.curve(panels[-1].name, b, "test_accuracy")]
    return Figure("curves", "Training curves", tuple(panels), tuple(series))


def _distance(setups: Setups) -> Figure:
    panels = tuple(Axis(n, "update", "distance from the start", log_x=True, log_y=True) for n in setups)
    return Figure(
        "distance",
        "Distance from the starting point",
        panels,
        tuple(s.travelled(n, b) for n, s in setups.items() for b in BATCHES),
    )


SHAPES = ("linear", "curvilinear")


def _path(setup: Setup, shape: str) -> Jobs:
    return setup.each(
        lambda seed: Measure(
            kind="path", arguments={"shape": shape}, of=(setup.train("SB", seed).at(), setup.train("LB", seed).at())
        )
    )


def _paths(setups: Setups) -> Figure:
    panels, series = [], []
    for n, s in setups.items():
        for shape in SHAPES:
            panels.append(Axis(f"{n}, {shape}", "alpha (0: SB, 1: LB)", "cross entropy (nats)", log_y=True))
            series += [
                Series(
                    panels[-1].name,
                    split,
                    _path(s, shape),
                    lambda r, k=f"{split}_loss": zip(r.get("alpha", ()), r.get(k, ()), strict=True),
                )
                for split in ("train", "test")
            ]
    return Figure("paths", "Parametric plots", tuple(panels), tuple(series))


def _sizes(setup: Setup) -> list[int]:
    """Batch sizes of Fig. 4: log-spaced, from the small batch to about where F2's and C1's axes end."""
    if setup.data.n_train:
        return [26, 60, 150, 300, 600, 1500, 6000]
    most = {"keskar.F2": 72_132, "keskar.C1": 5_000}[setup.model]
    return sorted({round(b) for b in np.geomspace(setup.small, most, 8)})


def _two_panels(network: str, x: str) -> tuple[Axis, Axis]:
    return (
        Axis(f"{network}, test accuracy", x, "percent", log_x=True),
        Axis(f"{network}, sharpness", x, "metric 2.1", log_x=True, log_y=True),
    )


def _batch_sweep(setups: Setups) -> Figure:
    panels, series = [], []
    for n, s in setups.items():
        accuracy, sharpness = _two_panels(n, "batch size")
        panels += [accuracy, sharpness]
        for b in _sizes(s):
            series.append(point(accuracy.name, "test accuracy", b, s.accuracy(b)))
            series += [point(sharpness.name, f"epsilon {e:g}", b, s.sharp(b, e)) for e in EPSILONS.values()]
    return Figure("batch_sweep", "Accuracy and sharpness against batch size", tuple(panels), tuple(series))


def _epochs(setup: Setup) -> list[int]:
    return [e for e in EPOCHS_SHOWN if e <= setup.epochs]


def _sharp_after(setup: Setup, batch: str, epoch: int) -> Jobs:
    return setup.each(lambda seed: setup.sharpness(setup.train(batch, seed), epoch=epoch))


def _along(setups: Setups) -> Figure:
    panels = tuple(Axis(n, "training loss", "metric 2.1, epsilon 1e-3", log_x=True, log_y=True) for n in setups)
    series = tuple(
        Series(n, b, _sharp_after(s, b, e), lambda r: [(r["loss"], r["value"])] if "value" in r else [])
        for n, s in setups.items()
        for b in BATCHES
        for e in _epochs(s)
    )
    return Figure("along", "Sharpness against loss along training", panels, series, mark="point")


def _warm(setup: Setup, seed: int, epoch: int) -> Train:
    """A large-batch run that starts from the small batch's weights after ``epoch`` epochs."""
    return setup.train("LB", seed, start=setup.train("SB", seed).at(epoch))


def _warm_quantities(setup: Setup, epoch: int) -> tuple[Quantity, Quantity]:
    """Test accuracy and sharpness of the warm-started run."""
    return (
        Quantity(setup.each(lambda seed: _warm(setup, seed, epoch)), dig("final.test.batch.accuracy")),
        Quantity(setup.each(lambda seed: setup.sharpness(_warm(setup, seed, epoch))), dig("value")),
    )


def _warm_start(setups: Setups) -> Figure:
    panels, series = [], []
    for n, s in setups.items():
        both = _two_panels(n, "SB epochs before the switch")
        panels += both
        for e in _epochs(s):
            series += [
                point(axis.name, "LB from the SB iterate", e, quantity)
                for axis, quantity in zip(both, _warm_quantities(s, e), strict=True)
            ]
    return Figure("warm_start", "Large batch from small-batch iterates", tuple(panels), tuple(series))


# ---------------------------------------------------------------- claims: rules fixed in a commit before their records

NOTES = {
    "K5": "under our scale of A, which the paper leaves open; another scale turns the sign (see the sensitivity table)",
    "K6": "read on single weights; some other subspace of that size may still hold the rise",
    "K13": "on F1 and on accuracy; the paper gives neither numbers nor settings",
    "K14": "on F1, under changes chosen here; on fit and sharpness alone, since plain F1 on 6,000 images shows no gap",
}


def _claims(
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
        large, small = (Quantity(_path(s, shape), lambda r, at=at: _rise(r, at)) for at in (1.0, 0.0))
        yield "K3", Setting(f"{n}, {shape}: rise of the loss, LB / SB", Ratio(2), large, small)
    # "one to two orders of magnitude": the lower end, fixed before the runs; the paper's own C3 misses it at 1e-3 (8.7)
    for claim, space in (("K4", "full"), ("K5", "random")):
        for e in EPSILONS.values():
            large, small = (s.sharp(b, e, space=space) for b in ("LB", "SB"))
            yield claim, Setting(f"{n}, epsilon {e:g}: LB / SB", Ratio(10), large, small)
    jobs = s.each(lambda seed: Measure(kind="directions", arguments={"epsilon": 1e-3}, of=(s.train("LB", seed).at(),)))
    # "flat in most directions": a random corner of the box rises by less than a tenth of the most; "about 5% of the
    # dimensions": those coordinates of the maximiser alone make more than half of the rise
    for label, part, side, share in (
        ("random corner / largest rise, minus 0.1", "random", "below", 0.1),
        ("steepest 5% / largest rise, minus 0.5", "steep", "above", 0.5),
    ):
        of_the_rise = Quantity(jobs, lambda r, part=part: r[part] / r["largest"] if r["largest"] > 0 else math.nan)
        bound = Quantity(jobs, lambda r, share=share: share)
        yield "K6", Setting(f"{n}: LB, {label}", Difference(side), of_the_rise, bound)
    yield "K9", Setting(f"{n}: distance, SB / LB", Ratio(3), s.distance("SB"), s.distance("LB"))


def _on_figures(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    sizes, epochs = _sizes(s), _epochs(s)
    accuracies, sharpnesses = zip(*(_warm_quantities(s, e) for e in epochs), strict=True)
    large, small = ([Quantity(_sharp_after(s, b, e), dig("value")) for e in epochs] for b in ("LB", "SB"))
    for claim, label, side, x, quantities in (
        ("K7", "test accuracy against batch size", "falling", sizes, [s.accuracy(b) for b in sizes]),
        ("K7", "sharpness against batch size", "rising", sizes, [s.sharp(b) for b in sizes]),
        ("K8", "accuracy against SB epochs before", "rising", epochs, accuracies),
        ("K8", "sharpness against SB epochs before", "falling", epochs, sharpnesses),
        ("K10", "LB sharpness along training", "rising", epochs, large),
    ):
        yield claim, Setting(f"{n}: {label}", Trend(side), _rank(x, quantities))
    last, first = (Quantity(side_by_side(large[i].jobs, small[i].jobs), _ratio) for i in (-1, 0))
    yield "K10", Setting(f"{n}: LB / SB, last epoch against first", Ratio(10), last, first)


def _rank(x: Sequence[float], quantities: Sequence[Quantity]) -> Quantity:
    """Rank correlation of x with one quantity at each x, per seed."""
    read = quantities[0].read
    return Quantity(
        side_by_side(*(q.jobs for q in quantities)), lambda *results: rank_correlation(x, [read(r) for r in results])
    )


def _on_treatments(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    if n.startswith("C"):
        a = _augment(s)
        # published differences: -1.13, +0.44, -1.52, +2.83 points; "comparable" is read as at most 2 points worse
        label = f"{n}, augmented: test accuracy, LB - SB"
        yield "K11", Setting(label, Difference("above", -2.0), a.accuracy("LB"), a.accuracy("SB"))
        # published: 3.5 (C3) to 54 (C2)
        yield "K11", Setting(f"{n}: sharpness, augmented LB / plain SB", Ratio(2), a.sharp("LB"), s.sharp("SB"))
    c = _conserve(s)
    label = f"{n}: test accuracy, conservative - plain LB"
    yield "K12", Setting(label, Difference("above"), c.accuracy("LB"), s.accuracy("LB"))
    # published: 11 (C3) to 668 (F2)
    yield "K12", Setting(f"{n}: sharpness, conservative LB / SB", Ratio(10), c.sharp("LB"), s.sharp("SB"))


def _on_robust_training(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    for kind in ROBUST:
        # "no benefit": it closes less than half of the gap, which the plain runs on record put at 0.49 points
        label = f"{n}: test accuracy, {kind} - plain LB"
        yield "K13", Setting(label, Difference("below", -0.25), _asked(s, kind).accuracy("LB"), s.accuracy("LB"))


def _on_variants(n: str, s: Setup) -> Iterator[tuple[str, Setting]]:
    for variant in list(VARIANTS)[1:]:
        v = _varied(s, variant)
        fitted = (v.accuracy(b, "train") for b in ("LB", "SB"))
        yield "K14", Setting(f"{n}, {variant}: training accuracy, LB - SB", Equivalence(2.0), *fitted)
        # sharper at all, as in K3 and K11: in the paper's own table the factor falls to 8.7 from network to network
        yield "K14", Setting(f"{n}, {variant}: sharpness, LB / SB", Ratio(2), v.sharp("LB"), v.sharp("SB"))


def _rise(r: dict, at: float, step: float = 0.25) -> float:
    """Mean rise of the training loss a quarter of the way to either side of a solution."""
    loss = {round(a, 6): v for a, v in zip(r["alpha"], r["train_loss"], strict=True)}
    return (loss[round(at - step, 6)] + loss[round(at + step, 6)]) / 2 - loss[at]
