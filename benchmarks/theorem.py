"""Theorem 1 by exact steps: welfare at every half step on random MDPs; how often 3x3 Resource Gathering is solved."""

import itertools
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import emit, machine, read_arguments, show
from rmdp_jax.envs.resource_gathering_tabular import exact_optimum, planning_mdp
from rmdp_jax.evaluation.tabular import Solution, TabularMDP, deterministic, discounted, solve_restarts
from rmdp_jax.types import Array, Key

SHAPES = [(6, 3, 6, 3), (4, 2, 6, 2), (3, 3, 4, 1), (5, 2, 12, 4)]  # states, actions, agents, policies
DISCOUNTS = (0.0, 0.5, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class Theorem:
    """Everything in float64; returns of random MDPs are of the order of 1/(1 - discount), of Resource Gathering below 1."""

    mdps: int = 1000
    """Random MDPs of each shape."""
    restarts: int = 8
    """Random first assignments of each of them."""
    gathering_restarts: int = 1000
    """Random first assignments on 3x3 Resource Gathering, for each k."""
    seed: int = 0
    quick: bool = False
    """50 MDPs of one shape, 100 restarts on Resource Gathering."""


def draw(seed: int, shape: tuple[int, int, int, int], mdps: int) -> TabularMDP:
    """Random MDPs, leaves (mdps, ...): Dirichlet transitions; normal rewards, rounded (full of ties) in every other MDP."""
    states, actions, n, _ = shape
    rng = np.random.default_rng((seed, *shape))
    reward = rng.normal(size=(mdps, n, states, actions))
    reward[::2] = reward[::2].round()
    transition = rng.dirichlet(np.full(states, 0.3), (mdps, states, actions))
    start = rng.dirichlet(np.ones(states), mdps)
    return TabularMDP(*(jnp.asarray(leaf) for leaf in (transition, reward, start, rng.choice(DISCOUNTS, mdps))))


def gain_left(mdp: TabularMDP, found: Solution) -> Array:
    """Most summed return that one other policy for its group, or one move of an agent, would still bring; restarts (r,)."""
    states, actions = mdp.reward.shape[1:]
    policies = jnp.array(list(itertools.product(range(actions), repeat=states)), jnp.int32)
    returns = jax.vmap(discounted(mdp).evaluate)(policies)  # (p, n), all there are

    def of_one(labels: Array, utility: Array) -> Array:
        member = jax.nn.one_hot(labels, utility.shape[0], dtype=utility.dtype)  # (n, k)
        by_policy = (returns @ member).max(0) - (utility.T * member).sum(0)
        by_move = utility.max(0) - (utility.T * member).sum(1)
        return jnp.maximum(by_policy.max(), by_move.max())

    return jax.vmap(of_one)(found.labels, found.utility)


@partial(jax.jit, static_argnames=("k",))
def solve_all(mdps: TabularMDP, k: int, keys: Key) -> tuple[Solution, Array]:
    """Solutions of MDPs, leaves (mdps, restarts, ...), and what each leaves to be gained (mdps, restarts)."""

    def one(mdp: TabularMDP, keys: Key) -> tuple[Solution, Array]:
        found = solve_restarts(discounted, mdp, k, keys)
        return found, gain_left(mdp, found)

    return jax.vmap(one)(mdps, keys)


def half_steps(found: Solution) -> dict[str, Any]:
    """What the half steps of many solutions did to welfare."""
    return {
        "half_steps": int(found.half_steps.sum()),
        "worst_fall": float(np.maximum(0.0, (found.welfare[..., :-1] - found.welfare[..., 1:]).max())),  # NaN stays NaN
        "most_half_steps": int(found.half_steps.max()),
        "share_fixed_points": float(found.fixed.mean()),
    }


def random_mdps(arguments: Theorem, shape: tuple[int, int, int, int], mdps: int) -> dict[str, Any]:
    """One line: random MDPs of one shape."""
    begun = time.perf_counter()
    drawn = draw(arguments.seed, shape, mdps)
    keys = jax.random.split(jax.random.key(arguments.seed), (mdps, arguments.restarts))
    found, gain = jax.tree.map(np.asarray, solve_all(drawn, shape[3], keys))
    return {
        "benchmark": "theorem",
        "experiment": "random_mdps",
        **dict(zip(("states", "actions", "n", "k"), shape, strict=True)),
        "mdps": mdps,
        "restarts": arguments.restarts,
        **half_steps(found),
        "most_gain_left": float(np.maximum(0.0, gain.max())),
        "wall_s": round(time.perf_counter() - begun, 2),
        **machine(),
    }


def gathering(arguments: Theorem, k: int, restarts: int) -> dict[str, Any]:
    """One line: restarts on 3x3 Resource Gathering against the proved optimum, x100."""
    begun = time.perf_counter()
    keys = jax.random.split(jax.random.key(arguments.seed), restarts)
    found = jax.tree.map(np.asarray, solve_restarts(deterministic, planning_mdp(3), k, keys))
    final, optimum = 100 * found.welfare[:, -1], 100 * exact_optimum(3, k)["welfare"]
    return {
        "benchmark": "theorem",
        "experiment": "resource_gathering_3x3",
        "n": 9,
        "k": k,
        "restarts": restarts,
        **half_steps(found),
        "optimum": round(optimum, 3),
        "welfare_best": round(float(final.max()), 3),
        "welfare_mean": round(float(final.mean()), 3),
        "share_at_optimum": float((final > optimum - 1e-6).mean()),
        "wall_s": round(time.perf_counter() - begun, 2),
        **machine(),
    }


def main() -> None:
    """One line an experiment, then two tables."""
    arguments = read_arguments(Theorem, __doc__)
    shapes = SHAPES[:1] if arguments.quick else SHAPES
    mdps, restarts = (50, 100) if arguments.quick else (arguments.mdps, arguments.gathering_restarts)
    with jax.enable_x64(True):
        lines = []
        for shape in shapes:
            lines.append(random_mdps(arguments, shape, mdps))
            emit(lines[-1])
        walks = []
        for k in range(1, 5):
            walks.append(gathering(arguments, k, restarts))
            emit(walks[-1])
    names = ["states", "actions", "n", "k", "mdps", "half_steps", "most_half_steps", "worst_fall", "most_gain_left", "wall_s"]
    columns = ["s", "a", "n", "k", "MDPs", "halves", "most", "fall", "gain", "sec"]
    title = f"Random MDPs, {arguments.restarts} runs each: half steps, worst fall of welfare, most to gain"
    show(title, columns, table(lines, names))
    names = [
        "k",
        "restarts",
        "half_steps",
        "worst_fall",
        "optimum",
        "welfare_best",
        "welfare_mean",
        "share_at_optimum",
        "wall_s",
    ]
    columns = ["k", "runs", "halves", "fall", "proved", "best", "mean", "share", "sec"]
    show("3x3 Resource Gathering, welfare x100, share of runs at the optimum", columns, table(walks, names))


def table(lines: list[dict[str, Any]], names: list[str]) -> list[list[Any]]:
    """Rows for `show`; differences that ought to be 0 by their order of magnitude."""
    tiny = ("worst_fall", "most_gain_left")
    return [[f"{line[name]:.0e}" if name in tiny else line[name] for name in names] for line in lines]


if __name__ == "__main__":
    main()
