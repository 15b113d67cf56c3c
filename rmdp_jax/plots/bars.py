"""Welfare by number of policies, a bar an algorithm: figures 2 and 3 of the paper."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from rmdp_jax.plots.style import INK, algorithm_colors, ink_on, new_figure, styled

_WIDTH = 0.84  # of a group of bars; groups are 1 apart
_INCHES_PER_BAR = 0.3
_FLAT = 0.34  # inches of a bar in which its number has room without being turned
_HIGH = 0.08  # share of the axis that a flat number takes; of a turned one, each sign takes `_LONG`
_LONG = 0.035
_ZOOMED = 0.5  # where all bars are longer than this share of the axis, the axis starts higher up, and says so

_BEST: Mapping[str, Any] = {
    **{"color": INK, "marker": "*", "markersize": 6, "linestyle": "none"},
    "label": "best, or not significantly below it (paired t-test, 0.01)",
}
_TOO_FEW: Mapping[str, Any] = {
    **{"color": INK, "marker": "o", "markersize": 3.5, "markerfacecolor": "none", "linestyle": "none"},
    "label": "too few seeds to tell it from the best",
}


class Bar(NamedTuple):
    """Mean over seeds of one algorithm with one number of policies."""

    panel: str  # title of the panel
    k: int
    name: str  # of the algorithm, maybe with settings behind a blank
    welfare: float  # mean over seeds, 0..100
    standard_error: float | None
    best: bool  # the highest mean, or not significantly below it
    too_few: bool = False  # seeds, to say whether it is


class Room(NamedTuple):
    """What a group of bars has."""

    low: float  # end of the axis
    high: float  # of the longest bar or level of the panel
    bound: float | None  # dashed level of the group
    flat: bool  # numbers lie flat


@styled
def welfare_by_k(
    bars: Sequence[Bar],
    bounds: Mapping[tuple[str, int], float],
    *,
    title: str = "Welfare by number of policies",
    bound_name: str = "upper bound",
) -> Figure:
    """Grouped bars by k with standard errors, a panel each, under the upper bound of every k as a dashed level.

    Stars mark the best algorithm at each k and those not significantly below it; a star where nothing else was run would
    say nothing and is left out. A circle: too few seeds to tell it from the best.

    Args:
        bars: in the order of the panels; bars of a group in the order of the legend.
        bounds: best welfare that k policies can reach, by panel and k.
        title: over everything.
        bound_name: what the bounds are.
    """
    panels = list(dict.fromkeys(bar.panel for bar in bars))
    fullest = sorted(bars, key=lambda bar: -sum((other.panel, other.k) == (bar.panel, bar.k) for other in bars))
    names = list(dict.fromkeys(bar.name for bar in fullest))  # in the order of a group that has all, where there is one
    own = {panel: [bar for bar in bars if bar.panel == panel] for panel in panels}
    columns, rows = _grid(len(panels))
    widest = max((_inches(own[panel]) + 0.5 for panel in panels), default=3.0)
    figure = new_figure(max(widest * columns + 0.6, 6.4), 3.3 * rows + 1.0, _alt(bars, bounds, bound_name))
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    colors = dict(zip(names, algorithm_colors(names), strict=True))
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, own[panel], {k: x for (of, k), x in bounds.items() if of == panel}, colors)
        axes.set_title(panel if len(panels) > 1 else "", fontsize=8)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    marks = [_BEST] * any(_starred(own[panel]) for panel in panels) + [_TOO_FEW] * any(bar.too_few for bar in bars)
    _draw_legend(figure, colors, marks, bound_name if bounds else None)
    return figure


def _draw_panel(axes: Axes, bars: Sequence[Bar], bounds: Mapping[int, float], colors: Mapping[str, str]) -> None:
    ks = sorted({bar.k for bar in bars})
    low, high = _span(bars, bounds)
    starred, inches = _starred(bars), _inches(bars) / len(ks)
    below = offset_copy(axes.transData, axes.get_figure(root=True), y=-6, units="points")
    for place, k in enumerate(ks):
        group = [bar for bar in bars if bar.k == k]
        width = _WIDTH / max(len(group), 2)  # a bar alone is no wider than one of two
        left = place - width * len(group) / 2
        room = Room(low, high, bounds.get(k), flat=width * inches > _FLAT)
        for i, bar in enumerate(group):
            x, color = left + (i + 0.5) * width, colors[bar.name]
            _draw_bar(axes, bar, x, width, room, color, star=bar in starred)
            if bar in starred or bar.too_few:
                mark, gid = (_BEST, "best") if bar in starred else (_TOO_FEW, "too few")
                axes.plot([x], [low], **mark, transform=below, clip_on=False, gid=gid)
        if k in bounds:
            ends = [place - _WIDTH / 2 - 0.03, place + _WIDTH / 2 + 0.03]
            axes.plot(ends, [bounds[k]] * 2, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=5, gid="bound")
            note = axes.annotate(f"{bounds[k]:.2f}", (ends[1], bounds[k]), (0, 3), textcoords="offset points", fontsize=7)
            note.set(ha="right", va="bottom", zorder=6)  # over the last algorithm, seldom the highest bar
    axes.set_xticks(range(len(ks)), [f"k = {k}" for k in ks])
    axes.set(xlim=(-0.6, len(ks) - 0.4), ylim=(low, low + 1.1 * (high - low)))
    axes.set_ylabel("welfare (0 to 100)" if low <= 0 else f"welfare (axis from {low:g})")
    axes.tick_params(axis="x", length=0, pad=14, labelsize=9, labelcolor=INK)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y")


def _draw_bar(axes: Axes, bar: Bar, x: float, width: float, room: Room, color: str, *, star: bool) -> None:
    low = room.low
    axes.bar([x], [bar.welfare - low], 0.92 * width, bottom=low, color=color, zorder=2)
    error = bar.standard_error or 0.0
    if error:
        line: dict[str, Any] = {"elinewidth": 1.3, "capsize": 2.5, "capthick": 1.0, "zorder": 4}
        axes.errorbar([x], [bar.welfare], yerr=[error], fmt="none", ecolor=INK, **line)
    text, weight = f"{bar.welfare:.1f}", "bold" if star else "normal"
    length = (_HIGH if room.flat else _LONG * len(text)) * (room.high - low)
    inside = bar.welfare - error - low > length
    at, ink = (bar.welfare - error, ink_on(color)) if inside else (bar.welfare + error, INK)
    if not inside and room.bound is not None and at < room.bound < at + length:
        at = room.bound  # over the dashed level, not across it
    note = axes.annotate(text, (x, at), (0, -4 if inside else 4), textcoords="offset points", fontsize=7.5)
    note.set(ha="center", va="top" if inside else "bottom", color=ink, fontweight=weight, zorder=6)
    note.set_rotation(0 if room.flat else 90)


def _draw_legend(figure: Figure, colors: Mapping[str, str], marks: Sequence[Mapping[str, Any]], bound: str | None) -> None:
    handles: list[Patch | Line2D] = [Patch(color=color, label=name) for name, color in colors.items()]
    if bound is not None:
        handles.append(Line2D([], [], color=INK, linewidth=1.2, linestyle=(0, (5, 3)), label=bound))
    handles += [Line2D([], [], **mark) for mark in marks]
    rows = -(-len(handles) // (8 if figure.get_figwidth() > 10 else 6))
    ncols = -(-len(handles) // rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, handlelength=1.4, columnspacing=1.4)


def _starred(bars: Sequence[Bar]) -> list[Bar]:
    """Best bars of a panel that have something to be better than."""
    groups = [[bar for bar in bars if bar.k == k] for k in {bar.k for bar in bars}]
    return [bar for group in groups for bar in group if bar.best and not all(other.best for other in group)]


def _span(bars: Sequence[Bar], bounds: Mapping[int, float]) -> tuple[float, float]:
    """Lowest and highest value of the axis; from 0 unless all bars would be long and look alike."""
    errors = np.array([bar.standard_error or 0.0 for bar in bars])
    values = np.array([bar.welfare for bar in bars])
    top = max([*(values + errors).tolist(), *bounds.values(), 1e-3])
    bottom = min([*(values - errors).tolist(), 0.0]) if values.min() < 0 else float((values - errors).min())
    if bottom < 0:
        return 1.1 * bottom, top
    step = 5 if top > 20 else 1
    start = step * math.floor((bottom - 0.35 * (top - bottom)) / step)  # the shortest bar still has room for its number
    return (float(start) if bottom > _ZOOMED * top and start > 0 else 0.0), top


def _inches(bars: Sequence[Bar]) -> float:
    """Width of what is drawn in a panel."""
    groups = [sum(bar.k == k for bar in bars) for k in {bar.k for bar in bars}]
    return max(len(groups) * max(groups, default=1) * _INCHES_PER_BAR / _WIDTH, 2.6)


def _grid(panels: int) -> tuple[int, int]:
    """Columns and rows."""
    columns = 1 if panels <= 1 else 2
    return columns, max(-(-panels // columns), 1)


def _alt(bars: Sequence[Bar], bounds: Mapping[tuple[str, int], float], bound_name: str) -> str:
    parts = []
    for panel, k in dict.fromkeys((bar.panel, bar.k) for bar in bars):
        values = ", ".join(f"{bar.name} {bar.welfare:.1f}" for bar in bars if (bar.panel, bar.k) == (panel, k))
        bound = f" ({bound_name} {bounds[panel, k]:.2f})" if (panel, k) in bounds else ""
        parts.append(f"{panel}, k = {k}: {values}{bound}")
    return "Welfare by number of policies. " + "; ".join(parts) + "."
