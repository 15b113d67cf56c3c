"""Algorithms by name, for the command line: each makes the `Assigner` that turns the one trainer into it."""

from collections.abc import Callable

from rmdp_jax.assign import Assigner, em, random_even
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import unknown_name

ALGORITHMS: dict[str, Callable[[Env, Population, TrainConfig], Assigner]] = {
    "em": lambda env, population, config: em(config.k, config.n),
    "random": lambda env, population, config: random_even(config.k, config.n),
}


def make_assigner(name: str, env: Env, population: Population, config: TrainConfig) -> Assigner:
    """The assigner of algorithm `name`.

    Raises:
        ConfigError: the name is not in `ALGORITHMS`.
    """
    if name not in ALGORITHMS:
        raise unknown_name("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name](env, population, config)
