"""When `em` restarts: welfare no longer rises, and there is time for a run as long as the one that ended.

EM ends in one local optimum or another, and often long before training does. The transitions that are left go to restarts, from
the first policies and other groups; the archive holds policies of every start. A run that still rises late has none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.types import Array

RISE = 0.1  # relative rise of welfare that counts as an improvement
LEARNS = 0.02  # relative rise of welfare by which policies are left alone to learn
PATIENCE = 0.25  # share of the iterations since the start in which welfare has to improve
LOWEST = float(jnp.finfo(jnp.float32).min)  # no infinity, a share of which is not a number


class Start(NamedTuple):
    """How far training has come since the last start."""

    number: Array  # () int32, from 1; 0 when the last one has ended
    began_at: Array  # () int32 iteration
    best: Array  # () welfare at the last improvement
    improved_at: Array  # () int32 iteration of that
    learned: Array  # () welfare when it last rose by `LEARNS`
    learned_at: Array  # () int32 iteration of that


class Decision(NamedTuple):
    """What the stopping rule says after an iteration."""

    stop: Array  # () bool, this start is over
    restart: Array  # () bool, another one follows


def exceeds(welfare: Array, other: Array, share: float) -> Array:
    """Whether `welfare` is above another by that share of it."""
    return welfare > other + share * jnp.abs(other)


def first_start() -> Start:
    """Before the first iteration."""
    lowest, zero = jnp.float32(LOWEST), jnp.int32(0)
    return Start(jnp.int32(1), zero, lowest, zero, lowest, zero)


def next_start(start: Start, decision: Decision, now: Array) -> Start:
    """The start that is under way after the `decision` in iteration `now`."""
    new = first_start()._replace(number=start.number + 1, began_at=now, improved_at=now, learned_at=now)
    ended = start._replace(number=jnp.int32(0))

    def choose(new: Array, ended: Array, unchanged: Array) -> Array:
        return jnp.where(decision.restart, new, jnp.where(decision.stop, ended, unchanged))

    return jax.tree.map(choose, new, ended, start)


def reset_best(start: Start, relocated: Array) -> Start:
    """Welfare falls at first when policies are `relocated` (() bool), and gets time to rise again."""
    best, learned = (jnp.where(relocated, LOWEST, value) for value in (start.best, start.learned))
    return start._replace(best=best, learned=learned)


def check_stopping_rule(
    start: Start,
    welfare: Array,
    now: Array,
    iterations: Array,
    *,
    settled: Array,
    max_starts: Array | int,
    until: float,
) -> tuple[Start, Decision]:
    """Whether this start is over, and whether another follows.

    It is over when welfare has not risen by `RISE` in the last `PATIENCE` of its iterations. Another follows if one as long as
    this would be over before the share `until` of the run.

    Args:
        start: so far.
        welfare: () of the running estimates.
        now: () int32 iterations that are done.
        iterations: () float32 of the whole run.
        settled: () bool, whether this start may be over.
        max_starts: of a run.
        until: share of the run at which every start but the first ends in any case, and after which none follows.
    """
    age = (now - start.began_at).astype(jnp.float32)
    improves, learns = exceeds(welfare, start.best, RISE), exceeds(welfare, start.learned, LEARNS)
    start = start._replace(
        best=jnp.where(improves, welfare, start.best),
        improved_at=jnp.where(improves, now, start.improved_at),
        learned=jnp.where(learns, welfare, start.learned),
        learned_at=jnp.where(learns, now, start.learned_at),
    )
    stalls = settled & ((now - start.improved_at).astype(jnp.float32) >= PATIENCE * age)
    remaining = until * iterations - now.astype(jnp.float32)
    stop = (start.number > 0) & jnp.where(remaining > 0.0, stalls, start.number > 1)
    return start, Decision(stop, stop & (remaining >= age) & (start.number < max_starts))
