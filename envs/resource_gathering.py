"""Resource Gathering: a walker leaves home, visits cells, comes back; each agent wants its own cell visited soon.

Empty m x m grid, home at row m-1, column m//2. Moves up, down, left, right; a move off the grid leaves the walker where it
is and the step counts. After each step the cell stood on counts as visited. The episode terminates when, after a step, the
walker stands on home. On termination at step t an agent receives 1 - t/100 if its cell was visited; a cut episode pays
nothing. Source: Ivanov & Ben-Porat, AAAI 2024.
"""

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import LARGEST_N
from rmdp_jax.env import Column, Env, EnvSpec, Population, Step
from rmdp_jax.errors import INT32, ConfigError, shown, whole_number
from rmdp_jax.types import Array, Key

LARGEST_SIDE = 100
SOLVED_SIZES = (3, 4, 5)  # grids whose optimum is known, see data/
MOVES = "UDLR"  # the letters of actions 0, 1, 2, 3, as in the file of optimal walks
_DELTAS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], np.int32)


class GridState(NamedTuple):
    """Where the walker is and what it has seen."""

    position: Array  # (2,) int32 row, column
    visited: Array  # (m*m,) bool, cells in row-major order
    clock: Array  # () int32


class Outcome(NamedTuple):
    """What one step brings: nothing before the walker is home."""

    visited: Array  # (m*m,) bool
    pay: Array  # () float32, 1 - t/100 on termination, else 0


def make_resource_gathering(
    n: int | None = None, seed: int = 0, *, size: int = 5, episode_length: int | None = None
) -> tuple[Env, Population]:
    """The gridworld and its agents, agent i wanting cell i mod size^2 (cells in row-major order).

    Args:
        n: number of agents, a multiple of size^2 so that every cell is wanted equally; default one per cell.
        seed: unused, the task has no randomness.
        size: side m of the grid, at least 2.
        episode_length: steps after which an episode is cut; default 40, and 1.6 size^2 up to 99 on grids larger than 5x5.

    Returns:
        `Env` with float32 observations (row, column, visited flags) of size 2 + size^2 and 4 actions, and `Population` of n.

    Raises:
        ConfigError: `size`, `n` or `episode_length` break their rule.
    """
    del seed
    size, n, length = _check(n, size, episode_length)
    cells = size * size
    home = jnp.array([size - 1, size // 2], jnp.int32)
    deltas = jnp.asarray(_DELTAS)
    cell_numbers = jnp.arange(cells, dtype=jnp.int32)

    def observe(state: GridState) -> Array:
        return jnp.concatenate([state.position.astype(jnp.float32), state.visited.astype(jnp.float32)])

    def reset(key: Key) -> tuple[GridState, Array]:
        del key
        state = GridState(home, jnp.zeros(cells, bool), jnp.int32(0))
        return state, observe(state)

    def step(state: GridState, action: Array) -> tuple[GridState, Step]:
        position = jnp.clip(state.position + deltas[action], 0, size - 1)
        visited = state.visited | (cell_numbers == position[0] * size + position[1])
        clock = state.clock + 1
        terminated = (position == home).all()
        truncated = (clock >= length) & ~terminated
        pay = jnp.where(terminated, 1.0 - clock.astype(jnp.float32) / 100.0, 0.0)
        state = GridState(position, visited, clock)
        return state, Step(observe(state), Outcome(visited, pay), terminated, truncated)

    def reward(cell: Array, outcome: Outcome) -> Array:
        return jnp.where(outcome.visited[cell], outcome.pay, 0.0)

    spec = EnvSpec(
        name="resource_gathering",
        observation_size=2 + cells,
        action_size=4,
        discrete=True,
        episode_length=length,
        discount=1.0,
        reference_scale=100.0,
        backend="jax",
        finite_horizon=True,  # a cut walk pays nothing, so looking past the cut would teach to wander for ever
    )
    agents = jnp.arange(n, dtype=jnp.int32) % cells
    env = Env(spec, reset, step)
    population = Population(
        agents,
        reward,
        best_return=lambda agents: _best_alone(np.asarray(agents), size, length),
        columns=(Column("cell", 0, cells - 1, "row by row, from the top left"),),
    )
    if size not in SOLVED_SIZES or length != 40:
        return env, population
    return env, population._replace(
        upper_bound=lambda k: optimum(k, size)["welfare"],
        oracle_groups=lambda k: _optimal_groups(k, size)[np.arange(n) % cells],
    )


def _best_alone(wanted: np.ndarray, size: int, length: int) -> np.ndarray:
    """Return of the shortest walk to each wanted cell and home, (m,); home itself takes one move, against the wall."""
    steps = np.maximum(2 * (np.abs(wanted // size - (size - 1)) + np.abs(wanted % size - size // 2)), 1)
    return np.where(steps <= length, np.maximum(1.0 - steps / 100.0, 0.0), 0.0)


def _check(n: int | None, size: int, episode_length: int | None) -> tuple[int, int, int]:
    rule = f"a whole number from 2 to {LARGEST_SIDE}: a grid needs at least 2 x 2 cells, and far ones pay nothing"
    size = whole_number("size", size, 2, LARGEST_SIDE, rule)
    cells = size * size
    n = cells if n is None else whole_number("n", n, -LARGEST_N, LARGEST_N, f"a whole number of at most {LARGEST_N:,}")
    if n < 1 or n % cells:
        raise ConfigError(
            f"n = {n}: resource_gathering has one agent per cell, so n must be a multiple of size^2 = {cells} (try --n {cells})"
        )
    length = episode_length
    if length is None:
        length = 40 if size <= 5 else min(99, round(1.6 * cells))
    rule = "a whole number: a walk out and home takes at least 2 steps"
    return size, n, whole_number("episode_length", length, 2, INT32, rule)


def optimum(k: int, size: int = 5) -> dict[str, Any]:
    """The proved optimum of k policies on a grid of `SOLVED_SIZES`, cut at 40 steps.

    Returns:
        `welfare` in returns (0..1) and `walks`, strings of `MOVES`. More policies than cells serve nobody better.

    Raises:
        ConfigError: k is no number of policies, or the optimum of this size is not known.
    """
    k, size = whole_number("k", k), whole_number("size", size, 2, LARGEST_SIDE)
    if size not in SOLVED_SIZES:
        raise ConfigError(f"size = {size}: the optimum is known of {', '.join(map(str, SOLVED_SIZES))}; take an upper bound")
    return _table(size)[str(min(k, size * size))]


@cache
def _table(size: int) -> dict[str, Any]:
    text = resources.files("rmdp_jax.envs").joinpath(f"data/resource_gathering_{size}x{size}.json").read_text()
    return json.loads(text)["optimum"]


def cells_of_walk(walk: str, size: int = 5) -> list[tuple[int, int]]:
    """Cells (row, column) stood on after each move of a walk from home, bumps included."""
    if not isinstance(walk, str) or set(walk) - set(MOVES):
        raise ConfigError(f"walk = {shown(walk)}: must be a word of the letters {', '.join(MOVES)}")
    row, column = size - 1, size // 2
    cells = []
    for move in walk:
        down, right = _DELTAS[MOVES.index(move)].tolist()
        row, column = min(max(row + down, 0), size - 1), min(max(column + right, 0), size - 1)
        cells.append((row, column))
    return cells


def _optimal_groups(k: int, size: int) -> np.ndarray:
    """Walk that pays each cell most, (cells,) int32: every group of the proved optimum is served by its own walk."""
    walks = optimum(k, size)["walks"]
    pays = np.zeros((len(walks), size * size))
    for j, walk in enumerate(walks):
        for row, column in cells_of_walk(walk, size):
            pays[j, row * size + column] = 1 - len(walk) / 100
    return pays.argmax(0).astype(np.int32)
