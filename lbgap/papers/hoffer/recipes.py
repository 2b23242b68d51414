"""What a profile trains of Hoffer et al. 2017: networks, published regimes, and the columns of Table 1."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from lbgap.papers.paper import Networks, Quantity, Settings
from lbgap.papers.recipe import Batch, Recipe, named
from lbgap.schedule import square_root_scaling
from lbgap.spec import DataSpec, OptimizerSpec

FACTS = yaml.safe_load(Path(__file__).parent.with_suffix(".yaml").read_text())
COLUMNS = ("SB", "LB", "+LR", "+GBN", "+RA")
DATA = {
    "F1": "mnist",
    "C1": "cifar10",
    "ResNet44": "cifar10",
    "VGG": "cifar10",
    "C3": "cifar100",
    "WResNet16-4": "cifar100",
    "AlexNet 4096": "imagenet",
    "AlexNet 8192": "imagenet",
}
# whose layers or epochs the paper does not give
GUESSED = ("VGG", "AlexNet 4096", "AlexNet 8192")
MODELS = {"ResNet44": "ResNet", "WResNet16-4": "WResNet", "AlexNet 4096": "AlexNet", "AlexNet 8192": "AlexNet"}
Column = tuple[Recipe, Batch]
Recipes = dict[str, Recipe]


class PaperSettings(Settings):
    """What a re-runner may set for this chapter."""

    networks: Networks = None
    small_batch: Annotated[int, Field(ge=1)] | None = None
    batch_ratio: Annotated[int, Field(ge=1)] | None = None
    ghost_batch_size: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None


def recipes_of(settings: PaperSettings) -> Recipes:
    """The networks of a profile, with a re-runner's own settings laid over them."""
    recipes = {
        "quick": lambda: {
            "F1": _recipe("F1", DataSpec(name="digits"), 32, 16, epochs=20, bf16=False)
            .changed(seeds=3, evaluate_every=4)
            .changed(options={"width": 128})
        },
        # F1 keeps the published small batch, to which its rates belong; at that batch 2,000 images give C1 960 updates in
        # all, without momentum, so its small batch is 16. Sizes were settled on a seed that is not used.
        "cpu": lambda: {
            "F1": _recipe("F1", DataSpec(name="mnist", n_train=6000, augment="hoffer"), 128, 16).changed(evaluate_every=5),
            "C1": _recipe("C1", DataSpec(name="cifar10", n_train=2000, augment="hoffer"), 16, 8, epochs=60).changed(
                evaluate_every=20
            ),
        },
        "paper": lambda: {
            n: _recipe(n, DataSpec(name=d, augment="hoffer"), 128, 64 if "8192" in n else 32, bf16=False).changed(
                own=n not in GUESSED
            )
            for n, d in DATA.items()
        },
    }[settings.profile]()
    chosen = {}
    for n, s in named(recipes, settings).items():
        small = settings.small_batch or s.small
        rate = {"learning_rate": settings.learning_rate or s.optimizer.learning_rate}
        chosen[n] = s.changed(
            small=small,
            large=small * (settings.batch_ratio or s.large // s.small),
            epochs=settings.epochs,
            seeds=settings.seeds,
            # the later rates keep their ratio to the first
            regime=_scaled(s.regime, rate["learning_rate"] / s.optimizer.learning_rate, settings.epochs, s.epochs),
            optimizer=s.optimizer.model_copy(update=rate),
            own=s.own and not settings.own,
        )
    return {n: s.changed(ghosts=settings.ghost_batch_size or s.small) for n, s in chosen.items()}


def _recipe(network: str, data: DataSpec, small: int, ratio: int, epochs: int | None = None, bf16: bool = True) -> Recipe:
    """A network under its published regime, its boundaries shrunk with the number of epochs."""
    name = network.split()[0]
    facts = FACTS["regimes"][name]
    start = OptimizerSpec(name="sgd", clip_norm=5.0, **facts["start"])
    then = tuple((epoch, values) for epoch, values in facts["then"])
    return Recipe(
        f"hoffer.{MODELS.get(network, network)}",
        data,
        small,
        small * ratio,
        epochs or facts["epochs"],
        start,
        evaluate_every=2,
        regime=_scaled(then, 1.0, epochs, facts["epochs"]),
        fixed={"curve_reading": "running"} | ({"precision": "bfloat16"} if bf16 else {}),
    )


def _scaled(regime, factor: float, epochs: int | None, before: int):
    """Rates times ``factor``, boundaries in proportion to the number of epochs."""
    share = (epochs or before) / before
    out = {}
    for epoch, values in regime:
        changed = {k: v * factor if k == "learning_rate" else v for k, v in values.items()}
        out.setdefault(max(1, round(epoch * share)), {}).update(changed)  # boundaries that fall together add up
    return tuple(out.items())


def column(s: Recipe, name: str) -> Column:
    """The recipe and the batch size of one column of Table 1; each remedy is added to the ones before it."""
    if name in ("SB", "LB"):
        return s, name
    s = s.changed(factor=square_root_scaling(1.0, s.large, s.small))
    if name in ("+GBN", "+RA"):
        s = s.fixing(ghost_batch_size=s.ghosts)
    return (s.changed(adapted=True) if name == "+RA" else s), "LB"


def accuracy(of: Column) -> Quantity:
    """Final validation accuracy, percent, with running averages."""
    recipe, batch = of
    return recipe.accuracy(batch, "test", "running")
