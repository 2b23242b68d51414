"""Numbers as a reader sees them: HTML tables of values. Strings out, nothing displayed."""

import html
from collections.abc import Iterable

import pandas as pd

from lbgap.papers.paper import Table, network_of
from lbgap.stats import Estimate


def number(mean: float, std: float, digits: int) -> str:
    """ "98.03 ± 0.07"; what that many digits would show as 0 has two significant ones; empty where there is no mean."""

    def shown(value: float) -> str:
        if value == float("inf"):
            return "∞"
        return f"{value:.2g}" if 0 < abs(value) < 10**-digits else f"{value:,.{digits}f}"

    if pd.isna(mean):
        return ""
    return shown(mean) + ("" if pd.isna(std) else f" ± {shown(std)}")


def _heading(column: str) -> str:
    return column.replace("eps", "ε ").replace("_", " ")


RUNNING = " running"  # a column of this suffix is a second reading of the column before it


def table(of: Table, frame: pd.DataFrame) -> str:
    """Title, then for each row: published, ours with n, and ours with running statistics where measured.

    Where there is nothing but ours, a row is a line, with n in a column of its own.
    """
    columns = [c for c in dict.fromkeys(frame["column"]) if not c.endswith(RUNNING)]
    has_published, any_ran = frame["published"].notna().any(), (frame["n"] + frame["diverged"]).any()
    sources = has_published or frame["column"].str.endswith(RUNNING).any()
    lines = []
    for row in dict.fromkeys(frame["row"]):
        part = frame[frame["row"] == row].set_index("column")
        if has_published:
            shown = [
                number(part.at[c, "published"], part.at[c, "published_std"], of.digits) if c in part.index else ""
                for c in columns
            ]
            lines.append(("published", row, "published", shown))
        for suffix, what in (("", "ours"), (RUNNING, "ours, running")):
            ours = part.loc[[c + suffix for c in columns if c + suffix in part.index]]
            if ours["n"].sum() + ours["diverged"].sum():
                label = f"{what}, n = {_span(ours['n'])}" if sources else _span(ours["n"])
                lines.append(
                    ("ours" if sources else "alone", row, label, [_ours(ours, c + suffix, of.digits) for c in columns])
                )
            elif not suffix and (has_published or not any_ran):  # without either, the line beneath the table names the row
                lines.append(("ours", row, "ours: not run" if sources else "not run", ["" for _ in columns]))
    head = "".join(f"<th>{html.escape(_heading(c))}</th>" for c in columns)
    body = "".join(
        f"<tr class='{kind}'><th>{html.escape(row)}</th><td>{html.escape(source)}</td>"
        f"{''.join(f'<td>{_quiet_deviation(v)}</td>' for v in values)}</tr>"
        for kind, row, source, values in lines
    )
    title = f"{'' if of.number is None else f'Table {of.number} of the paper. '}{of.title} ({of.unit})"
    head = f"<tr><th></th><th>{'' if sources else 'n'}</th>{head}</tr>"
    return f"<p class='lbgap-title'>{html.escape(title)}</p>" + scroll(
        f"<table class='lbgap-table'><thead>{head}</thead><tbody>{body}</tbody></table>"
    )


def _quiet_deviation(value: str) -> str:
    """A number's HTML with its deviation set smaller."""
    mean, plus_minus, deviation = html.escape(value).partition(" ± ")
    return f"{mean} <span class='deviation'>± {deviation}</span>" if plus_minus else mean


def _ours(part: pd.DataFrame, column: str, digits: int) -> str:
    if column not in part.index:
        return ""
    line = part.loc[column]
    diverged = f" ({line['diverged']} diverged)" if line["diverged"] else ""
    otherwise = "" if diverged else "undefined" if line["undefined"] else "not run"
    return (number(line["mean"], line["std"], digits) or otherwise) + diverged


def _span(n: pd.Series) -> str:
    low, high = int(n.min()), int(n.max())
    return str(low) if low == high else f"{low}–{high}"


def figure_numbers(data: pd.DataFrame, profiles: str) -> str:
    """Where each line of a figure begins and ends (means over seeds), folded away under its profile and seeds."""

    def place(x: float | str) -> str:
        return html.escape(x) if isinstance(x, str) else f"{x:.4g}"

    lines = []
    for (panel, line), part in data.groupby(["panel", "line"], sort=False):
        means = part.groupby("x", sort=not isinstance(part["x"].iloc[0], str))["y"].mean()  # ticks are in their order
        ends = "".join(f"<td>{place(x)}</td><td>{means[x]:.4g}</td>" for x in (means.index[0], means.index[-1]))
        seeds = part["seed"].nunique()
        lines.append(f"<tr><th>{html.escape(panel)}</th><td>{html.escape(line)}</td><td>{seeds}</td>{ends}</tr>")
    head = "".join(f"<th>{h}</th>" for h in ("panel", "line", "n", "first x", "mean", "last x", "mean"))
    table = f"<table class='lbgap-table'><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"<details class='lbgap-details'><summary>Profile {profiles}: numbers</summary>{scroll(table)}</details>"


def settings_line(frame: pd.DataFrame) -> str:
    """What produced our numbers, in words."""
    ran = frame[frame["n"] > 0]
    if ran.empty:
        return ""
    settings = ran.groupby(["profile", "setting"], sort=False)["row"].unique()
    alone = len(settings) == 1
    text = "; ".join(
        f"{'' if alone else rows_in_words(rows, ran['row']) + ': '}profile {profile}, {setting}"
        for (profile, setting), rows in settings.items()
    )
    running = " Running: batch norm with running averages." if ran["column"].str.endswith(RUNNING).any() else ""
    return f"<p class='lbgap-note'>Ours: {html.escape(text)}. Mean ± standard deviation over n seeds.{running}</p>"


def rows_in_words(rows: Iterable[str], among: Iterable[str]) -> str:
    """Names of rows; of a network all of whose rows are meant, its name alone."""
    rows = list(rows)
    others = {network_of(row) for row in among if row not in rows}
    names = dict.fromkeys(row if network_of(row) in others else network_of(row) for row in rows)
    return ("; " if any("," in name for name in names) else ", ").join(names)


def scroll(table: str) -> str:
    """A table that scrolls inside its own frame, so that a phone's page does not."""
    return f"<div class='lbgap-scroll'>{table}</div>"


def interval(e: Estimate, signed: bool = True) -> str:
    """A mean with its interval, "-0.22 [-0.3, -0.1]"; the mean alone where there is one value."""

    def three(value: float, sign: str = "") -> str:
        return f"{float(f'{value:.3g}'):{sign},g}"

    mean = three(e.effect, "+" if signed else "")
    return mean if e.n < 2 else f"{mean} [{three(e.low)}, {three(e.high)}]"
