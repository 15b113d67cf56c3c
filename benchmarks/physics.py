"""Physics alone: control steps of one body a second by a backend, under random actions, at growing numbers of environments.

No env around it, no episodes, no policies: what training on this backend cannot be faster than.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import compile_timed, emit, machine, peak_memory_gib, read_arguments, seconds_per_call, show
from rmdp_jax.envs import native
from rmdp_jax.envs.speed import BACKENDS, BODIES, load_body
from rmdp_jax.errors import known_name


@dataclass(frozen=True, kw_only=True)
class Physics:
    """A row for each number of environments."""

    body: str = "halfcheetah"
    backend: str = "mjx"
    environments: tuple[int, ...] = (4096,)
    unroll: int = 16
    """Control steps in one timed loop."""
    repeats: int = 3
    quick: bool = False
    """Two environments, two steps, one repeat."""


def step_of(
    body: str, backend: str, model: str = "brax"
) -> tuple[Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]], Any]:
    """One control step of many worlds, (E, nq), (E, nv), (E, nu) -> (E, nq), (E, nv), and the brax env of the body."""
    env = load_body(body, backend, model)

    def step(q: jax.Array, qd: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        after = env.pipeline_step(env.pipeline_init(q, qd), action)
        return after.q, after.qd

    return jax.vmap(step), env


def physics_of(backend: str) -> dict[str, int]:
    """Settings of a backend that lines record; lines from before the rounds were recorded had 50."""
    return {"line_search": native.LINE_SEARCH} if backend == "mjx" else {}


def still(env: Any, worlds: int) -> tuple[jax.Array, jax.Array]:
    """Positions (E, nq) and velocities (E, nv) of so many worlds at the start."""
    q = jnp.tile(jnp.asarray(env.sys.init_q, jnp.float32), (worlds, 1))
    return q, jnp.zeros((worlds, env.sys.qd_size()), jnp.float32)


def measure(body: str, backend: str, environments: int, unroll: int, repeats: int) -> dict[str, Any]:
    """Rate and memory of one number of environments."""
    step, env = step_of(body, backend)

    def run(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        q, qd, key = carry
        key, action_key = jax.random.split(key)
        actions = jax.random.uniform(action_key, (unroll, environments, env.action_size), jnp.float32, -1.0, 1.0)
        (q, qd), _ = jax.lax.scan(lambda state, action: (step(*state, action), None), (q, qd), actions)
        return q, qd, key

    begin = (*still(env, environments), jax.random.key(0))
    compiled, compile_s = compile_timed(run, begin)
    seconds, (q, _, _) = seconds_per_call(compiled, begin, repeats)
    return {
        "benchmark": "physics",
        "body": body,
        "backend": backend,
        **physics_of(backend),
        "environments": environments,
        "physics_only_per_s": round(environments * unroll / seconds),
        "finite": bool(jnp.isfinite(q).all()),
        "compile_s": round(compile_s, 2),
        "peak_memory_gib": peak_memory_gib(),
        **machine(),
    }


def main() -> None:
    """Measure, print."""
    arguments = read_arguments(Physics, __doc__)
    known_name("body", arguments.body, BODIES)
    known_name("backend", arguments.backend, BACKENDS)
    environments, sizes = arguments.environments, (arguments.unroll, arguments.repeats)
    if arguments.quick:
        environments, sizes = (2,), (2, 1)
    lines = []
    for number in environments:
        lines.append(measure(arguments.body, arguments.backend, number, *sizes))
        emit(lines[-1])
    names = ["backend", "environments", "physics_only_per_s", "compile_s", "peak_memory_gib"]
    show(f"{arguments.body}: control steps a second", names, [[line[name] for name in names] for line in lines])


if __name__ == "__main__":
    main()
