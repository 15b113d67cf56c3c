"""How good it is for everyone: the k x n matrix of returns from fresh full episodes.

Up to `Sizes.agents_exact` agents every step is scored for every agent. For more, the return of an episode of at most L steps is
L / M times the rewards of M = min(utility_steps, L) of its steps, one drawn from each of M equal strata of L / M steps:
unbiased, and exact where M = L (Resource Gathering). All agents are scored on the same steps of an episode. The standard error
of welfare is that over episodes, so the draws are in it. An entry of `utility` errs by at most L sigma / sqrt(M episodes),
sigma the deviation of the agent's rewards over the steps: on speed tasks by at most 1.6 of 100 with the preset's 16 episodes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.checks import check_env
from rmdp_jax.config import LARGEST_EPISODES, TrainConfig, settings_of
from rmdp_jax.env import Env, Population, Step, functions_of, guard, make_starts, served
from rmdp_jax.errors import ConfigError, flag, instance_of, seed_number, shown, whole_number
from rmdp_jax.evaluation.episodes import (
    Episodes,
    by_episode,
    evaluated_steps,
    keep_step,
    kept_episodes,
    score_episodes,
    step_rewards,
)
from rmdp_jax.keys import scan_keys
from rmdp_jax.learning.scoring import reward_inputs, stratified_indices, total_rewards_both_ways
from rmdp_jax.policies.model import POLICY_AXES, Policies, check_policies, decide, make_model
from rmdp_jax.programs import kept_program, shaped_like
from rmdp_jax.types import Array, Key, PyTree
from rmdp_jax.welfare import Welfare, make_welfare

LARGEST_BATCH = 1024  # episodes side by side, where each agent has its own
ERROR_EPISODES = 64  # that the standard error of a welfare that is no mean is estimated by, at most
_DRAWING = 0xD4A3  # tag of a key, as `split` would change the others


class Evaluation(NamedTuple):
    """Fresh full episodes of every policy, scored for every agent; welfare and utility in reference units."""

    welfare: Array  # () p-mean (`TrainConfig.welfare_p`) over agents of their assigned policy's mean return
    standard_error: Array  # () of welfare, over episodes
    utility: Array  # (k, n) mean return
    assignment: Array  # (n,) int32, the assignment that was evaluated
    best_welfare: Array  # () if each agent moved to the policy that was best for it in these very episodes (optimistic)
    episode_length: Array  # (k,) mean number of steps
    episodes: Episodes | None = None  # outcomes of the first episodes of each policy, where some are kept


def evaluate(
    env: Env,
    population: Population,
    config: TrainConfig,
    policies: Policies,
    assignment: ArrayLike,
    *,
    seed: int = 0,
    episodes: int | None = None,
    deterministic: bool = False,
    keep: int = 0,
) -> Evaluation:
    """Evaluate `policies` by fresh full episodes under `assignment` (n,).

    Raises:
        ConfigError: env, population, config, policies and assignment do not fit each other, or an argument breaks its rule.
    """
    evaluation = make_evaluate(env, population, config, episodes=episodes, deterministic=deterministic, keep=keep)
    check_policies(policies, config.k)
    labels = jnp.asarray(_check_labels(assignment, config.k, population.n), jnp.int32)
    return evaluation(policies, labels, jax.random.key(seed_number("seed", seed)))


def proved_bound(env: Env, population: Population, k: int) -> float | None:
    """What the welfare of k policies can be at best, in reference units; None where the task does not know it, or agents have
    weights: what is known is of means over agents, which no p-mean is above."""
    bound = population.upper_bound(k) if population.weights is None else None
    return None if bound is None else env.spec.reference_scale * float(bound)


def _check_labels(assignment: ArrayLike, k: int, n: int) -> ArrayLike:
    """The labels, or ConfigError: not n whole numbers in 0..k-1. A policy may be without agents here."""
    if isinstance(assignment, jax.core.Tracer):
        return assignment
    try:
        labels = np.asarray(assignment)
    except Exception:  # rows of different lengths, say
        raise ConfigError(f"assignment = {shown(assignment)}: must be (n,) = ({n},) whole numbers") from None
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"assignment of shape {labels.shape}, {labels.dtype}: must be (n,) = ({n},) whole numbers")
    if labels.min() < 0 or labels.max() >= k:
        raise ConfigError(f"assignment names policies {labels.min()}..{labels.max()}: must be of the k = {k}, 0..{k - 1}")
    return labels


class Played(NamedTuple):
    """One step of full episodes; a step that is not `alive` is padding after the end."""

    step: Step  # leaves (E, ...), or (k, T, ...) of a recording
    state: PyTree  # of the env after the step, leaves likewise
    alive: Array  # (E,) bool, or (k, T)


Evaluate = Callable[[Policies, Array, Key], Evaluation]


def make_evaluate(
    env: Env,
    population: Population,
    config: TrainConfig,
    *,
    episodes: int | None = None,
    deterministic: bool = False,
    keep: int = 0,
) -> Evaluate:
    """A pure function of policies, an assignment (n,) and a key; compiled, to vmap as you like.

    A later one for others of as many agents, with equal settings, shares its program; see `rmdp_jax.clear_programs`.

    Args:
        env, config: as the trainer was made of.
        population: the people of the run, or others in any number, also fewer than policies: `config.n` is that of the run.
        episodes: fresh episodes of each policy; `config.evaluation_episodes` when not given. Where an episode is for one agent
            (`Env.for_agent`), so many for each of them.
        deterministic: act by the mode of the distribution instead of a sample, as trained.
        keep: so many of these episodes, the first, are in `Evaluation.episodes`; nothing else changes by that.

    Raises:
        ConfigError: an argument breaks its rule, or the env or a reward its word. Labels are checked by `evaluate`; here they
            may be traced, and welfare is NaN where one is not in 0..k-1.
    """
    check_env(env, population)
    instance_of("config", config, TrainConfig, "the TrainConfig that policies were trained with")
    if env.for_agent is not None and population.n != config.n:
        raise ConfigError(
            f"n = {config.n}: the population has {population.n} agents, but the env shows the policy who they are"
        )
    number = config.evaluation_episodes if episodes is None else whole_number("episodes", episodes, 1, LARGEST_EPISODES)
    deterministic = flag("deterministic", deterministic)
    most, of = (number, "the episodes of each policy") if env.for_agent is None else (0, "as an episode is for one agent alone")
    keep = whole_number("keep", keep, 0, most, f"from 0 to {most}, {of}")
    people = jax.tree.map(jnp.asarray, (population.agents, population.weights))
    made_of = evaluation_made_of(env, population, config), shaped_like(people), number, deterministic, keep
    alike = population._replace(agents=None, weights=None)  # whoever they are

    def of_people(people: PyTree, policies: Policies, labels: Array, key: Key) -> Evaluation:
        return evaluation_of(env, served(alike, people), config, number, deterministic, keep)(policies, labels, key)

    return partial(kept_program("evaluation", made_of, lambda: jax.jit(of_people)), people)


NOT_EVALUATED = ("seed", "transitions", "log_every", "checkpoint_every", "max_fault_share", "at_most", "at_least")


def evaluation_made_of(env: Env, population: Population, config: TrainConfig) -> tuple[Any, ...]:
    """What evaluations are made of, but for the arguments of `make_evaluate` and the people."""
    return functions_of(env), population.reward, settings_of(config, NOT_EVALUATED)


def evaluation_of(
    env: Env, population: Population, config: TrainConfig, number: int, deterministic: bool, keep: int
) -> Evaluate:
    """`make_evaluate` of arguments that were checked and are given in full; not compiled."""
    scale = env.spec.reference_scale
    welfare = make_welfare(config.welfare_p, scale / 100.0, population.weights)
    estimated = population.n > config.sizes.agents_exact
    plain = welfare.plain or estimated
    recorded = keep if plain else max(keep, kept_episodes(env, config, min(number, ERROR_EPISODES)))

    def play_in(env: Env) -> Callable:
        return _make_play(guard(env), config, deterministic)

    by_steps = _score_by_sample if estimated else _score_by_all
    score = (by_steps if env.for_agent is None else _score_by_own)(play_in, env, population, config, number, recorded)

    def evaluate_all(policies: Policies, labels: Array, key: Key) -> Evaluation:
        if jnp.shape(labels) != (population.n,):
            raise ConfigError(f"assignment of shape {jnp.shape(labels)}: must be (n,) = ({population.n},), of these agents")
        known = (labels >= 0) & (labels < config.k)
        weights = jnp.where(known[None], jax.nn.one_hot(labels, config.k, axis=0, dtype=jnp.float32), jnp.nan)
        returns, group, steps, kept = jax.vmap(score, (0, POLICY_AXES, 0))(jax.random.split(key, config.k), policies, weights)
        mean = group.sum(0) / population.n  # (episodes,) welfare in the e-th episode of each policy
        value = mean.mean() if welfare.plain else welfare.mean(returns[labels, jnp.arange(population.n)])
        if not welfare.plain:
            mean = _pseudo_values(welfare, population, labels, None if estimated else kept)
        return Evaluation(
            welfare=scale * jnp.where(known.all(), value, jnp.nan),
            standard_error=scale * mean.std(ddof=1) / number**0.5 if mean.size > 1 else jnp.float32(jnp.nan),
            utility=scale * returns,
            assignment=labels,
            best_welfare=scale * welfare.mean(returns.max(0)),
            episode_length=steps,
            episodes=kept if keep == recorded else jax.tree.map(lambda x: x[:, :keep], kept) if keep else None,
        )

    return evaluate_all


def _pseudo_values(welfare: Welfare, population: Population, labels: Array, kept: Episodes | None) -> Array:
    """Jackknife pseudo-values (e,) of welfare by e kept episodes: their spread is welfare's own (Tukey 1958).

    Slopes would not do: that of a p-mean is infinite where somebody gets nothing.
    """
    if kept is None:
        return jnp.zeros(1, jnp.float32)
    agents = jnp.arange(labels.size)
    returns_of = score_episodes(population, kept, population.agents)[labels, :, agents].T  # (e, n)
    number, total = len(returns_of), returns_of.sum(0)
    without = jax.vmap(welfare.mean)((total[None] - returns_of) / max(number - 1, 1))
    return number * welfare.mean(total / number) - (number - 1) * without


# key, one policy, weights (n,) -> mean returns (n,), returns of its group in each episode (episodes,), mean length (), kept
_PlayIn = Callable[[Env], Callable]
_Scores = tuple[Array, Array, Array, Episodes | None]
_Score = Callable[[Key, Policies, Array], _Scores]


def _score_by_all(play_in: _PlayIn, env: Env, population: Population, config: TrainConfig, number: int, keep: int) -> _Score:
    """By all steps of `number` episodes."""
    play = play_in(env)

    def score(key: Key, policy: Policies, weights: Array) -> _Scores:
        def add(totals: tuple[Array, Array, Array], played: Played) -> tuple[tuple[Array, Array, Array], Episodes | None]:
            rewards = step_rewards(population, played.step, played.alive)
            returns, group, steps = totals
            group = group + jnp.matmul(rewards, weights, precision="highest")
            totals = returns + rewards.sum(0), group, steps + played.alive.astype(jnp.float32)
            return totals, keep_step(played.step, played.alive, keep)

        nothing = (jnp.zeros(population.n, jnp.float32), jnp.zeros(number, jnp.float32), jnp.zeros(number, jnp.float32))
        (returns, group, steps), kept = play(key, policy, number, add, nothing)
        return returns / number, group, steps.mean(), by_episode(kept)

    return score


def _score_by_sample(
    play_in: Callable, env: Env, population: Population, config: TrainConfig, number: int, keep: int
) -> _Score:
    """By some steps of each of `number` episodes; nothing of size n is built for a step."""
    play = play_in(env)
    length = evaluated_steps(env, config)
    drawn = min(config.sizes.utility_steps, length)

    def stack(nothing: tuple[()], played: Played) -> tuple[tuple[()], tuple[Step, Array, Episodes | None]]:
        masked = ~played.alive | jnp.asarray(played.step.diverged)
        kept = keep_step(played.step, played.alive, keep)
        return nothing, (reward_inputs(played.step)._replace(diverged=masked), played.alive, kept)

    def score(key: Key, policy: Policies, weights: Array) -> _Scores:
        steps, alive, kept = play(key, policy, number, stack, ())[1]  # (L, episodes, ...)
        keys = jax.random.split(jax.random.fold_in(key, _DRAWING), number)
        rows = jax.vmap(lambda key: stratified_indices(key, length, drawn))(keys).T  # (M, episodes)
        columns = jnp.broadcast_to(jnp.arange(number), rows.shape)
        some = jax.tree.map(lambda x: x[rows, columns].reshape(-1, *x.shape[2:]), steps)  # (M * episodes, ...)
        by_agent, by_step = total_rewards_both_ways(population, some, weights)
        group = by_step.reshape(rows.shape).sum(0)
        steps_taken = alive.sum(0, dtype=jnp.float32).mean()
        return length / drawn * by_agent / number, length / drawn * group, steps_taken, by_episode(kept)

    return score


def _score_by_own(play_in: _PlayIn, env: Env, population: Population, config: TrainConfig, number: int, keep: int) -> _Score:
    """By `number` episodes for each agent, where an episode is for one of them: nobody's return is left to the draw."""
    for_agent = env.for_agent
    assert for_agent is not None
    assert not keep  # nobody else can be scored on them

    def score(key: Key, policy: Policies, weights: Array) -> _Scores:
        def score_one(agent: Array) -> _Scores:
            of_agent = _score_by_all(play_in, for_agent(agent), population, config, number, 0)
            return of_agent(jax.random.fold_in(key, agent), policy, weights)

        agents = jnp.arange(config.n, dtype=jnp.int32)
        every = jax.lax.map(score_one, agents, batch_size=max(1, LARGEST_BATCH // number))
        return jax.tree.map(lambda x: x.mean(0), every)  # an episode is for each of them equally often

    return score


def make_record(env: Env, config: TrainConfig, *, deterministic: bool = True) -> Callable[[Policies, Key], Played]:
    """A pure function to `Played` with leaves (k, T, ...): one full episode of each policy, step by step."""
    instance_of("config", config, TrainConfig, "the TrainConfig that policies were trained with")
    play = _make_play(guard(env), config, flag("deterministic", deterministic))

    def keep(nothing: tuple[()], played: Played) -> tuple[tuple[()], Played]:
        return nothing, jax.tree.map(lambda x: x[0], played._replace(state=played.state.inner))

    def record(key: Key, policy: Policies) -> Played:
        return play(key, policy, 1, keep, ())[1]

    return lambda policies, key: jax.vmap(record, (0, POLICY_AXES))(jax.random.split(key, config.k), policies)


def _make_play(env: Env, config: TrainConfig, deterministic: bool) -> Callable:
    """`play(key, policy, number, fold, carry)`: fold over the steps of `number` full episodes of one policy."""
    model = make_model(env.spec, config.sizes, config.k, config.n)
    choose = {True: lambda out, noise: model.distribution.mode(out), False: model.distribution.sample}[deterministic]

    def play(key: Key, policy: Policies, number: int, fold: Callable, carry: PyTree) -> tuple[PyTree, PyTree]:
        start_key, noise_key = jax.random.split(key)
        states, obs = make_starts(env, jax.random.split(start_key, number))

        def advance(
            scan_carry: tuple[PyTree, Array, Array, PyTree], key: Key
        ) -> tuple[tuple[PyTree, Array, Array, PyTree], PyTree]:
            states, obs, alive, carry = scan_carry
            action = choose(decide(model, policy, obs), model.distribution.noise(key, (number, env.spec.action_size)))
            states, step = jax.vmap(env.step)(states, action)
            carry, stacked = fold(carry, Played(step, states, alive))
            return (states, step.obs, alive & ~(step.terminated | step.truncated), carry), stacked

        start = (states, obs, jnp.ones(number, bool), carry)
        last, stacked = scan_keys(advance, start, noise_key, evaluated_steps(env, config))
        return last[3], stacked

    return play
