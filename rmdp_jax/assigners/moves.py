"""A good assignment within limits by weight, inside a compiled program.

Agents of different weights make the best assignment NP-hard to find (generalised assignment), so this is a local search: from
labels that hold the limits, again and again the one agent moves, or the two agents change places, by which all together gain
most. Every assignment on the way holds the limits, and none is worse than the one before. A run ends with the best there is,
by `rmdp_jax.limits.search_within`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.limits import Loads
from rmdp_jax.types import Array

MOST_MOVES = 300  # of one E-step
TOLERANCE = 1e-6  # of the largest utility: what a move has to gain, so that rounding moves nobody


def best_by_moves(utility: Array, labels: Array, limits: Loads) -> Array:
    """Labels (n,) int32 within limits whose sum of utilities (k, n) no single move and no change of two raises.

    Each agent has its best policy where these hold the limits; else the search begins with `labels`, if they do.
    """
    assert limits.weights is not None
    assert limits.start is not None
    k, n = utility.shape
    weights, start = np.array(limits.weights, np.int32), np.array(limits.start, np.int32)
    low, high = jnp.array(limits.at_least, jnp.int32), jnp.array(limits.at_most, jnp.int32)
    agents, policies = jnp.arange(n), jnp.arange(k, dtype=jnp.int32)
    least = TOLERANCE * jnp.abs(utility).max()

    def loads_of(labels: Array) -> Array:
        return jnp.zeros(k, jnp.int32).at[labels].add(weights)

    def hold(labels: Array) -> Array:
        loads = loads_of(labels)
        return ((loads >= low) & (loads <= high)).all()

    def gains_of(labels: Array) -> tuple[Array, Array]:
        """What each move (k, n) and each change of two agents (n, n) gains; -inf where that breaks a limit."""
        loads = loads_of(labels)
        gain = utility - utility[labels, agents][None]
        fits = (loads[:, None] + weights[None] <= high[:, None]) & (loads[labels] - weights >= low[labels])[None]
        moves = jnp.where(fits & (policies[:, None] != labels[None]), gain, -jnp.inf)
        theirs = gain[labels]  # (n, n), of the second agent with the policy of the first
        after = (loads[labels] - weights)[:, None] + weights[None]  # load of the first's policy once the second is there
        fits = (after <= high[labels][:, None]) & (after >= low[labels][:, None])
        changes = jnp.where(fits & fits.T & (labels[:, None] != labels[None]), theirs + theirs.T, -jnp.inf)
        return moves, changes

    def move(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        labels, _, number = state
        moves, changes = gains_of(labels)
        to, one = jnp.unravel_index(moves.argmax(), moves.shape)
        first, second = jnp.unravel_index(changes.argmax(), changes.shape)
        changed = labels.at[first].set(labels[second]).at[second].set(labels[first])
        better = jnp.where(moves.max() >= changes.max(), labels.at[one].set(to.astype(jnp.int32)), changed)
        gains = jnp.maximum(moves.max(), changes.max()) > least
        return jnp.where(gains, better, labels), gains, number + 1

    best = jnp.where(utility.max(0) > utility[labels, agents], utility.argmax(0).astype(jnp.int32), labels)
    begin = jnp.where(hold(best), best, jnp.where(hold(labels), labels, start))
    state = (begin, jnp.bool_(True), jnp.int32(0))
    return jax.lax.while_loop(lambda state: state[1] & (state[2] < MOST_MOVES), move, state)[0]
