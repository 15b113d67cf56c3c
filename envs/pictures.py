"""Pictures of a run of one kind of task: walks on a grid, targets on a line. What draws is imported when one is drawn."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rmdp_jax.envs.speed import BODIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rmdp_jax.records.trained import Trained


def pictures_of(name: str) -> Mapping[str, Callable[[Any], Any]]:
    """`Env.pictures` of the task `name`."""
    return _PICTURES.get(name, {})


def policy_pictures(run: "Trained") -> "list[Figure] | None":
    """What each of the k policies does, a picture a policy, of a task that draws it; None of another.

    None of a policy that is told for whom it acts either: one episode does not show what it does.
    """
    draw = _OF_A_POLICY.get(run.env.spec.name)
    is_another = run.env.for_agent is not None or run.env.spec.make is not None  # own tasks may have these names
    return None if draw is None or is_another else draw(run)


def policy_speeds(run: "Trained") -> np.ndarray:
    """Mean speed of each policy of a speed task, (k,), in m/s: over one episode with actions as in training, until it ends."""
    from rmdp_jax.records.loading import record_run

    played = record_run(run, deterministic=False)
    return np.nanmean(np.where(played.alive, played.step.outcome.speed, np.nan), axis=1)


def _walks(run: "Trained") -> "Figure":
    from rmdp_jax import plots

    return plots.walks_on_grid(*_walked(run))


def _walk_of_each(run: "Trained") -> "list[Figure]":
    from rmdp_jax import plots

    walked = _walked(run)
    return [plots.walks_on_grid(*walked, j) for j in range(run.config.k)]


def _walked(run: "Trained") -> tuple[Any, Any, int, np.ndarray, np.ndarray]:
    """One episode of each policy, by its most likely actions, as `walks_on_grid` takes it."""
    from rmdp_jax.records.loading import record_run

    played = record_run(run)
    size = round((run.env.spec.observation_size - 2) ** 0.5)
    return played.state.position, played.alive, size, np.asarray(run.assignment), run.own_returns


def _targets(run: "Trained") -> "Figure":
    from rmdp_jax import plots

    body = BODIES[run.env.spec.name.removesuffix("_speed")]
    targets, labels = np.asarray(run.population.agents), np.asarray(run.assignment)
    span = (body.low, body.high)
    speeds = policy_speeds(run)
    return plots.target_histogram(targets, labels, run.config.k, span, policy_speeds=speeds, returns=run.own_returns)


def _speeds(run: "Trained") -> "Figure | None":
    """Nothing of very many agents, whose assignment is not logged."""
    from rmdp_jax import plots

    if not run.metrics or "assignment" not in run.metrics[0]:
        return None
    transitions = [line["transitions_per_policy"] for line in run.metrics]
    speeds = np.array([line["mean_speed"] for line in run.metrics], float)
    return plots.speed_history(transitions, speeds, _target_ranges(run, np.asarray(run.population.agents)))


def _target_ranges(run: "Trained", targets: np.ndarray) -> np.ndarray:
    """Lowest and highest target of each policy's agents at every logged line, (L, k, 2); an assignment lasts until the next."""
    ranges, labels = [], np.zeros(0, int)
    for line in run.metrics:
        labels = np.asarray(line.get("assignment", labels))
        groups = [targets[labels == j] for j in range(run.config.k)]
        ranges.append([(group.min(), group.max()) if group.size else (np.nan, np.nan) for group in groups])
    return np.array(ranges)


_OF_A_POLICY: dict[str, Callable[..., "list[Figure]"]] = {"resource_gathering": _walk_of_each}
_PICTURES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "resource_gathering": {"walks": _walks},
    **{f"{body}_speed": {"targets": _targets, "speeds": _speeds} for body in BODIES},
}
