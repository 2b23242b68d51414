"""A network trained with a small and a large batch: the jobs, and the quantities read from their records."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from lbgap.data import lookup
from lbgap.papers.paper import Jobs, Quantity, Series, dig
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Train, Weights, epochs_to_updates

DATA_NAMES = {"digits": "digits", "mnist": "MNIST", "timit": "TIMIT", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
Batch = str | int  # "SB", "LB", or a batch size


@dataclass(frozen=True)
class Setup:
    """How one network is trained, and with how many seeds; "SB" and "LB" name its two batch sizes."""

    model: str
    data: DataSpec
    small: int
    large: int
    epochs: int
    optimizer: OptimizerSpec
    seeds: int = 5
    width: int | None = None
    batch_norm: bool = True
    evaluate_every: int = 1
    data_seed: int | None = None

    def changed(self, **changes) -> "Setup":
        """The same setup with some fields replaced; None leaves a field as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def train(self, batch: Batch, seed: int, start: Weights | None = None) -> Train:
        """The run of one seed."""
        batch_size = {"SB": self.small, "LB": self.large}.get(batch, batch)
        options = ({"width": self.width} if self.width else {}) | ({} if self.batch_norm else {"batch_norm": False})
        updates = epochs_to_updates(self.epochs, self.data.size, batch_size)
        return Train(
            data=self.data,
            model=self.model,
            options=options,
            optimizer=self.optimizer,
            batch_size=batch_size,
            updates=updates,
            seed=seed,
            evaluate_every=self.evaluate_every,
            data_seed=self.data_seed,
            start=start,
        )

    def each(self, job: Callable[[int], Train | Measure]) -> Jobs:
        """One job a seed."""
        return tuple((job(seed),) for seed in range(self.seeds))

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

    def accuracy(self, batch: Batch, split: str = "test", reading: str = "batch") -> Quantity:
        """Final accuracy, percent."""
        return self.of_runs(batch, dig(f"final.{split}.{reading}.accuracy"))

    def peak_test_accuracy(self, batch: Batch) -> Quantity:
        """Highest recorded point of the test curve, percent."""
        return self.of_runs(batch, lambda r: max(r["curve"]["test_accuracy"]))

    def distance(self, batch: Batch) -> Quantity:
        """Distance of the final weights from the start."""
        return self.of_runs(batch, lambda r: r["distance"]["value"][-1])

    def sharp(self, batch: Batch, epsilon: float = 1e-3, **arguments) -> Quantity:
        """Sharpness at the end of each run."""
        return Quantity(self.each(lambda seed: self.sharpness(self.train(batch, seed), epsilon, **arguments)), dig("value"))

    # ------------------------------------------------------------ lines of figures

    def curve(self, panel: str, batch: Batch, field: str) -> Series:
        """A recorded curve against the epoch."""
        return Series(panel, str(batch), self.runs(batch), lambda r: zip(r["curve"]["epoch"], r["curve"][field], strict=True))

    def travelled(self, panel: str, batch: Batch) -> Series:
        """Distance from the start against updates."""
        return Series(
            panel, str(batch), self.runs(batch), lambda r: zip(r["distance"]["update"], r["distance"]["value"], strict=True)
        )

    @property
    def words(self) -> str:
        """The setting, for a reader."""
        some = "" if self.data.size == lookup(self.data.name).n_train else f"{self.data.size:,} images of "
        rate = f"{self.optimizer.name} at {self.optimizer.learning_rate:g}"
        return f"{some}{DATA_NAMES[self.data.name]}, batch {self.small} / {self.large}, {self.epochs} epochs, {rate}"


def point(panel: str, line: str, x: float, quantity: Quantity) -> Series:
    """A quantity as one point of a line, at ``x``."""
    return Series(panel, line, quantity.jobs, lambda *results: [(x, quantity.read(*results))])
