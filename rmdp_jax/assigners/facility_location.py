"""Facility location: which k of M facilities (behaviours) serve n agents best, each agent by the one that is best for it.

f(S) = sum_i max_{c in S} returns[c, i] is monotone and submodular, so greedy choice is within 1 - 1/e of the best (Nemhauser,
Wolsey & Fisher, 1978), and single swaps improve it until no swap does. Some facilities may be held: they stand already, and
only the other places are chosen, by what they add.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.types import Array


def total(returns: Array, chosen: Array) -> Array:
    """f of the `chosen` (k,) rows of returns (M, n), ()."""
    return returns[chosen].max(0).sum()


NONE_HELD = np.zeros(0, np.int32)


def greedy(returns: Array, valid: Array, k: int, rounds: Array | int, held: Array | np.ndarray = NONE_HELD) -> Array:
    """Rows (k,) int32 chosen one after another, each the best addition to those before.

    Args:
        returns: (M, n).
        valid: (M,) bool, rows that may be chosen.
        k: how many.
        rounds: k, or 0 to choose nothing: a traced 0 costs nothing even under `vmap`.
        held: (h,) int32, h <= k, rows that are the first of the chosen in any case, valid or not.
    """

    def add(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, best = carry
        with_one_more = jnp.where(valid, jnp.maximum(returns, best).sum(1), -jnp.inf)
        new = with_one_more.argmax().astype(jnp.int32)
        return chosen.at[j].set(new), jnp.maximum(best, returns[new][None])

    number = held.shape[0]
    lowest = jnp.full((1, returns.shape[1]), jnp.finfo(returns.dtype).min / returns.shape[1])
    best = jnp.concatenate([lowest, returns[held]]).max(0, keepdims=True)
    chosen = jnp.concatenate([held, jnp.zeros(k - number, jnp.int32)])
    return jax.lax.fori_loop(number, rounds, add, (chosen, best))[0]


def swap_until_best(returns: Array, valid: Array, chosen: Array, rounds: Array | int, held: int = 0) -> Array:
    """`chosen` (k,) after up to `rounds` best single swaps, each of which raises f; see `greedy` for the arguments.

    The first `held` of the chosen are not swapped.
    """
    k = chosen.shape[0]
    may_go = (np.arange(k) >= held)[:, None]
    others = ~jnp.eye(k, dtype=bool)[:, :, None]
    lowest = jnp.finfo(returns.dtype).min / returns.shape[1]

    class Search(NamedTuple):
        chosen: Array
        value: Array
        improved: Array
        round: Array

    def swap(search: Search) -> Search:
        without = jnp.where(others, returns[search.chosen][None], lowest).max(1)  # (k, n), the best of the rest
        values = jax.lax.map(lambda best: jnp.maximum(returns, best[None]).sum(1), without)  # (k, M)
        values = jnp.where(valid[None] & may_go, values, -jnp.inf)
        out, into = jnp.unravel_index(values.argmax(), values.shape)
        improved = values.max() > search.value + 1e-6 * jnp.abs(search.value)
        swapped = search.chosen.at[out].set(into.astype(jnp.int32))
        chosen = jnp.where(improved, swapped, search.chosen)
        return Search(chosen, jnp.where(improved, values.max(), search.value), improved, search.round + 1)

    start = Search(chosen, total(returns, chosen), jnp.bool_(True), jnp.int32(0))
    return jax.lax.while_loop(lambda search: search.improved & (search.round < rounds), swap, start).chosen


def choose_facilities(returns: Array, valid: Array, start: Array, rounds: Array | int, held: int = 0) -> Array:
    """The better of two searches, from `start` (k,) and from a greedy choice, each with up to `rounds` swaps.

    The first `held` of `start` are among the chosen in any case, in their places.
    """
    k = start.shape[0]
    from_greedy = greedy(returns, valid, k, jnp.minimum(rounds, k), start[:held])
    ends = [swap_until_best(returns, valid, chosen, rounds, held) for chosen in (start, from_greedy)]
    return jnp.where(total(returns, ends[1]) > total(returns, ends[0]), ends[1], ends[0])


def keep_diverse(returns: Array, archived_at: Array, keep: int, rounds: Array | int) -> Array:
    """Which rows (keep,) of M stay in an archive: `rounds` = M - keep times the older of the two most similar ones goes.

    Args:
        returns: (M, n).
        archived_at: (M,) float32 iteration; -inf marks an empty row, which goes first.
        keep: rows that stay.
        rounds: M - keep, or 0 to skip: the first `keep` rows are returned.
    """
    rows = returns.shape[0]
    returns = returns - returns.mean(0, keepdims=True)  # centred, against cancellation in the distances
    squares = jnp.square(returns).sum(1)
    distance = squares[:, None] + squares[None] - 2.0 * jnp.matmul(returns, returns.T, precision="highest")
    distance = jnp.where(jnp.eye(rows, dtype=bool), jnp.inf, distance)
    empty = jnp.isneginf(archived_at)

    def drop(_: Array, alive: Array) -> Array:
        between = jnp.where(alive[:, None] & alive[None], distance, jnp.inf)
        one, other = jnp.unravel_index(between.argmin(), between.shape)
        older = jnp.where(archived_at[one] < archived_at[other], one, other)
        gone = jnp.where((empty & alive).any(), (empty & alive).argmax(), older)
        return alive.at[gone].set(False)

    alive = jax.lax.fori_loop(0, rounds, drop, jnp.ones(rows, bool))
    return jnp.argsort(~alive, stable=True)[:keep].astype(jnp.int32)
