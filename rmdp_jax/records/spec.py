"""What one run is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.assigners.base import Assigner, Given
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Population

Sink = Callable[[dict[str, Any]], None]  # called with every line of metrics


class Source(NamedTuple):
    """A policy of a finished run that another run is given."""

    run: str  # its folder
    policy: int
    sha256: str  # of what acts: parameters and statistics of observations; see `rmdp_jax.records.given`


class GivenPolicies(NamedTuple):
    """The policies that a run is given, the first of its k in this order."""

    frozen: tuple[Source, ...] = ()  # stay as they are
    start: tuple[Source, ...] = ()  # go on learning

    @property
    def sources(self) -> tuple[Source, ...]:
        """All of them."""
        return self.frozen + self.start

    @property
    def given(self) -> Given:
        """How many they are."""
        return Given(len(self.frozen), len(self.sources))


class RunSpec(NamedTuple):
    """One run: whom it is for, its settings, its algorithm, and where it goes."""

    population: Population
    config: TrainConfig
    assigner: Assigner
    out: str | Path | None = None  # its folder; nothing is written when not given
    on_metrics: Sink | None = None  # called with every logged line
    given: GivenPolicies = GivenPolicies()  # policies of other runs; see `rmdp_jax.records.given.given_policies`
    log: tuple[str, ...] = ()  # names of `rmdp_jax.records.sinks.SINKS`
    env_options: Mapping[str, Any] | None = None  # what made env and population, if not `env.spec.options` (other agents)
