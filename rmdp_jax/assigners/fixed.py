"""Assignments that stay as they begin: given labels, equal groups, groups known beforehand."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.assigners.base import Assigner, check_sizes, no_copies
from rmdp_jax.env import Population
from rmdp_jax.errors import ConfigError, in_line, shown
from rmdp_jax.types import Array, Key

T = TypeVar("T")
First = Callable[[Key, int, int], Array]  # key, k, n -> labels (n,) int32


def fixed(k: int, n: int, first: First | ArrayLike) -> Assigner:
    """An assignment that stays as it begins: `first` makes labels (n,), or is them.

    Raises:
        ConfigError: k or n break their rule, or labels are not whole numbers with an agent for each policy.
    """
    k, n = check_sizes(k, n)
    make: First = first if callable(first) else _always(check_labels(first, k, n))
    with jax.ensure_compile_time_eval():  # checked here and now, even where an assigner is made while something is traced
        check_labels(_called("first", lambda: make(jax.random.key(0), k, n)), k, n)
    return Assigner(
        name="fixed",
        k=k,
        n=n,
        needs_per_agent_critic=False,
        pretraining=0,
        init=lambda key: jnp.asarray(make(key, k, n), jnp.int32),
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
        ConfigError: nobody knows the task that well, or what is known is no partition into k groups.
    """
    groups_of = population.oracle_groups
    if groups_of is None:
        raise ConfigError("algorithm = 'oracle': this population comes with no groups known beforehand; take em")
    k, n = check_sizes(k, population.n)
    return fixed(k, n, _called(f"oracle_groups({k})", lambda: groups_of(k)))._replace(name="oracle")


def round_robin(key: Key, k: int, n: int) -> Array:
    """Agent i with policy i mod k, labels (n,) int32."""
    del key
    return jnp.arange(n, dtype=jnp.int32) % k


def shuffled_even(key: Key, k: int, n: int) -> Array:
    """Agents shuffled into k groups whose sizes differ by at most one, labels (n,) int32."""
    return jax.random.permutation(key, round_robin(key, k, n))


def name_of(first: First | ArrayLike) -> str:
    """What `options` call a first assignment."""
    return getattr(first, "__name__", type(first).__name__)


def _always(labels: np.ndarray) -> First:
    return lambda key, k, n: jnp.asarray(labels)


def _called(name: str, call: Callable[[], T]) -> T:
    """What a user's function gives, or ConfigError with what it raised."""
    try:
        return call()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{name}: raised {type(error).__name__} ({in_line(error)})") from error


def check_labels(given: ArrayLike, k: int, n: int) -> np.ndarray:
    """Labels (n,) int32 as numpy's, or ConfigError: not n whole numbers, or not an agent for each of the k policies."""
    try:
        labels = np.asarray(given)
    except Exception:  # rows of different lengths, or traced
        raise ConfigError(f"labels = {shown(given)}: must be (n,) = ({n},) whole numbers that are known") from None
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"labels of shape {labels.shape}, {labels.dtype}: must be (n,) = ({n},) whole numbers")
    named = np.unique(labels).tolist()
    if named != list(range(k)):
        raise ConfigError(f"labels name policies {in_line(named)}: each of 0..{k - 1} needs an agent")
    return labels.astype(np.int32)
