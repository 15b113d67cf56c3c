"""One policy: whom it serves how well, how its single episodes are spread, and what it does over an episode."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import ArrayLike

from rmdp_jax.plots.style import FAINT, INK, RULE, agents_word, deep, new_figure, shade, styled, tint

WIDTH, HEIGHT = 4.3, 3.0  # inches, so that three stand side by side on a page, and one fills a phone
_MOST_DRAWN = 60  # agents; of more so many are drawn, evenly spread from worst to best served


@styled
def served_agents(
    returns: ArrayLike, color: str, width: ArrayLike | None = None, second: ArrayLike | None = None, unit: str = "0 to 100"
) -> Figure:
    """Return of each agent of a policy from worst to best served, with its interval, and what the second best policy brings.

    Args:
        returns: (m,) mean return of each agent by the policy, m at least 1, in `unit`.
        color: of the policy.
        width: (m,) half of the interval of each.
        second: (m,) mean return by the best of the other policies.
        unit: of returns.
    """
    returns = np.asarray(returns, float)
    order = np.argsort(returns, kind="stable")
    number = len(order)
    drawn = order[np.linspace(0, number - 1, min(number, _MOST_DRAWN)).round().astype(int)]
    place = np.linspace(1, number, len(drawn))
    alt = f"Returns of {agents_word(number)} from {returns.min():.1f} to {returns.max():.1f}, mean {returns.mean():.1f}."
    figure = new_figure(WIDTH, HEIGHT, alt)
    axes = figure.add_subplot(title="Its agents, worst to best served", ylabel=f"return ({unit})", xlabel="agents")
    if number > 1:
        axes.axvspan(0.5, max(1.0, number / 10) + 0.5, color=RULE, alpha=0.6, linewidth=0, label="worst tenth", zorder=0)
    if second is not None:
        other = np.asarray(second, float)[drawn]
        axes.plot(place, other, "_", color=FAINT, markersize=6, markeredgewidth=1.4, label="second best policy", zorder=2)
    bars = None if width is None else np.asarray(width, float)[drawn]
    label = "this policy" if width is None else "this policy, with 95% interval"
    axes.errorbar(place, returns[drawn], yerr=bars, fmt="o", color=deep(color), markersize=3.5, elinewidth=1.1, label=label)
    axes.set_xlim(0.3, number + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True) if number > 5 else FixedLocator(range(1, number + 1)))
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=2, handlelength=1, fontsize=7)
    return figure


@styled
def episode_returns(returns: ArrayLike, color: str, mean: float, worst_tenth: float, unit: str = "0 to 100") -> Figure:
    """Histogram of the returns of single episodes (all agents of a policy, all episodes), with the mean and the worst tenth's.

    Args:
        returns: (r,), r at least 1, in `unit`.
        color: of the policy.
        mean, worst_tenth: in the same units; the second is the mean of the tenth that is worst.
        unit: of returns.
    """
    returns = np.asarray(returns, float)
    alt = f"Returns of {len(returns):,} single episodes: mean {mean:.1f}, worst tenth {worst_tenth:.1f}."
    figure = new_figure(WIDTH, HEIGHT, alt)
    axes = figure.add_subplot(title="Its single episodes", ylabel="share of episodes (%)", xlabel=f"return ({unit})")
    edges = np.linspace(min(returns.min(), 0.0), max(returns.max(), 1e-9), 26)
    axes.hist(returns, edges.tolist(), weights=np.full(len(returns), 100 / len(returns)), color=shade(color, -0.12))
    for value, style, name in ((mean, "-", "mean"), (worst_tenth, (0, (2, 1.5)), "mean of the worst tenth")):
        axes.axvline(value, color=INK, linewidth=1.3, linestyle=style, label=f"{name}: {value:.1f}")
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=2, handlelength=1.6, fontsize=7)
    return figure


@styled
def outcome_over_steps(
    values: ArrayLike, alive: ArrayLike, color: str, name: str, unit: str | None = None, wishes: ArrayLike | None = None
) -> Figure:
    """A number that the env reports, step by step: median over the episodes that still go on, and their middle nine tenths.

    Args:
        values: (e, L) in `unit`.
        alive: (e, L) bool, the step belongs to its episode.
        color: of the policy.
        name: of the number.
        unit: of values; the env's own when not given.
        wishes: (m,) what the policy's agents want it to be, drawn at the right edge.
    """
    values, alive = np.asarray(values, float), np.asarray(alive, bool)
    going = alive.sum(0)
    last = int(np.flatnonzero(going)[-1]) + 1 if going.any() else 1
    found = np.where(alive, values, np.nan)[:, :last]
    low, middle, high = np.nanquantile(found, (0.05, 0.5, 0.95), axis=0)
    shown = "env's own unit" if unit is None else unit
    alt = f"{name} over {last} steps of {len(values)} episodes: median {np.nanmedian(found):.3g} ({shown})."
    figure = new_figure(WIDTH, HEIGHT, alt)
    axes = figure.add_subplot(title=f"{name} over an episode", xlabel="step", ylabel=f"{name} ({shown})")
    steps = np.arange(1, last + 1)
    axes.fill_between(steps, low, high, color=tint(color), linewidth=0, label="middle nine tenths of episodes")
    axes.plot(steps, middle, color=deep(color), linewidth=1.4, label="median")
    axes.set_xlim(1, max(last, 2))
    axes.grid(axis="y")
    if wishes is not None and np.size(wishes):
        _draw_wishes(axes, np.asarray(wishes, float))
    figure.legend(loc="outside lower center", ncols=2, handlelength=1.2, fontsize=7)
    return figure


def _draw_wishes(axes: Axes, wishes: np.ndarray) -> None:
    """A tick for each wish, at the right edge; of many their quantiles."""
    some = wishes if len(wishes) <= _MOST_DRAWN else np.quantile(wishes, np.linspace(0, 1, _MOST_DRAWN))
    across = axes.get_yaxis_transform()
    axes.plot(np.full(len(some), 0.985), some, "_", color=INK, markersize=8, transform=across, label="wanted by its agents")
