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
from rmdp_jax.glimpse import UNSEEN, watched_agents
from rmdp_jax.neighbours import Crowd, follow_nearest
from rmdp_jax.types import Array, Key


class Rules(NamedTuple):
    """Settings of `em`, under the same names."""

    warmup: int
    every: int
    until: float
    glimpses: int
    slots: int
    store_every: int


class Placement(NamedTuple):
    """Who is with whom, and what the stored policies showed."""

    labels: Array  # (n,) int32
    shown: Array  # (slots, B, m) glimpses of each stored policy
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
    glimpses: int = 32,
    slots: int | None = None,
    store_every: int = 5,
) -> Assigner:
    """Hard EM with a choice of places; `plain_em` is without.

    After `warmup` M-steps on `first`, every agent moves to its best policy in each iteration. Then, and every `every`
    iterations, the k places are chosen anew. If they promise more than the present ones, policies go on from whoever showed
    their place, and nobody moves until the next choice. One policy alone (k = 1) has no choice and learns as it is.

    Args:
        k, n: policies and agents.
        warmup: M-steps before the first E-step and the first choice of places.
        first: the first assignment.
        every: iterations between two choices of places.
        until: share of the run after which places stay, so that the last copies can learn theirs.
        glimpses: environments of each policy whose stretches are looked at (B); see `rmdp_jax.glimpse`.
        slots: earlier policies that are stored; 8 for each policy but no more than 64 when not given. Those most unlike stay.
        store_every: iterations between two entries of all policies in the store.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    check_sizes(k, n)
    rules = Rules(warmup, every, until, glimpses, min(8 * k, 64) if slots is None else slots, store_every)
    for name in ("every", "glimpses", "slots", "store_every"):
        value = getattr(rules, name)
        check(name, value, isinstance(value, int) and value >= 1, "a whole number of at least 1")
    check("until", until, 0.0 <= until <= 1.0, "a share of the run, from 0 to 1")
    if k == 1:
        return plain_em(k, n, warmup=warmup, first=first)._replace(name="em")
    base, watched = fixed(k, n, first), watched_agents(n)
    crowd = None if watched is None else Crowd(watched, n)
    m = n if watched is None else len(watched)

    def init(key: Key) -> Placement:
        shown = jnp.zeros((rules.slots, glimpses, m), jnp.float32)
        return Placement(base.init(key), shown, jnp.full(rules.slots, -jnp.inf, jnp.float32), jnp.int32(warmup))

    return base._replace(
        name="em",
        glimpses=glimpses,
        watched=watched,
        slots=rules.slots,
        options={"first": first.__name__, **rules._asdict()},
        init=init,
        weights=lambda placement: base.weights(placement.labels),
        descend=lambda gradient, placement: placement,
        reassign=lambda key, placement, seen: _reassign(rules, crowd, placement, seen),
    )


def _reassign(rules: Rules, crowd: Crowd | None, before: Placement, seen: Seen) -> tuple[Placement, Succession]:
    """The E-step, then a choice of places where one is due."""
    assert seen.glimpses is not None  # the trainer gives what `Assigner.glimpses` asks for
    k, now = seen.utility.shape[0], seen.iteration + 1
    shown = jnp.concatenate([seen.glimpses, before.shown])
    age = jnp.concatenate([jnp.full(k, now.astype(jnp.float32)), before.age])
    labels = jnp.where(now >= before.held_until, best_policies(seen.utility, before.labels), before.labels)
    due = (now >= rules.warmup) & ((now - rules.warmup) % rules.every == 0) & (seen.progress <= rules.until)
    move = _choose(k, shown, age, labels if crowd is None else labels[crowd.watched], jnp.where(due, 2 * k, 0))
    if crowd is not None:
        move = _for_all(crowd, move, labels, seen)
    kept = _store(shown, age, rules.slots, now % rules.store_every == 0)
    return (
        Placement(
            labels=jnp.where(move.gains, move.labels, labels),
            shown=shown[kept],
            age=age[kept],
            held_until=jnp.where(move.gains, now + rules.every, before.held_until),
        ),
        Succession(jnp.where(move.gains, move.parents, jnp.arange(k, dtype=jnp.int32)), kept),
    )


def _for_all(crowd: Crowd, move: Move, labels: Array, seen: Seen) -> Move:
    """What the move of the watched agents means for everybody, labels (n,); no move where a policy would have nobody."""
    taken = jnp.zeros(seen.utility.shape[0], bool).at[move.labels].set(True).all()
    table = seen.utility if seen.stored is None else jnp.concatenate([seen.utility, seen.stored])
    gains = move.gains & taken
    return move._replace(gains=gains, labels=follow_nearest(crowd, move.labels, labels, table, gains))


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
