"""Figures on one house style: a panel an axis, a line a colour, the band from the lowest to the highest seed."""

import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from lbgap.papers.paper import Figure
from lbgap.stats import t_interval

# Okabe-Ito: distinguishable with every common colour blindness. What recurs keeps its colour in every chapter.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
FIXED = {"SB": PALETTE[0], "LB": PALETTE[1], "train": PALETTE[2], "test": PALETTE[3]}
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


def draw(figure: Figure, data: pd.DataFrame) -> Canvas:
    """Draw long-form data (panel, line, seed, x, y) on the panels of a figure; returns the matplotlib figure.

    Raises:
        ValueError: no data for any panel.
    """
    panels = [axis for axis in figure.panels if (data["panel"] == axis.name).any()]
    if not panels:
        raise ValueError(f"data is empty; figure '{figure.name}' accepts at least one point")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with sns.axes_style("whitegrid"), plt.rc_context({"figure.facecolor": "white", "font.size": 10}):
        canvas, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.1 * rows), squeeze=False, layout="constrained")
        for axis, ax in zip(panels, axes.flat, strict=False):
            part = data[data["panel"] == axis.name]
            lines = list(dict.fromkeys(part["line"]))
            spare = itertools.cycle(c for c in PALETTE if c not in [FIXED.get(line) for line in lines])
            style = {
                "data": part,
                "x": "x",
                "y": "y",
                "hue": "line",
                "style": "line",
                "hue_order": lines,
                "style_order": lines,
                "palette": {line: FIXED.get(line) or next(spare) for line in lines},
                # a colour that comes again has another marker
                "markers": {line: MARKERS[(i + i // len(MARKERS)) % len(MARKERS)] for i, line in enumerate(lines)},
                "ax": ax,
                "legend": len(lines) > 1,
            }
            if figure.mark == "point":
                sns.scatterplot(**style, s=28)
            elif figure.mark == "interval":
                sns.lineplot(**style, dashes=False, errorbar=_interval, err_style="bars", markersize=6, markeredgewidth=0)
            else:
                sns.lineplot(**style, dashes=False, errorbar=("pi", 100), markersize=4, markeredgewidth=0)
            ax.set(title=axis.name, xlabel=axis.x, ylabel=axis.y)
            if axis.log_x:
                ax.set_xscale("log")
                _few_ticks(ax.xaxis, *ax.get_xlim())
            if axis.log_y:
                ax.set_yscale("log")
                _few_ticks(ax.yaxis, *ax.get_ylim())
            if axis.ticks:
                ax.set_xticks(range(len(axis.ticks)), axis.ticks)
            slopes = {} if axis.fit_from is None else _fits(ax, part, axis.fit_from, style["palette"])
            if len(lines) > 1:
                handles, labels = ax.get_legend_handles_labels()
                ax.legend(handles, [label + slopes.get(label, "") for label in labels], title=None, frameon=True)
        for ax in list(axes.flat)[len(panels) :]:
            ax.remove()
    return canvas


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


def _fits(ax: plt.Axes, part: pd.DataFrame, first: float, colours: dict[str, str]) -> dict[str, str]:
    """Draw each line's least-squares a + b log x, of its means over seeds from ``first`` on; b in words, by line."""
    slopes = {}
    for line, points in part[part["x"] >= first].groupby("line", sort=False):
        means = points.groupby("x")["y"].mean()
        if len(means) > 1:
            b, a = np.polyfit(np.log(means.index), means, 1)
            ax.plot(means.index, a + b * np.log(means.index), color=colours[line], linestyle="--", linewidth=1)
            slopes[line] = f", slope {b:.3g}"
    return slopes


def _few_ticks(axis: MatplotlibAxis, low: float, high: float) -> None:
    """On a logarithmic axis of less than two decades, 1, 2 and 5 times each power of ten, written out; else the powers."""
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_formatter(NullFormatter())


def _interval(values: pd.Series) -> tuple[float, float]:
    """The 95% interval of a mean; of one value, itself."""
    e = t_interval(values)
    return (e.low, e.high) if e.n > 1 else (e.effect, e.effect)
