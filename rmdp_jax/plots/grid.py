"""The paths that policies walk in Resource Gathering: figure 1 of the paper, drawn so that retraced steps stay readable."""

from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from rmdp_jax.plots.routes import count_bumps, rounded, trace
from rmdp_jax.plots.style import (
    ALARM,
    FAINT,
    INK,
    PAPER,
    RULE,
    agents_word,
    deep,
    ink_on,
    new_figure,
    policy_colors,
    styled,
    tint,
)

_MOST_PANELS = 25


class Scale(NamedTuple):
    """How large things are drawn."""

    size: int  # cells to a side
    side: float  # inches of a grid

    @property
    def type_size(self) -> float:
        """Points of text in cells."""
        return min(9.0, max(4.5, 0.27 * self._cell))

    @property
    def line_width(self) -> float:
        """Points of a walk's line."""
        return min(2.2, 0.055 * self._cell)

    @property
    def _cell(self) -> float:
        return 72 * 0.92 * self.side / self.size


class Walk(NamedTuple):
    """One episode of one policy."""

    cells: np.ndarray  # (t + 1, 2) int, row and column, home first
    came_home: bool

    @property
    def steps(self) -> int:
        """Steps taken, bumps into the wall included."""
        return len(self.cells) - 1


@styled
def walks_on_grid(
    positions: ArrayLike, alive: ArrayLike, size: int, assignment: ArrayLike, returns: ArrayLike, only: int | None = None
) -> Figure:
    """The walk of each policy on its own grid with the cells of its agents filled, and one grid with everyone's.

    A line keeps to the right of the direction it walks in, as on a road, and moves outward each time an edge is walked
    again in the same direction. With more than 25 policies those that serve most are drawn.

    Args:
        positions: (k, T, 2) int, row and column after each step.
        alive: (k, T) bool, the step belongs to the episode.
        size: cells to a side; home is at (size - 1, size // 2).
        assignment: (n,) policy of each agent; agent i wants cell i mod size^2, cells in row-major order.
        returns: (n,) return of each agent under its own policy in reference units (0..100).
        only: the one policy to draw, without the grid of everyone; all when not given.
    """
    labels, returns = np.asarray(assignment), np.asarray(returns, float)
    walks = [_walk(*pair, size) for pair in zip(np.asarray(positions), np.asarray(alive, bool), strict=True)]
    k = len(walks)
    sizes = np.bincount(labels, minlength=k)
    shown = np.sort(np.argsort(-sizes, kind="stable")[:_MOST_PANELS]).tolist() if only is None else [only]
    everyone = int(k > 1 and only is None)
    panels = len(shown) + everyone
    columns = _columns(panels)
    rows = -(-panels // columns)
    side = 3.6 if panels == 1 else min(2.3, 13.2 / columns, 13.2 / rows - 0.5)
    alt = _alt([walks[j] for j in ([only] if only is not None else range(k))], returns)
    figure = new_figure(side * columns + 0.4, (side + 0.5) * rows + 0.6, alt)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    scale = Scale(size, side)
    if everyone:
        _draw_everyone(grid[0], scale, labels, returns, k)
    for axes, j in zip(grid[everyone:], shown, strict=False):
        _draw_policy(axes, j, walks[j], scale, labels, returns, k)
    for axes in grid[panels:]:
        axes.set_axis_off()
    _label_sides(grid[0], size)
    figure.supxlabel(_legend(figure, k if only is None else 1, len(shown)), fontsize=8, color=FAINT)
    return figure


def _walk(positions: np.ndarray, alive: np.ndarray, size: int) -> Walk:
    home = np.array([[size - 1, size // 2]])
    cells = np.concatenate([home, positions[alive]])
    return Walk(cells, len(cells) > 1 and bool((cells[-1] == home[0]).all()))


def _columns(panels: int) -> int:
    """Panels in a row: the squarer the better, wide rather than high."""
    return panels if panels <= 4 else int(np.ceil(np.sqrt(panels * 1.2)))


def _alt(walks: list[Walk], returns: np.ndarray) -> str:
    lengths = ", ".join(f"{walk.steps}" + ("" if walk.came_home else " (not home)") for walk in walks)
    who = "1 policy" if len(walks) == 1 else f"{len(walks)} policies"
    return f"Walks of {who} on the grid, steps: {lengths}; mean return of all agents {returns.mean():.1f}."


def _draw_policy(axes: Axes, j: int, walk: Walk, scale: Scale, labels: np.ndarray, returns: np.ndarray, k: int) -> None:
    """One policy: its agents' cells, its walk, its title."""
    color, size = policy_colors(k)[j], scale.size
    _draw_cells(axes, size)
    visited = {(row, column) for row, column in walk.cells[1:].tolist()}
    wanted = np.arange(len(labels)) % size**2
    everyone, own = (np.bincount(x, minlength=size**2) for x in (wanted, wanted[labels == j]))
    for cell in np.flatnonzero(own).tolist():
        row, column = divmod(cell, size)
        look: dict[str, Any] = {"facecolor": tint(color, 0.4 * (1 - own[cell] / everyone[cell])), "edgecolor": "white"}
        if not walk.came_home or (row, column) not in visited:
            look |= {"edgecolor": FAINT, "hatch": "////", "gid": "missed"}
        axes.add_patch(_square(row, column, zorder=1, **look))
    _draw_route(axes, walk, deep(color), scale)
    _draw_home(axes, size)
    number = int(own.sum())
    steps = f"{walk.steps} step" + ("" if walk.steps == 1 else "s")
    mean = f", mean {returns[labels == j].mean():.1f}" if number else ""
    title = f"policy {j}" if walk.came_home else f"policy {j}: not home"
    _title(axes, title, f"{steps}, {agents_word(number)}{mean}", INK if walk.came_home else ALARM)


def _draw_everyone(axes: Axes, scale: Scale, labels: np.ndarray, returns: np.ndarray, k: int) -> None:
    """All cells in the colour and with the number of the policy that serves their agents, in strips where several do."""
    colors, size = policy_colors(k), scale.size
    _draw_cells(axes, size)
    for cell in range(min(size**2, len(labels))):
        row, column = divmod(cell, size)
        counts = np.bincount(labels[cell :: size**2], minlength=k)
        servers = np.flatnonzero(counts)
        widths = counts[servers] / counts.sum()
        edge = "white" if len(servers) < 5 else "none"
        for j, left, width in zip(servers.tolist(), np.cumsum(widths) - widths, widths, strict=True):
            axes.add_patch(_square(row, column, left, width, facecolor=colors[j], edgecolor=edge, zorder=1))
            if width > 0.3:
                x = column - 0.5 + left + width / 2
                axes.text(x, row, str(j), color=ink_on(colors[j]), fontsize=scale.type_size, ha="center", va="center")
    _draw_home(axes, size, dy=0.3)
    detail = f"{agents_word(len(labels))}, {k} policies, mean {returns.mean():.1f}"
    _title(axes, "who serves whom", detail, INK)


def _draw_cells(axes: Axes, size: int) -> None:
    """The empty grid, row 0 at the top."""
    axes.set(xlim=(-0.53, size - 0.47), ylim=(size - 0.47, -0.53), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.add_patch(Rectangle((-0.5, -0.5), size, size, facecolor=PAPER, edgecolor="none", zorder=0))
    lines = np.arange(size + 1) - 0.5
    for draw in (axes.hlines, axes.vlines):
        draw(lines, -0.5, size - 0.5, color=RULE, linewidth=0.7, zorder=0.5)


def _square(row: int, column: int, left: float = 0.0, width: float = 1.0, **look: Any) -> Rectangle:
    return Rectangle((column - 0.5 + left, row - 0.5), width, 1.0, linewidth=0.8, **look)


def _draw_home(axes: Axes, size: int, dy: float = 0.0) -> None:
    """A little house on the cell where walks begin and end."""
    outline = np.array([[-1, 1], [-1, -0.1], [-1.35, -0.1], [0, -1.3], [1.35, -0.1], [1, -0.1], [1, 1]])
    scale = 0.17 if dy == 0 else 0.11
    house = outline * scale + (size // 2, size - 1 + dy)
    axes.add_patch(Polygon(house, facecolor=INK, edgecolor="white", linewidth=0.9, zorder=6, gid="home"))


def _draw_route(axes: Axes, walk: Walk, color: str, scale: Scale) -> None:
    """The walk as a line with an arrow a step, a cross where a walk ended that never came home, a turn where it bumped."""
    route = trace(walk.cells)
    thick = scale.line_width
    if len(route.corners) > 1:
        line = PathPatch(rounded(route.corners), facecolor="none", edgecolor=color, linewidth=thick)
        line.set(zorder=3, capstyle="round", joinstyle="round", gid="walk")
        axes.add_patch(line)
    for turn, direction in ((0, (0, -1)), (90, (-1, 0)), (180, (0, 1)), (270, (1, 0))):
        middles = route.middles[(route.directions == direction).all(1)]
        x, y = middles.T
        axes.scatter(x, y, s=(3.6 * thick) ** 2, marker=(3, 0, turn), color=color, linewidths=0, zorder=4)
    for (row, column), times in count_bumps(walk.cells).items():
        text = "↻" + (str(times) if times > 1 else "")
        mark = axes.text(column + 0.46, row + 0.47, text, color=color, fontsize=scale.type_size, ha="right", va="bottom")
        mark.set(zorder=5, gid="bump", path_effects=[withStroke(linewidth=2, foreground="white")])
    if not walk.came_home:
        end = route.corners[-1]
        for width, ink in ((4.5, "white"), (2.2, ALARM)):
            axes.plot(*end[:, None], "x", color=ink, markersize=9, markeredgewidth=width, zorder=7, gid="lost")


def _title(axes: Axes, title: str, detail: str, color: str) -> None:
    axes.set_title(title, fontsize=9, pad=14, color=color)
    text = axes.annotate(detail, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=7.5)
    text.set(color=color, in_layout=False)  # long words shall not make the grid small


def _label_sides(axes: Axes, size: int) -> None:
    """Rows and columns at the sides of the first grid."""
    axes.set(xticks=range(size), yticks=range(size), xlabel="column", ylabel="row")
    axes.tick_params(length=0, labelsize=7, pad=1)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=7.5, color=FAINT)


def _legend(figure: Figure, k: int, shown: int) -> str:
    """What the marks in the picture mean; only those that occur."""
    marks = {"home": "House: home.", "walk": "Lines keep to the right of their direction.", "bump": "↻: bumps into a wall."}
    marks |= {"missed": "Hatched: not served on this walk.", "lost": "Cross: never came home."}
    found = {artist.get_gid() for axes in figure.axes for artist in (*axes.patches, *axes.lines, *axes.texts)}
    more = [f"Only the {shown} policies that serve most." if shown < k else ""]
    text = " ".join(["Filled: cells of the agents served.", *(text for gid, text in marks.items() if gid in found), *more])
    return fill(text, round(14 * figure.get_size_inches()[0]))
