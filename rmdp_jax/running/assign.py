"""`assign`: who of a finished run's policies serves people that it was not trained for, without simulation."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.env import Population
from rmdp_jax.errors import ConfigError, shown
from rmdp_jax.evaluation.episodes import Episodes, score_episodes
from rmdp_jax.evaluation.fairness import served_above
from rmdp_jax.limits import Limits, assign_within, check_weights
from rmdp_jax.programs import kept_program
from rmdp_jax.records.agents_csv import agent_leaves, check_values
from rmdp_jax.types import PyTree
from rmdp_jax.welfare import make_welfare

if TYPE_CHECKING:
    from rmdp_jax.records.loading import Run

BLOCK = 4096  # agents that are scored at once


class Assigned(NamedTuple):
    """Who serves m agents, and what they can expect; returns in reference units, 0..100."""

    policy: np.ndarray  # (m,) int32
    expected: np.ndarray  # (m,) mean return by that policy in the kept episodes
    low: np.ndarray | None  # (m,) ends of its 95% interval over episodes; None of one episode
    high: np.ndarray | None
    margin: np.ndarray | None  # (m,) over the best of the other policies, below 0 where limits had it so; None where k = 1
    to_bound: np.ndarray | None  # (m,) what is missing to the best return of an agent alone; None where that is not known
    unserved: np.ndarray | None  # (m,) bool, returns of at most `unserved_below`; None where that is not known
    utility: np.ndarray  # (k, m)
    unserved_below: float | None  # a tenth of the best return of any agent of the run; see `served_above`
    episodes: int  # of each policy
    deterministic: bool = False  # whether they acted by the most likely actions, not as in training


@plain_settings()
def assign(run: "Run", agents: PyTree, *, limits: Limits | None = None, weights: ArrayLike | None = None) -> Assigned:
    """Score agents on the episodes that a run kept, and give each a policy: the best for it, or the best within limits.

    The utility is what `evaluate` would say of these agents on the same episodes, up to the last digit, as sums are in another
    order. The interval is Student's t over episodes, of one agent and its policy by themselves: that the policy was chosen by
    the same episodes is not in it, which matters where policies are nearly alike. Takes k m numbers, and k e times the steps of
    an episode times m additions.

    Args:
        run: of `rmdp_jax.load_run`.
        agents: leaves (m, ...), of the structure and shapes of `run.population.agents`.
        limits: how many agents, or how much weight, each policy serves; none when not given.
        weights: (m,) above 0, for the limits; 1 each when not given.

    Raises:
        ConfigError: the run kept no episodes, agents are of another kind, no assignment holds the limits, or the task's
            knowledge about them is no numbers.
    """
    from rmdp_jax.records.loading import load_episodes  # orbax takes half a second to import

    kept = load_episodes(run)
    episodes = jax.tree.map(jnp.asarray, kept.episodes)
    agents = _checked(run.population, agents)
    m, scale = _rows(agents), run.env.spec.reference_scale
    check_weights(weights, m)
    mean, deviation = _mean_and_deviation(run.population, episodes, agents)
    utility = scale * mean
    if limits is None:
        labels = utility.argmax(0).astype(np.int32)
    else:  # by what returns are worth, as where training ends
        worth = make_welfare(run.config.welfare_p, 0.01).worth(jnp.asarray(utility), None)
        labels = assign_within(worth, limits, weights)
    expected = utility[labels, np.arange(m)]
    width = None if deviation is None else _half_width(abs(scale) * deviation[labels, np.arange(m)], episodes.number)
    best = known_returns(run.population, agents)
    own = np.asarray(run.result["utility"], float)[np.asarray(run.result["assignment"]), np.arange(run.config.n)]
    threshold = served_above(float(own.max()))
    return Assigned(
        policy=labels,
        expected=expected,
        low=None if width is None else expected - width,
        high=None if width is None else expected + width,
        margin=_margin(utility, labels),
        to_bound=None if best is None else scale * best - expected,
        unserved=None if threshold is None else expected <= threshold,
        utility=utility,
        unserved_below=threshold,
        episodes=episodes.number,
        deterministic=kept.deterministic,
    )


def _mean_and_deviation(population: Population, episodes: Episodes, agents: PyTree) -> tuple[np.ndarray, np.ndarray | None]:
    """Of the returns of every agent by every policy over episodes, (k, m) each; no deviation of one episode."""

    def score(episodes: Episodes, some: PyTree) -> tuple[jax.Array, jax.Array | None]:
        returns = score_episodes(alike, episodes, some)
        return returns.mean(1), jnp.std(returns, 1, ddof=1) if episodes.number > 1 else None

    alike = population._replace(agents=None, weights=None)  # whoever they are
    compiled = kept_program("scores", population.reward, lambda: jax.jit(score))
    scored = [jax.device_get(compiled(episodes, some)) for some, _ in blocks(agents)]
    return jax.tree.map(lambda *x: np.concatenate(x, 1)[:, : _rows(agents)], *scored)  # type: ignore[no-any-return]


def _half_width(deviation: np.ndarray, episodes: int) -> np.ndarray:
    from rmdp_jax.evaluation.statistics import half_width  # scipy takes long to import

    return half_width(deviation.astype(float), episodes)


def blocks(agents: PyTree) -> Iterator[tuple[PyTree, int]]:
    """Blocks of at most `BLOCK` agents of one size, and how many of each count: the last is filled up with its first agent."""
    number = _rows(agents)
    size = min(BLOCK, 1 << (number - 1).bit_length())  # few sizes, so that groups of any size share a program
    for begin in range(0, number, size):
        rows = np.arange(begin, begin + size)
        yield jax.tree.map(lambda x, rows=rows, begin=begin: x[np.where(rows < number, rows, begin)], agents), number - begin


def _margin(utility: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    if len(utility) < 2:
        return None
    others = np.where(np.arange(len(utility))[:, None] == labels, -np.inf, utility)
    return utility[labels, np.arange(len(labels))] - others.max(0)


def _checked(population: Population, agents: PyTree) -> PyTree:
    """`agents` as numpy arrays of the population's dtypes, or ConfigError."""
    own = population.agents
    there, here = map(jax.tree.structure, (own, agents))
    if here != there:  # type: ignore[operator]  # of its stubs
        raise ConfigError(f"agents: have the structure {shown(here)}, must be as those of the run, {shown(there)}")
    checked = []
    for leaf, given in zip(agent_leaves(population), jax.tree.leaves(agents), strict=True):
        name, values = leaf.column.name, np.asarray(given)
        if values.ndim == 0 or values.shape[1:] != leaf.like.shape or not len(values) or values.dtype.kind not in "biufV":
            raise ConfigError(f"agents: {name} is {values.dtype} {values.shape}, must be numbers (m, *{leaf.like.shape})")
        flat = values.astype(np.float64).ravel()

        def fail(at: int, rule: str, name: str = name, flat: np.ndarray = flat, width: int = len(leaf.names)) -> ConfigError:
            return ConfigError(f"agents: {name} = {flat[at]:g} of agent {at // width}: must be {rule}")

        check_values(leaf, flat, fail)
        checked.append(values.astype(leaf.like.dtype))
    if len({len(values) for values in checked}) > 1:
        raise ConfigError(f"agents: the leaves have {sorted({len(x) for x in checked})} rows, must have one row an agent")
    return jax.tree.unflatten(jax.tree.structure(own), checked)


def _rows(agents: PyTree) -> int:
    return len(jax.tree.leaves(agents)[0])


def known_returns(population: Population, agents: PyTree) -> np.ndarray | None:
    """The best return of each of m agents alone, (m,) float64, in the units of the rewards; None where it is not known.

    Raises:
        ConfigError: `Population.best_return` gives something else.
    """
    best, m = population.best_return(agents), _rows(agents)
    if best is None:
        return None
    values = np.asarray(best, np.float64)
    if values.shape != (m,) or not np.isfinite(values).all():
        raise ConfigError(
            f"best_return: is of shape {values.shape}, must be ({m},) finite numbers, or None where it is not known"
        )
    return values
