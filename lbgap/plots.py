"""Figures on one house style, an SVG a panel, in the colours of the page around it.

A line is the mean over seeds; bars and bands are the mean's 95% interval (:func:`lbgap.trace.summary`). Few points show every
seed as a dot, curves as a thin line. On a logarithmic axis mean and interval are those of the logarithms.
"""

import html
import itertools
import re
import textwrap
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory

from lbgap import trace
from lbgap.papers.paper import Axis, Figure

# Okabe-Ito: distinguishable with every common colour blindness. What recurs keeps its colour in every chapter.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46"]
FIXED = {"SB": PALETTE[0], "LB": PALETTE[1], "train": PALETTE[2], "test": PALETTE[3], "published": PALETTE[6]}
PUBLISHED = "published"  # what begins so is hollow among points; in "published: C1" a name follows, which stands at the mark
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
FEW = 12  # so many points of a line have a marker, a bar and dots; more are a curve

# These stand for the page's own colours, which the style sheet knows.
INK, GRID, PAPER, BAND, UNDECIDED = "#010203", "#010204", "#010205", "#010206", "#010207"
PAGE = {
    INK: "currentColor",
    GRID: "var(--lbgap-grid, #ccc)",
    PAPER: "var(--pst-color-background, #fff)",
    BAND: "var(--lbgap-band, #eceff2)",
    UNDECIDED: "var(--lbgap-undecided, #8a6d00)",
}
STYLE = {
    **{name: INK for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")},
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "legend.framealpha": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
}


def draw(figure: Figure, data: pd.DataFrame) -> dict[Axis, Canvas]:
    """Draw long-form data (panel, line, seed, x, y), a canvas for each panel that has any.

    Raises:
        ValueError: no data for any panel.
    """
    panels = [axis for axis in figure.panels if (data["panel"] == axis.name).any()]
    if not panels:
        raise ValueError(f"data is empty; figure '{figure.name}' accepts at least one point")
    points = trace.summary(figure, data)
    every = list(dict.fromkeys(map(_look, data["line"])))
    out = {}
    for axis in panels:
        own = data[data["panel"] == axis.name]
        # a line looks the same in every panel, as far as there are colours for that
        lines = every if len(every) <= len(PALETTE) else list(dict.fromkeys(map(_look, own["line"])))
        out[axis] = _panel(figure, axis, own, points[points["panel"] == axis.name], lines)
    return out


def _heat(axis: Axis, points: pd.DataFrame) -> Canvas:
    """A heat map of the means: a row a line, a column a tick, the best of each column (the highest) framed."""
    means = points.pivot(index="line", columns="x", values="mean").reindex(dict.fromkeys(points["line"]))
    with sns.axes_style("white"), plt.rc_context(STYLE):
        canvas = Canvas(figsize=(4.4, 3.2), layout="constrained")
        ax = canvas.subplots()
        shown = np.ma.masked_invalid(means.to_numpy(float))
        low = np.nanpercentile(means, 25)  # what failed altogether would take up the whole scale
        mesh = ax.pcolormesh(shown, cmap="cividis", vmin=low, edgecolors="none")
        canvas.colorbar(mesh, ax=ax, label=axis.y, extend="min")
        for column, x in enumerate(means.columns):
            best = means[x].to_numpy(float)
            if np.isfinite(best).any():
                ax.add_patch(Rectangle((column, np.nanargmax(best)), 1, 1, fill=False, edgecolor=INK, linewidth=1.6))
        ax.set(title=axis.name, xlabel=axis.x)
        ax.set_xticks(np.arange(len(means.columns)) + 0.5, [axis.ticks[int(x)] for x in means.columns], rotation=45)
        ax.set_yticks(np.arange(len(means)) + 0.5, means.index)
    return canvas


def _panel(figure: Figure, axis: Axis, data: pd.DataFrame, points: pd.DataFrame, named: list[str]) -> Canvas:
    """``named`` are the looks that colours and markers are given to, in order, those of this panel's lines among them."""
    if figure.mark == "heat":
        return _heat(axis, points)
    look = {line: _look(line) for line in dict.fromkeys(data["line"])}
    lines = [line for line in named if line in look.values()]
    fixed = {line: FIXED.get(PUBLISHED if line.startswith(PUBLISHED) else line) for line in named}
    spare = itertools.cycle(c for c in PALETTE if c not in fixed.values())
    colours = {line: fixed[line] or next(spare) for line in named}
    # a colour that comes again has another marker
    markers = {line: MARKERS[(i + i // len(MARKERS)) % len(MARKERS)] for i, line in enumerate(named)}
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE):
        canvas = Canvas(figsize=(4.4, 3.2), layout="constrained")
        ax = canvas.subplots()
        ax.set(title=axis.name, xlabel=axis.x, ylabel=axis.y)
        ax.set(xscale="log" if axis.log_x else "linear", yscale="log" if axis.log_y else "linear")
        for line in sorted(look, key=lambda line: named.index(look[line])):
            means = points[points["line"] == line].dropna(subset="mean").sort_values("x")
            _line(ax, figure.mark, data[data["line"] == line], means, markers[look[line]], colours[look[line]])
            if look[line] != line:
                _name(ax, line.removeprefix(f"{look[line]}: "), means)
        if axis.log_x:
            _few_ticks(ax.xaxis, *ax.get_xlim())
        if axis.log_y:
            _few_ticks(ax.yaxis, *ax.get_ylim())
        elif figure.mark == "line":
            _show_the_effect(ax, data)
        if axis.ticks:
            ax.set_xticks(range(len(axis.ticks)), axis.ticks)
        slopes = {} if axis.fit_from is None else _fits(ax, points, axis.fit_from, colours)
        if len(named) > 1:
            style = {"markersize": 5, "linewidth": 0 if figure.mark == "point" else 1.5}
            handles = [Line2D([], [], color=colours[line], marker=markers[line], **style) for line in lines]
            for handle, line in zip(handles, lines, strict=True):
                if figure.mark == "point" and line.startswith(PUBLISHED):
                    handle.set_markerfacecolor("none")
            # a cloud of points leaves no corner free
            beneath = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2} if figure.mark == "point" else {}
            ax.legend(handles, [line + slopes.get(line, "") for line in lines], **beneath)
    return canvas


def _look(line: str) -> str:
    """What a line is drawn and listed as: under its own name, without that of a published mark."""
    return line.partition(": ")[0] if line.startswith(PUBLISHED) else line


def _name(ax: plt.Axes, name: str, points: pd.DataFrame) -> None:
    """A name above each point."""
    for x, y in zip(points["x"], points["mean"], strict=True):
        ax.annotate(name, (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=8)


def _line(ax: plt.Axes, mark: str, seeds: pd.DataFrame, means: pd.DataFrame, marker: str, colour: str) -> None:
    """One line's points, hollow where they are published, or its mean with interval and seeds."""
    of_a_seed = {"color": colour, "alpha": 0.4}
    if mark == "point":
        hollow = seeds["line"].str.startswith(PUBLISHED).all()
        face = {"facecolors": "none", "linewidths": 1.2} if hollow else {"linewidths": 0, "alpha": 0.8}
        ax.scatter(seeds["x"], seeds["y"], **{"s": 22, "marker": marker, "color": colour} | face)
    elif len(means) <= FEW:
        if means["n"].max() > 1:
            ax.scatter(seeds["x"], seeds["y"], s=9, linewidths=0, **of_a_seed)
        bars = np.abs(means[["low", "high"]].to_numpy().T - means["mean"].to_numpy())
        bars = bars if (bars > 0).any() else None  # bars of no length upset a logarithmic axis
        ax.errorbar(means["x"], means["mean"], bars, color=colour, marker=marker, markersize=5, capsize=3)
    else:
        for _, seed in seeds.groupby("seed"):
            ax.plot(seed["x"], seed["y"], linewidth=0.6, **of_a_seed)
        ax.fill_between(means["x"], means["low"], means["high"], color=colour, alpha=0.2, linewidth=0)
        ax.plot(means["x"], means["mean"], color=colour, linewidth=1.6, marker=marker, markersize=4, markevery=0.12)


def _show_the_effect(ax: plt.Axes, data: pd.DataFrame) -> None:
    """Where a curve's beginning would flatten the rest, the axis shows the range of its last three quarters."""
    late = data.loc[data["x"] >= data["x"].min() + np.ptp(data["x"]) / 4, "y"].dropna()
    if data["x"].nunique() > FEW and 0 < 4 * np.ptp(late) < np.ptp(data["y"].dropna()):
        ax.set_ylim(late.min() - 0.1 * np.ptp(late), late.max() + 0.1 * np.ptp(late))


def _fits(ax: plt.Axes, points: pd.DataFrame, first: float, colours: dict[str, str]) -> dict[str, str]:
    """Draw each line's least-squares a + b log x, of its means over seeds from ``first`` on; b in words, by line."""
    slopes = {}
    for line, means in points[points["x"] >= first].groupby("line", sort=False):
        if len(means) > 1:
            b, a = np.polyfit(np.log(means["x"]), means["mean"], 1)
            ax.plot(means["x"], a + b * np.log(means["x"]), color=colours[line], linestyle="--", linewidth=1)
            slopes[line] = f", slope {b:.3g}"
    return slopes


def _few_ticks(axis: MatplotlibAxis, low: float, high: float) -> None:
    """On a logarithmic axis of less than two decades, 1, 2 and 5 times each power of ten, written out; else the powers."""
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_formatter(NullFormatter())


def _hundredths(number: re.Match) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _plainer(body: str) -> str:
    """The same drawing in fewer words: no id that nothing refers to; what all shapes of a group say is said by the group."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"<g([^<>]*)>((?:<(?:use|path) [^<>]*/>){2,})</g>", _shared, body)
    return re.sub(r"<g>(<[^<>]*/>|<text[^<>]*>[^<>]*</text>)</g>", r"\1", body)


def _shared(group: re.Match) -> str:
    said, shapes = group.groups()
    for name in ("style", "clip-path"):
        values = re.findall(rf' {name}="([^"]*)"', shapes)
        # the opacity of a group is not that of its shapes where they overlap
        alike = len(values) == shapes.count("<") and len(set(values)) == 1 and not re.search(r"(?<!-)opacity", values[0])
        if alike and f" {name}=" not in said:
            said, shapes = f'{said} {name}="{values[0]}"', shapes.replace(f' {name}="{values[0]}"', "")
    return f"<g{said}>{shapes}</g>"


def svg(canvas: Canvas, name: str, words: str) -> str:
    """A canvas as SVG to stand in a page: text and frame in the page's colours, ``words`` for who does not see it.

    The same canvas gives the same text, to a hundredth of a point.

    Args:
        name: the beginning of every id in it; unique on its page.
    """
    out = StringIO()
    with plt.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        canvas.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = out.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)[0]
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _hundredths, tag[0]), body)  # not in what is read
    body = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px[^;\"]*", r"font-size: \1px", body)
    body = re.sub(r" font-family: [^;\"]*;", "", body)
    body = body.replace("xlink:href", "href").replace(' target="_blank"', "")
    for colour, on_the_page in PAGE.items():
        body = body.replace(colour, on_the_page)
    for i, colour in enumerate(PALETTE):
        body = body.replace(colour.lower(), f"var(--lbgap-{i}, {colour})")
    body = _plainer(re.sub(r"\s+", " ", re.sub(r">\s+<", "><", body)).strip())
    role = "group" if "<a " in body else "img"  # an image has no links
    return f'<svg {box} role="{role}" aria-label="{html.escape(words)}">{body}'


# ---------------------------------------------------------------- the forest of claims

VERDICT_COLOURS = {"replicated": PALETTE[2], "contradicted": PALETTE[1], "inconclusive": UNDECIDED, "not run": UNDECIDED}
SCALES = {"points": "points of accuracy or error", "ratio": "ratio", "rank correlation": "rank correlation"}
LABEL_WIDTH = 56  # letters


def forest(effects: pd.DataFrame) -> dict[str, Canvas]:
    """Every claim's effects with their 95% intervals (:func:`lbgap.verdicts.effects`), a canvas a scale, and the legend.

    A claim is a line of words, which leads to its place in the paper's page, and beneath it a mark a network: filled where it
    was run as in the paper, hollow elsewhere, in the colour of its verdict. Bars between ticks are what the paper reports, a
    band is where the claim holds.

    Raises:
        ValueError: no effect at all.
    """
    found = effects[effects["effect"].notna()]
    if found.empty:
        raise ValueError("effects is empty; accepted is at least one claim with an effect")
    found = found.assign(panel=[SCALES.get(scale, "own units") for scale in found["scale"]])
    panels = [p for p in (*SCALES.values(), "own units") if (found["panel"] == p).any()]
    with sns.axes_style("whitegrid", {"axes.grid.axis": "x"}), plt.rc_context(STYLE):
        return {p: _forest_panel(p, found[found["panel"] == p]) for p in panels} | {"legend": _forest_legend()}


def _forest_panel(panel: str, found: pd.DataFrame) -> Canvas:
    places, y = [], 0.0  # of each claim, its lines of words with the middle of them, and the rows of its marks
    for _, of in found.groupby(["paper", "id"], sort=False):
        words, own = _row_labels(of, panel)
        below = y + len(words) - 1
        places.append(((y + below) / 2, words, own, of.assign(y=below + 1 + np.arange(len(of)))))
        y = below + len(of) + 1.4
    canvas = Canvas(figsize=(4.4, 0.17 * y + 0.6), layout="constrained")
    ax = canvas.subplots()
    for *_, of in places:
        for line in of.itertuples():
            _forest_mark(ax, line)
    low, high = _forest_axis(ax, panel)
    names = []
    for middle, label, own, of in places:
        first = of.iloc[0]
        ax.fill_betweenx(
            [of["y"].min() - 0.45, of["y"].max() + 0.45],
            max(low, first["holds_from"]),
            min(high, first["holds_to"]),
            color=BAND,
            zorder=0,
        )
        names += own
        # from the left edge of the drawing: names of networks, beside the marks, leave the axes less width than a label takes
        at = blended_transform_factory(canvas.transFigure, ax.transData)
        words = ax.text(
            0.01, middle, "\n".join(label), transform=at, va="center", fontsize=10, linespacing=1.1, in_layout=False
        )
        words.set_url(f"{first['paper']}.html#{trace.anchor(first['paper'], first['id'])}")
    marks = pd.concat([of for *_, of in places])
    ax.set_yticks(marks["y"], names, fontsize=9)
    ax.set_ylim(y - 0.9, -0.8)
    return canvas


def _row_labels(of: pd.DataFrame, panel: str) -> tuple[list[str], list[str]]:
    """What the settings of a claim have in common, as lines of words over them; of each its network, with what is its own."""
    first = of.iloc[0]
    words = [line["setting"].removeprefix(line["network"]).lstrip(":, ").rpartition(": ") for _, line in of.iterrows()]
    conditions = [[c for c in on.strip(", ").split(", ") if c] for on, _, _ in words]
    shared = [c for c in conditions[0] if all(c in of_one for of_one in conditions)]
    what = ": ".join(filter(None, [", ".join(shared), _merged([measured for _, _, measured in words])]))
    unit = f" [{first['scale']}]" if panel == "own units" and first["scale"] not in what else ""
    own = [", ".join([n, *(c for c in on if c not in shared)]) for n, on in zip(of["network"], conditions, strict=True)]
    return textwrap.wrap(f"{first['id']} {what}{unit}", LABEL_WIDTH), own


def _merged(phrases: list[str]) -> str:
    """Phrases of as many words as one that has the words in which they differ side by side; else the first of them."""
    words = [phrase.split(" ") for phrase in phrases]
    if len({len(of_one) for of_one in words}) > 1:
        return phrases[0]
    places = (dict.fromkeys(place) for place in zip(*words, strict=True))
    return " ".join(" or ".join(w.rstrip(",") for w in place) + "," * all(w.endswith(",") for w in place) for place in places)


def _forest_mark(ax: plt.Axes, line) -> None:
    colour = VERDICT_COLOURS[line.verdict]
    filled = colour if line.scope == "paper" else PAPER
    ax.plot([line.low, line.high], [line.y, line.y], color=colour, linewidth=1.4, zorder=2)
    ax.plot(line.effect, line.y, "o", color=colour, markerfacecolor=filled, markersize=5, markeredgewidth=1.3, zorder=3)
    if line.published_low == line.published_low:
        reported = [line.published_low, line.published_high]
        ax.plot(reported, [line.y, line.y], color=FIXED["published"], linewidth=1, zorder=1)
        ax.plot(reported, [line.y, line.y], "|", color=FIXED["published"], markersize=9, markeredgewidth=2, zorder=4)


def _forest_axis(ax: plt.Axes, panel: str) -> tuple[float, float]:
    """Scale, line of no effect and ticks of a panel; its limits, which what is drawn later does not move."""
    ax.set_title(panel, loc="left", fontweight="bold")
    ax.axvline(1 if panel == "ratio" else 0, color=INK, linewidth=0.8, zorder=1)
    if panel == "rank correlation":
        ax.set_xlim(-1.05, 1.05)
        return ax.get_xlim()
    ax.set_xscale("log") if panel == "ratio" else ax.set_xscale("symlog", linthresh=1)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(ax.get_xlim())
    return ax.get_xlim()


def _forest_legend() -> Canvas:
    grey = {"color": INK, "marker": "o", "linestyle": "", "markersize": 5, "markeredgewidth": 1.3}
    verdicts = {"replicated": "holds", "contradicted": "does not hold", "inconclusive": "not decided"}
    published = {"color": FIXED["published"], "marker": "|", "linestyle": "", "markersize": 9, "markeredgewidth": 2}
    handles = [
        Line2D([], [], label="run as in the paper", **grey),
        Line2D([], [], markerfacecolor=PAPER, label="reduced, or our reading", **grey),
        Line2D([], [], label="published, at full size", **published),
        *(Line2D([], [], color=VERDICT_COLOURS[v], linewidth=2, label=f"the claim {label}") for v, label in verdicts.items()),
        Patch(color=BAND, label="where the claim holds"),
    ]
    canvas = Canvas(figsize=(4.4, 1.0))
    canvas.legend(handles=handles, loc="center", ncols=2, frameon=False)
    return canvas


def forest_words(panel: str, effects: pd.DataFrame) -> str:
    """What a panel of the forest shows, in words: how many effects lie where their claim holds, and of the published ones."""
    of = effects[effects["effect"].notna() & (effects["scale"].map(lambda s: SCALES.get(s, "own units")) == panel)]
    counts = [f"{(of['verdict'] == v).sum()} {w}" for v, w in (("replicated", "hold"), ("contradicted", "do not hold"))]
    reported = of[of["published_low"].notna()]
    inside = ((reported["low"] <= reported["published_high"]) & (reported["high"] >= reported["published_low"])).sum()
    beside = f" Of {len(reported)} effects that a paper reports, {inside} lie inside our interval." if len(reported) else ""
    return f"Effects in {panel}: of {len(of)}, {' and '.join(counts)}.{beside}"
