"""What makes a policy out of parameters: networks, action distribution, observation normaliser and kind of critic."""

from collections.abc import Callable
from typing import NamedTuple

from rmdp_jax.config import Sizes
from rmdp_jax.critics import CRITICS, CriticKind
from rmdp_jax.env import EnvSpec
from rmdp_jax.networks import Distribution, Networks, Params, make_distribution, make_networks
from rmdp_jax.normalize import NORMALIZERS, Normalizer
from rmdp_jax.types import Array, PyTree


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


def policy(model: Model, params: Params, statistics: PyTree, limit: Array) -> Callable[[Array], PyTree]:
    """One policy: raw observations (..., o) to parameters of its action distribution."""
    return lambda obs: model.networks.actor(params, model.normalizer.apply(statistics, obs, limit))
