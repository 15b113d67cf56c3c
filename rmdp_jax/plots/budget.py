"""Welfare by number of policies, predicted and trained, and the gain of each further policy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from rmdp_jax.plots.style import FAINT, INK, new_figure, policy_colors, shade, styled


class Curve(NamedTuple):
    """Welfare of K numbers of policies, in reference units, 0..100."""

    name: str
    welfare: ArrayLike  # (K,)
    standard_error: Sequence[float | None] | np.ndarray | None = None  # (K,)


@styled
def welfare_by_budget(
    ks: Sequence[int],
    curves: Sequence[Curve],
    individual: float,
    *,
    bound: ArrayLike | None = None,
    recommended: int | None = None,
    price: float | None = None,
) -> Figure:
    """Curves of welfare over k between the single policy and the individual end; below, what each further policy adds.

    Args:
        ks: (K,), rising.
        curves: one or two; the first has its gains drawn below as well.
        individual: what the best policy for each agent brings.
        bound: (K,) what k policies can reach at best, drawn as a dashed level at every k.
        recommended: the k that is marked.
        price: what one more policy has to add, drawn as a level over the gains.
    """
    first = np.asarray(curves[0].welfare, float)
    figure = new_figure(7.0, 5.2, _alt(ks, curves, individual, recommended))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    above.set(title="Welfare by number of policies", ylabel="welfare (0 to 100)", xlim=(min(ks) - 0.6, max(ks) + 0.6))
    above.margins(y=0.1)
    _draw_levels(above, ks, first, individual, bound)
    for curve, color, marker in zip(curves, policy_colors(len(curves)), "oD", strict=False):
        errors = [0.0] * len(ks) if curve.standard_error is None else [error or 0.0 for error in curve.standard_error]
        line: dict[str, Any] = {"marker": marker, "markersize": 5, "linewidth": 2, "capsize": 3, "zorder": 4}
        above.errorbar(ks, curve.welfare, yerr=errors, color=color, label=curve.name, **line)
    _draw_gains(below, ks, np.diff(first) / np.diff(ks), price)
    if recommended is not None:
        note = f"recommended: k = {recommended}"
        above.set_title(note, loc="right", fontsize=9, fontweight="normal", color=FAINT)
        for axes in (above, below):
            axes.axvline(recommended, color=INK, linewidth=8, alpha=0.12, zorder=1)
    above.grid(axis="y")
    above.tick_params(labelbottom=True)
    handles = above.get_legend_handles_labels()[0] + below.get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_gains(axes: Axes, ks: Sequence[int], gains: np.ndarray, price: float | None) -> None:
    axes.set(ylabel="welfare added\nby each more", xlabel="policies k")
    axes.bar(ks[1:], gains, 0.6, color=shade(policy_colors(1)[0], 0.3), zorder=2)
    axes.axhline(0.0, color=FAINT, linewidth=0.8)
    if price is not None:
        axes.axhline(price, color=INK, linewidth=1.2, linestyle=(0, (1, 2)), zorder=3, label=f"price {price:g}")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(axis="y")


def _draw_levels(axes: Axes, ks: Sequence[int], welfare: np.ndarray, individual: float, bound: ArrayLike | None) -> None:
    """What every k lies between: the single policy and the individual end, and what is proved."""
    style: dict[str, Any] = {"linewidth": 1.2, "zorder": 2}
    axes.axhline(individual, color=FAINT, label=f"individual end, {individual:.2f}", **style)
    if ks[0] == 1:
        axes.axhline(welfare[0], color=FAINT, linestyle=(0, (1, 2)), label=f"single policy, {welfare[0]:.2f}", **style)
    for i, (k, level) in enumerate(zip(ks, [] if bound is None else np.asarray(bound, float), strict=False)):
        ends = [k - 0.35, k + 0.35]
        axes.plot(ends, [level] * 2, color=INK, linestyle=(0, (5, 3)), label="" if i else "upper bound", **style)


def _alt(ks: Sequence[int], curves: Sequence[Curve], individual: float, recommended: int | None) -> str:
    values = "; ".join(
        f"{curve.name}: " + ", ".join(f"k = {k} {x:.1f}" for k, x in zip(ks, np.asarray(curve.welfare, float), strict=True))
        for curve in curves
    )
    mark = "" if recommended is None else f" Recommended: k = {recommended}."
    return f"Welfare by number of policies. {values}; individual end {individual:.1f}.{mark}"
