"""The M-step: epochs of PPO minibatches for k policies at once, each with a gradient norm and an Adam of its own."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rmdp_jax.config import Rates, Sizes
from rmdp_jax.devices.mesh import constrain
from rmdp_jax.keys import scan_keys
from rmdp_jax.learning.ppo import Batch, LossParts
from rmdp_jax.policies.networks import Networks, Params
from rmdp_jax.types import Array, Key, PyTree, Scalar


class Schedule(NamedTuple):
    """What changes over training, each () float32."""

    learning_rate: Array
    entropy: Array


# rates, entropy weight, parameters, weights (n,), index and batch of one policy -> loss () and its parts
Loss = Callable[[Rates, Array, Params, Array, Array, Batch], tuple[Array, LossParts]]
Improve = Callable[[Rates, Schedule, Key, "Learner", PyTree, Batch], tuple["Learner", PyTree, LossParts]]


class Learner(NamedTuple):
    """What PPO changes; both fields are `Params`, of values and of optimiser states."""

    params: Params
    opt_state: Params


class _Progress(NamedTuple):
    """What the minibatches of one M-step hand on."""

    learner: Learner
    assignment: PyTree
    mean_kl: Array  # (k,) moving average over minibatches
    active: Array  # (k,) bool, false once mean_kl has passed the limit


def schedule_at(rates: Rates, iteration: Array, iterations: int) -> Schedule:
    """Geometric from start to end over the iterations of the run, linear where one of the two is 0."""
    passed = iteration.astype(jnp.float32) / iterations

    def between(ends: tuple[Scalar, Scalar]) -> Array:
        start, end = ends
        linear = (start <= 0.0) | (end <= 0.0)
        first, last = jnp.where(linear, 1.0, start), jnp.where(linear, 1.0, end)  # no ratio with 0, nor its NaN
        return jnp.where(linear, start + (end - start) * passed, first * (last / first) ** passed)

    return Schedule(between(rates.learning_rate), between(rates.entropy))


def make_optimizer(rates: Rates, learning_rate: Array | float, active: Array | bool = True) -> optax.GradientTransformation:
    """Clipped Adam for the parameters of one policy; its state does not depend on the rates.

    While not `active`, () bool, decay rates of 1 keep the moments, and its updates must be discarded. Selecting the moments
    by `where` would cost another pass over them.
    """
    return optax.chain(
        optax.clip_by_global_norm(rates.max_gradient_norm),
        optax.scale_by_adam(jnp.where(active, 0.9, 1.0), jnp.where(active, 0.999, 1.0), rates.adam_epsilon),
        optax.scale_by_learning_rate(learning_rate),
    )


def init_learner(networks: Networks, rates: Rates, key: Key, keys: Key) -> Learner:
    """Fresh parameters and optimiser states; `key` draws the shared part, `keys` (k,) each policy's own."""
    params = Params(networks.init_shared(key), jax.vmap(networks.init_own)(keys))
    optimizer = make_optimizer(rates, 1.0)
    return Learner(params, Params(optimizer.init(params.shared), jax.vmap(optimizer.init)(params.own)))


def make_improve(
    loss: Loss, sizes: Sizes, weights_of: Callable[[PyTree], Array], descend: Callable[[Array, PyTree], PyTree]
) -> Improve:
    """The M-step `improve(rates, schedule, key, learner, assignment, batch) -> learner, assignment, LossParts (k,)`.

    It runs epochs x minibatches updates on a batch with leaves (k, B, ...). All policies see the same shuffles. A policy
    whose moving average of the KL passes `rates.max_kl` makes no further update in this call. `weights_of(assignment)` are
    the weights (k, n) that mix rewards, and `descend(gradient, assignment)` may move them with every minibatch, as an
    `Assigner` does. Parts are means over minibatches.
    """

    def improve(
        rates: Rates, schedule: Schedule, key: Key, learner: Learner, assignment: PyTree, batch: Batch
    ) -> tuple[Learner, PyTree, LossParts]:
        k, number = batch.log_prob.shape
        batch = constrain(batch, "policy")  # minibatches are drawn from all environments
        update = _make_update(partial(loss, rates, schedule.entropy), partial(_apply_update, rates, schedule.learning_rate), k)

        def minibatch(progress: _Progress, rows: Array) -> tuple[_Progress, LossParts]:
            part = constrain(jax.tree.map(lambda x: x[:, rows], batch), "policy", "env")
            weights = weights_of(progress.assignment)
            learner, weight_gradient, parts = update(progress.learner, weights, progress.active, part)
            mean_kl = 0.9 * progress.mean_kl + 0.1 * parts.kl
            active = progress.active & (mean_kl <= rates.max_kl)
            return _Progress(learner, descend(weight_gradient, progress.assignment), mean_kl, active), parts

        def epoch(progress: _Progress, key: Key) -> tuple[_Progress, LossParts]:
            order = jax.random.permutation(key, number).reshape(sizes.minibatches, -1)
            return jax.lax.scan(minibatch, progress, order)

        start = _Progress(learner, assignment, jnp.zeros(k, jnp.float32), jnp.ones(k, bool))
        progress, parts = scan_keys(epoch, start, key, sizes.epochs)
        return progress.learner, progress.assignment, jax.tree.map(lambda x: x.mean((0, 1)), parts)

    return improve


def _make_update(loss: Callable, move: Callable, k: int) -> Callable:
    """One update of k policies: learner, weights (k, n), active (k,), batch -> learner, gradient (k, n), LossParts (k,)."""
    index = jnp.arange(k, dtype=jnp.int32)
    losses_of = jax.vmap(loss, (Params(None, 0), 0, 0, 0))

    def total(params: Params, weights: Array, active: Array, batch: Batch) -> tuple[Array, LossParts]:
        losses, parts = losses_of(params, weights, index, batch)
        return jnp.where(active, losses, 0.0).sum(), parts

    def update(learner: Learner, weights: Array, active: Array, batch: Batch) -> tuple[Learner, Array, LossParts]:
        params, state = learner
        (gradient, weight_gradient), parts = jax.grad(total, argnums=(0, 1), has_aux=True)(params, weights, active, batch)
        # Without shared parameters no `active.any()`: across devices it costs a message per minibatch.
        any_active = active.any() if jax.tree.leaves(params.shared) else jnp.bool_(True)
        shared, shared_state = move(any_active, params.shared, gradient.shared, state.shared)
        own, own_state = jax.vmap(move)(active, params.own, gradient.own, state.own)
        return Learner(Params(shared, own), Params(shared_state, own_state)), weight_gradient, parts

    return update


def _apply_update(
    rates: Rates, learning_rate: Array, active: Array, params: PyTree, gradient: PyTree, state: PyTree
) -> tuple[PyTree, PyTree]:
    """Parameters of one policy, or the shared ones, a step on, and the optimiser's state; both as they are while not active."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        updates, new_state = make_optimizer(rates, learning_rate, active).update(gradient, state)
    updates = jax.tree.map(lambda update: jnp.where(active, update, 0.0), updates)
    count = jnp.where(active, optax.tree.get(new_state, "count"), optax.tree.get(state, "count"))
    return optax.apply_updates(params, updates), optax.tree.set(new_state, count=count)
