"""Five tiny tasks with known values (constant, observation, discount, action, both), each with n different rewards.

Agent i of the first three is paid `i + 1` times what the task pays; of the last two it is paid 1 for its own wish, 0 or 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax import Env, EnvSpec, Population, Rates, Sizes, Step, TrainConfig
from rmdp_jax.types import Array, Key

SIZES = Sizes(environments=8, unroll=8, epochs=4, minibatches=2, hidden=(16,))
RATES = Rates(learning_rate=(1e-2, 1e-3), entropy=(1e-3, 1e-3))


class State(NamedTuple):
    """What the walker sees (1,), and how many steps it has made ()."""

    obs: Array
    clock: Array


class Outcome(NamedTuple):
    """What was seen (), done () and paid () in a step."""

    obs: Array
    action: Array
    pay: Array


def probe(name: str, *, discount: float, length: int, obs: Callable[[Key], Array], pay: Callable[[State], Array]) -> Env:
    """An env whose episodes end after `length` steps; the clock is seen on top of `obs`."""

    def reset(key: Key) -> tuple[State, Array]:
        state = State(obs(key)[None], jnp.int32(0))
        return state, state.obs

    def step(state: State, action: Array) -> tuple[State, Step]:
        after = State(state.obs + 1.0, state.clock + 1)
        outcome = Outcome(state.obs[0], action, pay(state))
        return after, Step(after.obs, outcome, after.clock >= length, jnp.bool_(False))

    spec = EnvSpec(name, 1, 2, True, length + 1, discount, 100.0, "jax")
    return Env(spec, reset, step)


def _zero(key: Key) -> Array:
    return jnp.float32(0)


def _sign(key: Key) -> Array:
    return jax.random.rademacher(key, (), jnp.float32)


def _wished_action(wish: Array, outcome: Outcome) -> Array:
    return (outcome.action == wish).astype(jnp.float32)


def _wished_answer(wish: Array, outcome: Outcome) -> Array:
    """Wish 0 is paid for action 0 on -1 and action 1 on +1, wish 1 for the contrary."""
    return ((outcome.action == wish) ^ (outcome.obs > 0)).astype(jnp.float32)


def _scaled(n: int) -> Population:
    return Population(jnp.arange(1, n + 1, dtype=jnp.float32), lambda scale, outcome: scale * outcome.pay)


def _wishing(reward: Callable[[Array, Outcome], Array]) -> Callable[[int], Population]:
    """The first half of the agents wishes 0, the second 1: a round-robin start gives every policy some of both."""
    return lambda n: Population((jnp.arange(n, dtype=jnp.int32) >= n // 2).astype(jnp.int32), reward)


_ONE = {"discount": 0.9, "length": 1, "pay": lambda state: jnp.float32(1)}
_PROBES = {
    "constant": (probe("constant", obs=_zero, **_ONE), _scaled),
    "observation": (probe("observation", obs=_sign, **{**_ONE, "pay": lambda state: state.obs[0]}), _scaled),
    "discount": (
        probe("discount", discount=0.5, length=2, obs=_zero, pay=lambda state: (state.clock == 1).astype(jnp.float32)),
        _scaled,
    ),
    "action": (probe("action", obs=_zero, **_ONE), _wishing(_wished_action)),
    "both": (probe("both", obs=_sign, **_ONE), _wishing(_wished_answer)),
}
PROBES = tuple(_PROBES)


def make_probe(name: str, n: int) -> tuple[Env, Population]:
    """The probe `name` and its n agents."""
    env, population = _PROBES[name]
    return env, population(n)


def probe_config(k: int, n: int, iterations: int, **sizes) -> TrainConfig:
    """A config that learns a probe in `iterations`; `sizes` change fields of `SIZES`."""
    chosen = Sizes(**{**vars(SIZES), **sizes})
    return TrainConfig(k=k, n=n, transitions=iterations * chosen.transitions, sizes=chosen, rates=RATES)
