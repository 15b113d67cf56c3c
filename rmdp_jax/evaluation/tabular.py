"""The r-MDP solved exactly on finite MDPs: no networks, no samples, every step of the paper's Theorem 1 to the letter.

    with jax.enable_x64(True):
        solution = solve_restarts(discounted, tabular_mdp(transition, reward, start, 0.9), 3, keys)

An `ExactMDP` knows two things: what a policy returns to the n agents, and which policy is best for a mixture of them. Two
families of MDPs have that view, `discounted` (random transitions) and `deterministic` (a clock and an end), and `solve`
alternates exact steps on either until nothing moves. In float32 all of it works to about 1e-4 of the returns (raise
`tolerance`); statements such as "welfare never falls" want float64, that is `jax.enable_x64`.

Axes here, beyond the legend of `types.py`: s states, a *actions* (discrete), T steps of the longest episode.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.assigners.base import check_sizes
from rmdp_jax.assigners.fixed import First, shuffled_even
from rmdp_jax.assigners.plain_em import best_policies
from rmdp_jax.errors import ConfigError, real_number, shown, whole_number
from rmdp_jax.types import Array, Key, PyTree

# in float32 on every device: what they make is called exact
_product, _mixed = partial(jnp.matmul, precision="highest"), partial(jnp.tensordot, axes=1, precision="highest")

LARGEST_LIMIT = 10**6  # pairs of half steps, of which all welfares are kept


class ExactMDP(NamedTuple):
    """An MDP with n rewards, as what can be known of it exactly. A policy is a pytree of whole numbers."""

    n: int
    evaluate: Callable[[PyTree], Array]  # policy -> expected returns (n,) from the start
    improve: Callable[[Array], PyTree]  # weights (n,) -> a policy of greatest weights @ returns


class TabularMDP(NamedTuple):
    """A finite MDP with n rewards; make it with `tabular_mdp`, which checks it. Stack the leaves to vmap over MDPs."""

    transition: Array  # (s, a, s) float, rows sum to 1
    reward: Array  # (n, s, a) float
    start: Array  # (s,) float, sums to 1
    discount: Array  # () float, in [0, 1)


class PlanningMDP(NamedTuple):
    """A deterministic episode of T steps with n rewards, gamma = 1. An ended episode sits in a state that pays nothing."""

    successor: Array  # (s, a) int32
    reward: Array  # (n, s, a) float
    clock: Array  # (T,) float, what a reward of step t is multiplied by
    start: Array  # () int32


class Solution(NamedTuple):
    """Where alternating exact steps came to rest, and the way there."""

    labels: Array  # (n,) int32, the policy of each agent
    policies: PyTree  # leaves (k, ...)
    utility: Array  # (k, n) float, return of each policy to each agent
    welfare: Array  # (1 + 2 limit,) float, after the first M-step and every half step since; the last value repeated
    half_steps: Array  # () int32, how many of them were taken: welfare[half_steps] is the last
    fixed: Array  # () bool, a fixed point; else `limit` was too small


View = Callable[..., ExactMDP]  # TabularMDP or PlanningMDP -> ExactMDP


def solve(
    mdp: ExactMDP, k: int, key: Key, *, first: First = shuffled_even, limit: int = 100, tolerance: float = 1e-9
) -> Solution:
    """Alternate exact E- and M-steps from the assignment `first` until neither changes a thing.

    A policy gives way only to one that brings its group more than `tolerance` (in summed returns), and an agent moves only to a
    policy that is strictly better: no state recurs, so a fixed point is reached in finitely many steps, float errors
    notwithstanding. At a fixed point neither another policy for a group nor a move of an agent brings more than `tolerance`.

    Args:
        mdp: what to solve, see `discounted` and `deterministic`.
        k: number of policies, from 1 to n.
        key: seeds `first`.
        first: key, k, n -> labels (n,) with an agent for every policy.
        limit: most pairs of half steps.
        tolerance: well above float error, well below any difference in returns that matters.

    Raises:
        ConfigError: k, `limit` or `tolerance` break their rule.

    Source: Ivanov & Ben-Porat, AAAI 2024, Theorem 1.
    """
    k, _ = check_sizes(k, mdp.n)
    limit = whole_number("limit", limit, 1, LARGEST_LIMIT)
    tolerance = real_number("tolerance", tolerance, lambda x: 0.0 <= x < np.inf, "a number from 0 up")

    def resolve(state: tuple) -> tuple:
        labels, policies, utility, welfare, rounds, _ = state
        new_labels = best_policies(utility, labels)
        welfare = welfare.at[2 * rounds + 1].set(_welfare(utility, new_labels))
        policies, utility = _m_step(mdp, new_labels, policies, utility, tolerance)
        welfare = welfare.at[2 * rounds + 2].set(_welfare(utility, new_labels))
        return new_labels, policies, utility, welfare, rounds + 1, (new_labels == labels).all()

    labels = first(key, k, mdp.n)
    policies = jax.vmap(mdp.improve)(jax.nn.one_hot(labels, k, axis=0))
    utility = jax.vmap(mdp.evaluate)(policies)
    chex.assert_shape(utility, (k, mdp.n))
    welfare = jnp.zeros(1 + 2 * limit, utility.dtype).at[0].set(_welfare(utility, labels))
    state = (labels, policies, utility, welfare, jnp.int32(0), jnp.array(False))
    state = jax.lax.while_loop(lambda state: ~state[5] & (state[4] < limit), resolve, state)
    labels, policies, utility, welfare, rounds, fixed = state
    welfare = jnp.where(jnp.arange(welfare.size, dtype=jnp.int32) > 2 * rounds, welfare[2 * rounds], welfare)
    return Solution(labels, policies, utility, welfare, 2 * rounds, fixed)


@partial(jax.jit, static_argnames=("view", "k", "first", "limit", "tolerance"))
def solve_restarts(
    view: View,
    mdp: TabularMDP | PlanningMDP,
    k: int,
    keys: Key,
    *,
    first: First = shuffled_even,
    limit: int = 100,
    tolerance: float = 1e-9,
) -> Solution:
    """`solve(view(mdp), ...)` from every key of keys (r,), leaves (r, ...); compiled once for a shape."""

    def restart(key: Key) -> Solution:
        return solve(view(mdp), k, key, first=first, limit=limit, tolerance=tolerance)

    return jax.vmap(restart)(keys)


def best_restart(solutions: Solution) -> Solution:
    """The solution of greatest final welfare among those of `solve_restarts`."""
    return jax.tree.map(lambda leaf: leaf[solutions.welfare[:, -1].argmax()], solutions)


def discounted(mdp: TabularMDP) -> ExactMDP:
    """Exact view of a discounted MDP; a policy is the action taken in each state, (s,) int32.

    Value iteration runs until gamma^m is below float precision. Evaluation sums the series of (gamma P)^t by doubling,
    sum of the first 2t = (1 + (gamma P)^t) (sum of the first t), because a vmapped linear solve can deadlock on a CPU.
    """
    n, states, _ = mdp.reward.shape
    rows = jnp.arange(states)
    precision = jnp.finfo(mdp.reward.dtype).eps
    horizon = jnp.maximum(jnp.ceil(np.log(precision) / jnp.log(mdp.discount)), 1.0)

    def evaluate(policy: Array) -> Array:
        def double(_: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            value, ahead = sums
            return value + _product(ahead, value), _product(ahead, ahead)

        one_step = mdp.reward[:, rows, policy].T, mdp.discount * mdp.transition[rows, policy]
        doublings = jnp.ceil(jnp.log2(horizon)).astype(jnp.int32)
        return _product(mdp.start, jax.lax.fori_loop(0, doublings, double, one_step)[0])

    def improve(weights: Array) -> Array:
        mixed = _mixed(weights.astype(mdp.reward.dtype), mdp.reward)  # (s, a)

        def back_up(value: Array) -> Array:
            return mixed + mdp.discount * _mixed(mdp.transition, value)

        value = jnp.zeros(states, mixed.dtype)
        value = jax.lax.fori_loop(0, horizon.astype(jnp.int32), lambda _, value: back_up(value).max(1), value)
        return back_up(value).argmax(1).astype(jnp.int32)

    return ExactMDP(n, evaluate, improve)


def deterministic(mdp: PlanningMDP) -> ExactMDP:
    """Exact view of a deterministic episode; a policy is the plan (T,) int32 of actions from the start.

    Value iteration backwards over the T steps, then one walk along the best actions. Nothing is lost by a plan: what a
    deterministic policy does off its own path pays nobody.
    """

    def evaluate(plan: Array) -> Array:
        def pay(state: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            action, factor = now
            return mdp.successor[state, action], factor * mdp.reward[:, state, action]

        return jax.lax.scan(pay, mdp.start, (plan, mdp.clock))[1].sum(0)

    def improve(weights: Array) -> Array:
        mixed = _mixed(weights.astype(mdp.reward.dtype), mdp.reward)  # (s, a)

        def back_up(value: Array, factor: Array) -> tuple[Array, Array]:
            ahead = factor * mixed + value[mdp.successor]
            return ahead.max(1), ahead.argmax(1).astype(jnp.int32)

        def follow(state: Array, actions: Array) -> tuple[Array, Array]:
            return mdp.successor[state, actions[state]], actions[state]

        actions = jax.lax.scan(back_up, jnp.zeros(mixed.shape[0], mixed.dtype), mdp.clock, reverse=True)[1]  # (T, s)
        return jax.lax.scan(follow, mdp.start, actions)[1]

    return ExactMDP(mdp.reward.shape[0], evaluate, improve)


def tabular_mdp(transition: ArrayLike, reward: ArrayLike, start: ArrayLike, discount: float) -> TabularMDP:
    """A checked `TabularMDP` in the default float type; ConfigError names what breaks its rule."""
    chance, pay, first = (
        _floats(name, given) for name, given in (("transition", transition), ("reward", reward), ("start", start))
    )
    if pay.ndim != 3 or chance.shape != (*pay.shape[1:], pay.shape[1]) or first.shape != pay.shape[1:2]:
        shapes = f"transition {chance.shape}, reward {pay.shape}, start {first.shape}"
        raise ConfigError(f"{shapes}: must be (s, a, s), (n, s, a) and (s,)")
    for name, rows in (("transition", chance), ("start", first)):
        if (rows < 0).any() or not np.allclose(rows.sum(-1), 1):
            raise ConfigError(f"{name}: probabilities must not be negative and must sum to 1 over the last axis")
    rule = "in [0, 1); an episode with gamma = 1 is a PlanningMDP"
    discount = real_number("discount", discount, lambda x: 0.0 <= x < 1.0, rule)
    if not np.isfinite(pay).all():
        raise ConfigError("reward: must be finite")
    dtype = jnp.zeros(()).dtype
    return TabularMDP(*(jnp.asarray(array, dtype) for array in (chance, pay, first, discount)))


def _floats(name: str, given: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(given, float)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} = {shown(given)}: must be an array of numbers") from None


def _m_step(mdp: ExactMDP, labels: Array, policies: PyTree, utility: Array, tolerance: float) -> tuple[PyTree, Array]:
    """Policies (k, ...) best for their groups, and their utility (k, n); equally good ones stay."""
    k = utility.shape[0]
    weights = jax.nn.one_hot(labels, k, axis=0, dtype=utility.dtype)
    improved = jax.vmap(mdp.improve)(weights)
    returns = jax.vmap(mdp.evaluate)(improved)
    better = ((returns - utility) * weights).sum(1) > tolerance

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(k, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, (improved, returns), (policies, utility))


def _welfare(utility: Array, labels: Array) -> Array:
    return utility[labels, jnp.arange(labels.size)].mean()
