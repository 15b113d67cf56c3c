"""Small Resource Gathering grids known exactly: the MDP as a table, and the proved optimum of every number of policies.

States are (cell, visited set); a breadth-first search finds all that are reachable and, for every set of cells, the shortest
walk from home to home that visits just those. A group of agents wants the walk of greatest (visited members) x (1 - t/100), so
the best k walks are the best division of the cells into k groups: dynamic programming over all subsets, in whole hundredths
and hence without rounding. Up to 4 x 4 cells; `python -m rmdp_jax.envs.resource_gathering_tabular 4` prints the data file.
"""

import json
import sys
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rmdp_jax.envs.resource_gathering import MOVES, cells_of_walk, make_resource_gathering
from rmdp_jax.errors import whole_number
from rmdp_jax.evaluation.tabular import PlanningMDP

LARGEST = 4  # 5x5 has 2^25 visited sets


class Reachable(NamedTuple):
    """States that a walker can be in before it is home again, in order of distance; the first is the start."""

    code: np.ndarray  # (s,) int, visited set as bits x cells + cell
    depth: np.ndarray  # (s,) int, fewest steps
    parent: np.ndarray  # (s,) int, the state before on a shortest walk; -1 for the start
    action: np.ndarray  # (s,) int, the move from there; -1 for the start


def planning_mdp(size: int, episode_length: int | None = None) -> PlanningMDP:
    """Resource Gathering as a table for `rmdp_jax.evaluation.tabular`, one agent a cell (row-major); the last state is "over".

    Args:
        size: side of the grid, 2 to 4.
        episode_length: steps after which a walk is cut and pays nothing; default as `make_resource_gathering`.
    """
    size = _known_size(size)
    cells, home, moves = _grid(size)
    length = make_resource_gathering(size=size, episode_length=episode_length)[0].spec.episode_length
    states = reachable(size)
    over = len(states.code)
    visited, cell = np.divmod(states.code, cells)
    target = moves[cell]  # (s, 4)
    after = (visited[:, None] | 1 << target) * cells + target
    order = np.argsort(states.code)
    found = order[np.searchsorted(states.code, after, sorter=order) % over]
    ends = target == home
    successor = np.full((over + 1, 4), over)
    successor[:over] = np.where(ends, over, found)
    reward = np.zeros((cells, over + 1, 4))
    seen = visited[:, None] | 1 << home
    reward[:, :over] = ends & (seen >> np.arange(cells)[:, None, None] & 1 == 1)
    clock = 1 - np.arange(1, length + 1) / 100
    dtype = jnp.zeros(()).dtype
    return PlanningMDP(jnp.asarray(successor, jnp.int32), jnp.asarray(reward, dtype), jnp.asarray(clock, dtype), jnp.int32(0))


def exact_optimum(size: int, k: int) -> dict[str, Any]:
    """The proved best of k policies, k >= 1: `welfare` in returns (0..1) and `walks`, one optimal set, as strings of `MOVES`.

    Episodes are as long as any useful walk (at most 40 steps). More policies than cells serve nobody better.
    """
    size, k = _known_size(size), whole_number("k", k)
    cells = _grid(size)[0]
    tables = _best_divisions(size)
    left, walks = 2**cells - 1, []
    for used in range(min(k, cells), 0, -1):
        groups = np.arange(2**cells)
        groups = groups[groups & ~left == 0]
        group = groups[np.argmax(tables[used - 1][left ^ groups] + tables[1][groups])]
        walks.append(_best_walk(size, int(group)))
        left ^= int(group)
    return {"welfare": int(tables[min(k, cells)][-1]) / (100 * cells), "walks": sorted(walks, key=len)}


@cache
def group_values(size: int) -> np.ndarray:
    """Most that one walk pays each group of cells in all, (2^cells,) int64 in hundredths; groups are bits."""
    cells = _grid(size)[0]
    shortest = shortest_walks(size)[0]
    for cell in range(cells):  # fewest steps of a walk that visits the group and maybe more
        without = np.arange(2**cells) & ~(1 << cell)
        shortest[without] = np.minimum(shortest[without], shortest[without | 1 << cell])
    value = np.bitwise_count(np.arange(2**cells)).astype(np.int64) * (100 - shortest)
    for cell in range(cells):  # or leaves some of the group unvisited
        with_it = np.arange(2**cells) | 1 << cell
        value[with_it] = np.maximum(value[with_it], value[with_it & ~(1 << cell)])
    return value


def shortest_walks(size: int) -> tuple[np.ndarray, np.ndarray]:
    """For every set of cells, the fewest steps of a walk out and home that visits just it, and the state it comes home from.

    Both (2^cells,) int64; 100 steps (which pay nothing) and -1 where there is no such walk.
    """
    cells, home, moves = _grid(size)
    states = reachable(size)
    visited, cell = np.divmod(states.code, cells)
    last = np.flatnonzero((moves[cell] == home).any(1))[::-1]  # far ones first, so that near ones overwrite them
    shortest, state = np.full(2**cells, 100), np.full(2**cells, -1)
    shortest[visited[last] | 1 << home] = states.depth[last] + 1
    state[visited[last] | 1 << home] = last
    return shortest, state


@cache
def reachable(size: int) -> Reachable:
    """Breadth-first search over (cell, visited set) from home, until home."""
    cells, home, moves = _grid(size)
    seen = np.zeros(2**cells * cells, bool)
    levels, begun = [(np.array([home]), np.array([0]), np.array([-1]), np.array([-1]))], 0
    while levels[-1][0].size:
        code, depth, _, _ = levels[-1]
        visited, cell = np.divmod(code, cells)
        after = (visited[:, None] | 1 << moves[cell]) * cells + moves[cell]
        new, where = np.unique(np.where(moves[cell] == home, -1, after), return_index=True)
        fresh = (new >= 0) & ~seen[new]
        new, where = new[fresh], where[fresh]
        seen[new] = True
        levels.append((new, np.full(new.size, depth[0] + 1), begun + where // 4, where % 4))
        begun += code.size
    return Reachable(*(np.concatenate(column) for column in zip(*levels, strict=True)))


@cache
def _best_divisions(size: int) -> list[np.ndarray]:
    """Entry k: most that k walks pay each group in all, (2^cells,) int64 in hundredths."""
    value = group_values(size)
    tables = [np.zeros_like(value), value]
    for _ in range(2, _grid(size)[0] + 1):
        tables.append(_best_split(tables[-1], value))
    return tables


def _best_split(f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Over all sets M of b elements as bits, max over G within M of f[M without G] + g[G]; f, g and it (2^b,) int64.

    All 3^b pairs are looked at, vectorised over the lower half of the bits.
    """
    bits = len(f).bit_length() - 1
    lower, upper = _disjoint_pairs(bits // 2), _disjoint_pairs(bits - bits // 2)
    union, first = np.unique(lower[0] | lower[1], return_index=True)
    f, g = f.reshape(-1, union.size), g.reshape(-1, union.size)
    best = np.full_like(f, -1)
    for a, b in zip(*upper, strict=True):
        sums = f[a][lower[0]] + g[b][lower[1]]
        np.maximum(best[a | b], np.maximum.reduceat(sums, first), out=best[a | b])
    return best.reshape(-1)


def _disjoint_pairs(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of disjoint sets of `bits` elements, (3^bits,) each, in order of their union."""
    a, b = np.divmod(np.arange(4**bits), 2**bits)
    a, b = a[a & b == 0], b[a & b == 0]
    order = np.argsort(a | b, kind="stable")
    return a[order], b[order]


def _best_walk(size: int, group: int) -> str:
    """A walk that pays the group most, the shortest of them."""
    shortest, state = shortest_walks(size)
    pays = np.bitwise_count(np.arange(shortest.size) & group).astype(np.int64) * (100 - shortest)
    best = np.flatnonzero(pays == pays.max())
    return _walk_home(size, int(state[best[shortest[best].argmin()]]))


def _walk_home(size: int, state: int) -> str:
    cells, home, moves = _grid(size)
    states = reachable(size)
    walk = [int((moves[states.code[state] % cells] == home).argmax())]
    while states.parent[state] >= 0:
        walk.append(int(states.action[state]))
        state = int(states.parent[state])
    return "".join(MOVES[action] for action in reversed(walk))


def _known_size(size: int) -> int:
    rule = f"a whole number from 2 to {LARGEST}, as exact tables hold 2^(size^2) visited sets"
    return whole_number("size", size, 2, LARGEST, rule)


@cache
def _grid(size: int) -> tuple[int, int, np.ndarray]:
    """Number of cells, home, and where each of the 4 moves leads from each cell, (cells, 4)."""
    cell = np.arange(size * size)
    row, column = cell[:, None] // size, cell[:, None] % size
    down, right = np.array([-1, 1, 0, 0]), np.array([0, 0, -1, 1])
    moves = np.clip(row + down, 0, size - 1) * size + np.clip(column + right, 0, size - 1)
    return size * size, (size - 1) * size + size // 2, moves


def main() -> None:
    """Print the optimum of every k on the grid whose side is the first argument, as the files in envs/data."""
    size = int(sys.argv[1])
    table = {str(k): exact_optimum(size, k) for k in range(1, size * size + 1)}
    source = "Best welfare of k walks by dynamic programming over all sets of cells, one optimal set of walks each."
    length = make_resource_gathering(size=size)[0].spec.episode_length
    assert all(len(cells_of_walk(walk, size)) <= length for entry in table.values() for walk in entry["walks"])
    print(json.dumps({"size": size, "episode_length": length, "source": source, "optimum": table}, indent=1))


if __name__ == "__main__":
    main()
