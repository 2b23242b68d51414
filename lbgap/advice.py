"""What may be done about the gap: for each situation what helps, how much it gained here, and what it costs.

The rows are data (``advice.yaml``); gains and costs are computed from the quantities of the papers.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from lbgap import cost, report
from lbgap.papers.paper import Cell, Quantity, Scope, difference, seed_of
from lbgap.records import Store
from lbgap.spec import Train
from lbgap.stats import Estimate, t_interval


@dataclass(frozen=True)
class Gain:
    """What one cell of a paper's table is above another, in the table's unit, seed by seed.

    ``compute`` and ``updates`` are those of all its runs, as multiples of the runs that it is compared with; a search has
    every run that was tried. ``estimate`` is None where records are missing.
    """

    paper: str
    table: str
    place: tuple[str, str]
    scope: Scope
    where: str
    estimate: Estimate | None
    compute: float
    updates: float


@dataclass(frozen=True)
class Advice:
    """A situation, what to do in it, and what that gained wherever it was tried."""

    situation: str
    do: str
    gains: tuple[Gain, ...]


@lru_cache
def rows() -> tuple[dict, ...]:
    """The rows as they are written down."""
    return tuple(yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()))


def advice(store: Store, papers: tuple[str, ...] | list[str]) -> list[Advice]:
    """Every row with its gains in some papers; rows that have none in these are left out.

    Raises:
        ValueError: a cell that its table does not have.
    """
    found = []
    for row in rows():
        gains = tuple(_gain(store, **gain) for gain in row["gains"] if gain["paper"] in papers)
        if gains:
            found.append(Advice(row["situation"], row["do"], gains))
    return found


def _gain(
    store: Store,
    paper: str,
    table: str,
    cell: list[str],
    over: list[str],
    over_table: str | None = None,
    scope: Scope | None = None,
    tried: str = "",
    error: bool = False,
) -> Gain:
    """``over_table``: that of ``over``, where it is another one. ``error``: the cells are errors, the lower one is the better.

    Raises:
        ValueError: cells of other seeds, which make no pairs.
    """
    with_it, reduced = _cell(store, paper, table, tuple(cell))
    without, _ = _cell(store, paper, over_table or table, tuple(over))
    seeds = [[seed_of(jobs) for jobs in side.quantity.jobs] for side in (with_it, without)]
    if seeds[0] != seeds[1]:
        raise ValueError(f"advice compares {', '.join(cell)} with {', '.join(over)}; accepted are cells of the same seeds")
    sides = (without.quantity, with_it.quantity) if error else (with_it.quantity, without.quantity)
    values = [v for v in report.values(difference(*sides), store) if v is not None and np.isfinite(v)]
    data, batches = with_it.words.split(", ")[:2]
    return Gain(
        paper,
        table,
        tuple(cell),
        scope or ("reduced" if reduced else "paper"),
        ", ".join(filter(None, (data, batches, tried))),
        t_interval(np.array(values)) if len(values) > 1 else None,
        _ratio(cost.of_training, with_it.quantity, without.quantity),
        _ratio(lambda run: run.updates * run.optimizer.inner_steps, with_it.quantity, without.quantity),
    )


def _cell(store: Store, paper: str, table: str, place: tuple[str, str]) -> tuple[Cell, bool]:
    """A cell in the profile that speaks for its row, and whether that is a reduction of the paper's setting."""
    _, frame = report.committed_table(paper, table, store)
    line = frame[(frame["row"] == place[0]) & (frame["column"] == place[1])]
    if line.empty:
        raise ValueError(f"advice asks for {place[0]}, {place[1]}; {table} of {paper} has no such cell")
    profile, reduced = line.iloc[0][["profile", "reduced"]]
    cells = (
        cell
        for study in report.committed_studies(paper)
        if study.profile == profile
        for t in study.tables
        if t.name == table
        for cell in t.cells
    )
    return next(cell for cell in cells if cell.place == place), bool(reduced)


def _ratio(measure, with_it: Quantity, without: Quantity) -> float:
    """How many times as much the runs behind one quantity take as those behind another, each from its own beginning."""

    def whole(run: Train) -> float:
        if run.start is None:
            return measure(run)
        begun = run.start.run
        return measure(run) + whole(begun) * min(1.0, run.start.epoch * begun.updates_per_epoch / begun.updates)

    one, other = (
        sum(map(whole, {job for seed in q.jobs for job in seed if isinstance(job, Train)})) for q in (with_it, without)
    )
    return one / other
