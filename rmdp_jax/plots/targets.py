"""Who wants which speed and gets it from whom: figures 4 and 5 of the paper, with a line a policy underneath."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from rmdp_jax.plots.style import FAINT, INK, RULE, agents_word, count_agents, new_figure, policy_colors, shade, styled

LEAST = 10.0  # of 100; who gets less is hardly served
_MOST_TICKS = 200  # of a policy; of more agents the quantiles of their targets are drawn, which lie as dense as they do


@styled
def target_histogram(
    targets: ArrayLike,
    assignment: ArrayLike,
    k: int,
    span: tuple[float, float],
    unit: str = "m/s",
    policy_speeds: ArrayLike | None = None,
    returns: ArrayLike | None = None,
) -> Figure:
    """Histogram of the agents' targets stacked by policy, over a row per policy with each single target (quantiles of many).

    Args:
        targets: (n,) what each agent wants, in `unit`.
        assignment: (n,) policy of each agent, 0..k-1.
        k: number of policies; slow ones come first, those without agents last.
        span: lowest and highest target that agents may have.
        unit: of targets and speeds.
        policy_speeds: (k,) mean speed that each policy reached, drawn as a diamond in its row.
        returns: (n,) what each agent gets, 0..100. Those below `LEAST` are grey, and count in no mean: they only wait.
    """
    targets, labels = np.asarray(targets, float), np.asarray(assignment)
    served = np.ones(len(targets), bool) if returns is None else np.asarray(returns) >= LEAST
    order = _order_by_mean(targets, np.where(served, labels, k), k)
    used = int((np.bincount(labels, minlength=k) > 0).sum())
    alt = f"Targets of {agents_word(len(targets))} from {span[0]:g} to {span[1]:g} {unit} by {used} of {k} policies"
    waiting = "" if served.all() else f"; grey: {agents_word((~served).sum())} with less than {LEAST:g} of 100"
    alt += waiting + "."
    pitch = 0.2 if k <= 20 else 0.13  # inches of a row
    figure = new_figure(7.6, 2.9 + max(pitch * k, 0.5), alt)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, max(pitch * k, 0.5)))
    bins = np.linspace(*span, _bins(len(targets)) + 1)
    groups, fills = [targets[served & (labels == j)] for j in order], [policy_colors(k)[j] for j in order]
    above.hist([*groups, targets[~served]], bins=bins, stacked=True, color=[*fills, RULE], edgecolor="white", linewidth=0.5)
    for bar in [bar for bar in above.patches if not bar.get_height()]:
        bar.remove()  # thousands of empty ones take seconds to draw
    above.yaxis.set_major_formatter(count_agents)
    above.set(title="Targets by policy" + waiting, ylabel="agents", xlim=span)
    above.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    above.grid(axis="y")
    above.tick_params(labelbottom=True)
    speeds = None if policy_speeds is None else np.asarray(policy_speeds, float)
    _draw_rows(below, targets, labels, served, order, speeds, small=k > 20)
    below.set_xlabel(f"target speed ({unit})" + ("" if speeds is None else "; diamonds: mean speed of the policy"))
    return figure


def _draw_rows(
    axes: Axes,
    targets: np.ndarray,
    labels: np.ndarray,
    served: np.ndarray,
    order: list[int],
    speeds: np.ndarray | None,
    *,
    small: bool,
) -> None:
    colors = policy_colors(len(order))
    names = []
    for row, j in enumerate(order):
        own, waiting = targets[served & (labels == j)], targets[~served & (labels == j)]
        color = shade(colors[j], -0.12)
        if len(own):
            axes.plot([own.min(), own.max()], [row, row], color=color, alpha=0.35, linewidth=3 if small else 6, zorder=1)
        for some, ink in ((waiting, RULE), (own, color)):
            ticks = some if len(some) <= _MOST_TICKS else np.quantile(some, (np.arange(_MOST_TICKS) + 0.5) / _MOST_TICKS)
            size = 5 if small else 9
            axes.plot(ticks, np.full(len(ticks), row), "|", color=ink, markersize=size, markeredgewidth=1.1, zorder=2)
        if speeds is not None and np.isfinite(speeds[j]):
            (diamond,) = axes.plot([speeds[j]], [row], "D", color=INK, markersize=4 if small else 6.5, zorder=3)
            diamond.set(markeredgecolor="white", markeredgewidth=0.7)
        number = (f"{len(own)} of " if len(waiting) else "") + agents_word(len(own) + len(waiting))
        count = f"{number}, mean {own.mean():.2f}" if len(own) else "nobody served" if len(waiting) else "no agents"
        names.append(f"{j}: {len(own)}" if small else f"policy {j}: {count}")
    axes.set_yticks(range(len(order)), names, fontsize=5.5 if small else 8)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    for name, j in zip(axes.get_yticklabels(), order, strict=True):
        if not (labels == j).any():
            name.set_color(FAINT)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _order_by_mean(targets: np.ndarray, labels: np.ndarray, k: int) -> list[int]:
    """Policies by the mean target of their agents; those without agents last."""
    means = [targets[labels == j].mean() if (labels == j).any() else np.inf for j in range(k)]
    return np.argsort(means, kind="stable").tolist()


def _bins(n: int) -> int:
    return 20 if n <= 60 else 40 if n <= 400 else 80
