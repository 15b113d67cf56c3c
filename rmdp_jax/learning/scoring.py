"""From the steps of one policy's unroll to rewards: the columns that its critic learns, and the sums over steps for n agents.

Up to `Sizes.agents_exact` agents every agent is scored at every step (`score_all`). Beyond it (`score_sample`) both are
estimated, without bias, and nothing of size (E, n) is ever built:

- The mixed reward sum_i w_i r_i / sum_i w_i of a transition is the mean reward of S = min(agents_exact, 1024) agents drawn by
  the policy's weights w, anew in each iteration: a sample of its group trains it. Standard error: the deviation of the rewards
  within the group / sqrt(S), 3% of it.
- The sum of an agent's rewards over the N = T E steps is N / M times that over M = `Sizes.utility_steps` of them, one drawn
  from each of M equal strata of N / M steps. Variance: N^2 / M^2 times the sum of the variances within the strata, at
  most N^2 sigma^2 / M, sigma the deviation of its rewards over the N steps. In the utility, decayed sums of many iterations
  with decay d, (1 + d) / (1 - d) times as many steps count (39 M = 2500 with the presets). On speed tasks sigma is at most
  half of the largest reward, which leaves a standard error of at most 1 of 100. Where reward comes at the last step of an
  episode only, an estimate rests on the few ends among the M steps: unbiased, but noisy. Raise utility_steps there; with
  utility_steps = T E the sums are exact again.

All agents are scored on the same steps, so the error of a mean over agents is not much smaller than that of one agent.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.env import Population, Step
from rmdp_jax.types import Array, Key, PyTree

LARGEST_SAMPLE = 1024  # agents that stand for a policy's group
BLOCK = 8192  # agents that are scored at once


class Totals(NamedTuple):
    """Sums over the steps of an unroll."""

    rewards: Array  # (n,) float32, or an estimate of it
    nonfinite: Array  # (n,) int32, steps whose reward was not finite and counts as 0; of the steps that were scored


class Scorer(NamedTuple):
    """How steps are scored while one policy is unrolled."""

    init: PyTree  # what is carried from step to step
    # carry, a step of E environments -> carry, columns (E, c), rewards of the sampled agents (E, m), what is stacked over T
    score: Callable[[PyTree, Step], tuple[PyTree, Array, Array, PyTree]]
    total: Callable[[PyTree, PyTree], "Totals"]  # carry, what was stacked (T, E, ...) -> sums over all steps


def score_all(population: Population, columns: Callable[[Array], Array], sampled: np.ndarray | None = None) -> Scorer:
    """Every agent at every step; `columns` makes columns (E, c) of rewards (E, n)."""
    score_step = jax.vmap(population.score)

    def score(totals: Totals, step: Step) -> tuple[Totals, Array, Array, PyTree]:
        rewards, nonfinite = score_step(step)
        totals = Totals(totals.rewards + rewards.sum(0), totals.nonfinite + nonfinite.sum(0, dtype=jnp.int32))
        return totals, columns(rewards), rewards if sampled is None else rewards[:, sampled], ()

    zeros = Totals(jnp.zeros(population.n, jnp.float32), jnp.zeros(population.n, jnp.int32))
    return Scorer(zeros, score, lambda totals, stacked: totals)


def score_sample(
    key: Key, population: Population, weights: Array, agents: int, steps: int, sampled: np.ndarray | None = None
) -> Scorer:
    """Columns (E, 1) by a sample of `agents` agents drawn by weights (n,), sums by `steps` steps; see above."""
    agent_key, step_key = jax.random.split(key)
    group = take_agents(population, sample_by_weight(agent_key, weights, min(agents, LARGEST_SAMPLE)))
    of_group, of_sampled = (jax.vmap(some.rewards) for some in (group, take_agents(population, sampled)))

    def score(carry: PyTree, step: Step) -> tuple[PyTree, Array, Array, PyTree]:
        return carry, of_group(step).mean(1, keepdims=True), of_sampled(step), reward_inputs(step)

    def total(carry: PyTree, stacked: Step) -> Totals:
        sample, share = sample_steps(step_key, stacked, steps)
        totals = total_rewards(population, sample)
        return totals._replace(rewards=totals.rewards / share)

    return Scorer((), score, total)


def score_steps(key: Key, population: Population, steps: int) -> Scorer:
    """No columns; the total is the rewards (steps, n) of so many drawn steps, or of all if there are fewer."""

    def score(carry: PyTree, step: Step) -> tuple[PyTree, Array, Array, PyTree]:
        return carry, *2 * [jnp.zeros((jnp.shape(step.diverged)[0], 1), jnp.float32)], reward_inputs(step)

    def total(carry: PyTree, stacked: Step) -> Totals:
        rewards, nonfinite = jax.vmap(population.score)(sample_steps(key, stacked, steps)[0])
        return Totals(rewards, nonfinite.astype(jnp.int32))

    return Scorer((), score, total)


def sample_steps(key: Key, stacked: Step, steps: int) -> tuple[Step, float]:
    """At most so many of the steps (T, E, ...), as leaves (M, ...), and which share of them that is."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stacked)
    number = jnp.size(flat.diverged)
    drawn = stratified_indices(key, number, min(steps, number))
    return jax.tree.map(lambda x: x[drawn], flat), drawn.shape[0] / number


def take_agents(population: Population, agents: Array | np.ndarray | None) -> Population:
    """The population of the `agents` (m,) named, all of them where none are."""
    return population if agents is None else population._replace(agents=jax.tree.map(lambda x: x[agents], population.agents))


def reward_inputs(step: Step) -> Step:
    """What rewards look at, and no more."""
    nothing: PyTree = ()
    return step._replace(obs=nothing, terminated=nothing, truncated=nothing)


def sample_by_weight(key: Key, weights: Array, number: int) -> Array:
    """Agents (number,) int32, each drawn by weights (n,), with replacement, one from each of `number` parts of equal weight.

    To the resolution of float32 sums: of 10^6 equal weights each has its chance to within a sixteenth.
    """
    edges = jnp.cumsum(weights)
    place = (jnp.arange(number, dtype=jnp.float32) + jax.random.uniform(key, (number,))) * (edges[-1] / number)
    place = jnp.minimum(place, jnp.nextafter(edges[-1], jnp.float32(0)))  # the last agent may have no weight
    return jnp.searchsorted(edges, place, side="right").astype(jnp.int32)


def stratified_indices(key: Key, total: int, number: int) -> Array:
    """Indices (number,) int32 into `total` steps, one from each of `number` equal parts; all, in order, if number = total.

    Index s is floor((s total + r) / number), r uniform in 0..total-1: whole numbers, so that the expected count of every
    step is number / total exactly.
    """
    begin, rest = np.divmod(np.arange(number) * total, number)
    offset = jax.random.randint(key, (number,), 0, total, jnp.int32)
    return jnp.asarray(begin, jnp.int32) + (jnp.asarray(rest, jnp.int32) + offset) // number


def total_rewards(population: Population, steps: Step) -> Totals:
    """Rewards of all agents summed over `steps` (D, ...): step by step in blocks of agents, never (D, n)."""

    def total(agent: PyTree) -> Totals:
        alone = population._replace(agents=jax.tree.map(lambda x: x[None], agent))

        def add(totals: Totals, step: Step) -> tuple[Totals, None]:
            (reward,), (nonfinite,) = alone.score(step)
            return Totals(totals.rewards + reward, totals.nonfinite + nonfinite.astype(jnp.int32)), None

        return jax.lax.scan(add, Totals(jnp.float32(0), jnp.int32(0)), steps)[0]

    return jax.lax.map(total, population.agents, batch_size=BLOCK)


def total_rewards_both_ways(population: Population, steps: Step, weights: Array) -> tuple[Array, Array]:
    """`total_rewards` (n,), and each step's rewards summed over agents by their weights (n,), (D,)."""
    n = population.n
    size = min(BLOCK, n)
    rows = jnp.arange(size, dtype=jnp.int32)

    def score_block(block: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        begin = jnp.minimum(block * size, n - size)  # the last block begins earlier rather than being shorter
        own = begin + rows
        part, shares = take_agents(population, own), jnp.where(own >= block * size, weights[own], 0.0)

        def score(total: Array, step: Step) -> tuple[Array, Array]:
            rewards = part.rewards(step)
            return total + rewards, jnp.matmul(rewards, shares, precision="highest")

        of_block, by_step = jax.lax.scan(score, jnp.zeros(size, jnp.float32), steps)
        return jax.lax.dynamic_update_slice_in_dim(sums[0], of_block, begin, 0), sums[1] + by_step

    nothing = jnp.zeros(n, jnp.float32), jnp.zeros(jnp.shape(steps.diverged), jnp.float32)
    return jax.lax.fori_loop(0, -(-n // size), score_block, nothing)
