"""Which runs one program can train: it steps one env and pays by one reward function, whatever seeds its runs have."""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp

from rmdp_jax.checks import check_env
from rmdp_jax.config import TrainConfig
from rmdp_jax.context import agents_in
from rmdp_jax.env import Env, Population, functions_of
from rmdp_jax.fingerprint import fingerprint, fingerprint_of_program
from rmdp_jax.types import Array, Key, PyTree


def programs_apart(tasks: Sequence[tuple[Env, Population, TrainConfig]]) -> list[int]:
    """For each run to train, the number of the program that can train it.

    Tasks that were made anew, each with its seed, are the same where they compute the same, though their functions are others.
    One whose env or reward depends on the seed, beyond its agents, is another for each; with limits, also one whose weights do.

    Raises:
        ConfigError: an env or a reward does not give what it promises.
    """
    made = [fingerprint((functions_of(env), population.reward)) for env, population, _ in tasks]
    examples = {key: (env, population) for key, (env, population, _) in zip(made, tasks, strict=True)}
    computed = {key: _computed_by(*task) if len(examples) > 1 else None for key, task in examples.items()}
    kinds = [
        (computed[key], agents_in(population), fingerprint(population.weights) if config.limits else None)
        for key, (_, population, config) in zip(made, tasks, strict=True)
    ]
    order = list(dict.fromkeys(kinds))
    return [order.index(kind) for kind in kinds]


def _computed_by(env: Env, population: Population) -> Hashable:
    """What the functions of a task compute."""
    check_env(env._replace(spec=env.spec._replace(probe=False)), population)
    action = jnp.int32(0) if env.spec.discrete else jnp.zeros(env.spec.action_size)
    agent = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], population.agents)

    def begin_and_step(key: Key, action: Array, agent: PyTree) -> PyTree:
        state, obs = env.reset(key)
        after, step = env.step(state, action)
        return state, obs, after, step, population.reward(agent, step.outcome)

    return fingerprint(functions_of(env).spec), fingerprint_of_program(begin_and_step, jax.random.key(0), action, agent)
