"""From any number shown to the records behind it: every seed's value and the keys of the records it was read from.

The folds of the pages, the CSV files with one line a seed and ``python -m lbgap show`` are all made of this.
"""

import json
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lbgap import papers, report, verdicts
from lbgap.papers.paper import Figure, Quantity, seed_of
from lbgap.records import Record, Store
from lbgap.stats import t_interval
from lbgap.verdicts import Judged

SEED_COLUMNS = ["profile", "seed", "value", "state", "records"]


@dataclass(frozen=True)
class Trace:
    """The values behind a table, a figure or a claim.

    ``lines`` has a line a seed of each place: the columns of ``places`` (row and column; panel, line and x; setting and
    side), then profile, seed, value, ``state`` ("", "diverged" or "undefined" where there is no value) and ``records``, a tuple
    of keys. What has no record is absent.
    """

    paper: str
    name: str
    title: str
    places: tuple[str, ...]
    lines: pd.DataFrame

    def anchor(self, *place: str | float) -> str:
        """What a page calls the place."""
        return anchor(self.paper, self.name, *place)

    def command(self, part: str = "") -> str:
        """What computes it all once more, into a folder of its own: of each profile that it is from.

        Where it has no values: in the smallest profile that knows it and has something to run for it; empty if none has.
        """
        profiles = list(dict.fromkeys(self.lines["profile"]))
        if not profiles:
            studies = [s for s in reversed(report.committed_studies(self.paper)) if self.name in dict(s.groups())]
            profiles = [s.profile for s in studies if s.jobs([self.name])][:1]
        only = shlex.quote(f"{self.name}/{part}" if part and self.places[0] == "row" else self.name)
        return "; ".join(f"python -m lbgap run {self.paper} --profile {p} --only {only} --results runs" for p in profiles)


def anchor(paper: str, *parts: str | float) -> str:
    """The id of a place on a paper's page: ``anchor("keskar", "table3", "C1", "eps1e-3_LB")``."""
    words = (f"{part:g}".replace("-", "minus") if isinstance(part, float) else str(part) for part in (paper, *parts))
    return "-".join(re.sub(r"[^\w.+]+", "-", word).strip("-") for word in words)


def of(paper: str, name: str, store: Store) -> Trace:
    """The committed values behind a table, a figure or a claim; of a part of one with ``table3/C1``.

    Raises:
        ValueError: a name that the paper does not have, or a part without records.
    """
    whole, _, part = name.partition("/")
    studies = report.committed_studies(paper)
    if any(t.name == whole for s in studies for t in s.tables):
        trace = _of_table(paper, whole, store)
    elif any(f.name == whole for s in studies for f in s.figures):
        trace = _of_figure(paper, whole, store)
    elif any(c.id == whole for s in studies for c in (*s.claims, *s.questions)):
        trace = of_claim(paper, next(j for j in verdicts.committed(paper, store) if j.claim.id == whole), store)
    else:
        raise ValueError(f"name is '{whole}'; {paper} has {', '.join(names(paper))}")
    if not part:
        return trace
    lines, first = trace.lines, trace.places[0]
    if part not in set(lines[first]):
        have = "; ".join(dict.fromkeys(lines[first])) or "no records"
        raise ValueError(f"{first} of {whole} is '{part}'; accepted is one of: {have}")
    return replace(trace, lines=lines[lines[first] == part].reset_index(drop=True))


def rows(found: Trace) -> tuple[str, ...]:
    """The places that a fold has a line for: of a figure whose lines are curves, each held by one record, the lines."""
    lines = found.lines
    if "x" in found.places and len(lines) and lines.groupby(["panel", "line", "seed"])["records"].nunique().max() == 1:
        return found.places[:2]
    return found.places


def names(paper: str) -> list[str]:
    """The tables, figures and claims of a paper that committed records may fill."""
    studies = report.committed_studies(paper)
    found = [
        [t.name for t in s.tables] + [f.name for f in s.figures] + [c.id for c in (*s.claims, *s.questions)] for s in studies
    ]
    return list(dict.fromkeys(name for part in found for name in part))


def _per_seed(quantity: Quantity, store: Store) -> Iterator[tuple]:
    """(seed, value, state, keys) of each seed that has its records."""
    for value, jobs in zip(report.values(quantity, store), quantity.jobs, strict=True):
        if value is not None:
            yield seed_of(jobs), value, _state(value, jobs, store), tuple(dict.fromkeys(job.key for job in jobs))


def _state(value: float | tuple[float, ...], jobs: tuple, store: Store) -> str:
    """Why there is no value, where there is none."""
    if not np.isnan(value).any():
        return ""
    return "diverged" if any(store.get(job).results.get("diverged") for job in jobs) else "undefined"


def _of_table(paper: str, name: str, store: Store) -> Trace:
    table, frame = report.committed_table(paper, name, store)
    cells = {
        (s.profile, *c.place): c
        for s in report.committed_studies(paper)
        for t in s.tables
        if t.name == name
        for c in t.cells
        if c.quantity
    }
    lines = [
        (row, column, profile, *line)
        for profile, row, column in frame[["profile", "row", "column"]].itertuples(index=False)
        if (profile, row, column) in cells
        for line in _per_seed(cells[profile, row, column].quantity, store)
    ]
    places = ("row", "column")
    return Trace(paper, name, table.title, places, pd.DataFrame(lines, columns=[*places, *SEED_COLUMNS]))


def _of_figure(paper: str, name: str, store: Store) -> Trace:
    """As :func:`report.committed_figure`, each panel from one profile."""
    lines, title = [], name
    for panel, (profile, figure) in report.committed_panels(paper, name, store).items():
        title, ticks = figure.title, next(axis.ticks for axis in figure.panels if axis.name == panel)
        for series in (s for s in figure.series if s.panel == panel):
            for jobs in series.jobs:
                records = [store.get(job) for job in jobs]
                if records and all(records):
                    keys = tuple(dict.fromkeys(r.key for r in records))
                    for line, x, y in series.points(*(r.readable for r in records)):
                        at = ticks[int(x)] if ticks else x
                        lines.append((panel, line, at, profile, seed_of(jobs), y, _state(y, jobs, store), keys))
    places = ("panel", "line", "x")
    return Trace(paper, name, title, places, pd.DataFrame(lines, columns=[*places, *SEED_COLUMNS]))


def of_claim(paper: str, judged: Judged, store: Store) -> Trace:
    """The values behind a claim that has been judged: both sides of each of its cases, those of profile ``paper`` too."""
    lines = [
        (case.label, side, profile, *line)
        for case, _, profile in judged.shown
        for side, quantity in (("A", case.a), ("B", case.b))
        if quantity
        for line in _per_seed(quantity, store)
    ]
    places = ("setting", "side")
    return Trace(paper, judged.claim.id, judged.claim.text, places, pd.DataFrame(lines, columns=[*places, *SEED_COLUMNS]))


def in_words(line: pd.Series, digits: int = 4) -> str:
    """A seed's value, in order where a trend reads several; why there is none, where there is none."""
    if line["state"]:
        return line["state"]
    values = line["value"] if isinstance(line["value"], tuple) else (line["value"],)
    return ", ".join(f"{v:.{digits}g}" if abs(v) < 10**digits else f"{v:,.0f}" for v in values)


# ---------------------------------------------------------------- points of figures


def summary(figure: Figure, data: pd.DataFrame) -> pd.DataFrame:
    """A line a point of a figure's data (panel, line, seed, x, y): mean over seeds, its 95% interval, and n.

    In panels with a logarithmic y axis it is the geometric mean, and the interval is that of the logarithms, as for ratios;
    where a value is not positive there is none.
    """
    logarithmic = {axis.name for axis in figure.panels if axis.log_y}

    def line(place: tuple, y: pd.Series) -> tuple:
        y = y.dropna().to_numpy(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.log(y) if place[0] in logarithmic else y
        if not len(y) or not np.isfinite(scaled).all():
            return (*place, math.nan, math.nan, math.nan, len(y))
        e = t_interval(scaled)
        found = [e.effect, *((e.low, e.high) if e.n > 1 else (math.nan, math.nan))]
        if place[0] in logarithmic:
            found = [float(f"{math.exp(v):.12g}") for v in found]  # the mean of equal values is that value
        return (*place, *found, e.n)

    places = ["panel", "line", "x"]
    lines = [line(place, part) for place, part in data.groupby(places, sort=False)["y"]]
    return pd.DataFrame(lines, columns=[*places, "mean", "low", "high", "n"])


# ---------------------------------------------------------------- records


def uses() -> dict[str, list[str]]:
    """By key of a job, the tables, figures and claims that read its record: "keskar table2", in the papers' order."""
    out: dict[str, dict[str, None]] = {}
    for paper in papers.papers():
        for study in report.committed_studies(paper):
            for name, groups in study.groups():
                if "/" not in name:
                    for job in (job for per in groups for seed in per for job in seed):
                        out.setdefault(job.key, {})[f"{paper} {name}"] = None
    return {key: list(found) for key, found in out.items()}


# ---------------------------------------------------------------- as text


def text(what: str, name: str | None, store: Store) -> str:
    """What ``python -m lbgap show`` prints: of a paper's table, figure or claim what its fold has, or one record by its key.

    Raises:
        ValueError: an unknown paper, name or key.
    """
    if name is None and what not in papers.papers():
        return _record_text(store.of_key(what), store)
    if name is None:
        raise ValueError(f"name is not given; {what} has {', '.join(names(what))}")
    found = of(papers.get(what).name, name, store)
    if found.lines.empty:
        how = found.command(name.partition("/")[2]) or "nothing is run for it"
        return f"{found.name}: {found.title}\nnot run yet; {how}"
    last = found.lines.drop_duplicates([*rows(found), "seed"], keep="last")  # of a curve its last point, as in the fold
    shown = last.assign(value=[in_words(line, 6) for _, line in last.iterrows()], records=last["records"].map(" ".join))
    table = shown[[*found.places, "profile", "seed", "value", "records"]].to_string(index=False, justify="left")
    return f"{found.name}: {found.title}\n{table}\ncomputed again by: {found.command(name.partition('/')[2])}"


def _record_text(found: Record, store: Store) -> str:
    used = uses().get(found.key, [])
    held = json.loads(found.to_json())
    results = {k: f"{len(v)} values" if isinstance(v, list) else v for k, v in held["results"].items()}
    parts = {"specification": held["job"], "results": results, "provenance": held["provenance"]}
    lines = [f"{found.key}: {found.job.kind}, {store.path(found.key)}", f"used by: {', '.join(used) or 'nothing committed'}"]
    lines.append(f"computed again, and compared, by: python -m lbgap verify {found.key}")
    return "\n".join([*lines, *(f"{name}: {json.dumps(part, indent=1)}" for name, part in parts.items())])
