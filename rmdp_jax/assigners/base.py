"""Assigners: who is served by whom. Every algorithm is the same trainer with another of these.

`weights(assignment)` has columns that sum to 1. `reassign` sees what was `Seen` after each M-step and also returns the
`Succession`: which policy each policy goes on from, itself unless policies are copied.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.errors import ConfigError
from rmdp_jax.types import Array, Key, PyTree


class Seen(NamedTuple):
    """What an E-step may look at."""

    utility: Array  # (k, n) running estimates of returns
    iteration: Array  # () int32
    progress: Array | float = 0.0  # () share of the run's iterations that are done
    glimpses: Array | None = None  # (k, B, m) returns that single stretches would bring; see `rmdp_jax.glimpse`
    stored: Array | None = None  # (slots, n) the estimates of stored policies, as they were
    stores: bool = True  # stored policies can be gone on from; a policy cannot go back where its trunk is everybody's


class Succession(NamedTuple):
    """Who goes on from whom: indices of the k policies, 0..k-1, and of the store of earlier ones, k..k+slots-1."""

    parents: Array  # (k,) int32, of the policies
    kept: Array | None = None  # (slots,) int32, of the store; None without one


class Assigner(NamedTuple):
    """An assignment rule as pure functions over its own state, a pytree."""

    name: str
    k: int
    n: int
    learns_from_columns: bool  # `descend` does something, which takes critic="per_agent"
    pretraining: int  # environment steps that were spent on making it
    init: Callable[[Key], PyTree]
    weights: Callable[[PyTree], Array]  # assignment -> (k, n) float32, columns sum to 1
    descend: Callable[[Array, PyTree], PyTree]  # gradient (k, n) of the PPO losses in the weights, assignment -> assignment
    reassign: Callable[[Key, PyTree, Seen], tuple[PyTree, Succession]]
    glimpses: int = 0  # environments of each policy (B) whose stretches `reassign` wants to see
    watched: np.ndarray | None = None  # (m,) agents whose glimpses it wants; all n of them where not given
    slots: int = 0  # earlier policies that the trainer is to store for it if it can; which, says `Succession.kept`
    # assignment, what was seen -> labels (n,), parents (k,) as in `Succession`: what to judge a run by that is stopped here;
    # the present policies where not given
    conclude: Callable[[PyTree, Seen], tuple[Array, Array]] | None = None
    options: Mapping[str, Any] = MappingProxyType({})  # what its rules were made with, for config.json and result.json


First = Callable[[Key, int, int], Array]  # key, k, n -> labels (n,) int32


def round_robin(key: Key, k: int, n: int) -> Array:
    """Agent i with policy i mod k, labels (n,) int32."""
    del key
    return jnp.arange(n, dtype=jnp.int32) % k


def shuffled_even(key: Key, k: int, n: int) -> Array:
    """Agents shuffled into k groups whose sizes differ by at most one, labels (n,) int32."""
    return jax.random.permutation(key, round_robin(key, k, n))


def plain_em(k: int, n: int, *, warmup: int = 50, first: First = round_robin) -> Assigner:
    """Hard EM (Ivanov & Ben-Porat, 2024): after `warmup` M-steps on `first`, each agent moves to its best policy.

    An agent moves only to a policy that is strictly better, and a policy never loses its last agent.
    """
    check_sizes(k, n)

    def reassign(key: Key, labels: Array, seen: Seen) -> tuple[Array, Succession]:
        del key
        best = best_policies(seen.utility, labels)
        return jnp.where(seen.iteration + 1 >= warmup, best, labels), no_copies(k)

    options = {"warmup": warmup, "first": first.__name__}
    return fixed(k, n, first)._replace(name="plain_em", reassign=reassign, options=options)


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
        learns_from_columns=False,
        pretraining=0,
        init=lambda key: make(key, k, n).astype(jnp.int32),
        weights=lambda labels: jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32),
        descend=lambda gradient, labels: labels,
        reassign=lambda key, labels, seen: (labels, no_copies(k)),
    )


def random_even(k: int, n: int) -> Assigner:
    """The baseline `random`: k equal groups drawn once."""
    return fixed(k, n, shuffled_even)._replace(name="random")


def best_policies(utility: Array, labels: Array) -> Array:
    """The E-step: every agent's best policy, ties staying put, no policy left empty.

    Args:
        utility: (k, n) float32.
        labels: (n,) int32, the assignment so far; every policy must have an agent in it.

    Returns:
        Labels (n,) int32 of no less welfare. An abandoned policy keeps the one of its agents who loses least by staying.
    """
    k, n = utility.shape
    agents = jnp.arange(n)
    own, best = utility[labels, agents], utility.max(0)
    wish = jnp.where(best > own, utility.argmax(0).astype(jnp.int32), labels)
    member = labels[None] == jnp.arange(k, dtype=jnp.int32)[:, None]
    regret = jnp.where(member, jnp.minimum(best - own, jnp.finfo(utility.dtype).max)[None], jnp.inf)
    loyal = jax.nn.one_hot(regret.argmin(1), n, dtype=bool)  # (k, n), one member of each policy

    def empty(labels: Array) -> Array:
        return jnp.zeros(k, bool).at[labels].set(True) ^ True

    def call_back(_: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, chosen = now
        kept |= (loyal & empty(chosen)[:, None]).any(0)
        return kept, jnp.where(kept, labels, wish)

    # Whom one policy calls back may have been all that another had; k rounds are enough, and most often none is needed.
    start = (jnp.zeros(n, bool), wish)
    return jax.lax.cond(empty(wish).any(), lambda: jax.lax.fori_loop(0, k, call_back, start)[1], lambda: wish)


def harden(weights: Array) -> Array:
    """The policy with the largest weight for each agent, (k, n) -> labels (n,) int32."""
    return weights.argmax(0).astype(jnp.int32)


def no_copies(k: int) -> Succession:
    """Every policy goes on from itself, and none is stored."""
    return Succession(jnp.arange(k, dtype=jnp.int32))


def check_sizes(k: int, n: int) -> None:
    """Raise `ConfigError` unless every policy can have an agent."""
    if not 1 <= k <= n:
        raise ConfigError(f"k = {k}: must be from 1 to n = {n}, one policy per agent at most")


def _check_labels(labels: np.ndarray, k: int, n: int) -> None:
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"labels of shape {labels.shape}, {labels.dtype}: must be (n,) = ({n},) whole numbers")
    named = np.unique(labels).tolist()
    if named != list(range(k)):
        raise ConfigError(f"labels name policies {named}: each of 0..{k - 1} needs an agent")
