"""Pictures of a run by name: those that every task has, and those that its env draws (`Env.pictures`)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rmdp_jax import plots

Finished = Any  # `rmdp_jax.records.trained.Trained`, which draws by this module


def welfare(run: Finished) -> Figure:
    """Running welfare over training, under the bound, with what fresh episodes said."""
    final = None if run.summary["welfare"] is None else run.summary  # diverged, or not evaluated
    return plots.welfare_curve(run.metrics, run.summary["upper_bound"], final, reachable=run.summary.get("reachable"))


def assignment(run: Finished) -> Figure:
    """How many agents each policy served over training, and how many moved."""
    return plots.assignment_history(run.metrics)


def utility(run: Finished) -> Figure:
    """Return of every agent under every policy."""
    return plots.utility_matrix(np.asarray(run.summary["utility"], float), np.asarray(run.assignment))


def agents(run: Finished) -> Figure:
    """Return of every agent under its own policy, from worst to best served."""
    people = np.asarray(run.summary["utility"], float), np.asarray(run.assignment)
    return plots.agent_distribution(*people, run.population.weights)


GENERAL: dict[str, Callable[[Finished], Figure]] = {
    "welfare": welfare,
    "assignment": assignment,
    "utility": utility,
    "agents": agents,
}


def general_pictures(run: Finished) -> dict[str, Figure]:
    """Pictures that every task has, by name."""
    return {name: draw(run) for name, draw in GENERAL.items()}


def task_pictures(run: Finished) -> dict[str, Figure]:
    """Pictures of the run's own task, by name; none of an env that draws none."""
    drawn = {name: draw(run) for name, draw in run.env.pictures.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
