"""What makes a policy out of parameters: networks, action distribution, observation normaliser and kind of critic."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rmdp_jax.config import Sizes, TrainConfig
from rmdp_jax.env import Env, EnvSpec, plain_spec
from rmdp_jax.errors import ConfigError, instance_of, shown, whole_number
from rmdp_jax.policies.critics import CRITICS, CriticKind
from rmdp_jax.policies.networks import Distribution, Networks, Params, make_distribution, make_networks
from rmdp_jax.policies.normalize import NORMALIZERS, Normalizer
from rmdp_jax.policies.returns import RETURN_SCALERS, ReturnScaler
from rmdp_jax.programs import kept_program
from rmdp_jax.types import Array, Key, PyTree, Scalar


class Model(NamedTuple):
    """The parts that all policies have in common."""

    networks: Networks
    distribution: Distribution
    normalizer: Normalizer
    returns: ReturnScaler
    critic: CriticKind


def make_model(spec: EnvSpec, sizes: Sizes, k: int, n: int) -> Model:
    """The model of k policies for n agents in an env of this `spec`."""
    critic = CRITICS[sizes.critic]
    return Model(
        networks=make_networks(spec, sizes, k, critic.size(n)),
        distribution=make_distribution(spec),
        normalizer=NORMALIZERS[sizes.normalize_observations](spec.observation_size),
        returns=RETURN_SCALERS[sizes.normalize_returns](),
        critic=critic,
    )


class Policies(NamedTuple):
    """All that acting takes, of k policies; `own` and `statistics` have no k inside a vmap over `POLICY_AXES`."""

    params: Params
    statistics: PyTree  # of observations, leaves (k, ...)
    observation_clip: Scalar


POLICY_AXES = Policies(Params(None, 0), 0, None)  # type: ignore[arg-type]  # in_axes, for one policy at a time


def one_policy(policies: Policies, j: Array | int) -> Policies:
    """Policy j of k, as `decide` takes it."""
    params = Params(policies.params.shared, jax.tree.map(lambda x: x[j], policies.params.own))
    return Policies(params, jax.tree.map(lambda x: x[j], policies.statistics), policies.observation_clip)


def decide(model: Model, policy: Policies, obs: Array) -> PyTree:
    """Raw observations (..., o) of one policy to the parameters of its action distribution."""
    return model.networks.actor(policy.params, model.normalizer.apply(policy.statistics, obs, policy.observation_clip))


def likeliest_action(model: Model, spec: EnvSpec, policy: Policies, obs: Array) -> Array:
    """The most likely action of one policy at obs (..., o), as `Env.step` takes it: (...) int32 or (..., a) float32."""
    return _in_range(spec, model.distribution.mode(decide(model, policy, obs)))


def _in_range(spec: EnvSpec, action: Array) -> Array:
    return action if spec.discrete else jnp.clip(action, -1.0, 1.0)


class Act(Protocol):
    """What policy j of k does where it sees obs (..., o): () or (..., a), as `Env.step` takes it."""

    def __call__(self, policies: Policies, j: int, obs: ArrayLike, key: Key | None = None) -> Array:
        """Its most likely action, or with a key a sample, as in training."""


def make_act(env: Env, config: TrainConfig) -> Act:
    """`act(policies, j, obs, key=None)` of the policies that `train` with this `config` returns; compiled, to vmap as you like.

    `act` raises `ConfigError` where j is not in 0..k-1, or obs or policies are not of this env and config. Where the caller is
    traced (under a `jit` or `vmap` of your own) j has no value that could be checked: there a policy that is none does NaN, or
    the action -1 where actions are discrete.
    """
    instance_of("env", env, Env, "an Env, such as make(name)[0]")
    instance_of("config", config, TrainConfig, "the TrainConfig that policies were trained with")
    spec, k, size = plain_spec(env.spec), config.k, env.spec.observation_size
    act_known = kept_program("act", (spec, config.sizes, k, config.n), lambda: _compiled_act(spec, config))

    def act(policies: Policies, j: int, obs: ArrayLike, key: Key | None = None) -> Array:
        if not isinstance(j, jax.core.Tracer):
            j = whole_number("policy", j, 0, k - 1, f"a whole number from 0 to {k - 1}, one of the k = {k} policies")
        check_policies(policies, k)
        seen = jnp.asarray(obs)
        if seen.shape[-1:] != (size,):
            raise ConfigError(f"obs of shape {seen.shape}: must be (..., {size}), what {env.spec.name} shows")
        if key is not None and not hasattr(key, "dtype"):
            raise ConfigError(f"key = {shown(key)}: must be a key, such as jax.random.key(0)")
        return act_known(policies, jnp.asarray(j, jnp.int32), seen.astype(jnp.float32), key)

    return act


def _compiled_act(spec: EnvSpec, config: TrainConfig) -> Callable[[Policies, Array, Array, Key | None], Array]:
    model, k = make_model(spec, config.sizes, config.k, config.n), config.k

    @jax.jit
    def act(policies: Policies, j: Array, obs: Array, key: Key | None) -> Array:
        policy = one_policy(policies, j)
        if key is None:
            action = likeliest_action(model, spec, policy, obs)
        else:
            noise = model.distribution.noise(key, (*obs.shape[:-1], spec.action_size))
            action = _in_range(spec, model.distribution.sample(decide(model, policy, obs), noise))
        return jnp.where((j >= 0) & (j < k), action, -1 if spec.discrete else jnp.nan)

    return act


def check_policies(policies: Policies, k: int) -> None:
    """Raise `ConfigError` unless these are k policies; of fewer JAX would take the last for all that are missing."""
    instance_of("policies", policies, Policies, "Policies, such as Result.policies")
    found = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((policies.params.own, policies.statistics))} or {(k,)}
    if found != {(k,)}:
        number = " or ".join(str(size[0]) if size else "a single one" for size in sorted(found))
        raise ConfigError(f"policies: are {number}, but the config has k = {k}; give both of the same run")


def describe_policies(spec: EnvSpec, sizes: Sizes, k: int, n: int) -> Policies:
    """Shapes and dtypes of k policies, for `restore_checkpoint`."""

    def make() -> Policies:
        model, keys = make_model(spec, sizes, k, n), jax.random.split(jax.random.key(0), k)
        params = Params(model.networks.init_shared(jax.random.key(0)), jax.vmap(model.networks.init_own)(keys))
        return Policies(params, repeat(model.normalizer.init(), k), jnp.float32(0))

    return kept_program("shapes of policies", (plain_spec(spec), sizes, k, n), lambda: jax.eval_shape(make))


def repeat(tree: PyTree, k: int) -> PyTree:
    """Leaves (...) to (k, ...)."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (k, *x.shape)), tree)
