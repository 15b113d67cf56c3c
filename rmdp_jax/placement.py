"""`em`: hard EM that leaves local optima by giving its policies other places.

Plain EM is K-means. It ends with policies in the wrong places, and a policy whose agents all lie where it never goes has no
gradient to get there. So now and then the k best places are chosen by facility location (`facility.py`) from what was seen:
glimpses of the k policies and of a store of what they were earlier. A place is then taken by a copy of the policy that showed
it, today's or an earlier one, which can go there because it was there. Only rewards of observed steps enter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assign import Assigner, First, Seen, Succession, best_policies, fixed, shuffled_even
from rmdp_jax.errors import check
from rmdp_jax.facility import choose_places, keep_different, total
from rmdp_jax.types import Array, Key


class Placement(NamedTuple):
    """Who is with whom, and what the stored policies showed."""

    labels: Array  # (n,) int32
    shown: Array  # (slots, B, n) glimpses of each stored policy
    age: Array  # (slots,) float32 iteration in which it was stored, -inf of an empty slot
    held_until: Array  # () int32 iteration before which nobody moves, so that copies can learn their places


class Move(NamedTuple):
    """Whether and how policies take other places."""

    gains: Array  # () bool
    labels: Array  # (n,)
    parents: Array  # (k,) policy, or k + slot of the store, that each policy goes on from


def em(
    k: int,
    n: int,
    *,
    warmup: int = 50,
    first: First = shuffled_even,
    every: int = 20,
    until: float = 0.6,
    margin: float = 0.02,
    glimpses: int = 8,
    slots: int | None = None,
    store_every: int = 5,
) -> Assigner:
    """Hard EM with a choice of places; `plain_em` is without.

    After `warmup` M-steps on `first`, every agent moves to its best policy in each iteration. Every `every` iterations the k
    places are chosen anew. If they promise more than the present ones, by more than `margin`, policies go on from whoever
    showed their place, and nobody moves for `every` iterations.

    Args:
        k, n: policies and agents.
        warmup: M-steps before the first E-step and the first choice of places.
        first: the first assignment.
        every: iterations between two choices of places.
        until: share of the run after which places stay, so that the last copies can learn theirs.
        margin: share by which a choice has to be better.
        glimpses: environments of each policy whose stretches are looked at (B); see `rmdp_jax.glimpse`.
        slots: earlier policies that are stored; 8 for each policy but no more than 64 when not given. Those most unlike stay.
        store_every: iterations between two entries of all policies in the store.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    slots = min(8 * k, 64) if slots is None else slots
    for name, value in {"every": every, "store_every": store_every, "glimpses": glimpses, "slots": slots}.items():
        check(name, value, value >= 1, "a whole number of at least 1")
    check("until", until, 0.0 <= until <= 1.0, "a share of the run, from 0 to 1")
    base = fixed(k, n, first)

    def init(key: Key) -> Placement:
        shown = jnp.zeros((slots, glimpses, n), jnp.float32)
        return Placement(base.init(key), shown, jnp.full(slots, -jnp.inf, jnp.float32), jnp.int32(warmup))

    def reassign(key: Key, before: Placement, seen: Seen) -> tuple[Placement, Succession]:
        del key
        now = seen.iteration + 1
        assert seen.glimpses is not None  # the trainer gives what `Assigner.glimpses` asks for
        shown = jnp.concatenate([seen.glimpses, before.shown])
        age = jnp.concatenate([jnp.full(k, now.astype(jnp.float32)), before.age])
        due = (now >= warmup) & ((now - warmup) % every == 0) & (seen.progress <= until)
        move = _choose(k, shown, age, before.labels, jnp.where(due, 2 * k, 0), margin)
        kept = _store(shown, age, slots, now % store_every == 0)
        settled = jnp.where(now >= before.held_until, best_policies(seen.utility, before.labels), before.labels)
        return (
            Placement(
                labels=jnp.where(move.gains, move.labels, settled),
                shown=shown[kept],
                age=age[kept],
                held_until=jnp.where(move.gains, now + every, before.held_until),
            ),
            Succession(jnp.where(move.gains, move.parents, jnp.arange(k, dtype=jnp.int32)), kept),
        )

    return base._replace(
        name="em",
        glimpses=glimpses,
        slots=slots,
        init=init,
        weights=lambda placement: base.weights(placement.labels),
        descend=lambda gradient, placement: placement,
        reassign=reassign,
    )


def _choose(k: int, shown: Array, age: Array, labels: Array, rounds: Array, margin: float) -> Move:
    """Search for better places in `rounds` swaps; all but free when that is 0.

    Present places and others are judged by the same ruler, glimpses: the present one of a policy is its best for its group.
    """
    rows, number, n = shown.shape
    returns = shown.reshape(rows * number, n)
    maker = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), number)
    member = jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32)
    for_group = jnp.where(maker[None] == jnp.arange(k, dtype=jnp.int32)[:, None], member @ returns.T, -jnp.inf)
    present = for_group.argmax(1).astype(jnp.int32)
    places = choose_places(returns, jnp.isfinite(age)[maker], present, rounds)
    places = places[_slots_for(maker[places], k)]
    worth = total(returns, present)
    gains = (rounds > 0) & (total(returns, places) > worth + margin * jnp.abs(worth))
    return Move(gains, best_policies(returns[places], labels), maker[places])


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


def _store(shown: Array, age: Array, slots: int, storing: Array) -> Array:
    """Which rows (slots,) of the k policies and the store are stored from now on."""
    k = age.shape[0] - slots
    different = keep_different(shown.mean(1), age, slots, jnp.where(storing, k, 0))
    return jnp.where(storing, different, jnp.arange(k, k + slots, dtype=jnp.int32))
