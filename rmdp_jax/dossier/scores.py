"""What a run's fresh episodes say of its own agents, with how sure that is: all figures of a dossier begin here.

Axes: k policies, e kept episodes of each, n agents.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.evaluation.episodes import KEPT_BYTES, bytes_per_episode, score_episodes
from rmdp_jax.evaluation.statistics import half_width, half_width_of_difference
from rmdp_jax.programs import kept_program
from rmdp_jax.records.episodes import KeptEpisodes
from rmdp_jax.records.loading import Run, load_episodes
from rmdp_jax.running.assign import blocks


class Scores(NamedTuple):
    """Returns of the n agents by the k policies, in reference units (0..100)."""

    utility: np.ndarray  # (k, n) mean return over episodes
    deviation: np.ndarray | None  # (k, n) over episodes; None of fewer than two episodes
    single: np.ndarray | None  # (n, e) of every agent by its own policy in every episode; None where no episodes are kept
    group: np.ndarray | None  # (k, k, e) [j, o]: mean, by weight, over j's agents of the return by policy o; NaN of no agents
    kept: KeptEpisodes | None  # None where the task keeps none
    reason: str | None  # why not

    @property
    def episodes(self) -> int:
        """How many of each policy, e; 0 where none are kept."""
        return 0 if self.kept is None else self.kept.episodes.number

    def interval(self, labels: np.ndarray) -> np.ndarray | None:
        """Half of the 95% interval of each agent's mean return by the policy `labels` (n,) gives it, (n,); None if unknown."""
        if self.deviation is None:
            return None
        return half_width(self.deviation[labels, np.arange(len(labels))], self.episodes)

    def interval_of_margin(self, first: np.ndarray, second: np.ndarray, differences: int = 1) -> np.ndarray | None:
        """The same of the difference of two policies' mean returns for each agent, (n,); their episodes are independent.

        `differences` is that of `half_width_of_difference`.
        """
        if self.deviation is None:
            return None
        agents = np.arange(len(first))
        return half_width_of_difference(
            self.deviation[first, agents], self.deviation[second, agents], self.episodes, differences=differences
        )


def score_run(run: Run) -> Scores:
    """Score a run's own agents on the episodes that it kept; nothing is simulated.

    Where a task keeps no episodes (each is for one agent alone, or they are too large) there is only what result.json says.

    Raises:
        ConfigError: the run could have kept episodes and did not, as older ones, or they are damaged.
    """
    if run.env.for_agent is not None or bytes_per_episode(run.env, run.config) > KEPT_BYTES:
        why = "an episode is for one agent alone" if run.env.for_agent is not None else "one episode is too large to be kept"
        return Scores(np.asarray(run.result["utility"], float), None, None, None, None, why)
    kept = load_episodes(run)
    episodes, agents = jax.tree.map(jnp.asarray, kept.episodes), jax.tree.map(jnp.asarray, run.population.agents)
    alike = run.population._replace(agents=None, weights=None)
    score = kept_program("returns of episodes", alike.reward, lambda: jax.jit(partial(score_episodes, alike)))
    k, n, number = run.config.k, run.config.n, kept.episodes.number
    utility, single, group = np.zeros((k, n)), np.zeros((n, number), np.float32), np.zeros((k, k, number))
    deviation = np.zeros((k, n)) if number > 1 else None
    share, begin = _shares(run), 0
    for block, used in blocks(agents):
        returns = run.env.spec.reference_scale * np.asarray(score(episodes, block), np.float64)[..., :used]  # (k, e, used)
        at = np.arange(begin, begin + returns.shape[-1])
        utility[:, at] = returns.mean(1)
        single[at] = returns[run.assignment[at], :, at - begin]
        group += np.einsum("oeu,ju->joe", returns, share[:, at])
        if deviation is not None:
            deviation[:, at] = returns.std(1, ddof=1)
        begin += len(at)
    group[share.sum(1) == 0.0] = np.nan
    return Scores(utility, deviation, single, group, kept, None)


def _shares(run: Run) -> np.ndarray:
    """Of each agent in the weight of its policy's group, (k, n); rows sum to 1, or 0 where nobody is served."""
    weights = np.ones(run.config.n) if run.population.weights is None else np.asarray(run.population.weights, float)
    shares = np.where(np.arange(run.config.k)[:, None] == run.assignment, weights, 0.0)
    return shares / np.where(shares.any(1, keepdims=True), shares.sum(1, keepdims=True), 1.0)
