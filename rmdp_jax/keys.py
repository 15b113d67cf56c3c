"""Random keys, each used once."""

from collections.abc import Callable

import jax

from rmdp_jax.types import Key, PyTree


def scan_keys(
    step: Callable[[PyTree, Key], tuple[PyTree, PyTree]], carry: PyTree, key: Key, number: int
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` of ``step(carry, key)`` over as many keys split from `key`.

    They go through the scan as data: under `vmap` the axis of steps is moved to the front, and JAX's own check for keys
    that are used twice (JAX_DEBUG_KEY_REUSE) takes every transposed key for a used one.
    """
    kind = jax.random.key_impl(key)
    keys = jax.random.key_data(jax.random.split(key, number))
    return jax.lax.scan(lambda carry, data: step(carry, jax.random.wrap_key_data(data, impl=kind)), carry, keys)
