"""How many agents a policy may serve: limits as people give them, and as an E-step holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from rmdp_jax.errors import ConfigError, shown

SLACK = 1e-9  # relative, of sums of weights

PerPolicy = float | Sequence[float] | np.ndarray


class Limits(NamedTuple):
    """How many agents a policy serves, or how much weight where they have weights; one number for all, or k."""

    at_most: PerPolicy | None = None
    at_least: PerPolicy | None = None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Loads:
    """Limits of each policy in whole agents, which some assignment holds; made by `loads_of`."""

    at_least: tuple[int, ...]  # k
    at_most: tuple[int, ...]  # k


def loads_of(limits: Limits, k: int, n: int, frozen: int = 0) -> Loads:
    """Limits of k policies for n agents, with an agent at least for each policy but the first `frozen`, as all others learn.

    Raises:
        ConfigError: a limit breaks its rule, or no assignment holds them.
    """
    low, high = bounds_of(limits, k)
    low, high = np.ceil(low - SLACK), np.floor(np.minimum(high, n) + SLACK)
    learns = np.arange(k) >= frozen
    for j in np.flatnonzero((high < 1) & learns):
        raise ConfigError(f"at_most = {high[j]:g} for policy {j}: must be at least 1, as a policy for nobody learns nothing")
    low = np.maximum(low, learns)
    check_room(low, high, float(n), "agents")
    return Loads(*(tuple(int(limit) for limit in bound) for bound in (low, high)))


def bounds_of(limits: Limits | Loads, k: int) -> tuple[np.ndarray, np.ndarray]:
    """At least and at most of each policy, (k,) float64; 0 and infinity where nothing is said. ConfigError of what is none."""
    return _per_policy("at_least", limits.at_least, k, 0.0), _per_policy("at_most", limits.at_most, k, np.inf)


def _per_policy(name: str, limit: PerPolicy | None, k: int, none: float) -> np.ndarray:
    if limit is None:
        return np.full(k, none)
    try:
        values = np.asarray(limit, np.float64)
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if values.shape not in ((), (1,), (k,)) or not (values >= 0).all():
        raise ConfigError(f"{name} = {shown(limit)}: must be a number from 0 up, or k = {k} of them")
    return np.broadcast_to(values, k).astype(np.float64)


def check_room(low: np.ndarray, high: np.ndarray, total: float, what: str) -> None:
    """Raise `ConfigError` where sums show that nobody can hold the limits; `what` they count: agents, or "of weight"."""
    k = len(low)
    for j in np.flatnonzero(low > high):
        raise ConfigError(
            f"at_least = {low[j]:g}, at_most = {high[j]:g} for policy {j}: at_least must not be more {what} than at_most"
        )
    if high.sum() < total * (1 - SLACK):
        raise ConfigError(
            f"at_most: the {k} policies have room for {high.sum():g} {what} together, and there are {total:g}; "
            f"give at least {np.ceil(total / k):g} each"
        )
    if low.sum() > total * (1 + SLACK):
        raise ConfigError(
            f"at_least: the {k} policies ask for {low.sum():g} {what} together, and there are {total:g}; "
            f"give at most {np.floor(total / k):g} each"
        )
