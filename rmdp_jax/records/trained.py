"""What a finished run offers people, in memory (`Result`) or from its folder (`Run`): tables, pictures, a few lines of text."""

import math
from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from rmdp_jax.errors import ConfigError
from rmdp_jax.records.agents_csv import columns_of
from rmdp_jax.records.tables import MOST_ROWS, RETURNS, flat, headline, html_table, import_pandas, policy_rows, welfare_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from rmdp_jax.config import TrainConfig
    from rmdp_jax.env import Env, Population
    from rmdp_jax.policies.model import Policies


_RESERVED = ("weight", "policy", "return", "best_policy", "best_return")  # columns beside those that agents are made of


class Trained:
    """Base of `Result` and `Run`; returns are in reference units (0..100)."""

    __slots__ = ()

    if TYPE_CHECKING:  # what those who inherit have, as fields or properties
        env: Env
        population: Population
        config: TrainConfig
        policies: Policies
        assignment: Any  # (n,)
        summary: dict[str, Any]  # what result.json holds
        metrics: list[dict[str, Any]]  # what metrics.jsonl holds

    @property
    def welfare(self) -> float:
        """Mean return of all agents in fresh episodes, on the terms of the run; NaN where it was not evaluated."""
        return math.nan if self.summary["welfare"] is None else self.summary["welfare"]

    @property
    def own_returns(self) -> np.ndarray:
        """(n,) mean return of each agent by its own policy."""
        labels = np.asarray(self.assignment)
        return np.asarray(self.summary["utility"], float)[labels, np.arange(len(labels))]

    def table(self) -> "pd.DataFrame":
        """A row a policy: how many it serves, their mean, worst and best return, and the mean steps of an episode.

        Raises:
            ConfigError: pandas is not installed.
        """
        rows = policy_rows(self.summary, self.assignment)
        return import_pandas().DataFrame(rows).set_index("policy").astype(dict.fromkeys(RETURNS, float))

    def agents(self) -> "pd.DataFrame":
        """A row an agent: what it is made of, its policy, its return by that, and the policy that was best for it.

        A number of an agent that is called like one of the results gets a stroke: `return_`.

        Raises:
            ConfigError: pandas is not installed.
        """
        utility, n = np.asarray(self.summary["utility"], float), self.population.n
        columns: dict[str, Any] = {
            name + "_" * (name in _RESERVED): values.reshape(n, -1)[:, i]
            for leaf, values in columns_of(self.population)
            for i, name in enumerate(leaf.names)
        }
        if self.population.weights is not None:
            columns["weight"] = np.asarray(self.population.weights)
        columns |= {"policy": np.asarray(self.assignment), "return": self.own_returns}
        columns |= {"best_policy": utility.argmax(0), "best_return": utility.max(0)}
        return import_pandas().DataFrame(columns).rename_axis("agent")

    @property
    def history(self) -> "pd.DataFrame":
        """`metrics` with a row a line; what is of each policy is in columns name_0, name_1, ...

        Raises:
            ConfigError: pandas is not installed.
        """
        return import_pandas().DataFrame([flat(line) for line in self.metrics])

    @property
    def plot(self) -> "Plots":
        """Pictures: `plot.welfare()`, `plot.assignment()`, `plot.utility()`, `plot.agents()`, and those of the task."""
        return Plots(self)

    def __repr__(self) -> str:
        sizes = self.summary["policy_sizes"]
        served = ", ".join(map(str, sizes[:MOST_ROWS])) + (", ..." if len(sizes) > MOST_ROWS else "")
        return "\n".join(
            [
                f"{type(self).__name__}: {headline(self.summary)}",
                welfare_line(self.summary),
                f"agents by policy: {served}",
                "look at: .table() .agents() .history .plot .summary; keep: .save(path)",
            ]
        )

    def _repr_html_(self) -> str:
        facts = f"<b>{escape(headline(self.summary))}</b><br>{escape(welfare_line(self.summary))}"
        return facts + html_table(policy_rows(self.summary, self.assignment), "table() has all")


class Plots:
    """Pictures of a run as matplotlib figures, which notebooks show by themselves; each is drawn when it is called."""

    welfare: "Callable[[], Figure]"  # running welfare over training, under the bound, with what fresh episodes said
    assignment: "Callable[[], Figure]"  # how many agents each policy served over training, and how many moved
    utility: "Callable[[], Figure]"  # return of every agent under every policy
    agents: "Callable[[], Figure]"  # return of every agent under its own policy, from worst to best served

    def __init__(self, run: Trained) -> None:
        from rmdp_jax.records.pictures import GENERAL

        self.names = [*GENERAL, *run.env.pictures]  # such as "walks" of resource_gathering, "targets" of speed tasks
        for name, draw in {**run.env.pictures, **GENERAL}.items():
            setattr(self, name, partial(_draw, name, draw, run))

    def __repr__(self) -> str:
        return " ".join(f".plot.{name}()" for name in self.names)


def _draw(name: str, draw: "Callable[[Any], Figure | None]", run: Trained) -> "Figure":
    figure = draw(run)
    if figure is None:
        raise ConfigError(f"plot.{name}: this run did not log what the picture shows, as of very many agents")
    return figure


class Several(list[Any]):
    """Runs with several seeds: a list of `Result`s that shows how they came out together."""

    @property
    def welfare(self) -> float:
        """Mean over the runs; NaN where one was not evaluated."""
        return float(np.mean([run.welfare for run in self]))

    @property
    def best(self) -> Any:
        """The run of the highest welfare."""
        return max(self, key=lambda run: -math.inf if math.isnan(run.welfare) else run.welfare)

    def table(self) -> "pd.DataFrame":
        """A row a run, by its seed.

        Raises:
            ConfigError: pandas is not installed.
        """
        return import_pandas().DataFrame(self._rows()).set_index("seed").astype(float)

    @property
    def history(self) -> "pd.DataFrame":
        """The `history` of all runs below each other, with a column `seed`.

        Raises:
            ConfigError: pandas is not installed.
        """
        lines = [{"seed": run.summary["seed"], **flat(line)} for run in self for line in run.metrics]
        return import_pandas().DataFrame(lines)

    @property
    def plot(self) -> "SeveralPlots":
        """Pictures of all runs together: `plot.welfare()`; those of a single one are its own."""
        return SeveralPlots(self)

    def _rows(self) -> list[dict[str, Any]]:
        names = ("welfare", "welfare_standard_error", "welfare_deterministic", "share_of_bound")
        return [{"seed": run.summary["seed"], **{name: run.summary[name] for name in names}} for run in self]

    def _lines(self) -> list[str]:
        summary, values = self[0].summary, [run.welfare for run in self]
        who = f"k = {summary['k']} policies for n = {summary['n']} agents, {len(self)} seeds"
        spread = f"from {min(values):.2f} to {max(values):.2f}, best: seed {self.best.summary['seed']}"
        return [f"{summary['env']}, {summary['algorithm']}, {who}", f"mean welfare {self.welfare:.2f} of 100, {spread}"]

    def __repr__(self) -> str:
        if not self:
            return "[]"
        task, welfare = self._lines()
        return f"Results: {task}\n{welfare}\nlook at: .table() .history .plot .best, or one of the list; keep: .save(path)"

    def _repr_html_(self) -> str:
        if not self:
            return "[]"
        return "<br>".join(map(escape, self._lines())) + html_table(self._rows(), "table() has all")


class SeveralPlots:
    """Pictures of several runs together."""

    def __init__(self, runs: Several) -> None:
        self._runs = runs

    def welfare(self) -> "Figure":
        """Running welfare of every run over training, their mean, and what fresh episodes said of each."""
        from rmdp_jax.plots import welfare_of_seeds

        summaries = [run.summary for run in self._runs]
        return welfare_of_seeds([run.metrics for run in self._runs], summaries, summaries[0]["upper_bound"])

    def __repr__(self) -> str:
        return ".plot.welfare()"
