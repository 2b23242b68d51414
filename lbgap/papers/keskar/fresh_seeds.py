"""K7 and K8 on ten seeds that no one had looked at (Q7): their rules, and one contrast named beforehand."""

from collections.abc import Iterator

from lbgap.papers.keskar.claims import trends
from lbgap.papers.paper import Case
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference

FIRST, SEEDS = 5, 10
CONTRAST = (150, 6000)  # batch sizes


def rules(s: Recipe) -> Iterator[tuple[str, Case]]:
    """The trends of K7 and K8 on the fresh seeds alone, and the test accuracy of batch 6,000 against 150."""
    fresh = s.changed(first_seed=FIRST, seeds=SEEDS)
    for _, setting in trends("F1, fresh seeds", fresh, ("K7", "K8")):
        yield "Q7", setting
    middle, whole = (fresh.accuracy(b) for b in CONTRAST)
    label = f"F1, fresh seeds: test accuracy, batch {CONTRAST[1]:,} - {CONTRAST[0]}"
    yield "Q7", fresh.case(label, Difference("below"), whole, middle, central=True)
