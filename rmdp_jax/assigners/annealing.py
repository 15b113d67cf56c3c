"""How far a start of `em` has come: it explores as one policy, then serves softly, colder and colder, and then by hard groups.

Weights are a softmax of utilities whose temperature falls geometrically (deterministic annealing; Rose, 1998).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.base import EStepInput, returns_of
from rmdp_jax.assigners.exploration import Exploration, explore_on
from rmdp_jax.types import Array

TEMPERATURE = (0.3, 0.005)  # at the start and the end of annealing, in units of the spread of all utilities
LONGEST = 0.2  # share of the run that exploration or annealing takes at most


class Lengths(NamedTuple):
    """Iterations at most."""

    explore: int
    anneal: int
    settle: int  # with hard groups, before a start may end


class Phase(NamedTuple):
    """How far a start has come."""

    were_one: Array  # () bool, all policies were one until now
    exploration: Exploration
    splits: Array  # () bool, exploration has just ended
    hard_for: Array  # () int32 iterations since agents belong to their best policy, negative before
    softness: Array  # () share of annealing that is over
    may_end: Array  # () bool, it has had its time to rise


def phase_of(lengths: Lengths, before: Exploration, age: Array, inputs: EStepInput, iterations: Array) -> Phase:
    """Of a start that began `age` iterations ago, in a run of so many `iterations`."""
    can_explore = lengths.explore > 0 and inputs.can_explore
    alone = inputs.given.number == 0  # who begins beside policies that serve already raises nobody's best for long
    longest, anneal = (
        jnp.clip(jnp.round(LONGEST * iterations), 1.0, most).astype(jnp.int32) for most in (lengths.explore, lengths.anneal)
    )
    were_one = before.under_way & can_explore
    exploration = explore_on(before, returns_of(inputs), age, longest, may_stall=alone)
    exploration = exploration._replace(under_way=exploration.under_way & can_explore)
    hard_for = age - anneal - jnp.where(can_explore, exploration.ended_at, 0)
    hard_for = jnp.where(exploration.under_way, -1, hard_for)
    may_end = hard_for >= lengths.settle
    return Phase(were_one, exploration, were_one & ~exploration.under_way, hard_for, 1.0 + hard_for / anneal, may_end)


def uniform(k: int, n: int) -> Array:
    """Weights (k, n) of those who begin."""
    return jnp.full((k, n), 1.0 / k, jnp.float32)


def weigh(phase: Phase, labels: Array, inputs: EStepInput) -> Array:
    """Weights (k, n): alike while there is one policy, then soft ones that cool down, then those of labels (n,)."""
    k, n = inputs.utility.shape
    hard = jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32)
    cooling = jnp.where(phase.hard_for < 0, _soften(returns_of(inputs), phase.softness), hard)
    return jnp.where(phase.exploration.under_way, hard if inputs.given.number else uniform(k, n), cooling)


def _soften(utility: Array, passed: Array) -> Array:
    """Weights (k, n) when the share `passed` () of annealing is over, by utilities (k, n)."""
    start, end = TEMPERATURE
    spread = utility.max() - utility.min()
    return jax.nn.softmax(utility / (start * (end / start) ** passed * jnp.where(spread > 0.0, spread, 1.0)), axis=0)
