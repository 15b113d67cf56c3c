"""How fast is training, and where does the time go? Learning, acting and stepping alone, of the same batch in one run."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import compile_timed, emit, in_own_process, machine, peak_memory_gib, seconds_per_call, show
from rmdp_jax import TrainConfig, em, make_trainer, random_even
from rmdp_jax.assign import Assigner
from rmdp_jax.env import Env, EpisodeState, Population, auto_reset, first_episodes, guard, make_starts
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.experience import Experience
from rmdp_jax.trainer import TrainState
from rmdp_jax.types import Key


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Transitions per second with learning, by acting alone, and by stepping the env alone with random actions.

    Several values of k, n and environments: a row for each combination, each in a process of its own.
    """

    env: str = "resource_gathering"
    k: tuple[int, ...] = (5,)
    n: tuple[int, ...] = ()
    environments: tuple[int, ...] = ()
    """Parallel environments of each policy; the preset's when not given."""
    total_environments: int | None = None
    """Parallel environments of all policies; takes the place of --environments."""
    unroll: int | None = None
    epochs: int | None = None
    minibatches: int | None = None
    backend: str | None = None
    iterations: int = 20
    """In one timed loop. A multiple of 20 has the choices of places as often as training has."""
    repeats: int = 5
    parts: bool = True
    """Also act alone, and train with fixed groups, which tells the time of the assignment; three more programs to compile."""
    quick: bool = False
    """Two iterations, two repeats."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row."""

    k: int
    n: int | None
    environments: int | None


def cases(arguments: Throughput) -> list[Case]:
    """All rows that were asked for."""
    ns: tuple[int | None, ...] = arguments.n or (None,)
    total = arguments.total_environments
    if total is not None:
        for k in arguments.k:
            if total % k:
                raise SystemExit(f"total_environments = {total}: must be a multiple of k = {k}")
        return [Case(k=k, n=n, environments=total // k) for k, n in itertools.product(arguments.k, ns)]
    environments: tuple[int | None, ...] = arguments.environments or (None,)
    return [Case(k=k, n=n, environments=e) for k, n, e in itertools.product(arguments.k, ns, environments)]


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


def settle(arguments: Throughput, case: Case) -> tuple[Env, Population, TrainConfig]:
    """Task and settings of a row."""
    options: dict[str, Any] = {} if arguments.backend is None else {"backend": arguments.backend}
    env, population = make(arguments.env, n=case.n, **options)
    config = preset(arguments.env, k=case.k, n=population.n)
    asked = {name: getattr(arguments, name) for name in ("unroll", "epochs", "minibatches")}
    asked["environments"] = case.environments
    sizes = replace(config.sizes, **{name: value for name, value in asked.items() if value is not None})
    return env, population, replace(config, sizes=sizes)


def measure(arguments: Throughput, case: Case) -> dict[str, Any]:
    """All rates of one row."""
    env, population, config = settle(arguments, case)
    k, n, sizes = config.k, config.n, config.sizes
    iterations, repeats = (2, 2) if arguments.quick else (arguments.iterations, arguments.repeats)
    key = jax.random.key(0)

    def time_loop(body: Callable[[Any], Any], state: Any) -> tuple[float, float]:
        """Median seconds of a loop of `body`, and of compiling it."""
        loop, compile_s = compile_timed(lambda s: jax.lax.fori_loop(0, iterations, lambda _, s: body(s), s), state)
        return seconds_per_call(loop, state, repeats)[0], compile_s

    def time_learning(assigner: Assigner) -> tuple[float, float]:
        """Median seconds of learning, and of compiling what learns."""
        trainer = make_trainer(env, population, config, assigner)
        init, init_s = compile_timed(trainer.init, key)
        learning_s, compile_s = time_loop(lambda s: trainer.step(s)[0], init(key))
        return learning_s, init_s + compile_s

    learning_s, compile_s = time_learning(em(k, n, anneal=1))
    start, unroll = step_alone(env, config)
    stepping_s, _ = time_loop(unroll, jax.jit(start)(jax.random.split(key, k)))
    peak = peak_memory_gib()
    number = iterations * k * sizes.transitions
    told = {
        "transitions_per_s": round(number / learning_s),
        "physics_only_per_s": round(number / stepping_s),
        "ratio_to_physics": round(stepping_s / learning_s, 4),
    }
    if arguments.parts:
        groups = random_even(k, n)
        trainer = make_trainer(env, population, config, groups)
        acting_s, _ = time_loop(lambda s: _advance(*trainer.collect(s)), jax.jit(trainer.init)(key))
        groups_s, _ = time_learning(groups)
        parts = {
            "physics": stepping_s,
            "acting": acting_s - stepping_s,
            "update": groups_s - acting_s,
            "assignment": learning_s - groups_s,  # its glimpses, its store and its choices
        }
        told["acting_only_per_s"] = round(number / acting_s)
        told |= {f"share_{part}": round(seconds / learning_s, 4) for part, seconds in parts.items()}
    return {
        "benchmark": "throughput",
        "env": arguments.env,
        "backend": env.spec.backend,
        "k": k,
        "n": n,
        **{name: getattr(sizes, name) for name in ("environments", "unroll", "epochs", "minibatches")},
        **told,
        "compile_s": round(compile_s, 2),
        "peak_memory_gib": peak,
        **machine(),
    }


def _advance(state: TrainState, seen: Experience) -> TrainState:
    state, _ = jax.lax.optimization_barrier((state, seen))  # else what is not used would not be computed
    return state._replace(iteration=state.iteration + 1)


def main() -> None:
    """Measure, print."""
    arguments = tyro.cli(Throughput, description=__doc__)
    lines: list[dict[str, Any]] = []
    for case in cases(arguments):
        line = in_own_process(measure, arguments, case)
        line["ratio_to_first"] = round(line["transitions_per_s"] / (lines or [line])[0]["transitions_per_s"], 3)
        emit(line)
        lines.append(line)
    names = ["k", "n", "environments", "transitions_per_s", "physics_only_per_s", "ratio_to_first"]
    shares = [f"share_{part}" for part in ("physics", "acting", "update", "assignment")]
    rows = []
    for line in lines:
        told = [f"{line[share]:.0%}" if share in line else "" for share in shares]
        rows.append([*(line[name] for name in names), *told, line["compile_s"], line["peak_memory_gib"]])
    columns = ["k", "n", "E", "learning", "env only", "to 1st", "env", "acting", "update", "assign", "compile", "GiB"]
    show(f"{lines[0]['env']} ({lines[0]['backend']}): transitions a second of all policies, shares", columns, rows)


if __name__ == "__main__":
    main()
