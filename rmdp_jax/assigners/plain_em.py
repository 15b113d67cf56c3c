"""Hard EM (Ivanov & Ben-Porat, 2024) and its E-step: every agent moves to its best policy."""

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assigners.base import Assigner, Copies, EStepInput, check_sizes, no_copies
from rmdp_jax.assigners.exchange import best_within, nearest_within
from rmdp_jax.assigners.fixed import First, fixed, name_of, round_robin
from rmdp_jax.errors import MOST_ITERATIONS, whole_number
from rmdp_jax.limits import Loads
from rmdp_jax.types import Array, Key

WARMUP = 50  # iterations


def plain_em(k: int, n: int, *, warmup: int | None = None, first: First = round_robin) -> Assigner:
    """Hard EM (Ivanov & Ben-Porat, 2024): after `warmup` M-steps agents move to their best policy.

    That is `WARMUP`, half of the run at most, when not given. They begin with `first`. An agent moves only to a policy that is
    strictly better, and a policy never loses its last agent. Where policies have limits agents have the best assignment within
    them, and `first` the nearest.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    k, n = check_sizes(k, n)
    if warmup is not None and not isinstance(warmup, jax.core.Tracer):  # it fixes no shapes, so it may be traced
        warmup = whole_number("warmup", warmup, 0, MOST_ITERATIONS)

    def reassign(key: Key, labels: Array, inputs: EStepInput) -> tuple[Array, Copies]:
        del key
        labels = labels if inputs.limits is None else nearest_within(labels, inputs.limits)
        best = best_policies(inputs.utility, labels, inputs.given.frozen, inputs.limits)
        now = (inputs.iteration + 1).astype(jnp.float32)
        half = now / (2.0 * inputs.progress)  # of the run's iterations
        begins = jnp.minimum(WARMUP, half) if warmup is None else jnp.float32(warmup)
        return jnp.where(now >= begins, best, labels), no_copies(k)

    options = {"warmup": WARMUP if warmup is None else warmup, "first": name_of(first)}
    return fixed(k, n, first)._replace(name="plain_em", reassign=reassign, options=options, takes_given=True, takes_limits=True)


def best_policies(utility: Array, labels: Array, frozen: int = 0, limits: Loads | None = None) -> Array:
    """The E-step: every agent's best policy, no policy that learns left empty.

    Ties: an agent stays where no other policy is strictly better; among several better ones it takes the first of the best.

    Args:
        utility: (k, n) float32.
        labels: (n,) int32, the assignment so far; every policy that learns must have an agent in it.
        frozen: the first so many policies learn nothing, so they need no agents.
        limits: of the agents of each policy, in place of all that; see `best_within`.

    Returns:
        Labels (n,) int32 of no less welfare. An abandoned policy keeps the agent (the first of several) that
        loses least by staying.
    """
    if limits is not None:
        return best_within(utility, labels, limits)
    k, n = utility.shape
    agents = jnp.arange(n)
    own, best = utility[labels, agents], utility.max(0)
    # strictly better, so that ties stay put
    preferred = jnp.where(best > own, utility.argmax(0).astype(jnp.int32), labels)
    member = labels[None] == jnp.arange(k, dtype=jnp.int32)[:, None]
    regret = jnp.where(member, jnp.minimum(best - own, jnp.finfo(utility.dtype).max)[None], jnp.inf)
    fallback = jax.nn.one_hot(regret.argmin(1), n, dtype=bool)  # (k, n), one member of each policy

    def empty(labels: Array) -> Array:
        return (jnp.zeros(k, bool).at[labels].set(True) ^ True) & (np.arange(k) >= frozen)

    def retain(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        retained, chosen = carry
        retained |= (fallback & empty(chosen)[:, None]).any(0)
        return retained, jnp.where(retained, labels, preferred)

    # An agent retained by one policy may be the last of another; k rounds suffice, and mostly none is needed.
    start = (jnp.zeros(n, bool), preferred)
    return jax.lax.cond(empty(preferred).any(), lambda: jax.lax.fori_loop(0, k, retain, start)[1], lambda: preferred)
