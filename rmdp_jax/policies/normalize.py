"""Running normalisation of observations, one set of statistics a policy; a value that may be nothing at all."""

import contextlib
import io
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.types import Array, PyTree, Scalar


class Normalizer(NamedTuple):
    """Pure functions over running statistics of one policy."""

    init: Callable[[], PyTree]
    update: Callable[[PyTree, Array, str | None], PyTree]  # statistics, observations (..., o), axis of a `vmap` to add up over
    apply: Callable[[PyTree, Array, Scalar], Array]  # statistics, observations (..., o), largest size
    moments: Callable[[PyTree], tuple[Array, Array] | None]  # what it subtracts (o,) and divides by (o,); None: nothing


def running_normalizer(observation_size: int) -> Normalizer:
    """Mean and deviation of everything seen, by brax's running statistics (imported here, brax takes seconds)."""
    with contextlib.redirect_stdout(io.StringIO()):  # brax says what it lacks, which would end up in JSON
        from brax.training.acme import running_statistics, specs

    def init() -> PyTree:
        statistics = running_statistics.init_state(specs.Array((observation_size,), jnp.dtype("float32")))
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.uint32 if isinstance(x, int) else jnp.float32), statistics)

    def update(statistics: PyTree, obs: Array, axis: str | None) -> PyTree:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            new = running_statistics.update(statistics, obs, pmap_axis_name=axis)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), new, statistics)

    def apply(statistics: PyTree, obs: Array, limit: Scalar) -> Array:
        with jax.numpy_rank_promotion("allow"):
            return jnp.clip(running_statistics.normalize(obs, statistics), -limit, limit)

    return Normalizer(init, update, apply, moments=lambda statistics: (statistics.mean, statistics.std))


def no_normalizer(observation_size: int) -> Normalizer:
    """Observations as they are."""
    del observation_size
    return Normalizer(
        init=lambda: (),
        update=lambda statistics, obs, axis: statistics,
        apply=lambda statistics, obs, limit: obs,
        moments=lambda statistics: None,
    )


NORMALIZERS = {True: running_normalizer, False: no_normalizer}
