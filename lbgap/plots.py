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
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from lbgap import trace
from lbgap.papers.paper import Axis, Figure

# Okabe-Ito: distinguishable with every common colour blindness. What recurs keeps its colour in every chapter.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46"]
FIXED = {"SB": PALETTE[0], "LB": PALETTE[1], "train": PALETTE[2], "test": PALETTE[3], "published": PALETTE[6]}
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
FEW = 12  # so many points of a line have a marker, a bar and dots; more are a curve

INK, GRID = "#010203", "#010204"  # stand for the page's own colours, which the style sheet knows
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
    return {
        axis: _panel(figure, axis, data[data["panel"] == axis.name], points[points["panel"] == axis.name]) for axis in panels
    }


def _panel(figure: Figure, axis: Axis, data: pd.DataFrame, points: pd.DataFrame) -> Canvas:
    lines = list(dict.fromkeys(data["line"]))
    spare = itertools.cycle(c for c in PALETTE if c not in [FIXED.get(line) for line in lines])
    colours = {line: FIXED.get(line) or next(spare) for line in lines}
    # a colour that comes again has another marker
    markers = {line: MARKERS[(i + i // len(MARKERS)) % len(MARKERS)] for i, line in enumerate(lines)}
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE):
        canvas = Canvas(figsize=(4.4, 3.2), layout="constrained")
        ax = canvas.subplots()
        ax.set(title=axis.name, xlabel=axis.x, ylabel=axis.y)
        ax.set(xscale="log" if axis.log_x else "linear", yscale="log" if axis.log_y else "linear")
        for line in lines:
            means = points[points["line"] == line].dropna(subset="mean").sort_values("x")
            _line(ax, figure.mark, data[data["line"] == line], means, markers[line], colours[line])
        if axis.log_x:
            _few_ticks(ax.xaxis, *ax.get_xlim())
        if axis.log_y:
            _few_ticks(ax.yaxis, *ax.get_ylim())
        elif figure.mark == "line":
            _show_the_effect(ax, data)
        if axis.ticks:
            ax.set_xticks(range(len(axis.ticks)), axis.ticks)
        slopes = {} if axis.fit_from is None else _fits(ax, points, axis.fit_from, colours)
        if len(lines) > 1:
            style = {"markersize": 5, "linewidth": 0 if figure.mark == "point" else 1.5}
            handles = [Line2D([], [], color=colours[line], marker=markers[line], **style) for line in lines]
            ax.legend(handles, [line + slopes.get(line, "") for line in lines])
    return canvas


def _line(ax: plt.Axes, mark: str, seeds: pd.DataFrame, means: pd.DataFrame, marker: str, colour: str) -> None:
    """One line's points, or its mean with interval and seeds."""
    of_a_seed = {"color": colour, "alpha": 0.4}
    if mark == "point":
        ax.scatter(seeds["x"], seeds["y"], s=22, marker=marker, linewidths=0, alpha=0.8, color=colour)
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
    body = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), body)
    body = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px[^;\"]*", r"font-size: \1px", body)
    body = re.sub(r" font-family: [^;\"]*;", "", body)
    body = body.replace(INK, "currentColor").replace(GRID, "var(--lbgap-grid, #ccc)")
    for i, colour in enumerate(PALETTE):
        body = body.replace(colour.lower(), f"var(--lbgap-{i}, {colour})")
    body = re.sub(r"\s+", " ", re.sub(r">\s+<", "><", body)).strip()
    return f'<svg {box} role="img" aria-label="{html.escape(words)}">{body}'


# ---------------------------------------------------------------- the forest of claims

VERDICT_COLOURS = {"replicated": "#009E73", "contradicted": "#D55E00", "inconclusive": "#8A6D00", "not run": "#707070"}
SCALES = {"points": "points of accuracy", "ratio": "ratio", "rank correlation": "rank correlation"}


def forest(effects: pd.DataFrame) -> Canvas:
    """Every claim's effects with their 95% intervals (:func:`lbgap.verdicts.effects`), a row a claim, a panel a scale.

    A mark a network, from top to bottom as in the data: filled where it was run as in the paper, hollow elsewhere, in the
    colour of its verdict. Black bars are what the paper reports, grey bands where the claim holds.

    Raises:
        ValueError: no effect at all.
    """
    found = effects[effects["effect"].notna()]
    if found.empty:
        raise ValueError("effects is empty; accepted is at least one claim with an effect")
    found = found.assign(panel=[SCALES.get(scale, "own units") for scale in found["scale"]])
    panels = [p for p in (*SCALES.values(), "own units") if (found["panel"] == p).any()]
    rows = {p: list(dict.fromkeys(found.loc[found["panel"] == p, "id"])) for p in panels}
    heights = [len(rows[p]) + 1.2 for p in panels]
    with sns.axes_style("whitegrid", {"axes.grid.axis": "x"}), plt.rc_context({"figure.facecolor": "white", "font.size": 9}):
        canvas, axes = plt.subplots(
            len(panels), figsize=(7.6, 0.34 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
        )
        for panel, ax in zip(panels, axes[:, 0], strict=True):
            labels = []
            for y, claim in enumerate(rows[panel]):
                of = found[(found["panel"] == panel) & (found["id"] == claim)]
                labels.append(_row_label(of.iloc[0], panel))
                for line, at in zip(of.itertuples(), y + np.linspace(-0.3, 0.3, len(of) + 2)[1:-1], strict=True):
                    _forest_mark(ax, line, at)
            low, high = _forest_axis(ax, panel)
            for y, claim in enumerate(rows[panel]):
                of = found[(found["panel"] == panel) & (found["id"] == claim)].iloc[0]
                ax.fill_betweenx(
                    [y - 0.42, y + 0.42], max(low, of["holds_from"]), min(high, of["holds_to"]), color="0.93", zorder=0
                )
            ax.set_yticks(range(len(labels)), labels)
            ax.set_ylim(len(labels) - 0.5, -0.5)
        _forest_legend(canvas)
    return canvas


def _row_label(line: pd.Series, panel: str) -> str:
    """The claim and what is measured, without the network."""
    what = line["setting"].removeprefix(line["network"]).lstrip(":, ")
    unit = f" [{line['scale']}]" if panel == "own units" and line["scale"] not in what else ""
    return textwrap.fill(f"{line['id']}  {what}{unit}", 48)


def _forest_mark(ax: plt.Axes, line, y: float) -> None:
    colour = VERDICT_COLOURS[line.verdict]
    filled = colour if line.scope == "paper" else "white"
    ax.plot([line.low, line.high], [y, y], color=colour, linewidth=1.4, zorder=2)
    ax.plot(line.effect, y, "o", color=colour, markerfacecolor=filled, markersize=5.5, markeredgewidth=1.3, zorder=3)
    if line.published_low == line.published_low:
        ax.plot([line.published_low, line.published_high], [y, y], color="black", linewidth=1, zorder=1)
        ax.plot([line.published_low, line.published_high], [y, y], "|", color="black", markersize=7, zorder=4)


def _forest_axis(ax: plt.Axes, panel: str) -> tuple[float, float]:
    """Scale, line of no effect and ticks of a panel; its limits, which what is drawn later does not move."""
    ax.set_title(panel, loc="left", fontsize=9, fontweight="bold")
    ax.axvline(1 if panel == "ratio" else 0, color="0.4", linewidth=0.8)
    if panel == "rank correlation":
        ax.set_xlim(-1.05, 1.05)
        return ax.get_xlim()
    ax.set_xscale("log") if panel == "ratio" else ax.set_xscale("symlog", linthresh=1)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(ax.get_xlim())
    return ax.get_xlim()


def _forest_legend(canvas: Canvas) -> None:
    grey = {"color": "0.3", "markeredgewidth": 1.3}
    verdicts = {"replicated": "holds", "contradicted": "does not hold", "inconclusive": "inconclusive"}
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=5.5, label="the paper's own setting", **grey),
        Line2D(
            [], [], marker="o", linestyle="", markersize=5.5, markerfacecolor="white", label="reduced, or our reading", **grey
        ),
        Line2D([], [], marker="|", linestyle="", markersize=7, color="black", label="published, at full size"),
        *(Line2D([], [], color=VERDICT_COLOURS[v], linewidth=2, label=label) for v, label in verdicts.items()),
        Patch(color="0.9", label="where the claim holds"),
    ]
    canvas.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
