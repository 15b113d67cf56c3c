"""Target speed: agent i wants a body to run at its own speed t_i, as steadily as it can.

Reward of a step with forward speed v (m/s): 0.1 * clip(1 - |v - t_i| / L, 0, 1), L a twentieth of the range of targets, so a
perfect episode of 1000 steps is worth 100. No costs, no bonus for being healthy; falling ends an episode for all bodies but
HalfCheetah. Source: Ivanov & Ben-Porat, AAAI 2024.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import LARGEST_N
from rmdp_jax.env import Column, Env, EnvSpec, Population
from rmdp_jax.envs.speed_bound import speed_upper_bound
from rmdp_jax.envs.speed_reachable import Held, held_speeds, reachable_welfare
from rmdp_jax.errors import check, known_name, seed_number, whole_number
from rmdp_jax.types import Array

REWARD_PER_STEP = 0.1
SEGMENT = 64  # steps: some strides, so that a speed is held rather than passed through, and shown within two unrolls


class Body(NamedTuple):
    """A brax body and its task."""

    module: str  # in brax.envs
    cls: str
    low: float  # m/s, targets are uniform from (low, high)
    high: float
    options: dict[str, Any]  # of the brax class: no costs, health rules

    @property
    def falls(self) -> bool:
        """Whether an episode ends when the body is in bad health."""
        return "terminate_when_unhealthy" in self.options


class Backend(NamedTuple):
    """Something that steps a body."""

    help: str
    build: Callable[[Callable[..., Any]], Any]  # a brax env class with its options bound -> brax env


class Outcome(NamedTuple):
    """What one step brings."""

    speed: Array  # () float32, m/s: forward way of the torso during the step over the time of the step


_NO_REWARDS = {"ctrl_cost_weight": 0.0, "healthy_reward": 0.0, "terminate_when_unhealthy": True}
BODIES = {
    "halfcheetah": Body("half_cheetah", "Halfcheetah", 0.0, 4.0, {"ctrl_cost_weight": 0.0}),  # never terminates
    "walker2d": Body(
        "walker2d", "Walker2d", 0.0, 2.5, _NO_REWARDS | {"healthy_z_range": (0.8, 2.0), "healthy_angle_range": (-1.0, 1.0)}
    ),
    "ant": Body("ant", "Ant", 0.0, 3.0, _NO_REWARDS | {"contact_cost_weight": 0.0, "healthy_z_range": (0.4, 1.0)}),
    "hopper": Body(
        "hopper",
        "Hopper",
        0.0,
        2.5,
        _NO_REWARDS | {"healthy_z_range": (0.7, float("inf")), "healthy_angle_range": (-0.2, 0.2)},
    ),
}
TASKS = tuple(f"{body}_speed" for body in BODIES)


def _native(make: Callable[..., Any]) -> Any:
    return import_module("rmdp_jax.envs.native").native_env(make(backend="mjx"))


def _mjx(make: Callable[..., Any]) -> Any:
    return import_module("rmdp_jax.envs.native").mjx_env(make(backend="mjx"))


def _warp(make: Callable[..., Any]) -> Any:
    return import_module("rmdp_jax.envs.warp").warp_env(make(backend="mjx"))


BACKENDS = {
    "native": Backend("C MuJoCo on CPU threads; the default on a CPU", _native),
    "mjx": Backend("MuJoCo in XLA, the same MDP as native; the default on GPU and TPU", _mjx),
    "warp": Backend("MuJoCo Warp on a CUDA device, the same MDP as native; an extra", _warp),
    "spring": Backend("brax; other gears, time step and substeps: another task", lambda make: make(backend="spring")),
    "positional": Backend("brax; other gears, time step and substeps: another task", lambda make: make(backend="positional")),
    "generalized": Backend("brax; same time step, other contacts: another task", lambda make: make(backend="generalized")),
}

SAME_MDP = ("native", "mjx", "warp")  # MuJoCo itself; with brax's models, `speed_reachable` knows what policies hold
MODELS = {"brax": None, "gymnasium": "gymnasium_models"}  # of MuJoCo: the module that puts another in the place of brax's


def make_speed(
    body: str, *, n: int = 100, seed: int = 0, backend: str = "auto", model: str = "brax", episode_length: int = 1000
) -> tuple[Env, Population]:
    """The target-speed task of a body and its n agents.

    Args:
        body: a name in `BODIES`.
        n: number of agents. Targets (n,) float32 in m/s are `numpy.random.RandomState(seed).uniform(low, high, n)`,
            the stream that numpy keeps for ever and that the authors' runs drew from.
        seed: of the targets.
        backend: a name in `BACKENDS`, or "auto": native where JAX runs on a CPU, mjx elsewhere. `env.spec.backend` says
            which; spring, positional and generalized are other tasks than the first three and results have to say so.
        model: "brax", the XML of brax's bodies, or "gymnasium", that of Gymnasium's v5 environments, which has to be installed;
            by backend native, and a task of its own. See `rmdp_jax.envs.gymnasium_models`.
        episode_length: steps; returns are in 0..`episode_length`/10 and `spec.reference_scale` brings them to 0..100.

    Returns:
        `Env` with outcomes `Outcome`, and `Population` with the bound of `speed_upper_bound`, where it was measured the
        estimate of `speed_reachable`, and k equal-width bands of target speed as oracle groups.

    Raises:
        ConfigError: unknown `body`, `backend` or `model`, Gymnasium is not installed or its model asked of a `backend` that has
            none, or `n`, `seed` or `episode_length` break their rule.
    """
    known_name("body", body, BODIES)
    known_name("backend", backend, {**BACKENDS, "auto": None})
    if backend == "auto":
        backend = "native" if jax.default_backend() == "cpu" else "mjx"
    n, seed = whole_number("n", n, 1, LARGEST_N), seed_number("seed", seed)
    episode_length = whole_number("episode_length", episode_length)
    known_name("model", model, MODELS)
    check("model", model, model == "brax" or backend == "native", f"brax with backend {backend}; others take backend native")
    env = _make_env(body, backend, model, episode_length)
    as_measured = backend in SAME_MDP and model == "brax" and episode_length >= 1000  # from rest, which counts in short ones
    held = held_speeds(f"{body}_speed") if as_measured else None
    return env, make_population(BODIES[body], n, seed, episode_length, held)


def load_body(body: str, backend: str, model: str = "brax") -> Any:
    """The brax env of a body in `BODIES`, with this task's costs and health rules, on a backend in `BACKENDS`."""
    adapter = import_module("rmdp_jax.envs.brax_adapter")  # here, as brax takes seconds to import
    known, other = BODIES[body], MODELS[model]
    with adapter.quiet():
        cls = getattr(import_module(f"brax.envs.{known.module}"), known.cls)

        def build(**options: Any) -> Any:
            env = cls(**known.options, **options)
            return env if other is None else import_module(f"rmdp_jax.envs.{other}").with_model(env, body)

        return BACKENDS[backend].build(build)


def is_body(spec: EnvSpec) -> bool:
    """Whether this is a speed task of `make`, not one of a user's own under such a name."""
    return spec.name in TASKS and spec.make is None and "n" in spec.options


def may_fall(spec: EnvSpec) -> bool:
    """Whether this is a body whose episodes end when it falls."""
    return is_body(spec) and BODIES[spec.name.removesuffix("_speed")].falls


def body_of(spec: EnvSpec) -> Any:
    """The brax env behind an env that `is_body`."""
    return load_body(spec.name.removesuffix("_speed"), spec.backend, spec.options.get("model", "brax"))


@cache  # pictures and resumed runs have it anew; loading and tracing a body takes long
def _make_env(body: str, backend: str, model: str, episode_length: int) -> Env:
    adapter = import_module("rmdp_jax.envs.brax_adapter")
    brax_env = load_body(body, backend, model)
    seconds = float(brax_env.dt)

    def outcome(before: Any, after: Any) -> Outcome:
        # q[0] is the torso's forward coordinate in every body. Not `x_velocity` of brax, whose poses lag q in some
        # pipelines; see native.py.
        return Outcome((after.pipeline_state.q[0] - before.pipeline_state.q[0]) / seconds)

    return adapter.from_brax(
        brax_env,
        outcome,
        name=f"{body}_speed",
        episode_length=episode_length,
        discount=0.99,
        backend=backend,
        reference_scale=100.0 / (REWARD_PER_STEP * episode_length),
        segment_length=SEGMENT,
        shortest_episode=4 if BODIES[body].falls else episode_length,  # random actions fall after 3 steps at the earliest
    )


def half_width_of(body: Body) -> float:
    """How far from its target a speed of this body is still paid, m/s."""
    return (body.high - body.low) / 20.0


def pay(speed: Array, target: Array, half_width: Array | float) -> Array:
    """The reward of a step at `speed` for an agent that wants `target`, all in m/s."""
    return REWARD_PER_STEP * jnp.clip(1.0 - jnp.abs(speed - target) / half_width, 0.0, 1.0)


def make_population(body: Body, n: int, seed: int, episode_length: int = 1000, held: Held | None = None) -> Population:
    """The n agents of a body, with what is known about their task and what policies alone have `held`; see `make_speed`."""
    half_width, best_return = half_width_of(body), REWARD_PER_STEP * episode_length
    targets = np.random.RandomState(seed).uniform(body.low, body.high, n).astype(np.float32)

    def reward(target: Array, outcome: Outcome) -> Array:
        return pay(outcome.speed, target, half_width)

    @cache
    def bound_of(k: int) -> float:
        return speed_upper_bound(targets, half_width, k) * best_return / 100.0

    @cache
    def reachable_of(k: int) -> float | None:
        return None if held is None else reachable_welfare(held, targets, k) * best_return / 100.0

    def oracle_groups(k: int) -> np.ndarray:
        k = whole_number("k", k)
        bands = np.floor((targets - body.low) / (body.high - body.low) * k)
        return np.clip(bands, 0, k - 1).astype(np.int32)

    return Population(
        jnp.asarray(targets),
        reward,
        upper_bound=lambda k: bound_of(whole_number("k", k)),
        oracle_groups=oracle_groups,
        reachable=lambda k: reachable_of(whole_number("k", k)),
        best_return=lambda agents: np.full(np.shape(agents), best_return),  # their own speed, held without a ripple
        columns=(Column("target_speed", help="m/s"),),
    )
