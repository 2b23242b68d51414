"""The recipe of Goyal et al. 2017, and what each profile trains with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from lbgap import schedule
from lbgap.papers import recipe
from lbgap.papers.paper import Networks, Quantity, Settings, combined
from lbgap.papers.recipe import Batch, named
from lbgap.spec import DataSpec, OptimizerSpec, Phase, Train, Warmup, Weights

FACTS = yaml.safe_load(Path(__file__).parent.with_suffix(".yaml").read_text())
OWN = FACTS["recipe"]
LAST = 5  # epochs whose median is a run's error
SGD = OptimizerSpec(name="sgd", learning_rate=OWN["rate"], momentum=0.9, nesterov=True, weight_decay=1e-4, decay_exempt="norms")
RULES = {"linear": schedule.linear_scaling, "square root": schedule.square_root_scaling, "none": lambda rate, *_: rate}


@dataclass(frozen=True)
class Recipe(recipe.Recipe):
    """A network whose rate follows the batch; "SB" is the reference batch, to which the rate belongs, "LB" the large one.

    Attributes:
        sizes: the batches of the sweep, the reference and the large one among them.
        n: images of a worker, whose batch norm has statistics of its own.
        scaling: how the rate grows with the batch (a name in ``RULES``); ``factor`` multiplies what it says.
        warmup: "gradual", "constant" or "none"; it begins at the reference rate and takes ``warmup_epochs``, where the batch
            and the rate are larger than the reference's (section 5.1).
    """

    sizes: tuple[int, ...] = ()
    n: int = OWN["workers_of"]
    scaling: Literal["linear", "square root", "none"] = "linear"
    warmup: Literal["gradual", "constant", "none"] = "gradual"
    warmup_epochs: float = OWN["warmup"]

    def batch_size(self, batch: Batch) -> int:
        """Images of a batch, kn."""
        return {"SB": self.small, "LB": self.large}.get(batch, batch)

    def rate(self, batch: Batch) -> float:
        """The learning rate after the warmup (section 2.1)."""
        of = RULES[self.scaling](self.optimizer.learning_rate, self.batch_size(batch), self.small)
        return float(f"{of * self.factor:.12g}")

    def train(self, batch: Batch, seed: int, start: Weights | None = None) -> Train:
        """The run of one seed."""
        b, rate = self.batch_size(batch), self.rate(batch)
        low = self.optimizer.learning_rate / self.optimizer.loss_scale  # a scaled loss takes the place of the rate
        per_epoch = self.data.updates_per_epoch(b)
        updates, ramp = self.epochs * per_epoch, max(1, round(self.warmup_epochs * per_epoch))
        warm = self.warmup if b > self.small and rate > low else "none"
        first, phases = schedule.constant_warmup(rate, low, ramp) if warm == "constant" else (rate, ())
        # in proportion to the budget; of boundaries that fall together, the warmup's end among them, the later one holds
        drops = {round(updates * at / OWN["epochs"]): OWN["factor"] ** i for i, at in enumerate(OWN["boundaries"], 1)}
        drops = {at: Phase(update=at, learning_rate=float(f"{rate * share:.12g}")) for at, share in drops.items() if at}
        phases = (*(phase for phase in phases if phase.update not in drops), *drops.values())
        return Train(
            data=self.data,
            model=self.model,
            options=dict(self.options),
            optimizer=self.optimizer.model_copy(update={"learning_rate": first}),
            batch_size=b,
            updates=updates,
            seed=seed,
            start=start,
            phases=phases,
            warmup=Warmup(updates=ramp, start=low / rate) if warm == "gradual" else None,
            slice_size=self.n if self.n < b else None,
            curve_reading="running",
            **self.fixed,
        )

    def error(self, batch: Batch, split: str = "test") -> Quantity:
        """Error of each run, percent: the median of its last five epochs; of training, on the augmented images as they came."""
        return combined(lambda accuracy: 100 - accuracy, self.late(batch, f"{split}_accuracy", LAST))

    @property
    def words(self) -> str:
        """The setting, for a reader."""
        words = super().words.replace(
            f"batch {self.small} / {self.large}", f"batch {self.small} / {self.large} of n = {self.n}"
        )
        return f"{self.network}, {words} at the smaller batch"


class PaperSettings(Settings):
    """What a re-runner may set for this chapter."""

    networks: Networks = None
    reference_batch: Annotated[int, Field(ge=2)] | None = None
    largest_batch: Annotated[int, Field(ge=2)] | None = None
    worker_batch: Annotated[int, Field(ge=2)] | None = None
    warmup_epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None


def recipes_of(settings: PaperSettings) -> dict[str, Recipe]:
    """The networks of a profile, with a re-runner's own settings laid over them; the first bears all but Table 2c."""
    recipes = {"quick": _digits, "cpu": _small, "paper": _published}[settings.profile]()
    return {n: _own(s, settings) for n, s in named(recipes, settings).items()}


def _own(s: Recipe, settings: PaperSettings) -> Recipe:
    small = settings.reference_batch or s.small
    largest = settings.largest_batch or max(s.sizes) * small // s.small
    if largest < 2 * small:
        raise ValueError(f"largest_batch is {largest}; with a reference batch of {small} accepted is {2 * small} or more")
    epochs = settings.epochs or s.epochs
    ramp, first_drop = (
        settings.warmup_epochs or s.warmup_epochs * epochs / s.epochs,
        epochs * OWN["boundaries"][0] / OWN["epochs"],
    )
    if ramp >= first_drop:
        raise ValueError(
            f"warmup_epochs is {ramp:g}; with {epochs} epochs accepted is above 0, below {first_drop:g}, where the rate drops"
        )
    sizes = tuple(b for b in (b * small // s.small for b in s.sizes) if 2 <= b <= largest)
    return s.changed(
        small=small,
        large=min(s.large * small // s.small, largest),
        sizes=tuple(dict.fromkeys((*sizes, largest))),
        n=settings.worker_batch,
        warmup_epochs=ramp,
        epochs=epochs,
        seeds=settings.seeds,
        optimizer=s.optimizer.model_copy(update={"learning_rate": settings.learning_rate or s.optimizer.learning_rate}),
        own=s.own and not settings.own,
    )


def _digits() -> dict[str, Recipe]:
    """ResNet-8 on digits, without augmentation."""
    return {
        "ResNet-8": Recipe(
            "goyal.ResNet", DataSpec(name="digits"), 32, 128, 9, _at(0.8), seeds=3, sizes=(32, 128), n=32, warmup_epochs=2.0
        )
    }


def _small() -> dict[str, Recipe]:
    """Networks that 2 cores train in seconds; sizes, rate and the warmup's length were settled on a seed that is not used."""
    data = DataSpec(name="cifar10.half", n_train=2560, n_test=2000, n_validation=1000, augment="hoffer")
    s = Recipe(
        "goyal.ResNet",
        data,
        64,
        256,
        18,
        _at(0.4),
        sizes=(64, 128, 256, 512, 1024),
        n=64,
        warmup_epochs=2.0,
        options={"stem_stride": 2},
    )
    return {"ResNet-8": s, "ResNet-14": s.changed(options={"stem_stride": 2, "depth": 14})}


def _published() -> dict[str, Recipe]:
    """ImageNet as published; and the same protocol on all of CIFAR-10, which fits one GPU."""
    s = Recipe(
        "goyal.ResNet-50",
        DataSpec(name="imagenet", augment="goyal"),
        OWN["reference"],
        OWN["large"],
        OWN["epochs"],
        SGD,
        sizes=tuple(64 * 2**i for i in range(11)),
        own=True,
    )
    cifar = s.changed(
        model="goyal.ResNet",
        data=DataSpec(name="cifar10", n_train=45_000, n_validation=5000, augment="hoffer"),
        options={"depth": 14},
        sizes=tuple(64 * 2**i for i in range(10)),
        own=False,
    )
    return {"ResNet-50": s, "ResNet-101": s.changed(model="goyal.ResNet-101"), "ResNet-14": cifar}


def _at(rate: float) -> OptimizerSpec:
    return SGD.model_copy(update={"learning_rate": rate})
