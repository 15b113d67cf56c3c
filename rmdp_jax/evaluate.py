"""How good it is for everyone: the k x n matrix of returns from fresh full episodes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population, Step, guard, make_starts
from rmdp_jax.model import POLICY_AXES, Policies, decide, make_model
from rmdp_jax.types import Array, Key, PyTree


class Evaluation(NamedTuple):
    """Fresh full episodes of every policy, scored for every agent; welfare and utility in reference units."""

    welfare: Array  # () mean over agents of their assigned policy's return
    standard_error: Array  # () of welfare, over episodes
    utility: Array  # (k, n) mean return
    assignment: Array  # (n,) int32, the assignment that was judged
    best_welfare: Array  # () if each agent moved to the policy that was best for it in these very episodes (optimistic)
    episode_length: Array  # (k,) mean number of steps


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
) -> Evaluation:
    """Judge `policies` by fresh full episodes under `assignment` (n,); compiles at every call, see `make_evaluate`."""
    judge = make_evaluate(env, population, config, episodes=episodes, deterministic=deterministic)
    return jax.jit(judge)(policies, jnp.asarray(assignment, jnp.int32), jax.random.key(seed))


class Played(NamedTuple):
    """One step of episodes that are played to their end; a step that is not `alive` is padding after it."""

    step: Step  # leaves (E, ...), or (k, T, ...) of a recording
    state: PyTree  # of the env after the step, leaves likewise
    alive: Array  # (E,) bool, or (k, T)


Evaluate = Callable[[Policies, Array, Key], Evaluation]


def make_evaluate(
    env: Env, population: Population, config: TrainConfig, *, episodes: int | None = None, deterministic: bool = False
) -> Evaluate:
    """A pure function of policies, an assignment (n,) and a key; jit it.

    Args:
        env, population, config: as the trainer was made of.
        episodes: fresh episodes of each policy; `config.evaluation_episodes` when not given.
        deterministic: act by the mode of the distribution instead of a sample, as trained.
    """
    number = config.evaluation_episodes if episodes is None else episodes
    scale = env.spec.reference_scale
    play = _make_play(guard(env), config, deterministic)

    def judge(key: Key, policy: Policies, weights: Array) -> tuple[Array, Array, Array]:
        """One policy: mean returns (n,), returns of its group in each episode (episodes,), mean length ()."""

        def score(totals: tuple[Array, Array, Array], played: Played) -> tuple[tuple[Array, Array, Array], None]:
            rewards = jnp.where(played.alive[:, None], jax.vmap(population.rewards)(played.step), 0.0)
            returns, group, steps = totals
            return (returns + rewards.sum(0), group + rewards @ weights, steps + played.alive.astype(jnp.float32)), None

        nothing = (jnp.zeros(config.n, jnp.float32), jnp.zeros(number, jnp.float32), jnp.zeros(number, jnp.float32))
        (returns, group, steps), _ = play(key, policy, number, score, nothing)
        return returns / number, group, steps.mean()

    def judge_all(policies: Policies, labels: Array, key: Key) -> Evaluation:
        weights = jax.nn.one_hot(labels, config.k, axis=0, dtype=jnp.float32)
        returns, group, steps = jax.vmap(judge, (0, POLICY_AXES, 0))(jax.random.split(key, config.k), policies, weights)
        welfare = scale * group.sum(0) / config.n  # (episodes,) welfare if everyone lived through this episode
        return Evaluation(
            welfare=welfare.mean(),
            standard_error=welfare.std(ddof=1) / number**0.5 if number > 1 else jnp.float32(jnp.nan),
            utility=scale * returns,
            assignment=labels,
            best_welfare=scale * returns.max(0).mean(),
            episode_length=steps,
        )

    return judge_all


def make_record(env: Env, config: TrainConfig, *, deterministic: bool = True) -> Callable[[Policies, Key], Played]:
    """A pure function to `Played` with leaves (k, T, ...): one full episode of each policy, step by step."""
    play = _make_play(guard(env), config, deterministic)

    def keep(nothing: tuple[()], played: Played) -> tuple[tuple[()], Played]:
        state, _ = played.state  # the guard keeps the last finite observation beside the env's own state
        return nothing, jax.tree.map(lambda x: x[0], played._replace(state=state))

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

        def advance(now: tuple[PyTree, Array, Array, PyTree], key: Key) -> tuple[tuple[PyTree, Array, Array, PyTree], PyTree]:
            states, obs, alive, carry = now
            action = choose(decide(model, policy, obs), model.distribution.noise(key, (number, env.spec.action_size)))
            states, told = jax.vmap(env.step)(states, action)
            carry, seen = fold(carry, Played(told, states, alive))
            return (states, told.obs, alive & ~(told.terminated | told.truncated), carry), seen

        start = (states, obs, jnp.ones(number, bool), carry)
        last, seen = jax.lax.scan(advance, start, jax.random.split(noise_key, env.spec.episode_length))
        return last[3], seen

    return play
