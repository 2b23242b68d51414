"""Pages that belong to no paper: the front page, the status page, and every number as CSV."""

import html
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display

from lbgap import badges, cost, papers, paths, plots, render, report, verdicts
from lbgap.records import Store


def front_page(paper: str | None = None) -> None:
    """The state of every claim of one paper or of all, from committed records."""
    store = Store()
    judged = [(name, j) for name in papers.names(paper) for j in verdicts.committed_verdicts(name, store)]
    display(HTML(render.scroll(badges.verdict_table(judged, paper_column=True))))


def forest(paper: str | None = None) -> None:
    """Every claim's effects beside the published ones, of one paper or of all; nothing where nothing is recorded."""
    effects = verdicts.effects(papers.names(paper), Store())
    if effects["effect"].notna().any():
        plots.forest(effects)
        plt.show()


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
    body = "".join(
        f"<tr><td>{r.paper}</td><td>{r.profile}</td><th>{html.escape(r.table)}</th><td>{r.done}</td><td>{r.missing}"
        f"</td><td>{r.cost}</td></tr>"
        for r in frame.itertuples()
    )
    display(
        HTML(
            render.scroll(
                "<table class='lbgap-table'><thead><tr><th>paper</th><th>profile</th><th>table, figure or claim</th>"
                "<th>recorded</th><th>missing</th><th>left (paper: one GPU; cpu: one thread)</th></tr></thead>"
                f"<tbody>{body}</tbody></table>"
            )
        )
    )


def benchmark(name: str) -> None:
    """The measured ratios of one name in ``benchmark.json``, which ``tools/benchmark.py`` writes.

    Raises:
        ValueError: a name that it does not hold.
    """
    found = json.loads((paths.ROOT / "results" / "benchmark.json").read_text())
    lines = [line for line in found["ratios"] if line["name"] == name]
    if not lines:
        raise ValueError(f"benchmark is '{name}'; accepted are {', '.join(sorted({r['name'] for r in found['ratios']}))}")
    body = "".join(
        f"<tr><th>{html.escape(r['what'])}</th><td>{html.escape(r['against'])}, {r['milliseconds']:,} ms</td>"
        f"<td>× {r['ratio']:g} [{r['least']:g}, {r['greatest']:g}]</td></tr>"
        for r in lines
    )
    note = f"Median of repeated runs, least and greatest, on {found['machine']}, torch {found['torch']}."
    display(
        HTML(
            render.scroll(
                "<table class='lbgap-table'><thead><tr><th>time of a forward and backward pass</th><th>against</th>"
                f"<th>ratio</th></tr></thead><tbody>{body}</tbody></table>"
            )
            + f"<p class='lbgap-note'>{html.escape(note)}</p>"
        )
    )


def export_csv(folder: Path) -> list[str]:
    """Write the numbers of every table and figure as CSV into a folder; returns the file names."""
    store, written = Store(), []
    for name in papers.papers():
        studies = report.committed_studies(name)
        for table in dict.fromkeys(t.name for s in studies for t in s.tables):
            report.committed_table(name, table, store)[1].to_csv(folder / f"{name}-{table}.csv", index=False)
            written.append(f"{name}-{table}.csv")
        for figure in dict.fromkeys(f.name for s in studies for f in s.figures):
            drawn, data, _ = report.committed_figure(name, figure, store)
            report.with_tick_names(drawn, data).to_csv(folder / f"{name}-{figure}.csv", index=False)
            written.append(f"{name}-{figure}.csv")
    return written
