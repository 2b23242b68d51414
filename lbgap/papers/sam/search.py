"""Rates and radii searched at each batch size, on images held out of both splits and with seeds of their own.

The rate without SAM first; with SAM, where it was searched, rate and rho so that neither another radius at that rate nor
another rate at that radius is better. Foret et al. (section 3.1) search rho at the rate that is best without SAM; that line is
in the table too, and at the large batch of MNIST it ends lower, because SAM bears a higher rate there. The best of two seeds is
fixed in ``SEARCHES``; a test holds it to the records. The five seeds of every comparison are others.
"""

from dataclasses import dataclass

from lbgap.papers.paper import Quantity, Table
from lbgap.papers.recipe import Recipe
from lbgap.papers.sam.recipes import Arms, at_rate, with_sam

RHOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # Foret et al., section 3.1, and one below
SEEDS = {"first_seed": 10, "seeds": 2}


@dataclass(frozen=True)
class Choice:
    """What was best on held-out images: the rate without SAM, the rate and the radius with it (None: not searched)."""

    plain: float
    with_sam: float | None = None
    rho: float | None = None


@dataclass(frozen=True)
class Search:
    """The rates that were tried, and what was chosen at the small batch and at the large one."""

    rates: tuple[float, ...]
    SB: Choice
    LB: Choice


SEARCHES = {  # by data and optimizer
    ("mnist", "sgd"): Search((0.01, 0.03, 0.05, 0.1, 0.3), SB=Choice(0.03, 0.03, 0.02), LB=Choice(0.05, 0.1, 0.05)),
    ("mnist", "adam"): Search((3e-4, 1e-3, 3e-3, 1e-2, 3e-2), SB=Choice(3e-3), LB=Choice(1e-2)),
    ("cifar10.half", "sgd"): Search((0.003, 0.01, 0.03, 0.05, 0.1, 0.3), SB=Choice(0.01), LB=Choice(0.1, 0.1, 0.02)),
}


def searched(arms: Arms) -> Arms:
    """Those of the grid for which rates and radii were searched."""
    return {place: s for place, s in arms.items() if (s.data.name, s.optimizer.name) in SEARCHES}


def search(s: Recipe) -> Search:
    """That of the data and the optimizer of a recipe."""
    return SEARCHES[s.data.name, s.optimizer.name]


def choice(s: Recipe, batch: str) -> Choice:
    """What was chosen at a batch, "SB" or "LB"."""
    return getattr(search(s), batch)


def tuned(s: Recipe, batch: str) -> Recipe:
    """Without SAM, at the chosen rate of a batch."""
    return at_rate(s, choice(s, batch).plain)


def tuned_sam(s: Recipe, batch: str, m: int | None = None, **values) -> Recipe:
    """With SAM, at the chosen rate and radius of a batch."""
    of = choice(s, batch)
    return with_sam(at_rate(s, of.with_sam), **{"rho": of.rho, "m": m} | values)


def held_out(s: Recipe, batch: str) -> Quantity:
    """Accuracy on the held-out images at the end, percent."""
    return s.accuracy(batch, "validation", "running")


def rates(s: Recipe, batch: str) -> dict[float, Quantity]:
    """Held-out accuracy without SAM at each rate."""
    return {rate: held_out(at_rate(s.changed(**SEEDS), rate), batch) for rate in search(s).rates}


def radii(s: Recipe, batch: str, rate: float | None = None) -> dict[float, Quantity]:
    """Held-out accuracy with SAM at each radius, at the chosen rate with SAM or another."""
    at = at_rate(s.changed(**SEEDS), choice(s, batch).with_sam if rate is None else rate)
    return {rho: held_out(with_sam(at, rho), batch) for rho in RHOS}


def rates_with_sam(s: Recipe, batch: str) -> dict[float, Quantity]:
    """Held-out accuracy with SAM at the chosen radius, from one rate below the best ones without and with it to one above."""
    of, grid = choice(s, batch), search(s).rates
    low, high = sorted(grid.index(rate) for rate in (of.plain, of.with_sam))
    near = grid[max(0, low - 1) : high + 2]
    return {rate: held_out(with_sam(at_rate(s.changed(**SEEDS), rate), of.rho), batch) for rate in near}


def table(arms: Arms) -> Table:
    """Every point of the three searches."""
    cells = []
    for (n, optimizer), s in arms.items():
        for batch, size in (("SB", s.small), ("LB", s.large)):
            of = choice(s, batch)
            found = {f"rate {rate:g}": q for rate, q in rates(s, batch).items()}
            if of.with_sam:
                for at in (of.plain, of.with_sam):
                    found |= {f"rate {at:g}, rho {rho:g}": q for rho, q in radii(s, batch, at).items()}
                found |= {f"rate {rate:g}, rho {of.rho:g}": q for rate, q in rates_with_sam(s, batch).items()}
            words = f"{s.words}, rates and radii as named, 2 seeds that are not used again"
            cells += [s.cell(f"{n}, {optimizer}, {what}", f"batch {size}", q, words=words) for what, q in found.items()]
    return Table(
        "search", "Held-out accuracy at each rate without SAM, and with SAM at each radius and rate", "percent", tuple(cells)
    )
