"""What one run is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.assigners.base import Assigner
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Population

Sink = Callable[[dict[str, Any]], None]  # called with every line of metrics


class RunSpec(NamedTuple):
    """One run: whom it is for, its settings, its algorithm, and where it goes."""

    population: Population
    config: TrainConfig
    assigner: Assigner
    out: str | Path | None = None  # its folder; nothing is written when not given
    on_metrics: Sink | None = None  # called with every logged line
    env_options: Mapping[str, Any] | None = None  # what made env and population, if not `env.spec.options` (other agents)
