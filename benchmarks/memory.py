"""How near is the memory that a run is said to take, before anything is compiled, to what XLA says of the compiled iteration?

XLA's is arguments, results and temporaries of the program that trains, less what shares a place; nothing is run. The estimate
is without the process and the evaluation, which comes when most of that is gone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import clean_exit, emit, machine, read_arguments, show
from benchmarks.depth import DEVICES, placed
from rmdp_jax import em, plain_em
from rmdp_jax.assigners.base import Assigner
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.errors import known_name
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.batch import init_arguments, make_init, people_of, trainer_for
from rmdp_jax.running.loop import make_chunk
from rmdp_jax.running.memory import estimate_memory
from rmdp_jax.trainer import TrainState
from rmdp_jax.types import Array, PyTree

ALGORITHMS: dict[str, Callable[[int, int], Assigner]] = {"em": em, "plain_em": plain_em}


@dataclass(frozen=True, kw_only=True)
class MemoryCheck:
    """A line for each k and n."""

    env: str = "resource_gathering"
    backend: str | None = None
    preset: str = "gpu"
    algorithm: str = "em"
    ks: tuple[int, ...] = (50,)
    ns: tuple[int, ...] = (100_000, 1_000_000)
    environments: int | None = None
    """Parallel environments of each policy; the preset's when not given."""
    target: str = "cpu"
    """cpu, h100 or a100; see `benchmarks.depth`."""
    quick: bool = False
    """k = 2, n = 25, few environments."""


def measure(arguments: MemoryCheck, k: int, n: int) -> dict[str, Any]:
    """One line."""
    options: dict[str, Any] = {} if arguments.backend is None else {"backend": arguments.backend}
    env, population = make(arguments.env, n=n, **options)
    config = preset(arguments.env, arguments.preset, k=k, n=n)
    if arguments.environments is not None:
        config = replace(config, sizes=replace(config.sizes, environments=arguments.environments))
    run = RunSpec(population, config, ALGORITHMS[arguments.algorithm](k, n))
    people = jax.eval_shape(lambda: people_of([run]))
    like = jax.eval_shape(make_init(env, run), people, jax.eval_shape(lambda: init_arguments(run)))

    def chunk(people: PyTree, state: TrainState, iterations: Array) -> Any:
        return make_chunk(trainer_for(env, run, people))(state, iterations)

    given = (people, like, jax.ShapeDtypeStruct((), jnp.int32))
    if arguments.target in DEVICES:
        given = placed(arguments.target, given)
    usage = jax.jit(chunk, donate_argnums=1).lower(*given).compile().memory_analysis()
    assert usage is not None
    xla = usage.argument_size_in_bytes + usage.temp_size_in_bytes + usage.output_size_in_bytes - usage.alias_size_in_bytes
    memory = estimate_memory(like, env.spec, population.agents, config)._replace(process=0, evaluation=0)
    return {
        "benchmark": "memory",
        **{"env": arguments.env, "backend": env.spec.backend, "preset": arguments.preset, "algorithm": arguments.algorithm},
        **{
            "k": k,
            "n": n,
            "environments": config.sizes.environments,
            "unroll": config.sizes.unroll,
            "target": arguments.target,
        },
        "xla_gib": round(xla / 2**30, 3),
        "estimated_gib": round(memory.total / 2**30, 3),
        "estimated_by_xla": round(memory.total / xla, 3),
        "parts_gib": {name: round(part / 2**30, 3) for name, part in memory._asdict().items() if part},
        "versions": machine()["versions"],
        "commit": machine()["commit"],
    }


def main() -> None:
    """Compile, compare, print."""
    arguments = read_arguments(MemoryCheck, __doc__)
    with clean_exit("memory"):
        known_name("target", arguments.target, {**DEVICES, "cpu": None})
        known_name("algorithm", arguments.algorithm, ALGORITHMS)
    if arguments.quick:
        arguments = MemoryCheck(ks=(2,), ns=(25,), environments=16)
    lines = []
    for k in arguments.ks:
        for n in arguments.ns:
            lines.append(measure(arguments, k, n))
            emit(lines[-1])
    names = ["k", "n", "environments", "xla_gib", "estimated_gib", "estimated_by_xla"]
    show(f"{arguments.env}, {arguments.target}", names, [[line[name] for name in names] for line in lines])


if __name__ == "__main__":
    main()
