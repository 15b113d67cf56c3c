"""Five tiny tasks with known values (constant, observation, discount, action, both), each with n different rewards.

In the first three agent i is paid `i + 1` times what the task pays, whatever is done. In the last two an agent is paid 1 for
its own wish: the first half of the agents wishes for 0 and the second for 1, so a round-robin start mixes them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax import Env, EnvSpec, Population, Rates, Sizes, Step, TrainConfig
from rmdp_jax.types import Array, Key

DISCOUNT = 0.5
RATES = Rates(learning_rate=(1e-2, 1e-3), entropy=(1e-3, 1e-3))


class Probe(NamedTuple):
    """Numbers that make a probe; they may be traced, so that one compiled trainer learns all five."""

    noise: float  # the first observation is + or - this, equally likely
    length: int  # steps of an episode; each adds 1 to the observation
    base: float  # pay of the last step
    slope: float  # and its increase with the observation acted on
    acts: bool  # whether rewards look at actions instead of pay


PROBES = {
    "constant": Probe(noise=0.0, length=1, base=1.0, slope=0.0, acts=False),
    "observation": Probe(noise=1.0, length=1, base=0.0, slope=1.0, acts=False),
    "discount": Probe(noise=0.0, length=2, base=1.0, slope=0.0, acts=False),
    "action": Probe(noise=0.0, length=1, base=0.0, slope=0.0, acts=True),
    "both": Probe(noise=1.0, length=1, base=0.0, slope=0.0, acts=True),
}


class State(NamedTuple):
    obs: Array  # (1,) float32
    clock: Array  # () int32


class Outcome(NamedTuple):
    obs: Array  # () float32, acted on
    action: Array  # () int32
    pay: Array  # () float32


class Agent(NamedTuple):
    scale: Array  # () float32
    wish: Array  # () int32


def make_probe(probe: Probe, n: int) -> tuple[Env, Population]:
    """An env of one observation and two actions, and its n agents."""
    noise, length, base, slope, acts = (jnp.asarray(x) for x in probe)

    def reset(key: Key) -> tuple[State, Array]:
        state = State(noise * jax.random.rademacher(key, (1,), jnp.float32), jnp.int32(0))
        return state, state.obs

    def step(state: State, action: Array) -> tuple[State, Step]:
        after = State(state.obs + 1.0, state.clock + 1)
        terminated = after.clock >= length
        pay = jnp.where(terminated, base + slope * state.obs[0], 0.0)
        return after, Step(after.obs, Outcome(state.obs[0], action, pay), terminated, jnp.bool_(False))

    def reward(agent: Agent, outcome: Outcome) -> Array:
        """Wish 0 is for action 0; where the observation is above 0, wishes are for the other action."""
        granted = (outcome.action == agent.wish) ^ (outcome.obs > 0)
        return jnp.where(acts, granted.astype(jnp.float32), agent.scale * outcome.pay)

    agents = Agent(jnp.arange(1, n + 1, dtype=jnp.float32), (jnp.arange(n) >= n // 2).astype(jnp.int32))
    return Env(EnvSpec("probe", 1, 2, True, 3, DISCOUNT, 100.0, "jax"), reset, step), Population(agents, reward)


def probe_config(k: int, n: int, iterations: int, **sizes) -> TrainConfig:
    """A config that learns any probe in 300 iterations; `sizes` are fields of `Sizes`."""
    chosen = Sizes(**{"environments": 8, "unroll": 8, "epochs": 4, "minibatches": 2, "hidden": (16,), **sizes})
    return TrainConfig(k=k, n=n, transitions=iterations * chosen.transitions, sizes=chosen, rates=RATES)
