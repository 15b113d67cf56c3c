"""The paths that policies walk in Resource Gathering: figure 1 of the paper, drawn so that retraced steps stay readable."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from numpy.typing import ArrayLike

from rmdp_jax.plots.style import ALARM, FAINT, INK, PAPER, RULE, agents_word, ink_on, new_figure, policy_colors, shade, styled

_LANE = 0.105  # cells between neighbouring lanes of an edge
_MOST_LANES = 4  # to either side of an edge; more passes share them
_MOST_PANELS = 25


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
    positions: ArrayLike, alive: ArrayLike, size: int, assignment: ArrayLike, returns: ArrayLike
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
    """
    labels, returns = np.asarray(assignment), np.asarray(returns, float)
    walks = [_walk(*pair, size) for pair in zip(np.asarray(positions), np.asarray(alive, bool), strict=True)]
    k = len(walks)
    sizes = np.bincount(labels, minlength=k)
    shown = np.sort(np.argsort(-sizes, kind="stable")[:_MOST_PANELS]).tolist()
    panels = len(shown) + (k > 1)
    columns = _columns(panels)
    rows = -(-panels // columns)
    side = min(2.5, 13.6 / max(columns, rows + 0.22 * rows)) if panels > 1 else 4.0
    figure = new_figure(side * columns + 0.3, (side + 0.42) * rows + 0.45, _alt(walks, returns))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    if k > 1:
        _draw_everyone(grid.pop(0), size, labels, returns, k)
    for axes, j in zip(grid, shown, strict=False):
        _draw_policy(axes, j, walks[j], size, labels, returns, k)
        if panels == 1:
            _label_sides(axes, size)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    more = f" The {len(shown)} of {k} policies that serve most." if len(shown) < k else ""
    hatched = " Hatched: wanted, not visited." if any(axes.patches and _is_hatched(axes) for axes in figure.axes) else ""
    figure.supxlabel(f"Filled: cells of the agents served. Lines keep right.{hatched}{more}", fontsize=8, color=FAINT)
    return figure
