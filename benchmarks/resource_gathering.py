"""Welfare by number of policies on Resource Gathering, next to the proved optimum; seeds are vmapped."""

import time
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import emit, machine, show, standard_error
from rmdp_jax import TrainConfig, make_evaluate, make_trainer
from rmdp_jax.algorithms import make_plan
from rmdp_jax.assign import harden
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.trainer import policies


@dataclass(frozen=True, kw_only=True)
class ResourceGathering:
    """Mean and standard error over seeds, fresh episodes acting as trained."""

    ks: str = "1,2,3,5,10,25"
    """Numbers of policies, separated by commas."""
    seeds: int = 5
    transitions: int = 1_000_000
    """Per policy."""
    algorithm: Literal["em", "end_to_end", "random", "oracle"] = "em"
    quick: bool = False
    """Two seeds, k = 2, 20,000 transitions."""


def run_seeds(config: TrainConfig, algorithm: str, seeds: int) -> dict[str, Any]:
    """Train `seeds` runs in one program and judge each by fresh episodes."""
    env, population = make("resource_gathering", n=config.n)
    config, assigner = make_plan(algorithm, env, population, config)
    trainer = make_trainer(env, population, config, assigner)
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seed, config.seed + seeds, dtype=jnp.uint32))
    begun = time.perf_counter()

    def learn(key: jax.Array) -> tuple[Any, jax.Array]:
        state = trainer.init(key)
        state = jax.lax.fori_loop(0, config.iterations, lambda _, s: trainer.step(s)[0], state)
        return policies(state), harden(assigner.weights(state.assignment))

    def judge(deterministic: bool) -> list[float]:
        evaluate = make_evaluate(env, population, config, deterministic=deterministic)
        judged = jax.vmap(lambda key, it: evaluate(it[0], it[1], jax.random.fold_in(key, 0xE7A1)).welfare)
        return np.asarray(jax.jit(judged)(keys, learned)).tolist()

    learned = jax.block_until_ready(jax.jit(jax.vmap(learn))(keys))
    wall_s = time.perf_counter() - begun
    sampled, modal = judge(deterministic=False), judge(deterministic=True)
    bound = population.upper_bound(config.k)
    assert bound is not None
    optimum = env.spec.reference_scale * bound
    return {
        "benchmark": "resource_gathering",
        "algorithm": algorithm,
        "k": config.k,
        "n": config.n,
        "seeds": seeds,
        "transitions_per_policy": config.iterations * config.sizes.transitions,
        "welfare": [round(value, 3) for value in sampled],
        "welfare_mean": round(float(np.mean(sampled)), 3),
        "welfare_standard_error": round(standard_error(sampled), 3),
        "welfare_deterministic_mean": round(float(np.mean(modal)), 3),
        "optimum": round(optimum, 3),
        "share_of_optimum": round(float(np.mean(sampled)) / optimum, 4),
        "wall_s": round(wall_s, 1),
        **machine(),
    }


def main() -> None:
    """One line a k, then the table."""
    arguments = tyro.cli(ResourceGathering, description=__doc__)
    ks = [2] if arguments.quick else [int(k) for k in arguments.ks.split(",")]
    seeds, transitions = (2, 20_000) if arguments.quick else (arguments.seeds, arguments.transitions)
    lines = []
    for k in ks:
        line = run_seeds(preset("resource_gathering", k=k, transitions=transitions), arguments.algorithm, seeds)
        emit(line)
        lines.append(line)
    names = ["k", "welfare_mean", "welfare_standard_error", "welfare_deterministic_mean", "optimum"]
    rows = [[line[name] for name in names] + [f"{line['share_of_optimum']:.1%}", f"{line['wall_s']:.0f}"] for line in lines]
    columns = ["k", "welfare", "std. error", "by mode", "proved best", "share", "seconds"]
    show(f"Resource Gathering, {arguments.algorithm}, {seeds} seeds, {transitions:,} transitions per policy", columns, rows)


if __name__ == "__main__":
    main()
