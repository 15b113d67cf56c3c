"""What lies where: policies and their environments over the devices of a mesh, all that they have in common on each.

A policy learns and acts where it lies. Policies meet in the E-step, which every device computes for itself from the whole
k x n table of utilities; copies of policies, where an assigner makes some, travel after it.
"""

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rmdp_jax.learning.learner import Learner
from rmdp_jax.policies.networks import Params
from rmdp_jax.trainer import TrainState
from rmdp_jax.types import PyTree


def state_specs(like: TrainState) -> TrainState:
    """What lies where: a `PartitionSpec` for each leaf of the `TrainState` of one run.

    Whatever has k in front lies with its policy, and states of episodes, (k, E, ...), with their environment too. What all
    policies have in common is everywhere: shared parameters, the archive, the assignment, the key, rates, counts.
    """

    def put(spec: P, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: spec, tree)

    def split(learned: Params) -> Params:
        return Params(put(P(), learned.shared), put(P("policy"), learned.own))

    return TrainState(
        learner=Learner(*map(split, like.learner)),
        statistics=put(P("policy"), like.statistics),
        returns=put(P("policy"), like.returns),
        episodes=put(P("policy", "env"), like.episodes),
        utilities=put(P("policy"), like.utilities),
        segments=put(P("policy"), like.segments),
        archive=put(P(), like.archive),
        assignment=put(P(), like.assignment),
        keys=P("policy"),  # type: ignore[arg-type]  # specs in the place of arrays
        key=P(),  # type: ignore[arg-type]
        iteration=P(),  # type: ignore[arg-type]
        rates=put(P(), like.rates),
        counts=put(P(), like.counts),
    )


def laid_out(mesh: Mesh | None, like: TrainState, runs: int = 1) -> TrainState:
    """The abstract state `like` of one run as that of `runs` stacked runs, each leaf with its sharding on `mesh`.

    Every device has its part of each run. A single run has no axis of runs; without a mesh there are no shardings.
    """
    front = () if runs == 1 else (runs,)

    def describe(leaf: jax.ShapeDtypeStruct, spec: P) -> jax.ShapeDtypeStruct:
        sharding = None if mesh is None else NamedSharding(mesh, P(*(None for _ in front), *spec))
        return jax.ShapeDtypeStruct((*front, *leaf.shape), leaf.dtype, sharding=sharding)

    return jax.tree.map(describe, like, state_specs(like))


def shardings_of(like: TrainState) -> TrainState:
    """The shardings of what `laid_out` describes."""
    return jax.tree.map(lambda leaf: leaf.sharding, like)
