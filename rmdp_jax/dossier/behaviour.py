"""What a policy does, from its kept episodes alone: how long they last, how they end, and which outcomes they bring."""

from typing import Any

import jax
import numpy as np

from rmdp_jax.dossier.figures import number, share, with_interval
from rmdp_jax.env import EnvSpec
from rmdp_jax.envs.speed import is_body, may_fall
from rmdp_jax.evaluation.episodes import Episodes

MOST_COMPONENTS = 100  # of outcomes, of which the rest are left out


def describe_episodes(episodes: Episodes, policy: int, spec: EnvSpec) -> dict[str, Any]:
    """How a policy's episodes go: number, steps, falls, divergences; falls are None of a task that knows none."""
    alive = np.asarray(episodes.alive[policy])
    broken = (np.asarray(episodes.diverged[policy]) & alive).any(1)
    steps = alive.sum(1)
    early = (steps < alive.shape[1]) & ~broken
    return {
        "number": len(steps),
        "steps": {**with_interval(steps), "least": int(steps.min()), "most": int(steps.max()), "limit": alive.shape[1]},
        "ended_early": share(early),
        "falls": share(early) if may_fall(spec) else None,
        "diverged": share(broken),
    }


def describe_outcomes(episodes: Episodes, policy: int, spec: EnvSpec) -> list[dict[str, Any]]:
    """Each number that the env reports of a step, of a policy's episodes.

    Of each its mean over an episode's steps, averaged over episodes, with the 95% interval of that; the middle nine tenths of
    all steps; and its value at an episode's last step, averaged. Steps that diverged are left out.
    """
    alive = np.asarray(episodes.alive[policy]) & ~np.asarray(episodes.diverged[policy])
    outcomes: list[dict[str, Any]] = []
    for at, leaf in jax.tree_util.tree_leaves_with_path(episodes.outcome):
        values = np.asarray(leaf[policy], np.float64)
        for index in np.ndindex(*values.shape[2:]):
            if len(outcomes) == MOST_COMPONENTS:
                return outcomes
            name = jax.tree_util.keystr(at, simple=True, separator=".") or "outcome"
            name += "".join(f"[{i}]" for i in index)
            outcomes.append({"name": name, "unit": unit_of(name, spec), **_describe(values[(..., *index)], alive)})
    return outcomes


def unit_of(name: str, spec: EnvSpec) -> str | None:
    """Unit of an outcome; None where it is the env's own."""
    return "m/s" if name == "speed" and is_body(spec) else None


def _describe(values: np.ndarray, alive: np.ndarray) -> dict[str, Any]:
    """Of one number (e, L) at the steps that are `alive`."""
    sound = alive.any(1)
    if not sound.any():
        return {"mean": None, "low": None, "high": None, "step_low": None, "step_high": None, "last": None}
    values, alive = values[sound], alive[sound]
    means = np.where(alive, values, 0.0).sum(1) / alive.sum(1)
    last = values[np.arange(len(values)), alive.shape[1] - 1 - alive[:, ::-1].argmax(1)]
    low, high = np.quantile(values[alive], (0.05, 0.95))
    return {**with_interval(means), "step_low": number(low), "step_high": number(high), "last": number(last.mean())}
