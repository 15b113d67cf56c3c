"""What the adapters of other libraries share: one vector of observations, one kind of action, one clock, one seam for rewards.

Envs of other libraries are taken as they are and need not be installed here: their objects come from the user. They are
traced with the promotion rules that they are written for, get old uint32 keys, and never reset themselves.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.checks import check_spec, shapes_of
from rmdp_jax.env import Env, EnvSpec, Step
from rmdp_jax.envs.brax_checks import physics_settings, ranges_in_words
from rmdp_jax.errors import ConfigError, whole_number
from rmdp_jax.types import Array, Key, PyTree

MOST_CHOICES = 2**16  # joint actions that one categorical distribution is over


class Transition(NamedTuple):
    """One step in another library's own words, of which an `outcome` is made."""

    before: PyTree  # its state
    action: Array  # as its env took it
    after: PyTree  # its state
    reward: Array  # its own
    observation: PyTree  # the true successor's
    info: Any  # whatever else it reported


Outcome = Callable[[Transition], PyTree]
Observe = Callable[[PyTree], PyTree]  # an observation of the library -> the part that policies see


def own_reward(transition: Transition) -> PyTree:
    """The outcome where none is given: {"reward": what the env itself pays}."""
    return {"reward": jnp.asarray(transition.reward).astype(jnp.float32)}


def all_of_it(observation: PyTree) -> PyTree:
    """Policies see the whole observation."""
    return observation


def flat_observation(observation: PyTree) -> Array:
    """An observation of any structure (dicts, tuples, images, numbers, flags) as one vector (o,) float32.

    Leaves are put one after the other in the order of `jax.tree.leaves` (dicts by sorted names), each raveled. Whole numbers
    and flags become floats as they are; give `observe` for one-hot vectors.
    """
    leaves = [jnp.asarray(leaf).astype(jnp.float32).ravel() for leaf in jax.tree.leaves(observation)]
    return jnp.concatenate(leaves) if leaves else jnp.zeros(0, jnp.float32)


class Actions(NamedTuple):
    """What policies choose, and how the other env takes it."""

    size: int  # number of choices, or of components in [-1, 1]
    discrete: bool
    give: Callable[[Array], Array]  # () int32, or (size,) float32 -> an action of the env
    note: str = ""  # what is done to them, in words; nothing where they are as they were


def choices(sizes: ArrayLike, dtype: Any = jnp.int32) -> Actions:
    """Whole numbers below `sizes` () or (...); of several at once every combination is one choice, the last fastest.

    Raises:
        ConfigError: there are more than `MOST_CHOICES` combinations.
    """
    each = np.asarray(sizes)
    number = int(np.prod(each, dtype=object))
    if not 1 <= number <= MOST_CHOICES:
        raise ConfigError(
            f"actions: {number:,} combinations of {each.size} choices: must be at most {MOST_CHOICES:,}; wrap the env so that "
            "it decides some of them itself, or takes them in turn"
        )
    if each.ndim == 0:
        return Actions(number, True, lambda action: action.astype(dtype))

    def give(action: Array) -> Array:
        return jnp.stack(jnp.unravel_index(action, each.ravel().tolist())).reshape(each.shape).astype(dtype)

    return Actions(number, True, give, f"an action is one of the {number:,} combinations of {each.size} choices")


def box(low: ArrayLike, high: ArrayLike, shape: Sequence[int], dtype: Any = np.float32) -> Actions:
    """Numbers (shape) between `low` and `high`, to which [-1, 1] is scaled; as they are where no end is finite.

    Raises:
        ConfigError: they are no fractions, or have one end alone.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ConfigError(f"actions: numbers of {jnp.dtype(dtype)}: must be fractions; wrap the env so that it takes choices")
    ends = np.array([np.broadcast_to(np.asarray(end, np.float32), tuple(shape)) for end in (low, high)])
    finite = np.isfinite(ends).all(0)
    if (np.isfinite(ends).any(0) & ~finite).any():
        raise ConfigError("actions: one end is finite and the other is not; wrap the env so that both are, or none")
    least, most = np.where(finite, ends[0], np.float32(-1)), np.where(finite, ends[1], np.float32(1))
    scaled = finite & ((least != -1.0) | (most != 1.0))
    note = f"actions in [-1, 1] are scaled to {ranges_in_words(least[scaled], most[scaled])}" if scaled.any() else ""

    def give(action: Array) -> Array:
        return jnp.asarray(least) + (action.reshape(tuple(shape)) + 1.0) * (0.5 * (most - least))

    return Actions(int(np.prod(shape, dtype=int)), False, give, note)


class Next(NamedTuple):
    """What a step of another library returns."""

    state: PyTree
    observation: PyTree
    reward: Array
    terminated: Array  # () bool
    truncated: Array  # () bool
    info: Any


class AdaptedState(NamedTuple):
    """What the next step needs, and the clock."""

    inner: PyTree  # the library's own state, each leaf of the type that `reset` gives it
    clock: Array  # () int32, steps done in this episode


def adapted(
    begin: Callable[[Array], tuple[PyTree, PyTree]],
    advance: Callable[[PyTree, Array], Next],
    actions: Actions,
    outcome: Outcome,
    observe: Observe,
    **facts: Any,
) -> Env:
    """An `Env` of two functions of another library.

    Args:
        begin: an old key -> state, observation; of a fresh episode.
        advance: state, action -> the true successor, where an episode ends too.
        actions: what the env takes.
        outcome: what agents' rewards look at.
        observe: what policies see.
        **facts: fields of `EnvSpec`.

    Raises:
        ConfigError: a function of the library raises, or a step changes the structure or shapes of its state.
    """
    length = whole_number("episode_length", facts["episode_length"])

    def broken(rest: str) -> ConfigError:
        return ConfigError(f"env = {facts['name']}: {rest}")

    def start(key: Key) -> tuple[PyTree, Array]:
        with physics_settings():
            inner, observation = begin(jax.random.key_data(key))
            return inner, flat_observation(observe(observation))

    like, like_obs = shapes_of(broken, "reset", start, jax.eval_shape(lambda: jax.random.key(0)))

    def reset(key: Key) -> tuple[AdaptedState, Array]:
        inner, obs = start(key)
        return AdaptedState(jax.tree.map(_typed, inner, like), jnp.int32(0)), obs

    def step(state: AdaptedState, action: Array) -> tuple[AdaptedState, Step]:
        with physics_settings():
            given = actions.give(action)
            own = jax.tree.map(lambda leaf: leaf, state.inner)  # made for it alone, as envs may write into it
            after = advance(own, given)
            happened = Transition(state.inner, given, after.state, after.reward, after.observation, after.info)
            brought, obs = outcome(happened), flat_observation(observe(after.observation))
        check_successor(broken, after.state, like)
        clock = state.clock + 1
        terminated = jnp.asarray(after.terminated, bool)
        truncated = (jnp.asarray(after.truncated, bool) | (clock >= length)) & ~terminated
        inner = jax.tree.map(_typed, after.state, like)
        return AdaptedState(inner, clock), Step(obs, jax.tree.map(_strong, brought), terminated, truncated)

    spec = EnvSpec(
        observation_size=like_obs.shape[0],
        action_size=actions.size,
        discrete=actions.discrete,
        notes=(actions.note,) if actions.note else (),
        **{"reference_scale": 1.0, **facts},
    )
    check_spec(spec)
    return Env(spec, reset, step)


def check_successor(broken: Callable[[str], ConfigError], after: PyTree, like: PyTree) -> None:
    """Raise what `broken` makes of it unless a state has the structure and shapes of the first one, and keeps fractions."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (after, like)]
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (after, like)]
    if structures[0] != structures[1] or shapes[0] != shapes[1]:
        raise broken("a step changes the structure or shapes of its state; reset and step must give the same")
    for (path, leaf), first in zip(jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(like), strict=True):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.inexact) and not jnp.issubdtype(first.dtype, jnp.inexact):
            place = f"state{jax.tree_util.keystr(path)}"
            raise broken(f"{place} is {first.dtype} at first and {dtype} after a step; let reset give {dtype}")


def known_length(env: Any, given: int | None, own: Any) -> int:
    """The steps of an episode: `given`, or what the env itself has."""
    length = own if given is None else given
    if length is None:
        raise ConfigError(f"episode_length: {type(env).__name__} has no limit of its own; give episode_length=")
    return whole_number("episode_length", length)


def _typed(x: Any, like: jax.ShapeDtypeStruct) -> Array:
    """`x` as a strongly typed array of the dtype of `like`; weak types would compile every step twice."""
    if jnp.issubdtype(like.dtype, jax.dtypes.extended):  # typed keys
        return x
    return jax.lax.convert_element_type(x, like.dtype)


def _strong(x: Any) -> Array:
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype)
