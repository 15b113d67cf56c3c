"""The welfare of k policies that hold their speeds as well as a policy alone does: an estimate beside the proved bound.

`python -m benchmarks.reachable` trains one policy for one target at a time and measures its mean pay for all targets of the
range. Between two of these speeds the pays are interpolated. The best k speeds by these pays are found by dynamic programming.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DATA = Path(__file__).parent / "data" / "reachable_speed.json"
PLACES = 101  # speeds that are tried, evenly spaced over the range
MOST_TARGETS = 4096  # of more, quantiles stand for them


class Held(NamedTuple):
    """What policies alone with one target each were paid by all targets of a body's range."""

    targets: np.ndarray  # (p,) m/s, sorted, of the policies
    grid: np.ndarray  # (g,) m/s, evenly spaced over the range
    pays: np.ndarray  # (p, g) mean return in 0..100
    transitions: int  # of each policy


def held_from(line: Mapping[str, Any]) -> Held:
    """A line of `benchmarks.reachable`, or of the data file."""
    pays = np.asarray(line["pays"], np.float64)
    low, high = line["range"]
    grid = np.linspace(float(low), float(high), pays.shape[1])
    return Held(np.asarray(line["targets"], np.float64), grid, pays, line["transitions"])


def write_data(lines: Iterable[Mapping[str, Any]]) -> None:
    """What the package knows from now on: pays of every tenth of a window, and how they were measured."""
    kept = {line["env"]: {name: line[name] for name in ("transitions", "range", "targets", "commit", "pays")} for line in lines}
    DATA.write_text(json.dumps(kept, separators=(",", ":")) + "\n")


@cache
def held_speeds(env: str) -> Held | None:
    """What was measured of a task, or None."""
    line = json.loads(DATA.read_text()).get(env) if DATA.exists() else None
    return None if line is None else held_from(line)


def pays_at(held: Held, speeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean returns (s, n) in 0..100 that policies at `speeds` (s,) would bring agents with `targets` (n,)."""
    last = len(held.targets) - 1
    upper = np.clip(np.searchsorted(held.targets, speeds), min(1, last), last)
    lower = np.maximum(upper - 1, 0)
    gap = np.where(upper > lower, held.targets[upper] - held.targets[lower], 1.0)
    share = np.clip((speeds - held.targets[lower]) / gap, 0.0, 1.0)

    def moved(policy: int, by: float) -> np.ndarray:  # pays of a measured policy as if its target were `by` higher
        return np.interp(targets - by, held.grid, held.pays[policy], left=0.0, right=0.0)

    rows = [
        (1.0 - s) * moved(a, v - held.targets[a]) + s * moved(b, v - held.targets[b])
        for v, a, b, s in zip(speeds, lower, upper, share, strict=True)
    ]
    return np.asarray(rows)


def reachable_welfare(held: Held, targets: np.ndarray, k: int) -> float:
    """Welfare in 0..100 of the best k of `PLACES` speeds for the targets (n,), each target served by a neighbouring speed."""
    speeds, order = np.linspace(held.grid[0], held.grid[-1], PLACES), np.sort(np.asarray(targets, np.float64))
    if len(order) > MOST_TARGETS:
        order = np.quantile(order, (np.arange(MOST_TARGETS) + 0.5) / MOST_TARGETS)
    pays = pays_at(held, speeds, order)  # (s, n)
    cut = np.searchsorted(order, speeds)  # targets below each speed
    sums = np.concatenate([np.zeros((PLACES, 1)), np.cumsum(pays, axis=1)], axis=1)
    between = np.full((PLACES, PLACES), -np.inf)  # [a, b]: of the targets between speeds a < b, each by the better one
    for a in range(PLACES):
        better = np.cumsum(np.maximum(pays[a], pays), axis=1)
        gained = np.concatenate([np.zeros((PLACES, 1)), better], axis=1)
        rows = np.arange(a + 1, PLACES)
        between[a, rows] = gained[rows, cut[rows]] - gained[rows, cut[a]]
    best = sums[np.arange(PLACES), cut]  # of all targets below b, by chains that end in b
    for _ in range(min(k, PLACES) - 1):
        best = np.maximum(best, (best[:, None] + between).max(0))
    return float((best + sums[:, -1] - sums[np.arange(PLACES), cut]).max()) / len(order)
