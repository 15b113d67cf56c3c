"""Relocation: policies become copies of members that showed better behaviours, chosen by facility location."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.base import EStepInput
from rmdp_jax.assigners.exchange import nearest_within
from rmdp_jax.assigners.facility_location import choose_facilities, total
from rmdp_jax.assigners.plain_em import best_policies
from rmdp_jax.assigners.sampled_agents import SampledAgents, label_like_nearest
from rmdp_jax.learning.segments import NO_RETURN
from rmdp_jax.limits import Loads
from rmdp_jax.types import Array


class Relocation(NamedTuple):
    """Whether and how policies are relocated."""

    accepted: Array  # () bool
    labels: Array  # (n,)
    sources: Array  # (k,) member that each policy becomes a copy of: a policy, or k + slot of the archive


def propose_relocation(
    k: int,
    returns: Array,
    archived_at: Array,
    labels: Array,
    rounds: Array,
    frozen: int = 0,
    limits: Loads | None = None,
) -> Relocation:
    """The best facilities among the segments that M members showed, by up to `rounds` swaps; skipped at run time when 0.

    They are searched on every other segment and tested on the rest, against the present policies by the same measure: what a
    member showed at its best for the agents it would serve. A single lucky segment is therefore no reason to relocate.

    Args:
        k: policies, the first k members.
        returns: (M, B, n) segment returns, `NO_RETURN` where there is none yet.
        archived_at: (M,) float32, -inf of members that may not be copied.
        labels: (n,) int32, the assignment so far.
        rounds: () int32.
        frozen: the first so many policies are no copies; their best segments for those whom they serve are held.
        limits: of the agents of each policy, which the new labels hold; the choice is made without them.
    """
    members, number, n = returns.shape
    half = number // 2 if number > 1 else 1
    search, test = (returns[:, start::2][:, :half] if number > 1 else returns for start in (0, 1))
    member = jnp.repeat(jnp.arange(members, dtype=jnp.int32), half)  # of each segment

    def flatten(some: Array) -> tuple[Array, Array]:
        flat = some.reshape(members * half, n)
        valid = jnp.isfinite(archived_at)[member] & (flat > NO_RETURN).all(1)
        return jnp.where(valid[:, None], flat, 0.0), valid

    def best_segments(of: Array, groups: Array, flat: Array, valid: Array) -> Array:
        """Of each member in `of` (k,), the segment that is worth most to its group, (k,)."""
        worth = jnp.where(valid, jnp.matmul(groups, flat.T, precision="highest"), NO_RETURN)
        return jnp.where(member[None] == of[:, None], worth, -jnp.inf).argmax(1).astype(jnp.int32)

    def groups_of(labels: Array) -> Array:
        return jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32)

    searched, valid = flatten(search)
    tested, valid_test = flatten(test)
    index = jnp.arange(k, dtype=jnp.int32)
    start = best_segments(index, groups_of(labels), searched, valid)
    facilities = choose_facilities(searched, valid, start, rounds, frozen)
    facilities = facilities[order_by_policy(member[facilities], k)]
    sources = member[facilities]
    new_labels = best_policies(searched[facilities], labels, frozen, limits)
    proposed = best_segments(sources, groups_of(new_labels), tested, valid_test)
    present = best_segments(index, groups_of(labels), tested, valid_test)
    known = valid_test[proposed].all() & valid_test[present].all()  # a fresh copy has shown nothing yet: it is left alone
    better = total(tested, proposed) > total(tested, present)
    return Relocation((rounds > 0) & known & better, new_labels, sources)


def order_by_policy(sources: Array, k: int) -> Array:
    """Order (k,) of facilities in which a policy that showed one keeps its index; copies take the indices that are free."""
    index = jnp.arange(k, dtype=jnp.int32)
    repeated = jnp.tril(sources[:, None] == sources[None], -1).any(1)
    stays = (sources < k) & ~repeated
    taken = ((index[:, None] == sources[None]) & stays[None]).any(1)
    free = jnp.argsort(taken, stable=True).astype(jnp.int32)
    rank = jnp.cumsum(~stays, dtype=jnp.int32) - 1
    policy = jnp.where(stays, sources, free[jnp.maximum(rank, 0)])
    return jnp.zeros(k, jnp.int32).at[policy].set(index)


def extend_to_all(sample: SampledAgents, relocation: Relocation, labels: Array, inputs: EStepInput) -> Relocation:
    """The relocation found on a sample of agents, for all, labels (n,); refused where one that learns would have no agent."""
    k = inputs.utility.shape[0]
    occupied = jnp.zeros(k, bool).at[relocation.labels].set(True)[inputs.given.frozen :].all()
    table = inputs.returns
    if table is None:
        table = inputs.utility if inputs.archived is None else jnp.concatenate([inputs.utility, inputs.archived])
    accepted = relocation.accepted & occupied
    all_labels = label_like_nearest(sample, relocation.labels, labels, table, accepted)
    if inputs.limits is not None:
        all_labels = nearest_within(all_labels, inputs.limits)
    return relocation._replace(accepted=accepted, labels=all_labels)
