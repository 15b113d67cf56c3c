"""`halving_em`: hard EM from several starts, of which the worse half is given up time and again (successive halving).

Where EM ends depends on where it begins, and soon shows. So several starts share a run: each learns for a short while, the
better half goes on for twice as long, and so forth, until one is left for the last part (Jamieson & Talwalkar, 2016). They take
turns with the k policies of the trainer; the archive keeps those that wait. `em` restarts only where welfare has stopped
rising, and relocates by all that it has seen.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assigners.base import Assigner, Copies, EStepInput, check_sizes
from rmdp_jax.assigners.fixed import fixed, shuffled_even
from rmdp_jax.assigners.plain_em import best_policies, plain_em
from rmdp_jax.errors import MOST_ITERATIONS, ConfigError, check, whole_number
from rmdp_jax.types import Array, Key

LARGEST_STARTS = 1024  # each has k policies in the archive


class Schedule(NamedTuple):
    """The timetable of a run, one entry per turn."""

    round: np.ndarray  # (turns,) int32, half as many take part in the next
    rank: np.ndarray  # (turns,) int32, whose turn it is: rank in the round before among those that take part
    ends: np.ndarray  # (turns,) float32 share of the run


class HalvingState(NamedTuple):
    """The assignment now, and where each start was left."""

    labels: Array  # (n,) int32
    turn: Array  # () int32
    begun: Array  # () int32 iteration in which the turn began
    order: Array  # (starts,) int32, those who take part first
    saved_labels: Array  # (starts, n) int32 labels
    welfare: Array  # (starts,) float32 of the running estimates, -inf of those who had no turn


def make_schedule(starts: int) -> Schedule:
    """All rounds take as long; `starts` is a power of 2."""
    rounds = range(starts.bit_length())
    turns = [(number, place) for number in rounds for place in range(starts >> number)]
    lengths = [1.0 / (len(rounds) * (starts >> number)) for number, _ in turns]
    number, place = np.array(turns, np.int32).T
    return Schedule(number, place, np.cumsum(lengths).astype(np.float32))


def halving_em(k: int, n: int, *, starts: int = 4, warmup: int = 50) -> Assigner:
    """Hard EM from `starts` shuffled groups, of which log2(starts) + 1 rounds of equal length leave one.

    The starts differ in who is with whom; their first policies are the same.

    Args:
        k, n: policies and agents.
        starts: how many, a power of 2.
        warmup: M-steps of a start before agents move; at most half of its first turn.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    k, n = check_sizes(k, n)
    rule = f"a power of 2 from 2 to {LARGEST_STARTS}"
    starts, warmup = whole_number("starts", starts, 2, LARGEST_STARTS, rule), whole_number("warmup", warmup, 0, MOST_ITERATIONS)
    check("starts", starts, starts.bit_count() == 1, rule)
    if k in (1, n):  # all starts are alike
        return plain_em(k, n, warmup=warmup)._replace(name="halving_em")
    turns, plain = make_schedule(starts), fixed(k, n, shuffled_even)

    def init(key: Key) -> HalvingState:
        left = jax.vmap(plain.init)(jax.random.split(key, starts))
        nothing = jnp.full(starts, -jnp.inf, jnp.float32)
        return HalvingState(left[0], jnp.int32(0), jnp.int32(0), jnp.arange(starts, dtype=jnp.int32), left, nothing)

    return plain._replace(
        name="halving_em",
        archive_size=(starts + 1) * k,
        options={"starts": starts, "warmup": warmup},
        init=init,
        weights=lambda state: plain.weights(state.labels),
        reassign=lambda key, state, inputs: _reassign(turns, warmup, state, inputs),
        conclude=lambda state, inputs: _conclude(turns, state, inputs),
    )


def _reassign(turns: Schedule, warmup: int, state: HalvingState, inputs: EStepInput) -> tuple[HalvingState, Copies]:
    """The E-step, and the change to whoever has the next turn when this one is over."""
    if inputs.archived is None:
        raise ConfigError("trunk = 'shared': halving_em puts policies aside, which have no trunk of their own; take 'separate'")
    (k, _), starts, now = inputs.utility.shape, state.welfare.size, inputs.iteration + 1
    first_turn = turns.ends[0] * now.astype(jnp.float32) / inputs.progress  # iterations
    warm = (now - state.begun).astype(jnp.float32) >= jnp.minimum(warmup, first_turn / 2)
    free = warm | (jnp.asarray(turns.round)[state.turn] > 0)
    labels = jnp.where(free, best_policies(inputs.utility, state.labels), state.labels)
    state = _record(turns, state._replace(labels=labels), inputs)
    current = _current(turns, state)
    turn = jnp.minimum((inputs.progress >= turns.ends).sum(), len(turns.ends) - 1).astype(jnp.int32)
    state, changes = _rank(turns, state, turn), turn != state.turn
    state = state._replace(turn=turn, begun=jnp.where(changes, now, state.begun))
    following = _current(turns, state)
    index = jnp.arange(k, dtype=jnp.int32)
    firsts = jnp.where(now == 1, index, _rows(starts, k))  # they are archived in the first iteration
    before = jnp.where(state.welfare[following] > -jnp.inf, _rows(following, k), firsts)
    archive = jnp.arange(k, (starts + 2) * k, dtype=jnp.int32)
    archive = jnp.where(now == 1, archive.at[starts * k :].set(index), archive)
    archive = jnp.where(changes, jax.lax.dynamic_update_slice(archive, index, (current * k,)), archive)
    stays = following == current  # the archive is read as it was before this iteration
    return state._replace(labels=state.saved_labels[following]), Copies(jnp.where(stays, index, before), archive)


def _conclude(turns: Schedule, state: HalvingState, inputs: EStepInput) -> tuple[Array, Array]:
    """Labels and sources of the best start so far."""
    k = inputs.utility.shape[0]
    state = _record(turns, state, inputs)
    best = state.welfare.argmax().astype(jnp.int32)
    stays = best == _current(turns, state)
    return state.saved_labels[best], jnp.where(stays, jnp.arange(k, dtype=jnp.int32), _rows(best, k))


def _rows(start: Array | int, k: int) -> Array:
    """Where a `Copies` finds the policies of a start, or the first policies after all of them."""
    return k + start * k + jnp.arange(k, dtype=jnp.int32)


def _current(turns: Schedule, state: HalvingState) -> Array:
    """Whose turn it is."""
    return state.order[jnp.asarray(turns.rank)[state.turn]]


def _record(turns: Schedule, state: HalvingState, inputs: EStepInput) -> HalvingState:
    """The current start's labels and welfare, recorded."""
    current, agents = _current(turns, state), jnp.arange(state.labels.size)
    welfare = inputs.utility[state.labels, agents].mean()
    return state._replace(
        saved_labels=state.saved_labels.at[current].set(state.labels), welfare=state.welfare.at[current].set(welfare)
    )


def _rank(turns: Schedule, state: HalvingState, turn: Array) -> HalvingState:
    """The state, this round's starts ranked by welfare if `turn` is in the next round."""
    number, starts = jnp.asarray(turns.round), state.order.size
    takes_part = jnp.arange(starts) < (starts >> number[state.turn])
    welfare = jnp.where(takes_part, state.welfare[state.order], -jnp.inf)
    ranked = state.order[jnp.argsort(-welfare)]
    return state._replace(order=jnp.where(number[turn] > number[state.turn], ranked, state.order))
