"""What happened over training: welfare, who moved, and the speeds that policies took."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from rmdp_jax.plots.style import (
    FAINT,
    INK,
    RULE,
    algorithm_colors,
    count_agents,
    new_figure,
    policy_colors,
    shade,
    styled,
    transitions_axis,
)

Lines = list[dict[str, Any]]

_MOST_PANELS = 20  # of `speed_history`


@styled
def welfare_curve(
    metrics: Lines,
    upper_bound: float | None,
    final: dict[str, Any] | None,
    *,
    bound_name: str = "upper bound",
    reachable: float | None = None,
) -> Figure:
    """Running welfare over training, under the bound, with what fresh episodes said at the end.

    Args:
        metrics: lines of metrics.jsonl; `transitions_per_policy`, `welfare` (reference units, 0..100) and, where there are
            some, `welfare_recent` and `copies` are read; a line with copies gets a circle.
        upper_bound: best welfare that k policies can reach, in the same units; drawn dashed with its number.
        final: result.json; `welfare`, `welfare_standard_error` and `transitions_per_policy` are read.
        bound_name: what to call the bound, for instance "proved optimum".
        reachable: an estimate of what k policies reach, in the same units; drawn dotted with its number.
    """
    steps, welfare = _column(metrics, "transitions_per_policy"), _column(metrics, "welfare")
    ends = np.append(steps, final["transitions_per_policy"]) if final else steps
    last = f"{final['welfare']:.1f} in fresh episodes" if final else f"{welfare[-1]:.1f}" if len(welfare) else "nothing yet"
    lines = _known({bound_name: upper_bound, "reachable, estimated": reachable})
    bound_text = "".join(f"; {name} {x:.2f}" for name, x in lines.items())
    alt = f"Welfare by transitions per policy, ending at {last}{bound_text}."
    figure = new_figure(7.0, 4.0, alt)
    axes = figure.add_subplot(title="Welfare over training", ylabel="welfare (0 to 100)")
    transitions_axis(axes, ends)
    axes.grid(axis="y")
    recent = np.array([line.get("welfare_recent") for line in metrics], float)
    ends_at = [x for x in (*lines.values(), final and final["welfare"]) if x]
    shown = np.concatenate([welfare[np.isfinite(welfare)], recent[np.isfinite(recent)], ends_at])
    low, high = (min(shown.min(), 0.0), max(shown.max(), 0.0)) if shown.size else (0.0, 100.0)
    axes.set_ylim(low, low + 1.14 * (high - low))
    _draw_running(figure, axes, metrics, welfare, recent)
    _draw_levels(axes, lines)
    if final:
        known = upper_bound is not None and upper_bound > 0
        share = f"{final['welfare'] / upper_bound:.1%} of the {bound_name}" if known else ""
        below = final["welfare"] - low > 0.3 * (high - low)
        curve = welfare[-1:][np.isfinite(welfare[-1:])].tolist()  # the text keeps clear of it
        near = (min if below else max)([float(final["welfare"]), *curve])
        _mark_final(axes, final, near, share, below=below)
    return figure


@styled
def welfare_of_seeds(runs: Sequence[Lines], finals: Sequence[dict[str, Any]], upper_bound: float | None) -> Figure:
    """Running welfare of several runs over training, a faint line each, their mean, and what fresh episodes said of each.

    Args:
        runs: lines of metrics.jsonl of each run; `transitions_per_policy` and `welfare` are read.
        finals: result.json of each; `welfare` and `transitions_per_policy` are read.
        upper_bound: best welfare that k policies can reach; drawn dashed with its number.
    """
    fresh = np.array([final["welfare"] for final in finals], float)
    fresh_mean = f"{np.nanmean(fresh):.1f} in fresh episodes" if np.isfinite(fresh).any() else "nothing evaluated"
    figure = new_figure(7.0, 4.0, f"Welfare of {len(runs)} runs by transitions per policy, mean {fresh_mean}.")
    axes = figure.add_subplot(title=f"Welfare over training, {len(runs)} seeds: {fresh_mean}", ylabel="welfare (0 to 100)")
    color, ends = policy_colors(1)[0], np.array([final["transitions_per_policy"] for final in finals], float)
    curves = [(_column(metrics, "transitions_per_policy"), _column(metrics, "welfare")) for metrics in runs]
    for at, (steps, welfare) in enumerate(curves):
        axes.plot(steps, welfare, color=shade(color, 0.55), linewidth=1, label="" if at else "running estimate of each")
    shortest = min((steps for steps, _ in curves), key=len)
    together = np.array([welfare[: len(shortest)] for _, welfare in curves])
    axes.plot(shortest, together.mean(0), color=color, linewidth=2, label="their mean")
    axes.plot(ends, fresh, "D", color=INK, markersize=5, clip_on=False, zorder=5, label="fresh episodes of each")
    transitions_axis(axes, np.concatenate([ends, *(steps for steps, _ in curves)]))
    axes.grid(axis="y")
    if upper_bound is not None:
        _draw_levels(axes, {"upper bound": upper_bound})
    axes.set_ylim(bottom=np.nanmin(together, initial=0.0))  # after all that the upper end has to hold
    figure.legend(loc="outside lower center", ncols=3, handlelength=1.6)
    return figure


@styled
def welfare_of_variants(
    title: str,
    variants: Mapping[str, Sequence[np.ndarray]],
    fresh: Mapping[str, float],
    *,
    by_seconds: bool = False,
    upper_bound: float | None = None,
    reachable: float | None = None,
) -> Figure:
    """Running welfare of several ways to train, the mean over seeds of each and its range, under the bounds.

    Args:
        title: what they have in common.
        variants: by name, of each seed (L, 2), transitions per policy and running welfare (0..100), or (L, 3), with the
            seconds so far.
        fresh: mean welfare of fresh episodes at the end, by name, of those that were evaluated.
        by_seconds: along the seconds, their mean over seeds, instead of along the transitions.
        upper_bound, reachable: levels that are drawn, dashed and dotted.
    """
    finals = ", ".join(f"{name} {value:.1f}" for name, value in fresh.items())
    figure = new_figure(7.0, 4.4, f"Welfare over training, {title}. Fresh episodes at the end: {finals}.")
    axes = figure.add_subplot(title=f"Welfare over training: {title}", ylabel="welfare (0 to 100)")
    ends = [0.0]
    for (name, curves), color in zip(variants.items(), algorithm_colors([*variants]), strict=True):
        steps = min(curves, key=len)[:, 0]  # as far as all seeds go
        steps = steps[steps <= min(curve[-1, 0] for curve in curves)]
        columns = (1, 2 if by_seconds else 0)
        welfare, along = (np.array([np.interp(steps, curve[:, 0], curve[:, column]) for curve in curves]) for column in columns)
        x = along.mean(0)
        label = f"{name}: {fresh[name]:.1f} in fresh episodes" if name in fresh else name
        axes.plot(x, welfare.mean(0), color=color, linewidth=2, label=label, zorder=3)
        axes.fill_between(x, welfare.min(0), welfare.max(0), color=color, alpha=0.15, linewidth=0)
        if name in fresh:
            axes.plot(x[-1:], [fresh[name]], "D", color=color, markeredgecolor=INK, markersize=5, clip_on=False, zorder=5)
        ends.extend(x)
    if by_seconds:
        axes.set(xlabel="seconds", xlim=(0, max(ends)))
    else:
        transitions_axis(axes, np.array(ends))
    axes.grid(axis="y")
    _draw_levels(axes, _known({"upper bound": upper_bound, "reachable, estimated": reachable}))
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, 0.0), max(top, 1.08 * (upper_bound or 0.0)))  # with room for what is written above
    figure.legend(loc="outside lower center", ncols=1 if len(variants) < 3 else 2, handlelength=1.6)
    return figure


def _known(levels: Mapping[str, float | None]) -> dict[str, float]:
    return {name: level for name, level in levels.items() if level is not None}


def _draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    """Lines across, dashed and then dotted, each with its number: over the highest, under the other, which may be close."""
    highest = max(levels, key=lambda name: levels[name], default=None)
    for (name, level), dashes in zip(levels.items(), ((5, 3), (1, 2)), strict=False):
        axes.axhline(level, color=INK, linewidth=1.2, linestyle=(0, dashes), zorder=2)
        over = name == highest
        _say(axes, f"{name} {level:.2f}", (0.0, level), (4, 4 if over else -4), "left", "bottom" if over else "top")


def _draw_running(figure: Figure, axes: Axes, metrics: Lines, welfare: np.ndarray, recent: np.ndarray) -> None:
    """The running estimate, where policies were copied, and what the latest iterations say alone, which lags less."""
    steps, color = _column(metrics, "transitions_per_policy"), policy_colors(1)[0]
    (running,) = axes.plot(steps, welfare, color=color, linewidth=2, label="running estimate", zorder=3)
    if np.isfinite(recent).any():
        style: dict[str, Any] = {"color": shade(color, 0.55), "linewidth": 1, "zorder": 2.5}
        (alone,) = axes.plot(steps, recent, label="latest iterations alone", **style)
        figure.legend(handles=[running, alone], loc="outside lower center", ncols=2, handlelength=1.6)
    copied = np.array([line.get("copies", 0) > 0 for line in metrics], bool)
    if copied.any():
        circles: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4, "markerfacecolor": "white", "zorder": 4}
        axes.plot(steps[copied], welfare[copied], color=color, label="policies sent elsewhere", **circles)
        note = "circles: policies went on from another, or from an earlier one"
        axes.set_title(note, loc="right", fontsize=8, fontweight="normal", color=FAINT)


def _mark_final(axes: Axes, final: dict[str, Any], near: float, share: str, *, below: bool) -> None:
    x, welfare, error = (float(final.get(name) or 0) for name in _FINAL)
    bar: dict[str, Any] = {"elinewidth": 2.5, "clip_on": False, "zorder": 5, "label": "fresh episodes"}
    axes.errorbar([x], [welfare], yerr=[error], fmt="D", color=INK, markersize=5, **bar)
    give_or_take = "" if final.get("welfare_standard_error") is None else f" ± {error:.2f}"
    text = f"fresh episodes\n{welfare:.2f}{give_or_take}\n{share}".strip()
    _say(axes, text, (x, near), (0, -14 if below else 14), "right", "top" if below else "bottom")


_FINAL = ("transitions_per_policy", "welfare", "welfare_standard_error")


@styled
def assignment_history(metrics: Lines) -> Figure:
    """How many agents each policy serves, stacked, and how many agents moved between two logged lines.

    Args:
        metrics: lines of metrics.jsonl; `transitions_per_policy`, `policy_sizes` (k,) and `flips` are read.
    """
    steps, flips = _column(metrics, "transitions_per_policy"), _column(metrics, "flips")
    k = len(metrics[0]["policy_sizes"]) if metrics else 0
    sizes = np.array([line["policy_sizes"] for line in metrics], float).reshape(len(metrics), k)
    last = sizes[-1] if len(sizes) else np.zeros(0)
    total = int(flips.sum())
    moves = f"{total:,} move" + ("" if total == 1 else "s")
    alt = f"Sizes of {k} policies over training, at the end {', '.join(f'{x:.0f}' for x in last)}; {moves} in all."
    figure = new_figure(7.6, 5.0, alt)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.set(title="Agents of each policy", ylabel="agents", ylim=(0, max(last.sum(), 1)))
    below.set(ylabel="agents\nmoved", ylim=(0, max(1.0, 1.1 * flips.max(initial=0.0))))
    below.set_title(f"Changes of policy between two logged lines: {moves} in all", fontsize=9, fontweight="normal")
    starts = np.insert(steps, 0, 0.0)  # what was logged at a line is drawn from the line before it
    for j, (color, bottom) in enumerate(zip(policy_colors(k), np.cumsum(sizes, 1).T - sizes.T, strict=True)):
        edges = [np.append(values[:1], values) for values in (bottom, bottom + sizes[:, j])]
        above.fill_between(starts, *edges, step="pre", color=color, linewidth=0, label=f"policy {j}")
    below.fill_between(starts, np.append(flips[:1], flips), step="pre", color=FAINT, linewidth=0)
    for axes in (above, below):
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(count_agents)
        axes.grid(axis="y")
    transitions_axis(below, steps)
    above.tick_params(labelbottom=True)
    if len(last):
        _name_bands(figure, above, last)
    return figure


def _name_bands(figure: Figure, axes: Axes, sizes: np.ndarray) -> None:
    """A legend in the order of the stack, with the sizes at the end."""
    handles = axes.get_legend_handles_labels()[0][::-1]
    form = "policy {}: {:.0f}" if len(sizes) <= 20 else "{}: {:.0f}"
    labels = [form.format(j, size) for j, size in enumerate(sizes)][::-1]
    columns = 1 if len(sizes) <= 20 else -(-len(sizes) // 25) + 1
    title = "agents\nat the end"
    figure.legend(handles, labels, loc="outside right upper", ncols=columns, title=title, handlelength=1, alignment="left")


@styled
def speed_history(metrics_transitions: ArrayLike, policy_speed: ArrayLike, targets: ArrayLike, *, unit: str = "m/s") -> Figure:
    """Speed of each policy against the targets of the agents it served, a panel a policy, slow policies first.

    Args:
        metrics_transitions: (L,) transitions per policy.
        policy_speed: (L, k) mean speed of each policy, in `unit`; nan where unknown.
        targets: (L, k, 2) lowest and highest target of its agents, or (L, k) their mean; nan for a policy without agents.
        unit: of speeds and targets.
    """
    steps, speed, targets = (np.asarray(x, float) for x in (metrics_transitions, policy_speed, targets))
    k = speed.shape[1]
    bands = targets if targets.ndim == 3 else targets[..., None].repeat(2, -1)  # (L, k, 2)
    final = bands[-1].mean(-1)
    order = np.argsort(np.where(np.isfinite(final), final, np.inf), kind="stable")
    order = order[np.linspace(0, k - 1, min(k, _MOST_PANELS)).round().astype(int)]
    columns = min(len(order), 5 if len(order) > 4 and len(order) != 6 else 3 if len(order) in (3, 6) else 4)
    rows = -(-len(order) // columns)
    served = ", ".join(f"{speed[-1, j]:.2f}" for j in order)
    figure = new_figure(max(2.1 * columns + 0.5, 6.2), 1.9 * rows + 0.8, f"Speeds of {k} policies, at the end {served} {unit}.")
    drawn = "band" if targets.ndim == 3 else "dashed, mean"
    more = "" if k <= _MOST_PANELS else f" ({_MOST_PANELS} of {k} policies)"
    title = f"Speed of each policy (line) and the targets that it serves ({drawn}){more}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    high = np.nanmax(np.concatenate([speed.ravel(), bands.ravel(), [1e-3]]))
    low = np.nanmin(np.concatenate([speed.ravel(), bands.ravel(), [0.0]]))
    for axes, j in zip(grid.flat, order.tolist(), strict=False):
        _draw_speed(axes, steps, speed, bands, j, ranged=targets.ndim == 3)
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        transitions_axis(axes, steps)
        axes.locator_params(axis="x", nbins=3)
        axes.set_xlabel("")
    for axes in grid.flat[len(order) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(len(order) - columns, 0) : len(order)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("transitions per policy", fontsize=9)
    figure.supylabel(f"speed ({unit})", fontsize=9)
    return figure


def _draw_speed(axes: Axes, steps: np.ndarray, speed: np.ndarray, bands: np.ndarray, j: int, *, ranged: bool) -> None:
    color = policy_colors(speed.shape[1])[j]
    if speed.shape[1] <= 10:
        axes.plot(steps, np.delete(speed, j, 1), color=RULE, linewidth=0.7, zorder=1)
    if ranged:
        axes.fill_between(steps, *bands[:, j].T, color=color, alpha=0.3, linewidth=0, label="targets of its agents", zorder=2)
    else:
        axes.plot(steps, bands[:, j, 0], color=color, linestyle="--", linewidth=1.4, label="mean target", zorder=2)
    dot = "o" if len(steps) == 1 else ""
    axes.plot(steps, speed[:, j], color=shade(color, -0.25), linewidth=1.8, label="speed", zorder=3, marker=dot)
    target = f"targets {bands[-1, j, 0]:.2f} to {bands[-1, j, 1]:.2f}" if ranged else f"mean target {bands[-1, j, 0]:.2f}"
    detail = f"{speed[-1, j]:.2f} for {target}" if np.isfinite(bands[-1, j]).all() else "serves nobody"
    axes.set_title(f"policy {j}", fontsize=8.5, pad=14)
    axes.annotate(detail, (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", fontsize=7.5, color=FAINT)


def _column(metrics: Lines, name: str) -> np.ndarray:
    """One number of each line, (L,) float."""
    return np.array([line[name] for line in metrics], float)


def _say(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], ha: str, va: str) -> None:
    """Text so many points away from a place in the axes' data."""
    halo = [withStroke(linewidth=3, foreground="white")]
    axes.annotate(text, at, offset, textcoords="offset points", ha=ha, va=va, fontsize=8.5, path_effects=halo, zorder=6)
