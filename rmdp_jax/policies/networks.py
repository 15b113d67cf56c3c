"""Actor and critic of one policy, as flax modules, and the action distributions.

Parameters come in two parts: `own` of each policy, and `shared` by all of them (empty when trunks are separate). The trainer
vmaps over `own` and lets gradients of `shared` add up, so that both trunks are one code path.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.scipy.stats import norm

from rmdp_jax.config import Sizes
from rmdp_jax.env import EnvSpec
from rmdp_jax.types import Array, Key, PyTree


class Params(NamedTuple):
    """Parameters of k policies; `own` has leading axis k, or none inside a vmap."""

    shared: PyTree
    own: PyTree


class Networks(NamedTuple):
    """Pure functions of one policy with index () int32 among k."""

    init_shared: Callable[[Key], PyTree]
    init_own: Callable[[Key], PyTree]
    actor: Callable[[Params, Array], PyTree]  # params, obs (..., o) -> parameters of the distribution
    critic: Callable[[Params, Array, Array], Array]  # params, index, obs (..., o) -> (..., c)
    keep_noise: Callable[[PyTree], PyTree] = lambda own: (
        own
    )  # own parameters -> those whose standard deviation is at least what it was at first


class Distribution(NamedTuple):
    """An action distribution; noise is drawn apart so that a whole unroll is drawn at once."""

    noise: Callable[[Key, tuple[int, ...]], Array]  # key, batch shape -> (*batch, action_size)
    sample: Callable[[PyTree, Array], Array]  # parameters, noise -> action
    mode: Callable[[PyTree], Array]
    log_prob: Callable[[PyTree, Array], Array]
    entropy: Callable[[PyTree], Array]


def make_networks(spec: EnvSpec, sizes: Sizes, k: int, columns: int) -> Networks:
    """Networks of one policy for observations (..., o), with `columns` critic outputs (c)."""
    head = Head(spec.action_size, spec.discrete, sizes.std == "learned", sizes.log_std_init)
    networks = _TRUNKS[sizes.trunk](Body(sizes.hidden), head, Critic(sizes.hidden, columns), spec, k)
    return networks._replace(keep_noise=partial(_raise_std, sizes.log_std_init))


def make_distribution(spec: EnvSpec) -> Distribution:
    """The distribution that fits the env's actions: categorical, or a diagonal Gaussian."""
    return _CATEGORICAL if spec.discrete else _GAUSSIAN


def _raise_std(least: float, own: PyTree) -> PyTree:
    head = own["head"]["params"]
    if "log_std" not in head:  # discrete actions, or a deviation that stays as it is
        return own
    return {**own, "head": {"params": {**head, "log_std": jnp.maximum(head["log_std"], least)}}}


def _separate(body: Any, head: Any, critic: Any, spec: EnvSpec, k: int) -> Networks:
    del k
    obs, features = jnp.zeros(spec.observation_size), jnp.zeros(body.hidden[-1])

    def init_own(key: Key) -> PyTree:
        body_key, head_key, critic_key = jax.random.split(key, 3)
        return {
            "body": body.init(body_key, obs),
            "head": head.init(head_key, features),
            "critic": critic.init(critic_key, obs),
        }

    return Networks(
        init_shared=lambda key: {},
        init_own=init_own,
        actor=lambda params, obs: head.apply(params.own["head"], body.apply(params.own["body"], obs)),
        critic=lambda params, index, obs: critic.apply(params.own["critic"], obs),
    )


def _shared(body: Any, head: Any, critic: Any, spec: EnvSpec, k: int) -> Networks:
    obs, features = jnp.zeros(spec.observation_size), jnp.zeros(body.hidden[-1])

    def name_policy(index: Array, obs: Array) -> Array:
        one_hot = jax.nn.one_hot(index, k, dtype=obs.dtype)
        return jnp.concatenate([obs, jnp.broadcast_to(one_hot, (*obs.shape[:-1], k))], axis=-1)

    def init_shared(key: Key) -> PyTree:
        body_key, critic_key = jax.random.split(key)
        return {"body": body.init(body_key, obs), "critic": critic.init(critic_key, name_policy(jnp.int32(0), obs))}

    return Networks(
        init_shared=init_shared,
        init_own=lambda key: {"head": head.init(key, features)},
        actor=lambda params, obs: head.apply(params.own["head"], body.apply(params.shared["body"], obs)),
        critic=lambda params, index, obs: critic.apply(params.shared["critic"], name_policy(index, obs)),
    )


_TRUNKS = {"separate": _separate, "shared": _shared}


def orthogonal(scale: float) -> Callable[..., Array]:
    """Orthogonal initialiser that never runs a batched QR.

    Two batched QR calls in one program deadlock on a two-core CPU (each holds a worker of XLA's pool and waits for it), so a
    vmap over policies or seeds draws one matrix after another.
    """
    plain = nn.initializers.orthogonal(scale)

    def init(key: Key, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        kind = jax.random.key_impl(key)  # as data, for the reason that `keys.scan_keys` gives
        draw = sequential_vmap(lambda data: plain(jax.random.wrap_key_data(data, impl=kind), shape, dtype))
        return draw(jax.random.key_data(key))

    return init


class Body(nn.Module):
    """tanh layers."""

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., o) -> (..., hidden[-1])."""
        for units in self.hidden:
            x = jnp.tanh(nn.Dense(units, kernel_init=orthogonal(2**0.5))(x))
        return x


class Head(nn.Module):
    """Logits of the actions, or mean and log standard deviation (as at first for ever if not `learns_std`)."""

    size: int
    discrete: bool
    learns_std: bool = True
    log_std_init: float = -1.0

    @nn.compact
    def __call__(self, x: Array) -> PyTree:
        """(..., features) -> logits (..., a), or mean and log_std, both (..., a)."""
        mean = nn.Dense(self.size, kernel_init=orthogonal(0.01))(x)
        if self.discrete:
            return mean
        if not self.learns_std:
            return mean, jnp.full_like(mean, self.log_std_init)
        log_std = self.param("log_std", nn.initializers.constant(self.log_std_init), (self.size,))
        return mean, jnp.broadcast_to(log_std, mean.shape)


class Critic(nn.Module):
    """Values, one a column."""

    hidden: Sequence[int]
    columns: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., o) -> (..., c)."""
        return nn.Dense(self.columns, kernel_init=orthogonal(1.0))(Body(self.hidden)(x))


def _categorical_log_prob(logits: Array, action: Array) -> Array:
    # A product with one-hot rows: the gradient of an indexed read is a scatter, which is slow on every device.
    return (jax.nn.log_softmax(logits) * jax.nn.one_hot(action, logits.shape[-1], dtype=logits.dtype)).sum(-1)


def _categorical_entropy(logits: Array) -> Array:
    log_probs = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_probs) * log_probs).sum(-1)


_CATEGORICAL = Distribution(
    noise=lambda key, shape: jax.random.gumbel(key, shape),
    sample=lambda logits, noise: jnp.argmax(logits + noise, axis=-1).astype(jnp.int32),
    mode=lambda logits: jnp.argmax(logits, axis=-1).astype(jnp.int32),
    log_prob=_categorical_log_prob,
    entropy=_categorical_entropy,
)

_GAUSSIAN = Distribution(
    noise=lambda key, shape: jax.random.normal(key, shape),
    sample=lambda params, noise: params[0] + jnp.exp(params[1]) * noise,
    mode=lambda params: params[0],
    log_prob=lambda params, action: norm.logpdf(action, params[0], jnp.exp(params[1])).sum(-1),
    entropy=lambda params: (params[1] + 0.5 * jnp.log(2 * jnp.pi * jnp.e)).sum(-1),
)
