"""Whether a task keeps its word, before anything is compiled: what an `Env` and a `Population` may break, one clear line each.

Shapes, dtypes and structures are seen by tracing, which computes nothing. What only a real episode shows (`EnvSpec.probe`)
takes one short program. What no check can see: an observation after an end that is the next episode's, of an env whose state
has no clock.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.env import Env, EnvSpec, Population, Step
from rmdp_jax.errors import INT32, ConfigError, flag, in_line, instance_of, number_between, real_number, shown, whole_number
from rmdp_jax.types import Array, Key, PyTree

PROBED_STEPS = 1000  # of an episode that is looked at, at most
PROBED_EPISODES = 4

Broken = Callable[[str], ConfigError]  # the message about one thing, without its name, to the error

_VECTOR = "one vector of float32: concatenate its parts (jax.flatten_util.ravel_pytree)"


def check_env(env: Env, population: Population) -> None:
    """Raise `ConfigError` unless env and rewards give what they promise."""
    instance_of("env", env, Env, "an Env(spec, reset, step), such as make(name)[0]")
    instance_of("population", population, Population, "a Population(agents, reward), such as make(name)[1]")
    check_spec(env.spec)
    _check_weights(population)
    agent = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), _like_agents(population.agents))

    def broken(rest: str) -> ConfigError:
        return ConfigError(f"env = {in_line(env.spec.name)}: {rest}")

    state, obs = _begin(broken, env)
    step = _advance(broken, env, state)
    seen, bit = ((env.spec.observation_size,), jnp.float32), ((), jnp.bool_)
    check_array(broken, "the obs of reset", obs, *seen)
    check_array(broken, "the obs of step", step.obs, *seen)
    for name in ("terminated", "truncated", "diverged"):
        check_array(broken, f"{name} of step", getattr(step, name), *bit)
    for path, leaf in jax.tree_util.tree_leaves_with_path(step.outcome):
        numeric = jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == jnp.bool_
        if not numeric or jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise broken(f"the outcome{jax.tree_util.keystr(path)} is {leaf.dtype}, must be of numbers or bools")
    reward = shapes_of(broken, "the reward of one agent", population.reward, agent, step.outcome)
    check_array(broken, "the reward of one agent", reward, (), jnp.float32)
    if env.spec.probe and not being_traced():
        _check_episodes(broken, env)


def check_spec(spec: EnvSpec) -> None:
    """Raise `ConfigError` unless all fields of an `EnvSpec` hold their rules."""
    instance_of("spec", spec, EnvSpec, "an EnvSpec(...)")
    for name in ("name", "backend"):
        instance_of(name, getattr(spec, name), str, "a word")
    for name in ("observation_size", "action_size"):
        whole_number(name, getattr(spec, name))
    for name in ("discrete", "finite_horizon", "probe"):
        flag(name, getattr(spec, name))
    whole_number("episode_length", spec.episode_length, 1, INT32)
    whole_number("shortest_episode", spec.shortest_episode, 1, INT32)
    if spec.segment_length is not None:
        whole_number("segment_length", spec.segment_length, 1, INT32)
    number_between("discount", spec.discount, 0, 1)
    real_number("reference_scale", spec.reference_scale, lambda x: 0 < x < math.inf, "a finite number above 0")
    real_number("observation_limit", spec.observation_limit, lambda x: x > 0, "a number above 0; inf for no limit")
    instance_of("options", spec.options, Mapping, "a mapping from names to values")


def check_knowledge(population: Population, k: int) -> None:
    """Raise `ConfigError` unless `upper_bound(k)` and `reachable(k)`, which are read after training, are finite or None."""
    for name in ("upper_bound", "reachable"):
        called = f"{name}({k})"
        try:
            known = getattr(population, name)(k)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{called}: raised {type(error).__name__} ({in_line(error)}); give None for what is not known"
            ) from error
        if known is not None:
            real_number(called, known, math.isfinite, "a finite number, or None for what is not known")


def _check_weights(population: Population) -> None:
    """Raise `ConfigError` unless the weights of agents, where some are given, are (n,) floats above 0."""
    weights = population.weights
    if weights is None or isinstance(weights, jax.core.Tracer):
        return
    found = np.asarray(weights) if hasattr(weights, "__array__") else np.zeros(0)
    if found.shape != (population.n,) or found.dtype != np.float32:
        kind = f"{found.dtype} {found.shape}" if hasattr(weights, "__array__") else type(weights).__name__
        raise ConfigError(f"population: weights are {kind}, must be float32 ({population.n},), one an agent")
    if not (np.isfinite(found).all() and (found > 0.0).all()):
        worst = int(np.where(np.isfinite(found), found, -np.inf).argmin())
        raise ConfigError(f"population: the weight of agent {worst} is {found[worst]:g}, must be a finite number above 0")


def _like_agents(agents: PyTree) -> PyTree:
    """Shapes of `agents`, leaves (n, ...)."""
    way_out = "must be a pytree of arrays (n, ...), one row an agent: jax.tree.map(lambda *x: jnp.stack(x), *agents)"
    leaves = jax.tree.leaves(agents)
    if not leaves:
        raise ConfigError(f"population: agents = {shown(agents)} hold no array; {way_out}")
    sizes = set()
    for leaf in leaves:
        known = isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
        if not known or not leaf.shape or np.dtype(object) == leaf.dtype or np.issubdtype(_dtype(leaf), np.str_):
            what = f"{leaf.dtype} {leaf.shape}" if known else type(leaf).__name__
            raise ConfigError(f"population: agents is a {type(agents).__name__} with a leaf {what}; {way_out}")
        sizes.add(leaf.shape[0])
    if len(sizes) > 1 or 0 in sizes:
        raise ConfigError(f"population: the leaves of agents have {sorted(sizes)} rows; {way_out}")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, _dtype(leaf)), agents)


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else jax.dtypes.canonicalize_dtype(leaf.dtype)


def _begin(broken: Broken, env: Env) -> tuple[PyTree, Any]:
    """Shapes of the first state and observation."""
    begun = shapes_of(broken, "reset", env.reset, jax.eval_shape(lambda: jax.random.key(0)))
    if not isinstance(begun, tuple | list) or len(begun) != 2:
        raise broken(f"reset returns {kind_of(begun)}, must be (state, obs)")
    return begun[0], begun[1]


def _advance(broken: Broken, env: Env, state: PyTree) -> Step:
    """Shapes of a step from `state`, whose successor has to be like it."""
    action = ((), jnp.int32) if env.spec.discrete else ((env.spec.action_size,), jnp.float32)
    stepped = shapes_of(broken, "step", env.step, state, jax.ShapeDtypeStruct(*action))
    if not isinstance(stepped, tuple | list) or len(stepped) != 2 or not isinstance(stepped[1], Step):
        raise broken(f"step returns {kind_of(stepped)}, must be (state, Step(obs, outcome, terminated, truncated))")
    way_out = "reset and step must give the same structure, shapes and dtypes"
    check_like(broken, ("step", stepped[0]), ("reset", state), weakly=True, way_out=way_out)
    return stepped[1]


def check_array(broken: Broken, name: str, given: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise what `broken` makes of the message unless `given`, an array or its shape, is of this shape and dtype."""
    wanted = f"must be {jnp.dtype(dtype)} {shape}"
    if not hasattr(given, "shape") or not hasattr(given, "dtype"):
        way_out = f"; make it {_VECTOR}" if isinstance(given, Mapping) else ""
        raise broken(f"{name} is {kind_of(given)}, {wanted}{way_out}")
    if (given.shape, given.dtype) != (shape, dtype):
        way_out = f"; give it by .astype({jnp.dtype(dtype)})" if given.shape == shape else ""
        raise broken(f"{name} is {given.dtype} {given.shape}, {wanted}{way_out}")


def check_like(broken: Broken, now: tuple[str, PyTree], before: tuple[str, PyTree], *, weakly: bool, way_out: str) -> None:
    """Raise unless the state that one function returns, with its name, is like that of another; `weakly` typed ones too."""

    def describe(leaf: jax.ShapeDtypeStruct) -> str:
        return f"{'weak ' if weakly and leaf.weak_type else ''}{leaf.dtype} {leaf.shape}"

    (name, state), (first_name, first) = now, before
    structures: list[Any] = [jax.tree.structure(tree) for tree in (state, first)]
    if structures[0] != structures[1]:
        new, old = (in_line(structure).removeprefix("PyTreeDef") for structure in structures)
        raise broken(f"the state of {name} has the structure {new}, that of {first_name} {old}; {way_out}")
    for (path, leaf), known in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(first), strict=True):
        if describe(leaf) != describe(known):
            weak = "; give constants a dtype, such as jnp.float32(0)" if weakly and leaf.weak_type != known.weak_type else ""
            where = f"the state{jax.tree_util.keystr(path)}"
            raise broken(f"{where} is {describe(leaf)} after {name}, {describe(known)} after {first_name}; {way_out}{weak}")


def shapes_of(broken: Broken, name: str, function: Callable, *like: PyTree) -> Any:
    """Shapes of what a user's function returns for arguments of these shapes, or `broken` with what it raised."""
    if not callable(function):
        raise broken(f"{name} is {kind_of(function)}, must be a function")
    try:
        return jax.eval_shape(function, *like)
    except ConfigError:
        raise
    except Exception as error:
        raise broken(f"{name} raised {type(error).__name__} ({in_line(error)})") from error


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def being_traced() -> bool:
    """Whether the caller is traced, so that nothing has a value."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def _check_episodes(broken: Broken, env: Env) -> None:
    """What only real steps show: two ends at once, an env that resets itself, a horizon that is none."""
    spec = env.spec
    both, resets, late = _play(env.reset, env.step, bool(spec.discrete), int(spec.action_size), int(spec.episode_length))
    if both:
        raise broken("a step is terminated and truncated together; let truncated be so only where it is not terminated")
    if resets:
        raise broken("an episode that ended begins anew by itself; step must give the true successor, resets are done here")
    if spec.finite_horizon and late:
        raise broken(
            f"finite_horizon = True, and an episode goes on after episode_length = {spec.episode_length} steps; let "
            "step count them and report truncated at the last, or leave finite_horizon out"
        )


def _play(reset: Callable, step: Callable, discrete: bool, action_size: int, length: int) -> tuple[bool, bool, bool]:
    """Whether any of a few episodes with random actions ends twice at once, its clock goes back at an end, or it has no end."""
    try:
        return _play_known(reset, step, discrete, action_size, length)
    except TypeError:  # functions that cannot be hashed
        return _play_known.__wrapped__(reset, step, discrete, action_size, length)


@lru_cache(maxsize=8)  # a trainer is made several times for a run
def _play_known(reset: Callable, step: Callable, discrete: bool, action_size: int, length: int) -> tuple[bool, bool, bool]:
    def act(key: Key) -> Array:
        if discrete:
            return jax.random.randint(key, (), 0, action_size, jnp.int32)
        return jax.random.uniform(key, (action_size,), jnp.float32, -1.0, 1.0)

    def play(key: Key) -> tuple[Array, Array, Array]:
        begin_key, other_key, act_key = jax.random.split(key, 3)
        first, others = reset(begin_key)[0], reset(other_key)[0]
        begun = _scalars(first)

        def advance(carry: tuple) -> tuple:
            number, state, counts, *_ = carry
            state, result = step(state, act(jax.random.fold_in(act_key, number)))
            ended, moved = result.terminated | result.truncated, _scalars(state) - begun
            # a clock is the same in every first state and counts steps, up or down, at least two of them
            is_clock = counts & (_scalars(others) == begun)
            back = ended & (number >= 2) & is_clock.any() & (~is_clock | (moved == 0.0)).all()
            counts = counts & (jnp.abs(moved) == number.astype(jnp.float32) + 1.0)
            return number + 1, state, counts, ended, result.terminated & result.truncated, back

        no = jnp.bool_(False)
        start = (jnp.int32(0), first, jnp.ones(begun.shape, bool), no, no, no)
        steps = min(length, PROBED_STEPS) + 1
        number, _, _, _, both, back = jax.lax.while_loop(lambda carry: (carry[0] < steps) & ~carry[3], advance, start)
        return both, back, number > length

    both, back, late = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), PROBED_EPISODES))
    return bool(both.any()), bool(back.any()), bool(late.any())


def _scalars(state: PyTree) -> Array:
    """The single numbers in a state, (m,) float32."""
    leaves = map(jnp.asarray, jax.tree.leaves(state))
    numbers = [leaf for leaf in leaves if leaf.shape == () and jnp.issubdtype(leaf.dtype, jnp.number)]
    return jnp.stack([leaf.astype(jnp.float32) for leaf in numbers]) if numbers else jnp.zeros(0, jnp.float32)
