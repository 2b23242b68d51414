"""Numbers as a reader sees them: HTML of tables and of folds of records. Strings out, nothing displayed."""

import html
import math
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from lbgap import trace
from lbgap.papers.paper import Axis, Figure, Table
from lbgap.records import Store
from lbgap.stats import Estimate
from lbgap.verdicts import Judged

_Styler = Styler.from_custom_template(str(Path(__file__).parent / "templates"), html_table="table.html")


def styled(
    frame: pd.DataFrame,
    label: str,
    caption: str = "",
    classes: str = "",
    id: str = "",
    rows: Iterable[str] = (),
    columns: Mapping[str, str] | None = None,
    sparse: bool = True,
) -> str:
    """A frame of HTML strings as a table in a frame that a keyboard can scroll.

    Args:
        frame: the names of its index levels head the columns of row labels; an index without a name is not shown.
        label: what a screen reader says of the frame.
        rows: for each row, a class of its cells.
        columns: for a column, a class of its cells.
        sparse: whether lines that follow each other share the label that they have in common.
    """
    names = ["lbgap-table", *classes.split(), *(["many"] if len(frame.columns) > 5 else [])]
    style = _Styler(frame).set_table_attributes(f"class='{' '.join(names)}'")
    if caption:
        style = style.set_caption(caption)
    if rows := list(rows):
        style = style.set_td_classes(pd.DataFrame({c: rows for c in frame.columns}, index=frame.index))
    if columns:
        style = style.set_td_classes(pd.DataFrame([columns] * len(frame)).set_axis(frame.index))
    if frame.index.names == [None]:
        style = style.hide(axis="index")
    return scroll(style.to_html(exclude_styles=True, sparse_index=sparse), label, id)


def scroll(table: str, label: str = "Table", id: str = "") -> str:
    """A table that scrolls inside its own frame, by keyboard too, so that a phone's page does not."""
    where = f" id='{id}'" if id else ""
    return f"<div class='lbgap-scroll' role='region' tabindex='0' aria-label='{html.escape(label)}'{where}>{table}</div>"


def number(mean: float, std: float, digits: int) -> str:
    """ "98.03 ± 0.07"; empty where there is no mean. The deviation has the decimals of its mean.

    From a thousand on there are no decimals; what ``digits`` would show as 0 has two significant ones.
    """
    if pd.isna(mean):
        return ""
    size = abs(mean)
    small = 0 < size < 10**-digits
    decimals = 1 - math.floor(math.log10(size)) if small else 0 if size >= 1000 else digits

    def shown(value: float) -> str:
        if value == float("inf"):
            return "∞"
        return powers_of_ten(f"{value:.1e}") if decimals > 6 else f"{value:,.{decimals}f}"

    return shown(mean) + ("" if pd.isna(std) else f" ± {shown(std)}")


def mean(line: pd.Series, digits: int) -> str:
    """A cell's mean with its deviation, of a ratio with its interval: "98.03 ± 0.07", "× 13 [11, 15]"."""
    if line["scale"] == "ratio":
        return "× " + interval(Estimate(*line[["mean", "low", "high", "n"]]), signed=False)
    return number(line["mean"], line["std"], digits)


SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def powers_of_ten(text: str) -> str:
    """A text's numbers as a reader would write them: "5e-4" is "5·10⁻⁴", "1e-03" is "10⁻³"."""

    def power(m: re.Match) -> str:
        sign = "⁻" if m[2] == "-" else ""
        return f"{'' if m[1] == '1' else m[1] + '·'}10{sign}{m[3].translate(SUPERSCRIPTS)}"

    return re.sub(r"(\d+(?:\.\d+)?)e([+-])0*(\d+)", power, text)


def _heading(column: str) -> str:
    """A column's name in a reader's signs: "eps1e-3_SB" is "ε = 10⁻³, SB"."""
    column = powers_of_ten(re.sub(r"eps(?=\de-\d)", "ε = ", column))
    return column.replace("_", ", " if "ε" in column else " ")


def table(of: Table, frame: pd.DataFrame, paper: str = "", place: int | None = None) -> str:
    """Caption, then for each row: published, ours with n, and ours in each second reading that there is.

    Where there is nothing but ours, a row is a line, with n in a column of its own. What is a reduction of the paper's
    experiment says so beside its numbers.

    Args:
        paper: whose page this is; each of our numbers then leads to its place in the fold beneath (:func:`fold`).
        place: the table's number on its page.
    """
    columns, readings = dict.fromkeys(frame["heading"]), dict.fromkeys(["", *frame["reading"]])
    has_published, any_ran = frame["published"].notna().any(), (frame["n"] + frame["diverged"]).any()
    sources = has_published or len(readings) > 1
    any_reduced = has_published and frame.get("reduced", pd.Series(False)).any()
    lines = []  # (kind, row, source or n, numbers)
    for row in dict.fromkeys(frame["row"]):
        whole = frame[frame["row"] == row].set_index("heading")
        part = whole[whole["reading"] == ""]
        if has_published:
            shown = [
                number(part.at[c, "published"], part.at[c, "published_std"], of.digits) if c in part.index else ""
                for c in columns
            ]
            if any(shown):
                lines.append(("published", row, "published, full size" if any_reduced else "published", shown))
        reduced = ", reduced" if has_published and "reduced" in whole and whole["reduced"].any() else ""
        for reading in readings:
            ours = whole[whole["reading"] == reading]
            if ours["n"].sum() + ours["diverged"].sum():
                what = f"ours, {reading}" if reading else "ours"
                label = f"{what}{reduced}, n = {_span(ours['n'])}" if sources else _span(ours["n"])
                shown = [_ours(ours, c, of, paper) for c in columns]
                lines.append(("ours" if sources else "alone", row, label, shown))
            elif not reading and (has_published or not any_ran):  # without either, the line beneath the table names the row
                lines.append(("ours", row, "ours: not run" if sources else "not run", ["" for _ in columns]))
    heads = [html.escape(_heading(c)) for c in columns]
    labels = [[html.escape(row) for _, row, _, _ in lines], [html.escape(source) for _, _, source, _ in lines]]
    shown = pd.DataFrame([[_quiet_deviation(v) for v in numbers] for *_, numbers in lines], columns=heads)
    if sources:
        shown.index = pd.MultiIndex.from_arrays(labels, names=["setting", "source"])
    else:
        shown.insert(0, "n", labels[1], allow_duplicates=True)
        shown.index = pd.Index(labels[0], name="setting")
    number_ = "" if place is None else f"<strong>Table {place}.</strong> "
    title = f"{of.title} ({of.unit}{'' if of.number is None else f'; Table {of.number} of the paper'})"
    id = trace.anchor(paper, of.name) if paper else ""
    return styled(shown, of.title, number_ + html.escape(title), id=id, rows=[kind for kind, *_ in lines])


def _quiet_deviation(value: str) -> str:
    """A number's HTML with its deviation set smaller."""
    return re.sub(r" (± [^<( ]+)", r" <span class='deviation'>\1</span>", value)


def _ours(part: pd.DataFrame, heading: str, of: Table, paper: str) -> str:
    """One of our numbers, as a link to its seeds."""
    if heading not in part.index:
        return ""
    line = part.loc[heading]
    diverged = f" ({line['diverged']} diverged)" if line["diverged"] else ""
    otherwise = "" if diverged else "undefined" if line["undefined"] else ""
    text = (mean(line, of.digits) or otherwise) + diverged
    return to_records(text, trace.anchor(paper, of.name, line["row"], line["column"])) if paper and text else text or "not run"


def to_records(text: str, anchor: str, page: str = "") -> str:
    """A number, in prose or in a table, as a link to its place in a fold, of another page where one is named."""
    return f"<a class='lbgap-number' href='{page}#{anchor}'>{text}</a>"


def _span(n: pd.Series) -> str:
    low, high = int(n.min()), int(n.max())
    return str(low) if low == high else f"{low}–{high}"


# ---------------------------------------------------------------- folds: every seed and its records

MANY = 4  # keys that a value shows; of more, as of one chosen from a whole grid of rates, the first and their number
WHERE = "The keys beneath a value, or beneath a row's name where all its values share them, are its records (JSON)."


def fold(found: trace.Trace, above: str = "") -> str:
    """Under a table or figure: every seed's value, its records, the command that computes them again, the downloads.

    ``above`` comes before the seeds: what produced them, or where each line of a figure begins and ends.
    """
    files = f"downloads/{found.paper}-{found.name}"
    note = (
        f"{WHERE} Computed again, into a folder of its own: "
        f"<code>{html.escape(found.command())}</code>. Download: <a href='{files}.csv' download>the summary</a>, "
        f"<a href='{files}-seeds.csv' download>a line a seed</a> (CSV)."
    )
    return details("Every seed and its record", f"<p class='lbgap-note'>{note}</p>{above}{seeds_table(found)}")


def claims_fold(paper: str, judged: Iterable[Judged], store: Store) -> str:
    """Every seed and its record of both sides of every rule, a table a claim."""
    found = [trace.of_claim(paper, j, store) for j in judged]
    inside = "".join(
        f"<p class='lbgap-title' id='{trace.anchor(paper, t.name)}'>{t.name}</p><p class='lbgap-note'><code>"
        f"{html.escape(t.command())}</code></p>{seeds_table(t)}"
        for t in found
        if len(t.lines)
    )
    note = (
        f"A and B are the sides of the rule. {WHERE} Download: "
        f"<a href='downloads/{paper}-claims-seeds.csv' download>a line a seed</a> (CSV)."
    )
    return details("Every seed and its record, claim by claim", f"<p class='lbgap-note'>{note}</p>{inside}")


def details(summary: str, inside: str) -> str:
    """Something folded away."""
    return f"<details class='lbgap-details'><summary>{html.escape(summary)}</summary>{inside}</details>"


def seeds_table(found: trace.Trace) -> str:
    """A line a place, a column a seed: the value, and beneath it the keys of its records.

    A value that was chosen on the other seeds is read from all of their records: those that a line's values share stand once.
    Of a line of a figure that one record holds, the value is the last one.
    """
    lines = found.lines
    seeds = sorted(set(lines["seed"]))
    rows = {}
    for place, part in lines.groupby(list(trace.rows(found)), sort=False):
        last = part.drop_duplicates("seed", keep="last").set_index("seed")
        label = f"<span id='{found.anchor(*place)}'>{html.escape(', '.join(_words(p) for p in place))}</span>"
        if found.places[-1] == "side" and place[-1] == "A":  # a setting's effect is of both sides: it leads to the first
            label = f"<span id='{found.anchor(*place[:-1])}'>{label}</span>"
        values = {s: trace.in_words(line) for s, line in last.iterrows()}
        if len(last) > 1 and last["records"].map(frozenset).nunique() == 1:
            label += _keys(last["records"].iloc[0])
        else:
            values = {s: value + _keys(last.at[s, "records"]) for s, value in values.items()}
        rows[label] = [values.get(s, "") for s in seeds]
    frame = pd.DataFrame(rows.values(), index=pd.Index(rows, name=", ".join(trace.rows(found))), dtype=object)
    frame.columns = [f"seed {s}" for s in seeds]
    return styled(frame, f"{found.title}: every seed and its records", classes="seeds")


def _words(part: str | float) -> str:
    return f"{part:g}" if isinstance(part, float) else _heading(part)


def _keys(keys: tuple[str, ...]) -> str:
    """Keys as links to their records, beneath what was read from them."""
    shown = keys if len(keys) <= MANY else keys[:1]
    links = [f"<a href='../results/{key[:2]}/{key}.json' download>{key[:8]}</a>" for key in shown]
    more = f" and {len(keys) - len(shown)} more, in the CSV" if len(keys) > len(shown) else ""
    return f"<br><small>{' '.join(links)}{more}</small>"


def panels(figure: Figure, drawings: Iterable[str]) -> str:
    """The panels of a figure, side by side where the page is wide enough, and what its bars are: the same everywhere."""
    means = "Lines: mean over seeds; bars and bands: its 95% interval; dots and thin lines: single seeds."
    if any(axis.log_y for axis in figure.panels):
        means += " On a logarithmic axis mean and interval are those of the logarithms."
    note = {"point": "A point a seed.", "heat": "Colour: mean over seeds."}.get(figure.mark, means)
    inside = "".join(f"<div>{drawing}</div>" for drawing in drawings)
    return f"<div class='lbgap-figure'>{inside}</div><p class='lbgap-note'>{note}</p>"


def panel_words(axis: Axis, points: pd.DataFrame) -> str:
    """What a panel shows, in words for who does not see it: where each line goes, and which ends highest."""
    name = axis.ticks.__getitem__ if axis.ticks else "{:.4g}".format
    ends, said = {}, []
    for line, part in points.dropna(subset="mean").sort_values("x").groupby("line", sort=False):
        x, last_x = (name(int(x) if axis.ticks else x) for x in part["x"].iloc[[0, -1]])
        first, last = part["mean"].iloc[[0, -1]]
        ends.setdefault(last_x, {})[line] = last
        said.append(
            f"{line} is {first:.4g} at {x}" if x == last_x else f"{line} goes from {first:.4g} at {x} to {last:.4g} at {last_x}"
        )
    for x, found in ends.items():
        if len(found) > 1:
            order = sorted(found, key=found.get, reverse=True)
            said.append(f"at {x} the order from the highest down is {', '.join(order)}")
    return f"{axis.name}: {axis.y} against {axis.x}. {'; '.join(said)}."


def figure_numbers(points: pd.DataFrame) -> str:
    """Where each line of a figure begins and ends, from :func:`trace.summary`: means over seeds with 95% intervals."""

    def place(x: float | str) -> str:
        return html.escape(x) if isinstance(x, str) else f"{x:.4g}"

    lines = []
    for (panel, line), part in points.groupby(["panel", "line"], sort=False):
        if not isinstance(part["x"].iloc[0], str):  # ticks are in their order
            part = part.sort_values("x")
        ends = [text for i in (0, -1) for text in (place(part["x"].iloc[i]), _point(part.iloc[i]))]
        lines.append([html.escape(panel), html.escape(line), _span(part.iloc[[0, -1]]["n"]), *ends])
    frame = pd.DataFrame(lines, columns=["panel", "line", "n", "first x", "mean there", "last x", "mean there "])
    return styled(frame.set_index(["panel", "line"]).astype(str), "Where each line begins and ends")


def _point(point: pd.Series) -> str:
    """A mean with its interval, to four digits."""
    if pd.isna(point["mean"]):
        return "–"
    interval = "" if pd.isna(point["low"]) else f" [{point['low']:.4g}, {point['high']:.4g}]"
    return f"{point['mean']:.4g}{interval}"


def settings_line(frame: pd.DataFrame) -> str:
    """What produced our numbers, in words."""
    ran = frame[frame["n"] > 0]
    if ran.empty:
        return ""
    settings = ran.groupby(["profile", "setting"], sort=False)["row"].unique()
    alone = len(settings) == 1
    text = "; ".join(
        f"{'' if alone else rows_in_words(rows, ran) + ': '}profile {profile}, {setting}"
        for (profile, setting), rows in settings.items()
    )
    running = " Running: batch norm with running averages." if (ran["reading"] == "running").any() else ""
    return f"<p class='lbgap-note'>Ours: {html.escape(text)}. Mean ± standard deviation over n seeds.{running}</p>"


def rows_in_words(rows: Collection[str], among: pd.DataFrame) -> str:
    """Names of rows of a frame; of a network all of whose rows are meant, its name alone, where they bear it."""
    networks = {row: n for row, n in zip(among["row"], among["network"], strict=True) if n and row.startswith(n)}
    others = {network for row, network in networks.items() if row not in rows}
    names = dict.fromkeys(n if (n := networks.get(row)) and n not in others else row for row in rows)
    return ("; " if any("," in name for name in names) else ", ").join(names)


def interval(e: Estimate, signed: bool = True) -> str:
    """A mean with its interval, "-0.22 [-0.3, -0.1]"; the mean alone where there is one value."""

    def three(value: float, sign: str = "") -> str:
        return powers_of_ten(f"{float(f'{value:.3g}'):{sign},g}")

    mean = three(e.effect, "+" if signed else "")
    return mean if e.n < 2 else f"{mean} [{three(e.low)}, {three(e.high)}]"
