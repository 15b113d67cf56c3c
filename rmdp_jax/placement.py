"""`em`: hard EM that leaves local optima by giving its policies other places.

Plain EM is K-means. It ends with policies in the wrong places, and a policy whose agents all lie where it never goes has no
gradient to get there. So now and then the k best places are chosen by facility location (`facility.py`) from what was seen:
glimpses of the k policies and of a store of what they were earlier. A place is then taken by a copy of the policy that showed
it, today's or an earlier one, which can go there because it was there. Only rewards of observed steps enter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assign import Assigner, First, Seen, Succession, best_policies, check_sizes, fixed, plain_em, shuffled_even
from rmdp_jax.errors import check
from rmdp_jax.facility import choose_places, keep_different, total
from rmdp_jax.glimpse import UNSEEN
from rmdp_jax.types import Array, Key


class Placement(NamedTuple):
    """Who is with whom, what the stored policies showed, and whether welfare still rises."""

    labels: Array  # (n,) int32
    shown: Array  # (slots, B, n) glimpses of each stored policy
    age: Array  # (slots,) float32 iteration in which it was stored, -inf of an empty slot
    peak: Array  # () welfare when it last rose
    risen: Array  # () int32 iteration of that
    moved: Array  # () int32 iteration of the last change of places


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
    patience: int = 20,
    rise: float = 0.05,
    until: float = 0.6,
    glimpses: int = 32,
    slots: int | None = None,
    store_every: int = 5,
) -> Assigner:
    """Hard EM with a choice of places; `plain_em` is without.

    After `warmup` M-steps on `first`, every agent moves to its best policy in each iteration. Then, and whenever welfare has
    not risen for `patience` iterations, the k places are chosen anew. If they promise more than the present ones, policies go
    on from whoever showed their place, and nobody moves for `patience` iterations. One policy alone (k = 1) has no choice and
    learns as it is.

    Args:
        k, n: policies and agents.
        warmup: M-steps before the first E-step.
        first: the first assignment.
        patience: iterations without a rise before places are chosen anew.
        rise: share by which welfare has to be above what it was for that to be a rise.
        until: share of the run after which places stay, so that the last copies can learn theirs.
        glimpses: environments of each policy whose stretches are looked at (B); see `rmdp_jax.glimpse`.
        slots: earlier policies that are stored; 8 for each policy but no more than 64 when not given. Those most unlike stay.
        store_every: iterations between two entries of all policies in the store.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    check_sizes(k, n)
    slots = min(8 * k, 64) if slots is None else slots
    counts = {"patience": patience, "glimpses": glimpses, "slots": slots, "store_every": store_every}
    for name, value in counts.items():
        check(name, value, isinstance(value, int) and value >= 1, "a whole number of at least 1")
    check("until", until, 0.0 <= until <= 1.0, "a share of the run, from 0 to 1")
    check("rise", rise, rise >= 0.0, "a share from 0 up")
    if k == 1:
        return plain_em(k, n, warmup=warmup, first=first)._replace(name="em")
    base = fixed(k, n, first)

    def init(key: Key) -> Placement:
        shown = jnp.zeros((slots, glimpses, n), jnp.float32)
        age = jnp.full(slots, -jnp.inf, jnp.float32)
        return Placement(base.init(key), shown, age, jnp.float32(-jnp.inf), jnp.int32(warmup), jnp.int32(warmup - patience))

    def reassign(key: Key, before: Placement, seen: Seen) -> tuple[Placement, Succession]:
        del key
        assert seen.glimpses is not None  # the trainer gives what `Assigner.glimpses` asks for
        now = seen.iteration + 1
        shown = jnp.concatenate([seen.glimpses, before.shown])
        age = jnp.concatenate([jnp.full(k, now.astype(jnp.float32)), before.age])
        free = (now >= warmup) & (now >= before.moved + patience)
        labels = jnp.where(free, best_policies(seen.utility, before.labels), before.labels)
        welfare = seen.utility[labels, jnp.arange(n)].mean()
        rises = (now < warmup) | (welfare > before.peak + rise * jnp.abs(before.peak))
        stalls = ~rises & (now >= before.risen + patience)
        due = free & (stalls | (now == warmup)) & (seen.progress <= until)
        move = _choose(k, shown, age, labels, jnp.where(due, 2 * k, 0))
        kept = _store(shown, age, slots, now % store_every == 0)
        return (
            Placement(
                labels=jnp.where(move.gains, move.labels, labels),
                shown=shown[kept],
                age=age[kept],
                peak=jnp.where(move.gains, -jnp.inf, jnp.where(rises, welfare, before.peak)),
                risen=jnp.where(rises | due, now, before.risen),
                moved=jnp.where(move.gains, now, before.moved),
            ),
            Succession(jnp.where(move.gains, move.parents, jnp.arange(k, dtype=jnp.int32)), kept),
        )

    return base._replace(
        name="em",
        glimpses=glimpses,
        slots=slots,
        options={"warmup": warmup, "first": first.__name__, "rise": rise, "until": until, **counts},
        init=init,
        weights=lambda placement: base.weights(placement.labels),
        descend=lambda gradient, placement: placement,
        reassign=reassign,
    )


def _choose(k: int, shown: Array, age: Array, labels: Array, rounds: Array) -> Move:
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

    def best_of(makers: Array, member: Array, returns: Array) -> Array:
        own = maker[None] == makers[:, None]
        worth = jnp.where(own, jnp.matmul(member, returns.T, precision="highest"), -jnp.inf)
        return worth.argmax(1).astype(jnp.int32)

    def groups(labels: Array) -> Array:
        return jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32)

    returns, seen = flatten(search)
    tested, _ = flatten(test)
    index = jnp.arange(k, dtype=jnp.int32)
    present = best_of(index, groups(labels), returns)
    places = choose_places(returns, seen, present, rounds)
    places = places[_slots_for(maker[places], k)]
    parents = maker[places]
    moved = best_policies(returns[places], labels)
    promised = total(tested, best_of(parents, groups(moved), tested))
    held = total(tested, best_of(index, groups(labels), tested))
    return Move((rounds > 0) & (promised > held), moved, parents)


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
    different = keep_different(jnp.where(shown > UNSEEN, shown, 0.0).mean(1), age, slots, jnp.where(storing, k, 0))
    return jnp.where(storing, different, jnp.arange(k, k + slots, dtype=jnp.int32))
