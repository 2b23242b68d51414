"""What a profile trains of Smith et al. 2020: networks, batches, budgets, and the grids of rates."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from lbgap import schedule
from lbgap.papers.paper import Networks, Settings, dig
from lbgap.papers.recipe import DATA_NAMES, Experiment, named
from lbgap.sources import lookup, metric_of
from lbgap.spec import DataSpec, OptimizerSpec, Train

FACTS = yaml.safe_load(Path(__file__).parent.with_suffix(".yaml").read_text())
POINTS = 10  # of the recorded curve of a run


@dataclass(frozen=True)
class Grid:
    """The powers of two that are tried at a batch: around a guess that grows with it from ``start``, at batch 1, to ``top``.

    ``power`` is the guess's own: 1 where the rate doubles with the batch. The guess is a pilot's. ``more`` has rates that
    were added where the best one turned out at the grid's edge, by batch; each run stays what it is.
    """

    start: float
    top: float
    power: float = 1.0
    below: int = 2
    above: int = 2
    more: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def first(self, batch: int) -> tuple[float, ...]:
        """Logarithms, base 2, of the effective rates before any was added."""
        guess = math.floor(min(self.start + self.power * math.log2(batch), self.top) + 0.5)
        return tuple(map(float, range(guess - self.below, guess + self.above + 1)))

    def at(self, batch: int) -> tuple[float, ...]:
        """Those, and the ones that were added."""
        return tuple(sorted({*self.first(batch), *map(float, self.more.get(batch, ()))}))


@dataclass(frozen=True)
class Setup(Experiment):
    """One network and its sweeps. Rates are effective ones, epsilon / (1 - m).

    ``steps`` updates of every batch in ``step_batches``; ``budgets``, in epochs, of ``budget_batch``. ``small`` batches are
    those at which both optimizers are thought to be dominated by noise, ``large`` those at which neither is, ``middle`` the
    one that is thought best at equal steps: from the pilot, and fixed before the runs. ``target`` is the accuracy whose time
    is read. S10 is about the ``further`` networks, and no other claim; what they do at equal steps and budgets, Q3 asks.
    ``grids`` are by sweep: "SGD" and "momentum" (or one of them) at equal epochs, "steps", "budgets".
    """

    model: str
    data: DataSpec
    batches: tuple[int, ...]
    epochs: int
    grids: Mapping[str, Grid]
    small: tuple[int, ...]
    large: tuple[int, ...]
    steps: int = 0
    step_batches: tuple[int, ...] = ()
    middle: int = 0
    budget_batch: int = 0
    budgets: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ghosts: int | None = None
    seeds: int = 5
    first_seed: int = 0
    points: int = POINTS
    rates: tuple[float, ...] = ()
    target: float = 0.0
    further: bool = False
    own: bool = False
    network: str = ""

    @property
    def chooses(self) -> str:
        """The split on which rates are chosen."""
        return "validation" if self.data.n_validation else "test"

    @property
    def momenta(self) -> dict[str, float]:
        """By optimizer, of those that have a grid."""
        return {name: m for name, m in (("SGD", 0.0), ("momentum", self.momentum)) if name in self.grids}

    @property
    def all_seeds(self) -> range:
        """Those that are run."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def grid(self, sweep: str, place: int) -> tuple[float, ...]:
        """The rates of a sweep at a batch, or a budget."""
        return self.rates or self.grids[sweep].at(place)

    def train(self, batch: int, exponent: float, momentum: float, updates: int, seed: int) -> Train:
        """The run of one seed at the effective rate 2 ** ``exponent``, on the paper's schedule."""
        rate = float(f"{2.0**exponent * (1 - momentum):.12g}")
        epochs = math.ceil(updates / self.data.updates_per_epoch(batch))
        ghosts = {"ghost_batch_size": self.ghosts} if self.ghosts and batch > self.ghosts else {}
        return Train(
            data=self.data,
            model=self.model,
            options=dict(self.options),
            optimizer=OptimizerSpec(name="sgd", learning_rate=rate, momentum=momentum, weight_decay=self.weight_decay),
            batch_size=batch,
            updates=updates,
            seed=seed,
            evaluate_every=max(1, epochs // self.points),
            curve_reading="running",
            phases=_phases(rate, updates),
            **ghosts,
        )

    # ------------------------------------------------------------ what is read of a run

    def metric(self, split: str) -> Callable[[dict], float]:
        """The task's metric at the end, with running averages of batch norm."""
        return dig(f"final.{split}.running.{metric_of(self.data.name).name}")

    def badness(self, by: str) -> Callable[[dict], float]:
        """What is to be small: the error on a split, in the metric's unit, or the training loss (``by`` "loss")."""
        if by == "loss":
            return dig("final.train.running.loss")
        of = self.metric(by)
        return (lambda r: 100 - of(r)) if metric_of(self.data.name).name == "accuracy" else of

    # ------------------------------------------------------------ words

    @property
    def where(self) -> str:
        """The data, for a reader."""
        name = self.data.name.removesuffix(".inputs")
        some = "" if self.data.size == lookup(self.data.name).n_train else f"{self.data.size:,} "
        unit = "tokens of " if self.data.is_text else "images of "
        return f"{some}{unit if some else ''}{DATA_NAMES.get(name, name)}"

    @property
    def words(self) -> str:
        """The setting of the sweeps at equal epochs."""
        return f"{self.where}, {self.epochs} epochs"


# ---------------------------------------------------------------- profiles


LEAST_UPDATES = 20  # of a schedule in twentieths


class PaperSettings(Settings):
    """What a re-runner may set for this chapter; ``rates`` are effective ones, tried at every batch."""

    networks: Networks = None
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    rates: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)] | None = None
    momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=LEAST_UPDATES)] | None = None


_phases = lru_cache(schedule.hold_then_halve)  # the same for every seed


def powers(low: int, high: int) -> tuple[int, ...]:
    """Powers of two from one to another."""
    return tuple(2**k for k in range(round(math.log2(low)), round(math.log2(high)) + 1))


SKIPINIT = {"norm": "skipinit"}
WRN = {"depth": 10, "widen": 1}  # of profile cpu


def _f1(**changes) -> Setup:
    """F1 with two hidden layers of 64 units, without batch norm: the cheap work horse."""
    data = DataSpec(name="mnist", n_train=2048, n_test=5000, n_validation=2048)
    wide_open = Grid(-2, -2, power=0, below=3)
    grids = {"SGD": Grid(-5.75, -1), "momentum": Grid(-5.75, 1), "steps": Grid(-3, 1, power=0.5), "budgets": wide_open}
    values = {
        "model": "keskar.F1",
        "data": data,
        "batches": powers(4, 2048),
        "epochs": 20,
        "grids": grids,
        "small": (4, 8, 16),
        "large": (256, 512, 1024, 2048),
        "steps": 320,
        "step_batches": powers(16, 2048),
        "middle": 128,
        "budget_batch": 16,
        "budgets": powers(2, 64),
        "options": {"width": 64, "depth": 2, "batch_norm": False},
        "target": 90.0,
    }
    return Setup(**values | changes)


def _quick() -> dict[str, Setup]:
    return {
        "F1": _f1(
            data=DataSpec(name="digits", n_train=1024, n_validation=256),
            batches=powers(8, 256),
            small=(8, 16),
            large=(128, 256),
            steps=64,
            step_batches=powers(16, 256),
            middle=64,
            budgets=powers(2, 16),
            seeds=2,
            target=97.0,
            points=4,
        )
    }


def _cpu() -> dict[str, Setup]:
    f1 = _f1()
    bn = _f1(
        options={"width": 64, "depth": 2},
        ghosts=64,
        batches=powers(16, 2048),
        small=powers(16, 64),
        grids={
            "SGD": Grid(-4.5, 2, more={64: (-1,)}),
            "momentum": Grid(-4.5, 3, more={128: (0,)}),
            "steps": Grid(-3, 3, power=0.5, below=3, above=3, more={256: (5,), 1024: (6,)}),
            "budgets": Grid(1, 1, power=0, below=3, above=3),
        },
        middle=256,
        budget_batch=64,
        target=0.0,
    )
    # one linear layer of 30 units: deeper sigmoid ones did not leave the mean picture in so few updates
    encoder = Setup(
        "smith.autoencoder",
        DataSpec(name="mnist.inputs", n_train=2048, n_test=2000, n_validation=2048),
        batches=powers(8, 512),
        epochs=20,
        grids={
            "SGD": Grid(-8.6, -5, above=1),
            "momentum": Grid(-8.6, -3, below=1, more={64: (-5,), 128: (-5,)}),
            "steps": Grid(-6.5, -4, power=0.5),
            "budgets": Grid(-4, -4, power=0),
        },
        small=powers(8, 32),
        large=powers(128, 512),
        steps=320,
        step_batches=powers(8, 512),
        middle=64,
        budget_batch=64,
        budgets=powers(2, 64),
        options={"widths": "30"},
        weight_decay=0.0,
        points=4,
        further=True,
    )
    wide = Setup(
        "smith.WRN",
        DataSpec(name="cifar10.half", n_train=1024, n_test=2000, n_validation=1024),
        batches=(16, 64, 256, 1024),
        epochs=20,
        grids={
            "SGD": Grid(-6, 0, more={16: (1, 2, 3)}),
            "momentum": Grid(-6, 1, more={16: (1, 2, 3), 64: (3, 4, 5), 256: (4, 5), 1024: (4, 5)}),
            "steps": Grid(-5, 4),
            "budgets": Grid(1, 1, power=0, below=3, above=3),
        },
        small=(16, 64),
        large=(256, 1024),
        steps=160,
        step_batches=(16, 64, 256, 1024),
        middle=64,
        budget_batch=64,
        budgets=powers(2, 64),
        options=WRN,
        target=30.0,
        ghosts=64,
        points=4,
    )
    plain = replace(
        wide,
        options=WRN | SKIPINIT,
        ghosts=None,
        grids={"SGD": Grid(-6, 0), "momentum": Grid(-6, 1, more={1024: (4,)})},
        steps=0,
        step_batches=(),
        budgets=(),
        target=0.0,
    )
    language = Setup(
        "smith.LSTM",
        DataSpec(name="wikitext2.valid", n_train=20_000, n_test=5_000, n_validation=5_000),
        batches=powers(4, 64),
        epochs=10,
        grids={"momentum": Grid(-1, 5, below=1, more={64: (2, 3)})},
        small=(4, 8),
        large=(32, 64),
        options={"width": 64, "depth": 1},
        weight_decay=0.0,
        points=2,
        further=True,
    )
    return {
        "F1": f1,
        "F1 with batch norm": bn,
        "auto-encoder 30": encoder,
        "WRN-10-1": wide,
        "WRN-10-1 without batch norm": plain,
        "LSTM 64": language,
    }


def _paper() -> dict[str, Setup]:
    # batches at equal epochs and the grids are ours: the slides show them as pictures
    grids = {
        "SGD": Grid(-8, 0, below=3, above=3),
        "momentum": Grid(-8, 2, below=3, above=3),
        "steps": Grid(-2, 5, power=0.5, below=3, above=3),
        "budgets": Grid(-2, -2, power=0, below=5, above=3),
    }
    wide = Setup(
        "smith.WRN",
        DataSpec(name="cifar10", augment="hoffer"),
        batches=powers(16, 8192),
        epochs=200,
        grids=grids,
        small=powers(16, 256),
        large=powers(1024, 8192),
        steps=9765,
        step_batches=powers(256, 32768),
        middle=2048,
        budget_batch=64,
        budgets=tuple(50 * 2**k for k in range(8)),
        ghosts=64,
        target=90.0,
        own=True,
    )
    # batches, epochs and weight decay of the other networks were not found in any document: ours
    others = {
        "grids": {"SGD": Grid(-12, -4, below=3, above=3), "momentum": Grid(-12, -2, below=3, above=3)},
        "weight_decay": 0.0,
        "further": True,
    }
    encoder = Setup(
        "smith.autoencoder",
        DataSpec(name="mnist.inputs"),
        batches=powers(16, 4096),
        epochs=100,
        small=powers(16, 128),
        large=powers(1024, 4096),
        **others,
    )
    language = Setup(
        "smith.LSTM",
        DataSpec(name="ptb"),
        batches=powers(4, 512),
        epochs=40,
        small=powers(4, 16),
        large=powers(128, 512),
        **others | {"grids": {"SGD": Grid(-4, 2, below=3, above=3), "momentum": Grid(-4, 4, below=3, above=3)}},
    )
    images = Setup(
        "goyal.ResNet-50",
        DataSpec(name="imagenet", augment="goyal"),
        batches=powers(256, 16384),
        epochs=90,
        small=powers(256, 1024),
        large=powers(4096, 16384),
        ghosts=256,
        **others
        | {"grids": {"SGD": Grid(-8, 1, below=3, above=3), "momentum": Grid(-8, 3, below=3, above=3)}, "weight_decay": 1e-4},
    )
    return {
        "WRN-16-4": wide,
        "WRN-16-4 without batch norm": replace(wide, options=SKIPINIT, ghosts=None),
        "auto-encoder": encoder,
        "LSTM": language,
        "ResNet-50": images,
    }


def setups_of(settings: PaperSettings) -> dict[str, Setup]:
    """The networks of a profile, with a re-runner's own settings laid over them."""
    of = named({"quick": _quick, "cpu": _cpu, "paper": _paper}[settings.profile](), settings)
    return {n: _own(s, settings) for n, s in of.items()}


def _own(s: Setup, settings: PaperSettings) -> Setup:
    changes: dict[str, Any] = {
        "seeds": settings.seeds,
        "momentum": settings.momentum,
        "epochs": settings.epochs,
        "steps": settings.steps,
        "rates": settings.rates and tuple(map(math.log2, sorted(set(settings.rates)))),
    }
    if settings.batch_sizes:
        sizes = tuple(sorted(set(settings.batch_sizes)))
        changes |= {"batches": sizes, "step_batches": sizes if s.step_batches else ()}
        changes |= {"small": sizes[: max(1, len(sizes) // 3)], "large": sizes[-max(1, len(sizes) // 3) :]}
        changes |= {"middle": sizes[len(sizes) // 2]}
    of = replace(s, **{k: v for k, v in changes.items() if v is not None}, own=s.own and not settings.own)
    for b in (*of.small, *of.large) if settings.own else ():
        if (updates := of.epochs * of.data.updates_per_epoch(b)) < LEAST_UPDATES:
            what = f"batch_sizes is {b}" if settings.batch_sizes else f"epochs is {of.epochs}"
            made = f"batch {b} makes {updates} in {of.epochs} epochs"
            raise ValueError(f"{what}; accepted is what makes {LEAST_UPDATES} updates or more, and {made}")
    return of
