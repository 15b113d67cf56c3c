"""What do a second and a fiftieth `train` of the same shapes take in one process: seconds, programs in memory, memory?"""

import gc
import time
from dataclasses import dataclass, replace
from typing import Any

import jax
import tyro

from benchmarks.common import emit, machine, resident_mib, show
from rmdp_jax import Rates, Sizes, TrainConfig, clear_programs, em, train
from rmdp_jax.env import Env, Population
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.programs import kept_programs


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """One iteration a call: each has another seed, other rates and an env made anew."""

    env: str = "resource_gathering"
    k: int = 3
    calls: int = 50
    quick: bool = False
    """Four calls on 2 x 2 cells with two small policies."""


def task(arguments: Repeated) -> tuple[Env, Population, TrainConfig]:
    """Env and people, made anew, and settings of a short run."""
    if not arguments.quick:
        env, population = make(arguments.env)
        return env, population, preset(arguments.env, k=arguments.k, n=population.n, transitions=1, evaluation_episodes=1)
    env, population = make("resource_gathering", size=2)
    sizes = Sizes(environments=4, unroll=8, epochs=1, minibatches=2, hidden=(8,))
    return env, population, preset("resource_gathering", k=2, n=4, transitions=1, evaluation_episodes=1, sizes=sizes)


def call(arguments: Repeated, number: int) -> dict[str, Any]:
    """One call, and what there is after it."""
    env, population, config = task(arguments)
    rates = Rates(**{**vars(config.rates), "clip": 0.1 + 0.1 * (number % 7)})
    cpu, wall = time.process_time(), time.perf_counter()
    train(env, population, replace(config, seed=number, rates=rates), em(config.k, config.n), progress=False)
    seconds = {"cpu_s": round(time.process_time() - cpu, 3), "wall_s": round(time.perf_counter() - wall, 3)}
    gc.collect()
    executables = len(jax.devices()[0].client.live_executables())
    memory = {"resident_mib": round(resident_mib(), 1), "executables": executables, "kept_programs": kept_programs()}
    return {"benchmark": "repeated", "env": env.spec.name, "k": config.k, "call": number, **seconds, **memory}


def main() -> None:
    """A line a call, then the first few and the last."""
    arguments = tyro.cli(Repeated, description=__doc__)
    lines = []
    for number in range(1, (4 if arguments.quick else arguments.calls) + 1):
        lines.append({**call(arguments, number), **machine()})
        emit(lines[-1])
    columns = ["call", "cpu_s", "wall_s", "resident_mib", "executables", "kept_programs"]
    shown = [line for line in lines if line["call"] <= 3 or line["call"] % 10 == 0 or line is lines[-1]]
    clear_programs()
    gc.collect()
    after = ["cleared", "", "", round(resident_mib(), 1), len(jax.devices()[0].client.live_executables()), kept_programs()]
    show("calls of train in one process", columns, [*([line[column] for column in columns] for line in shown), after])


if __name__ == "__main__":
    main()
