"""How fast is training, and where does the time go? Learning, acting and stepping alone, of the same batch in one run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import compile_timed, emit, machine, peak_memory_gib, seconds_per_call, show
from rmdp_jax import TrainConfig, em, make_trainer
from rmdp_jax.env import Env, EpisodeState, auto_reset, first_episodes, guard, make_starts
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.experience import Experience
from rmdp_jax.trainer import TrainState
from rmdp_jax.types import Key


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Transitions per second with learning, by acting alone, and by stepping the env alone with random actions."""

    env: str = "resource_gathering"
    k: int = 5
    n: int | None = None
    environments: int | None = None
    """Parallel environments of each policy; the preset's when not given."""
    unroll: int | None = None
    epochs: int | None = None
    minibatches: int | None = None
    backend: str | None = None
    repeats: int = 5
    quick: bool = False
    """Two iterations, two repeats."""


def step_alone(env: Env, config: TrainConfig) -> tuple[Callable[[Key], Any], Callable[[Any], Any]]:
    """Start of, and one unroll of, k x E environments under random actions: no policy, no rewards, no learning."""
    env, sizes = guard(env), config.sizes
    shape = (sizes.unroll, sizes.environments) + (() if env.spec.discrete else (env.spec.action_size,))

    def start(key: Key) -> tuple[EpisodeState, Key]:
        starts = make_starts(env, jax.random.split(key, sizes.environments))
        return first_episodes(env, starts), key

    def unroll(carry: tuple[EpisodeState, Key]) -> tuple[EpisodeState, Key]:
        states, key = carry
        key, start_key, action_key = jax.random.split(key, 3)
        stepping = auto_reset(env, make_starts(env, jax.random.split(start_key, sizes.environments)))
        if env.spec.discrete:
            actions = jax.random.randint(action_key, shape, 0, env.spec.action_size, jnp.int32)
        else:
            actions = jax.random.uniform(action_key, shape, jnp.float32, -1.0, 1.0)
        step = jax.vmap(stepping.step)
        return jax.lax.scan(lambda s, a: (step(s, a)[0], None), states, actions)[0], key

    return jax.vmap(start), jax.vmap(unroll)


def measure(arguments: Throughput) -> dict[str, Any]:
    """All rates of one configuration."""
    options: dict[str, Any] = {} if arguments.backend is None else {"backend": arguments.backend}
    env, population = make(arguments.env, n=arguments.n, **options)
    config = preset(arguments.env, k=arguments.k, n=population.n)
    asked = {name: getattr(arguments, name) for name in ("environments", "unroll", "epochs", "minibatches")}
    config = replace(config, sizes=replace(config.sizes, **{k: v for k, v in asked.items() if v is not None}))
    iterations, repeats = (2, 2) if arguments.quick else (10, arguments.repeats)
    trainer = make_trainer(env, population, config, em(config.k, config.n))

    def repeat(body: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda state: jax.lax.fori_loop(0, iterations, lambda _, s: body(s), state)

    key = jax.random.key(0)
    init, init_s = compile_timed(trainer.init, key)
    state = init(key)
    learn, compile_s = compile_timed(repeat(lambda s: trainer.step(s)[0]), state)
    collect, _ = compile_timed(repeat(lambda s: _advance(*trainer.collect(s))), state)
    learning_s, state = seconds_per_call(learn, state, repeats)
    acting_s, state = seconds_per_call(collect, state, repeats)
    start, unroll = step_alone(env, config)
    alone = jax.jit(start)(jax.random.split(key, config.k))
    stepping, _ = compile_timed(repeat(unroll), alone)
    stepping_s, _ = seconds_per_call(stepping, alone, repeats)
    number = iterations * config.k * config.sizes.transitions
    return {
        "benchmark": "throughput",
        "env": arguments.env,
        "backend": env.spec.backend,
        "k": config.k,
        "n": config.n,
        "environments": config.sizes.environments,
        "unroll": config.sizes.unroll,
        "epochs": config.sizes.epochs,
        "minibatches": config.sizes.minibatches,
        "transitions_per_s": round(number / learning_s),
        "acting_only_per_s": round(number / acting_s),
        "physics_only_per_s": round(number / stepping_s),
        "ratio_to_physics": round(stepping_s / learning_s, 4),
        "share_physics": round(stepping_s / learning_s, 4),
        "share_acting": round((acting_s - stepping_s) / learning_s, 4),
        "share_update": round((learning_s - acting_s) / learning_s, 4),
        "compile_s": round(compile_s + init_s, 2),
        "peak_memory_gib": peak_memory_gib(),
        **machine(),
    }


def _advance(state: TrainState, seen: Experience) -> TrainState:
    state, _ = jax.lax.optimization_barrier((state, seen))  # else what is not used would not be computed
    return state._replace(iteration=state.iteration + 1)


def main() -> None:
    """Measure, print."""
    line = measure(tyro.cli(Throughput, description=__doc__))
    emit(line)
    columns = ["k", "n", "E", "T", "learning", "acting", "env only", "update", "compile s"]
    names = ["k", "n", "environments", "unroll", "transitions_per_s", "acting_only_per_s", "physics_only_per_s"]
    row = [line[name] for name in names] + [f"{line['share_update']:.0%}", line["compile_s"]]
    show(f"{line['env']} ({line['backend']}): transitions a second, all policies", columns, [row])


if __name__ == "__main__":
    main()
