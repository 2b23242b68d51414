"""Keskar et al. 2017: small and large batches at equal epochs and rate, and how sharp the minima are that they find.

Readings chosen, and fixed before any record was made:

- Adam 1e-3 for both batch sizes (the released code names "adam" without a rate; the library default of the time).
- Batch norm is read with the statistics of each batch of 5000 at test time, the authors' Keras mode 2; running statistics are
  measured beside it. Sharpness is maximised with L-BFGS-B, 10 iterations, zero tolerances, objective scaled ("auto").
- SB and LB of one seed start from the same weights, as in the released plotting script.
- 100 epochs (Figs 4 and 5); the paper gives no budget for its tables, the released script has 20, measured in ``ruler``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lbgap.data import lookup
from lbgap.papers.paper import (
    Axis,
    Cell,
    Claim,
    Figure,
    Quantity,
    Series,
    Setting,
    Settings,
    Study,
    Table,
    dig,
)
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Train, epochs_to_updates
from lbgap.stats import Difference, Equivalence, Ratio, Trend, rank_correlation

PROFILES = ("quick", "cpu", "paper")
NETWORKS = ("F1", "F2", "C1", "C2", "C3", "C4")
EPSILONS = {"eps1e-3": 1e-3, "eps5e-4": 5e-4}


class PaperSettings(Settings):
    """What a re-runner may set for this chapter."""

    networks: Annotated[tuple[Literal["F1", "F2", "C1", "C2", "C3", "C4"], ...], Field(min_length=1)] | None = None
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None
    small_batch: Annotated[int, Field(ge=1)] | None = None
    large_batch: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class Setup:
    """How one network is trained in one profile; :meth:`train` and :meth:`sharpness` make the jobs."""

    network: str
    data: DataSpec
    small: int
    large: int
    epochs: int
    learning_rate: float = 1e-3
    width: int | None = None
    batch_norm: bool = True
    evaluate_every: int = 2
    proximal: float = 0.0
    inner_steps: int = 1

    def train(self, batch: str | int, seed: int, start=None) -> Train:
        """The run of a seed with the small ("SB"), the large ("LB") or any other batch size."""
        batch_size = {"SB": self.small, "LB": self.large}.get(batch, batch)
        options = ({"width": self.width} if self.width else {}) | ({} if self.batch_norm else {"batch_norm": False})
        adam = OptimizerSpec(
            name="adam", learning_rate=self.learning_rate, proximal=self.proximal, inner_steps=self.inner_steps
        )
        return Train(
            data=self.data,
            model=f"keskar.{self.network}",
            options=options,
            optimizer=adam,
            batch_size=batch_size,
            updates=epochs_to_updates(self.epochs, self.data.size, batch_size),
            seed=seed,
            evaluate_every=self.evaluate_every,
            start=start,
        )

    def sharpness(self, run: Train, epsilon: float = 1e-3, epoch: int | None = None, **arguments) -> Measure:
        """The metric at the end of a run, or after ``epoch``; a subspace is drawn anew for each seed."""
        if arguments.get("space") == "random":
            arguments["seed"] = run.seed
        return Measure(kind="sharpness", arguments={"epsilon": epsilon, **arguments}, of=(run.at(epoch),))

    @property
    def words(self) -> str:
        """The setting, for a reader."""
        total = lookup(self.data.name).n_train
        name = {"digits": "digits", "mnist": "MNIST", "timit": "TIMIT", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
        some = "" if self.data.size == total else f"{self.data.size:,} images of "
        return f"{some}{name[self.data.name]}, batch {self.small} / {self.large}, {self.epochs} epochs"


def _setups(settings: PaperSettings) -> dict[str, Setup]:
    """The networks of a profile, with a re-runner's own settings laid over them."""
    full = {"F1": "mnist", "F2": "timit", "C1": "cifar10", "C2": "cifar10", "C3": "cifar100", "C4": "cifar100"}
    paper = {n: Setup(n, DataSpec(name=d), 256, lookup(d).n_train // 10, 100) for n, d in full.items()}
    profiles = {
        "quick": {"F1": Setup("F1", DataSpec(name="digits"), 16, 375, 40, width=128, evaluate_every=4)},
        # C1 and C3: 2,500 images, 10% of them the large batch, the small one at the paper's ratio of 19.5
        "cpu": {"F1": paper["F1"]}
        | {n: Setup(n, DataSpec(name=full[n], n_train=2500), 13, 250, 60, evaluate_every=5) for n in ("C1", "C3")},
        "paper": paper,
    }
    setups = profiles[settings.profile]
    for network in settings.networks or ():
        if network not in setups:
            raise ValueError(f"networks contains '{network}'; profile {settings.profile} accepts {', '.join(setups)}")
    own = {
        "small": settings.small_batch,
        "large": settings.large_batch,
        "learning_rate": settings.learning_rate,
        "epochs": settings.epochs,
    }
    return {
        n: replace(s, **{k: v for k, v in own.items() if v is not None})
        for n, s in setups.items()
        if n in (settings.networks or setups)
    }


def _small_mnist() -> Setup:
    """F1 on 6,000 MNIST images, 10% of them the large batch, at the paper's ratio: where the ``cpu`` figures are made."""
    return Setup("F1", DataSpec(name="mnist", n_train=6000), 26, 600, 50)


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows; see DESIGN of each piece in the functions below."""
    profile, setups = settings.profile, _setups(settings)
    seeds = settings.seeds or (3 if profile == "quick" else 5)
    if profile == "quick":
        return Study(
            "keskar",
            profile,
            (_accuracies(setups, seeds), *_sharpnesses(setups, seeds, readings=("batch",))),
            (_curves(setups, seeds), _distance(setups, seeds)),
            _claims(profile, setups, seeds),
        )
    along = {"cpu": {"F1": _small_mnist()}, "paper": {n: setups[n] for n in ("F2", "C1") if n in setups}}[profile]
    if settings.own:
        along = {}
    tables = [_accuracies(setups, seeds), *_sharpnesses(setups, seeds)]
    figures = [_curves(setups, seeds), _distance(setups, seeds), _paths(setups, seeds)]
    if "F1" in setups and not settings.own:
        tables.append(_ruler(setups["F1"]))
    if along:
        figures += [_batch_sweep(along, seeds), _along(along, seeds), _warm_start(along, seeds)]
    if not settings.own:
        tables += [_augmented(setups, seeds, profile), _conservative(setups, seeds, profile)]
    return Study("keskar", profile, tuple(tables), tuple(figures), _claims(profile, setups, seeds, along))


# ---------------------------------------------------------------- quantities


def _of_runs(setup: Setup, batch: str, seeds: int, read: Callable[..., float], label: str) -> Quantity:
    return Quantity(f"{setup.network} {batch} {label}", tuple((setup.train(batch, s),) for s in range(seeds)), read)


def _accuracy(setup: Setup, batch: str, seeds: int, split: str = "test", reading: str = "batch") -> Quantity:
    return _of_runs(setup, batch, seeds, dig(f"final.{split}.{reading}.accuracy"), f"{split} accuracy")


def _sharp(setup: Setup, batch: str | int, seeds: int, epsilon: float = 1e-3, **arguments) -> Quantity:
    jobs = tuple((setup.sharpness(setup.train(batch, s), epsilon, **arguments),) for s in range(seeds))
    return Quantity(f"{setup.network} {batch} sharpness", jobs, dig("value"))


def _travelled(setup: Setup, batch: str, seeds: int) -> Quantity:
    return _of_runs(
        setup, batch, seeds, lambda r: math.nan if r["diverged"] else r["distance"]["value"][-1], "distance"
    )


# ---------------------------------------------------------------- tables


def _facts(table: str, row: str, column: str):
    from lbgap import papers

    return papers.get("keskar").published(table, row, column)


def _cells(table: str, setups: dict[str, Setup], columns: dict[str, Callable[[Setup], Quantity]]) -> tuple[Cell, ...]:
    """A row per network of the paper's table; a network that the profile does not train has published values alone."""
    cells = []
    for network in _rows(table):
        for column, quantity in columns.items():
            setup = setups.get(network)
            known = column in _columns(table)
            cells.append(
                Cell(
                    network,
                    column,
                    _facts(table, network, column) if known else None,
                    quantity(setup) if setup else None,
                    setup.words if setup else "",
                )
            )
    return tuple(cells)


def _table(name: str) -> dict:
    from lbgap import papers

    return papers.get("keskar").facts["tables"][name]


def _rows(name: str) -> list[str]:
    return list(_table(name)["rows"])


def _columns(name: str) -> list[str]:
    return _table(name)["columns"]


def _accuracies(setups, seeds) -> Table:
    columns = {
        f"{split}_{batch}": (lambda s, split=split, batch=batch: _accuracy(s, batch, seeds, split))
        for split in ("train", "test")
        for batch in ("SB", "LB")
    }
    columns |= {
        f"test_{batch} running": (lambda s, batch=batch: _accuracy(s, batch, seeds, "test", "running"))
        for batch in ("SB", "LB")
    }
    return Table("table2", _table("table2")["title"], "percent", _cells("table2", setups, columns), 2)


def _sharpnesses(setups, seeds, readings=("batch", "running")) -> list[Table]:
    out = []
    for name, space in (("table3", "full"), ("table4", "random")):
        columns = {}
        for reading in readings:
            for label, epsilon in EPSILONS.items():
                for batch in ("SB", "LB"):
                    suffix = "" if reading == "batch" else " running"
                    columns[f"{label}_{batch}{suffix}"] = lambda s, b=batch, e=epsilon, r=reading, a=space: _sharp(
                        s, b, seeds, e, space=a, batch_norm=r
                    )
        out.append(
            Table(name, _table(name)["title"], _table(name)["unit"], _cells(name, setups, columns), int(name[-1]))
        )
    return out


def _treated(name: str, setups, seeds, plain_small: bool, treat: Callable[[Setup], Setup]) -> Table:
    def small(s):
        return _accuracy(s if plain_small else treat(s), "SB", seeds)

    columns = {"test_SB": small, "test_LB": lambda s: _accuracy(treat(s), "LB", seeds)}
    columns |= {
        f"{label}_LB": (lambda s, e=e: _sharp(treat(s), "LB", seeds, e, space="full", batch_norm="batch"))
        for label, e in EPSILONS.items()
    }
    facts = _table(name)
    return Table(
        name, facts["title"], facts["unit"], _cells(name, setups, columns), int(name[-1]), note=facts.get("note", "")
    )


def _augment(setup: Setup) -> Setup:
    return replace(setup, data=setup.data.model_copy(update={"augment": "keskar"}))


def _conserve(setup: Setup) -> Setup:
    return replace(setup, proximal=1e-3, inner_steps=3)


def _treated_setups(setups, profile) -> dict[str, Setup]:
    """Tables 6 and 7 in the ``cpu`` profile are C1 alone."""
    return {n: s for n, s in setups.items() if n == "C1"} if profile == "cpu" else setups


def _augmented(setups, seeds, profile) -> Table:
    convolutional = {n: s for n, s in _treated_setups(setups, profile).items() if n.startswith("C")}
    return _treated("table6", convolutional, seeds, False, _augment)


def _conservative(setups, seeds, profile) -> Table:
    return _treated("table7", _treated_setups(setups, profile), seeds, True, _conserve)


RULERS: dict[str, dict] = {
    "as in Tables 3 and 4": {},
    "start: random in the box": {"start": "random"},
    "SciPy's default tolerances": {"tolerance": "scipy"},
    "objective unscaled": {"scaling": 1.0},
    "unscaled, default tolerances": {"scaling": 1.0, "tolerance": "scipy"},
    "objective x 100": {"scaling": 100.0},
    "objective x 10,000": {"scaling": 10_000.0},
    "100 iterations": {"iterations": 100},
    "batch norm: running statistics": {"batch_norm": "running"},
    "batch norm: re-estimated": {"batch_norm": "reestimated"},
    "after 20 epochs": {"epoch": 20},
}
SUBSPACE_RULERS: dict[str, dict] = {
    "subspace, entries N(0, 1/p)": {},
    "subspace, columns of norm 1": {"subspace_scale": "unit"},
    "subspace, entries N(0, 1)": {"subspace_scale": "standard"},
}


def _ruler(setup: Setup) -> Table:
    """How much of sharpness is the ruler: one factor at a time, on seed 0's SB and LB solutions, epsilon 1e-3."""
    rows = [(label, setup, {"space": "full", "batch_norm": "batch", **a}) for label, a in RULERS.items()]
    rows.append(
        ("network without batch norm", replace(setup, batch_norm=False), {"space": "full", "batch_norm": "batch"})
    )
    rows += [(label, setup, {"space": "random", "batch_norm": "batch", **a}) for label, a in SUBSPACE_RULERS.items()]
    cells = []
    for label, of, arguments in rows:
        small, large = (_sharp(of, b, 1, **arguments) for b in ("SB", "LB"))
        both = Quantity(
            f"{label} LB / SB",
            tuple(a + b for a, b in zip(large.jobs, small.jobs, strict=True)),
            lambda lb, sb: lb["value"] / sb["value"] if sb["value"] > 0 else math.inf,
        )
        cells += [
            Cell(label, "SB", None, small, of.words),
            Cell(label, "LB", None, large, of.words),
            Cell(label, "LB / SB", None, both, of.words),
        ]
    return Table("ruler", "The same two solutions under different rulers", "metric 2.1, epsilon 1e-3", tuple(cells))


# ---------------------------------------------------------------- figures


def _runs(setup: Setup, batch, seeds):
    return tuple((setup.train(batch, s),) for s in range(seeds))


def _curve(field: str):
    return lambda r: list(zip(r["curve"]["epoch"], r["curve"][field], strict=True))


def _curves(setups, seeds) -> Figure:
    panels, series = [], []
    for n, s in setups.items():
        panels += [
            Axis(f"{n}, training loss", "epoch", "cross entropy (nats)", log_y=True),
            Axis(f"{n}, test accuracy", "epoch", "percent"),
        ]
        for batch in ("SB", "LB"):
            series += [
                Series(panels[-2].name, batch, _runs(s, batch, seeds), _curve("train_loss")),
                Series(panels[-1].name, batch, _runs(s, batch, seeds), _curve("test_accuracy")),
            ]
    return Figure("curves", "Training curves", tuple(panels), tuple(series))


def _distance(setups, seeds) -> Figure:
    panels = tuple(Axis(n, "update", "distance from the start", log_x=True, log_y=True) for n in setups)
    series = tuple(
        Series(
            n,
            batch,
            _runs(s, batch, seeds),
            lambda r: list(zip(r["distance"]["update"], r["distance"]["value"], strict=True)),
        )
        for n, s in setups.items()
        for batch in ("SB", "LB")
    )
    return Figure("distance", "Distance from the starting point", panels, series)


def _path_jobs(setup: Setup, shape: str, seeds: int):
    return tuple(
        (Measure(kind="path", arguments={"shape": shape}, of=(setup.train("SB", s).at(), setup.train("LB", s).at())),)
        for s in range(seeds)
    )


def _paths(setups, seeds) -> Figure:
    panels, series = [], []
    for n, s in setups.items():
        for shape in ("linear", "curvilinear"):
            panels.append(Axis(f"{n}, {shape}", "alpha (0: SB, 1: LB)", "cross entropy (nats)", log_y=True))
            for split in ("train", "test"):
                series.append(
                    Series(
                        panels[-1].name,
                        split,
                        _path_jobs(s, shape, seeds),
                        lambda r, split=split: [
                            (a, v) for a, v in zip(r.get("alpha", ()), r.get(f"{split}_loss", ()), strict=True)
                        ],
                    )
                )
    return Figure("paths", "Parametric plots", tuple(panels), tuple(series))


def _sizes(setup: Setup, profile_small: bool) -> list[int]:
    """Batch sizes of Fig. 4: log-spaced from the small batch to the large one, and beyond where there is room."""
    if profile_small:
        return [26, 60, 150, 300, 600, 1500, 6000]
    most = {"F2": 72_132, "C1": 5_000}.get(setup.network, setup.large)
    return sorted({int(round(b)) for b in np.geomspace(setup.small, most, 8)})


def _batch_sweep(along, seeds) -> Figure:
    panels, series = [], []
    for n, s in along.items():
        panels += [
            Axis(f"{n}, test accuracy", "batch size", "percent", log_x=True),
            Axis(f"{n}, sharpness", "batch size", "metric 2.1", log_x=True, log_y=True),
        ]
        for b in _sizes(s, s.data.n_train is not None):
            series.append(
                Series(
                    panels[-2].name,
                    "test accuracy",
                    _runs(s, b, seeds),
                    lambda r, b=b: [] if r["diverged"] else [(b, r["final"]["test"]["batch"]["accuracy"])],
                )
            )
            for label, epsilon in EPSILONS.items():
                series.append(
                    Series(
                        panels[-1].name,
                        label.replace("eps", "epsilon "),
                        _sharp(s, b, seeds, epsilon, space="full", batch_norm="batch").jobs,
                        lambda r, b=b: [(b, r["value"])] if "value" in r else [],
                    )
                )
    return Figure("batch_sweep", "Accuracy and sharpness against batch size", tuple(panels), tuple(series))


ALONG_EPOCHS = (1, 2, 5, 10, 20, 50, 100)
WARM_EPOCHS = (1, 2, 5, 10, 20, 50, 100)


def _epochs(setup: Setup, of: tuple[int, ...]) -> list[int]:
    return [e for e in of if e <= setup.epochs]


def _along(along, seeds) -> Figure:
    panels, series = [], []
    for n, s in along.items():
        panels.append(Axis(n, "training loss", "metric 2.1, epsilon 1e-3", log_x=True, log_y=True))
        for batch in ("SB", "LB"):
            for e in _epochs(s, ALONG_EPOCHS):
                series.append(
                    Series(
                        n,
                        batch,
                        tuple((_sharp_at(s, batch, seed, e),) for seed in range(seeds)),
                        lambda r: [(r["loss"], r["value"])] if "value" in r else [],
                    )
                )
    return Figure("along", "Sharpness against loss along training", tuple(panels), tuple(series), mark="point")


def _sharp_at(setup: Setup, batch: str, seed: int, epoch: int) -> Measure:
    run = setup.train(batch, seed)
    return setup.sharpness(run, 1e-3, epoch, space="full", batch_norm="batch")


def _warm(setup: Setup, seed: int, epoch: int) -> Train:
    return setup.train("LB", seed, start=setup.train("SB", seed).at(epoch))


def _warm_start(along, seeds) -> Figure:
    panels, series = [], []
    for n, s in along.items():
        panels += [
            Axis(f"{n}, test accuracy", "SB epochs before the switch", "percent", log_x=True),
            Axis(f"{n}, sharpness", "SB epochs before the switch", "metric 2.1, epsilon 1e-3", log_x=True, log_y=True),
        ]
        for e in _epochs(s, WARM_EPOCHS):
            warm = tuple((_warm(s, seed, e),) for seed in range(seeds))
            series.append(
                Series(
                    panels[-2].name,
                    "LB from the SB iterate",
                    warm,
                    lambda r, e=e: [] if r["diverged"] else [(e, r["final"]["test"]["batch"]["accuracy"])],
                )
            )
            series.append(
                Series(
                    panels[-1].name,
                    "LB from the SB iterate",
                    tuple((s.sharpness(job, 1e-3, space="full", batch_norm="batch"),) for (job,) in warm),
                    lambda r, e=e: [(e, r["value"])] if "value" in r else [],
                )
            )
    return Figure("warm_start", "Large batch from small-batch iterates", tuple(panels), tuple(series))


# ---------------------------------------------------------------- claims

NO_JOBS = "no job of this profile bears on it"


def _claims(
    profile: str, setups: dict[str, Setup], seeds: int, along: dict[str, Setup] | None = None
) -> tuple[Claim, ...]:
    """The rules, fixed in a commit before the records they judge."""
    from lbgap import papers

    texts, along = papers.get("keskar").facts["claims"], along or {}
    nets = list(setups.items())
    rules: dict[str, list[Setting]] = {k: [] for k in texts}
    for n, s in nets:
        rules["K1"] += [
            Setting(
                f"{n}: test accuracy, LB - SB",
                Difference("below"),
                _accuracy(s, "LB", seeds),
                _accuracy(s, "SB", seeds),
            ),
            # the largest difference that the paper itself calls comparable is 1.64 points (F2)
            Setting(
                f"{n}: training accuracy, LB - SB",
                Equivalence(2.0),
                _accuracy(s, "LB", seeds, "train"),
                _accuracy(s, "SB", seeds, "train"),
            ),
        ]
        rules["K2"] += [
            Setting(
                f"{n}: LB, peak - last",
                Equivalence(0.5),
                _of_runs(s, "LB", seeds, _peak, "peak"),
                _of_runs(s, "LB", seeds, _last, "last"),
            ),
            Setting(
                f"{n}: peak LB - last SB",
                Difference("below"),
                _of_runs(s, "LB", seeds, _peak, "peak"),
                _of_runs(s, "SB", seeds, _last, "last"),
            ),
        ]
        for claim, space in (("K4", "full"), ("K5", "random")):
            for label, e in EPSILONS.items():
                a, b = (_sharp(s, batch, seeds, e, space=space, batch_norm="batch") for batch in ("LB", "SB"))
                rules[claim].append(Setting(f"{n}, {label.replace('eps', 'epsilon ')}: LB / SB", Ratio(10), a, b))
        rules["K9"].append(
            Setting(f"{n}: distance, SB / LB", Ratio(3), _travelled(s, "SB", seeds), _travelled(s, "LB", seeds))
        )
        if profile != "quick":
            for shape in ("linear", "curvilinear"):
                jobs = _path_jobs(s, shape, seeds)
                a, b = (
                    Quantity(f"{n} rise around {end}", jobs, lambda r, at=at: _rise(r, at))
                    for end, at in (("LB", 1.0), ("SB", 0.0))
                )
                rules["K3"].append(Setting(f"{n}, {shape}: rise of the loss, LB / SB", Ratio(2), a, b))
    for n, s in along.items():
        sizes = _sizes(s, s.data.n_train is not None)
        per_seed = range(seeds)
        runs = tuple(tuple(s.train(b, seed) for b in sizes) for seed in per_seed)
        sharp = tuple(tuple(s.sharpness(r, 1e-3, space="full", batch_norm="batch") for r in of) for of in runs)
        rules["K7"] += [
            Setting(
                f"{n}: test accuracy against batch size",
                Trend("falling"),
                Quantity("accuracy", runs, _ranked(sizes, dig("final.test.batch.accuracy"))),
            ),
            Setting(
                f"{n}: sharpness against batch size",
                Trend("rising"),
                Quantity("sharpness", sharp, _ranked(sizes, dig("value"))),
            ),
        ]
        epochs = _epochs(s, WARM_EPOCHS)
        warm = tuple(tuple(_warm(s, seed, e) for e in epochs) for seed in per_seed)
        warm_sharp = tuple(tuple(s.sharpness(r, 1e-3, space="full", batch_norm="batch") for r in of) for of in warm)
        rules["K8"] += [
            Setting(
                f"{n}: LB accuracy against SB epochs before",
                Trend("rising"),
                Quantity("accuracy", warm, _ranked(epochs, dig("final.test.batch.accuracy"))),
            ),
            Setting(
                f"{n}: LB sharpness against SB epochs before",
                Trend("falling"),
                Quantity("sharpness", warm_sharp, _ranked(epochs, dig("value"))),
            ),
        ]
        at = _epochs(s, ALONG_EPOCHS)
        large, small = (
            tuple(tuple(_sharp_at(s, batch, seed, e) for e in at) for seed in per_seed) for batch in ("LB", "SB")
        )
        first = tuple((a[0], b[0]) for a, b in zip(large, small, strict=True))
        last = tuple((a[-1], b[-1]) for a, b in zip(large, small, strict=True))
        rules["K10"] += [
            Setting(
                f"{n}: LB sharpness along training", Trend("rising"), Quantity("LB", large, _ranked(at, dig("value")))
            ),
            Setting(
                f"{n}: LB / SB, last epoch against first",
                Ratio(10),
                Quantity("last", last, _quotient),
                Quantity("first", first, _quotient),
            ),
        ]
    if profile != "quick":
        for n, s in _treated_setups(setups, profile).items():
            plain_sb = _sharp(s, "SB", seeds, space="full", batch_norm="batch")
            if n.startswith("C"):
                a = _augment(s)
                rules["K11"] += [
                    # published: -1.13, +0.44, -1.52, +2.83 points; "comparable" is read as 1.5
                    Setting(
                        f"{n}, augmented: test accuracy, LB - SB",
                        Equivalence(1.5),
                        _accuracy(a, "LB", seeds),
                        _accuracy(a, "SB", seeds),
                    ),
                    # published: 3.5 (C3) to 54 (C2)
                    Setting(
                        f"{n}: sharpness, augmented LB / plain SB",
                        Ratio(2),
                        _sharp(a, "LB", seeds, space="full", batch_norm="batch"),
                        plain_sb,
                    ),
                ]
            c = _conserve(s)
            rules["K12"] += [
                Setting(
                    f"{n}: test accuracy, conservative - plain LB",
                    Difference("above"),
                    _accuracy(c, "LB", seeds),
                    _accuracy(s, "LB", seeds),
                ),
                # published: 11 (C3) to 668 (F2)
                Setting(
                    f"{n}: sharpness, conservative LB / SB",
                    Ratio(10),
                    _sharp(c, "LB", seeds, space="full", batch_norm="batch"),
                    plain_sb,
                ),
            ]
    reasons = {
        "K6": "the measure that separates steep from flat directions is not written yet",
        "K13": "adversarial and stability training are not written yet, and the paper gives no numbers for them",
        "K14": "the talk gives no numbers; a network without batch norm is measured in the table of rulers, with one seed",
    }
    wanted = ("K1", "K4", "K5", "K9") if profile == "quick" else texts
    return tuple(
        Claim(k, texts[k], tuple(rules[k]), reason="" if rules[k] else reasons.get(k, NO_JOBS)) for k in wanted
    )


def _peak(r: dict) -> float:
    return math.nan if r["diverged"] else max(r["curve"]["test_accuracy"])


def _last(r: dict) -> float:
    return math.nan if r["diverged"] else r["curve"]["test_accuracy"][-1]


def _rise(r: dict, at: float, step: float = 0.25) -> float:
    """Mean rise of the training loss a quarter of the way to either side of a solution."""
    if r.get("diverged"):
        return math.nan
    loss = {round(a, 6): v for a, v in zip(r["alpha"], r["train_loss"], strict=True)}
    return (loss[round(at - step, 6)] + loss[round(at + step, 6)]) / 2 - loss[at]


def _ranked(x, read):
    return lambda *results: rank_correlation(x, [read(r) for r in results])


def _quotient(large: dict, small: dict) -> float:
    return dig("value")(large) / dig("value")(small)
