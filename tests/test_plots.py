"""Figures: what is drawn is the data, in the panels, scales and colours asked for."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex

from lbgap import plots
from lbgap.papers.paper import Axis, Figure
from lbgap.plots import BAND, FEW, FIXED, INK, MARKERS, PAGE, PALETTE, PAPER, UNDECIDED, draw, forest, forest_words, svg

T_1 = 12.7062  # Student's t, 97.5%, 1 degree of freedom, from a printed table


def frame(*points) -> pd.DataFrame:
    """Points as (panel, line, seed, x, y)."""
    return pd.DataFrame(points, columns=["panel", "line", "seed", "x", "y"])


def figure(*axes: Axis, mark: str = "line") -> Figure:
    """A figure of these panels."""
    return Figure("fig", "A figure", axes, (), mark)


LEFT = Axis("left", "epoch", "loss (nats)")
# two seeds: means 2 and 5 at x = 1 and 2
TWO_SEEDS = [("left", "SB", 0, 1, 1.0), ("left", "SB", 1, 1, 3.0), ("left", "SB", 0, 2, 4.0), ("left", "SB", 1, 2, 6.0)]


def axes_of(of: Figure, data: pd.DataFrame) -> list:
    """The panels that are drawn, in their order."""
    return [ax for canvas in draw(of, data).values() for ax in canvas.axes]


def drawn(ax) -> list[np.ndarray]:
    """The curves of a panel, empty ones (legend handles) left out."""
    return [line.get_xydata() for line in ax.get_lines() if len(line.get_xydata())]


def test_few_points_have_their_mean_its_interval_and_a_dot_a_seed():
    """Of two seeds the interval is the mean -+ Student's t times half their distance."""
    (ax,) = axes_of(figure(LEFT), frame(*TWO_SEEDS))
    assert drawn(ax)[0].tolist() == [[1, 2], [2, 5]]
    (bars,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    ends = [(2 - T_1, 2 + T_1), (5 - T_1, 5 + T_1)]
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], ends, rtol=1e-5)
    (dots,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert sorted(map(tuple, dots.get_offsets().tolist())) == [(1, 1), (1, 3), (2, 4), (2, 6)]


def test_a_curve_has_the_band_of_the_same_interval_and_a_thin_line_a_seed():
    x = range(FEW + 1)
    (ax,) = axes_of(figure(LEFT), frame(*(("left", "SB", seed, at, at + 2.0 * seed) for seed in (0, 1) for at in x)))
    *seeds, mean = drawn(ax)
    assert [line[:, 1].tolist() for line in seeds] == [[at + 2.0 * seed for at in x] for seed in (0, 1)]
    assert mean[:, 1].tolist() == [at + 1.0 for at in x]
    (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    corners = band.get_paths()[0].vertices
    np.testing.assert_allclose(sorted({round(y - at, 3) for at, y in corners}), [1 - T_1, 1 + T_1], rtol=1e-4)


def test_on_a_logarithmic_axis_mean_and_interval_are_those_of_the_logarithms():
    (ax,) = axes_of(figure(Axis("left", "x", "y", log_y=True)), frame(("left", "SB", 0, 1, 1.0), ("left", "SB", 1, 1, 100.0)))
    np.testing.assert_allclose(drawn(ax)[0], [[1, 10]])
    (bars,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [10 / 10**T_1, 10 * 10**T_1], rtol=1e-3)


def test_one_seed_has_no_interval():
    (ax,) = axes_of(figure(LEFT), frame(*TWO_SEEDS[::2]))
    assert not [c for c in ax.collections if isinstance(c, LineCollection)]


def test_the_beginning_of_a_curve_does_not_flatten_the_rest():
    points = [("left", "SB", 0, at, 30.0 if at == 0 else 98 + 0.01 * at) for at in range(50)]
    (ax,) = axes_of(figure(LEFT), frame(*points))
    low, high = ax.get_ylim()
    assert 97 < low < 98.13 and 98.49 < high < 99
    (ax,) = axes_of(figure(Axis("left", "x", "y", log_y=True)), frame(*points))
    assert ax.get_ylim()[0] < 30


def test_panels_have_their_titles_labels_and_scales():
    right = Axis("right", "batch size", "percent", log_x=True, log_y=True)
    axes = axes_of(figure(LEFT, right), frame(*TWO_SEEDS, ("right", "SB", 0, 10, 5.0)))
    assert [(ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("left", "epoch", "loss (nats)"),
        ("right", "batch size", "percent"),
    ]
    assert [(ax.get_xscale(), ax.get_yscale()) for ax in axes] == [("linear", "linear"), ("log", "log")]


@pytest.mark.parametrize("mark", ["line", "point", "interval"])
@pytest.mark.parametrize("names", [[f"batch {i}" for i in range(20)], ["SB", *(f"batch {i}" for i in range(20)), "LB"]])
def test_more_lines_than_colours_still_differ(names, mark):
    """The legend shows each as a pair of colour and marker that no other has."""
    (ax,) = axes_of(figure(LEFT, mark=mark), frame(*(("left", n, 0, x, x + i) for i, n in enumerate(names) for x in (1, 2))))
    handles = ax.get_legend().legend_handles
    pairs = {(to_hex(h.get_color()), h.get_marker()) for h in handles}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names
    assert len(pairs) == len(names)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_there_is_an_axis_for_each_panel_with_data_and_no_other(n):
    axes = [Axis(f"panel {i}", "x", "y") for i in range(n + 1)]
    drawings = draw(figure(*axes), frame(*((f"panel {i}", "SB", 0, 1, 1.0 + i) for i in range(n))))
    assert list(drawings) == axes[:n]
    assert [ax.get_title() for canvas in drawings.values() for ax in canvas.axes] == [f"panel {i}" for i in range(n)]


def test_what_recurs_keeps_its_colour_and_lines_differ_in_colour_and_marker():
    lines = ["LB", "other", "SB", "another"]
    for order in (lines, lines[::-1]):
        (ax,) = axes_of(figure(LEFT), frame(*(("left", name, 0, x, x + i) for i, name in enumerate(order) for x in (1, 2))))
        curves = [line for line in ax.get_lines() if len(line.get_xydata()) and line.get_marker() in MARKERS]
        colours = {name: to_hex(line.get_color()) for name, line in zip(order, curves, strict=True)}
        assert (colours["SB"], colours["LB"]) == (FIXED["SB"].lower(), FIXED["LB"].lower())
        assert len(set(colours.values())) == len(lines)
        assert len({line.get_marker() for line in curves}) == len(lines)


def test_a_line_has_its_colour_in_a_panel_that_lacks_the_line_before_it():
    """And the legend says so there, though it is the only one."""
    both = [("left", name, 0, x, float(x)) for name in ("SGD", "momentum") for x in (1, 2)]
    one = [("right", "momentum", 0, x, float(x)) for x in (1, 2)]
    left, right = axes_of(figure(LEFT, Axis("right", "epoch", "loss (nats)")), frame(*both, *one))
    of = [
        [(h.get_label(), to_hex(h.get_color()), h.get_marker()) for h in ax.get_legend().legend_handles] for ax in (left, right)
    ]
    assert len(of[0]) == 2 and of[1] == of[0][1:]
    assert [t.get_text() for t in right.get_legend().get_texts()] == ["momentum"]


def test_a_legend_names_the_lines_where_there_are_several():
    (ax,) = axes_of(figure(LEFT), frame(*TWO_SEEDS))
    assert ax.get_legend() is None
    (ax,) = axes_of(figure(LEFT), frame(*TWO_SEEDS, ("left", "LB", 0, 1, 2.0)))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SB", "LB"]


def test_points_are_drawn_one_by_one():
    (ax,) = axes_of(figure(LEFT, mark="point"), frame(*TWO_SEEDS))
    (cloud,) = ax.collections
    assert sorted(map(tuple, cloud.get_offsets().tolist())) == [(1.0, 1.0), (1.0, 3.0), (2.0, 4.0), (2.0, 6.0)]
    assert drawn(ax) == []


def test_published_points_are_hollow_and_ours_are_filled():
    rows = [(LEFT.name, line, 0, 1, y) for line, y in (("ours", 1.0), ("published", 2.0))]
    (ax,) = axes_of(figure(LEFT, mark="point"), frame(*rows))
    ours, published = ax.collections
    assert (len(ours.get_facecolors()), len(published.get_facecolors())) == (1, 0)
    assert to_hex(published.get_edgecolors()[0]) == FIXED["published"].lower()
    assert [h.get_markerfacecolor() == "none" for h in ax.get_legend().legend_handles] == [False, True]


def test_a_published_point_bears_its_name_and_shares_a_line_of_the_legend():
    rows = [(LEFT.name, line, 0, x, 2.0) for x, line in enumerate(("ours", "published: C1", "published: C2"))]
    (ax,) = axes_of(figure(LEFT, mark="point"), frame(*rows))
    assert [words.get_text() for words in ax.get_legend().get_texts()] == ["ours", "published"]
    assert {(words.get_text(), *words.xy) for words in ax.texts} == {("C1", 1, 2.0), ("C2", 2, 2.0)}
    assert [len(points.get_facecolors()) for points in ax.collections] == [1, 0, 0]


def test_every_line_a_palette_has_can_be_drawn():
    """As many lines as there are markers; of their colours, none is used twice."""
    names = [f"line {i}" for i in range(len(MARKERS))]
    (ax,) = axes_of(figure(LEFT), frame(*(("left", name, 0, x, x + i) for i, name in enumerate(names) for x in (1, 2))))
    assert len([line for line in ax.get_lines() if line.get_marker() in MARKERS]) == len(names)
    assert len(set(PALETTE)) == len(PALETTE)


def test_a_diverged_run_leaves_a_gap():
    points = [*TWO_SEEDS, ("left", "SB", 0, 3, float("nan"))]
    (ax,) = axes_of(figure(LEFT), frame(*points))
    assert np.isfinite(drawn(ax)[0]).all()
    log = Axis("left", "x", "y", log_x=True, log_y=True)
    (ax,) = axes_of(figure(log), frame(("left", "SB", 0, 1, float("nan"))))
    assert drawn(ax) == []


@pytest.mark.parametrize("low, high", [(320, 7500), (1, 8), (3, 4), (1, 1e4), (2e-3, 0.9), (1e-9, 50), (100, 100)])
def test_ticks_of_a_logarithmic_axis_can_be_read(low, high):
    """Where there is more than one number there are at least two ticks; labels do not touch each other."""
    axes = [Axis(name, "x", "y", log_x=True, log_y=True) for name in ("left", "right")]
    for canvas in draw(figure(*axes), frame(*((axis.name, "SB", 0, v, v) for axis in axes for v in (low, high)))).values():
        FigureCanvasAgg(canvas).draw()
        (ax,) = canvas.axes
        for axis, bounds in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            boxes = [
                tick.label1.get_window_extent()
                for tick in ticks
                if tick.label1.get_text() and bounds[0] <= tick.get_loc() <= bounds[1]
            ]
            assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
            assert len(boxes) >= (2 if high > 2.5 * low else 0)


def test_a_fit_stands_beside_its_line_and_its_slope_in_the_legend():
    """Of 3 + 2 log x from x = 10 on; what comes before is drawn and not fitted."""
    x = [1, 10, 50, 200]
    points = [
        ("left", line, seed, at, 99.0 if at < 10 else 3 + b * np.log(at) + shift)
        for line, b in (("SB", 2.0), ("LB", 0.5))
        for seed, shift in enumerate((-1.0, 1.0))
        for at in x
    ]
    (ax,) = axes_of(figure(Axis("left", "x", "y", log_x=True, fit_from=10)), frame(*points))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SB, slope 2", "LB, slope 0.5"]
    fits = [line for line in ax.get_lines() if line.get_linestyle() == "--"]
    assert [to_hex(fit.get_color()) for fit in fits] == [FIXED["SB"].lower(), FIXED["LB"].lower()]
    for fit, b in zip(fits, (2.0, 0.5), strict=True):
        np.testing.assert_allclose(fit.get_xydata(), [(at, 3 + b * np.log(at)) for at in x[1:]])


def test_a_figure_without_data_is_refused():
    for empty in (frame(), frame(("elsewhere", "SB", 0, 1, 1.0))):
        with pytest.raises(ValueError, match="^data is empty; figure 'fig' accepts at least one point$"):
            draw(figure(LEFT), empty)


def test_a_drawing_takes_the_colours_of_the_page_and_says_what_it_shows():
    ((_, canvas),) = draw(figure(LEFT), frame(*TWO_SEEDS, ("left", "LB", 0, 1, 2.0))).items()
    text = svg(canvas, "here", 'LB < "SB"')
    assert text.startswith("<svg viewBox=") and text.endswith("</svg>")
    assert 'role="img" aria-label="LB &lt; &quot;SB&quot;"' in text
    assert "currentColor" in text and INK not in text
    assert f"var(--lbgap-0, {FIXED['SB']})" in text
    assert "white" not in text and "#ffffff" not in text
    assert {"left", "epoch", "loss (nats)", "SB", "LB"} <= set(re.findall(r">([^<>]+)</text>", text))


def test_what_is_read_in_a_drawing_is_not_rounded():
    """Coordinates have two decimals; the 0.001 and 0.0005 of two lines' names stay apart."""
    names = ["epsilon 0.001", "epsilon 0.0005"]
    ((_, canvas),) = draw(figure(LEFT), frame(*(("left", n, 0, x, 1.0 + x / 3) for n in names for x in (1, 2)))).items()
    text = svg(canvas, "here", "words")
    assert set(names) <= set(re.findall(r">([^<>]+)</text>", text))
    assert not re.search(r"<[^>]*\d\.\d{3}[^>]*>", text)


def test_a_drawing_is_the_same_each_time_and_shares_no_id_with_another():
    def text(name: str) -> str:
        ((_, canvas),) = draw(figure(LEFT), frame(*TWO_SEEDS)).items()
        return svg(canvas, name, "words")

    assert text("one") == text("one")
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text(name))) for name in ("one", "two")}
    assert ids["one"] and not ids["one"] & ids["two"]
    assert ids["one"] == set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text("one"))), "every id is referred to, and is there"


def test_shapes_of_one_style_say_it_once_and_overlapping_ones_keep_their_opacity():
    shape = '<path d="M 0 0 L 1 1" {}style="{}"/>'.format
    alike = 2 * shape('clip-path="url(#c)" ', "fill: red; fill-opacity: 0.4")
    assert plots._plainer(f'<g id="a">{alike}</g>') == (
        '<g style="fill: red; fill-opacity: 0.4" clip-path="url(#c)">' + 2 * '<path d="M 0 0 L 1 1"/>' + "</g>"
    )
    for apart in (shape("", "fill: red") + shape("", "fill: blue"), 2 * shape("", "fill: red; opacity: 0.4")):
        assert plots._plainer(f"<g>{apart}</g>") == f"<g>{apart}</g>"


# ---------------------------------------------------------------- the forest of claims


def claim(id: str, effect: float, **fields) -> dict:
    """One line of a frame of effects, half wide and without a published effect."""
    numbers = {"effect": effect, "low": effect - 0.5, "high": effect + 0.5, "holds_from": 0.0, "holds_to": np.inf}
    what = {"paper": "toy", "id": id, "setting": "F1: a gap", "network": "F1", "scope": "reduced", "scale": "points"}
    return what | numbers | {"published_low": np.nan, "published_high": np.nan, "verdict": "inconclusive"} | fields


def test_a_forest_has_a_panel_a_scale_a_row_a_claim_and_fills_the_papers_own_marks():
    lines = [
        claim("K1", 1.0, scope="paper", verdict="replicated", published_low=3.0, published_high=4.0),
        claim("K1", -1.0, network="C1", setting="C1: a gap"),
        claim("K2", 0.5),
        claim("K4", 20.0, scale="ratio", setting="F1: LB / SB"),
        claim("K9", np.nan, scale=np.nan, setting=np.nan),
    ]
    canvases = forest(pd.DataFrame(lines))
    assert list(canvases) == ["points of accuracy or error", "ratio", "legend"]
    (points,), (ratio,) = (canvases[panel].axes for panel in ("points of accuracy or error", "ratio"))
    assert [t.get_text() for t in points.get_yticklabels()] == ["F1", "C1", "F1"]
    assert [t.get_text() for t in points.texts] == ["K1 a gap", "K2 a gap"]
    assert ratio.get_xscale() == "log"
    marks = [line for line in points.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marks] == [1.0, -1.0, 0.5]
    assert [line.get_markerfacecolor() == PAPER for line in marks] == [False, True, True]
    assert [tuple(line.get_xdata()) for line in points.lines if line.get_marker() == "|"] == [(3.0, 4.0)]


def test_a_claim_in_a_forest_leads_to_its_place_in_the_papers_page():
    drawn = svg(forest(pd.DataFrame([claim("K1", 1.0)]))["points of accuracy or error"], "forest", "Effects of one claim.")
    assert re.findall(r"<a [^>]*>", drawn) == ['<a href="toy.html#toy-K1">']
    assert ' role="group" ' in drawn, "an image could not have a link"
    for colour, on_the_page in PAGE.items():
        assert colour not in drawn and (on_the_page in drawn or colour == UNDECIDED or colour == BAND)


@pytest.mark.parametrize(
    ("settings", "over", "each"),
    [
        (["F1, tanh: gap", "F1, dropout: gap"], "gap", ["F1, tanh", "F1, dropout"]),
        (["F1, at full size, line: rise", "F1, line: rise"], "line: rise", ["F1, at full size", "F1"]),
        (
            ["F1: batch 512 - batch 8, points", "F1: batch 64 - batch 8, points"],
            "batch 512 or 64 - batch 8, points",
            ["F1"] * 2,
        ),
        (["F1: test error, mean", "F1: test loss, mean"], "test error or loss, mean", ["F1"] * 2),
        (["F1: a gap", "F1: gap"], "a gap", ["F1"] * 2),
    ],
)
def test_over_the_settings_of_a_claim_stands_what_they_share_and_beside_each_what_is_its_own(settings, over, each):
    both = [claim("K13", 1.0, setting=setting) for setting in settings]
    (panel,) = forest(pd.DataFrame(both))["points of accuracy or error"].axes
    assert [t.get_text() for t in panel.texts] == [f"K13 {over}"]
    assert [t.get_text() for t in panel.get_yticklabels()] == each


def test_words_in_a_drawing_keep_their_digits():
    drawn = svg(
        forest(pd.DataFrame([claim("K4", 20.0, setting="F1, epsilon 0.001")]))["points of accuracy or error"], "f", "One claim."
    )
    assert ">K4 epsilon 0.001</text>" in drawn


def test_the_words_of_a_forest_count_what_holds_and_what_lies_inside():
    lines = [
        claim("K1", 1.0, verdict="replicated", published_low=1.2, published_high=1.2),
        claim("K1", 1.0, verdict="contradicted", published_low=3.0, published_high=4.0),
        claim("K2", 20.0, scale="ratio"),
    ]
    assert forest_words("points of accuracy or error", pd.DataFrame(lines)) == (
        "Effects in points of accuracy or error: of 2, 1 hold and 1 do not hold. Of 2 effects that a paper reports, "
        "1 lie inside our interval."
    )


def test_a_forest_without_effects_is_refused():
    with pytest.raises(ValueError, match="^effects is empty; accepted is at least one claim with an effect$"):
        forest(pd.DataFrame([claim("K1", np.nan)]))


def test_a_heat_map_has_a_row_a_line_a_column_a_tick_and_frames_the_best_of_each_column():
    """Means over two seeds; what diverged has no colour."""
    axis = Axis("left", "batch", "percent", ticks=("16", "32"))
    cells = {("2^-1", 0): (90.0, 92.0), ("2^-1", 1): (80.0, 82.0), ("2^0", 0): (70.0, 74.0), ("2^0", 1): (95.0, 97.0)}
    points = [("left", line, seed, x, y) for (line, x), of in cells.items() for seed, y in enumerate(of)]
    points += [("left", "2^1", seed, x, np.nan) for seed in (0, 1) for x in (0, 1)]
    ax, scale = axes_of(figure(axis, mark="heat"), frame(*points))
    (mesh,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), [[91, 81], [72, 96], [np.nan, np.nan]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["2^-1", "2^0", "2^1"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["16", "32"]
    assert sorted(p.get_xy() for p in ax.patches) == [(0, 0), (1, 1)]
    assert scale.get_ylabel() == "percent"
