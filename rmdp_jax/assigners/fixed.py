"""Assignments that stay as they begin: given labels, equal groups, groups known beforehand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.assigners.base import Assigner, check_sizes, no_copies
from rmdp_jax.env import Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.types import Array, Key

First = Callable[[Key, int, int], Array]  # key, k, n -> labels (n,) int32


def fixed(k: int, n: int, first: First | ArrayLike) -> Assigner:
    """An assignment that stays as it begins: `first` makes labels (n,), or is them."""
    check_sizes(k, n)
    make = first if callable(first) else lambda key, k, n: jnp.asarray(first)
    with jax.ensure_compile_time_eval():  # checked here and now, even where an assigner is made while something is traced
        _check_labels(np.asarray(make(jax.random.key(0), k, n)), k, n)
    return Assigner(
        name="fixed",
        k=k,
        n=n,
        needs_per_agent_critic=False,
        pretraining=0,
        init=lambda key: make(key, k, n).astype(jnp.int32),
        weights=lambda labels: jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32),
        descend=lambda gradient, labels: labels,
        reassign=lambda key, labels, inputs: (labels, no_copies(k)),
    )


def random_even(k: int, n: int) -> Assigner:
    """The baseline `random`: k equal groups drawn once."""
    return fixed(k, n, shuffled_even)._replace(name="random")


def oracle(population: Population, k: int) -> Assigner:
    """Groups that somebody who knows the task would draw: bands of target speed, or the groups of a proved optimum.

    Raises:
        ConfigError: nobody knows the task that well, or one of its groups is empty.
    """
    if population.oracle_groups is None:
        raise ConfigError("algorithm = 'oracle': this population comes with no groups known beforehand; take em")
    return fixed(k, population.n, np.asarray(population.oracle_groups(k), np.int32))._replace(name="oracle")


def round_robin(key: Key, k: int, n: int) -> Array:
    """Agent i with policy i mod k, labels (n,) int32."""
    del key
    return jnp.arange(n, dtype=jnp.int32) % k


def shuffled_even(key: Key, k: int, n: int) -> Array:
    """Agents shuffled into k groups whose sizes differ by at most one, labels (n,) int32."""
    return jax.random.permutation(key, round_robin(key, k, n))


def _check_labels(labels: np.ndarray, k: int, n: int) -> None:
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"labels of shape {labels.shape}, {labels.dtype}: must be (n,) = ({n},) whole numbers")
    named = np.unique(labels).tolist()
    if named != list(range(k)):
        raise ConfigError(f"labels name policies {named}: each of 0..{k - 1} needs an agent")
