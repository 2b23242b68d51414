"""The rate tuned at each batch size (Q6): the objection of Shallue et al. (2019) to every comparison at one rate for all.

C1 on 2,500 images of each seed's own; rates are chosen on 2,500 others that belong to neither split, by the mean of the last
five evaluations over the other seeds, and the test accuracy reported is the mean of the last five evaluations too.
"""

from collections.abc import Iterator

import numpy as np

from lbgap.papers.keskar.data_size import BF16
from lbgap.papers.keskar.recipes import ADAM, BATCHES
from lbgap.papers.paper import Case, Quantity, Table, best_on_the_others, difference
from lbgap.papers.recipe import Recipe
from lbgap.spec import DataSpec
from lbgap.stats import Difference

# Of LB the highest of the first three was among the best on held-out images, so that its grid grew; SB's best is the middle.
RATES = {"SB": (2.5e-4, 1e-3, 4e-3), "LB": (2.5e-4, 1e-3, 4e-3, 1.6e-2)}
LAST = 5  # evaluations
RECIPE = Recipe(
    "keskar.C1",
    DataSpec(name="cifar10", n_train=2500, n_validation=2500),
    13,
    250,
    60,
    ADAM,
    seeds=8,
    own_subset=True,
    evaluate_every=5,
    fixed=BF16,
    network="C1",
)


def at_rate(rate: float, s: Recipe = RECIPE) -> Recipe:
    """A recipe at another rate of Adam."""
    return s.changed(optimizer=ADAM.model_copy(update={"learning_rate": rate}))


def late(s: Recipe, batch: str, split: str) -> Quantity:
    """Accuracy on a split, percent: the mean of the last evaluations."""
    return s.late(batch, f"{split}_accuracy", LAST, np.mean)


def tuned(batch: str) -> Quantity:
    """Test accuracy at the rate that is best on the held-out images of the other seeds."""
    of = {split: [late(at_rate(rate), batch, split) for rate in RATES[batch]] for split in ("test", "validation")}
    return best_on_the_others(of["test"], by=of["validation"])


def table() -> Table:
    """Held-out and test accuracy of both batches at each rate, and at the chosen one."""
    cells = []
    for rate in RATES["LB"]:
        s, batches = at_rate(rate), [b for b in BATCHES if rate in RATES[b]]
        columns = {f"{split}_{b}": late(s, b, split) for split in ("validation", "test") for b in batches}
        if len(batches) > 1:
            columns["test, LB - SB"] = difference(columns["test_LB"], columns["test_SB"])
        cells += s.cells(f"C1, Adam at {rate:g}", columns)
    columns = {f"test_{b}": tuned(b) for b in BATCHES}
    columns["test, LB - SB"] = difference(columns["test_LB"], columns["test_SB"])
    cells += RECIPE.cells("C1, the best on held-out images", columns)
    return Table("tuned", "C1 with the rate tuned at each batch size", "percent; points", tuple(cells))


def rules() -> Iterator[tuple[str, Case]]:
    """Q6: K1's rule at tuned rates, beside the one rate for all."""
    lower = Difference("below")
    yield "Q6", RECIPE.case("C1, rates tuned: test accuracy, LB - SB", lower, tuned("LB"), tuned("SB"), central=True)
    one = (late(RECIPE, b, "test") for b in ("LB", "SB"))
    yield "Q6", RECIPE.case("C1, one rate: test accuracy, LB - SB", lower, *one)
