"""Any unwrapped `brax.envs.Env`, also a user's own, as our unbatched `Env`.

brax is not imported by anything else but `native.py`: it warns on every load that its physics is no longer maintained,
prints that warp is missing, and breaks under strict promotion rules. All of that is dealt with here.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from rmdp_jax.checks import check_spec, shapes_of
from rmdp_jax.env import Env, EnvSpec, Step
from rmdp_jax.envs.adapting import Observe, all_of_it, check_successor, flat_observation
from rmdp_jax.envs.brax_checks import AS_THEY_ARE, check_traces, check_unwrapped, physics_settings, scaling, without_x64
from rmdp_jax.errors import ConfigError, flag, whole_number
from rmdp_jax.types import Array, Key, PyTree

try:
    from jax.interpreters.partial_eval import dce_jaxpr
except ImportError:  # not promised by jax; without it everything is carried and computed, which is only slower
    dce_jaxpr = None  # type: ignore[assignment]


class BraxState(NamedTuple):
    """What the next step needs of a brax state, and the clock."""

    carried: tuple[Array, ...]  # leaves of the brax state that the next steps read, each as brax shapes it
    clock: Array  # () int32, steps done in this episode


@without_x64
def from_brax(
    brax_env: Any,
    outcome: Callable[[Any, Any], PyTree],
    *,
    name: str,
    episode_length: int,
    discount: float,
    backend: str,
    reference_scale: float = 1.0,
    segment_length: int | None = None,
    shortest_episode: int = 1,
    finite_horizon: bool = False,
    observation_limit: float = 1e3,
    scale_actions: bool = True,
    observe: Observe = all_of_it,
) -> Env:
    """`brax_env` as an `Env`: terminated where brax says done, truncated by our own clock.

    Policies act in [-1, 1]. Where the actuators of a body take another range and the env hands actions on as they are, they
    are scaled to it: -1 is the lower end and 1 the upper; see `scale_actions`. Training says so when it begins. (The four
    bodies of `speed.py` take -1..1, and brax's Humanoid, HumanoidStandup, InvertedPendulum and Pusher scale by themselves:
    nothing is changed.)

    Only the leaves of the brax state that can reach a later observation, termination or outcome are carried (for the
    MuJoCo bodies: q and qd), found once from the program of `brax_env.step`.

    Args:
        brax_env: an unwrapped `brax.envs.Env`; resets afresh from every key. Wrappers that end, reset or batch episodes are
            refused, as all of that is done here: take `brax.envs.get_environment(name)` or, of `brax.envs.create(name)`, what
            is `unwrapped`. Wrappers of observations, actions or rewards may stay.
        outcome: (brax state before, brax state after) -> pytree of float32 arrays that rewards look at.
        name: for reports.
        episode_length: steps after which an episode is truncated.
        discount: gamma of the task.
        backend: what steps it, for reports.
        reference_scale: welfare in reference units = reference_scale * mean return.
        segment_length: steps that show what a behaviour is worth if it is held; whole episodes when not given. See `EnvSpec`.
        shortest_episode: steps before which no episode ends; fewer fresh starts are drawn the larger it is.
        finite_horizon: the cut is part of the task and nothing follows it; with a discount of 1 it has to be.
        observation_limit: size of an observation (m, rad, m/s, rad/s) that no sound physics reaches; raise it for odd units.
        scale_actions: False leaves actions in [-1, 1] whatever the actuators take.
        observe: the observation -> the part of it that policies see, of any structure: dicts become one vector (see
            `rmdp_jax.envs.adapting.flat_observation`). All of it when not given.

    Raises:
        ConfigError: `brax_env` is none or wrapped, a step changes the structure or shapes of its state, or another argument
            breaks its rule.
    """
    check_unwrapped(brax_env)
    episode_length = whole_number("episode_length", episode_length)

    @jax.jit  # as `advance`: traced once, which for a body takes long
    def begin(key: Key) -> Any:
        with physics_settings():
            return brax_env.reset(_raw_key(key))

    def broken(rest: str) -> ConfigError:
        return ConfigError(f"brax_env: {rest}")

    like = shapes_of(broken, "reset", begin, jax.random.key(0))
    if getattr(like, "obs", None) is None:
        raise ConfigError(f"brax_env: reset of {name} gives no state with obs, so it is no brax.envs.Env")
    check_traces(like)

    def see(observation: Any) -> Array:
        return flat_observation(observe(observation))

    size = shapes_of(broken, "observe", see, like.obs).shape[0]
    leaves = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(like)]  # of a strong type
    structure: Any = jax.tree.structure(like)
    to_controls, note = scaling(brax_env, like) if flag("scale_actions", scale_actions) else AS_THEY_ARE

    @jax.jit
    def advance(flat: list[Array], action: Array) -> tuple[list[Array], Array, Array, PyTree]:
        before = structure.unflatten(flat)
        with physics_settings():
            # brax envs write into the dicts of the state they get, hence one made for it alone
            after = brax_env.step(structure.unflatten(flat), to_controls(action))
        check_successor(broken, after, like)
        return jax.tree.leaves(after), see(after.obs), after.done, outcome(before, after)

    shapes_of(broken, "step", advance, leaves, _like_action(brax_env))
    kept = _leaves_read(advance, leaves, _like_action(brax_env))

    def carry(flat: list[Array], clock: Array) -> BraxState:
        return BraxState(tuple(_strong(flat[i], leaves[i].dtype) for i in kept), clock)

    def reset(key: Key) -> tuple[BraxState, Array]:
        state = begin(key)
        return carry(jax.tree.leaves(state), jnp.int32(0)), see(state.obs)

    def step(state: BraxState, action: Array) -> tuple[BraxState, Step]:
        flat: list[Any] = [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
        for i, leaf in zip(kept, state.carried, strict=True):
            flat[i] = leaf
        flat, obs, done, reported = advance(flat, action)
        clock = state.clock + 1
        terminated = done > 0.5
        truncated = (clock >= episode_length) & ~terminated
        return carry(flat, clock), Step(obs, reported, terminated, truncated)

    spec = EnvSpec(
        name=name,
        observation_size=size,
        action_size=brax_env.action_size,
        discrete=False,
        episode_length=episode_length,
        discount=discount,
        reference_scale=reference_scale,
        backend=backend,
        finite_horizon=finite_horizon,
        segment_length=segment_length,
        shortest_episode=shortest_episode,
        observation_limit=observation_limit,
        probe=False,  # the clock and the ends are made here
        notes=(note,) if note else (),
    )
    check_spec(spec)
    first, _ = jax.eval_shape(reset, jax.random.key(0))
    pruned = _pruned(step, first, _like_action(brax_env))

    def step_by(state: BraxState, action: Array) -> tuple[BraxState, Step]:
        action = jnp.asarray(action)
        if action.shape != (brax_env.action_size,):
            raise ConfigError(f"action of shape {action.shape}: must be ({brax_env.action_size},), what {name} takes")
        return pruned(state, action.astype(jnp.float32))

    return Env(spec, _pruned(reset, jax.random.key(0)), step_by)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Imports and loads of brax and MJX without their prints (no warp) and warnings (no longer maintained)."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), mujoco_quiet():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def mujoco_quiet() -> Iterator[None]:
    """MuJoCo without its own warnings, which it prints and writes to MUJOCO_LOG.TXT in the user's folder."""
    mujoco = import_mujoco()
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(before or _ignore)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def import_mujoco() -> Any:
    """MuJoCo, also where MUJOCO_GL names an OpenGL that is missing: physics draws nothing, and `movie.py` tries for itself."""
    try:
        return import_module("mujoco")
    except Exception:  # each kind of OpenGL fails in its own way
        before = os.environ["MUJOCO_GL"]  # without it nothing is looked for
        os.environ["MUJOCO_GL"] = "off"
        try:
            mujoco = import_module("mujoco")
        finally:
            os.environ["MUJOCO_GL"] = before
        for name, module in list(sys.modules.items()):  # those that the first try imported are not put into the second
            if name.count(".") == 1 and name.startswith("mujoco."):
                setattr(mujoco, name.removeprefix("mujoco."), module)
        return mujoco


def _ignore(message: str) -> None:
    del message


def _like_action(brax_env: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((brax_env.action_size,), jnp.float32)


def _leaves_read(advance: Callable, leaves: list[jax.ShapeDtypeStruct], action: jax.ShapeDtypeStruct) -> list[int]:
    """Indices of the state leaves on which observations, terminations or outcomes of some later step depend."""
    if dce_jaxpr is None:
        return list(range(len(leaves)))
    program, shapes = jax.make_jaxpr(advance, return_shape=True)(leaves, action)
    outputs = [True] * len(jax.tree.leaves(shapes[1:]))
    read = [False] * len(leaves)
    while True:  # what is read to compute what is read, until nothing is added
        _, inputs = dce_jaxpr(program.jaxpr, read + outputs)
        grown = [a or b for a, b in zip(read, inputs[: len(leaves)], strict=True)]
        if grown == read:
            return [i for i, needed in enumerate(read) if needed]
        read = grown


def _pruned(function: Callable, *like: PyTree) -> Callable:
    """`function` for arguments `like` without what no result needs, of which brax computes much: each vmap takes its time."""
    if dce_jaxpr is None:
        return jax.jit(function, inline=True)
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*like)
    needed, _ = dce_jaxpr(program.jaxpr, True, instantiate=True)
    evaluate = jaxpr_as_fun(ClosedJaxpr(needed, program.consts))

    @partial(jax.jit, inline=True)
    def pruned(*arguments: PyTree) -> PyTree:
        return jax.tree.unflatten(jax.tree.structure(shapes), evaluate(*jax.tree.leaves(arguments)))

    return pruned


def _strong(x: Array, dtype: Any) -> Array:
    """`x` as a strongly typed `dtype`; a weak type in a first state would compile every step twice."""
    return jax.lax.convert_element_type(x, dtype)


def _raw_key(key: Key) -> Array:
    """An old uint32 key, which brax envs are written for, from a typed one of JAX's default kind."""
    return jax.random.key_data(key)
