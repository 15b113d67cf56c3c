"""Welfare by number of policies on Resource Gathering, next to the proved optimum; all seeds train in one program."""

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from benchmarks.common import emit, machine, read_arguments, show
from rmdp_jax import RunSpec, TrainConfig, train_batch
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.evaluation.statistics import summarize_values
from rmdp_jax.running.algorithms import PlanRequest, make_plans


@dataclass(frozen=True, kw_only=True)
class ResourceGathering:
    """Mean and standard error over seeds, fresh episodes acting as trained."""

    ks: tuple[int, ...] = (1, 2, 3, 5, 10, 25)
    """Numbers of policies."""
    seeds: int = 5
    transitions: int = 1_000_000
    """Per policy."""
    algorithm: Literal["em", "plain_em", "end_to_end", "end_to_end_surrogate", "cluster", "random", "oracle"] = "em"
    quick: bool = False
    """Two seeds, k = 2, 20,000 transitions."""


def run_seeds(config: TrainConfig, algorithm: str, seeds: int) -> dict[str, Any]:
    """Train `seeds` runs in one program and evaluate each by fresh episodes."""
    env, population = make("resource_gathering", n=config.n)
    configs = [replace(config, seed=config.seed + i) for i in range(seeds)]
    begun = time.perf_counter()
    plans = make_plans(algorithm, env, [PlanRequest(population, config) for config in configs])
    results = train_batch(env, [RunSpec(population, plan.config, plan.assigner) for plan in plans], progress=False)
    wall_s = time.perf_counter() - begun
    summaries = [result.summary for result in results]
    if not all(summary["finished"] for summary in summaries):
        raise KeyboardInterrupt  # a figure of half the training would pass for one of all
    sampled, modal = ([summary[name] for summary in summaries] for name in ("welfare", "welfare_deterministic"))
    error = summarize_values(sampled).standard_error
    bound = population.upper_bound(config.k)
    assert bound is not None
    optimum = env.spec.reference_scale * bound
    return {
        "benchmark": "resource_gathering",
        "algorithm": algorithm,
        "k": config.k,
        "n": config.n,
        "seeds": seeds,
        "transitions_per_policy": summaries[0]["transitions_per_policy"],
        "pretraining_transitions": summaries[0]["pretraining_transitions"],
        "welfare": [round(value, 3) for value in sampled],
        "welfare_mean": round(float(np.mean(sampled)), 3),
        "welfare_standard_error": None if error is None else round(error, 3),
        "welfare_deterministic_mean": round(float(np.mean(modal)), 3),
        "optimum": round(optimum, 3),
        "share_of_optimum": round(float(np.mean(sampled)) / optimum, 4),
        "wall_s": round(wall_s, 1),
        **machine(),
    }


def main() -> None:
    """One line a k, then the table."""
    arguments = read_arguments(ResourceGathering, __doc__)
    ks = (2,) if arguments.quick else arguments.ks
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
