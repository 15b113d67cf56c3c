"""How far is a step on this device from C MuJoCo in float64? One control step from equal states, by backend and precision.

States are of rollouts under random actions by C MuJoCo on the CPU. A difference is of positions and velocities, in units of
1 + |value|; that of a world is its largest. MuJoCo in TF32, a GPU's default for products of matrices, is wrong.
"""

from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import emit, machine, read_arguments, show
from benchmarks.physics import physics_of, step_of, still
from rmdp_jax.envs import native
from rmdp_jax.envs.speed import BACKENDS, BODIES, MODELS
from rmdp_jax.errors import known_name


@dataclass(frozen=True, kw_only=True)
class Parity:
    """A row for each backend and precision of matrix products."""

    body: str = "halfcheetah"
    model: str = "brax"
    """brax or gymnasium."""
    backends: tuple[str, ...] = ("mjx",)
    precisions: tuple[str, ...] = ("highest", "default")
    line_search: tuple[int, ...] = ()
    """Rounds of MJX's line search at most; what envs take when not given."""
    worlds: int = 512
    steps: int = 25
    """Of the rollouts before the one that is compared."""
    quick: bool = False
    """Four worlds, two steps, the first precision."""


def main() -> None:
    """Measure, print."""
    arguments = read_arguments(Parity, __doc__)
    known_name("body", arguments.body, BODIES)
    known_name("model", arguments.model, MODELS)
    for backend in arguments.backends:
        known_name("backend", backend, BACKENDS)
    worlds, steps = (4, 2) if arguments.quick else (arguments.worlds, arguments.steps)
    step, env = step_of(arguments.body, "native", arguments.model)
    truth, states = jax.jit(step), still(env, worlds)
    generator = np.random.RandomState(0)
    for _ in range(steps + 1):
        before = (*states, generator.uniform(-1, 1, (worlds, env.action_size)).astype(np.float32))
        states = truth(*before)
    expected = jnp.concatenate(states, 1)
    lines = []
    precisions = arguments.precisions[:1] if arguments.quick else arguments.precisions
    for backend, precision, rounds in product(arguments.backends, precisions, arguments.line_search or (native.LINE_SEARCH,)):
        native.LINE_SEARCH = rounds
        with jax.default_matmul_precision(precision):
            found = jnp.concatenate(jax.jit(step_of(arguments.body, backend, arguments.model)[0])(*before), 1)
            difference = np.asarray((jnp.abs(found - expected) / (1.0 + jnp.abs(expected))).max(1))
            line = {
                "benchmark": "parity",
                **{
                    "body": arguments.body,
                    "model": arguments.model,
                    "backend": backend,
                    "precision": precision,
                    "worlds": worlds,
                    "steps": steps,
                },
                **physics_of(backend),
                **{f"difference_{p}": float(np.percentile(difference, p)) for p in (50, 99, 100)},
                **machine(),
            }
        emit(line)
        lines.append(line)
    names = ["backend", "precision", "line_search", "difference_50", "difference_99", "difference_100"]
    rows = [[*(line.get(name, "") for name in names[:3]), *(f"{line[name]:.1e}" for name in names[3:])] for line in lines]
    show(f"{arguments.body}: one step against C MuJoCo in float64", names, rows)


if __name__ == "__main__":
    main()
