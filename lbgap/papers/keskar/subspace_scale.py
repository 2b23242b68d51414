"""The scale that Table 4 leaves out: A with N(0, 1) entries times 1, 2 and 4, calibrated on SB, judged on LB / SB (Q5)."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lbgap.papers.keskar.recipes import BATCHES, FACTS, Recipes
from lbgap.papers.paper import Case, Quantity, Table, combined, constant, ratio
from lbgap.papers.recipe import Recipe
from lbgap.stats import Ratio

SCALES = (1.0, 2.0, 4.0)  # standard deviations of the entries
NETWORKS = ("F1", "C1")


def _sharp(s: Recipe, batch: str, scale: float) -> Quantity:
    return s.sharp(batch, space="random", subspace_scale=scale)


def published(network: str) -> dict[str, float]:
    """Table 4 at epsilon 1e-3."""
    of = FACTS["tables"]["table4"]
    row = dict(zip(of["columns"], of["rows"][network], strict=True))
    return {b: row[f"eps1e-3_{b}"][0] for b in BATCHES}


def calibrated(network: str, s: Recipe) -> Quantity:
    """LB / SB under that scale whose SB, in geometric mean over the other seeds, comes nearest to the published SB."""
    target = math.log(published(network)["SB"])
    of = {b: [_sharp(s, b, scale) for scale in SCALES] for b in BATCHES}

    def chosen(*numbers: float) -> float:
        large, *small = np.reshape(numbers, (-1, len(SCALES)))
        off = np.abs(np.mean(np.log(small[1:]), axis=0) - target)
        return float(large[off.argmin()] / small[0][off.argmin()])

    # LB, SB, then SB of each other seed
    turns = range(len(of["SB"][0].jobs))
    small = (replace(q, jobs=q.jobs[turn:] + q.jobs[:turn]) for turn in turns for q in of["SB"])
    return combined(chosen, *of["LB"], *small)


def table(recipes: Recipes) -> Table:
    """Both batches and their ratio under each scale, and the ratio at the calibrated one."""
    cells = []
    for n in (n for n in NETWORKS if n in recipes):
        s = recipes[n]
        for scale in SCALES:
            large, small = (_sharp(s, b, scale) for b in ("LB", "SB"))
            columns = {"SB": small, "LB": large, "LB / SB": ratio(large, small)}
            cells += s.cells(f"{n}, entries N(0, 1) x {scale:g}", columns)
        cells.append(s.cell(f"{n}, calibrated on SB", "LB / SB", calibrated(n, s)))
    return Table("subspace_scale", "Random subspaces of other scales", "metric 2.1, epsilon 1e-3; ratio", tuple(cells))


def rules(recipes: Recipes) -> Iterator[tuple[str, Case]]:
    """Q5: K5's rule at the calibrated scale."""
    for n in (n for n in NETWORKS if n in recipes):
        of = published(n)
        fields = {"central": n == "F1", "scope": "reading", "published": of["LB"] / of["SB"]}
        ratio = calibrated(n, recipes[n])
        yield (
            "Q5",
            recipes[n].case(
                f"{n}: sharpness at the scale calibrated on SB, LB / SB", Ratio(10), ratio, constant(ratio, 1.0), **fields
            ),
        )
