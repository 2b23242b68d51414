"""Figures on one house style: a panel an axis, a line a colour, the band from the lowest to the highest seed."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.figure import Figure as Canvas
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
