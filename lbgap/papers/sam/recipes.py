"""What a profile trains: the report's network on two data sets, with and without SAM; in ``paper`` Foret et al.'s too."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from lbgap.papers.paper import Networks, Settings
from lbgap.papers.recipe import Recipe, named
from lbgap.spec import DataSpec, OptimizerSpec, SamSpec

FACTS = yaml.safe_load(Path(__file__).parent.with_suffix(".yaml").read_text())
BATCHES = (32, 96, 256)
# the report's own way: one rate for every batch, the best of batch 32 for SGD, Keras' default for Adam
SGD_RATES = {"digits": 0.03, "MNIST": 0.03, "CIFAR-10": 0.01}
ADAM = OptimizerSpec(name="adam", learning_rate=1e-3)
RHO = 0.05  # of Foret et al., and of the code that the report used
M = 32  # Foret et al.'s: a batch of 256 on 8 devices
DATA = {"MNIST": "mnist", "CIFAR-10": "cifar10"}
# of profile cpu: the data and how many images, settled with the ten epochs on seed 100, which is not used. Of fewer images of
# CIFAR-10 the large batch learned next to nothing; half the resolution is four times cheaper.
SUBSETS = {"MNIST": ("mnist", 1024), "CIFAR-10": ("cifar10.half", 4096)}
Recipes = dict[str, Recipe]  # by network
Arms = dict[tuple[str, str], Recipe]  # by network and optimizer


class PaperSettings(Settings):
    """What a re-runner may set for this chapter; the first of ``batches`` is the small one, the last the large one."""

    networks: Networks = None
    batches: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2)] | None = None
    optimizer: Literal["sgd", "adam"] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    rho: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    m: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _m_within_the_large_batch(self):
        if self.batches and list(self.batches) != sorted(set(self.batches)):
            raise ValueError(f"batches is {', '.join(map(str, self.batches))}; accepted are increasing ones")
        large = self.sizes[-1]
        if self.m and self.m > large:
            raise ValueError(f"m is {self.m}; accepted is 1 to the largest batch's {large}")
        if self.m is None and large < M:
            sizes = ", ".join(map(str, self.batches))
            raise ValueError(f"batches is {sizes}; accepted is a largest of {M} or more, or an m of its own")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes of the grid."""
        return self.batches or ((32, 256) if self.profile == "quick" else BATCHES)


def recipes_of(settings: PaperSettings) -> Recipes:
    """The report's network on each data set of a profile, trained by SGD, a re-runner's own settings laid over it."""
    sizes = settings.sizes
    recipes = {
        "quick": lambda: {
            "digits": _recipe("digits", DataSpec(name="digits", n_train=720), sizes, 8, bf16=False).changed(
                options={"padding": 1}, seeds=2
            )
        },
        "cpu": lambda: {
            n: _recipe(n, DataSpec(name=d, n_train=size, n_test=2000, n_validation=500), sizes, 10).changed(own_subset=True)
            for n, (d, size) in SUBSETS.items()
        },
        "paper": lambda: {
            n: _recipe(n, DataSpec(name=d, n_train=held_out, n_validation=5000), sizes, 100, bf16=False)
            for (n, d), held_out in zip(DATA.items(), (55_000, 45_000), strict=True)
        },
    }[settings.profile]()
    return {n: s.changed(epochs=settings.epochs, seeds=settings.seeds) for n, s in named(recipes, settings).items()}


def _recipe(network: str, data: DataSpec, sizes: tuple[int, ...], epochs: int, bf16: bool = True) -> Recipe:
    sgd = OptimizerSpec(name="sgd", learning_rate=SGD_RATES[network], momentum=0.9)
    fixed = {"precision": "bfloat16"} if bf16 else {}
    return Recipe("vienna.CNN", data, sizes[0], sizes[-1], epochs, sgd, evaluate_every=max(1, epochs // 2), fixed=fixed)


def with_sam(s: Recipe, rho: float = RHO, m: int | None = None, **values) -> Recipe:
    """The same runs with SAM, a perturbation for each ``m`` examples where that is given."""
    s = s.fixing(sam=SamSpec(rho=rho, **values))
    return s if m is None else s.fixing(slice_size=m)


def at_rate(s: Recipe, rate: float) -> Recipe:
    """The same runs at another rate."""
    return s.changed(optimizer=s.optimizer.model_copy(update={"learning_rate": rate}))
