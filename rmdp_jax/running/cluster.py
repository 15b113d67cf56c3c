"""The baseline `cluster`: groups by K-means on the rewards that agents get from one policy trained for everybody."""

from collections.abc import Callable, Sequence
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
from rmdp_jax.env import Env, Population, first_episodes, guard, served
from rmdp_jax.errors import check
from rmdp_jax.learning.experience import fresh_starts
from rmdp_jax.learning.rollout import Trajectory, rollout
from rmdp_jax.learning.scoring import Scorer, Totals, score_all, score_steps
from rmdp_jax.policies.model import Policies, decide, make_model, one_policy
from rmdp_jax.programs import kept_program
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.batch import alike, check_batch, made_of, over_runs, people_of, stack, unstack
from rmdp_jax.running.loop import learn
from rmdp_jax.running.progress import report_progress
from rmdp_jax.trainer import policies_of
from rmdp_jax.types import Array, Key, PyTree

CLUSTER_TRANSITIONS = 10_000  # in which the policy for everybody is observed
_OBSERVING = 0x0B5E  # tag of a key, far from the small numbers by which keys are split


def cluster(env: Env, population: Population, config: TrainConfig, *, devices: int | None = None) -> Assigner:
    """K-means on the rewards that agents get from one policy trained for everybody (Ivanov & Ben-Porat, 2024).

    Trains that policy for half of `config.transitions` environment steps, takes `CLUSTER_TRANSITIONS` further steps of it,
    and groups the agents by their rewards in these; more than `Sizes.agents_exact` agents by their rewards in
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
    rewards = pretrain(env, populations, configs, _observe_rewards, "cluster", devices=devices, progress=progress)
    return [assigner_of(config, group(observed, config)) for observed, config in zip(rewards, configs, strict=True)]


# env, the run of the policy for everybody, agents, policies (one), key -> what groups are made of
Observe = Callable[[Env, RunSpec, PyTree, Policies, Key], Array]


def pretrain(
    env: Env,
    populations: Sequence[Population],
    configs: Sequence[TrainConfig],
    observe: Observe,
    name: str,
    *,
    devices: int | None = None,
    progress: bool = False,
) -> list[np.ndarray]:
    """Train one policy for everybody in each run, for half of its budget, and `observe` it: what that gave, of each run.

    Raises:
        ConfigError: the budget of a run is too small for algorithm `name`.
        KeyboardInterrupt: Ctrl-C.
    """
    runs = [_for_everybody(population, config, name) for population, config in zip(populations, configs, strict=True)]
    check_batch(runs)
    single = runs[0].config
    mesh = choose_mesh(single.k, single.sizes.environments, env.spec.backend, devices)
    with report_progress(progress and is_first(), single.iterations, "pre-training  ") as reporter:
        states, _ = learn(env, runs, reporter, mesh=mesh)
        if int(states.iteration.max()) < single.iterations:
            raise KeyboardInterrupt(f"interrupted in the pre-training of {name}; nothing was saved, so start anew")
        reporter.say("grouping the agents")
        of_run = alike(runs[0])
        observe_runs = over_runs(lambda *own: observe(env, of_run, *own), len(runs))
        keys = stack([jax.random.fold_in(jax.random.key(config.seed), _OBSERVING) for config in configs])
        placed = on_mesh(mesh, out_shardings=everywhere(mesh))
        parts = made_of(env, runs, mesh), observe, CLUSTER_TRANSITIONS
        observe_all = kept_program("observing", parts, lambda: jax.jit(observe_runs, **placed))
        return unstack(jax.device_get(observe_all(people_of(runs), policies_of(states), keys)), len(runs))


def after_pretraining(config: TrainConfig, name: str = "cluster", spent: int | None = None) -> TrainConfig:
    """What algorithm `name`, which trains a policy for everybody first, leaves of a budget to train with.

    Args:
        config: settings with the whole budget.
        name: of the algorithm.
        spent: environment steps that were taken for the groups, of a run that goes on; None of one that begins.

    Raises:
        ConfigError: nothing is left.
    """
    spent = _spent(config) if spent is None else spent
    check("transitions", config.transitions, config.transitions > spent, f"above the {spent} that {name} spends on its groups")
    return replace(config, transitions=config.transitions - spent)


def assigner_of(config: TrainConfig, labels: ArrayLike, name: str = "cluster", spent: int | None = None) -> Assigner:
    """The assigner of algorithm `name` with groups, labels (n,), that are known; the rest as of `after_pretraining`."""
    return fixed(config.k, config.n, labels)._replace(name=name, pretraining=_spent(config) if spent is None else spent)


def _for_everybody(population: Population, config: TrainConfig, name: str) -> RunSpec:
    after_pretraining(config, name)  # raises ConfigError
    return RunSpec(population, _single(config), fixed(1, config.n, np.zeros(config.n, np.int32)))


def _single(config: TrainConfig) -> TrainConfig:
    return replace(config, k=1, at_most=None, at_least=None, transitions=max(config.transitions // 2, 1))


def _spent(config: TrainConfig) -> int:
    single = _single(config)
    return single.iterations * single.sizes.transitions + CLUSTER_TRANSITIONS


def _observe_rewards(env: Env, run: RunSpec, people: PyTree, learned: Policies, key: Key) -> Array:
    """Rewards (transitions, n) of `people` while the first of the policies `learned` acts; of very many, some transitions'."""
    population, config = served(run.population, people), run.config
    if config.estimated:
        scorer = score_steps(jax.random.fold_in(key, _OBSERVING), population, config.sizes.utility_steps)
        return play_learned(env, run, learned, key, scorer)[1].rewards
    steps, _ = play_learned(env, run, learned, key, score_all(population, lambda rewards: rewards))
    return steps.reward.reshape(-1, config.n)[:CLUSTER_TRANSITIONS]


def play_learned(env: Env, run: RunSpec, learned: Policies, key: Key, scorer: Scorer) -> tuple[Trajectory, Totals]:
    """`CLUSTER_TRANSITIONS` steps, or a few more, in which the first of the policies `learned` acts, and the scorer's total."""
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
    return rollout(env, scorer, act, states, pool, noise)[1:3]


def group(columns: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Labels (n,) int32 of agents with similar columns (..., n), by K-means; beyond agents_exact, fitted on a sample."""
    from sklearn.cluster import KMeans

    means = KMeans(config.k, n_init=10, random_state=config.seed)
    if not config.estimated:
        return _fill_empty(means.fit_predict(columns.T), config.k)
    some = np.random.RandomState(config.seed).permutation(config.n)[: max(config.sizes.agents_exact, config.k)]
    return _fill_empty(means.fit(columns.T[some]).predict(np.ascontiguousarray(columns.T)), config.k)


def _fill_empty(labels: np.ndarray, k: int) -> np.ndarray:
    """Labels (n,) int32 with no cluster empty: agents that cannot be distinguished leave K-means fewer than k groups."""
    labels = labels.astype(np.int32)
    for j in set(range(k)) - set(labels.tolist()):
        largest = np.bincount(labels, minlength=k).argmax()
        labels[np.flatnonzero(labels == largest)[0]] = j
    return labels
