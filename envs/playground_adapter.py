"""Any env of MuJoCo Playground, stepped by MJX or by MuJoCo Warp, as our unbatched `Env`.

    env = from_playground(registry.load("CheetahRun", config_overrides={"impl": "jax"}))

Playground itself is not imported: `pip install -c constraints.txt -e '.[playground]'` gets it. Its robots (locomotion,
manipulation) come with MuJoCo Menagerie, which Playground clones from GitHub when the first is loaded; `dm_control_suite` needs
no network.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from rmdp_jax.env import Env
from rmdp_jax.envs.adapting import Observe, known_length
from rmdp_jax.envs.brax_adapter import from_brax, quiet
from rmdp_jax.envs.brax_checks import check_unwrapped
from rmdp_jax.errors import ConfigError
from rmdp_jax.types import Array, PyTree

with quiet():
    from mujoco import mjx


def reward_after(before: Any, after: Any) -> PyTree:
    """The outcome where none is given: {"reward": what the env itself pays}."""
    del before
    return {"reward": after.reward}


def actors_part(observation: PyTree) -> PyTree:
    """What the actor of Playground's own training sees: `state` of a dict, without `privileged_state`; else all of it."""
    return observation.get("state", observation) if isinstance(observation, Mapping) else observation


def from_playground(
    env: Any,
    outcome: Callable[[Any, Any], PyTree] = reward_after,
    *,
    observe: Observe = actors_part,
    name: str | None = None,
    episode_length: int | None = None,
    discount: float = 0.99,
    **facts: Any,
) -> Env:
    """A MuJoCo Playground env as an `Env`, by `from_brax`: terminated where it says done, truncated by our own clock.

    Actions in [-1, 1] go to the env as they are, as in Playground's own training.

    Args:
        env: as `registry.load(name)` gives it, not `wrapper.wrap_for_brax_training` of it. Playground's default is
            ``impl="warp"``, which is for CUDA; give ``config_overrides={"impl": "jax"}`` elsewhere.
        outcome: (state before, state after) -> pytree of numbers that agents' rewards look at: `data`, `metrics`, `reward` ...
        observe: the observation -> the part of it that policies see, of any structure.
        name: for reports; that of the env's class when not given.
        episode_length: steps after which an episode is truncated; that of the env's config when not given.
        discount: gamma of the task.
        **facts: further arguments of `from_brax`, such as `reference_scale` or `segment_length`.

    Raises:
        ConfigError: this is no env of Playground, or wrapped for training, or its config repeats actions; or as of `from_brax`.
    """
    kind = type(env).__name__
    if not hasattr(env, "mjx_model"):
        raise ConfigError(f"env = {kind}: has no mjx_model, so it is no env of MuJoCo Playground; take registry.load(name)")
    config = getattr(env, "_config", None) or {}
    repeats = config.get("action_repeat", 1)
    if repeats != 1:
        raise ConfigError(
            f"action_repeat = {repeats}: is done by the wrappers of Playground's training, which are left out here; wrap the "
            "env so that its step repeats, or load it with config_overrides={'action_repeat': 1}"
        )
    check_unwrapped(env)
    impl = env.mjx_model.impl.value
    facts = {"backend": {"jax": "mjx"}.get(impl, impl), **facts}
    length = known_length(env, episode_length, config.get("episode_length"))
    return from_brax(
        _InOneBatch(env, config) if impl == "warp" else env,
        outcome,
        observe=observe,
        name=name or type(env.unwrapped).__name__,
        episode_length=length,
        discount=discount,
        **facts,
    )


class _InOneBatch:
    """A Playground env that Warp steps, whose worlds are one batch whatever the number of `vmap`s around a step.

    Warp's own part of the data holds the contacts of all worlds together, so it is no part of a state: every step finds it
    anew, and an outcome does not see it.
    """

    def __init__(self, env: Any, config: Mapping[str, Any]) -> None:
        self.action_size = env.action_size
        self.reset = _over_worlds(lambda key: _without_contacts(env.reset(key)), jax.ShapeDtypeStruct((2,), jnp.uint32))
        like = jax.eval_shape(self.reset, jax.ShapeDtypeStruct((2,), jnp.uint32))

        def step(state: Any, action: Array) -> Any:
            room = {name: config[name] for name in ("naconmax", "naccdmax", "njmax") if name in config}
            blank = mjx.make_data(env.mj_model, impl="warp", **room)
            return _without_contacts(env.step(state.replace(data=state.data.replace(_impl=blank._impl)), action))

        self.step = _over_worlds(step, like, jax.ShapeDtypeStruct((env.action_size,), jnp.float32))


def _without_contacts(state: Any) -> Any:
    return state.replace(data=state.data.replace(_impl=None))


def _over_worlds(function: Callable, *like: PyTree) -> Callable:
    """`function` of one world, arguments `like`, for any leading axes of worlds, as one batch of them under any `vmap`s."""

    @custom_vmap
    def call(*given: PyTree) -> PyTree:
        first, known = jax.tree.leaves(given)[0], jax.tree.leaves(like)[0]
        worlds = first.shape[: first.ndim - len(known.shape)]
        flat = jax.tree.map(lambda x, one: x.reshape(math.prod(worlds), *one.shape), given, like)
        return jax.tree.map(lambda x: x.reshape(*worlds, *x.shape[1:]), jax.vmap(function)(*flat))

    @call.def_vmap
    def _(size: int, batched: Any, *given: PyTree) -> tuple[PyTree, PyTree]:
        every = jax.tree.map(lambda x, own: x if own else jnp.broadcast_to(x, (size, *x.shape)), given, tuple(batched))
        result = call(*every)
        return result, jax.tree.map(lambda _: True, result)

    return call
