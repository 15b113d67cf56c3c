"""When `em` begins anew: welfare no longer rises, and there is time for as long an attempt as the one that ended.

EM ends in one local optimum or another, and often long before the run does. What is left of the run then goes to further
attempts, from the first policies and other groups; policies of every attempt stay to be chosen from. A run that still rises
late has one attempt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.types import Array

RISE = 0.02  # share by which welfare has to rise for that to count
PATIENCE = 0.15  # share of an attempt's time in which it has to
_LOWEST = float(jnp.finfo(jnp.float32).min)  # no infinity, a share of which is not a number


class Attempt(NamedTuple):
    """How far the present attempt has come."""

    number: Array  # () int32, from 1; 0 when all attempts have ended
    begun: Array  # () int32 iteration
    peak: Array  # () welfare when it last rose by the share that counts
    risen: Array  # () int32 iteration of that


class Verdict(NamedTuple):
    """Of one iteration."""

    ends: Array  # () bool, the attempt is over
    again: Array  # () bool, another one begins


def first_attempt() -> Attempt:
    """Before the first iteration."""
    return Attempt(jnp.int32(1), jnp.int32(0), jnp.float32(_LOWEST), jnp.int32(0))


def next_attempt(attempt: Attempt, verdict: Verdict, now: Array) -> Attempt:
    """The attempt that is under way after the `verdict`."""
    anew = first_attempt()._replace(number=attempt.number + 1, begun=now, risen=now)
    ended = attempt._replace(number=jnp.int32(0))

    def choose(anew: Array, ended: Array, goes_on: Array) -> Array:
        return jnp.where(verdict.again, anew, jnp.where(verdict.ends, ended, goes_on))

    return jax.tree.map(choose, anew, ended, attempt)


def forget_peak(attempt: Attempt, moved: Array) -> Attempt:
    """Policies that `moved` (() bool) to other places first fall, and get time to rise again."""
    return attempt._replace(peak=jnp.where(moved, _LOWEST, attempt.peak))


def judge_attempt(
    attempt: Attempt, welfare: Array, now: Array, iterations: Array, *, at_least: Array | int, most: Array | int, until: float
) -> tuple[Attempt, Verdict]:
    """Whether the attempt is over, and whether there is another.

    It is over when welfare has not risen by `RISE` in the last `PATIENCE` of its time. Another one begins if it would be over
    before the share `until` of the run, were it as long as this one.

    Args:
        attempt: so far.
        welfare: () of the running estimates.
        now: () int32 iterations that are done.
        iterations: () float32 of the whole run.
        at_least: iterations of an attempt.
        most: attempts of a run.
        until: share of the run at which a second or later attempt ends whatever it does, and after which no other does.
    """
    age = (now - attempt.begun).astype(jnp.float32)
    rises = welfare > attempt.peak + RISE * jnp.abs(attempt.peak)
    attempt = attempt._replace(peak=jnp.where(rises, welfare, attempt.peak), risen=jnp.where(rises, now, attempt.risen))
    stalls = (now - attempt.begun >= at_least) & ((now - attempt.risen).astype(jnp.float32) >= PATIENCE * age)
    left = until * iterations - now.astype(jnp.float32)
    ends = (attempt.number > 0) & jnp.where(left > 0.0, stalls, attempt.number > 1)
    return attempt, Verdict(ends, ends & (left >= age) & (attempt.number < most))
