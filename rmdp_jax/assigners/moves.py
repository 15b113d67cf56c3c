"""Moves: which policy takes which of the best places, chosen by facility location (`facility.py`) from what was seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.base import Seen, best_policies
from rmdp_jax.assigners.facility import choose_places, total
from rmdp_jax.assigners.neighbours import Crowd, follow_nearest
from rmdp_jax.glimpse import UNSEEN
from rmdp_jax.types import Array


class Move(NamedTuple):
    """Whether and how policies take other places."""

    gains: Array  # () bool
    labels: Array  # (n,)
    parents: Array  # (k,) policy, or k + row of the library, that each policy goes on from


def choose_move(k: int, shown: Array, age: Array, labels: Array, rounds: Array) -> Move:
    """Search for better places in `rounds` swaps; all but free when that is 0.

    Places are searched on every other glimpse and judged on the rest, present ones and others by the same ruler: what a policy
    showed at its best for the agents it would serve. A single lucky glimpse is therefore no reason to move.
    """
    rows, number, n = shown.shape
    half = number // 2 if number > 1 else 1
    search, test = (shown[:, start::2][:, :half] if number > 1 else shown for start in (0, 1))
    maker = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), half)

    def flatten(some: Array) -> tuple[Array, Array]:
        returns = some.reshape(rows * half, n)
        seen = jnp.isfinite(age)[maker] & (returns > UNSEEN).all(1)
        return jnp.where(seen[:, None], returns, 0.0), seen

    def best_of(makers: Array, member: Array, returns: Array, seen: Array) -> Array:
        own = maker[None] == makers[:, None]
        worth = jnp.where(seen, jnp.matmul(member, returns.T, precision="highest"), UNSEEN)
        return jnp.where(own, worth, -jnp.inf).argmax(1).astype(jnp.int32)

    def groups(labels: Array) -> Array:
        return jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32)

    returns, seen = flatten(search)
    tested, shown_again = flatten(test)
    index = jnp.arange(k, dtype=jnp.int32)
    present = best_of(index, groups(labels), returns, seen)
    places = choose_places(returns, seen, present, rounds)
    places = places[_slots_for(maker[places], k)]
    parents = maker[places]
    moved = best_policies(returns[places], labels)
    others = best_of(parents, groups(moved), tested, shown_again)
    ours = best_of(index, groups(labels), tested, shown_again)
    known = shown_again[others].all() & shown_again[ours].all()  # who has just come to a place is left there
    return Move((rounds > 0) & known & (total(tested, others) > total(tested, ours)), moved, parents)


def _slots_for(makers: Array, k: int) -> Array:
    """Order (k,) of places in which a policy that showed one keeps its own index; copies take the indices left over."""
    index = jnp.arange(k, dtype=jnp.int32)
    earlier = jnp.tril(makers[:, None] == makers[None], -1).any(1)
    goes_on = (makers < k) & ~earlier
    taken = ((index[:, None] == makers[None]) & goes_on[None]).any(1)
    left_over = jnp.argsort(taken, stable=True).astype(jnp.int32)
    rank = jnp.cumsum(~goes_on, dtype=jnp.int32) - 1
    slot = jnp.where(goes_on, makers, left_over[jnp.maximum(rank, 0)])
    return jnp.zeros(k, jnp.int32).at[slot].set(index)


def move_all(crowd: Crowd, move: Move, labels: Array, seen: Seen) -> Move:
    """What the move of the watched agents means for everybody, labels (n,); no move where a policy would have nobody."""
    taken = jnp.zeros(seen.utility.shape[0], bool).at[move.labels].set(True).all()
    table = seen.utility if seen.stored is None else jnp.concatenate([seen.utility, seen.stored])
    gains = move.gains & taken
    return move._replace(gains=gains, labels=follow_nearest(crowd, move.labels, labels, table, gains))
