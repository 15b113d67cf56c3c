"""The baseline `cluster`: groups by K-means on the rewards that agents get from one policy trained for everybody."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.assigners.base import Assigner
from rmdp_jax.assigners.fixed import fixed
from rmdp_jax.config import TrainConfig
from rmdp_jax.devices.mesh import choose_mesh, everywhere, on_mesh
from rmdp_jax.devices.processes import is_first
from rmdp_jax.env import Env, Population, first_episodes, guard
from rmdp_jax.errors import check
from rmdp_jax.learning.experience import fresh_starts
from rmdp_jax.learning.rollout import rollout
from rmdp_jax.learning.scoring import score_all, score_steps
from rmdp_jax.policies.model import Policies, decide, make_model, one_policy
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.batch import check_batch, over_runs, people_of, served, stack, unstack
from rmdp_jax.running.loop import learn
from rmdp_jax.running.progress import report_progress
from rmdp_jax.trainer import policies_of
from rmdp_jax.types import Array, Key, PyTree

CLUSTER_TRANSITIONS = 10_000
_OBSERVING = 0x0B5E  # tag of a key, far from the small numbers by which keys are split


def cluster(env: Env, population: Population, config: TrainConfig, *, devices: int | None = None) -> Assigner:
    """K-means on the rewards that agents get from one policy trained for everybody (Ivanov & Ben-Porat, 2024).

    Trains that policy for half of `config.transitions` environment steps, takes `CLUSTER_TRANSITIONS` further steps of it,
    and cluster_batch the agents by their rewards in these; more than `Sizes.agents_exact` agents by their rewards in
    `Sizes.utility_steps` of them, around the means of `agents_exact` agents, which takes time and memory of order n. The
    assigner's `pretraining` says how many steps that took; train with what is left of the budget
    (`rmdp_jax.running.algorithms.make_plan` does). `devices` is that of `train`.

    Raises:
        ConfigError: `config.transitions` are too few.
        KeyboardInterrupt: Ctrl-C, as groups by a half-trained policy would pass for those of a trained one.
    """
    return cluster_batch(env, [population], [config], devices=devices)[0]


def cluster_batch(
    env: Env,
    populations: Sequence[Population],
    configs: Sequence[TrainConfig],
    *,
    devices: int | None = None,
    progress: bool = False,
) -> list[Assigner]:
    """`cluster` for several runs whose policies for everybody are trained in one program; see `train_batch`."""
    runs = [_for_everybody(population, config) for population, config in zip(populations, configs, strict=True)]
    check_batch(runs)
    single = runs[0].config
    mesh = choose_mesh(single.k, single.sizes.environments, env.spec.backend, devices)
    with report_progress(progress and is_first(), single.iterations, "pre-training  ") as reporter:
        states, _ = learn(env, runs, reporter, mesh=mesh)
        if int(states.iteration.max()) < single.iterations:
            raise KeyboardInterrupt("interrupted in the pre-training of cluster; nothing was saved, so start anew")
        reporter.say("grouping the agents")
        observe = over_runs(lambda *own: _observe_rewards(env, runs[0], *own), len(runs))
        keys = stack([jax.random.fold_in(jax.random.key(config.seed), _OBSERVING) for config in configs])
        observe_all = jax.jit(observe, **on_mesh(mesh, out_shardings=everywhere(mesh)))
        rewards = unstack(jax.device_get(observe_all(people_of(runs), policies_of(states), keys)), len(runs))
    return [cluster_from_labels(config, _group(observed, config)) for observed, config in zip(rewards, configs, strict=True)]


def after_pretraining(config: TrainConfig) -> TrainConfig:
    """What `cluster` leaves of a budget to train with.

    Raises:
        ConfigError: nothing is left.
    """
    spent = _spent(config)
    check("transitions", config.transitions, config.transitions > spent, f"above the {spent} that cluster spends on its groups")
    return replace(config, transitions=config.transitions - spent)


def cluster_from_labels(config: TrainConfig, labels: ArrayLike) -> Assigner:
    """The assigner of `cluster` with labels (n,) that are known already, for a run of the whole budget `config`."""
    return fixed(config.k, config.n, labels)._replace(name="cluster", pretraining=_spent(config))


def _for_everybody(population: Population, config: TrainConfig) -> RunSpec:
    after_pretraining(config)  # raises ConfigError
    return RunSpec(population, _single(config), fixed(1, config.n, np.zeros(config.n, np.int32)))


def _single(config: TrainConfig) -> TrainConfig:
    return replace(config, k=1, transitions=max(config.transitions // 2, 1))


def _spent(config: TrainConfig) -> int:
    single = _single(config)
    return single.iterations * single.sizes.transitions + CLUSTER_TRANSITIONS


def _observe_rewards(env: Env, run: RunSpec, people: PyTree, learned: Policies, key: Key) -> Array:
    """Rewards (transitions, n) of `people` while the first of the policies `learned` acts; of very many, some transitions'."""
    env, config, sizes = guard(env), run.config, run.config.sizes
    model = make_model(env.spec, sizes, config.k, config.n)
    start_key, pool_key, noise_key = jax.random.split(key, 3)

    policy = one_policy(learned, 0)

    def act(obs: Array, noise: Array) -> tuple[Array, Array]:
        return model.distribution.sample(decide(model, policy, obs), noise), jnp.zeros(obs.shape[0], jnp.float32)

    steps = -(-CLUSTER_TRANSITIONS // sizes.environments)
    noise = model.distribution.noise(noise_key, (steps, sizes.environments, env.spec.action_size))
    states = first_episodes(env, fresh_starts(env, sizes, start_key))
    pool = fresh_starts(env, sizes, pool_key, steps)
    population = served(run.population, people)
    if config.estimated:
        scorer = score_steps(jax.random.fold_in(key, _OBSERVING), population, sizes.utility_steps)
        return rollout(env, scorer, act, states, pool, noise)[2].rewards
    steps_taken = rollout(env, score_all(population, lambda rewards: rewards), act, states, pool, noise)[1]
    return steps_taken.reward.reshape(-1, config.n)[:CLUSTER_TRANSITIONS]


def _group(rewards: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Labels (n,) int32 of agents with similar rewards (transitions, n); beyond agents_exact, fitted on a sample."""
    from sklearn.cluster import KMeans

    means = KMeans(config.k, n_init=10, random_state=config.seed)
    if not config.estimated:
        return _fill_empty(means.fit_predict(rewards.T), config.k)
    some = np.random.RandomState(config.seed).permutation(config.n)[: max(config.sizes.agents_exact, config.k)]
    return _fill_empty(means.fit(rewards.T[some]).predict(np.ascontiguousarray(rewards.T)), config.k)


def _fill_empty(labels: np.ndarray, k: int) -> np.ndarray:
    """Labels (n,) int32 with no cluster empty: agents that cannot be told apart leave K-means fewer than k clusters."""
    labels = labels.astype(np.int32)
    for j in set(range(k)) - set(labels.tolist()):
        largest = np.bincount(labels, minlength=k).argmax()
        labels[np.flatnonzero(labels == largest)[0]] = j
    return labels
