"""What does the first compile of a run take, part by part? Programs as `train` makes them, compiled and never run.

Seconds are those of the processor (all threads), as clocks lie on a busy machine. Operations are those of the program that JAX
hands to XLA; kernels are what XLA makes of it. Each is compiled for itself, unless it equals another: that takes the time.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.common import emit, in_own_process, machine, show
from rmdp_jax import Evaluation, RunSpec, Sizes, TrainConfig, TrainState, em, plain_em, random_even
from rmdp_jax.assigners.base import Assigner
from rmdp_jax.env import Env, Population, served
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.evaluation.evaluate import evaluation_of
from rmdp_jax.running.batch import init_arguments, make_init, people_of, trainer_for
from rmdp_jax.running.loop import make_chunk
from rmdp_jax.trainer import policies_of

ASSIGNERS: dict[str, Callable[[int, int], Assigner]] = {
    "em": em,
    "em that does not explore": lambda k, n: em(k, n, explore=0),
    "plain_em": plain_em,
    "fixed groups": random_even,
}


TINY = Sizes(environments=4, unroll=8, epochs=1, minibatches=2, hidden=(8,))


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """Iterations with algorithms that leave parts out, the first state, evaluation: what each takes to compile."""

    envs: tuple[str, ...] = ("resource_gathering", "halfcheetah_speed")
    k: int = 5
    quick: bool = False
    """Resource Gathering on 2 x 2 cells with two small policies, fixed groups only."""


def task(arguments: Compiling, name: str) -> tuple[Env, Population, TrainConfig]:
    """What is compiled for."""
    if not arguments.quick:
        env, population = make(name)
        config = preset(name, k=arguments.k, n=population.n)
        return env, population, replace(config, sizes=replace(config.sizes, explore="in_turn"))  # so that all parts are there
    env, population = make(name, size=2)
    return env, population, preset(name, k=2, n=4, sizes=TINY)


def programs(arguments: Compiling, name: str) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Every part: its name, the function, and what the arguments are like."""
    env, population, config = task(arguments, name)
    number, labels, key = jax.eval_shape(lambda: (jnp.int32(0), jnp.zeros(config.n, jnp.int32), jax.random.key(0)))
    for label in ["fixed groups"] if arguments.quick else ASSIGNERS:
        run = RunSpec(population, config, ASSIGNERS[label](config.k, config.n))
        people, begun = people_of([run]), jax.eval_shape(partial(init_arguments, run))
        init = make_init(env, run)
        state = jax.eval_shape(init, people, begun)
        yield f"iterations, {label}", partial(iterate, env, run), (people, state, number)
        yield f"first state, {label}", init, (people, begun)
    for kind in ("as trained", "by mode"):
        known = people, policies_of(state), labels, key
        yield f"evaluation, {kind}", partial(judge, env, run, kind == "by mode"), known


def iterate(env: Env, run: RunSpec, people: Any, state: TrainState, number: Any) -> Any:
    """So many iterations, as `train` has them."""
    return make_chunk(trainer_for(env, run, people))(state, number)


def judge(env: Env, run: RunSpec, deterministic: bool, people: Any, *known: Any) -> Evaluation:
    """Fresh episodes, as `train` has them, but that none is kept."""
    population, episodes = served(run.population, people), run.config.evaluation_episodes
    return evaluation_of(env, population, run.config, episodes, deterministic, 0)(*known)


def measure(arguments: Compiling, name: str) -> list[dict[str, Any]]:
    """A line for each program."""
    lines = []
    for part, function, like in programs(arguments, name):
        begun = time.process_time()
        lowered = jax.jit(function).lower(*like)
        traced = time.process_time()
        text = lowered.compile().as_text() or ""
        done = time.process_time()
        costs = {
            "trace_cpu_s": round(traced - begun, 2),
            "compile_cpu_s": round(done - traced, 2),
            "operations": len(re.findall(r"^ +%.* = ", lowered.as_text(), re.M)),
            "instructions": len(re.findall(r"^ +(?:ROOT )?%?\S+ = ", text, re.M)),
            "kernels": len(re.findall(r" fusion\(", text)),
        }
        lines.append({"benchmark": "compiling", "env": name, "k": 2 if arguments.quick else arguments.k, "part": part, **costs})
    return lines


def main() -> None:
    """Measure, print."""
    arguments = tyro.cli(Compiling, description=__doc__)
    for name in ("resource_gathering",) if arguments.quick else arguments.envs:
        lines = in_own_process(measure, arguments, name)
        for line in lines:
            emit({**line, **machine()})
        columns = ["part", "trace_cpu_s", "compile_cpu_s", "operations", "instructions", "kernels"]
        show(f"{name}: the first compile", columns, [[line[column] for column in columns] for line in lines])


if __name__ == "__main__":
    main()
