"""What fresh episodes brought, kept: people who come later are scored on them, without simulation.

Rewards look at outcomes only, so the k policies' outcomes are all that it takes to know what each would bring anybody whose
reward function is the task's. `make_evaluate(..., keep=...)` keeps them, `score_episodes` scores them;
`rmdp_jax.records.episodes` writes and reads `episodes.npz`.

Axes: k policies, e episodes of each that are kept, L steps of an episode at most, m agents.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population, Step, functions_of
from rmdp_jax.learning.scoring import reward_inputs
from rmdp_jax.programs import kept_program
from rmdp_jax.types import Array, Key, PyTree

KEPT_BYTES = 64 * 2**20  # of one run, uncompressed


class Episodes(NamedTuple):
    """Outcomes of full episodes of every policy: all that rewards look at, step by step."""

    outcome: PyTree  # leaves (k, e, L, ...), as the env reports them
    alive: Array  # (k, e, L) bool; a step that is not is padding after the end
    diverged: Array  # (k, e, L) bool, the physics broke: the step pays nothing

    @property
    def number(self) -> int:
        """How many episodes of each policy there are, e."""
        return int(self.alive.shape[1])


def evaluated_steps(env: Env, config: TrainConfig) -> int:
    """Steps of an episode in evaluation, L: all, or the first `config.evaluation_steps` of a longer one."""
    return min(env.spec.episode_length, config.evaluation_steps)


def outcome_like(env: Env) -> PyTree:
    """Shapes of the outcome of one step."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    spec = env.spec
    action = jax.ShapeDtypeStruct(() if spec.discrete else (spec.action_size,), jnp.int32 if spec.discrete else jnp.float32)

    def outcome(key: Key, action: Array) -> PyTree:
        return env.step(env.reset(key)[0], action)[1].outcome

    return kept_program("shapes of outcomes", functions_of(env), lambda: jax.eval_shape(outcome, key, action))


def outcome_names(outcome: PyTree) -> list[list[str]]:
    """Names of the numbers of each leaf of an outcome of one step: speed, or pay_0, pay_1 of a vector; outcome without a name.

    All are different.
    """
    found: list[list[str]] = []
    taken: set[str] = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(outcome):
        name = jax.tree_util.keystr(path, simple=True, separator="_") or "outcome"
        while taken.intersection(names := _numbered(name, leaf.shape)):  # {"a_b": ..., "a": {"b": ...}}
            name += "_"
        taken.update(names)
        found.append(names)
    return found


def _numbered(name: str, shape: tuple[int, ...]) -> list[str]:
    return ["_".join(map(str, (name, *at))) for at in np.ndindex(*shape)]


def bytes_per_episode(env: Env, config: TrainConfig) -> int:
    """Bytes of one episode of each of the k policies."""
    outcome = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(outcome_like(env)))
    return config.k * evaluated_steps(env, config) * (outcome + 2)


def kept_episodes(env: Env, config: TrainConfig, episodes: int) -> int:
    """How many of so many episodes of each policy are kept: the first that take at most `KEPT_BYTES` together; maybe none.

    None where an episode is for one agent (`Env.for_agent`), as it says nothing of others.
    """
    return 0 if env.for_agent is not None else min(episodes, KEPT_BYTES // bytes_per_episode(env, config))


def keep_step(step: Step, alive: Array, number: int) -> Episodes | None:
    """One step of the first `number` of E episodes, leaves (number, ...); None where none is kept."""
    if not number:
        return None
    inputs = reward_inputs(step)
    return jax.tree.map(lambda x: x[:number], Episodes(inputs.outcome, alive, jnp.asarray(inputs.diverged)))


def by_episode(stacked: Episodes | None) -> Episodes | None:
    """Leaves (L, e, ...) of one policy as (e, L, ...)."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), stacked)


def step_rewards(population: Population, step: Step, alive: Array) -> Array:
    """Rewards (E, n) float32 of a step of E episodes; 0 after the end, and as `Population.rewards` has it."""
    return jnp.where(alive[:, None], jax.vmap(population.rewards)(step), 0.0)


def score_episodes(population: Population, episodes: Episodes, agents: PyTree) -> Array:
    """Return of every agent in every kept episode, (k, e, m) float32 in the agents' units.

    Pure; jit it. Its mean over e is what `evaluate` says up to the last digit, as sums are in another order. Makes k e m
    numbers, so score very many agents in blocks.

    Args:
        population: whose `reward` they have; its own agents do not matter.
        episodes: kept ones.
        agents: leaves (m, ...), of the structure and shapes of the population's.
    """
    some = population._replace(agents=agents)

    def score(one: Episodes) -> Array:
        def add(total: Array, now: Episodes) -> tuple[Array, None]:
            return total + jnp.where(now.alive, some.rewards(_as_step(now)), 0.0), None

        return jax.lax.scan(add, jnp.zeros(some.n, jnp.float32), one)[0]

    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), episodes)
    return jax.lax.map(score, flat).reshape(*episodes.alive.shape[:2], some.n)


def _as_step(now: Episodes) -> Step:
    nothing: PyTree = ()
    return Step(nothing, now.outcome, nothing, nothing, now.diverged)
