"""The rival `affinity`: groups of agents whose policy gradients agree, so that what is learned for one serves the others."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from rmdp_jax.assigners.base import Assigner
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population, served
from rmdp_jax.learning.rollout import Trajectory
from rmdp_jax.learning.scoring import Scorer, reward_inputs, take_agents
from rmdp_jax.policies.model import Model, Policies, decide, make_model, one_policy
from rmdp_jax.policies.networks import Params
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.cluster import assigner_of, group, play_learned, pretrain
from rmdp_jax.types import Array, Key, PyTree

PROJECTED = 400  # dimensions of a projected gradient, as in the source
_TRANSITIONS_AT_ONCE, _AGENTS_AT_ONCE = 128, 64
_ROUNDING = 1e-5  # share of what a gradient could be that is no gradient yet; sampling alone leaves about 1e-2
_PROJECTING = 0xAFF1  # tag of a key
_product = partial(jnp.matmul, precision="highest")  # groups follow from it


def affinity(env: Env, population: Population, config: TrainConfig, *, devices: int | None = None) -> Assigner:
    """Groups by how much agents gain, to first order, from learning for each other; fixed, then trained.

    As `cluster` does, it trains one policy pi for everybody for half of `config.transitions` environment steps and plays
    `CLUSTER_TRANSITIONS` more of it; the assigner's `pretraining` counts both. On these N transitions

        g_i  = P^T (1/N) sum_t A_it grad log pi(a_t | s_t)     (REINFORCE; A_it is agent i's advantage)
        a_ij = <g_i, g_j> / (|g_i| |g_j|)

    A step of size eta along g_j raises agent i's return by eta <g_i, g_j> to first order. Cosines, as agents' rewards may be of
    any size. K-means on the unit vectors g_i / |g_i| maximises the average density of groups S,

        sum_S (1/|S|) sum_{i, j in S} a_ij.

    A_it is what the best linear fit on (1, s_t) leaves of the return to go (Duan et al., ICML 2016), discounted by the task's
    own gamma and cut where the record ends. Entries of P are drawn from N(0, 1/400); no projection where the actor has no more
    than 400 parameters. An agent whose pay has nothing to do with the actions has
    g_i = 0.

    After PolicyGradEx (Zhang, Duan, Ye & Zhang, "Scalable Multi-Objective and Meta Reinforcement Learning via Gradient
    Estimation", AAAI 2026, arXiv:2511.12779) and Grad-TAG (KDD 2024, arXiv:2409.06091); read were the abstracts and a summary
    of the former. Theirs are the policy for all objectives, the gradients at it, their projection, and groups of the highest
    density within. Left out are their random subsets of objectives, on each of which a logistic regression on grad log pi
    stands for fine-tuning, and the average result over the subsets with i and j as the affinity: here all n rewards of a
    transition are known, so that the gradient for a subset is the mean of its agents', and the first-order gain from a step
    along it is made of the pairwise products that subsets would be sampled to estimate. What the fit sees beyond one step is
    lost; they find such grouping by gradients to be worse than by their fit. Their semidefinite program is replaced by K-means.

    Time and memory grow with n, not with its square. `devices` is that of `train`.

    Raises:
        ConfigError: `config.transitions` are too few.
        KeyboardInterrupt: Ctrl-C, as groups by a half-trained policy would pass for those of a trained one.
    """
    return affinity_batch(env, [population], [config], devices=devices)[0]


def affinity_batch(
    env: Env, populations: Sequence[Population], configs: Sequence[TrainConfig], **training_options: Any
) -> list[Assigner]:
    """`affinity` for several runs whose policies for everybody are trained in one program; see `train_batch`."""
    directions = pretrain(env, populations, configs, _observe_directions, "affinity", **training_options)
    return [assigner_of(config, group(of, config), "affinity") for of, config in zip(directions, configs, strict=True)]


def _observe_directions(env: Env, run: RunSpec, people: PyTree, learned: Policies, key: Key) -> Array:
    """Unit vectors (d, n) along the policy gradients of `people` at the first of `learned`; 0 where there is none."""
    model = make_model(env.spec, run.config.sizes, run.config.k, run.config.n)
    population, policy = served(run.population, people), one_policy(learned, 0)
    played, stacked = play_learned(env, run, learned, key, Scorer((), _keep_step, lambda carry, stacked: stacked))
    features = _features(model, policy, played, jax.random.fold_in(key, _PROJECTING))  # (T*E, d)

    largest = jnp.linalg.norm(features)

    def direction(agent: Array) -> Array:
        alone = take_agents(population, agent[None])
        rewards = jax.vmap(jax.vmap(alone.rewards))(stacked)[..., 0]  # type: ignore[arg-type]  # what the scorer stacked
        returns = returns_to_go(rewards, played.done, env.spec.discount).ravel()
        gradient = jnp.matmul(returns, features, precision="highest")
        size = jnp.linalg.norm(gradient)
        nothing = size <= _ROUNDING * jnp.linalg.norm(returns) * largest
        return jnp.where(nothing, 0.0, gradient / jnp.where(nothing, 1.0, size))

    return jax.lax.map(direction, jnp.arange(run.config.n, dtype=jnp.int32), batch_size=_AGENTS_AT_ONCE).T


def _keep_step(carry: PyTree, step: Any) -> tuple[PyTree, Array, Array, PyTree]:
    nothing = jnp.zeros((jnp.shape(step.diverged)[0], 1), jnp.float32)
    return carry, nothing, nothing, reward_inputs(step)


def returns_to_go(rewards: Array, done: Array, discount: float) -> Array:
    """Discounted sums (T, E) of the rewards (T, E) from each step to the end of its episode, or of the record."""

    def add(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, ended = step
        total = reward + discount * jnp.where(ended, 0.0, later)
        return total, total

    return jax.lax.scan(add, jnp.zeros_like(rewards[0]), (rewards, done), reverse=True)[1]


def _features(model: Model, policy: Policies, played: Trajectory, key: Key) -> Array:
    """Projected grad log pi of every transition (T*E, d), less its best linear fit on (1, observation).

    A sum over transitions of these times returns is that of grad log pi times what a fit on (1, observation) leaves of the
    returns, as the residual of a projection may stand on either side.
    """
    obs, action = (x.reshape(-1, *x.shape[2:]) for x in (played.obs, played.action))
    actor, whole = _without_critic(policy.params), policy.params
    flat, unravel = ravel_pytree(actor)
    size = flat.shape[0]
    projection = None if size <= PROJECTED else jax.random.normal(key, (size, PROJECTED)) / PROJECTED**0.5

    def log_prob(flat: Array, obs: Array, action: Array) -> Array:
        own = unravel(flat)
        params = Params({**whole.shared, **own.shared}, {**whole.own, **own.own})
        return model.distribution.log_prob(decide(model, policy._replace(params=params), obs), action)

    def project(transition: tuple[Array, Array]) -> Array:
        gradient = jax.grad(log_prob)(flat, *transition)
        return gradient if projection is None else _product(gradient, projection)

    gradients = jax.lax.map(project, (obs, action), batch_size=_TRANSITIONS_AT_ONCE)
    seen = model.normalizer.apply(policy.statistics, obs, policy.observation_clip)
    return _residual(gradients, seen)


def _residual(values: Array, seen: Array) -> Array:
    """What a linear fit on (1, seen (N, o)), with a ridge against columns that are alike, leaves of values (N, d)."""
    number = seen.shape[0]
    values, seen = (x - x.mean(0, keepdims=True) for x in (values, seen))
    deviation = jnp.sqrt(jnp.square(seen).mean(0, keepdims=True))
    basis = seen / jnp.where(deviation > 0.0, deviation, 1.0)
    normal = _product(basis.T, basis) / number + 1e-4 * jnp.eye(basis.shape[1], dtype=basis.dtype)
    # conjugate gradients: a solver from LAPACK, batched by a vmap over runs, may hang on a CPU of two cores
    fit, _ = cg(lambda x: _product(normal, x), _product(basis.T, values) / number, maxiter=200)
    return values - _product(basis, fit)


def _without_critic(params: Params) -> Params:
    parts = ({name: part for name, part in tree.items() if name != "critic"} for tree in params)
    return Params(*parts)
