"""Axis legend and type aliases, shared by every module.

Axes, in the order in which they appear in a shape:

    k   policies: always the first axis. Per-policy code has no k; the trainer vmaps it.
    T   environment steps of one unroll
    E   parallel environments of one policy
    o   observation features
    a   action components (absent when actions are discrete)
    c   value columns of the critic: 1 ("mixed") or n ("per_agent")
    n   agents, the people with a reward function each: always the last axis

Seeds are one more ``vmap`` outside everything.
"""

from typing import Any

import jax

Array = jax.Array
Key = jax.Array  # a typed key, made by jax.random.key
PyTree = Any
Scalar = jax.Array | float  # () float32, or a number that becomes one
