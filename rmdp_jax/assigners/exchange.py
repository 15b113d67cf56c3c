"""The best assignment within limits, inside a compiled program: agents change places as long as all together gain by it.

From any assignment that holds the limits, a cycle of moves (one agent from policy a to b, one from b to c, ..., one back to a)
leaves all loads as they are; a chain whose two ends have room changes only theirs, and is a cycle by way of a further node for
the room that is left. Where no cycle gains anything the assignment is the best there is (Klein, 1967, for minimum cost flows,
which this transportation problem is one of). So every assignment on the way holds the limits and none is worse than the one
before: a search that is cut short has lost only what was still to be gained, and goes on in the next E-step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assigners.moves import best_by_moves
from rmdp_jax.limits import Loads
from rmdp_jax.types import Array

MOST_CYCLES = 300  # of one E-step
TOLERANCE = 1e-6  # of the largest utility: what a cycle has to gain, so that rounding moves nobody


def best_within(utility: Array, labels: Array, limits: Loads) -> Array:
    """Labels (n,) int32 within limits that make the sum of utilities (k, n) largest, but for `TOLERANCE` and `MOST_CYCLES`.

    Agents with ties stay where labels (n,) have them, if those hold the limits. Of agents with different weights it is the end
    of a local search, `best_by_moves`.
    """
    if limits.weights is not None:
        return best_by_moves(utility, labels, limits)
    least = TOLERANCE * jnp.abs(utility).max()
    start = jnp.where(_hold(labels, limits), labels, _filled(limits, labels.size))

    def gains(state: tuple[Array, _Cycle, Array]) -> Array:
        return state[1].gains & (state[2] < MOST_CYCLES)

    def exchange(state: tuple[Array, _Cycle, Array]) -> tuple[Array, _Cycle, Array]:
        labels, cycle, number = state
        labels = _moved(utility, labels, cycle, least)
        return labels, _best_cycle(utility, labels, limits, least), number + 1

    state = (start, _best_cycle(utility, start, limits, least), jnp.int32(0))
    return jax.lax.while_loop(gains, exchange, state)[0]


def nearest_within(labels: Array, limits: Loads) -> Array:
    """Labels (n,) within limits, as few as can be other than `labels` (with different weights few)."""
    wanted = jax.nn.one_hot(labels, len(limits.at_most), axis=0, dtype=jnp.float32)
    return best_within(wanted, labels, limits)


class _Cycle(NamedTuple):
    gains: Array  # () bool
    goes_to: Array  # (k,) int32, the policy that one agent of each moves to; its own where nobody moves
    most: Array  # () int32, how often it can be gone round before the room at its ends is full


def _loads(labels: Array, k: int) -> Array:
    return jnp.zeros(k, jnp.int32).at[labels].add(1)


def _hold(labels: Array, limits: Loads) -> Array:
    loads = _loads(labels, len(limits.at_most))
    return ((loads >= np.array(limits.at_least, np.int32)) & (loads <= np.array(limits.at_most, np.int32))).all()


def _filled(limits: Loads, n: int) -> np.ndarray:
    """Some labels (n,) within limits."""
    low, high = np.array(limits.at_least), np.array(limits.at_most)
    room = np.cumsum(high - low)
    more = np.diff(np.minimum(room, n - low.sum()), prepend=0)
    return np.repeat(np.arange(len(low), dtype=np.int32), low + more)


def _best_cycle(utility: Array, labels: Array, limits: Loads, least: Array) -> _Cycle:
    """A cycle that gains more than `least`, found by Bellman and Ford's relaxations, or none."""
    k = utility.shape[0]
    loads = _loads(labels, k)
    spare, room = loads - np.array(limits.at_least, np.int32), np.array(limits.at_most, np.int32) - loads
    own = utility[labels, jnp.arange(labels.size)]
    loss = jax.ops.segment_min(
        (own[None] - utility).T, labels, k
    )  # (k, k), of the agent that loses least by moving from j to l
    loss = jnp.where(jnp.eye(k, dtype=bool), jnp.inf, loss)
    loss = jnp.pad(loss, ((0, 1), (0, 1)), constant_values=jnp.inf)  # and the node of the room that is left
    loss = loss.at[:k, k].set(jnp.where(room > 0, 0.0, jnp.inf)).at[k, :k].set(jnp.where(spare > 0, 0.0, jnp.inf))

    def relax(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        reached, before, _, rounds = state
        through = reached[:, None] + loss
        lower = through.min(0) < reached - least / (k + 1)
        before = jnp.where(lower, through.argmin(0).astype(jnp.int32), before)
        return jnp.where(lower, through.min(0), reached), before, lower, rounds + 1

    nodes = jnp.arange(k + 1, dtype=jnp.int32)
    state = (jnp.zeros(k + 1, utility.dtype), nodes, jnp.ones(k + 1, bool), jnp.int32(0))
    state = jax.lax.while_loop(lambda state: state[2].any() & (state[3] <= k), relax, state)
    before, lower = state[1], state[2]
    inside = jax.lax.fori_loop(0, k + 1, lambda _, node: before[node], lower.argmax().astype(jnp.int32))

    def follow(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        node, goes_to = state
        return before[node], goes_to.at[before[node]].set(node)

    goes_to = jax.lax.fori_loop(0, k + 1, follow, (inside, nodes))[1]
    on = goes_to != nodes
    total = jnp.where(on, loss[nodes, goes_to], 0.0).sum()
    first = goes_to[k]  # gives an agent away, where the cycle goes by way of the room that is left
    last = before[k]
    ends = jnp.minimum(spare[jnp.minimum(first, k - 1)], room[jnp.minimum(last, k - 1)])
    most = jnp.where(on[k], ends, labels.size)
    between = jnp.where((goes_to == k)[:k], nodes[:k], goes_to[:k])
    return _Cycle(on.any() & (total < -least), between, most)


def _moved(utility: Array, labels: Array, cycle: _Cycle, least: Array) -> Array:
    """The labels after the cycle was gone round as often as it gains, each time with those who lose least."""
    k, n = utility.shape
    agents, to = jnp.arange(n), cycle.goes_to[labels]
    loss = utility[labels, agents] - utility[to, agents]
    order = jnp.argsort(loss)
    place = jax.nn.one_hot(labels[order], k, axis=0, dtype=jnp.int32)  # (k, n)
    rank = (jnp.cumsum(place, 1) * place).sum(0) - 1  # of each agent within its policy
    rank = jnp.zeros(n, jnp.int32).at[order].set(rank)
    moves = to != labels
    number = jnp.zeros(n, jnp.int32).at[rank].add(moves.astype(jnp.int32))
    total = jnp.zeros(n, utility.dtype).at[rank].add(jnp.where(moves, loss, 0.0))
    edges = (cycle.goes_to != jnp.arange(k, dtype=jnp.int32)).sum()
    often = jnp.minimum(((number == edges) & (total < -least)).sum(dtype=jnp.int32), cycle.most)
    return jnp.where(moves & (rank < often), to, labels)
