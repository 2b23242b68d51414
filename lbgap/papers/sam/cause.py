"""Why it failed: inference mode in the SAM step, and how sharp the solutions are by which measure."""

from collections.abc import Iterator

import numpy as np

from lbgap.papers.paper import Case, Quantity, Table, combined, constant, difference, ratio
from lbgap.papers.recipe import Recipe
from lbgap.papers.sam import compute, grid
from lbgap.papers.sam.recipes import FACTS, M, Recipes, with_sam
from lbgap.papers.sam.search import tuned_sam
from lbgap.stats import Difference, Ratio, rank_correlation

# which of the two inference mode takes away: dropout (the report's network has it), batch norm (their code's first one had)
NETWORKS = {"dropout": {}, "batch norm": {"dropout": 0.0, "batch_norm": True}}
SPECTRUM = {"largest eigenvalue": "largest eigenvalue", "largest / fifth": "largest over fifth eigenvalue"}
MODES = {"as published": "none", "inference mode": "both"}


def modes(s: Recipe, rho: float) -> dict[tuple[str, str], Recipe]:
    """(what the network has, mode of the SAM step) -> recipe, at the one rate of the grid."""
    return {
        (network, mode): with_sam(s.changed(options={**s.options, **options}), rho, inference_mode=value)
        for network, options in NETWORKS.items()
        for mode, value in MODES.items()
    }


def table(recipes: Recipes, rho: float) -> Table:
    """The large batch with SAM under each mode, with dropout or batch norm."""
    cells = []
    for n, s in recipes.items():
        of = modes(s, rho)
        for network, options in NETWORKS.items():
            plain = s.changed(options={**s.options, **options})
            rows = {"plain": plain} | {f"SAM, {mode}": of[network, mode] for mode in MODES}
            for row, runs in rows.items():
                columns = {"train loss": grid.loss(runs, "LB", "train"), "test loss": grid.loss(runs, "LB")}
                columns["test"] = runs.accuracy("LB", "test", "running")
                if row != "plain":
                    columns["test loss, - plain"] = difference(columns["test loss"], grid.loss(plain, "LB"))
                cells += runs.cells(f"{n}, {network}, {row}", columns)
    return Table("cause", "The large batch at the report's one rate: dropout or batch norm", "nats; percent", tuple(cells))


def rules(recipes: Recipes, rho: float) -> Iterator[tuple[str, Case]]:
    """Q3: inference mode costs test loss; Q4: it does so where dropout is what it takes away."""
    above = Difference("above")
    for n, s in recipes.items():
        of = modes(s, rho)
        fields = {"unit": "nats", "scope": "reading"}
        harm = {
            network: difference(*(grid.loss(of[network, mode], "LB") for mode in ("inference mode", "as published")))
            for network in NETWORKS
        }
        for batch, size in (("SB", s.small), ("LB", s.large)):
            sides = (grid.loss(of["dropout", mode], batch) for mode in ("inference mode", "as published"))
            label = f"{n}, batch {size}: test loss with SAM, inference mode - as published"
            yield "Q3", s.case(label, above, *sides, central=batch == "LB", **fields)
        label = f"{n}, batch {s.large}: what inference mode costs, with dropout - with batch norm"
        yield "Q4", s.case(label, above, harm["dropout"], harm["batch norm"], central=True, **fields)


def precision_table(recipes: Recipes) -> Table:
    """The tuned large batch with SAM in bfloat16 and in float32: e(w) is of the size of bfloat16's rounding of a weight."""
    cells = []
    for n, s in recipes.items():
        runs = {"bfloat16": tuned_sam(s, "LB"), "float32": tuned_sam(s, "LB").fixing(precision="float32")}
        columns = {name: of.accuracy("LB", "test", "running") for name, of in runs.items()}
        columns["difference"] = difference(columns["bfloat16"], columns["float32"])
        cells += s.cells(f"{n}, LB, SAM", columns)
    return Table("precision", "SAM in bfloat16 against float32", "percent; points", tuple(cells))


# ---------------------------------------------------------------- measures


def solutions(s: Recipe) -> dict[str, compute.Way]:
    """Those whose sharpness is compared, all at their tuned rates."""
    of = compute.ways(s)
    rows = ("SB", "SB, SAM", "LB", "LB, SAM", f"LB, SAM, m = {M}")
    inference = compute.Way(tuned_sam(s, "LB", inference_mode="both"), "LB", 2)
    return {row: of[row] for row in rows} | {"LB, SAM, inference mode": inference}


def measures(s: Recipe, batch: str) -> dict[str, Quantity]:
    """Keskar's metric, what SAM minimises on parts of 32 and on whole large batches, and the largest eigenvalue."""
    half = {"examples": grid.EXAMPLES // 2} if s.own_subset else {}
    read = {"batch_norm": "running"}
    parts = {"parts": grid.EXAMPLES // M} if s.own_subset else {}
    return {
        "eps1e-3": grid.sharp(s, batch),
        f"m-sharpness, m = {M}": s.measured(batch, "m_sharpness", rho=0.05, m=M, **parts, **read),
        f"m-sharpness, m = {s.large}": s.measured(batch, "m_sharpness", rho=0.05, m=s.large, **read),
        "largest eigenvalue": s.measured(batch, "eigenvalues", "eigenvalue_1", tolerance=0.01, **half, **read),
    }


def sharpness_table(recipes: Recipes) -> Table:
    """Accuracy and every measure of the tuned solutions."""
    cells = []
    for n, s in recipes.items():
        for row, way in solutions(s).items():
            columns = {"test": way.recipe.accuracy(way.batch, "test", "running"), **measures(way.recipe, way.batch)}
            cells += way.recipe.cells(f"{n}, {row}", columns)
    title = "How sharp the tuned solutions are, measure by measure"
    return Table("measures", title, "percent; metric 2.1; nats, rho 0.05; 1 / weight²", tuple(cells), digits=3)


def spectrum(s: Recipe, batch: str) -> dict[str, Quantity]:
    """The largest eigenvalue, and how many times the fifth it is (Foret et al., section 4.2)."""
    half = {"examples": grid.EXAMPLES // 2} if s.own_subset else {}
    read = {"k": 5, "tolerance": 0.01, "batch_norm": "running"}
    largest, fifth = (s.measured(batch, "eigenvalues", f"eigenvalue_{i}", **half, **read) for i in (1, 5))
    return {"largest eigenvalue": largest, "largest / fifth": ratio(largest, fifth)}


def grid_table(recipes: Recipes, rho: float) -> Table:
    """Every measure of the grid's smallest and largest batch, trained by SGD without and with SAM."""
    cells = []
    for n, s in recipes.items():
        for batch, size in (("SB", s.small), ("LB", s.large)):
            for name in ("plain", "SAM"):
                of = grid.arm(s, name, rho)
                found = measures(of, batch) | spectrum(of, batch)
                cells += s.cells(f"{n}, batch {size}, {name}", found)
    title = "How sharp the solutions are at the report's one rate, measure by measure"
    return Table("flatness", title, "metric 2.1; nats, rho 0.05; 1 / weight²; times", tuple(cells), digits=3)


def _ranked(one: list[Quantity], other: list[Quantity]) -> Quantity:
    """Rank correlation over the solutions, seed by seed."""
    return combined(lambda *values: rank_correlation(*np.reshape(values, (2, -1))), *one, *other)


def published_ratio(name: str) -> float:
    """SGD / SAM of a number of the spectrum, in the paper's own network (section 4.2)."""
    of = {row: values[list(SPECTRUM).index(name)] for row, values in FACTS["spectrum"]["rows"].items()}
    return of["SGD"] / of["SAM"]


def spectrum_rules(recipes: Recipes) -> Iterator[tuple[str, Case]]:
    """A4 on the tuned large batch: its largest eigenvalue, and how far it stands out."""
    for n, s in recipes.items():
        of = compute.ways(s)
        plain, sam = (spectrum(of[row].recipe, "LB") for row in ("LB", "LB, SAM"))
        for name, words in SPECTRUM.items():
            label = f"{n}, batch {s.large}: {words}, plain / SAM"
            fields = {"published": published_ratio(name), "unit": "times"}
            yield "A4", of["LB"].recipe.case(label, Ratio(1), plain[name], sam[name], **fields)


def sharpness_rules(recipes: Recipes) -> Iterator[tuple[str, Case]]:
    """A4, and Q5: Keskar's sharpness and SAM's objective rank the solutions alike."""
    for n, s in recipes.items():
        of = solutions(s)
        found = {row: measures(way.recipe, way.batch) for row, way in of.items()}
        for batch, size in (("SB", s.small), ("LB", s.large)):
            sides = (found[row]["largest eigenvalue"] for row in (batch, f"{batch}, SAM"))
            label = f"{n}, batch {size}: largest eigenvalue, plain / SAM"
            fields = {"central": batch == "SB", "published": published_ratio("largest eigenvalue"), "unit": "times"}
            yield "A4", of[batch].recipe.case(label, Ratio(1), *sides, **fields)
        columns = [[found[row][name] for row in found] for name in ("eps1e-3", f"m-sharpness, m = {s.large}")]
        alike = _ranked(*columns)
        label = f"{n}: rank correlation of Keskar's sharpness with m-sharpness, {len(found)} solutions"
        yield "Q5", s.case(label, Difference("above"), alike, constant(alike), central=True, unit="rank correlation")
