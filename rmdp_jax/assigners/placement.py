"""`em`: hard EM that leaves local optima by giving its policies other places.

Plain EM is K-means. It ends with policies in the wrong places, and a policy whose agents all lie where it never goes has no
gradient to get there. So now and then the k best places are chosen by facility location (`facility.py`) from what was seen:
glimpses of the k policies and of a library of earlier ones. A place is then taken by a copy of the policy that showed it,
today's or an earlier one, which can go there because it was there. Where welfare has stopped rising and there is time, the
policies begin anew (`attempts.py`); those of all attempts are in the library. A new attempt knows the best policies of the one
before it: if it has shown nothing better when it first chooses places, it goes on from them, with what it found as further
places to choose from (as iterated local search does; knowing nothing of them it ends lower). Only rewards of observed steps
enter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.attempts import Attempt, first_attempt, forget_peak, judge_attempt, next_attempt
from rmdp_jax.assigners.base import Assigner, Seen, Succession, best_policies, check_sizes, fixed, plain_em, shuffled_even
from rmdp_jax.assigners.facility import keep_different
from rmdp_jax.assigners.moves import Move, choose_move, move_all
from rmdp_jax.assigners.neighbours import Crowd
from rmdp_jax.errors import check
from rmdp_jax.glimpse import UNSEEN, watched_agents
from rmdp_jax.types import Array, Key


class Rules(NamedTuple):
    """Settings of `em`, under the same names."""

    anneal: int
    soft_at_most: float
    temperature: tuple[float, float]
    every: int
    until: float
    attempts: int
    glimpses: int
    slots: int
    store_every: int


class Placement(NamedTuple):
    """Who is with whom, and what the library showed.

    The library has `slots` policies that are unlike each other and the k that were best when an attempt ended. The trainer also
    stores the k first policies, of which nothing is shown.
    """

    labels: Array  # (n,) int32
    weights: Array  # (k, n) float32, one-hot of the labels except in the soft beginning of an attempt
    shown: Array  # (slots + k, B, m) glimpses of each policy in the library
    age: Array  # (slots + k,) float32 iteration in which it was stored, -inf of an empty row
    held_until: Array  # () int32 iteration before which nobody moves, so that policies can learn their places
    attempt: Attempt


def em(
    k: int,
    n: int,
    *,
    anneal: int = 70,
    soft_at_most: float = 0.2,
    temperature: tuple[float, float] = (0.3, 0.005),
    every: int = 20,
    until: float = 0.8,
    attempts: int = 8,
    glimpses: int = 32,
    slots: int | None = None,
    store_every: int = 5,
) -> Assigner:
    """EM with annealing, a choice of places and further attempts; `plain_em` is without.

    An attempt begins with everybody served by all policies alike, and cools down: weights are a softmax of utilities over a
    temperature that falls for `anneal` iterations (deterministic annealing; Rose, 1998). From then on every agent is with its
    best policy, and every `every` iterations the k places are chosen anew. If they promise more than the present ones, policies
    go on from whoever showed their place, and nobody moves until the next choice. When welfare no longer rises, the best
    policies so far are noted and all begin anew, if there is time; the last attempt goes on with the best of all. One policy
    for all and one for each have nothing to choose and learn as they are. Policies that share a trunk cannot go back to what
    they were: they have one attempt, and choose among what today's policies show.

    Args:
        k, n: policies and agents.
        anneal: iterations of an attempt before its first choice of places.
        soft_at_most: share of the run that one annealing may take; shortens it in short runs.
        temperature: its start and end, as shares of the range of utilities; geometric in between.
        every: iterations between two choices of places.
        until: share of the run after which places stay, so that the last copies can learn theirs.
        attempts: how many at most; 1 for a run that never begins anew.
        glimpses: environments of each policy whose stretches are looked at (B); see `rmdp_jax.glimpse`.
        slots: earlier policies that are stored; 8 for each policy but no more than 64 when not given. Those most unlike stay.
        store_every: iterations between two entries of all policies in the store.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    check_sizes(k, n)
    slots = min(8 * k, 64) if slots is None else slots
    rules = Rules(anneal, soft_at_most, temperature, every, until, attempts, glimpses, slots, store_every)
    for name in ("anneal", "every", "attempts", "glimpses", "slots", "store_every"):
        value = getattr(rules, name)
        check(name, value, isinstance(value, int) and value >= 1, "a whole number of at least 1")
    for name in ("soft_at_most", "until"):
        share = getattr(rules, name)
        check(name, share, 0.0 <= share <= 1.0, "a share of the run, from 0 to 1")
    check("temperature", temperature, min(temperature) > 0.0, "two numbers above 0, of the start and the end")
    if k in (1, n):  # nothing to choose
        return plain_em(k, n)._replace(name="em")
    rows, watched = slots + k, watched_agents(n)
    crowd = None if watched is None else Crowd(watched, n)

    def init(key: Key) -> Placement:
        m = n if watched is None else len(watched)
        shown, age = jnp.zeros((rows, glimpses, m), jnp.float32), jnp.full(rows, -jnp.inf, jnp.float32)
        return Placement(shuffled_even(key, k, n), _all_alike(k, n), shown, age, jnp.int32(0), first_attempt())

    return fixed(k, n, shuffled_even)._replace(
        name="em",
        glimpses=glimpses,
        watched=watched,
        slots=rows + k,
        options=rules._asdict() | {"temperature": list(temperature)},  # as JSON gives it back
        init=init,
        weights=lambda placement: placement.weights,
        descend=lambda gradient, placement: placement,
        reassign=lambda key, placement, seen: _reassign(rules, crowd, placement, seen),
        conclude=lambda placement, seen: _conclude(crowd, placement, seen),
    )


def _all_alike(k: int, n: int) -> Array:
    """Weights (k, n) of an attempt that begins."""
    return jnp.full((k, n), 1.0 / k, jnp.float32)


def _reassign(rules: Rules, crowd: Crowd | None, before: Placement, seen: Seen) -> tuple[Placement, Succession]:
    """The E-step, a choice of places where one is due, and a new attempt where there is time for one."""
    (k, n), now = seen.utility.shape, seen.iteration + 1
    iterations = jnp.round(now.astype(jnp.float32) / seen.progress)  # whole, or the share of them below comes and goes
    anneal = jnp.clip(jnp.round(rules.soft_at_most * iterations), 1.0, rules.anneal).astype(jnp.int32)
    labels = jnp.where(now >= before.held_until, best_policies(seen.utility, before.labels), before.labels)
    welfare = seen.utility[labels, jnp.arange(n)].mean()
    attempt, verdict = judge_attempt(
        before.attempt,
        welfare,
        now,
        iterations,
        at_least=anneal + rules.every,
        most=jnp.where(seen.stores, rules.attempts, 1),
        until=rules.until,
    )
    passed = now - attempt.begun - anneal
    due = (passed >= 0) & (passed % rules.every == 0) & (seen.progress <= rules.until)
    since = jnp.where(verdict.ends | (attempt.number == 0), 0, attempt.begun)
    move, shown, age = _look_round(crowd, before, seen, labels, since, jnp.where(due | verdict.ends, 2 * k, 0))
    index = jnp.arange(k, dtype=jnp.int32)
    labels, parents = jnp.where(move.gains, move.labels, labels), jnp.where(move.gains, move.parents, index)
    kept = _keep(rules, shown, age, parents, verdict.ends, now)
    first = k + kept.shape[0] + index
    hard = jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32)
    weights = jnp.where(passed < 0, _soften(rules.temperature, seen.utility, 1.0 + passed / anneal), hard)
    return (
        Placement(
            labels=labels,
            weights=jnp.where(verdict.again, _all_alike(k, n), weights),
            shown=shown[kept],
            age=age[kept],
            held_until=jnp.where(verdict.again, now, jnp.where(move.gains, now + rules.every, before.held_until)),
            attempt=next_attempt(forget_peak(attempt, move.gains), verdict, now),
        ),
        Succession(
            jnp.where(verdict.again, first, parents),
            jnp.concatenate([kept, jnp.where(now == 1, index, first)]),
        ),
    )


def _conclude(crowd: Crowd | None, placement: Placement, seen: Seen) -> tuple[Array, Array]:
    """Labels and parents of the best that the present attempt and those before it have shown."""
    k, going_on = seen.utility.shape[0], placement.attempt.number > 0
    move, _, _ = _look_round(crowd, placement, seen, placement.labels, jnp.int32(0), jnp.where(going_on, 2 * k, 0))
    stay = jnp.arange(k, dtype=jnp.int32)
    return jnp.where(move.gains, move.labels, placement.labels), jnp.where(move.gains, move.parents, stay)


def _look_round(
    crowd: Crowd | None, before: Placement, seen: Seen, labels: Array, since: Array, rounds: Array
) -> tuple[Move, Array, Array]:
    """The move that present policies and those stored `since` suggest; and what all of them showed, and their age."""
    assert seen.glimpses is not None  # the trainer gives what `Assigner.glimpses` asks for
    k, now = seen.utility.shape[0], (seen.iteration + 1).astype(jnp.float32)
    shown = jnp.concatenate([seen.glimpses, before.shown])
    age = jnp.concatenate([jnp.full(k, now), before.age])
    since = jnp.where(seen.stores, since, seen.iteration + 1)  # only what was not stored
    known = jnp.where(age >= since.astype(jnp.float32), age, -jnp.inf)
    move = choose_move(k, shown, known, labels if crowd is None else labels[crowd.watched], rounds)
    return move if crowd is None else move_all(crowd, move, labels, seen), shown, age


def _soften(temperature: tuple[float, float], utility: Array, passed: Array) -> Array:
    """Weights (k, n) when the share `passed` () of the annealing is over."""
    start, end = temperature
    heat = start * (end / start) ** passed * jnp.maximum(utility.max() - utility.min(), 1e-6)
    return jax.nn.softmax(utility / heat, axis=0)


def _keep(rules: Rules, shown: Array, age: Array, best: Array, ends: Array, now: Array) -> Array:
    """Which rows (slots + k,) of policies and library are the library from now on; `best` (k,) when an attempt `ends`."""
    k, slots, storing = best.shape[0], rules.slots, now % rules.store_every == 0
    returns = jnp.where(shown[: k + slots] > UNSEEN, shown[: k + slots], 0.0).mean(1)
    different = keep_different(returns, age[: k + slots], slots, jnp.where(storing, k, 0))
    rows = jnp.arange(k, 2 * k + slots, dtype=jnp.int32)
    return jnp.concatenate([jnp.where(storing, different, rows[:slots]), jnp.where(ends, best, rows[slots:])])
