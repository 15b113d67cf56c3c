"""Pictures of a run: those that every task has, and those of one kind of task, walks on a grid, targets on a line."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rmdp_jax import plots
from rmdp_jax.envs.speed import BODIES
from rmdp_jax.records.loading import Run, record_run


def general_pictures(run: Run) -> dict[str, Figure]:
    """Pictures that every task has, by file name without ending."""
    bound, utility = run.result["upper_bound"], np.asarray(run.result["utility"])
    final = None if run.result["welfare"] is None else run.result  # diverged, or not evaluated
    return {
        "welfare": plots.welfare_curve(run.metrics, bound, final, reachable=run.result.get("reachable")),
        "assignment": plots.assignment_history(run.metrics),
        "utility": plots.utility_matrix(utility, run.assignment),
        "agents": plots.agent_distribution(utility, run.assignment),
    }


def task_pictures(run: Run) -> dict[str, Figure]:
    """The pictures of the run's own task, by file name without ending; none for a task that this table does not know.

    None for a policy that is told for whom it acts either: one episode does not show what it does.
    """
    draw = _PICTURES.get(run.env.spec.name)
    return {} if draw is None or _is_another(run) else draw(run)


def policy_pictures(run: Run) -> list[Figure] | None:
    """What each of the k policies does, a picture a policy, of a task that draws it; None of another."""
    draw = _OF_A_POLICY.get(run.env.spec.name)
    return None if draw is None or _is_another(run) else draw(run)


def _is_another(run: Run) -> bool:
    """Whether episodes are for one agent each, or the task is a user's own that has the name of one of these."""
    return run.env.for_agent is not None or run.env.spec.make is not None


def _walks(run: Run) -> dict[str, Figure]:
    return {"walks": plots.walks_on_grid(*_walked(run))}


def _walk_of_each(run: Run) -> list[Figure]:
    walked = _walked(run)
    return [plots.walks_on_grid(*walked, j) for j in range(run.config.k)]


def _walked(run: Run) -> tuple[Any, Any, int, np.ndarray, np.ndarray]:
    """One episode of each policy, by its most likely actions, as `walks_on_grid` takes it."""
    played = record_run(run)
    size = round((run.env.spec.observation_size - 2) ** 0.5)
    returns = np.asarray(run.result["utility"])[run.assignment, np.arange(run.population.n)]
    return played.state.position, played.alive, size, run.assignment, returns


def _targets(run: Run) -> dict[str, Figure]:
    body = BODIES[run.env.spec.name.removesuffix("_speed")]
    played = record_run(run, deterministic=False)
    speed = np.where(played.alive, played.step.outcome.speed, np.nan)
    targets = np.asarray(run.population.agents)
    span = (body.low, body.high)
    mean_speed = np.nanmean(speed, axis=1)
    returns = np.asarray(run.result["utility"])[run.assignment, np.arange(run.population.n)]
    histogram = plots.target_histogram(targets, run.assignment, run.config.k, span, policy_speeds=mean_speed, returns=returns)
    pictures = {"targets": histogram}
    if run.metrics and "assignment" in run.metrics[0]:  # not logged for very many agents
        transitions = [line["transitions_per_policy"] for line in run.metrics]
        speeds = np.array([line["mean_speed"] for line in run.metrics])
        pictures["speeds"] = plots.speed_history(transitions, speeds, _target_ranges(run, targets))
    return pictures


def _target_ranges(run: Run, targets: np.ndarray) -> np.ndarray:
    """Lowest and highest target of each policy's agents at every logged line, (L, k, 2); an assignment lasts until the next."""
    ranges, labels = [], np.zeros(0, int)
    for line in run.metrics:
        labels = np.asarray(line.get("assignment", labels))
        groups = [targets[labels == j] for j in range(run.config.k)]
        ranges.append([(group.min(), group.max()) if group.size else (np.nan, np.nan) for group in groups])
    return np.array(ranges)


_OF_A_POLICY: dict[str, Callable[[Run], list[Figure]]] = {"resource_gathering": _walk_of_each}
_PICTURES: dict[str, Callable[[Run], dict[str, Figure]]] = {
    "resource_gathering": _walks,
    **{f"{body}_speed": _targets for body in BODIES},
}
