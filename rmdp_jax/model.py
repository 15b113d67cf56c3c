"""What makes a policy out of parameters: networks, action distribution, observation normaliser and kind of critic."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.config import Sizes
from rmdp_jax.critics import CRITICS, CriticKind
from rmdp_jax.env import EnvSpec
from rmdp_jax.networks import Distribution, Networks, Params, make_distribution, make_networks
from rmdp_jax.normalize import NORMALIZERS, Normalizer
from rmdp_jax.types import Array, PyTree, Scalar


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


def describe_policies(model: Model, k: int) -> Policies:
    """Shapes and dtypes of k policies, for `restore_checkpoint`."""

    def make() -> Policies:
        keys = jax.random.split(jax.random.key(0), k)
        params = Params(model.networks.init_shared(keys[0]), jax.vmap(model.networks.init_own)(keys))
        return Policies(params, repeat(model.normalizer.init(), k), jnp.float32(0))

    return jax.eval_shape(make)


def repeat(tree: PyTree, k: int) -> PyTree:
    """Leaves (...) to (k, ...)."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (k, *x.shape)), tree)
