"""The smallest real run: 2 policies for the 4 agents of a 2x2 grid, 20 iterations."""

import os
import shlex
import signal

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax import Env, Population, Sizes, TrainConfig
from rmdp_jax.envs import make

K, N, ITERATIONS = 2, 4, 20
SIZES = Sizes(environments=4, unroll=8, epochs=2, minibatches=2, hidden=(8,))
CONFIG = TrainConfig(
    k=K, n=N, seed=3, transitions=ITERATIONS * SIZES.transitions, log_every=5, evaluation_episodes=8, sizes=SIZES
)
FLAGS = shlex.split("--environments 4 --unroll 8 --epochs 2 --minibatches 2 --hidden 8 --log-every 5 --evaluation-episodes 8")
COMMAND = [*shlex.split("train resource_gathering --algorithm plain_em --size 2 --k 2 --transitions 640"), *FLAGS]
CLOCKS = ("wall_s", "transitions_per_s", "compile_s")  # what two equal runs may differ in


def make_tiny() -> tuple[Env, Population]:
    return make("resource_gathering", size=2)


def leaves(tree):
    """Leaves as numpy arrays, keys as the data behind them."""
    for leaf in jax.tree.leaves(tree):
        yield np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def assert_same(a, b):
    """Bit for bit, structure too."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def timeless(line):
    """A line of metrics, or a result, without what clocks say."""
    return {name: value for name, value in line.items() if name not in CLOCKS}


def stop_at(iteration, number=signal.SIGINT):
    """Ctrl-C, pressed when the line of this iteration is logged."""
    return lambda line: os.kill(os.getpid(), number) if line["iteration"] == iteration else None
