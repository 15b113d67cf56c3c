"""What a task is: an unbatched MDP (`Env`) and the n people it serves (`Population`).

An env does not know the agents. It reports an *outcome* per step (a speed; visited cells and a pay-off) and the agents'
rewards look at that, which is how n reward functions share one MDP.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.errors import ConfigError
from rmdp_jax.types import Array, Key, PyTree


class EnvSpec(NamedTuple):
    """Static facts of an `Env`."""

    name: str
    observation_size: int
    action_size: int  # number of actions when discrete, else components of an action in [-1, 1]
    discrete: bool
    episode_length: int  # steps after which an episode is truncated at the latest
    discount: float  # gamma of the task, the default of training
    reference_scale: float  # welfare in reference units (0..100) = reference_scale * mean return
    backend: str  # what steps it: "jax", "native", "mjx", ...
    finite_horizon: bool = (
        False  # the cut is part of the task and nothing follows it, which `step` says by `truncated`; else learners look past
    )
    # Steps of one segment return, scaled to an episode; None: whole episodes, which suits rewards that come at their end. Where
    # they come at every step, short segments show what a policy does now: a whole episode may have begun many updates ago.
    segment_length: int | None = None
    shortest_episode: int = 1  # steps before which no episode ends; as many fresh starts are drawn as can be needed
    observation_limit: float = float("inf")  # an observation of this size or more means that the physics broke
    options: Mapping[str, Any] = MappingProxyType({})  # arguments that made it, set by `envs.make`
    probe: bool = True  # play some steps of it before training, to see whether it keeps its word; see `rmdp_jax.checks`
    make: str | None = (
        None  # module:function that made it, set by `envs.make`, so that the folder of a run is enough to make it
    )
    notes: tuple[str, ...] = ()  # what an adapter changed, printed when training begins


def plain_spec(spec: EnvSpec) -> EnvSpec:
    """`spec` without the arguments that made its env, as no program depends on them; the seed of the agents is among them."""
    return spec._replace(options=MappingProxyType({}))


class Step(NamedTuple):
    """What one step of an `Env` returns beside its state."""

    obs: Array  # (o,) float32, the true successor, also at the end of an episode
    outcome: PyTree  # what rewards may look at
    terminated: Array  # () bool, the task ended
    truncated: Array  # () bool, the clock ran out; never together with terminated
    diverged: Array | bool = False  # () bool, the physics broke: the step pays nothing and ends its episode; set by `guard`


class Env(NamedTuple):
    """An unbatched MDP as pure functions; batch it with `jax.vmap`. A stochastic env keeps a key in its state."""

    spec: EnvSpec
    reset: Callable[[Key], tuple[PyTree, Array]]  # key -> state, obs (o,)
    step: Callable[[PyTree, Array], tuple[PyTree, Step]]  # state, action () int32 or (a,) float32
    # agent () int32 -> the env of its episodes alone, where `reset` draws for whom an episode is, all agents equally likely
    for_agent: "Callable[[Array], Env] | None" = None
    # name -> a finished run (`rmdp_jax.records.trained.Trained`) as a matplotlib figure, None where there is nothing to show
    pictures: Mapping[str, Callable[[Any], Any]] = MappingProxyType({})


def functions_of(env: Env) -> Env:
    """All of an env that programs are made of."""
    return env._replace(spec=plain_spec(env.spec))


class Column(NamedTuple):
    """What a leaf of an agent is, in tables of agents."""

    name: str
    low: float = float("-inf")
    high: float = float("inf")
    help: str = ""  # unit or meaning, in a few words


class Population(NamedTuple):
    """n agents with a reward function each.

    `upper_bound`, `oracle_groups`, `reachable` and `best_return` are knowledge *about* the task: for reports and baselines, not
    for training.
    """

    agents: PyTree  # leaves (n, ...)
    reward: Callable[[PyTree, PyTree], Array]  # one agent, one outcome -> () float32
    upper_bound: Callable[[int], float | None] = lambda k: None  # k -> best mean return that k policies can reach
    oracle_groups: Callable[[int], ArrayLike] | None = None  # k -> (n,) int32, a good partition known beforehand
    reachable: Callable[[int], float | None] = lambda k: None  # k -> mean return that k policies were seen to reach, estimated
    # (n,) float32 above 0, how much each agent counts in welfare, all alike when None, which is what bounds are about
    weights: Array | None = None
    # any agents, leaves (m, ...) -> (m,) the most that a policy of its own could bring each at best, proved
    best_return: Callable[[PyTree], ArrayLike | None] = lambda agents: None
    columns: tuple[Column, ...] = ()  # one a leaf of `agents`, in their order; named by the paths to them when not given

    @property
    def n(self) -> int:
        """Number of agents."""
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(self.agents)]
        if not shapes or not shapes[0]:
            raise ConfigError(
                "population: agents must be a pytree of arrays (n, ...), one row an agent, such as jnp.stack(agents)"
            )
        return shapes[0][0]

    def rewards(self, step: Step) -> Array:
        """Rewards (n,) float32 of one step to all agents; 0 where the physics diverged or the reward is not finite."""
        return self.score(step)[0]

    def score(self, step: Step) -> tuple[Array, Array]:
        """`rewards` (n,), and whether an agent's reward (n,) bool was not finite though the physics was sound.

        Products in a reward are in float32, whatever is set for the networks.
        """
        with jax.default_matmul_precision("highest"):
            rewards = jax.vmap(self.reward, (0, None))(self.agents, step.outcome)
        finite = jnp.isfinite(rewards)
        return jnp.where(finite & ~jnp.asarray(step.diverged), rewards, 0.0), ~finite & ~jnp.asarray(step.diverged)


def served(population: Population, people: PyTree) -> Population:
    """The population of other people, their agents and weights, which may be traced."""
    agents, weights = people
    return population._replace(agents=agents, weights=weights)


class EpisodeState(NamedTuple):
    """State of an `auto_reset` env; act on `obs`, which is already the new episode's after an end."""

    inner: PyTree
    obs: Array  # (o,) float32
    steps_left: Array  # () int32, steps until this episode is truncated at the latest
    cursor: Array  # () int32, the start of the pool that the next episode takes


class GuardState(NamedTuple):
    """State of a `guard`ed env."""

    inner: PyTree  # the env's own
    obs: Array  # (o,) float32, the last sound observation
    sound: Array  # () bool, whether the observation of `reset` was


def guard(env: Env) -> Env:
    """`env` safe against diverged physics and actions out of range.

    A step with anything non-finite, or with an observation beyond `spec.observation_limit`, is marked `diverged`: terminated,
    and with the last sound observation. So is the first step after a `reset` whose observation is not sound; zeros stand for
    that. Continuous actions are clipped to [-1, 1], as `EnvSpec` promises to the env. Its products of matrices are in float32,
    whatever is set for the networks: dynamics in TF32, a GPU's default, are other dynamics.
    """

    def is_sound(obs: Array) -> Array:
        return (jnp.abs(obs) < env.spec.observation_limit).all()  # false for NaN, and for inf whatever the limit

    def step(state: GuardState, action: Array) -> tuple[GuardState, Step]:
        with jax.default_matmul_precision("highest"):
            inner, result = env.step(state.inner, action if env.spec.discrete else jnp.clip(action, -1.0, 1.0))
        sound = state.sound & is_sound(result.obs)
        for leaf in jax.tree.leaves(result.outcome):
            sound &= jnp.isfinite(leaf).all()
        obs = jnp.where(sound, result.obs, state.obs)
        return GuardState(inner, obs, state.sound), result._replace(
            obs=obs,
            terminated=result.terminated | ~sound,
            truncated=result.truncated & sound,
            diverged=~sound,
        )

    def reset(key: Key) -> tuple[GuardState, Array]:
        with jax.default_matmul_precision("highest"):
            inner, obs = env.reset(key)
        sound = is_sound(obs)
        obs = jnp.where(sound, obs, jnp.zeros_like(obs))
        return GuardState(inner, obs, sound), obs

    return Env(env.spec, reset, step)


def task_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the `options` of an env that are not reported elsewhere: without people and backend."""
    return {name: value for name, value in options.items() if name not in ("seed", "n", "backend")}


def describe_options(options: Mapping[str, Any]) -> str:
    """`task_options` in words, without `context`: "size=4", or nothing."""
    shown = task_options(options)
    return ", ".join(f"{name}={shown[name]}" for name in sorted(shown) if name != "context")


def make_starts(env: Env, keys: Key) -> tuple[PyTree, Array]:
    """A pool of P fresh first states and observations, leaves (P, ...), from keys (P,)."""
    return jax.vmap(env.reset)(keys)


def auto_reset(env: Env, starts: tuple[PyTree, Array], environments: int = 1) -> Env:
    """`env` that goes on with a start of the pool `starts` (see `make_starts`) when an episode ends.

    Under `vmap` a reset inside `step` would be computed at every step; a pool is computed once an unroll and keeps the
    randomness fresh. The `obs` of `Step` is still the true successor, within the episode that ended. A truncation
    counts as termination when the horizon is part of the task, so that it is not bootstrapped.

    Args:
        env: unbatched.
        starts: a pool of P.
        environments: E, how many share the pool. Each begins at a `cursor` of its own (`first_episodes`; `reset` sets 0) and
            takes every E-th start, so that all starts are different while there are enough.
    """
    length = jnp.int32(env.spec.episode_length)
    size = starts[1].shape[0]

    def reset(key: Key) -> tuple[EpisodeState, Array]:
        inner, obs = env.reset(key)
        return EpisodeState(inner, obs, length, jnp.int32(0)), obs

    def step(state: EpisodeState, action: Array) -> tuple[EpisodeState, Step]:
        inner, result = env.step(state.inner, action)
        steps_left = state.steps_left - 1
        terminated = result.terminated | result.truncated if env.spec.finite_horizon else result.terminated
        result = result._replace(terminated=terminated, truncated=(result.truncated | (steps_left <= 0)) & ~terminated)
        done = result.terminated | result.truncated
        fresh = jax.tree.map(lambda pool: pool[state.cursor], starts)
        inner, obs = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, (inner, result.obs))
        cursor = jnp.where(done, (state.cursor + environments) % size, state.cursor)
        return EpisodeState(inner, obs, jnp.where(done, length, steps_left), cursor), result

    return Env(env.spec, reset, step)


def starts_needed(spec: EnvSpec, unroll: int) -> int:
    """Starts that one environment can need in `unroll` steps, at least 1."""
    return -(-unroll // min(max(spec.shortest_episode, 1), spec.episode_length))


def first_episodes(env: Env, starts: tuple[PyTree, Array]) -> EpisodeState:
    """States (E,) of `auto_reset` envs, one per start, whose first episodes are truncated at evenly spaced steps.

    Without the spread all parallel environments would reach the same phase of an episode together for ever.
    """
    inner, obs = starts
    number = obs.shape[0]
    slot = np.arange(number, dtype=np.int64)  # the product below may pass the range of int32
    steps_left = np.maximum((slot + 1) * env.spec.episode_length // number, 1)
    return EpisodeState(inner, obs, jnp.asarray(steps_left, jnp.int32), jnp.asarray(slot, jnp.int32))
