"""How much data does the gap need? C1 on growing parts of CIFAR-10, whether bfloat16 may train it, and C3 (Q1, Q2, Q9).

The paper's gaps are those of 50,000 images. Each seed draws its own training images, so that the intervals hold the variance
of the subset too. Batches grow with the data: 256 and a tenth of it at full size.
"""

from collections.abc import Iterator

from lbgap.papers.keskar.recipes import ADAM, BATCHES, BF16, DATA, FACTS, Recipes
from lbgap.papers.keskar.tables import READINGS, gap
from lbgap.papers.paper import Axis, Case, Figure, Quantity, Table, combined, difference, published, ratio
from lbgap.papers.recipe import Recipe, point
from lbgap.spec import DataSpec
from lbgap.stats import Difference, Equivalence, Ratio, Trend

SIZES = (2_500, 10_000, 25_000, 50_000)
FULL = 50_000
C3_SIZE = 10_000  # where C1's gap was known when Q9 was fixed
SAMPLE = 10_000  # training images, drawn once, on which sharpness is measured too where there are more
WHOLE = (2_500, 10_000, 50_000)  # on which it is measured on all of them


def at_size(n: int, network: str = "C1") -> Recipe:
    """A network on ``n`` images of each seed's own, the paper's 100 epochs and ratio of data to batch; ``FULL`` is its own."""
    small, large = round(256 * n / FULL), n // 10
    data = DataSpec(name=DATA[network], n_train=None if n == FULL else n)
    fixed = {"own_subset": n < FULL, "own": n == FULL, "fixed": BF16, "network": network}
    return Recipe(f"keskar.{network}", data, small, large, 100, ADAM, evaluate_every=5, **fixed)


def with_the_papers(recipes: Recipes) -> list[Recipe]:
    """The networks, and before a smaller C1 the one of the paper's size."""
    return [of for n, s in recipes.items() for of in ((at_size(FULL), s) if n == "C1" and s.data.n_train else (s,))]


def sampled(s: Recipe, batch: str) -> Quantity:
    """Sharpness at epsilon 1e-3 on a fixed sample of a larger training set."""
    return s.sharp(batch, examples=SAMPLE)


def sharpness_ratio(s: Recipe) -> Quantity:
    """LB / SB, full space, epsilon 1e-3."""
    return ratio(s.sharp("LB"), s.sharp("SB"))


def table() -> Table:
    """Accuracies, the gap under three readings, and sharpness by the number of images."""
    cells = []
    for network, n in (*(("C1", n) for n in SIZES), ("C3", C3_SIZE)):
        s = at_size(n, network)
        columns = {f"{split}_{b}": s.accuracy(b, split) for split in ("train", "test") for b in BATCHES}
        columns |= {f"LB - SB, {words}": gap(s, reading) for words, reading in READINGS.items()}
        if n in WHOLE:
            columns |= {f"eps1e-3_{b}": s.sharp(b) for b in BATCHES} | {"LB / SB": sharpness_ratio(s)}
        if n > SAMPLE:
            columns |= {f"eps1e-3_{b}, on {SAMPLE:,}": sampled(s, b) for b in BATCHES}
        columns["distance, SB / LB"] = distance_ratio(s)
        cells += s.cells(f"{network}, {n:,} images", columns)
    title = "C1 by the number of training images, and C3: 100 epochs, in bfloat16"
    return Table("data_size", title, "percent; points; metric 2.1; ratio", tuple(cells))


def distance_ratio(s: Recipe) -> Quantity:
    """SB / LB, distance of the solution from the start."""
    return ratio(s.distance("SB"), s.distance("LB"))


def figure() -> Figure:
    """The gap, the ratio of sharpness, and the sharpness of each, against the number of images; the published at the end."""
    panels = (
        Axis("C1, test accuracy", "training images", "LB - SB, points", log_x=True),
        Axis("C1, sharpness", "training images", "LB / SB, epsilon 1e-3", log_x=True, log_y=True),
        Axis("C1, sharpness of each", "training images", "sharpness, epsilon 1e-3", log_x=True, log_y=True),
    )
    accuracy, sharpness = (
        dict(zip(FACTS["tables"][name]["columns"], FACTS["tables"][name]["rows"]["C1"], strict=True))
        for name in ("table2", "table3")
    )
    reported = (accuracy["test_LB"][0] - accuracy["test_SB"][0], sharpness["eps1e-3_LB"][0] / sharpness["eps1e-3_SB"][0])
    series = []
    for axis, of, at_the_end in zip(panels[:2], (gap, sharpness_ratio), reported, strict=True):
        series += [point(axis.name, "ours", n, of(at_size(n))) for n in (SIZES if of is gap else WHOLE)]
        series.append(published(axis.name, (FULL, at_the_end)))
    for b in BATCHES:
        series += [point(panels[2].name, b, n, at_size(n).sharp(b)) for n in WHOLE]
        series.append(published(panels[2].name, (FULL, sharpness[f"eps1e-3_{b}"][0]), line=f"{b}, published"))
    return Figure("growth", "The gap against the number of training images", panels, tuple(series), mark="interval")


def rules() -> Iterator[tuple[str, Case]]:
    """Q1: C1's gap falls from size to size, and is there at each; Q9: C3's at one size, by the rules of K1 and K4."""
    sizes = [at_size(n) for n in SIZES]
    largest, gaps = sizes[-1], [gap(s) for s in sizes]
    if len(SIZES) > 2:
        row = combined(lambda *values: values, *gaps)
        yield "Q1", largest.case("C1: LB - SB against the number of images", Trend("falling"), row)
    label = f"C1: LB - SB, {SIZES[-1]:,} - {SIZES[0]:,} images"
    yield "Q1", largest.case(label, Difference("below"), gaps[-1], gaps[0], central=True)
    for n, s in zip(SIZES, sizes, strict=True):
        large, small = (s.accuracy(b) for b in ("LB", "SB"))
        yield "Q1", s.case(f"C1, {n:,} images: test accuracy, LB - SB", Difference("below"), large, small)
    c3 = at_size(C3_SIZE, "C3")
    (large, small), label = (c3.accuracy(b) for b in ("LB", "SB")), f"C3, {C3_SIZE:,} images"
    yield "Q9", c3.case(f"{label}: test accuracy, LB - SB", Difference("below"), large, small, central=True)
    yield "Q9", c3.case(f"{label}: sharpness, LB / SB", Ratio(10), *(c3.sharp(b) for b in ("LB", "SB")))


# ---------------------------------------------------------------- may bfloat16 train it?


def _both(recipes: Recipes) -> Iterator[tuple[str, Recipe, Recipe]]:
    """The batch, and C1 as in the other tables in float32 and in bfloat16."""
    for b in BATCHES if "C1" in recipes else ():
        yield b, recipes["C1"], recipes["C1"].fixing(**BF16)


def precision_table(recipes: Recipes) -> Table:
    """Accuracy and sharpness of C1's solutions, trained in each precision; both are measured in float32."""
    cells = []
    for b, s, other in _both(recipes):
        columns = {"test, float32": s.accuracy(b), "test, bfloat16": other.accuracy(b)}
        columns["test, difference"] = difference(other.accuracy(b), s.accuracy(b))
        columns |= {"eps1e-3, float32": s.sharp(b), "eps1e-3, bfloat16": other.sharp(b)}
        columns["sharpness, ratio"] = ratio(other.sharp(b), s.sharp(b))
        cells += s.cells(f"{s.title}, {b}", columns)
    return Table("precision", "C1 trained in float32 and in bfloat16", "percent; points; metric 2.1; ratio", tuple(cells))


def precision_rules(recipes: Recipes) -> Iterator[tuple[str, Case]]:
    """Q2: accuracy within a point, sharpness within a factor of two, for both batches."""
    for b, s, other in _both(recipes):
        label = f"C1, {b}: test accuracy, bfloat16 - float32"
        yield "Q2", other.case(label, Equivalence(1.0), other.accuracy(b), s.accuracy(b), central=b == "LB")
        label = f"C1, {b}: sharpness, bfloat16 / float32"
        yield "Q2", other.case(label, Ratio(0.5), other.sharp(b), s.sharp(b))
        yield "Q2", other.case(f"C1, {b}: sharpness, float32 / bfloat16", Ratio(0.5), s.sharp(b), other.sharp(b))
