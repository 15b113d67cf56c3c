"""How fast is training, and where does the time go? Learning, acting and stepping alone, of the same batch in one run.

Two limits stand beside it: the env alone, and the arithmetic of the update (6 operations for each weight and transition of an
epoch: 2 forward, 4 backward) by the rate of one large matrix product on the same device.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.common import (
    compile_timed,
    emit,
    in_own_process,
    machine,
    medians_in_turn,
    peak_memory_gib,
    read_arguments,
    show,
)
from benchmarks.physics import physics_of
from rmdp_jax import TrainConfig, em, make_trainer, random_even
from rmdp_jax.assigners.base import Assigner
from rmdp_jax.env import Env, EpisodeState, Population, auto_reset, first_episodes, guard, make_starts
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.learning.experience import Experience
from rmdp_jax.running.memory import nbytes
from rmdp_jax.trainer import TrainState
from rmdp_jax.types import Key

SIDE = 1024  # of the matrix that is multiplied by itself


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Transitions per second with learning, by acting alone, and by stepping the env alone with random actions.

    Several values of k, n and environments: a row for each combination, each in a process of its own. With
    --total-environments all rows are timed in turn in one process, so that their ratios hold; memory is then not known.
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
    """In one timed loop. A multiple of 20 has relocations as often as training has."""
    repeats: int = 5
    parts: bool = True
    """Also act alone, and train with fixed groups, which gives the time of the assignment; four more programs to compile."""
    quick: bool = False
    """Two iterations, two repeats."""

    @property
    def narrowed(self) -> "Throughput":
        """As --quick has it."""
        return replace(self, iterations=2, repeats=2) if self.quick else self


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


def resolve(arguments: Throughput, case: Case) -> tuple[Env, Population, TrainConfig]:
    """Task and settings of a row."""
    options: dict[str, Any] = {} if arguments.backend is None else {"backend": arguments.backend}
    env, population = make(arguments.env, n=case.n, **options)
    config = preset(arguments.env, k=case.k, n=population.n)
    asked = {name: getattr(arguments, name) for name in ("unroll", "epochs", "minibatches")}
    asked["environments"] = case.environments
    sizes = replace(config.sizes, **{name: value for name, value in asked.items() if value is not None})
    return env, population, replace(config, sizes=sizes)


class Prepared(NamedTuple):
    """What is timed of a row: each part a loop over states that are warm."""

    env: Env
    config: TrainConfig
    loops: dict[str, Callable[[Any], Any]]
    states: dict[str, Any]
    weights: int  # of one policy's networks
    compile_s: float  # of what learns
    peak_memory_gib: float


def prepare(arguments: Throughput, case: Case) -> Prepared:
    """All programs of one row, compiled and run once."""
    env, population, config = resolve(arguments, case)
    k, n, key = config.k, config.n, jax.random.key(0)
    loops: dict[str, Callable[[Any], Any]] = {}
    states: dict[str, Any] = {}

    def add(name: str, body: Callable[[Any], Any], state: Any) -> float:
        """A loop of `body`; seconds of compiling it."""
        number = arguments.narrowed.iterations
        loops[name], seconds = compile_timed(lambda s: jax.lax.fori_loop(0, number, lambda _, s: body(s), s), state)
        states[name] = jax.block_until_ready(loops[name](state))
        return seconds

    def add_learning(name: str, assigner: Assigner) -> float:
        trainer = make_trainer(env, population, config, assigner)
        init, init_s = compile_timed(trainer.init, key)
        return init_s + add(name, lambda s: trainer.step(s)[0], init(key))

    compile_s = add_learning("learning", em(k, n, explore=0, anneal=1))
    start, unroll = step_alone(env, config)
    add("stepping", unroll, jax.jit(start)(jax.random.split(key, k)))
    peak = peak_memory_gib()
    if arguments.parts:
        trainer = make_trainer(env, population, config, random_even(k, n))
        add("acting", lambda s: _advance(*trainer.collect(s)), jax.jit(trainer.init)(key))
        add_learning("groups", random_even(k, n))
        add("multiplying", lambda x: x @ x / SIDE, jnp.ones((SIDE, SIDE), jnp.float32))
    weights = nbytes(states["learning"].learner.params) // 4 // k
    return Prepared(env, config, loops, states, weights, compile_s, peak)


def measure(arguments: Throughput, group: list[Case]) -> list[dict[str, Any]]:
    """All rates of the rows of a group, timed in turn."""
    rows = [prepare(arguments, case) for case in group]
    calls, states = (
        {(i, name): value for i, row in enumerate(rows) for name, value in getattr(row, part).items()}
        for part in ("loops", "states")
    )
    seconds = medians_in_turn(calls, states, arguments.narrowed.repeats)
    lines = [describe(arguments, row, {name: seconds[i, name] for name in row.loops}) for i, row in enumerate(rows)]
    if len(rows) > 1:
        return [line | {"peak_memory_gib": None} for line in lines]  # that of one row cannot be measured
    return lines


def describe(arguments: Throughput, row: Prepared, seconds: dict[str, float]) -> dict[str, Any]:
    """The line of a row from the seconds of its loops."""
    k, sizes, learning_s = row.config.k, row.config.sizes, seconds["learning"]
    number = arguments.narrowed.iterations * k * sizes.transitions
    figures = {
        "transitions_per_s": round(number / learning_s),
        "physics_only_per_s": round(number / seconds["stepping"]),
        "ratio_to_physics": round(seconds["stepping"] / learning_s, 4),
    }
    if arguments.parts:
        parts = {
            "physics": seconds["stepping"],
            "acting": seconds["acting"] - seconds["stepping"],
            "update": seconds["groups"] - seconds["acting"],
            "assignment": learning_s - seconds["groups"],  # its segment returns, its archive and its relocations
        }
        operations = 6 * row.weights * sizes.epochs * number
        figures["update_gflop_per_s"] = round(operations / parts["update"] / 1e9, 1)
        figures["matmul_gflop_per_s"] = round(arguments.narrowed.iterations * 2 * SIDE**3 / seconds["multiplying"] / 1e9, 1)
        figures["acting_only_per_s"] = round(number / seconds["acting"])
        figures |= {f"share_{part}": round(taken / learning_s, 4) for part, taken in parts.items()}
    return {
        "benchmark": "throughput",
        "env": arguments.env,
        "backend": row.env.spec.backend,
        **physics_of(row.env.spec.backend),
        "k": k,
        "n": row.config.n,
        **{name: getattr(sizes, name) for name in ("environments", "unroll", "epochs", "minibatches")},
        **figures,
        "compile_s": round(row.compile_s, 2),
        "peak_memory_gib": row.peak_memory_gib,
        **machine(),
    }


def _advance(state: TrainState, seen: Experience) -> TrainState:
    state, _ = jax.lax.optimization_barrier((state, seen))  # else what is not used would not be computed
    return state._replace(iteration=state.iteration + 1)


def main() -> None:
    """Measure, print."""
    arguments = read_arguments(Throughput, __doc__)
    rows, lines = cases(arguments), list[dict[str, Any]]()
    for group in [rows] if arguments.total_environments else [[row] for row in rows]:
        for line in in_own_process(measure, arguments, group):
            line["ratio_to_first"] = round(line["transitions_per_s"] / (lines or [line])[0]["transitions_per_s"], 3)
            emit(line)
            lines.append(line)
    show_tables(lines)


def show_tables(lines: list[dict[str, Any]]) -> None:
    """Rates, and where the time goes."""
    title = f"{lines[0]['env']} ({lines[0]['backend']})"
    sizes = [[line[name] for name in ("k", "n", "environments")] for line in lines]
    rates = [
        [
            *size,
            *(f"{line[name]:,}" for name in ("transitions_per_s", "physics_only_per_s")),
            *(line[name] for name in ("ratio_to_physics", "ratio_to_first", "compile_s")),
            line["peak_memory_gib"] or "",
        ]
        for size, line in zip(sizes, lines, strict=True)
    ]
    columns = ["k", "n", "E", "learning", "env only", "ratio", "to 1st", "compile s", "GiB"]
    show(f"{title}: transitions a second of all policies", columns, rates)
    shares = [f"share_{part}" for part in ("physics", "acting", "update", "assignment")]
    if shares[0] in lines[0]:
        parts = [
            [*size, *(f"{line[share]:.0%}" for share in shares), line["update_gflop_per_s"], line["matmul_gflop_per_s"]]
            for size, line in zip(sizes, lines, strict=True)
        ]
        columns = ["k", "n", "E", "env", "acting", "update", "assignment", "update GFLOP/s", "of"]
        show(f"{title}: shares of the time, arithmetic of the update", columns, parts)


if __name__ == "__main__":
    main()
