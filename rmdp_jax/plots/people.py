"""How good it is for everyone: the k x n returns as a map, and the n agents from worst to best served."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from rmdp_jax.evaluation.fairness import mean_and_worst_tenth
from rmdp_jax.plots.style import FAINT, INK, agents_word, count_agents, ink_on, new_figure, policy_colors, styled

_MOST_COLUMNS = 400  # of the map; beyond it neighbours of the same policy are averaged
_MOST_BARS = 1000  # of the agents; beyond it one in so many is drawn, evenly spread from worst to best served
_TOGETHER = 25  # bars of such a picture that are sorted by policy
_WORTH_MOVING = 0.5  # reference units: what another policy must pay more to be marked
_MOST_NAMED = 20  # policies in a legend or with a row name of normal size


@styled
def utility_matrix(utility: ArrayLike, assignment: ArrayLike) -> Figure:
    """Heat map of the return of every agent (columns, by policy, best served first) under every policy (rows).

    The frames show who is assigned to whom. A white dot in a cell: that policy would pay the agent more, by at least
    0.5. With more than 400 agents neighbours of the same policy share a column that shows their mean.

    Args:
        utility: (k, n) mean returns in reference units (0..100).
        assignment: (n,) policy of each agent, 0..k-1.
    """
    utility, labels = np.asarray(utility), np.asarray(assignment)
    k, n = utility.shape
    paid = utility[labels, np.arange(n)].astype(float)
    order = np.lexsort((-paid, labels))
    values, edges, owners = _bin_columns(utility, labels, order)
    alt = f"Returns of {agents_word(n)} under {k} policies; under their own policy the mean is {paid.mean():.1f}."
    figure = new_figure(8.4, min(2.0 + (0.32 if k <= _MOST_NAMED else 0.15) * k, 10.0), alt)
    bar, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, max(k * 2, 10)))
    low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=1.0)
    mesh = axes.pcolormesh(edges, np.arange(k + 1) - 0.5, values, cmap="cividis", vmin=low, vmax=high, rasterized=True)
    figure.colorbar(mesh, ax=[bar, axes], label="return (0 to 100)", pad=0.015, aspect=30).outline.set_visible(False)
    _draw_owners(bar, edges, owners, k)
    _frame_groups(axes, np.bincount(labels, minlength=k))
    _mark_better(axes, values, edges, owners)
    better = "; dots: another policy would pay more" if axes.collections[1:] else ""
    bar.set_title("Return of every agent under every policy")
    axes.set(xlabel=f"agents, grouped by the policy that serves them (framed){better}", ylim=(k - 0.5, -0.5), xlim=(0, n))
    sizes = np.bincount(labels, minlength=k)
    small = k > _MOST_NAMED
    axes.set_yticks(range(k), [f"{j}: {s}" if small else f"policy {j}: {agents_word(s)}" for j, s in enumerate(sizes.tolist())])
    axes.xaxis.set_major_formatter(count_agents)
    axes.tick_params(axis="y", length=0, labelsize=6 if small else 8, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def _bin_columns(utility: np.ndarray, labels: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (k, C), edges (C + 1,) in agents and policies (C,) of columns; no column holds agents of two policies.

    `order` (n,) puts the agents of each policy side by side, policy 0 first.
    """
    n = len(labels)
    width = -(-n // _MOST_COLUMNS)
    ends = np.cumsum(np.bincount(labels)).tolist()
    starts = [start for begin, end in zip([0, *ends], ends, strict=False) for start in range(begin, end, width)]
    edges = np.array([*starts, n])
    sums = [np.add.reduceat(row[order].astype(float), starts) for row in utility]  # row by row, as the whole may be large
    return np.array(sums) / np.diff(edges), edges, labels[order[starts]]


def _draw_owners(axes: Axes, edges: np.ndarray, owners: np.ndarray, k: int) -> None:
    """A strip over the map in the colours of the policies."""
    colors = ListedColormap(policy_colors(k))
    axes.pcolormesh(edges, [0, 1], owners[None], cmap=colors, vmin=-0.5, vmax=k - 0.5, rasterized=True)
    axes.set_axis_off()
    for j, color in enumerate(policy_colors(k)):
        mine = np.flatnonzero(owners == j)
        if k <= _MOST_NAMED and len(mine) and edges[mine[-1] + 1] - edges[mine[0]] > 0.02 * edges[-1]:
            middle = (edges[mine[0]] + edges[mine[-1] + 1]) / 2
            axes.text(middle, 0.45, str(j), color=ink_on(color), fontsize=7.5, ha="center", va="center")


def _frame_groups(axes: Axes, sizes: np.ndarray) -> None:
    begins = np.cumsum(sizes) - sizes
    thick = 2.0 if len(sizes) <= _MOST_NAMED else 1.0
    for j, (color, begin, size) in enumerate(zip(policy_colors(len(sizes)), begins, sizes, strict=True)):
        if size:
            for edge, width in (("white", 1.7 * thick), (color, thick)):
                frame = Rectangle((begin, j - 0.5), size, 1, fill=False, edgecolor=edge, linewidth=width, zorder=3)
                axes.add_patch(frame).set_clip_on(False)


def _mark_better(axes: Axes, values: np.ndarray, edges: np.ndarray, owners: np.ndarray) -> None:
    columns = np.arange(len(owners))
    best = values.argmax(0)
    wins = values[best, columns] - values[owners, columns] >= _WORTH_MOVING
    if wins.any():
        centres = (edges[:-1] + edges[1:]) / 2
        axes.scatter(centres[wins], best[wins], s=9, color="white", edgecolors=INK, linewidths=0.5, zorder=4)


@styled
def agent_distribution(utility: ArrayLike, assignment: ArrayLike, weights: ArrayLike | None = None) -> Figure:
    """Return of every agent under its own policy, from the worst to the best served, with the worst-served tenth marked.

    With more than 1000 agents a thousand of them are drawn, evenly spread from the worst to the best served.

    Args:
        utility: (k, n) mean returns in reference units (0..100).
        assignment: (n,) policy of each agent, 0..k-1.
        weights: (n,) above 0, by which the mean and the worst tenth count agents; 1 each when not given.
    """
    utility, labels = np.asarray(utility), np.asarray(assignment)
    k, n = utility.shape
    weight = np.ones(n) if weights is None else np.asarray(weights, float)
    own, sizes = utility[labels, np.arange(n)].astype(float), np.bincount(labels, minlength=k).tolist()
    order = np.argsort(own, kind="stable")
    own, labels, weight = own[order], labels[order], weight[order]
    in_units = not own[-1] > 110.0  # else above the best possible by more than noise: no reference_scale; NaN was not evaluated
    top = 100.0 if in_units else float(own[-1])
    tenth, (mean, worst) = _worst(weight), mean_and_worst_tenth(own, weight)
    alt = f"Returns of {agents_word(n)} from worst to best served: mean {mean:.1f}, worst-served tenth {worst:.1f}"
    alt += " of 100." if in_units else "."
    figure = new_figure(7.6, 4.0, alt)
    axes = figure.add_subplot(title="How good it is for everyone", ylabel="return" + " (0 to 100)" * in_units)
    axes.set(
        xlim=(0.5 - 0.01 * n, n + 0.5), ylim=(min(0.0, 1.1 * own[0]), 1.12 * top), xlabel="agents, from worst to best served"
    )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(count_agents)
    gap, named = 0.12 if n <= 100 else 0.0, k <= _MOST_NAMED  # stripes of more than 20 colours would tell nothing
    bars = min(n, _MOST_BARS)
    places = (np.arange(bars) * n + n // 2) // bars
    # Of very many agents, those of a policy stand side by side where they get almost the same: colours are noise otherwise.
    drawn = places[np.lexsort((places, labels[places], np.arange(bars) // _TOGETHER))] if bars < n else places
    for j, color in enumerate(policy_colors(k)):
        mine = labels[drawn] == j
        axes.bar(places[mine] + 1, own[places[mine]], (1 - gap) * n / bars, color=color if named else FAINT, zorder=2)
    axes.axvspan(0.5, tenth + 0.5, color=FAINT, alpha=0.22, linewidth=0, zorder=1)
    axes.annotate(f"worst-served tenth: mean {worst:.1f}", (0.5, 1.06 * top), (3, 0), textcoords="offset points", va="center")
    if in_units:
        _draw_level(axes, 100.0, "best\npossible", "bottom", (0, (5, 3)))
    _draw_level(axes, mean, f"mean {mean:.1f}", "top" if mean > 0.9 * top else "center", "-")
    if named:
        entries = enumerate(zip(policy_colors(k), sizes, strict=True))
        handles = [Patch(color=color, label=f"policy {j}: {agents_word(size)}") for j, (color, size) in entries]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(k, 5 if n < 10_000 else 4), handlelength=1)
    return figure


def _worst(weight: np.ndarray) -> float:
    """How many of the agents, worst served first, have a tenth of all weight (n,): at least one, and a part of the last."""
    ends = np.cumsum(weight)
    return float(max(1.0, np.interp(0.1 * ends[-1], [0.0, *ends], np.arange(len(weight) + 1))))


def _draw_level(axes: Axes, height: float, text: str, va: str, style: Any) -> None:
    """A line across, named to its right."""
    axes.axhline(height, color=INK, linewidth=1.2, linestyle=style, zorder=3)
    axes.annotate(text, (1.01, height), xycoords=("axes fraction", "data"), va=va, annotation_clip=False)
