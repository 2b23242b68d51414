"""Records in; tables, figures and states out, for any paper. Everything here is a value or a pandas frame."""

import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from lbgap import papers, paths
from lbgap.papers.paper import Figure, Profile, Quantity, Study, Table, seed_of
from lbgap.records import Store
from lbgap.spec import Job
from lbgap.stats import MIN_SEEDS, geometric_interval, t_interval

# Committed records speak through these, the first that is complete.
COMMITTED: tuple[Profile, ...] = ("paper", "cpu")


def values(quantity: Quantity, store: Store) -> list[float | None]:
    """A quantity's number for each seed; None where a record is missing, NaN where a run diverged."""
    out: list[float | None] = []
    for jobs in quantity.jobs:
        records = list(itertools.takewhile(lambda r: r is not None, map(store.get, jobs)))
        if len(records) < len(jobs):
            out.append(None)
        else:
            out.append(quantity.value(*(r.readable for r in records)))
    return out


# ---------------------------------------------------------------- tables


def table_frame(table: Table, profile: str, store: Store) -> pd.DataFrame:
    """Long form, a line a cell: published mean and deviation; our mean, 95% interval, deviation (n - 1), n, diverged; setting.

    ``undefined`` counts values that recorded jobs do not give, such as a ratio 0 / 0. Where ``scale`` is "ratio" the mean is
    geometric, the interval that of the logarithms, and there is no deviation.
    """
    lines = []
    for cell in table.cells:
        per_seed = zip(values(cell.quantity, store), cell.quantity.jobs, strict=True) if cell.quantity else ()
        held = [(v, jobs) for v, jobs in per_seed if v is not None]
        ours = np.array([v for v, _ in held if not np.isnan(v)])
        # a value may be there although one of its runs diverged, such as the best of several
        diverged = sum(any(store.get(job).results.get("diverged") for job in jobs) for v, jobs in held if np.isnan(v))
        finite = len(ours) > 1 and bool(np.isfinite(ours).all())
        is_ratio = finite and cell.quantity.is_ratio and bool((ours > 0).all())
        interval = (geometric_interval if is_ratio else t_interval)(ours) if finite else None
        pooled = cell.quantity is not None and cell.quantity.pooled
        lines.append(
            {
                "table": table.name,
                "row": cell.row,
                "column": cell.place[1],
                "network": cell.network,
                "heading": cell.column,
                "reading": cell.reading,
                "published": cell.published.mean if cell.published else np.nan,
                "published_std": cell.published.std if cell.published and cell.published.std is not None else np.nan,
                "profile": profile,
                "scale": "ratio" if is_ratio else "",
                "mean": interval.effect if interval else ours.mean() if len(ours) else np.nan,
                "low": interval.low if interval else np.nan,
                "high": interval.high if interval else np.nan,
                "std": ours.std(ddof=1) if finite and not is_ratio else np.nan,
                "n": len({job.run.seed for _, jobs in held for job in jobs}) if pooled and len(ours) else len(ours),
                "diverged": diverged,
                "undefined": len(held) - len(ours) - diverged,
                "setting": cell.words,
            }
        )
    return pd.DataFrame(lines)


def committed_table(paper: str, name: str, store: Store) -> tuple[Table, pd.DataFrame]:
    """A table from committed records: each row from the first profile of :data:`COMMITTED` that fills it, never mixed.

    ``reduced`` says of a cell that its setting is not that of profile ``paper``, where that has such a table.

    The rows of a table of ours are to be compared with each other: all of them come from the profile that fills it best,
    save those that it does not have. Rows that only a later profile has come last.
    """
    frames, found = [], None
    for study in committed_studies(paper):
        for table in study.tables:
            if table.name == name:
                found = found or table
                frames.append(table_frame(table, study.profile, store))
    if found is None:
        raise ValueError(f"table is '{name}'; {paper} has {', '.join(t.name for t in committed_studies(paper)[0].tables)}")
    names, ours = dict.fromkeys(row for frame in frames for row in frame["row"]), found.number is None
    if ours:
        shared = set.intersection(*(set(frame["row"]) for frame in frames))
        frames.sort(key=lambda frame: _emptiness(frame[frame["row"].isin(shared)] if shared else frame))
    rows = []
    for row in names:
        parts = [f[f["row"] == row] for f in frames if (f["row"] == row).any()]
        part = parts[0] if ours else min(parts, key=_emptiness)
        # of another profile's networks what is only begun would stand beside what it cannot be compared with
        begun = ours and part["profile"].iloc[0] != frames[0]["profile"].iloc[0] and 0 < part["n"].max() < MIN_SEEDS
        if not begun:
            rows.append(part)
    shown = pd.concat(rows, ignore_index=True)
    full = [f.set_index(["row", "column"])["setting"] for f in frames if (f["profile"] == "paper").all()]
    own = full[0].reindex(pd.MultiIndex.from_frame(shown[["row", "column"]])).to_numpy() if full else None
    return found, shown.assign(reduced=False if own is None else shown["setting"].to_numpy() != own)


def _emptiness(frame: pd.DataFrame) -> int:
    """How many cells have no number; below that, -1, where every cell has been run with enough seeds.

    Second readings do not count where there are first ones.
    """
    frame = frame[frame["reading"] == ""] if (frame["reading"] == "").any() else frame
    full = (frame["n"] + frame["diverged"]).min() >= MIN_SEEDS
    return -1 if full else int((frame["n"] == 0).sum())


def committed_studies(paper: str) -> tuple[Study, ...]:
    """The studies whose records are committed, in the order of :data:`COMMITTED`; of a paper that has none, those it has."""
    return _committed_studies(paper, paths.extra_papers())


@lru_cache
def _committed_studies(paper: str, _: Path | None) -> tuple[Study, ...]:
    of = papers.get(paper)
    profiles = [p for p in COMMITTED if p in of.profiles] or of.profiles
    return tuple(of.study(papers.settings(paper, profile=p)) for p in profiles)


# ---------------------------------------------------------------- figures


def figure_frame(figure: Figure, store: Store) -> pd.DataFrame:
    """Long form, a line a point: panel, line, seed, x, y; seeds without a record are absent.

    Points that no record is behind, the published ones, are there in panels that have others.
    """
    lines, ours = [], set()
    for series in figure.series:
        for jobs in series.jobs:
            records = [store.get(job) for job in jobs]
            if all(records):
                points = series.points(*(r.readable for r in records))
                lines += [(series.panel, line, seed_of(jobs), x, y) for line, x, y in points]
                ours |= {series.panel} if records and points else set()
    return pd.DataFrame([line for line in lines if line[0] in ours], columns=["panel", "line", "seed", "x", "y"])


def committed_panels(paper: str, name: str, store: Store) -> dict[str, tuple[Profile, Figure]]:
    """The panels of a figure that have a record, each with the profile that lacks the smallest share of it, and its figure.

    Among equals that is the first of :data:`COMMITTED`, whose panels come first too. A panel of which more than half of the
    lines, or points, have no record yet is left out beside others.
    """
    found = [(study.profile, f) for study in committed_studies(paper) for f in study.figures if f.name == name]
    if not found:
        raise ValueError(f"figure is '{name}'; {paper} has {', '.join(f.name for f in committed_studies(paper)[0].figures)}")
    best: dict[str, tuple[float, int, bool]] = {}
    for i, (_, figure) in enumerate(found):
        for panel in set(figure_frame(figure, store)["panel"]):
            own = [series.jobs for series in figure.series if series.panel == panel and any(series.jobs)]  # not the published
            jobs = {job for series in own for seed in series for job in seed}
            lacking = sum(store.get(job) is None for job in jobs) / len(jobs)
            begun = sum(any(all(map(store.get, seed)) for seed in series) for series in own)
            best[panel] = min(best.get(panel, (1.0, len(found), False)), (lacking, i, begun < len(own) / 2))
    best = {panel: of for panel, of in best.items() if not of[2]} or best
    chosen = [(a.name, i) for i, (_, f) in enumerate(found) for a in f.panels if a.name in best and best[a.name][1] == i]
    return {panel: found[i] for panel, i in chosen}


def committed_figure(paper: str, name: str, store: Store) -> tuple[Figure, pd.DataFrame, str]:
    """A figure from committed records, each panel from one profile (:func:`committed_panels`); and the profiles used."""
    of = committed_panels(paper, name, store)
    known = next(f for study in committed_studies(paper) for f in study.figures if f.name == name)
    frames = {profile: figure_frame(figure, store) for profile, figure in dict(of.values()).items()}
    parts = [frames[profile][frames[profile]["panel"] == panel] for panel, (profile, _) in of.items()]
    empty = pd.DataFrame(columns=["panel", "line", "seed", "x", "y"])
    data = pd.concat(parts, ignore_index=True) if parts else empty
    axes = [next(a for a in figure.panels if a.name == panel) for panel, (_, figure) in of.items()]
    profiles = ", ".join(dict.fromkeys(profile for profile, _ in of.values()))
    return Figure(name, known.title, tuple(axes), (), known.mark), data, profiles


def with_tick_names(figure: Figure, data: pd.DataFrame) -> pd.DataFrame:
    """A figure's data with the names of ticks for x, in the panels that have them."""
    ticks = {axis.name: axis.ticks for axis in figure.panels if axis.ticks}
    named = [ticks[panel][int(x)] if panel in ticks else x for panel, x in zip(data["panel"], data["x"], strict=True)]
    return data.assign(x=pd.Series(named, index=data.index, dtype=object if ticks else float))


# ---------------------------------------------------------------- state


def with_parents(jobs: list[Job], store: Store) -> list[Job]:
    """Jobs, and before each the runs without a record whose weights it needs."""
    out: dict[Job, None] = {}

    def add(job: Job) -> None:
        for weights in job.parents:
            if store.get(weights.run) is None:
                add(weights.run)
        out[job] = None

    for job in jobs:
        add(job)
    return list(out)


def status(paper: str, store: Store, profiles: tuple[Profile, ...] | None = None, costs: bool = True) -> pd.DataFrame:
    """Jobs recorded and missing, by profile and table, figure or claim; what has none in a profile is left out.

    With ``costs``, ``seconds`` is what the missing ones and the unrecorded runs they need are expected to take, one after
    the other; on a GPU for profile ``paper``, else on a CPU thread.
    """
    of, lines = papers.get(paper), []
    for profile in of.profiles if profiles is None else profiles:
        study = of.study(papers.settings(paper, profile=profile))
        recorded: dict[Job, bool] = {}  # most jobs are in several groups
        for name, groups in study.groups():
            if "/" in name:
                continue
            jobs = list(dict.fromkeys(job for per in groups for seed in per for job in seed))
            if not jobs:
                continue
            recorded |= {job: store.get(job) is not None for job in jobs if job not in recorded}
            open_ = [job for job in jobs if not recorded[job]]
            counts = {"paper": paper, "profile": profile, "table": name, "done": len(jobs) - len(open_), "missing": len(open_)}
            if costs:
                from lbgap import cost  # it counts on the networks, which takes torch

                device = "cuda" if profile == "paper" else "cpu"
                counts["seconds"] = sum(cost.seconds(job, device) for job in with_parents(open_, store))
            lines.append(counts)
    return pd.DataFrame(lines, columns=["paper", "profile", "table", "done", "missing", *(["seconds"] if costs else [])])
