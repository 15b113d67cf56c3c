"""Agents as vectors of numbers, and the env in which a policy is told by such a vector whom it acts for."""

from hashlib import sha256
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.env import Column, Env, Population, Step
from rmdp_jax.errors import ConfigError
from rmdp_jax.types import Array, Key, PyTree

LARGEST_ONE_HOT = 128  # values up to which a whole number is shown as a name


class InContext(NamedTuple):
    """n agents that know which they are."""

    who: Array  # (n,) int32, which agent
    agent: PyTree  # leaves (n, ...), of the population without context


class ForAgent(NamedTuple):
    """The outcome of a step, and for whom it was made."""

    who: Array  # () int32, an agent
    outcome: PyTree  # of the env without context


class ContextState(NamedTuple):
    """State of an env in context."""

    who: Array  # () int32, the agent that this episode is for
    inner: PyTree


def with_context(env: Env, population: Population) -> tuple[Env, Population]:
    """The same task, each episode of it for one agent, which the policy is told: one network with up to n behaviours.

    `reset` draws an agent m, uniformly, whose vector (`context_vectors`) follows the observation in this episode. Agent i is
    paid n r_i in episodes for i, else nothing. So the mean over agents of rewards is the reward of the agent that was drawn,
    which is what a policy for all n learns from, and an expected return is that of an agent's own episodes,

        U[j, i] = E[n 1(m = i) return_i] = E[return_i | m = i].

    The trainer, its records and its evaluation take it as any task, with k = 1 for one contextual policy (universal value
    functions: Schaul et al., ICML 2015; contextual MDPs: Hallak et al., 2015). `Env.for_agent(i)` has the episodes of agent i
    alone, by which `evaluate` gives every agent as many. `upper_bound` and `reachable` are those of n policies, as a policy
    in context can behave in n ways.

    The env shows these very agents: a population with others (`Population._replace`) needs an env of its own.

    Raises:
        ConfigError: the agents are no numbers; see `agent_columns`.
    """
    vectors, n, reward_of = jnp.asarray(context_vectors(population.agents)), population.n, population.reward
    size = env.spec.observation_size + vectors.shape[1]
    spec = env.spec._replace(observation_size=size, options={**env.spec.options, "context": True})

    def with_vector(index: Array, obs: Array) -> Array:
        return jnp.concatenate([obs, vectors[index]])

    def begin(index: Array, key: Key) -> tuple[ContextState, Array]:
        inner, obs = env.reset(key)
        return ContextState(index, inner), with_vector(index, obs)

    def reset(key: Key) -> tuple[ContextState, Array]:
        agent_key, own_key = jax.random.split(key)
        return begin(jax.random.randint(agent_key, (), 0, n, jnp.int32), own_key)

    def step(state: ContextState, action: Array) -> tuple[ContextState, Step]:
        inner, result = env.step(state.inner, action)
        outcome = ForAgent(state.who, result.outcome)
        return ContextState(state.who, inner), result._replace(obs=with_vector(state.who, result.obs), outcome=outcome)

    def reward(agent: InContext, outcome: ForAgent) -> Array:
        own = reward_of(agent.agent, outcome.outcome)
        return jnp.where(agent.who == outcome.who, jnp.float32(n) * own, 0.0)

    def for_agent(index: Array | int) -> Env:
        return Env(spec, lambda key: begin(jnp.asarray(index, jnp.int32), key), step)

    people = population._replace(
        agents=InContext(jnp.arange(n, dtype=jnp.int32), population.agents),
        columns=population.columns and (Column("who", 0, n - 1, "number of an agent"), *population.columns),
        reward=reward,
        upper_bound=lambda k: population.upper_bound(n),
        reachable=lambda k: population.reachable(n),
        best_return=lambda agents: population.best_return(agents.agent),
    )
    return Env(spec, reset, step, for_agent), people


def agents_in(population: Population) -> str | None:
    """The agents of a population in context, as a digest, by which one env shows them or not; None of one without."""
    if not isinstance(population.agents, InContext):
        return None
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(population.agents)]
    return sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()[:12]


def context_vectors(agents: PyTree) -> np.ndarray:
    """What a policy is told of each agent, (n, c) float32 from -1 to 1.

    A column of real numbers is scaled to its own range. One of whole numbers or bools with up to `LARGEST_ONE_HOT` different
    values is taken for names (the cell that somebody wants) and becomes an entry of 0 or 1 for each value. Columns in which
    all agents are alike are left out.

    Raises:
        ConfigError: as of `agent_columns`.
    """
    shown = []
    for column in agent_columns(agents):
        values = np.unique(column)
        if len(values) == 1:
            continue
        if not np.issubdtype(column.dtype, np.floating) and len(values) <= LARGEST_ONE_HOT:
            shown.append(column[:, None] == values[None])
        else:
            shown.append(2.0 * _to_unit(column)[:, None] - 1.0)
    n = len(jax.tree.leaves(agents)[0])
    return np.concatenate([np.zeros((n, 0)), *shown], axis=1).astype(np.float32)


def unit_vectors(agents: PyTree) -> np.ndarray:
    """Parameters of each agent as amounts, (n, d) float64, each column scaled to 0..1 by its own range; 0 where all are alike.

    Raises:
        ConfigError: as of `agent_columns`.
    """
    return np.stack([_to_unit(column) for column in agent_columns(agents)], axis=1)


def agent_columns(agents: PyTree) -> list[np.ndarray]:
    """Every number of an agent as a column (n,), in the order of the leaves; (n, 2, 3) is six columns.

    Raises:
        ConfigError: there is a leaf that holds no numbers (keys, words), or something that is not finite, or no column.
    """
    columns: list[np.ndarray] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(agents):
        name = f"agents{jax.tree_util.keystr(path)}"
        array = _known(name, leaf)
        columns += list(array.reshape(len(array), -1).T)
    if not columns:
        raise ConfigError("agents: hold no number, but cover and contextual go by agents' parameters; take em or cluster")
    return columns


def _known(name: str, leaf: Any) -> np.ndarray:
    """A leaf (n, ...) as numpy's, of finite real numbers."""
    is_key = jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.extended)
    array = np.zeros(0, object) if is_key or isinstance(leaf, jax.core.Tracer) else np.asarray(leaf)
    real = np.issubdtype(array.dtype, np.number) and not np.issubdtype(array.dtype, np.complexfloating)
    if not (real or array.dtype == np.bool_):
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise ConfigError(f"{name} is {kind}: cover and contextual go by agents' parameters, known numbers; take em or cluster")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds numbers that are not finite: cover and contextual go by agents' parameters")
    return array


def _to_unit(column: np.ndarray) -> np.ndarray:
    values = column.astype(np.float64)
    low, span = values.min(), np.ptp(values)
    return (values - low) / (span if span > 0 else 1.0)
