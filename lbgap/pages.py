"""Pages that belong to no paper: the front page, the status page, all records; and what the pages offer for download."""

import html
import json
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Markdown, display

from lbgap import advice, badges, catalogue, cost, papers, paths, plots, render, report, trace, verdicts
from lbgap.prose import Numbers, fill
from lbgap.records import Store


def prose(template: str) -> None:
    """Markdown with numbers from the records of several papers, ``{hoffer:table1:F1:LB}``, which lead to the papers' pages.

    Raises:
        ValueError: a paper that is none, or a name that :class:`lbgap.prose.Numbers` does not know.
    """
    store, of = Store(), {}

    def named(name: str) -> str:
        paper, _, rest = name.partition(":")
        if paper not in of:
            if paper not in papers.names():
                raise ValueError(f"prose asks for {name}; it begins with a paper: {', '.join(papers.names())}")
            judged = verdicts.committed(paper, store)
            of[paper] = Numbers(paper, store, judged, f"{paper}.html")
        return of[paper].named(rest)

    display(Markdown(fill(template, named)))


def what_to_do(paper: str | None = None) -> None:
    """The table of situations: what to do, what it gained here, what it costs, each gain with a link to its records."""
    names = papers.names(paper)
    lines = [
        [html.escape(a.situation), html.escape(a.do), "<br>".join(map(_gain, a.gains)), _cost(a.gains), _from(a.gains)]
        for a in advice.advice(Store(), names)
    ]
    if not lines:
        return
    columns = ["your situation", "what to do", "gain in test accuracy, points [95%]", "compute and updates", "from"]
    frame = pd.DataFrame(lines, columns=columns).set_index(columns[0])
    display(HTML(render.styled(frame, "Your situation and what to do", classes="advice")))


def _gain(gain: advice.Gain) -> str:
    where = f"<br><small>{html.escape(gain.where)}; {badges.SCOPE_WORDS[gain.scope]}"
    if gain.estimate is None:
        return f"not run{where}</small>"
    shown = render.interval(gain.estimate)
    link = render.to_records(shown, trace.anchor(gain.paper, gain.table, *gain.place), f"{gain.paper}.html")
    return f"{link}{where}; n = {gain.estimate.n}</small>"


def _cost(gains: tuple[advice.Gain, ...]) -> str:
    """Compute and updates, as multiples of what each gain is compared with; from the least to the greatest."""

    def span(values: list[float], what: str) -> str:
        low, high = (f"{v:.1f}".removesuffix(".0") if v < 10 else f"{v:.0f}" for v in (min(values), max(values)))
        return f"the same {what}" if low == high == "1" else f"× {low}{f' to {high}' if low != high else ''} {what}"

    compute, updates = [g.compute for g in gains], [g.updates for g in gains]
    return f"{span(compute, 'compute')},<br>{span(updates, 'updates')}"


def _from(gains: tuple[advice.Gain, ...]) -> str:
    """A link a paper, to the first of its tables that the gains are from."""
    tables = {g.paper: g.table for g in reversed(gains)}
    links = []
    for paper in dict.fromkeys(g.paper for g in gains):
        facts, table = papers.get(paper).facts["citation"], tables[paper]
        name = facts.get("short") or f"{facts['authors'][0].split()[-1]} et al., {facts['year']}"
        links.append(f"<a href='{paper}.html#{trace.anchor(paper, table)}'>{html.escape(name)}</a>")
    return "<br>".join(links)


def front_page(paper: str | None = None) -> None:
    """The state of every claim of one paper or of all, from committed records, folded away."""
    store = Store()
    judged = [(name, j) for name in papers.names(paper) for j in verdicts.committed_verdicts(name, store)]
    table = badges.verdict_table(judged, "The state of every claim", folds="elsewhere")
    display(HTML(render.details("The state of every claim, in words", table)))


def forest(paper: str | None = None) -> None:
    """Every claim's effects beside the published ones, of one paper or of all; nothing where nothing is recorded."""
    effects = verdicts.effects(papers.names(paper), Store())
    if effects["effect"].isna().all():
        return
    canvases = plots.forest(effects)
    said = {panel: plots.forest_words(panel, effects) for panel in canvases if panel != "legend"}
    drawings = (
        f"<div>{plots.svg(canvas, f'forest-{i}', said.get(panel, 'Legend of the marks'))}</div>"
        for i, (panel, canvas) in enumerate(canvases.items())
    )
    note = f"<p class='lbgap-note'>{' '.join(said.values())}</p>"
    display(HTML(f"<div class='lbgap-figure'>{''.join(drawings)}</div>{note}"))


def status_page(paper: str | None = None) -> None:
    """Jobs recorded and missing by paper, profile and table, with what the missing ones would cost."""
    store = Store()
    frame = pd.concat(
        [
            report.status(name, store, [s.profile for s in reversed(report.committed_studies(name))])
            for name in papers.names(paper)
        ],
        ignore_index=True,
    )
    frame["cost"] = [cost.in_words(s) if m else "" for s, m in zip(frame["seconds"], frame["missing"], strict=True)]
    columns = {"table": "table, figure or claim", "done": "recorded", "cost": "left (paper: one GPU; cpu: one thread)"}
    shown = frame.drop(columns="seconds").rename(columns=columns).map(lambda value: html.escape(str(value)))
    display(HTML(render.styled(shown.set_index(["paper", "profile", columns["table"]]), "Jobs recorded and missing")))


def benchmark(name: str | None = None) -> None:
    """The measured ratios of one name in ``benchmark.json``, or all of them, which ``make bench`` writes.

    Raises:
        ValueError: a name that it does not hold.
    """
    found = json.loads((paths.ROOT / "results" / "benchmark.json").read_text())
    lines = [line for line in found["ratios"] if name in (None, line["name"])]
    if not lines:
        raise ValueError(f"benchmark is '{name}'; accepted are {', '.join(sorted({r['name'] for r in found['ratios']}))}")
    columns = {
        "against": [
            html.escape(r["against"]) + (f", {_duration(r['milliseconds'])}" if "milliseconds" in r else "") for r in lines
        ],
        "ratio": [f"× {r['ratio']:g} [{r['least']:g}, {r['greatest']:g}]" for r in lines],
    }
    if any("target" in r for r in lines):
        columns["target"] = [f"{r['target']}: {'met' if r['met'] else 'missed'}" if "target" in r else "" for r in lines]
    shown = pd.DataFrame(columns, index=pd.Index([html.escape(r["what"]) for r in lines], name="time of"))
    runs = "Median of repeated runs, least and greatest (where all are one, timed once)"
    note = f"{runs}, on {found['machine']}, torch {found['torch']}."
    display(HTML(render.styled(shown, "Speed", classes="speed") + f"<p class='lbgap-note'>{html.escape(note)}</p>"))


def _duration(milliseconds: float) -> str:
    """A time in three digits; the space does not break."""
    return f"{milliseconds / 1000:.3g}\u00a0s" if milliseconds >= 1000 else f"{milliseconds:.3g}\u00a0ms"


def export(folder: Path) -> None:
    """Write what the pages offer for download into a folder.

    ``PAPER-NAME.csv`` is a table or figure as it is shown, a line a cell or point, and ``PAPER-NAME-seeds.csv`` what is behind
    it, a line a seed, with the keys of its records; ``PAPER-claims-seeds.csv`` the same for all claims; ``records.parquet`` and
    ``records.csv`` hold all records, ``records-columns.csv`` what their columns mean.
    """
    store = Store()
    for name in papers.papers():
        studies = report.committed_studies(name)
        for table in dict.fromkeys(t.name for s in studies for t in s.tables):
            report.committed_table(name, table, store)[1].to_csv(folder / f"{name}-{table}.csv", index=False)
            _seeds(trace.of(name, table, store)).to_csv(folder / f"{name}-{table}-seeds.csv", index=False)
        for figure in dict.fromkeys(f.name for s in studies for f in s.figures):
            drawn, data, _ = report.committed_figure(name, figure, store)
            points = report.with_tick_names(drawn, trace.summary(drawn, data))
            points.to_csv(folder / f"{name}-{figure}.csv", index=False)
            _seeds(trace.of(name, figure, store)).to_csv(folder / f"{name}-{figure}-seeds.csv", index=False)
        judged = verdicts.committed(name, store)
        claims = [trace.of_claim(name, j, store) for j in judged]
        if claims:
            seeds = pd.concat([_seeds(t).assign(claim=t.name) for t in claims], ignore_index=True)
            seeds[["claim", *seeds.columns.drop("claim")]].to_csv(folder / f"{name}-claims-seeds.csv", index=False)
    catalogue.write(catalogue.frame(store), folder)


def _seeds(found: trace.Trace) -> pd.DataFrame:
    """A trace's lines, the keys as one text."""
    return found.lines.assign(records=[" ".join(keys) for keys in found.lines["records"]])


def records_table() -> str:
    """All records as a table to sort and search, which needs no network; and what the columns of the downloads mean."""
    from itables import options, to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    shown = catalogue.frame(Store())[catalogue.SHOWN]
    shown["key"] = [f"<a href='../results/{key[:2]}/{key}.json' download>{key}</a>" for key in shown["key"]]
    library = Path(options.__file__).parent / "html" / "dt_bundle.js"
    table = to_html_datatable(
        shown.astype(object).where(shown.notna(), ""),
        connected=False,
        table_id="all-records",
        maxBytes=0,
        allow_html=True,
        showIndex=False,
        classes="display compact",
        lengthMenu=[10, 25, 100],
    )
    names = pd.Index(list(catalogue.COLUMNS), name="column")
    meanings = pd.DataFrame({"meaning": map(html.escape, catalogue.COLUMNS.values())}, names)
    return (
        generate_init_offline_itables_html(library)
        + render.scroll(table, "All records")
        + render.styled(meanings, "What the columns mean", classes="claims")
    )
