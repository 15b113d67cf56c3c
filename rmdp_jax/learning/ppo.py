"""The PPO loss of one policy (Schulman et al., 2017). Knows neither k nor who is assigned to whom."""

from typing import NamedTuple

import jax.numpy as jnp

from rmdp_jax.config import Rates
from rmdp_jax.policies.model import Model
from rmdp_jax.policies.networks import Params
from rmdp_jax.types import Array


class Batch(NamedTuple):
    """Transitions of one policy, in any order."""

    obs: Array  # (B, o) normalised
    action: Array  # (B,) int32 or (B, a) float32
    log_prob: Array  # (B,) under the policy that acted
    advantage: Array  # (B, c)
    target: Array  # (B, c)


class LossParts(NamedTuple):
    """Means over a batch, each () float32."""

    loss: Array
    policy_loss: Array
    value_loss: Array
    entropy: Array
    kl: Array


def ppo_loss(
    model: Model, rates: Rates, entropy_weight: Array, params: Params, weights: Array, index: Array, batch: Batch
) -> tuple[Array, LossParts]:
    """Clipped surrogate + value loss - entropy bonus of one policy.

    The advantage is mixed over its columns by the policy's `weights` (n,) and then standardised over the batch; gradients
    reach the weights, which is how the surrogate variant of end-to-end learns an assignment.

    Returns:
        Loss () and its `LossParts`; `kl` is the unbiased low-variance estimate E[ratio - 1 - log ratio].
    """
    actor_out = model.networks.actor(params, batch.obs)
    log_ratio = model.distribution.log_prob(actor_out, batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = jnp.matmul(batch.advantage, model.critic.mix(weights), precision="highest")
    # Epsilon under the root: std has a NaN gradient at 0, and gradients reach the weights through here.
    advantage = (advantage - advantage.mean()) / jnp.sqrt(advantage.var() + 1e-16)
    clipped = jnp.clip(ratio, 1.0 - rates.clip, 1.0 + rates.clip)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * jnp.square(model.networks.critic(params, index, batch.obs) - batch.target).mean()
    entropy = model.distribution.entropy(actor_out).mean()
    kl = (ratio - 1.0 - log_ratio).mean()
    loss = policy_loss + rates.value_weight * value_loss - entropy_weight * entropy
    return loss, LossParts(loss, policy_loss, value_loss, entropy, kl)
