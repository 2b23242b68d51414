"""The report's grid: its network, SGD and Adam, with and without SAM, batches from small to large, at one rate for all.

"Inference mode" is what the code the report used very probably does: both passes of the SAM step call the network without
``training=True``, so that dropout is off.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lbgap.papers.paper import Axis, Case, Figure, Quantity, Table, combined, constant, dig, ratio
from lbgap.papers.recipe import Recipe, point
from lbgap.papers.sam.recipes import ADAM, RHO, M, Recipes, at_rate, with_sam
from lbgap.spec import Job
from lbgap.stats import Difference, Equivalence, Ratio

ARMS = ("plain", "SAM", "SAM, inference mode")
LEAST = "cifar10.half"  # trained in profile cpu by SGD alone, and with SAM as published alone
EXAMPLES = 256  # on which sharpness is measured in profile cpu


def arm(s: Recipe, name: str, rho: float = RHO) -> Recipe:
    """One arm of the grid."""
    if name == "plain":
        return s
    return with_sam(s, rho) if name == "SAM" else with_sam(s, rho, inference_mode="both")


@dataclass(frozen=True)
class Place:
    """A network and an optimizer of the grid: how it is trained without SAM, at which batch sizes, in which arms."""

    recipe: Recipe
    batches: tuple[int, ...]
    names: tuple[str, ...] = ARMS

    @property
    def large(self) -> int:
        """The largest batch."""
        return self.batches[-1]


Places = dict[tuple[str, str], Place]  # by network and optimizer


def places(
    recipes: Recipes, sizes: tuple[int, ...], only: str | None = None, rate: float | None = None, own: bool = False
) -> Places:
    """Each optimizer, or ``only`` one, at its one rate, or all at another; ``own``: a re-runner's, with nothing left out."""
    out = {}
    for n, sgd in recipes.items():
        less = sgd.data.name == LEAST and not own
        for name, s in (("SGD", sgd), ("Adam", sgd.changed(optimizer=ADAM))):
            if only in (None, s.optimizer.name) and not (less and name == "Adam"):
                s = s if rate is None else at_rate(s, rate)
                out[n, name] = Place(s, sizes, ARMS[:2] if less else ARMS)
    return out


def loss(s: Recipe, batch: int | str, split: str = "test") -> Quantity:
    """Final mean loss on a split, nats."""
    return s.of_runs(batch, dig(f"final.{split}.running.loss"))


def sharp(s: Recipe, batch: int | str) -> Quantity:
    """Keskar's metric at 1e-3, on a sample of the training images where there is a subset."""
    arguments = {"examples": EXAMPLES} if s.own_subset else {}
    return s.measured(batch, "sharpness", epsilon=1e-3, batch_norm="running", **arguments)


def table(arms: Places, rho: float) -> Table:
    """Accuracy, losses and sharpness of every place of the grid."""
    cells = []
    for (n, optimizer), place in arms.items():
        s = place.recipe
        for b in place.batches:
            for name in place.names:
                of, row = arm(s, name, rho), f"{n}, {optimizer}, batch {b}, {name}"
                columns = {"train loss": loss(of, b, "train"), "test loss": loss(of, b)}
                columns |= {"test": of.accuracy(b, "test", "running"), "eps1e-3": sharp(of, b)}
                cells += s.cells(row, columns)
    return Table("grid", "The report's grid at one rate for all batches", "nats; percent; metric 2.1", tuple(cells))


def figures(arms: Places, rho: float) -> list[Figure]:
    """The report's four figures: losses and sharpness for SGD and for Adam, a panel an arm."""
    drawn = []
    for optimizer in dict.fromkeys(name for _, name in arms):
        of = {n: place for (n, name), place in arms.items() if name == optimizer}
        losses, sharpnesses, panels, flat = [], [], [], []
        for n, place in of.items():
            flat.append(Axis(n, "batch size", "sharpness, metric 2.1", log_x=True, log_y=True))
            for name in place.names:
                panels.append(Axis(f"{n}, {name}", "batch size", "loss, nats", log_x=True))
                runs = arm(place.recipe, name, rho)
                for b in place.batches:
                    losses += [point(panels[-1].name, split, b, loss(runs, b, split)) for split in ("train", "test")]
                    sharpnesses.append(point(n, name, b, sharp(runs, b)))
        key = optimizer.lower()
        drawn.append(Figure(f"losses_{key}", f"{optimizer}: training and test loss", tuple(panels), tuple(losses), "interval"))
        drawn.append(Figure(f"sharpness_{key}", f"{optimizer}: sharpness", tuple(flat), tuple(sharpnesses), "interval"))
    return drawn


def rules(arms: Places, rho: float) -> Iterator[tuple[str, Case]]:
    """V1 to V4. The report names neither data nor rates nor rho: every scope is ``reading``."""
    mode, first = "inference mode", next(iter(arms.values()))
    for (n, optimizer), place in arms.items():
        s, large = place.recipe, place.large
        fields = {"scope": "reading", "unit": "nats", "where": s.words}
        central = place is first
        label = f"{n}, {optimizer}: test loss, batch {large} - {place.batches[0]}"
        yield "V1", s.case(label, Difference("above"), loss(s, large), loss(s, place.batches[0]), central=central, **fields)
        for name in place.names[1:]:
            reading = mode if name == ARMS[-1] else ""
            of, shown = arm(s, name, rho), f", {reading}" if reading else ""
            again = {"reading": reading}
            if optimizer == "SGD":
                for b in place.batches:
                    label = f"{n}{shown}, batch {b}: test loss, SAM - plain"
                    is_central = central and b == large and not reading
                    sides = (loss(of, b), loss(s, b))
                    yield "V2", of.case(label, Difference("above"), *sides, central=is_central, **fields, **again)
            label = f"{n}, {optimizer}{shown}, batch {large}: sharpness, SAM / plain"
            is_central = central and not reading
            ratio = fields | {"unit": "times"}
            yield "V3", of.case(label, Ratio(1), sharp(of, large), sharp(s, large), central=is_central, **ratio, **again)
            if optimizer == "Adam" and (n, "SGD") in arms:
                sgd = arm(arms[n, "SGD"].recipe, name, rho)
                for b in place.batches:
                    label = f"{n}{shown}, batch {b}: test loss with SAM, Adam - SGD"
                    is_central = b == large and not reading
                    sides = (loss(of, b), loss(sgd, b))
                    yield "V4", of.case(label, Difference("above"), *sides, central=is_central, **fields, **again)


def parts_table(arms: Places, rho: float, m: int | None) -> Table:
    """The largest batch with SAM, one perturbation for all of it and one for each ``m`` examples."""
    cells = []
    for (n, optimizer), place in arms.items():
        s, large = place.recipe, place.large
        for part in (large, M if m is None else m):
            of = with_sam(s, rho, None if part == large else part)
            cells.append(s.cell(f"{n}, {optimizer}, m = {part}", "test", of.accuracy(large, "test", "running")))
    return Table("parts", "m-SAM at the largest batch", "percent", tuple(cells))


def reference(s: Recipe) -> tuple[Job, ...]:
    """A short run with SAM and its sharpness, whose numbers come out again anywhere."""
    (run,), (measure,) = (jobs[0] for jobs in (arm(s, "SAM").runs("LB"), sharp(arm(s, "SAM"), "LB").jobs))
    return run, measure


def seconds(s: Recipe, batch: int | str) -> Quantity:
    """Processor time of each run, evaluations included, in seconds; not a number for a run that trained beside others."""
    return s.of_runs(batch, lambda r: r["provenance"].get("processor_seconds", math.nan))


def time_table(arms: Places, rho: float) -> Table:
    """Processor time with and without SAM, and the ratio."""
    cells = []
    for (n, optimizer), place in arms.items():
        s = place.recipe
        for b in place.batches:
            plain, sam = seconds(s, b), seconds(arm(s, "SAM", rho), b)
            columns = {"plain": plain, "SAM": sam, "SAM / plain": ratio(sam, plain)}
            cells += s.cells(f"{n}, {optimizer}, batch {b}", columns)
    return Table("time", "Processor time of whole runs", "seconds; times", tuple(cells))


def time_rules(arms: Places, rho: float) -> Iterator[tuple[str, Case]]:
    """V5: "about twice" is read as 1.5 to 2.5 times."""
    for (n, optimizer), place in arms.items():
        s = place.recipe
        if optimizer == "SGD":
            for b in place.batches:
                times = combined(lambda a, b: a / b - 2, seconds(arm(s, "SAM", rho), b), seconds(s, b))
                label = f"{n}, batch {b}: processor time, SAM / plain, minus 2"
                fields = {
                    "scope": "reading",
                    "unit": "times",
                    "where": s.words,
                    "central": b == place.large and n != "CIFAR-10",
                }
                yield "V5", s.case(label, Equivalence(0.5), times, constant(times), **fields)
