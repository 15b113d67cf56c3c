"""One iteration of a represented MDP: roll out, improve every policy (M), reassign every agent (E)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.base import Assigner, Seen, Succession, harden
from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.devices import constrain
from rmdp_jax.env import Env, EpisodeState, Population, check_env, first_episodes, guard
from rmdp_jax.errors import ConfigError
from rmdp_jax.experience import Experience, fresh_starts, make_collect
from rmdp_jax.glimpse import Glimpses, no_glimpses
from rmdp_jax.info import Info, inform
from rmdp_jax.learner import Learner, Schedule, init_learner, make_improve
from rmdp_jax.model import POLICY_AXES, Policies, make_model, repeat
from rmdp_jax.ppo import ppo_loss
from rmdp_jax.types import Array, Key, PyTree, Scalar
from rmdp_jax.utility import Utilities, accumulate, no_utilities, utility


class Heritage(NamedTuple):
    """What a policy hands on to whoever goes on from it; leaves (k, ...), or (slots, ...) of stored policies."""

    params: PyTree
    opt_state: PyTree
    statistics: PyTree
    utilities: Utilities


class TrainState(NamedTuple):
    """All that the next iteration reads."""

    learner: Learner  # own leaves (k, ...)
    statistics: PyTree  # of observations, leaves (k, ...)
    episodes: EpisodeState  # leaves (k, E, ...)
    utilities: Utilities  # leaves (k, ...)
    glimpses: Glimpses | None  # leaves (k, B, ...); None where the assigner wants none
    store: Heritage | None  # earlier policies, leaves (slots, ...); None where the assigner wants none
    assignment: PyTree  # the assigner's own state
    keys: Key  # (k,) one a policy
    key: Key  # () of the assigner and the shuffles
    iteration: Array  # () int32
    rates: Rates


class Conclusion(NamedTuple):
    """What a run is judged by."""

    policies: Policies
    labels: Array  # (n,) int32
    parents: Array  # (k,) int32, which they are: of the present policies, 0..k-1, or of the stored, k..k+slots-1


class Trainer(NamedTuple):
    """Pure functions to jit, scan and vmap (over seeds, over rates)."""

    init: Callable[..., TrainState]  # key, rates=config.rates, assignment=assigner.init(assigner_key(key)) -> state
    collect: Callable[[TrainState], tuple[TrainState, Experience]]  # the first half of `step`: act, learn nothing
    step: Callable[[TrainState], tuple[TrainState, Info]]
    conclude: Callable[[TrainState], Conclusion]  # of a run that is stopped here, before its end


def make_trainer(env: Env, population: Population, config: TrainConfig, assigner: Assigner) -> Trainer:
    """The trainer of `config.k` policies for the n agents of `population`; `assigner` makes it one algorithm or another.

    Raises:
        ConfigError: population, assigner and config disagree on k or n.
    """
    _check_agreement(population, config, assigner)
    check_env(env, population)
    env, sizes, k, n = guard(env), config.sizes, config.k, config.n
    watched = n if assigner.watched is None else len(assigner.watched)
    model, slots = make_model(env.spec, sizes, k, n), assigner.slots if sizes.trunk == "separate" else 0
    collect_one = make_collect(env, population, model, sizes, assigner.watched)
    collect_all = jax.vmap(collect_one, (0, POLICY_AXES, 0, 0, 0, 0, None))
    improve = jax.named_scope("m_step")(make_improve(partial(ppo_loss, model), sizes, assigner))

    def init(key: Key, rates: Rates = config.rates, assignment: PyTree = None) -> TrainState:
        if assignment is None:
            assignment = assigner.init(assigner_key(key))
        key, _, shared_key, policies_key = _first_keys(key)
        own_keys, start_keys, keys = (jax.random.split(key, k) for key in jax.random.split(policies_key, 3))
        state = TrainState(
            learner=init_learner(model.networks, rates, shared_key, own_keys),
            statistics=repeat(model.normalizer.init(), k),
            episodes=jax.vmap(lambda key: first_episodes(env, fresh_starts(env, sizes, key)))(start_keys),
            utilities=no_utilities(k, n),
            glimpses=repeat(no_glimpses(assigner.glimpses, watched), k) if assigner.glimpses else None,
            store=None,
            assignment=assignment,
            keys=keys,
            key=key,
            iteration=jnp.int32(0),
            rates=jax.tree.map(jnp.float32, rates),
        )
        return state._replace(store=_empty_store(slots, state))

    def collect(state: TrainState) -> tuple[TrainState, Experience]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.iteration)
        weights = assigner.weights(state.assignment)
        index = jnp.arange(k, dtype=jnp.int32)
        with jax.named_scope("collect"):
            episodes, glimpses, seen = collect_all(
                keys, policies(state), index, state.episodes, state.glimpses, weights, state.rates
            )
        return state._replace(episodes=episodes, glimpses=glimpses, statistics=seen.statistics), seen

    def step(state: TrainState) -> tuple[TrainState, Info]:
        before = assigner.weights(state.assignment)
        state, seen = collect(state)
        shuffle_key, assign_key = jax.random.split(jax.random.fold_in(state.key, state.iteration))
        schedule = _schedule(state.rates, state.iteration, config.iterations)
        learner, assignment, losses = improve(state.rates, schedule, shuffle_key, state.learner, state.assignment, seen.batch)
        utilities = accumulate(state.utilities, state.rates.utility_decay, seen.reward_sum, seen.episodes, sizes.transitions)
        new = state._replace(learner=learner, utilities=utilities, iteration=state.iteration + 1)
        with jax.named_scope("e_step"):
            assignment, succession = constrain(assigner.reassign(assign_key, assignment, constrain(tell(new))))
        after = assigner.weights(assignment)
        new = follow(succession, new._replace(assignment=assignment))
        copies = (succession.parents != jnp.arange(k, dtype=jnp.int32)).sum(dtype=jnp.int32)
        with jax.named_scope("info"):
            served = constrain(utility(new.utilities, env.spec.episode_length))
            return new, inform(env.spec.reference_scale, served, before, after, copies, seen, losses)

    def tell(state: TrainState) -> Seen:
        """What an assigner hears at the end of an iteration."""
        return Seen(
            utility=utility(state.utilities, env.spec.episode_length),
            iteration=state.iteration - 1,
            progress=state.iteration.astype(jnp.float32) / config.iterations,
            glimpses=None if state.glimpses is None else state.glimpses.shown,
            stored=None if state.store is None else utility(state.store.utilities, env.spec.episode_length),
            stores=slots == assigner.slots,
        )

    def conclude(state: TrainState) -> Conclusion:
        if assigner.conclude is None:
            return Conclusion(policies(state), harden(assigner.weights(state.assignment)), jnp.arange(k, dtype=jnp.int32))
        labels, parents = constrain(assigner.conclude(state.assignment, constrain(tell(state))))
        kept = jnp.arange(k, k + slots, dtype=jnp.int32) if slots else None
        return Conclusion(policies(follow(Succession(parents, kept), state)), labels, parents)

    return Trainer(init, collect, step, conclude)


def assigner_key(key: Key) -> Key:
    """The key that `Trainer.init(key)` begins the assignment with, for first assignments that are made elsewhere."""
    return _first_keys(key)[1]


def _first_keys(key: Key) -> Key:
    """Keys (4,): of the state, of the first assignment, of shared parameters, of the policies."""
    return jax.random.split(key, 4)


def policies(state: TrainState) -> Policies:
    """What acts, without what learns."""
    return Policies(state.learner.params, state.statistics, state.rates.observation_clip)


@jax.named_scope("succession")
def follow(succession: Succession, state: TrainState) -> TrainState:
    """Policies, and those in the store, go on from whom the `succession` names: all of their `Heritage` is copied.

    Most iterations change nothing. Then nothing is read either, which between devices would be all policies for each.
    """
    succession = succession if state.store is not None else succession._replace(kept=None)
    changed = (succession.parents != jnp.arange(succession.parents.size, dtype=jnp.int32)).any()
    if succession.kept is not None:
        slots = jnp.arange(succession.kept.size, dtype=jnp.int32) + succession.parents.size
        changed |= (succession.kept != slots).any()
    return jax.lax.cond(changed, _copy, lambda succession, state: state, succession, state)


def _copy(succession: Succession, state: TrainState) -> TrainState:
    known = constrain(constrain(_heritage(state), "policy"))
    if state.store is not None:
        known = jax.tree.map(lambda now, stored: jnp.concatenate([now, stored]), known, state.store)

    def of(rows: Array) -> Heritage:
        return jax.tree.map(lambda x: x[rows], known)

    own, params, opt_state = of(succession.parents), state.learner.params, state.learner.opt_state
    return state._replace(
        learner=Learner(params._replace(own=own.params), opt_state._replace(own=own.opt_state)),
        statistics=own.statistics,
        utilities=own.utilities,
        glimpses=_forget(succession.parents, state.glimpses),
        store=None if succession.kept is None else of(succession.kept),
    )


def _forget(parents: Array, glimpses: Glimpses | None) -> Glimpses | None:
    """Whoever goes on from another has not shown anything yet."""
    if glimpses is None:
        return None
    k, number, watched = glimpses.shown.shape
    stays = parents == jnp.arange(k, dtype=jnp.int32)

    def keep(now: Array, fresh: Array) -> Array:
        return jnp.where(stays.reshape(k, *(1,) * (now.ndim - 1)), now, fresh)

    return jax.tree.map(keep, glimpses, repeat(no_glimpses(number, watched), k))


def _heritage(state: TrainState) -> Heritage:
    return Heritage(state.learner.params.own, state.learner.opt_state.own, state.statistics, state.utilities)


def _empty_store(slots: int, state: TrainState) -> Heritage | None:
    return jax.tree.map(lambda x: jnp.zeros((slots, *x.shape[1:]), x.dtype), _heritage(state)) if slots else None


def _schedule(rates: Rates, iteration: Array, iterations: int) -> Schedule:
    """Geometric from start to end over the iterations of the run."""
    passed = iteration.astype(jnp.float32) / iterations

    def between(ends: tuple[Scalar, Scalar]) -> Array:
        start, end = ends
        return start * (end / start) ** passed

    return Schedule(between(rates.learning_rate), between(rates.entropy))


def _check_agreement(population: Population, config: TrainConfig, assigner: Assigner) -> None:
    if not isinstance(assigner, Assigner):
        raise ConfigError(f"assigner = {assigner!r}: must be an Assigner, such as em(k={config.k}, n={config.n})")
    if assigner.learns_from_columns and config.sizes.critic != "per_agent":
        raise ConfigError(
            f"critic = {config.sizes.critic!r}: {assigner.name} learns from each agent's advantage: take critic='per_agent'"
        )
    if population.n != config.n:
        raise ConfigError(f"n = {config.n}: the population has {population.n} agents; give TrainConfig n={population.n}")
    if (assigner.k, assigner.n) != (config.k, config.n):
        raise ConfigError(f"assigner of k = {assigner.k}, n = {assigner.n}: the config has k = {config.k}, n = {config.n}")
