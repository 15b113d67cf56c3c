"""Any env of gymnax (1.0 or newer), also a user's own of its `Environment`, as our unbatched `Env`.

    env = from_gymnax(*gymnax.make("CartPole-v1"), lambda t: {"alive": t.reward, "x": t.after.x})

gymnax itself is not imported: `pip install -c constraints.txt -e '.[gymnax]'` gets it.
"""

from typing import Any

import jax

from rmdp_jax.env import Env
from rmdp_jax.envs.adapting import Actions, Next, Observe, Outcome, adapted, all_of_it, box, choices, known_length, own_reward
from rmdp_jax.errors import ConfigError, in_line
from rmdp_jax.types import Array, PyTree

_NEEDED = ("reset_env", "step_env", "is_truncated", "action_space")


def from_gymnax(
    env: Any,
    params: Any = None,
    outcome: Outcome = own_reward,
    *,
    observe: Observe = all_of_it,
    name: str | None = None,
    episode_length: int | None = None,
    discount: float = 0.99,
    **facts: Any,
) -> Env:
    """A gymnax env as an `Env`: terminated where its `step_env` says so, truncated where its `is_truncated` does.

    Its `step`, which resets by itself and shows the next episode's observation, is never called. Actions of a `Box` are scaled
    from [-1, 1] to its range where both ends are finite. A wrapped env is refused, as wrappers of gymnax hand the functions
    that are taken here to the env within: `observe` and `outcome` do what they do.

    Args:
        env, params: as `gymnax.make(name)` gives them; the env's `default_params` when not given.
        outcome: a `Transition` -> pytree of numbers that agents' rewards look at; before and after are gymnax states.
        observe: the observation -> the part of it that policies see, of any structure; all of it when not given.
        name: for reports; the env's own when not given.
        episode_length: steps after which an episode is truncated; `params.max_steps_in_episode` when not given, which ends it
            all the same where it is less.
        discount: gamma of the task.
        **facts: other fields of `EnvSpec`, such as `reference_scale` or `segment_length`.

    Raises:
        ConfigError: this is no env of gymnax, or a wrapped one, or its actions are none that a policy here could choose.
    """
    kind = type(env).__name__
    if hasattr(env, "_env"):
        raise ConfigError(f"env = {kind}: is a wrapper, which gymnax passes by; give the env itself, with observe= or outcome=")
    missing = [name for name in _NEEDED if not hasattr(env, name)]
    if missing:
        raise ConfigError(f"env = {kind}: has no {missing[0]}, so it is no env of gymnax 1.0; take gymnax.make(name)")
    params = env.default_params if params is None else params

    def begin(key: Array) -> tuple[PyTree, PyTree]:
        first, later = jax.random.split(key)
        observation, state = env.reset_env(first, params)
        return (state, later), observation

    def advance(inner: PyTree, action: Array) -> Next:
        state, key = inner
        now, later = jax.random.split(key)
        observation, after, reward, terminated, info = env.step_env(now, state, action, params)
        return Next((after, later), observation, reward, terminated, env.is_truncated(after, params), info)

    def brought(transition: Any) -> PyTree:
        return outcome(transition._replace(before=transition.before[0], after=transition.after[0]))

    length = known_length(env, episode_length, getattr(params, "max_steps_in_episode", None))
    named = {"name": name or str(getattr(env, "name", kind)), "episode_length": length, "discount": discount}
    return adapted(
        begin, advance, _actions(env.action_space(params)), brought, observe, **{**named, "backend": "gymnax", **facts}
    )


def _actions(space: Any) -> Actions:
    if hasattr(space, "n"):
        return choices(space.n, space.dtype)
    if hasattr(space, "low") and hasattr(space, "high"):
        return box(space.low, space.high, space.shape, space.dtype)
    raise ConfigError(f"actions = {in_line(space)}: must be Discrete or Box; wrap the env so that it takes one of these")
