"""Whom policies serve, and how sure that is: for each agent its return, the second best policy, and the margin."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rmdp_jax.dossier.figures import number, numbers
from rmdp_jax.dossier.scores import Scores
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.fairness import served_above
from rmdp_jax.records.agents_csv import Table, columns_of, read_agents
from rmdp_jax.records.folder import LARGEST_LISTED
from rmdp_jax.records.loading import Run
from rmdp_jax.running.assign import known_returns

# What the interval of a margin says: above 0, about 0, below 0. The last by an interval for all k - 1 margins at once, as the
# second policy is the best of the others in the same episodes: the best of several is above its own mean more often than not.
SURE, OPEN, BETTER = "sure", "open", "better elsewhere"


class Served(NamedTuple):
    """Figures of each of the n agents, returns in reference units (0..100)."""

    expected: np.ndarray  # (n,) mean return by its policy
    width: np.ndarray | None  # (n,) half of its 95% interval
    second: np.ndarray | None  # (n,) the best of the other policies; None where k = 1
    margin: np.ndarray | None  # (n,) over that
    margin_width: np.ndarray | None  # (n,) half of its 95% interval
    verdict: np.ndarray | None  # (n,) `SURE`, `OPEN` or `BETTER`
    unserved: np.ndarray | None  # (n,) bool
    unserved_below: float | None


def serve(run: Run, scores: Scores) -> Served:
    """Compare each agent's policy with the best of the others, in the kept episodes."""
    labels, agents = run.assignment, np.arange(run.config.n)
    expected = scores.utility[labels, agents]
    threshold = served_above(float(expected.max()))
    unserved = None if threshold is None else expected <= threshold
    if run.config.k == 1:
        return Served(expected, scores.interval(labels), None, None, None, None, unserved, threshold)
    others = np.where(np.arange(run.config.k)[:, None] == labels, -np.inf, scores.utility)
    second = others.argmax(0)
    margin, width = expected - others.max(0), scores.interval_of_margin(labels, second)
    of_all = scores.interval_of_margin(labels, second, run.config.k - 1)
    verdict = None
    if width is not None and of_all is not None:
        verdict = np.select([margin - width > 0, margin + of_all < 0], [SURE, BETTER], OPEN)
    return Served(expected, scores.interval(labels), second, margin, width, verdict, unserved, threshold)


def describe_people(run: Run, served: Served, table: Table | None) -> dict[str, Any]:
    """The table of agents as columns; figures are left out (null) where they are not known, all of more than 10,000 agents."""
    if run.config.n > LARGEST_LISTED:
        return {"listed": False, "columns": {}, **dict.fromkeys(_NAMES)}
    columns = {
        name: numbers(values.reshape(run.config.n, -1)[:, i])
        for leaf, values in columns_of(run.population)
        for i, name in enumerate(leaf.names)
    }
    best = known_returns(run.population, run.population.agents)
    scale, ends = run.env.spec.reference_scale, (served.width, served.margin_width)
    low, margin_low = (None if w is None else x - w for x, w in zip((served.expected, served.margin), ends, strict=True))
    high, margin_high = (None if w is None else x + w for x, w in zip((served.expected, served.margin), ends, strict=True))
    weights = run.population.weights
    found = {
        "id": None if table is None or "id" not in table.header else [row[table.header.index("id")] for row in table.rows],
        "group": None if table is None or table.groups is None else table.groups.tolist(),
        "weight": numbers(None if weights is None else np.asarray(weights)),
        "policy": run.assignment.tolist(),
        "return": numbers(served.expected),
        "low": numbers(low),
        "high": numbers(high),
        "second": None if served.second is None else served.second.tolist(),
        "margin": numbers(served.margin),
        "margin_low": numbers(margin_low),
        "margin_high": numbers(margin_high),
        "verdict": None if served.verdict is None else served.verdict.tolist(),
        "to_bound": None if best is None else numbers(scale * best - served.expected),
        "unserved": None if served.unserved is None else served.unserved.tolist(),
    }
    return {"listed": True, "columns": columns, **{name: found[name] for name in _NAMES}}


_NAMES = (
    *("id", "group", "weight", "policy", "return", "low", "high", "second", "margin", "margin_low", "margin_high"),
    *("verdict", "to_bound", "unserved"),
)


def describe_wishes(run: Run, own: np.ndarray) -> list[dict[str, Any]]:
    """What the agents `own` (n,) bool are made of: least, mean and largest of each number; nothing of no agents."""
    wishes = []
    for leaf, values in columns_of(run.population) if own.any() else []:
        mine = values.reshape(run.config.n, -1)[own].astype(float)
        for i, name in enumerate(leaf.names):
            low, mean, high = mine[:, i].min(), mine[:, i].mean(), mine[:, i].max()
            wishes.append(
                {"name": name, "unit": leaf.column.help, "least": number(low), "mean": number(mean), "largest": number(high)}
            )
    return wishes


def read_own(path: Path, run: Run) -> Table:
    """A table of the run's own agents, a row each in their order, for their ids and groups; as `rmdp-jax assign` takes it.

    Raises:
        ConfigError: it cannot be read, or is of other agents.
    """
    table = read_agents(path, run.population)
    if len(table.rows) != run.config.n:
        raise ConfigError(
            f"people = {path}: has {len(table.rows):,} rows, must have one for each of the n = {run.config.n:,} agents"
        )
    for (leaf, values), given in zip(columns_of(run.population), map(np.asarray, jax.tree.leaves(table.agents)), strict=True):
        same = np.isclose(values.astype(float), given.astype(float), rtol=1e-4, atol=1e-6).reshape(run.config.n, -1).all(1)
        if not same.all():
            at = int(np.flatnonzero(~same)[0])
            raise ConfigError(
                f"people = {path}: row {at + 1}: {leaf.column.name} = {given[at]}: must be {values[at]}, as of agent {at}; "
                "give the run's own agents in their order"
            )
    return table
