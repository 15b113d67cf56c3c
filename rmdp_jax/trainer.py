"""One iteration of a represented MDP: roll out, improve every policy (M), reassign every agent (E)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assign import Assigner
from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.env import Env, EpisodeState, Population, first_episodes, guard
from rmdp_jax.errors import ConfigError
from rmdp_jax.experience import Experience, fresh_starts, make_collect
from rmdp_jax.info import Info, inform
from rmdp_jax.learner import Learner, Schedule, init_learner, make_improve
from rmdp_jax.model import POLICY_AXES, Policies, make_model, repeat
from rmdp_jax.ppo import ppo_loss
from rmdp_jax.types import Array, Key, PyTree, Scalar
from rmdp_jax.utility import Utilities, accumulate, no_utilities, utility


class TrainState(NamedTuple):
    """All that the next iteration reads."""

    learner: Learner  # own leaves (k, ...)
    statistics: PyTree  # of observations, leaves (k, ...)
    episodes: EpisodeState  # leaves (k, E, ...)
    utilities: Utilities  # leaves (k, ...)
    assignment: PyTree  # the assigner's own state
    keys: Key  # (k,) one a policy
    key: Key  # () of the assigner and the shuffles
    iteration: Array  # () int32
    rates: Rates


class Trainer(NamedTuple):
    """Pure functions to jit, scan and vmap (over seeds, over rates)."""

    init: Callable[..., TrainState]  # key, rates=config.rates -> state
    collect: Callable[[TrainState], tuple[TrainState, Experience]]  # the first half of `step`: act, learn nothing
    step: Callable[[TrainState], tuple[TrainState, Info]]


def make_trainer(env: Env, population: Population, config: TrainConfig, assigner: Assigner) -> Trainer:
    """The trainer of `config.k` policies for the n agents of `population`; `assigner` makes it one algorithm or another.

    Raises:
        ConfigError: population, assigner and config disagree on k or n.
    """
    _check_agreement(population, config, assigner)
    env, sizes, k, n = guard(env), config.sizes, config.k, config.n
    model = make_model(env.spec, sizes, k, n)
    collect_all = jax.vmap(make_collect(env, population, model, sizes), (0, POLICY_AXES, 0, 0, 0, None))
    improve = make_improve(partial(ppo_loss, model), sizes, assigner)

    def init(key: Key, rates: Rates = config.rates) -> TrainState:
        key, assign_key, shared_key, policies_key = jax.random.split(key, 4)
        own_keys, start_keys, keys = (jax.random.split(key, k) for key in jax.random.split(policies_key, 3))
        return TrainState(
            learner=init_learner(model.networks, rates, shared_key, own_keys),
            statistics=repeat(model.normalizer.init(), k),
            episodes=jax.vmap(lambda key: first_episodes(env, fresh_starts(env, sizes, key)))(start_keys),
            utilities=no_utilities(k, n),
            assignment=assigner.init(assign_key),
            keys=keys,
            key=key,
            iteration=jnp.int32(0),
            rates=jax.tree.map(jnp.float32, rates),
        )

    def collect(state: TrainState) -> tuple[TrainState, Experience]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.iteration)
        weights = assigner.weights(state.assignment)
        index = jnp.arange(k, dtype=jnp.int32)
        episodes, seen = collect_all(keys, policies(state), index, state.episodes, weights, state.rates)
        return state._replace(episodes=episodes, statistics=seen.statistics), seen

    def step(state: TrainState) -> tuple[TrainState, Info]:
        before = assigner.weights(state.assignment)
        state, seen = collect(state)
        shuffle_key, assign_key = jax.random.split(jax.random.fold_in(state.key, state.iteration))
        schedule = _schedule(state.rates, state.iteration, config.iterations)
        learner, assignment, losses = improve(state.rates, schedule, shuffle_key, state.learner, state.assignment, seen.batch)
        utilities = accumulate(state.utilities, state.rates.utility_decay, seen.reward_sum, seen.episodes, sizes.transitions)
        served = utility(utilities, env.spec.episode_length)
        assignment, parents = assigner.reassign(assign_key, assignment, served, state.iteration)
        iteration = state.iteration + 1
        new = state._replace(learner=learner, utilities=utilities, assignment=assignment, iteration=iteration)
        after = assigner.weights(assignment)
        return follow(parents, new), inform(env.spec.reference_scale, served[parents], before, after, seen, losses)

    return Trainer(init, collect, step)


def policies(state: TrainState) -> Policies:
    """What acts, without what learns."""
    return Policies(state.learner.params, state.statistics, state.rates.observation_clip)


def follow(parents: Array, state: TrainState) -> TrainState:
    """Policies go on from their `parents` (k,): parameters, optimiser, statistics and utilities are copied."""
    learner = state.learner

    def copy(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x[parents], tree)

    params = learner.params._replace(own=copy(learner.params.own))
    opt_state = learner.opt_state._replace(own=copy(learner.opt_state.own))
    return state._replace(
        learner=Learner(params, opt_state), statistics=copy(state.statistics), utilities=copy(state.utilities)
    )


def _schedule(rates: Rates, iteration: Array, iterations: int) -> Schedule:
    """Geometric from start to end over the iterations of the run."""
    passed = iteration.astype(jnp.float32) / iterations

    def between(ends: tuple[Scalar, Scalar]) -> Array:
        start, end = ends
        return start * (end / start) ** passed

    return Schedule(between(rates.learning_rate), between(rates.entropy))


def _check_agreement(population: Population, config: TrainConfig, assigner: Assigner) -> None:
    if assigner.learns_from_columns and config.sizes.critic != "per_agent":
        raise ConfigError(
            f"critic = {config.sizes.critic!r}: {assigner.name} learns from each agent's advantage: take critic='per_agent'"
        )
    if population.n != config.n:
        raise ConfigError(f"n = {config.n}: the population has {population.n} agents; give TrainConfig n={population.n}")
    if (assigner.k, assigner.n) != (config.k, config.n):
        raise ConfigError(f"assigner of k = {assigner.k}, n = {assigner.n}: the config has k = {config.k}, n = {config.n}")
