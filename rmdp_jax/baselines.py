"""Baselines: assignments that are fixed before the policies learn."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assign import Assigner, fixed
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population, first_episodes, guard
from rmdp_jax.errors import ConfigError, check
from rmdp_jax.experience import fresh_starts
from rmdp_jax.model import Policies, decide, make_model, one_policy
from rmdp_jax.rollout import rollout
from rmdp_jax.trainer import make_trainer, policies
from rmdp_jax.types import Array, Key

CLUSTER_TRANSITIONS = 10_000
_OBSERVING = 0x0B5E  # tag of a key, far from the small numbers by which keys are split


def oracle(population: Population, k: int) -> Assigner:
    """Groups that somebody who knows the task would draw: bands of target speed, or the groups of a proved optimum.

    Raises:
        ConfigError: nobody knows the task that well, or one of its groups is empty.
    """
    if population.oracle_groups is None:
        raise ConfigError("algorithm = 'oracle': this population comes with no groups known beforehand; take em")
    return fixed(k, population.n, np.asarray(population.oracle_groups(k), np.int32))._replace(name="oracle")


def cluster(env: Env, population: Population, config: TrainConfig) -> Assigner:
    """K-means on the rewards that agents get from one policy trained for everybody (Ivanov & Ben-Porat, 2024).

    Trains that policy for half of `config.transitions` environment steps, takes `CLUSTER_TRANSITIONS` further steps of it,
    and clusters the agents by their rewards in these. The assigner's `pretraining` says how many steps that took; train
    with what is left of the budget (`rmdp_jax.algorithms.make_plan` does).
    """
    from sklearn.cluster import KMeans

    single = replace(config, k=1, transitions=max(config.transitions // 2, 1))
    spent = single.iterations * single.sizes.transitions + CLUSTER_TRANSITIONS
    check("transitions", config.transitions, config.transitions > spent, f"above the {spent} that cluster spends on its groups")
    everybody = fixed(1, config.n, np.zeros(config.n, np.int32))
    trainer = make_trainer(env, population, single, everybody)

    def pretrain(key: Key) -> Array:
        state = jax.lax.fori_loop(0, single.iterations, lambda _, s: trainer.step(s)[0], trainer.init(key))
        learned = policies(state)
        return _observe_rewards(env, population, single, learned, jax.random.fold_in(key, _OBSERVING))

    rewards = np.asarray(jax.jit(pretrain)(jax.random.key(config.seed)))
    labels = KMeans(config.k, n_init=10, random_state=config.seed).fit_predict(rewards.T)
    return fixed(config.k, config.n, _fill_empty(labels, config.k))._replace(name="cluster", pretraining=spent)


def _observe_rewards(env: Env, population: Population, config: TrainConfig, learned: Policies, key: Key) -> Array:
    """Rewards (transitions, n) of all agents while the first of the policies `learned` acts."""
    env, sizes = guard(env), config.sizes
    model = make_model(env.spec, sizes, config.k, config.n)
    start_key, pool_key, noise_key = jax.random.split(key, 3)

    policy = one_policy(learned, 0)

    def act(obs: Array, noise: Array) -> tuple[Array, Array]:
        return model.distribution.sample(decide(model, policy, obs), noise), jnp.zeros(obs.shape[0], jnp.float32)

    steps = -(-CLUSTER_TRANSITIONS // sizes.environments)
    noise = model.distribution.noise(noise_key, (steps, sizes.environments, env.spec.action_size))
    states = first_episodes(env, fresh_starts(env, sizes, start_key))
    pool = fresh_starts(env, sizes, pool_key)
    _, seen, _ = rollout(env, population, act, lambda rewards: rewards, states, pool, noise)
    return seen.reward.reshape(-1, config.n)[:CLUSTER_TRANSITIONS]


def _fill_empty(labels: np.ndarray, k: int) -> np.ndarray:
    """Labels (n,) int32 with no cluster empty: agents that cannot be told apart leave K-means fewer than k clusters."""
    labels = labels.astype(np.int32)
    for j in set(range(k)) - set(labels.tolist()):
        largest = np.bincount(labels, minlength=k).argmax()
        labels[np.flatnonzero(labels == largest)[0]] = j
    return labels
