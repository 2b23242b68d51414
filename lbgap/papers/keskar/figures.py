"""Figures: sharpness against the gap, training curves, distance, parametric plots, and Figs 4 to 6 (batch size, warm start,
along training)."""

import numpy as np

from lbgap.papers.keskar.data_size import WHOLE, at_size
from lbgap.papers.keskar.recipes import BATCHES, EPSILONS, FACTS, ROBUST, VARIANTS, Recipes, augment, conserve, robustly, vary
from lbgap.papers.paper import Axis, Figure, Jobs, Quantity, Series, combined, difference, dig, published
from lbgap.papers.recipe import Recipe, point
from lbgap.spec import Measure, Train

EPOCHS = (1, 2, 5, 10, 20, 50, 100)  # Figs 5 and 6


def gap_and_sharpness(recipes: Recipes, along: Recipes, treated: Recipes) -> Figure:
    """The argument of the paper: the large batch's sharpness against what it lacks of the small batch's test accuracy.

    The networks as they are (Tables 2 and 3), C1 by the number of images, with a remedy (Tables 6 and 7; E.3), and F1 of
    ``along`` with one thing changed.
    A large batch with a remedy is compared with the small one that its table has beside it.
    """
    plain, remedied, varied = (
        Axis(name, "LB - SB in test accuracy, points", "LB's sharpness, epsilon 1e-3", log_y=True)
        for name in ("the networks as they are", "with a remedy", "F1 with one thing changed")
    )
    # C1 at each size at which sharpness is measured on all of its images
    shown = [s for n, s in recipes.items() if n != "C1"] + ([at_size(n) for n in WHOLE] if "C1" in recipes else [])
    pairs = {(plain, s.title): (s, s) for s in shown}
    for n, s in treated.items():
        if n.startswith("C"):  # the others are not augmented
            pairs[remedied, f"{n}, augmented"] = augment(s), augment(s)
        pairs[remedied, f"{n}, conservative"] = conserve(s), s
    if "F1" in recipes:
        pairs |= {(remedied, f"F1, {kind}"): (robustly(recipes["F1"], kind), recipes["F1"]) for kind in ROBUST}
        pairs |= {(varied, variant): (vary(along["F1"], variant),) * 2 for variant in VARIANTS}
    series = [_dots(axis.name, line, large, small) for (axis, line), (large, small) in pairs.items()]
    panels = tuple(dict.fromkeys(axis for axis, _ in pairs))
    reported = [(plain, "published", ("table2", "table3"))]
    reported += [(remedied, "published, augmented", ("table6",)), (remedied, "published, conservative", ("table7",))]
    for axis, line, tables in reported:
        series += [published(axis.name, xy, line=f"{line}: {n}") for n, xy in _published(*tables).items() if axis in panels]
    return Figure("gap_and_sharpness", "Sharpness against the gap", panels, tuple(series), mark="point")


def _dots(panel: str, line: str, large: Recipe, small: Recipe) -> Series:
    """A point a seed: the gap between two recipes' batches, and the large one's sharpness."""
    gap = difference(large.accuracy("LB"), small.accuracy("SB"))
    both = combined(lambda *point: point, gap, large.sharp("LB"))
    return Series(panel, line, both.jobs, lambda *results: [both.value(*results)])


def _published(*tables: str) -> dict[str, tuple[float, float]]:
    """By network: LB - SB in test accuracy and LB's sharpness, from the columns of the paper's tables."""
    rows: dict[str, dict[str, list[float]]] = {}
    for of in (FACTS["tables"][name] for name in tables):
        for network, values in of["rows"].items():
            rows.setdefault(network, {}).update(zip(of["columns"], values, strict=True))
    return {n: (r["test_LB"][0] - r["test_SB"][0], r["eps1e-3_LB"][0]) for n, r in rows.items()}


def curves(recipes: Recipes) -> Figure:
    """Training loss and test accuracy by epoch."""
    panels, series = [], []
    for n, s in recipes.items():
        panels += [
            Axis(f"{n}, training loss", "epoch", "cross entropy (nats)", log_y=True),
            Axis(f"{n}, test accuracy", "epoch", "percent"),
        ]
        for b in BATCHES:
            series += [s.curve(panels[-2].name, b, "train_loss"), s.curve(panels[-1].name, b, "test_accuracy")]
    return Figure("curves", "Training curves", tuple(panels), tuple(series))


def distance(recipes: Recipes) -> Figure:
    """Distance from the start by update, small and large batch."""
    panels = tuple(Axis(n, "update", "distance from the start", log_x=True, log_y=True) for n in recipes)
    return Figure(
        "distance",
        "Distance from the starting point",
        panels,
        tuple(s.travelled(n, b) for n, s in recipes.items() for b in BATCHES),
    )


SHAPES = ("linear", "curvilinear")


def path(recipe: Recipe, shape: str) -> Jobs:
    """The measurement along one path from each seed's small-batch solution to its large-batch solution."""
    return recipe.each(
        lambda seed: Measure(
            kind="path", arguments={"shape": shape}, of=(recipe.train("SB", seed).at(), recipe.train("LB", seed).at())
        )
    )


def paths(recipes: Recipes) -> Figure:
    """Parametric plots (2.2.1 and appendix D)."""
    panels, series = [], []
    for n, s in recipes.items():
        for shape in SHAPES:
            panels.append(Axis(f"{n}, {shape}", "alpha (0: SB, 1: LB)", "cross entropy (nats)", log_y=True))
            series += [
                Series(
                    panels[-1].name,
                    split,
                    path(s, shape),
                    lambda r, k=f"{split}_loss": zip(r.get("alpha", ()), r.get(k, ()), strict=True),
                )
                for split in ("train", "test")
            ]
    return Figure("paths", "Parametric plots", tuple(panels), tuple(series))


def batch_sizes(recipe: Recipe) -> list[int]:
    """Batch sizes of Fig. 4: log-spaced, from the small batch to about where F2's and C1's axes end."""
    if recipe.data.n_train:
        return [26, 60, 150, 300, 600, 1500, 6000]
    most = {"keskar.F2": 72_133, "keskar.C1": 5_000}[recipe.model]
    return sorted({round(b) for b in np.geomspace(recipe.small, most, 8)})


def _two_panels(network: str, x: str) -> tuple[Axis, Axis]:
    return (
        Axis(f"{network}, test accuracy", x, "percent", log_x=True),
        Axis(f"{network}, sharpness", x, "metric 2.1", log_x=True, log_y=True),
    )


def batch_sweep(recipes: Recipes) -> Figure:
    """Fig. 4: accuracy and sharpness by batch size."""
    panels, series = [], []
    for n, s in recipes.items():
        accuracy, sharpness = _two_panels(n, "batch size")
        panels += [accuracy, sharpness]
        for b in batch_sizes(s):
            series.append(point(accuracy.name, "test accuracy", b, s.accuracy(b)))
            series += [point(sharpness.name, f"epsilon {e:g}", b, s.sharp(b, e)) for e in EPSILONS.values()]
    return Figure("batch_sweep", "Accuracy and sharpness against batch size", tuple(panels), tuple(series))


def epochs_shown(recipe: Recipe) -> list[int]:
    """The epochs of Figs 5 and 6 that a recipe has."""
    return [e for e in EPOCHS if e <= recipe.epochs]


def sharpness_after(recipe: Recipe, batch: str, epoch: int) -> Jobs:
    """Sharpness of each seed's run after an epoch."""
    return recipe.each(lambda seed: recipe.sharpness(recipe.train(batch, seed), epoch=epoch))


def along(recipes: Recipes) -> Figure:
    """Fig. 6: sharpness against loss, at some epochs of training."""
    panels = tuple(Axis(n, "training loss", "metric 2.1, epsilon 1e-3", log_x=True, log_y=True) for n in recipes)
    series = tuple(
        Series(n, b, sharpness_after(s, b, e), lambda r: [(r["loss"], r["value"])] if "value" in r else [])
        for n, s in recipes.items()
        for b in BATCHES
        for e in epochs_shown(s)
    )
    return Figure("along", "Sharpness against loss along training", panels, series, mark="point")


def _warm(recipe: Recipe, seed: int, epoch: int) -> Train:
    """A large-batch run that starts from the small batch's weights after ``epoch`` epochs."""
    return recipe.train("LB", seed, start=recipe.train("SB", seed).at(epoch))


def warm_started(recipe: Recipe, epoch: int) -> tuple[Quantity, Quantity]:
    """Test accuracy and sharpness of the warm-started run."""
    return (
        Quantity(recipe.each(lambda seed: _warm(recipe, seed, epoch)), dig("final.test.batch.accuracy")),
        Quantity(recipe.each(lambda seed: recipe.sharpness(_warm(recipe, seed, epoch))), dig("value")),
    )


def warm_start(recipes: Recipes) -> Figure:
    """Fig. 5: accuracy and sharpness by the epoch of the small batch that the large one starts from."""
    panels, series = [], []
    for n, s in recipes.items():
        both = _two_panels(n, "SB epochs before the switch")
        panels += both
        for e in epochs_shown(s):
            series += [
                point(axis.name, "LB from the SB iterate", e, quantity)
                for axis, quantity in zip(both, warm_started(s, e), strict=True)
            ]
    return Figure("warm_start", "Large batch from small-batch iterates", tuple(panels), tuple(series))
