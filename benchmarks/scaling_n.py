"""What do more agents cost? Seconds an iteration and peak memory for n = 100 .. 1,000,000, each in a process of its own."""

import statistics
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import jax

from benchmarks.common import compile_timed, emit, in_own_process, machine, peak_memory_gib, read_arguments, show
from rmdp_jax import em, make_trainer
from rmdp_jax.envs import make, preset

WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class ScalingN:
    """Iterations of `em` with the env's preset."""

    env: str = "halfcheetah_speed"
    k: int = 10
    ns: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    """Numbers of agents; all are compared with the first."""
    iterations: int = 20
    """Timed, after two to warm up; with one relocation in 20, as often as in training."""
    environments: int | None = None
    """Parallel environments of each policy; the preset's when not given."""
    quick: bool = False
    """n = 100 and 300, four iterations, eight environments."""


def measure(env_name: str, k: int, n: int, iterations: int, environments: int | None) -> dict[str, Any]:
    """Median and mean seconds of an iteration, peak memory and compile time with n agents."""
    env, population = make(env_name, n=n)
    config = preset(env_name, k=k, n=n)
    if environments is not None:
        config = replace(config, sizes=replace(config.sizes, environments=environments))
    trainer = make_trainer(env, population, config, em(k, n, explore=0, anneal=WARM_UP))
    state = jax.jit(trainer.init)(jax.random.key(0))
    step, compile_s = compile_timed(trainer.step, state, donate_argnums=0)
    times = []
    for _ in range(WARM_UP + iterations):
        begun = time.perf_counter()
        state, info = step(state)
        jax.block_until_ready((state, info.welfare))
        times.append(time.perf_counter() - begun)
    return {
        "environments": config.sizes.environments,
        "unroll": config.sizes.unroll,
        "backend": env.spec.backend,
        "iteration_s": round(statistics.median(times[WARM_UP:]), 5),
        "iteration_s_mean": round(statistics.fmean(times[WARM_UP:]), 5),  # with the relocation
        "compile_s": round(compile_s, 2),
        "peak_memory_gib": peak_memory_gib(),
        **machine(),
    }


def main() -> None:
    """A line for each n, then the table."""
    arguments = read_arguments(ScalingN, __doc__)
    ns, sizes = arguments.ns, (arguments.iterations, arguments.environments)
    if arguments.quick:
        ns, sizes = (100, 300), (4, 8)
    lines: list[dict[str, Any]] = []
    for n in ns:
        line: dict[str, Any] = {"benchmark": "scaling_n", "env": arguments.env, "k": arguments.k, "n": n}
        try:
            line |= in_own_process(measure, arguments.env, arguments.k, n, *sizes)
        except BrokenProcessPool:
            line["failed"] = "killed: out of memory?"
        else:
            first = lines[0] if lines else line
            for name in ("iteration_s", "iteration_s_mean"):
                line[f"{name}_ratio"] = round(line[name] / first[name], 3) if name in first else None
        emit(line)
        lines.append(line)
    names = ["iteration_s", "iteration_s_ratio", "iteration_s_mean_ratio", "peak_memory_gib", "compile_s"]
    rows = [[f"{line['n']:,}", *(line.get(name, "failed") for name in names)] for line in lines]
    columns = ["n", "s/iteration", f"x n={ns[0]}", "of means", "GiB", "compile s"]
    show(f"{arguments.env}, k = {arguments.k}: more agents", columns, rows)


if __name__ == "__main__":
    main()
