"""Physics alone by an implementation of MJX: `jax`, or `warp` where warp-lang is installed and there is a CUDA device.

Steps of the body's model from its initial state under random actions, without the env around it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import compile_timed, emit, machine, peak_memory_gib, seconds_per_call, show
from rmdp_jax.envs.speed import BODIES, load_body

CONTACTS = 32  # of one world, and constraints: what warp reserves memory for
CONSTRAINTS = 128


@dataclass(frozen=True, kw_only=True)
class MjxImpl:
    """Control steps a second of one body."""

    body: str = "halfcheetah"
    impl: Literal["jax", "warp"] = "warp"
    environments: int = 2560
    unroll: int = 16
    repeats: int = 3
    quick: bool = False
    """Two environments, two steps, one repeat."""


def measure(body: str, impl: str, environments: int, unroll: int, repeats: int) -> dict[str, Any]:
    """Rate and memory of one implementation."""
    from rmdp_jax.envs.brax_adapter import quiet

    with quiet():
        from mujoco import mjx

        env = load_body(body, "mjx")
        model = mjx.put_model(env.sys.mj_model, impl=impl)
        sizes = {} if impl == "jax" else {"naconmax": CONTACTS * environments, "njmax": CONSTRAINTS}
        blank = mjx.make_data(env.sys.mj_model, impl=impl, **sizes)
    data = jax.vmap(lambda q: blank.replace(qpos=q))(jnp.tile(jnp.asarray(env.sys.init_q, jnp.float32), (environments, 1)))

    def advance(data: Any, action: jax.Array) -> tuple[Any, None]:
        def substep(data: Any, _: None) -> tuple[Any, None]:
            return jax.vmap(lambda one, ctrl: mjx.step(model, one.replace(ctrl=ctrl)))(data, action), None

        return jax.lax.scan(substep, data, None, env._n_frames)[0], None

    def run(carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        data, key = carry
        key, action_key = jax.random.split(key)
        shape = (unroll, environments, env.action_size)
        actions = jax.random.uniform(action_key, shape, jnp.float32, -1.0, 1.0)
        return jax.lax.scan(advance, data, actions)[0], key

    start = (data, jax.random.key(0))
    compiled, compile_s = compile_timed(run, start)
    seconds, (after, _) = seconds_per_call(compiled, start, repeats)
    return {
        "benchmark": "mjx_impl",
        "env": body,
        "backend": f"mjx {impl}, physics only",
        "environments": environments,
        "physics_only_per_s": round(environments * unroll / seconds),
        "finite": bool(jnp.isfinite(after.qpos).all()),
        "compile_s": round(compile_s, 2),
        "peak_memory_gib": peak_memory_gib(),
        **machine(),
    }


def main() -> None:
    """Measure, print."""
    arguments = tyro.cli(MjxImpl, description=__doc__)
    if arguments.body not in BODIES:
        raise SystemExit(f"body = {arguments.body}: must be one of {', '.join(BODIES)}")
    sizes = (2, 2, 1) if arguments.quick else (arguments.environments, arguments.unroll, arguments.repeats)
    line = measure(arguments.body, arguments.impl, *sizes)
    emit(line)
    names = ["backend", "environments", "physics_only_per_s", "compile_s", "peak_memory_gib"]
    show(f"{arguments.body}: control steps a second", names, [[line[name] for name in names]])


if __name__ == "__main__":
    main()
