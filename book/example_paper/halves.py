"""An example: a linear map foretells the lower half of a digit from its upper half, in small and in large batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from lbgap import measurements, networks, sources
from lbgap.measurements import Measurement, Passes
from lbgap.papers.paper import Axis, Figure, Quantity, Settings, Study, claims, dig
from lbgap.papers.recipe import Recipe, published_effect, published_table
from lbgap.sources import Source
from lbgap.spec import DataSpec, Measure, OptimizerSpec
from lbgap.stats import Difference
from lbgap.values import Count, Frozen

PROFILES = ("quick", "cpu")
FACTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
BATCHES = ("SB", "LB")


# ------------------------------------------------ what the paper brings along


def upper_and_lower_halves():
    """Inputs and targets of the training and of the test split."""
    from sklearn.datasets import load_digits

    pictures = load_digits().data.astype(np.float32) / 16
    upper, lower = np.split(pictures, 2, axis=1)
    return upper[:1400], lower[:1400], upper[1400:], lower[1400:]


def linear(shape, n_outputs):
    """A linear map."""
    from torch import nn

    return nn.Linear(*shape, n_outputs)


class NoArguments(Frozen):
    """What the measure may be told: nothing."""


def weight_norm(solution):
    """The Euclidean norm of all weights of a trained network."""
    squares = (p.detach().double().square().sum() for p in solution.model.parameters())
    return {"norm": float(sum(squares)) ** 0.5}


sources.register("halves", Source(1400, 397, (32,), 32, "regress", upper_and_lower_halves))
networks.register("halves.linear", linear)
measurements.register("weight_norm", Measurement(weight_norm, NoArguments, lambda _: Passes()))


# ------------------------------------------------ what it computes and shows


class PaperSettings(Settings):
    """What a re-runner may set, beside profile and seeds."""

    epochs: Count | None = None


def study(settings):
    """Table 1, a figure and two claims, from runs that differ in the batch alone."""
    quick = settings.profile == "quick"
    recipe = Recipe(
        network="linear",
        model="halves.linear",
        data=DataSpec(name="halves"),
        small=20,
        large=350,
        epochs=settings.epochs or (2 if quick else 10),
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.1),
        seeds=settings.seeds or (2 if quick else 5),
        own=not settings.demonstration,  # else its verdicts would be those of a reduced experiment
    )
    error = {batch: recipe.metric(batch) for batch in BATCHES}
    norm = {batch: weight_norm_of(recipe, batch) for batch in BATCHES}
    above, below = Difference("above"), Difference("below")
    reported = published_effect(FACTS, above, "linear", ("table1", "LB"), ("table1", "SB"))
    central = {"central": True}  # the effect that a reader of the claim should see
    rules = [
        ("E1", recipe.case("linear: test error, LB - SB", above, error["LB"], error["SB"], published=reported, **central)),
        ("E2", recipe.case("linear: norm of the weights, LB - SB", below, norm["LB"], norm["SB"], **central)),
    ]
    columns = {batch: lambda s, batch=batch: s.metric(batch) for batch in BATCHES}
    table = replace(published_table(FACTS, "table1", {"linear": recipe}, columns), digits=4)
    curves = tuple(recipe.curve("test error", batch, "test_error") for batch in BATCHES)
    figure = Figure("curves", "Test error during training", (Axis("test error", "epoch", "mean squared error"),), curves)
    return Study("halves", settings.profile, (table,), (figure,), claims(FACTS["claims"], rules))


def weight_norm_of(recipe, batch):
    """The measure at the end of each run."""
    return Quantity(recipe.each(lambda seed: Measure(kind="weight_norm", of=(recipe.train(batch, seed).at(),))), dig("norm"))
