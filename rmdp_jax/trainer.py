"""One iteration of a represented MDP: roll out, improve every policy (M), reassign every agent (E)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assigners.base import NOTHING_GIVEN, Assigner, Copies, EStepInput, Given, harden
from rmdp_jax.assigners.checks import check_assigner
from rmdp_jax.checks import check_env
from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.devices.mesh import constrain
from rmdp_jax.env import Env, Population, first_episodes, guard
from rmdp_jax.errors import ConfigError, check, instance_of, shown
from rmdp_jax.info import Info, make_info
from rmdp_jax.learning.experience import Experience, fresh_starts, make_collect
from rmdp_jax.learning.learner import init_learner
from rmdp_jax.learning.segments import NO_RETURN, expected_returns, no_segments
from rmdp_jax.learning.utility import no_utilities, utility
from rmdp_jax.limits import Loads, loads_of
from rmdp_jax.m_step import make_collect_all, make_learn
from rmdp_jax.policies.model import Policies, make_model, repeat
from rmdp_jax.state import Member, TrainState, begin_with, copy_members, first_archive, policies_of, recover
from rmdp_jax.types import Array, Key, PyTree
from rmdp_jax.welfare import make_welfare


class Conclusion(NamedTuple):
    """What a run is evaluated by."""

    policies: Policies
    labels: Array  # (n,) int32; of the last E-step where policies have limits, within which the best is to be found by `worth`
    sources: Array  # (k,) int32, which members they are: 0..k-1 of the present policies, k..k+archive_size-1 of the archive
    worth: Array | None = None  # (k, n) what they are worth by running estimates, where policies have limits


class Trainer(NamedTuple):
    """Pure functions to jit, scan and vmap (over seeds, over rates)."""

    # key, rates=config.rates, assignment=assigner.init(assigner_key(key)), members=None (given, leaves (g, ...)) -> state
    init: Callable[..., TrainState]
    collect: Callable[[TrainState], tuple[TrainState, Experience]]  # the first half of `step`: act, learn nothing
    step: Callable[[TrainState], tuple[TrainState, Info]]
    conclude: Callable[[TrainState], Conclusion]  # of a run that is stopped here, before its end


def make_trainer(
    env: Env, population: Population, config: TrainConfig, assigner: Assigner, given: Given = NOTHING_GIVEN
) -> Trainer:
    """The trainer of `config.k` policies for the n agents of `population`; `assigner` makes it one algorithm or another.

    `given` says how many policies `init` is to be given, and how many of them are frozen.

    Raises:
        ConfigError: population, assigner and config disagree on k or n, or cannot do with what is given.
    """
    check_env(env, population)
    _check_agreement(population, config, assigner)
    check_given(config, assigner.name, assigner.takes_given, given)
    limits = check_limits(config, population, assigner.name, assigner.takes_limits, given)
    check_assigner(assigner, can_restore=not assigner.archive_size or config.sizes.trunk == "separate")
    in_context = env.for_agent is not None  # an episode is for one agent, and returns of each are known by few
    env, sizes, k, n = guard(env), config.sizes, config.k, config.n
    m = n if assigner.sampled_agents is None else len(assigner.sampled_agents)
    model, archive_size = make_model(env.spec, sizes, k, n), assigner.archive_size if sizes.trunk == "separate" else 0
    collect_one = make_collect(env, population, model, sizes, assigner.sampled_agents)
    collect_all = make_collect_all(collect_one, assigner)
    learn = make_learn(model, config, assigner, collect_one, given)
    welfare = make_welfare(config.welfare_p, env.spec.reference_scale / 100.0, population.weights)

    def init(key: Key, rates: Rates = config.rates, assignment: PyTree = None, members: Member | None = None) -> TrainState:
        key, assignment_key, shared_key, policies_key = _first_keys(key)
        if assignment is None:
            assignment = assigner.init(assignment_key)
        policy_keys, start_keys, keys = (jax.random.split(key, k) for key in jax.random.split(policies_key, 3))
        state = TrainState(
            learner=init_learner(model.networks, rates, shared_key, policy_keys),
            statistics=repeat(model.normalizer.init(), k),
            returns=repeat(model.returns.init(), k),
            episodes=jax.vmap(lambda key: first_episodes(env, fresh_starts(env, sizes, key)))(start_keys),
            utilities=no_utilities(k, n),
            segments=repeat(no_segments(assigner.segment_environments, m), k) if assigner.segment_environments else None,
            archive=None,
            assignment=assignment,
            keys=keys,
            key=key,
            iteration=jnp.int32(0),
            rates=jax.tree.map(jnp.float32, rates),
            counts=None if welfare.plain else welfare.counts(jnp.full(n, 100.0 / env.spec.reference_scale)),  # nothing is known
        )
        state = state if members is None else begin_with(members, state)
        return state._replace(archive=first_archive(archive_size, state))

    def own_keys(state: TrainState) -> Key:
        return jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.iteration)

    def collect(state: TrainState) -> tuple[TrainState, Experience]:
        return collect_all(own_keys(state), state)

    def step(state: TrainState) -> tuple[TrainState, Info]:
        last, before = state, assigner.weights(state.assignment)
        shuffle_key, assign_key = jax.random.split(jax.random.fold_in(state.key, state.iteration))
        nothing = jnp.zeros((), bool)  # JAX's check takes keys that go through a loop under `vmap` for used ones
        new, learned = learn(own_keys(state), shuffle_key, state._replace(keys=nothing, key=nothing))
        new = new._replace(keys=state.keys, key=state.key, iteration=state.iteration + 1)
        new, recovered = recover(last, new)
        with jax.named_scope("e_step"):
            inputs = constrain(e_step_input(new))
            assignment, copies = constrain(assigner.reassign(assign_key, new.assignment, inputs))
        copies = copies._replace(sources=keep_frozen(copies.sources))
        after = assigner.weights(assignment)
        new = copy_members(copies, new._replace(assignment=assignment))
        copied = (copies.sources != jnp.arange(k, dtype=jnp.int32)).sum(dtype=jnp.int32)
        with jax.named_scope("info"):
            table = constrain(utility(new.utilities, env.spec.episode_length))
            if not welfare.plain and not in_context:
                new = new._replace(counts=welfare.counts((after * table).sum(0)))
            scale = env.spec.reference_scale
            return new, make_info(scale, welfare, table, before, after, copied, recovered, learned, sizes.transitions)

    def keep_frozen(sources: Array) -> Array:
        return sources.at[: given.frozen].set(np.arange(given.frozen, dtype=np.int32)) if given.frozen else sources

    def worth(returns: Array, agents: np.ndarray | None = None) -> Array:
        """What the E-step goes by."""
        return returns if welfare.plain else jnp.where(returns > NO_RETURN, welfare.worth(returns, agents), NO_RETURN)

    def e_step_input(state: TrainState) -> EStepInput:
        lengths = env.spec.segment_length, env.spec.episode_length
        shown = None if state.segments is None else expected_returns(state.segments, state.utilities, *lengths)
        own = utility(state.utilities, env.spec.episode_length)
        archived = None if state.archive is None else utility(state.archive.utilities, env.spec.episode_length)
        return EStepInput(
            utility=worth(own),
            iteration=state.iteration - 1,
            progress=state.iteration.astype(jnp.float32) / config.iterations,
            segments=None if shown is None else worth(shown, assigner.sampled_agents),
            archived=None if archived is None else worth(archived),
            returns=None if welfare.plain else own if archived is None else jnp.concatenate([own, archived]),
            can_restore=archive_size == assigner.archive_size,
            can_explore=config.sizes.explores,
            given=given,
            limits=limits,
        )

    def conclude(state: TrainState) -> Conclusion:
        found, members = concluded(state)
        if limits is None:
            return found
        return found._replace(worth=constrain(worth(utility(members.utilities, env.spec.episode_length))))

    def concluded(state: TrainState) -> tuple[Conclusion, TrainState]:
        if assigner.conclude is None:
            labels = harden(assigner.weights(state.assignment))
            return Conclusion(policies_of(state), labels, jnp.arange(k, dtype=jnp.int32)), state
        labels, sources = constrain(assigner.conclude(state.assignment, constrain(e_step_input(state))))
        sources = keep_frozen(sources)
        unchanged = jnp.arange(k, k + archive_size, dtype=jnp.int32) if archive_size else None
        copied = copy_members(Copies(sources, unchanged), state)
        return Conclusion(policies_of(copied), labels, sources), copied

    return Trainer(init, collect, step, conclude)


def assigner_key(key: Key) -> Key:
    """The key that `Trainer.init(key)` begins the assignment with, for first assignments that are made elsewhere."""
    return _first_keys(jax.random.clone(key))[1]  # a clone: that `init` makes the same four again is meant


def _first_keys(key: Key) -> Key:
    """Keys (4,): of the state, of the first assignment, of shared parameters, of the policies."""
    return jax.random.split(key, 4)


def check_given(config: TrainConfig, algorithm: str, takes_given: bool, given: Given) -> None:
    """Raise `ConfigError` unless a run can be given so many policies of other runs; `takes_given` as of its `Assigner`."""
    if not given.number:
        return
    rule = f"above {given.number}, as it counts the policies that are given, and at least one has to begin here"
    check("k", config.k, config.k > given.number, rule)
    rule = "'separate' where policies are given, as a trunk that all share would change them"
    check("trunk", repr(config.sizes.trunk), config.sizes.trunk == "separate", rule)
    rule = "em, plain_em or end_to_end where policies are given, which agents have to be able to choose"
    check("algorithm", repr(algorithm), takes_given, rule)


def check_limits(
    config: TrainConfig, population: Population, algorithm: str, takes_limits: bool, given: Given = NOTHING_GIVEN
) -> Loads | None:
    """The limits of each policy of a run, None where it has none, or `ConfigError`; `takes_limits` as of its `Assigner`."""
    if config.limits is None:
        return None
    rule = "em or plain_em where policies have limits; after training, rmdp-jax assign holds them for any algorithm"
    check("algorithm", repr(algorithm), takes_limits, rule)
    if isinstance(population.weights, jax.core.Tracer):
        raise ConfigError("weights: are traced, must be numbers where policies have limits; close over them")
    return loads_of(config.limits, config.k, config.n, given.frozen, population.weights)


def _check_agreement(population: Population, config: TrainConfig, assigner: Assigner) -> None:
    instance_of("config", config, TrainConfig, "a TrainConfig(...), such as preset(env)")
    if not isinstance(assigner, Assigner):
        raise ConfigError(f"assigner = {shown(assigner)}: must be an Assigner, such as em(k={config.k}, n={config.n})")
    if assigner.needs_per_agent_critic and config.sizes.critic != "per_agent":
        raise ConfigError(
            f"critic = {config.sizes.critic!r}: {assigner.name} learns from each agent's advantage: take critic='per_agent'"
        )
    if population.n != config.n:
        raise ConfigError(f"n = {config.n}: the population has {population.n} agents; give TrainConfig n={population.n}")
    if (assigner.k, assigner.n) != (config.k, config.n):
        raise ConfigError(f"assigner of k = {assigner.k}, n = {assigner.n}: the config has k = {config.k}, n = {config.n}")
