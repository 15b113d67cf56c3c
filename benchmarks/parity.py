"""How far is a step on this device from C MuJoCo in float64? One control step from equal states, by backend and precision.

States are of rollouts under random actions by C MuJoCo on the CPU. A difference is of positions and velocities, in units of
1 + |value|; that of a world is its largest. MuJoCo in TF32, a GPU's default for products of matrices, is wrong.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import emit, machine, show
from rmdp_jax.envs.speed import BACKENDS, BODIES, load_body
from rmdp_jax.errors import known_name


@dataclass(frozen=True, kw_only=True)
class Parity:
    """A row for each backend and precision of matrix products."""

    body: str = "halfcheetah"
    backends: tuple[str, ...] = ("mjx",)
    precisions: tuple[str, ...] = ("highest", "default")
    worlds: int = 512
    steps: int = 25
    """Of the rollouts before the one that is compared."""
    quick: bool = False
    """Four worlds, two steps, the first precision."""


def step_of(body: str, backend: str) -> Any:
    """One control step of every world, jitted: q, qd, action -> q, qd."""
    env = load_body(body, backend)

    def step(q: jax.Array, qd: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        after = env.pipeline_step(env.pipeline_init(q, qd), action)
        return after.q, after.qd

    return jax.jit(jax.vmap(step)), env


def main() -> None:
    """Measure, print."""
    arguments = tyro.cli(Parity, description=__doc__)
    known_name("body", arguments.body, BODIES)
    for backend in arguments.backends:
        known_name("backend", backend, BACKENDS)
    worlds, steps = (4, 2) if arguments.quick else (arguments.worlds, arguments.steps)
    truth, env = step_of(arguments.body, "native")
    generator = np.random.RandomState(0)
    states = (np.tile(env.sys.init_q, (worlds, 1)).astype(np.float32), np.zeros((worlds, env.sys.qd_size()), np.float32))
    for _ in range(steps + 1):
        before = (*states, generator.uniform(-1, 1, (worlds, env.action_size)).astype(np.float32))
        states = truth(*before)
    expected = jnp.concatenate(states, 1)
    lines = []
    for backend in arguments.backends:
        for precision in arguments.precisions[:1] if arguments.quick else arguments.precisions:
            with jax.default_matmul_precision(precision):
                told = jnp.concatenate(step_of(arguments.body, backend)[0](*before), 1)
                difference = np.asarray((jnp.abs(told - expected) / (1.0 + jnp.abs(expected))).max(1))
                line = {
                    "benchmark": "parity",
                    **{"body": arguments.body, "backend": backend, "precision": precision, "worlds": worlds},
                    **{f"difference_{p}": float(np.percentile(difference, p)) for p in (50, 99, 100)},
                    **machine(),
                }
            emit(line)
            lines.append(line)
    names = ["backend", "precision", "difference_50", "difference_99", "difference_100"]
    rows = [[*(line[name] for name in names[:2]), *(f"{line[name]:.1e}" for name in names[2:])] for line in lines]
    show(f"{arguments.body}: one step against C MuJoCo in float64", names, rows)


if __name__ == "__main__":
    main()
