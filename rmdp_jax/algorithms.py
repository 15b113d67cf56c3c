"""Algorithms by name: each plans what the one trainer is given. The only place where an algorithm's name means anything."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from rmdp_jax.assign import Assigner, em, random_even
from rmdp_jax.baselines import cluster, oracle
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import unknown_name
from rmdp_jax.soft_assign import end_to_end


class Plan(NamedTuple):
    """What to train with; the config may have another k, or less budget where some was spent on the assigner."""

    config: TrainConfig
    assigner: Assigner


Algorithm = Callable[[Env, Population, TrainConfig], Plan]


def _surrogate(env: Env, population: Population, config: TrainConfig) -> Plan:
    config = replace(config, sizes=replace(config.sizes, critic="per_agent"))
    return Plan(config, end_to_end(config.k, config.n, gradient="surrogate"))


def _cluster(env: Env, population: Population, config: TrainConfig) -> Plan:
    assigner = cluster(env, population, config)
    return Plan(replace(config, transitions=config.transitions - assigner.pretraining), assigner)


def _with_k(k: Callable[[int], int]) -> Algorithm:
    def plan(env: Env, population: Population, config: TrainConfig) -> Plan:
        config = replace(config, k=k(config.n))
        return Plan(config, em(config.k, config.n))

    return plan


ALGORITHMS: dict[str, Algorithm] = {
    "em": lambda env, population, config: Plan(config, em(config.k, config.n)),
    "end_to_end": lambda env, population, config: Plan(config, end_to_end(config.k, config.n)),
    "end_to_end_surrogate": _surrogate,
    "cluster": _cluster,
    "random": lambda env, population, config: Plan(config, random_even(config.k, config.n)),
    "oracle": lambda env, population, config: Plan(config, oracle(population, config.k)),
    "single": _with_k(lambda n: 1),
    "individual": _with_k(lambda n: n),
}


def check_algorithm(name: str) -> None:
    """Raise `ConfigError` unless `name` is in `ALGORITHMS`."""
    if name not in ALGORITHMS:
        raise unknown_name("algorithm", name, ALGORITHMS)


def make_plan(name: str, env: Env, population: Population, config: TrainConfig) -> Plan:
    """The plan of algorithm `name`; `cluster` trains a policy for it.

    Raises:
        ConfigError: the name is not in `ALGORITHMS`, or the algorithm cannot be planned for this config.
    """
    check_algorithm(name)
    plan = ALGORITHMS[name](env, population, config)
    return plan._replace(assigner=plan.assigner._replace(name=name))
