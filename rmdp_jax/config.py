"""Settings: what fixes shapes (`Sizes`, static), what may be traced (`Rates`), and one run (`TrainConfig`).

All are frozen, keyword-only and checked when they are made; the error names the field, the value and the rule.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, get_args

import jax
import numpy as np

from rmdp_jax.errors import (
    INT32,
    MOST_ITERATIONS,
    POSITIVE,
    ConfigError,
    check,
    flag,
    instance_of,
    is_positive,
    number_between,
    one_of,
    real_number,
    seed_number,
    several,
    shown,
    whole_number,
)
from rmdp_jax.limits import Limits, bounds_of, check_order

# Beyond these a number is a slip of the pen, and would fail late or never: an iteration cannot be stopped half-way, groups of
# agents are made before the memory of a run is known, and more episodes do not make an evaluation any better.
LARGEST_N = 2**24  # up to which float32 counts
LARGEST_TRANSITIONS = 10**11  # of one policy
LARGEST_EPISODES = 10**6  # of an evaluation
LARGEST_EPOCHS = 1000
LARGEST_LAYER, MOST_LAYERS = 2**16, 100

Trunk = Literal["separate", "shared"]
Critic = Literal["mixed", "per_agent"]
Std = Literal["learned", "fixed"]
Explore = Literal["in_turn", "at_once", "apart"]


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
    trunk: Trunk = "separate"
    """A network for each policy, or one trunk with k heads."""
    critic: Critic = "mixed"
    """One value, of the policy's mixed reward, or n values, one for each agent."""
    std: Std = "learned"
    """Standard deviation of continuous actions: learned, or staying as it is at first."""
    log_std_init: float = -1.0
    """Logarithm of the standard deviation of continuous actions at first."""
    normalize_observations: bool = False
    """Whether each policy's observations are normalised by their running mean and deviation."""
    normalize_returns: bool = True
    """Whether rewards that policies learn from are divided by a running scale of returns, so that units do not matter."""
    explore: Explore = "in_turn"
    """`em` explores as one policy, from all environments in_turn, or at_once (quicker on a GPU); apart: it does not."""
    agents_exact: int = 4096
    """Agents up to which every agent is scored at every step; beyond it rewards and utilities are estimated from samples."""
    utility_steps: int = 64
    """Steps drawn from each policy's unroll, and from each episode of an evaluation, to estimate utilities of more agents."""

    def __post_init__(self) -> None:
        for name in ("environments", "unroll", "minibatches", "agents_exact", "utility_steps"):
            _convert(self, name, whole_number)
        _convert(self, "epochs", partial(whole_number, high=LARGEST_EPOCHS))
        _convert(self, "hidden", _layers)
        for name, words in (("trunk", Trunk), ("std", Std), ("critic", Critic), ("explore", Explore)):
            _convert(self, name, partial(one_of, known=get_args(words)))
        _convert(self, "log_std_init", partial(number_between, low=-10, high=10))
        for name in ("normalize_observations", "normalize_returns"):
            _convert(self, name, flag)
        rule = f"at most {INT32:,} steps of one policy together with unroll = {self.unroll}"
        check("environments", self.environments, self.transitions <= INT32, rule)
        rule = f"a divisor of environments * unroll = {self.transitions}"
        check("minibatches", self.minibatches, self.transitions % self.minibatches == 0, rule)
        # advantages are standardised within a minibatch, which leaves nothing of a single one
        rule = f"at most half of environments * unroll = {self.transitions}, two transitions to a minibatch"
        check("minibatches", self.minibatches, 2 * self.minibatches <= self.transitions, rule)

    @property
    def transitions(self) -> int:
        """Transitions of one policy in one iteration, E * T."""
        return self.environments * self.unroll

    @property
    def explores(self) -> bool:
        """Whether all policies can be one at first; a shared trunk is one already."""
        return self.trunk == "separate" and self.explore != "apart"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Numbers that may be traced: a sweep over them compiles once.

    Pairs (start, end) are schedules: geometric from start to end, or linear where one of the two is 0, which no ratio leads to.
    Numbers that are known are checked; those that are traced cannot be. A JAX array may hold several values, one for each run
    of a `vmap` over `Trainer.init(key, rates)`.
    """

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
        _convert(self, "learning_rate", _schedule)
        still = all(isinstance(end, float) and end == 0.0 for end in self.learning_rate)
        check("learning_rate", self.learning_rate, not still, "above 0 at one end at least, or nothing would be learned")
        _convert(self, "entropy", _schedule)
        for name in ("clip", "max_gradient_norm", "max_kl", "adam_epsilon", "observation_clip", "reward_scaling"):
            _convert(self, name, partial(_rate, holds=is_positive, rule=POSITIVE))
        for name in ("gae_lambda", "utility_decay", "discount"):
            if name != "discount" or self.discount is not None:
                _convert(self, name, partial(_rate, holds=lambda x: 0 <= x <= 1, rule="a number from 0 to 1"))
        _convert(self, "utility_decay", partial(_rate, holds=lambda x: x < 1, rule="below 1"))
        _convert(self, "value_weight", partial(_rate, holds=lambda x: 0 <= x <= 1e30, rule="a number from 0 up"))


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
    welfare_p: float = 1.0
    """Welfare is the p-mean of returns: 1 their mean (utilitarian), 0 their geometric mean (Nash), -inf the least of them."""
    at_most: tuple[float, ...] | None = None
    """Agents that a policy serves at most, or weight where they have weights: one number for all, or k."""
    at_least: tuple[float, ...] | None = None
    """Agents that a policy serves at least, or weight: one number for all, or k."""
    max_fault_share: float = 0.5
    """Share of the steps between two lines of metrics in which physics may diverge, or an agent's reward not be finite."""
    sizes: Sizes = field(default_factory=Sizes)
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        for name, high in (
            ("k", LARGEST_N),
            ("n", LARGEST_N),
            ("transitions", LARGEST_TRANSITIONS),
            ("log_every", MOST_ITERATIONS),
            ("evaluation_episodes", LARGEST_EPISODES),
            ("evaluation_steps", INT32),
        ):
            _convert(self, name, partial(whole_number, high=high))
        check("k", self.k, self.k <= self.n, f"at most n = {self.n}, one policy per agent")
        _convert(self, "checkpoint_every", partial(whole_number, low=0, high=MOST_ITERATIONS))
        _convert(self, "max_fault_share", partial(number_between, low=0, high=1))
        _convert(
            self,
            "welfare_p",
            partial(real_number, holds=_is_exponent, rule="a number up to 1, or -inf, and 0 or at least 0.001 away from 0"),
        )
        _convert(self, "seed", seed_number)
        for name in ("at_most", "at_least"):
            _convert(self, name, _per_policy)
        if self.limits is not None:
            check_order(*bounds_of(self.limits, self.k))  # whether there is room is known where the agents' weights are
        instance_of("sizes", self.sizes, Sizes, "a Sizes(...)")
        instance_of("rates", self.rates, Rates, "a Rates(...)")
        for rate in jax.tree.leaves(self.rates):
            rule = "of one number each in a TrainConfig; for several runs give rates to Trainer.init, or to a RunSpec each"
            check("rates", f"array of shape {np.shape(rate)}", np.ndim(rate) == 0, rule)
        rule = f"at most {MOST_ITERATIONS:,} iterations of environments * unroll = {self.sizes.transitions}"
        check("transitions", self.transitions, self.iterations <= MOST_ITERATIONS, rule)
        between = min(self.log_every, self.iterations) * self.sizes.transitions
        rule = f"at most {INT32 // self.sizes.transitions:,}, so that the steps between two lines can be counted"
        check("log_every", self.log_every, between <= INT32, rule)
        rule = f"'mixed' above agents_exact = {self.sizes.agents_exact} agents (n = {self.n}); take that, or raise agents_exact"
        check("critic", repr(self.sizes.critic), self.sizes.critic == "mixed" or not self.estimated, rule)

    @property
    def limits(self) -> Limits | None:
        """How many agents each policy serves; None where nothing is said."""
        return None if self.at_most is None and self.at_least is None else Limits(self.at_most, self.at_least)

    @property
    def estimated(self) -> bool:
        """Whether there are so many agents that rewards and utilities are estimated; see `rmdp_jax.learning.scoring`."""
        return self.n > self.sizes.agents_exact

    @property
    def iterations(self) -> int:
        """Iterations that reach `transitions`."""
        return math.ceil(self.transitions / self.sizes.transitions)


def settings_of(config: TrainConfig, without: Iterable[str]) -> dict[str, Any]:
    """All settings of a config but some; of the rates which are given, as their values are arguments of programs."""
    known = {field_.name: getattr(config, field_.name) for field_ in fields(config) if field_.name not in without}
    return known | {"rates": jax.tree.structure(config.rates)}


def _convert(settings: Any, name: str, convert: Callable[[str, Any], Any]) -> None:
    """Put what `convert(name, value)` makes of a field in its place, or raise its ConfigError."""
    object.__setattr__(settings, name, convert(name, getattr(settings, name)))


def _is_exponent(p: float) -> bool:
    """Up to 1, and not so near 0 that float32 loses the root of a mean of p-th powers; 0 itself is the geometric mean."""
    return p <= 1.0 and (p == 0.0 or abs(p) >= 1e-3)


def _rate(name: str, value: Any, holds: Callable[[float], bool], rule: str) -> Any:
    """`value` as a float; as it is where it is traced, or an array of values for several runs."""
    if isinstance(value, jax.core.Tracer):
        return value
    if isinstance(value, jax.Array) and value.ndim:
        for number in np.asarray(value).ravel():
            real_number(name, number, holds, rule)
        return value
    return real_number(name, value, holds, rule)


def _per_policy(name: str, limit: Any) -> tuple[float, ...] | None:
    """None, or numbers of agents: one for all policies, or one each."""
    if limit is None:
        return None
    rule = "a number from 0 up, or one for each policy"
    numbers = several(limit) or (limit,)
    try:
        return tuple(real_number(name, number, lambda x: 0 <= x < math.inf, rule) for number in numbers)
    except ConfigError:
        raise ConfigError(f"{name} = {shown(limit)}: must be {rule}") from None


def _schedule(name: str, pair: Any) -> tuple[Any, Any]:
    """Two rates from 0 up."""
    rule = "two numbers from 0 up (start, end)"
    ends = several(pair)
    check(name, shown(pair), len(ends) == 2, rule)
    try:
        start, end = (_rate(name, value, lambda x: x == 0.0 or is_positive(x), rule) for value in ends)
    except ConfigError:
        raise ConfigError(f"{name} = {shown(pair)}: must be {rule}") from None
    return start, end


def _layers(name: str, hidden: Any) -> tuple[int, ...]:
    """Units of one layer or more."""
    rule = f"one or more layers of at least 1 unit, at most {MOST_LAYERS} layers of {LARGEST_LAYER:,}"
    units = several(hidden)
    check(name, shown(hidden), 0 < len(units) <= MOST_LAYERS, rule)
    try:
        return tuple(whole_number(name, size, 1, LARGEST_LAYER) for size in units)
    except ConfigError:
        raise ConfigError(f"{name} = {shown(hidden)}: must be {rule}") from None
