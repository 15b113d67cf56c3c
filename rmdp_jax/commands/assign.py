"""``rmdp-jax assign``: which policy of a finished run serves people that it was not trained for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmdp_jax.commands.compiling import Compiling

if TYPE_CHECKING:
    from rmdp_jax.records.agents_csv import Table
    from rmdp_jax.running.assign import Assigned


@dataclass(frozen=True, kw_only=True)
class Assign(Compiling):
    """Give new people a policy of a trained run, without simulating anything."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run."""
    agents: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="AGENTS.csv")]
    """Table of people: names of columns in the first line, then a row each. Columns are what an agent of the task is
    (target_speed in m/s, or cell); id, weight and group as you like."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Write the table again with policy, expected_return, low and high (95 percent), margin, to_bound, unserved."""
    at_most: tuple[float, ...] | None = None
    """Agents that a policy serves at most, or weight where they have weights: one number for all, or k."""
    at_least: tuple[float, ...] | None = None
    """Agents that a policy serves at least, or weight: one number for all, or k."""
    json: bool = False
    """Print JSON, with a list of results up to 10,000 agents, instead of a table."""

    def run(self) -> None:
        """Read, score, assign, write, print."""
        from rmdp_jax.commands.tables import print_assigned
        from rmdp_jax.envs import make
        from rmdp_jax.errors import ConfigError
        from rmdp_jax.limits import Limits
        from rmdp_jax.paths import check_new_file, local_path
        from rmdp_jax.records.agents_csv import read_agents, write_table
        from rmdp_jax.records.files import to_json
        from rmdp_jax.records.folder import listed
        from rmdp_jax.records.loading import check_tells_of_all, load_run
        from rmdp_jax.running.assign import assign

        path = local_path("agents", self.agents)
        out = None if self.out is None else local_path("out", self.out)
        if out is not None and out.resolve() == path.resolve():
            raise ConfigError(f"out = {out}: is the file of the agents; choose another file")
        if out is not None:
            check_new_file("out", out, "policies.csv")
        run = load_run(self.run_dir, make)
        check_tells_of_all(run)
        table = read_agents(path, run.population)
        limits = None if self.at_most is self.at_least is None else Limits(self.at_most, self.at_least)
        found = assign(run, table.agents, limits=limits, weights=table.weights)
        columns = _columns(found)
        if out is not None:
            write_table(out, *_with_results(table, columns))
        summary = _describe(table, found)
        if self.json:
            small = {name: listed(values) for name, values in columns.items()} if len(table.rows) <= 10_000 else {}
            print(to_json({**summary, "results": small}))
        else:
            print_assigned(summary)


def _describe(table: "Table", found: "Assigned") -> dict[str, Any]:
    """What is said of all agents together."""
    from rmdp_jax.evaluation.fairness import fairness, fairness_by_group, plain

    of = (found.unserved, table.weights)
    groups = {"everybody": fairness(found.expected, *of)}
    if table.groups is not None:
        groups |= {f"group {name}": one for name, one in fairness_by_group(found.expected, table.groups, *of).items()}
    return {
        "agents": len(found.policy),
        "weighted": table.weights is not None,
        "episodes": found.episodes,
        "deterministic": found.deterministic,
        "unserved_below": found.unserved_below,
        "fairness": {name: plain(one) for name, one in groups.items()},
        "policies": [_of_policy(found, j) for j in range(len(found.utility))],
    }


def _columns(found: "Assigned") -> dict[str, Any]:
    """What is said of each agent; six significant digits, and no column where nothing is known."""
    import numpy as np

    numbers = {name: getattr(found, name) for name in ("low", "high", "margin", "to_bound")}
    numbers = {"expected_return": found.expected, **{name: x for name, x in numbers.items() if x is not None}}
    short = {name: np.array([float(f"{value:.6g}") for value in values]) for name, values in numbers.items()}
    unserved = {} if found.unserved is None else {"unserved": found.unserved.astype(int)}
    return {"policy": found.policy, **short, **unserved}


def _of_policy(found: "Assigned", policy: int) -> dict[str, Any]:
    """How many agents a policy has, and their mean, least and largest return."""
    own = found.expected[found.policy == policy].astype(float)
    returns = {"mean": own.mean(), "worst": own.min(), "best": own.max()} if len(own) else {}
    return {"policy": policy, "agents": len(own), **{name: float(f"{value:.6g}") for name, value in returns.items()}}


def _with_results(table: "Table", columns: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table as it was given, and beside it the results; a result whose name an agent's column has gets a stroke."""
    names = [name + "_" * (name in table.header) for name in columns]
    results = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [*table.header, *names], [[*row, *map(str, found)] for row, found in zip(table.rows, results, strict=True)]
