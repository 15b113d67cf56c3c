"""Settings: what fixes shapes (`Sizes`, static), what may be traced (`Rates`), and one run (`TrainConfig`).

All are frozen, keyword-only and checked when they are made; the error names the field, the value and the rule.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal

import jax

from rmdp_jax.errors import check


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What fixes shapes and loops; a change compiles anew."""

    environments: int = 64
    """Parallel environments of each policy (E)."""
    unroll: int = 32
    """Steps of each environment in one iteration (T)."""
    epochs: int = 10
    """Passes over the transitions of one iteration."""
    minibatches: int = 8
    """Minibatches of one epoch; must divide environments * unroll."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the tanh layers of actor and critic."""
    trunk: Literal["separate", "shared"] = "separate"
    """A network for each policy, or one trunk with k heads."""
    critic: Literal["mixed", "per_agent"] = "mixed"
    """One value, of the policy's mixed reward, or n values, one for each agent."""
    std: Literal["learned", "fixed"] = "learned"
    """Standard deviation of continuous actions: learned, or staying as it is at first."""
    log_std_init: float = -1.0
    """Logarithm of the standard deviation of continuous actions at first."""
    normalize_observations: bool = False
    """Subtract the running mean and divide by the running deviation of what each policy sees."""
    normalize_returns: bool = True
    """Divide the rewards that policies learn from by a running scale of returns, so that the agents' units do not matter."""
    agents_exact: int = 4096
    """Agents up to which every agent is scored at every step; beyond it rewards and utilities are estimated from samples."""
    utility_steps: int = 64
    """Steps drawn from each policy's unroll, and from each episode of an evaluation, to estimate utilities of more agents."""

    def __post_init__(self) -> None:
        for name in ("environments", "unroll", "epochs", "minibatches", "agents_exact", "utility_steps"):
            check(name, getattr(self, name), _is_count(getattr(self, name)), "a whole number of at least 1")
        check("normalize_returns", self.normalize_returns, isinstance(self.normalize_returns, bool), "true or false")
        check("hidden", self.hidden, _are_layers(self.hidden), "one or more layers of at least 1 unit")
        check("trunk", repr(self.trunk), self.trunk in ("separate", "shared"), "'separate' or 'shared'")
        check("std", repr(self.std), self.std in ("learned", "fixed"), "'learned' or 'fixed'")
        check("critic", repr(self.critic), self.critic in ("mixed", "per_agent"), "'mixed' or 'per_agent'")
        check("log_std_init", self.log_std_init, _is_between(self.log_std_init, -10, 10), "a number from -10 to 10")
        rule = f"a divisor of environments * unroll = {self.transitions}"
        check("minibatches", self.minibatches, self.transitions % self.minibatches == 0, rule)
        # advantages are standardised within a minibatch, which leaves nothing of a single one
        rule = f"at most half of environments * unroll = {self.transitions}, two transitions to a minibatch"
        check("minibatches", self.minibatches, 2 * self.minibatches <= self.transitions, rule)

    @property
    def transitions(self) -> int:
        """Transitions of one policy in one iteration, E * T."""
        return self.environments * self.unroll


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Numbers that may be traced: a sweep over them compiles once. Pairs (start, end) are geometric schedules."""

    learning_rate: tuple[float, float] = (5e-4, 1e-4)
    """Step size of Adam, at the start and at the end of training."""
    entropy: tuple[float, float] = (5e-2, 1e-3)
    """Weight of the entropy bonus, at the start and at the end of training."""
    discount: float | None = None
    """Gamma; the task's own when not given."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    reward_scaling: float = 1.0
    """Factor of the (normalised) rewards that policies learn from."""
    clip: float = 0.2
    """Largest change of the probability ratio that PPO rewards."""
    value_weight: float = 0.5
    """Weight of the critic's loss, which is half of the mean square error."""
    max_gradient_norm: float = 0.5
    """Gradients of one policy are scaled down to this norm."""
    max_kl: float = 0.05
    """A policy stops its epochs when the moving average of its KL from the behaviour policy passes this."""
    adam_epsilon: float = 1e-5
    """Epsilon of Adam."""
    observation_clip: float = 5.0
    """Normalised observations are clipped to this size."""
    utility_decay: float = 0.95
    """Weight that older iterations keep in the running utilities."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "entropy"):
            pair = getattr(self, name)
            holds = isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_positive, pair))
            check(name, pair, holds, "two positive numbers (start, end)")
        for name in ("clip", "max_gradient_norm", "max_kl", "adam_epsilon", "observation_clip", "reward_scaling"):
            check(name, getattr(self, name), _is_positive(getattr(self, name)), "a positive number")
        for name in ("gae_lambda", "utility_decay"):
            check(name, getattr(self, name), _is_between(getattr(self, name), 0, 1), "a number from 0 to 1")
        check("discount", self.discount, self.discount is None or _is_between(self.discount, 0, 1), "a number from 0 to 1")
        check("value_weight", self.value_weight, _is_between(self.value_weight, 0, 1e30), "a number from 0 up")
        check(
            "utility_decay", self.utility_decay, isinstance(self.utility_decay, jax.Array) or self.utility_decay < 1, "below 1"
        )


def _rates_from(_: None, values: Iterable[Any]) -> Rates:
    """Rates as JAX rebuilds them: unchecked, as it puts placeholders into pytrees."""
    rates = object.__new__(Rates)
    for field_, value in zip(fields(Rates), values, strict=True):
        object.__setattr__(rates, field_.name, value)
    return rates


jax.tree_util.register_pytree_with_keys(
    Rates,
    lambda rates: ([(jax.tree_util.GetAttrKey(f.name), getattr(rates, f.name)) for f in fields(Rates)], None),
    _rates_from,
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run: how many policies for how many agents, for how long, with which sizes and rates."""

    k: int = 5
    """Policies."""
    n: int = 25
    """Agents, the people with a reward function each."""
    seed: int = 0
    """Seed of everything random."""
    transitions: int = 1_000_000
    """Environment steps of each policy; rounded up to whole iterations."""
    log_every: int = 10
    """Iterations between two lines of metrics, run as one compiled loop."""
    checkpoint_every: int = 100
    """Iterations between two checkpoints, rounded up to a multiple of log_every; 0 keeps the last state only."""
    evaluation_episodes: int = 64
    """Fresh episodes of each policy by which the result is evaluated."""
    evaluation_steps: int = 100_000
    """Steps of an episode after which evaluation stops; result.json says so where it does."""
    max_fault_share: float = 0.5
    """Share of the steps between two lines of metrics in which physics may diverge, or an agent's reward not be finite."""
    sizes: Sizes = field(default_factory=Sizes)
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        for name in ("k", "n", "transitions", "log_every", "evaluation_episodes", "evaluation_steps"):
            check(name, getattr(self, name), _is_count(getattr(self, name)), "a whole number of at least 1")
        check("k", self.k, self.k <= self.n, f"at most n = {self.n}, one policy per agent")
        check("checkpoint_every", self.checkpoint_every, _is_count(self.checkpoint_every + 1), "a whole number from 0 up")
        check("max_fault_share", self.max_fault_share, _is_between(self.max_fault_share, 0, 1), "a share, from 0 to 1")
        check("seed", self.seed, _is_count(self.seed + 1, 2**32), "a whole number from 0 to 2^32 - 1")
        rule = f"'mixed' above agents_exact = {self.sizes.agents_exact} agents (n = {self.n}); take that, or raise agents_exact"
        check("critic", repr(self.sizes.critic), self.sizes.critic == "mixed" or not self.estimated, rule)

    @property
    def estimated(self) -> bool:
        """Whether there are so many agents that rewards and utilities are estimated; see `rmdp_jax.learning.scoring`."""
        return self.n > self.sizes.agents_exact

    @property
    def iterations(self) -> int:
        """Iterations that reach `transitions`."""
        return math.ceil(self.transitions / self.sizes.transitions)


def _is_positive(value: Any) -> bool:
    """True of positive finite numbers, and of arrays, traced ones too, which nobody looks into."""
    return isinstance(value, jax.Array) or (_is_number(value) and 0 < value < math.inf)


def _is_between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, jax.Array) or (_is_number(value) and low <= value <= high)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: Any, largest: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


def _are_layers(hidden: Any) -> bool:
    return isinstance(hidden, tuple) and len(hidden) > 0 and all(map(_is_count, hidden))
