"""What the next iteration reads, and what of it is copied from policy to policy or put back."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assigners.base import Copies
from rmdp_jax.config import Rates
from rmdp_jax.devices.mesh import constrain
from rmdp_jax.env import EpisodeState
from rmdp_jax.learning.learner import Learner
from rmdp_jax.learning.segments import SegmentReturns, no_segments
from rmdp_jax.learning.utility import Utilities
from rmdp_jax.policies.model import Policies, repeat
from rmdp_jax.policies.networks import Params
from rmdp_jax.types import Array, Key, PyTree


class Member(NamedTuple):
    """All state of a policy that is copied with it; leaves (k, ...), or (archive_size, ...) of archived members."""

    params: PyTree
    opt_state: PyTree
    statistics: PyTree
    returns: PyTree
    utilities: Utilities


class TrainState(NamedTuple):
    """All that the next iteration reads."""

    learner: Learner  # own leaves (k, ...)
    statistics: PyTree  # of observations, leaves (k, ...)
    returns: PyTree  # running statistics of returns, leaves (k,)
    episodes: EpisodeState  # leaves (k, E, ...)
    utilities: Utilities  # leaves (k, ...)
    segments: SegmentReturns | None  # leaves (k, B, ...); None where the assigner does not look at them
    archive: Member | None  # earlier policies, leaves (archive_size, ...); None where the assigner asks for none
    assignment: PyTree  # the assigner's own state
    keys: Key  # (k,) one per policy
    key: Key  # () of the assigner and the shuffles
    iteration: Array  # () int32
    rates: Rates
    counts: Array | None = None  # (n,) what a return more of each agent is worth to welfare; None where all count alike


def policies_of(state: TrainState) -> Policies:
    """The policies without optimiser state."""
    return Policies(state.learner.params, state.statistics, state.rates.observation_clip)


def first_archive(size: int, state: TrainState) -> Member | None:
    """Copies of the k policies of `state`, the last k in their order; None of size 0."""
    k = state.keys.size
    return jax.tree.map(lambda x: x[(np.arange(size) - size) % k], members_of(state)) if size else None


def begin_with(given: Member, state: TrainState) -> TrainState:
    """The state whose first policies are the `given` ones, leaves (g, ...), of whose utilities nothing is known here."""
    own = members_of(state)
    given = given._replace(utilities=jax.tree.map(lambda x: x[:0], own.utilities))
    begun = jax.tree.map(lambda given, own: jnp.concatenate([given, own[given.shape[0] :]]), given, own)
    return with_members(state, begun, state.learner.params.shared, state.learner.opt_state.shared)


def some_of(some: slice, state: TrainState) -> TrainState:
    """The state of `some` of the policies; what is not of one policy stays whole, and so do `keys`."""
    own = members_of(state), state.episodes, state.segments
    members, episodes, segments = jax.tree.map(lambda x: x[some], own)
    state = with_members(state, members, state.learner.params.shared, state.learner.opt_state.shared)
    return state._replace(episodes=episodes, segments=segments)


def side_by_side(first: TrainState, rest: TrainState) -> TrainState:
    """The inverse of `some_of`: the policies of both; what is not of one policy is that of the `rest`."""
    own = ((members_of(state), state.episodes, state.segments) for state in (first, rest))
    members, episodes, segments = jax.tree.map(lambda *x: jnp.concatenate(x), *own)
    state = with_members(rest, members, rest.learner.params.shared, rest.learner.opt_state.shared)
    return state._replace(episodes=episodes, segments=segments)


@jax.named_scope("copy_members")
def copy_members(copies: Copies, state: TrainState) -> TrainState:
    """The state after the `copies`: each policy, and each slot of the archive, has all of its source's `Member` state.

    Without copies nothing is read; across devices that would gather all policies on each.
    """
    copies = copies if state.archive is not None else copies._replace(archive_sources=None)
    k = copies.sources.size
    changed = (copies.sources != jnp.arange(k, dtype=jnp.int32)).any()
    if copies.archive_sources is not None:
        changed |= (copies.archive_sources != jnp.arange(copies.archive_sources.size, dtype=jnp.int32) + k).any()
    # Without the keys, which nobody copies: under `vmap` a cond chooses leaf by leaf, and JAX's check would see each twice.
    nothing = jnp.zeros((), bool)
    copied = jax.lax.cond(changed, _copy, lambda copies, state: state, copies, state._replace(keys=nothing, key=nothing))
    return copied._replace(keys=state.keys, key=state.key)


def _copy(copies: Copies, state: TrainState) -> TrainState:
    members = constrain(constrain(members_of(state), "policy"))
    if state.archive is not None:
        members = jax.tree.map(lambda present, archived: jnp.concatenate([present, archived]), members, state.archive)

    def take(sources: Array) -> Member:
        return jax.tree.map(lambda x: x[sources], members)

    state = state._replace(
        segments=_without_copies(copies.sources, state.segments),
        archive=None if copies.archive_sources is None else take(copies.archive_sources),
    )
    return with_members(state, take(copies.sources), state.learner.params.shared, state.learner.opt_state.shared)


def _without_copies(sources: Array, segments: SegmentReturns | None) -> SegmentReturns | None:
    """The segments of policies that stay; a copy has not shown anything yet."""
    if segments is None:
        return None
    k, number, m = segments.returns.shape
    stays = sources == jnp.arange(k, dtype=jnp.int32)
    return jax.tree.map(partial(_where, stays), segments, repeat(no_segments(number, m), k))


@jax.named_scope("recover")
def recover(last: TrainState, new: TrainState) -> tuple[TrainState, Array]:
    """`new`, but every policy that is not finite in it as it was in the `last` iteration, with a fresh optimiser.

    A policy that was not finite in `last` either becomes a copy of one that was. Nothing of the other policies changes, unless
    all share a trunk that is not finite: then all are put back.

    Returns:
        The state, and which policies were put back, (k,) bool.
    """
    shared, own, before = new.learner.params.shared, members_of(new), members_of(last)
    shared_broken = ~_all_finite(shared, axes=0)
    broken = ~_all_finite(own) | shared_broken
    sound = _all_finite(before._replace(opt_state=()))
    # across devices a copy would gather all policies on each
    before = jax.lax.cond((sound | ~broken).all(), lambda members: members, partial(_copy_sound, sound), before)
    before = before._replace(opt_state=jax.tree.map(jnp.zeros_like, own.opt_state))  # as of an Adam that begins
    own = jax.tree.map(partial(_where, broken), before, own)
    shared, shared_state = jax.tree.map(
        partial(_where, shared_broken),
        (last.learner.params.shared, jax.tree.map(jnp.zeros_like, last.learner.opt_state.shared)),
        (shared, new.learner.opt_state.shared),
    )
    return with_members(new, own, shared, shared_state), broken


def _copy_sound(sound: Array, members: Member) -> Member:
    """Members with those that are not `sound` (k,) replaced by the first that is."""
    return jax.tree.map(lambda x: _where(sound, x, jnp.broadcast_to(x[sound.argmax()], x.shape)), members)


def _where(mask: Array, x: Array, y: Array) -> Array:
    """`jnp.where` for a mask of the leading axes."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)


def _all_finite(tree: PyTree, axes: int = 1) -> Array:
    """Whether all leaves are finite, but for their first `axes` axes; () true of an empty tree."""
    finite = jnp.bool_(True)
    for leaf in jax.tree.leaves(tree):
        finite &= jnp.isfinite(leaf).all(tuple(range(axes, leaf.ndim)))
    return finite


def members_of(state: TrainState) -> Member:
    """The k policies as members."""
    return Member(state.learner.params.own, state.learner.opt_state.own, state.statistics, state.returns, state.utilities)


def with_members(state: TrainState, own: Member, shared: PyTree, shared_state: PyTree) -> TrainState:
    """The state with these members, and these shared parameters and their optimiser."""
    return state._replace(
        learner=Learner(Params(shared, own.params), Params(shared_state, own.opt_state)),
        statistics=own.statistics,
        returns=own.returns,
        utilities=own.utilities,
    )
