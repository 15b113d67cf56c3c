"""What makes a policy out of parameters: networks, action distribution, observation normaliser and kind of critic."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from rmdp_jax.config import Sizes, TrainConfig
from rmdp_jax.env import Env, EnvSpec
from rmdp_jax.policies.critics import CRITICS, CriticKind
from rmdp_jax.policies.networks import Distribution, Networks, Params, make_distribution, make_networks
from rmdp_jax.policies.normalize import NORMALIZERS, Normalizer
from rmdp_jax.types import Array, Key, PyTree, Scalar


class Model(NamedTuple):
    """The parts that all policies have in common."""

    networks: Networks
    distribution: Distribution
    normalizer: Normalizer
    critic: CriticKind


def make_model(spec: EnvSpec, sizes: Sizes, k: int, n: int) -> Model:
    """The model of k policies for n agents in an env of this `spec`."""
    critic = CRITICS[sizes.critic]
    return Model(
        networks=make_networks(spec, sizes, k, critic.size(n)),
        distribution=make_distribution(spec),
        normalizer=NORMALIZERS[sizes.normalize_observations](spec.observation_size),
        critic=critic,
    )


class Policies(NamedTuple):
    """All that acting takes, of k policies; `own` and `statistics` have no k inside a vmap over `POLICY_AXES`."""

    params: Params
    statistics: PyTree  # of observations, leaves (k, ...)
    observation_clip: Scalar


POLICY_AXES = Policies(Params(None, 0), 0, None)  # type: ignore[arg-type]  # in_axes, for one policy at a time


def one_policy(policies: Policies, j: int) -> Policies:
    """Policy j of k, as `decide` takes it."""
    params = Params(policies.params.shared, jax.tree.map(lambda x: x[j], policies.params.own))
    return Policies(params, jax.tree.map(lambda x: x[j], policies.statistics), policies.observation_clip)


def decide(model: Model, policy: Policies, obs: Array) -> PyTree:
    """Raw observations (..., o) of one policy to the parameters of its action distribution."""
    return model.networks.actor(policy.params, model.normalizer.apply(policy.statistics, obs, policy.observation_clip))


class Act(Protocol):
    """What policy j of k does where it sees obs (..., o): () or (..., a), as `Env.step` takes it."""

    def __call__(self, policies: Policies, j: int, obs: Array, key: Key | None = None) -> Array:
        """Its most likely action, or with a key a sample, as in training."""


def make_act(env: Env, config: TrainConfig) -> Act:
    """`act(policies, j, obs, key=None)` of the policies that `train` with this `config` returns; pure, to jit and vmap."""
    model = make_model(env.spec, config.sizes, config.k, config.n)

    def act(policies: Policies, j: int, obs: Array, key: Key | None = None) -> Array:
        decided = decide(model, one_policy(policies, j), obs)
        if key is None:
            action = model.distribution.mode(decided)
        else:
            noise = model.distribution.noise(key, (*obs.shape[:-1], env.spec.action_size))
            action = model.distribution.sample(decided, noise)
        return action if env.spec.discrete else jnp.clip(action, -1.0, 1.0)

    return act


def describe_policies(model: Model, k: int) -> Policies:
    """Shapes and dtypes of k policies, for `restore_checkpoint`."""

    def make() -> Policies:
        keys = jax.random.split(jax.random.key(0), k)
        params = Params(model.networks.init_shared(jax.random.key(0)), jax.vmap(model.networks.init_own)(keys))
        return Policies(params, repeat(model.normalizer.init(), k), jnp.float32(0))

    return jax.eval_shape(make)


def repeat(tree: PyTree, k: int) -> PyTree:
    """Leaves (...) to (k, ...)."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (k, *x.shape)), tree)
