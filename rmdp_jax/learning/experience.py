"""From one policy's parameters to what it learns from: a rollout, scored by the critic."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import Rates, Sizes
from rmdp_jax.env import Env, EpisodeState, Population, make_starts, starts_needed
from rmdp_jax.learning.advantage import gae
from rmdp_jax.learning.ppo import Batch
from rmdp_jax.learning.rollout import rollout
from rmdp_jax.learning.scoring import Scorer, Totals, score_all, score_sample
from rmdp_jax.learning.segments import SegmentReturns
from rmdp_jax.policies.model import Model, Policies, decide
from rmdp_jax.types import Array, Key, PyTree


class Experience(NamedTuple):
    """What one policy's unroll leaves behind; the trainer's have k in front."""

    batch: Batch  # leaves (E*T, ...)
    statistics: PyTree  # of observations, these included
    returns: PyTree  # running statistics of returns, these included; see `policies/returns.py`
    totals: Totals  # over all steps and environments
    episodes: Array  # () int32, ended in this unroll
    diverged: Array  # () int32, steps in which the physics broke
    outcome: PyTree  # of the env, float32 means over all steps that did not diverge


# key, policy, its index, states (E,), segment returns, running statistics of returns, weights (n,), rates
# (and `axis`, of a `vmap` over which running statistics are added up) -> states, segment returns, experience
Collect = Callable[..., tuple[EpisodeState, SegmentReturns | None, Experience]]


_SCORING = 0x5C0E  # tag of a key, as `split` would change the others


def fresh_starts(env: Env, sizes: Sizes, key: Key, unroll: int | None = None) -> PyTree:
    """A pool of first states: one for each environment, or as many as episodes can begin in an `unroll` of that many steps."""
    number = 1 if unroll is None else starts_needed(env.spec, unroll)
    return make_starts(env, jax.random.split(key, number * sizes.environments))


def make_collect(env: Env, population: Population, model: Model, sizes: Sizes, sampled: np.ndarray | None = None) -> Collect:
    """`collect` for one policy: go on from the states of its E environments for T steps and score the transitions.

    Segment returns are of the `sampled` agents (m,), of all where not given.
    """
    shape = (sizes.unroll, sizes.environments, env.spec.action_size)

    def scorer(key: Key, weights: Array) -> Scorer:
        if population.n > sizes.agents_exact:
            key = jax.random.fold_in(key, _SCORING)
            return score_sample(key, population, weights, sizes.agents_exact, sizes.utility_steps, sampled)
        return score_all(population, lambda rewards: model.critic.columns(rewards, weights), sampled)

    def collect(
        key: Key,
        policy: Policies,
        index: Array,
        states: EpisodeState,
        segments: SegmentReturns | None,
        returns: PyTree,
        weights: Array,
        rates: Rates,
        axis: str | None = None,
    ) -> tuple[EpisodeState, SegmentReturns | None, Experience]:
        start_key, noise_key = jax.random.split(key)

        def act(obs: Array, noise: Array) -> tuple[Array, Array]:
            out = decide(model, policy, obs)
            action = model.distribution.sample(out, noise)
            return action, model.distribution.log_prob(out, action)

        states, steps, totals, segments = rollout(
            env,
            scorer(key, weights),
            act,
            states,
            fresh_starts(env, sizes, start_key, sizes.unroll),
            model.distribution.noise(noise_key, shape),
            segments,
        )
        obs, next_obs = (
            model.normalizer.apply(policy.statistics, x, policy.observation_clip) for x in (steps.obs, steps.next_obs)
        )
        value, next_value = (model.networks.critic(policy.params, index, x) for x in (obs, next_obs))
        discount = env.spec.discount if rates.discount is None else rates.discount
        returns = model.returns.update(returns, steps.reward, steps.done, discount, axis)
        reward = rates.reward_scaling / model.returns.scale(returns) * steps.reward
        advantage, target = gae(reward, value, next_value, steps.terminated, steps.done, discount, rates.gae_lambda)
        sound = jnp.maximum((~steps.diverged).sum(dtype=jnp.int32), 1).astype(jnp.float32)
        batch = Batch(obs, steps.action, steps.log_prob, advantage, target)
        experience = Experience(
            batch=jax.tree.map(lambda x: x.reshape(sizes.transitions, *x.shape[2:]), batch),
            statistics=model.normalizer.update(policy.statistics, steps.obs, axis),
            returns=returns,
            totals=totals,
            episodes=steps.done.sum(dtype=jnp.int32),
            diverged=steps.diverged.sum(dtype=jnp.int32),
            outcome=jax.tree.map(lambda x: x.sum(0) / sound, steps.outcome),
        )
        return states, segments, experience

    return collect
