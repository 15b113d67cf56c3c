"""What a brax env has to be before `brax_adapter.py` takes it: no wrappers of episodes, and actions as policies give them."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.errors import ConfigError, in_line
from rmdp_jax.types import Array

P = ParamSpec("P")
R = TypeVar("R")

# Wrappers of brax and of what is written for it that do what is done here, by name, as they are copied from place to place; and
# what they leave in a state.
_LOOPS = ("AutoResetWrapper", "EpisodeWrapper", "VmapWrapper", "EvalWrapper", "GymWrapper", "TorchWrapper")
_LEFT_BY_LOOPS = ("first_obs", "first_state", "first_pipeline_state", "truncation", "eval_metrics")
_UNWRAPPED = "take brax.envs.get_environment(name), or the env's own `unwrapped`"


def check_unwrapped(brax_env: Any) -> None:
    """Raise `ConfigError` unless this is a brax env without wrappers that end, reset or batch episodes."""
    for name in ("reset", "step", "action_size"):
        if not hasattr(brax_env, name):
            raise ConfigError(f"brax_env = {type(brax_env).__name__}: has no {name}, so it is no brax.envs.Env; {_UNWRAPPED}")
    layer = brax_env
    while layer is not None:
        names = [kind.__name__ for kind in type(layer).__mro__]
        found = next((name for name in names if name.endswith(_LOOPS)), None)
        if found:
            raise ConfigError(
                f"brax_env: is wrapped in {found}, which ends, resets or batches episodes by itself; {_UNWRAPPED}"
            )
        layer = vars(layer).get("env") if hasattr(layer, "__dict__") else None


def check_traces(like: Any) -> None:
    """Raise `ConfigError` where a wrapper of another name has left its traces in a brax state."""
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in jax.tree.leaves(like)):
        raise ConfigError("brax_env: its state holds a typed key; keep jax.random.key_data of it")
    info = getattr(like, "info", None)
    for name in _LEFT_BY_LOOPS:
        if isinstance(info, dict) and name in info:
            raise ConfigError(f"brax_env: its state has info[{name!r}] of a wrapper that ends or resets episodes; {_UNWRAPPED}")


Scaling = tuple[Callable[[Array], Array], str]  # action in [-1, 1] -> action of the env; what is said of it, or nothing
AS_THEY_ARE: Scaling = (lambda action: action, "")  # for actuators that take what policies give


def scaling(brax_env: Any, like: Any) -> Scaling:
    """What brings actions in [-1, 1] to the range of the actuators, where the env itself does not."""
    ranges = getattr(getattr(getattr(brax_env, "sys", None), "actuator", None), "ctrl_range", None)
    ranges = np.zeros((0, 2)) if ranges is None else np.asarray(ranges, np.float32)
    limited = np.isfinite(ranges).all(-1)  # the others take any number
    if ranges.shape != (brax_env.action_size, 2) or (ranges[limited] == (-1.0, 1.0)).all():
        return AS_THEY_ARE
    if not _hands_on(brax_env, like):
        return AS_THEY_ARE
    low, high = np.where(limited, ranges.T, np.array([[-1.0], [1.0]], np.float32)).astype(np.float32)
    words = ranges_in_words(*ranges[limited].T)
    return lambda action: low + (action + 1.0) * (0.5 * (high - low)), f"actions in [-1, 1] are scaled to actuators of {words}"


def ranges_in_words(low: np.ndarray, high: np.ndarray) -> str:
    """Ranges (a,) as a note gives them, each once."""
    return in_line(", ".join(dict.fromkeys(f"{a:g}..{b:g}" for a, b in zip(low.ravel(), high.ravel(), strict=True))))


def _hands_on(brax_env: Any, like: Any) -> bool:
    """Whether a step of a brax `PipelineEnv` gives its actuators the actions as they are."""
    heard: list[Array] = []

    def listen(state: Any, action: Array) -> Any:
        heard.append(action)
        return state

    def listening(layer: Any) -> Any:
        layer, inner = copy.copy(layer), vars(layer).get("env")
        if inner is None:
            layer.pipeline_step = listen
        else:
            layer.env = listening(inner)
        return layer

    env = listening(brax_env)

    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    for value in (-1.0, 0.5, 1.0):
        action = jnp.full(brax_env.action_size, value, jnp.float32)
        heard.clear()
        with physics_settings(), jax.disable_jit():  # in which loops within the step hand numbers over, not tracers
            env.step(state, action)
        if not heard or not all(np.array_equal(one, action) for one in heard):
            return False
    return True


def without_x64(function: Callable[P, R]) -> Callable[P, R]:
    """`function` where JAX_ENABLE_X64 is off, as where its programs run."""

    @wraps(function)
    def in_float32(*arguments: P.args, **options: P.kwargs) -> R:
        with jax.enable_x64(False):
            return function(*arguments, **options)

    return in_float32


@contextlib.contextmanager
def physics_settings() -> Iterator[None]:
    """What physics is traced under: brax mixes dtypes and ranks, and strict settings are for our code; products of matrices are
    in float32, as in TF32, the default of GPUs, a step is off by 5e-3 instead of 1e-4 (`python -m benchmarks.parity`).
    """
    promotion, ranks = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with promotion, ranks, jax.default_matmul_precision("highest"):
        yield
