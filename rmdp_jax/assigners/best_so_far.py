"""The best k policies so far, which a run goes back to where it would end with less.

A relocation that segments promised may not pay, and a policy may fall late and not learn to stand again. So the k policies of
the highest welfare, by the running estimates of hard groups, are kept at the end of the archive. Twice a run goes back to them
if it is worse by `RISE` than they were: when relocations are over, so that they learn on, and in its last iteration.
"""

import jax.numpy as jnp

from rmdp_jax.assigners.base import EStepInput
from rmdp_jax.assigners.plain_em import best_policies
from rmdp_jax.assigners.restarts import LEARNS, LOWEST, RISE, exceeds
from rmdp_jax.types import Array


def nothing_kept() -> Array:
    """The welfare () of those that are kept, before there are any."""
    return jnp.float32(LOWEST)


def keep_better(kept: Array, welfare: Array, may: Array) -> tuple[Array, Array]:
    """Welfare () of those that are kept from now on, and whether () these are the present ones, which `may` be."""
    better = may & exceeds(welfare, kept, LEARNS)
    return jnp.where(better, welfare, kept), better


def had_more(kept: Array, welfare: Array) -> Array:
    """Whether () the kept ones were better."""
    return exceeds(kept, welfare, RISE)


def is_time_to_go_back(now: Array, iterations: Array, until: float) -> Array:
    """Whether () iteration `now` of so many is the first without relocations, from the share `until` on, or the last of all."""
    done, over = now.astype(jnp.float32), until * iterations
    return ((done >= over) & (done - 1.0 < over)) | (done >= iterations)


def go_back(goes: Array, labels: Array, sources: Array, inputs: EStepInput) -> tuple[Array, Array]:
    """Labels (n,) and sources (k,), where `goes` () those of the kept policies."""
    if inputs.archived is None:
        return labels, sources
    k, size = sources.size, inputs.archived.shape[0]
    served = best_policies(inputs.archived[-k:], labels, inputs.given.frozen, inputs.limits)
    return jnp.where(goes, served, labels), jnp.where(goes, size + jnp.arange(k, dtype=jnp.int32), sources)
