"""How long does it take to give new people a policy of a finished run?"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import emit, machine, peak_memory_gib, read_arguments, show
from rmdp_jax import Limits, assign, random_even, train
from rmdp_jax.envs import make, preset
from rmdp_jax.records.loading import Run, load_run


@dataclass(frozen=True, kw_only=True)
class AssignMany:
    """`assign` on the episodes of a run of one iteration: what is scored is as much as after a whole one."""

    env: str = "halfcheetah_speed"
    k: int = 5
    agents: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Numbers of new agents."""
    limited: int = 10_000
    """Agents up to which the best assignment within limits is timed too: no policy serves more than 1.5 / k of them."""
    repeats: int = 3
    quick: bool = False
    """Resource Gathering with k = 2, for 100 and 300 agents."""


def new_agents(run: Run, number: int) -> np.ndarray:
    """Agents between those of the run."""
    own = np.asarray(run.population.agents)
    random = np.random.RandomState(1)
    if np.issubdtype(own.dtype, np.integer):
        return random.choice(own, number)
    return random.uniform(own.min(), own.max(), number).astype(own.dtype)


def measure(run: Run, number: int, arguments: AssignMany) -> dict[str, Any]:
    """Seconds of the first call, with what it compiles, and of the next; and seconds of all cores, whatever else they do."""
    agents, limits = new_agents(run, number), Limits(at_most=1.5 * number / run.config.k)
    times, cores = [], []
    for _ in range(1 + arguments.repeats):
        begun, of_cores = time.perf_counter(), time.process_time()
        found = assign(run, agents)
        times.append(time.perf_counter() - begun)
        cores.append(time.process_time() - of_cores)
    begun = time.perf_counter()
    within = assign(run, agents, limits=limits) if number <= arguments.limited else None
    limited_s = time.perf_counter() - begun
    return {
        "agents": number,
        "episodes": found.episodes,
        "steps": run.env.spec.episode_length,
        "first_s": round(times[0], 3),
        "assign_s": round(statistics.median(times[1:]), 3),
        "cpu_s": round(statistics.median(cores[1:]), 3),
        "limited_s": None if within is None else round(limited_s, 3),
        "mean": round(float(found.expected.mean()), 4),
        "limited_mean": None if within is None else round(float(within.expected.mean()), 4),
    }


def main() -> None:
    """A line for each number of agents, then the table."""
    arguments = read_arguments(AssignMany, __doc__)
    name, k, numbers = arguments.env, arguments.k, arguments.agents
    if arguments.quick:
        name, k, numbers = "resource_gathering", 2, (100, 300)
    env, population = make(name)
    config = preset(name, k=k, transitions=1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        train(env, population, config, random_even(k, config.n), out=Path(folder) / "run", progress=False)
        run = load_run(Path(folder) / "run", make)
        for number in numbers:
            line = {"benchmark": "assign", "env": name, "k": k, **measure(run, number, arguments)}
            emit({**line, "peak_memory_gib": peak_memory_gib(), **machine()})
            columns = ("agents", "episodes", "steps", "first_s", "assign_s", "cpu_s", "limited_s", "mean", "limited_mean")
            rows.append(["-" if line[column] is None else line[column] for column in columns])
    names = ["agents", "episodes", "steps", "1st s", "s", "CPU s", "in limits s", "mean", "in limits"]
    show(f"{name}, k = {k}: new agents", names, rows)


if __name__ == "__main__":
    main()
