"""A network trained with a small and a large batch: the jobs, and the quantities read from their records."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lbgap import schedule
from lbgap.papers.paper import Case, Cell, Jobs, Published, Quantity, Scope, Series, Settings, Table, dig
from lbgap.sources import lookup, metric_of
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Train, Weights
from lbgap.stats import Rule

DATA_NAMES = {
    "digits": "digits",
    "mnist": "MNIST",
    "timit": "TIMIT",
    "cifar10": "CIFAR-10",
    "cifar10.half": "CIFAR-10 at 16 x 16 pixels",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
}
Batch = str | int  # "SB", "LB", or a batch size


class Experiment:
    """A network and how it is trained: cells and cases that are made of it say which network it is, and what was run.

    Subclasses have ``network``, its name for a reader; ``words``, the setting; ``own``, whether the setting is the paper's.
    """

    network: str
    words: str
    own: bool
    data: DataSpec

    @property
    def scope(self) -> Scope:
        """Of a claim that is tested here: the paper's where the setting is the paper's own and on all of its data."""
        return "paper" if self.own and self.data.size == lookup(self.data.name).n_train else "reduced"

    def case(self, label: str, rule: Rule, a: Quantity, b: Quantity | None = None, **fields) -> Case:
        """A claim's rule on quantities of this experiment."""
        scope = "reading" if fields.get("reading") else self.scope
        return Case(label, rule, a, b, **({"network": self.network, "scope": scope, "where": self.words} | fields))

    def cell(self, row: str, column: str, quantity: Quantity, published: Published | None = None, **fields) -> Cell:
        """A place of a table that has a quantity of this experiment."""
        return Cell(row, column, published, quantity, **({"network": self.network, "words": self.words} | fields))

    def cells(self, row: str, columns: Mapping[str, Quantity], **fields) -> list[Cell]:
        """The places of a row, by column."""
        return [self.cell(row, column, quantity, **fields) for column, quantity in columns.items()]


@dataclass(frozen=True)
class Recipe(Experiment):
    """How one network is trained, and with how many seeds; "SB" and "LB" name its two batch sizes.

    ``regime`` holds what changes after the start: (epoch, {"learning_rate": ..., "weight_decay": ...}). ``factor``
    multiplies every learning rate. ``adapted`` is regime adaptation (Hoffer et al. 2017): budget and boundaries are counted in
    the small batch's updates, whatever the batch. ``ghosts`` is the ghost batch size of those variants that have one.
    ``options`` are the network's, ``fixed`` other fields of each run. Seeds count from ``first_seed``; with ``own_subset``
    each draws training examples of its own. ``own`` says that all of this is the paper's. ``network`` is the name that rows
    and cases have for it.
    """

    model: str
    data: DataSpec
    small: int
    large: int
    epochs: int
    optimizer: OptimizerSpec
    seeds: int = 5
    first_seed: int = 0
    own_subset: bool = False
    evaluate_every: int = 1
    regime: tuple[tuple[int, dict[str, float]], ...] = ()
    factor: float = 1.0
    adapted: bool = False
    ghosts: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    own: bool = False
    network: str = ""

    def changed(self, **changes) -> "Recipe":
        """The same recipe with some fields replaced; None leaves a field as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def fixing(self, **fields) -> "Recipe":
        """The same recipe with more fields of its runs fixed."""
        return replace(self, fixed={**self.fixed, **fields})

    def train(self, batch: Batch, seed: int, start: Weights | None = None) -> Train:
        """The run of one seed."""
        if (batch, seed, start) not in self._trained:
            self._trained[batch, seed, start] = self._train(batch, seed, start)
        return self._trained[batch, seed, start]

    @cached_property
    def _trained(self) -> dict[tuple, Train]:
        """Runs by their arguments: many numbers are of the same ones, and each is validated when it is made."""
        return {}

    def _train(self, batch: Batch, seed: int, start: Weights | None) -> Train:
        batch_size = {"SB": self.small, "LB": self.large}.get(batch, batch)
        sizes = batch_size, self.small if self.adapted else batch_size
        passes, counted = (self.data.updates_per_epoch(size) for size in sizes)
        optimizer = self.optimizer
        if self.factor != 1:
            optimizer = optimizer.model_copy(update={"learning_rate": optimizer.learning_rate * self.factor})
        return Train(
            data=self.data.model_copy(update={"subset": seed}) if self.own_subset else self.data,
            model=self.model,
            options=dict(self.options),
            optimizer=optimizer,
            batch_size=batch_size,
            updates=self.epochs * counted,
            seed=seed,
            # of more epochs in as many updates, no more are evaluated
            evaluate_every=self.evaluate_every * max(1, round(counted / passes)),
            start=start,
            phases=schedule.regime(self.regime, counted, self.factor),
            **self.fixed,
        )

    def each(self, job: Callable[[int], Train | Measure]) -> Jobs:
        """One job a seed."""
        return tuple((job(seed),) for seed in range(self.first_seed, self.first_seed + self.seeds))

    def runs(self, batch: Batch) -> Jobs:
        """The runs of every seed."""
        return self.each(lambda seed: self.train(batch, seed))

    def sharpness(
        self,
        run: Train,
        epsilon: float = 1e-3,
        epoch: int | None = None,
        space: str = "full",
        batch_norm: str = "batch",
        **arguments,
    ) -> Measure:
        """The metric at the end of a run, or after ``epoch``; a subspace is drawn anew for each seed."""
        if space == "random":
            arguments["seed"] = run.seed
        return Measure(
            kind="sharpness",
            of=(run.at(epoch),),
            arguments={"epsilon": epsilon, "space": space, "batch_norm": batch_norm, **arguments},
        )

    # ------------------------------------------------------------ quantities

    def of_runs(self, batch: Batch, read: Callable[[dict], float]) -> Quantity:
        """A number of each run's record; NaN where the run diverged."""
        return Quantity(self.runs(batch), lambda r: math.nan if r["diverged"] else read(r))

    def metric(self, batch: Batch, split: str = "test", reading: str = "batch") -> Quantity:
        """What the task is judged by, at the end: of labels the accuracy in percent, else an error or a perplexity."""
        return self.of_runs(batch, dig(f"final.{split}.{reading}.{metric_of(self.data.name).name}"))

    def accuracy(self, batch: Batch, split: str = "test", reading: str = "batch") -> Quantity:
        """:meth:`metric` where the targets are labels: final accuracy, percent."""
        return self.metric(batch, split, reading)

    def chosen_test_accuracy(self, batch: Batch) -> Quantity:
        """Test accuracy at the recorded epoch whose mean over the other seeds is highest, percent.

        The highest point of a seed's own curve lies above its last one by noise alone. Not a number with one seed.
        """

        def read(*results: dict) -> float:
            own, *others = (r["curve"]["test_accuracy"] for r in results)
            return own[np.mean(others, axis=0).argmax()] if others else math.nan

        runs = [run for (run,) in self.runs(batch)]
        return Quantity(tuple((*runs[i:], *runs[:i]) for i in range(len(runs))), read)

    def late(self, batch: Batch, field: str, last: int = 5, average: Callable[[list[float]], float] = np.median) -> Quantity:
        """A recorded curve's median over the last evaluations of a run (Goyal et al. 2017, section 5.1: five epochs)."""
        return self.of_runs(batch, lambda r: float(average(r["curve"][field][-last:])))

    def distance(self, batch: Batch) -> Quantity:
        """Distance of the final weights from the start."""
        return self.of_runs(batch, lambda r: r["distance"]["value"][-1])

    def measured(self, batch: Batch, kind: str, field: str = "value", **arguments) -> Quantity:
        """A number of a measurement at the end of each run."""
        jobs = self.each(lambda seed: Measure(kind=kind, of=(self.train(batch, seed).at(),), arguments=arguments))
        return Quantity(jobs, dig(field))

    def sharp(self, batch: Batch, epsilon: float = 1e-3, **arguments) -> Quantity:
        """Sharpness at the end of each run."""
        return Quantity(self.each(lambda seed: self.sharpness(self.train(batch, seed), epsilon, **arguments)), dig("value"))

    # ------------------------------------------------------------ lines of figures

    def curve(self, panel: str, batch: Batch, field: str, x: str = "epoch", line: str | None = None) -> Series:
        """A recorded curve against the epoch, or the update."""
        return Series(panel, line or str(batch), self.runs(batch), lambda r: zip(r["curve"][x], r["curve"][field], strict=True))

    def travelled(self, panel: str, batch: Batch, line: str | None = None) -> Series:
        """Distance from the start against updates."""
        return Series(
            panel,
            line or str(batch),
            self.runs(batch),
            lambda r: zip(r["distance"]["update"], r["distance"]["value"], strict=True),
        )

    def travelled_by_layer(self, panel: str, batch: Batch) -> Series:
        """The same for each weight matrix or kernel, a line each, the first named 1; runs must have recorded ``layers``."""

        def read(r: dict) -> Iterator[tuple[str, float, float]]:
            for i, name in enumerate(self._matrices(), 1):
                for update, value in zip(r["distance"]["update"], r["distance"].get("layers", {}).get(name, ()), strict=True):
                    yield f"layer {i}", update, value

        return Series(panel, None, self.runs(batch), read)

    def _matrices(self) -> list[str]:
        """The names of the network's weights that have at least two dimensions."""
        import torch  # for a figure alone: what is recorded is counted without it

        from lbgap import models

        shape = lookup(self.data.name)
        with torch.device("meta"):
            model = models.build(self.model, shape.shape, shape.n_classes, **self.options)
        return [name for name, p in model.named_parameters() if p.dim() > 1]

    @property
    def title(self) -> str:
        """The network as a row of our own tables names it: on a part of its data with their number."""
        return self.network + (f", {self.data.n_train:,} images" if self.data.n_train else "")

    @property
    def words(self) -> str:
        """The setting, for a reader."""
        some = "" if self.data.size == lookup(self.data.name).n_train else f"{self.data.size:,} images of "
        rate = f"{self.optimizer.name} at {self.optimizer.learning_rate * self.factor:g}"
        precision = ", bfloat16" if self.fixed.get("precision") == "bfloat16" else ""
        budget = f"{self.epochs} epochs"
        if self.adapted:
            budget = f"{self.epochs * self.data.updates_per_epoch(self.small):,} updates whatever the batch"
        data = some + DATA_NAMES.get(self.data.name, self.data.name)
        return f"{data}, batch {self.small} / {self.large}, {budget}, {rate}{precision}"


def named(recipes: dict[str, Experiment], settings: Settings) -> dict[str, Experiment]:
    """Those of a profile's networks that ``settings.networks`` names, which know their names; all of them where it names none.

    Raises:
        ValueError: a network that the profile does not have.
    """
    for network in settings.networks or ():
        if network not in recipes:
            raise ValueError(f"networks contains '{network}'; profile {settings.profile} accepts {', '.join(recipes)}")
    return {n: replace(s, network=n) for n, s in recipes.items() if n in (settings.networks or recipes)}


def point(panel: str, line: str, x: float, quantity: Quantity) -> Series:
    """A quantity as one point of a line, at ``x``."""
    return Series(panel, line, quantity.jobs, lambda *results: [(x, quantity.value(*results))])


def published_effect(facts: dict, rule: Rule, row: str, *places: tuple[str, str]) -> float | None:
    """A rule's effect between two places (table, column) of a row of a paper's tables; None where one is not there."""
    found = []
    for table, column in places:
        of = facts["tables"][table]
        values = dict(zip(of["columns"], of["rows"].get(row, ()), strict=False))
        if column not in values:
            return None
        found.append(np.atleast_1d(values[column])[:1].astype(float))
    return rule.estimate(*found).effect


def published_cells(facts: dict, name: str) -> dict[tuple[str, str], Published]:
    """What a table of the paper reports, by row and column."""
    of = facts["tables"][name]
    return {
        (row, column): Published(*(entry if isinstance(entry, list) else [entry]))
        for row, entries in of["rows"].items()
        for column, entry in zip(of["columns"], entries, strict=True)
    }


def published_difference(facts: dict, table: str, one: tuple[str, str], other: tuple[str, str]) -> float:
    """The mean that a table of the paper reports at one place (row, column), minus that at another."""
    of = published_cells(facts, table)
    return of[one].mean - of[other].mean


Columns = Mapping[str, Callable[[Recipe], Quantity]]


def published_table(
    facts: dict, name: str, recipes: dict[str, Recipe], columns: Columns, second: Mapping[str, Columns] | None = None
) -> Table:
    """A row per network of a paper's table; a network that a profile does not train has published values alone.

    Args:
        second: by name, second readings of columns.
    """
    of, published, cells = facts["tables"][name], published_cells(facts, name), []
    for network in of["rows"]:
        recipe = recipes.get(network)
        words = recipe.words if recipe else ""
        for reading, read in ({"": columns} | dict(second or {})).items():
            for column, quantity in read.items():
                reported = None if reading else published.get((network, column))
                cells.append(Cell(network, column, reported, quantity(recipe) if recipe else None, words, network, reading))
    number = name.removeprefix("table")
    return Table(name, of["title"], of["unit"], tuple(cells), int(number) if number.isdecimal() else None)
