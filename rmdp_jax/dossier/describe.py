"""`dossier`: all that a reviewer has to know of a finished run's policies, as one dict that JSON takes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from rmdp_jax.deploy.export import check_whole
from rmdp_jax.deploy.plain import hash_of, plain_arrays
from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.dossier.behaviour import describe_episodes, describe_outcomes
from rmdp_jax.dossier.figures import number, with_interval
from rmdp_jax.dossier.notes import notes_of
from rmdp_jax.dossier.people import BETTER, OPEN, SURE, Served, describe_people, describe_wishes, serve
from rmdp_jax.dossier.scores import Scores, score_run
from rmdp_jax.dossier.stability import Beside, describe_stability, overlap
from rmdp_jax.evaluation.fairness import Fairness, fairness, fairness_by_group, plain
from rmdp_jax.evaluation.statistics import half_width_of_difference
from rmdp_jax.limits import describe_limits
from rmdp_jax.policies.model import make_model, one_policy
from rmdp_jax.records.agents_csv import Table
from rmdp_jax.records.checksums import sha256_of
from rmdp_jax.records.folder import describe_versions
from rmdp_jax.records.loading import Run

KIND, FORMAT = "rmdp_jax dossier", 1
FILES = ("config.json", "agents.npz", "metrics.jsonl", "result.json", "episodes.npz")  # whose checksums are reported
MOST_LINES = 1000  # of the training curve


@plain_settings()
def dossier(
    run: Run, beside: Sequence[Beside] = (), table: Table | None = None, scores: Scores | None = None
) -> dict[str, Any]:
    """The dossier of a finished run; `schema.json` beside this file has the meaning of every field. Nothing is simulated.

    Returns are in reference units (0..100). All figures with an interval are of the episodes that the run kept, under its own
    assignment, which other episodes led to; intervals are of 95%, over episodes.

    Args:
        run: of `rmdp_jax.load_run`.
        beside: other runs for the same people, of `rmdp_jax.dossier.stability.read_beside`.
        table: of the run's own agents, for their ids and groups, of `rmdp_jax.dossier.people.read_own`.
        scores: of `score_run`, where they are there already.

    Raises:
        ConfigError: the run was stopped early, or its last checkpoint is damaged, or it lacks the episodes that it could have.
    """
    check_whole(run)
    scores = scores or score_run(run)
    served = serve(run, scores)
    own = Beside(run.folder.path.resolve().name, run.result, run.assignment)
    groups = None if table is None else table.groups
    return {
        "kind": KIND,
        "format": FORMAT,
        "run": _describe_run(run),
        "welfare": _describe_welfare(run),
        "episodes": _describe_kept(run, scores),
        "unserved_below": number(served.unserved_below),
        "fairness": _describe_fairness(run, served, groups),
        "policies": [_describe_policy(run, scores, served, j, beside) for j in range(run.config.k)],
        "agents": describe_people(run, served, table),
        "stability": describe_stability(own, beside),
        "training": _describe_training(run),
        "config": run.folder.read_config(),
        "versions": {"trained": run.result.get("versions", {}), "dossier": describe_versions("rmdp-jax", "jax", "numpy")},
        "files": _describe_files(run),
    }


def _describe_run(run: Run) -> dict[str, Any]:
    result = run.result
    names = ("env", "env_options", "backend", "algorithm", "k", "n", "seed", "iterations", "transitions_per_policy", "device")
    return {
        "name": run.folder.path.resolve().name,
        **{name: result[name] for name in names},
        "total_transitions": result["total_transitions"],
        "wall_s": number(result["wall_s"]),
        "observation_size": run.env.spec.observation_size,
        "action_size": run.env.spec.action_size,
        "discrete_actions": run.env.spec.discrete,
    }


def _describe_welfare(run: Run) -> dict[str, Any]:
    """What result.json says, of all episodes of the evaluation that the run ended with."""
    result = run.result
    return {
        "welfare": number(result["welfare"]),
        "standard_error": number(result["welfare_standard_error"]),
        "likeliest_actions": number(result["welfare_deterministic"]),
        "p": result.get("welfare_p", 1.0),
        "weighted": bool(result.get("weighted", False)),
        "limits": describe_limits(result) or None,
        "upper_bound": number(result["upper_bound"]),
        "share_of_bound": number(result["share_of_bound"]),
        "reachable": number(result.get("reachable")),
        "episodes": run.config.evaluation_episodes,
    }


def _describe_kept(run: Run, scores: Scores) -> dict[str, Any]:
    kept = scores.kept
    return {
        "number": scores.episodes,
        "seed": None if kept is None else kept.seed,
        "likeliest_actions": None if kept is None else kept.deterministic,
        "steps": None if kept is None else int(kept.episodes.alive.shape[2]),
        "reason": scores.reason,
        "confidence": 0.95,
    }


def _describe_fairness(run: Run, served: Served, groups: np.ndarray | None) -> dict[str, Any]:
    of = (served.unserved, _weights(run))
    by_group = {} if groups is None else fairness_by_group(served.expected, groups, *of)
    return {"everybody": plain(fairness(served.expected, *of)), "groups": {name: plain(x) for name, x in by_group.items()}}


def _describe_policy(run: Run, scores: Scores, served: Served, j: int, beside: Sequence[Beside]) -> dict[str, Any]:
    own = run.assignment == j
    kept, spec = scores.kept, run.env.spec
    description = {
        "policy": j,
        "agents": int(own.sum()),
        "share_of_weight": number(_share(run, own)),
        "serves": describe_wishes(run, own),
        "returns": _describe_returns(run, scores, served, j, own),
        "episodes": None if kept is None else describe_episodes(kept.episodes, j, spec),
        "outcomes": [] if kept is None else describe_outcomes(kept.episodes, j, spec),
        "sureness": _describe_sureness(served, own),
        "others": [_compare(run, scores, served, j, other, own) for other in range(run.config.k) if other != j],
        "without": _describe_loss(run, served, own),
        "stability": [{"run": one.name, "overlap": number(overlap(run.assignment, one.assignment, j))} for one in beside],
        "training_faults": {name: run.result.get(name, [0] * run.config.k)[j] for name in ("diverged", "recovered")},
        "parameters": _describe_parameters(run, j),
    }
    return {**description, "notes": notes_of(description)}


def _weights(run: Run, own: np.ndarray | None = None) -> np.ndarray | None:
    weights = run.population.weights
    return None if weights is None else np.asarray(weights, float)[own if own is not None else slice(None)]


def _share(run: Run, own: np.ndarray) -> float:
    weights = _weights(run)
    return float(own.mean() if weights is None else weights[own].sum() / weights.sum())


def _describe_returns(run: Run, scores: Scores, served: Served, j: int, own: np.ndarray) -> dict[str, Any] | None:
    """Of the policy's own agents: their mean in each episode, how their means are spread, how single episodes are."""
    if not own.any():
        return None
    unserved, weights = None if served.unserved is None else served.unserved[own], _weights(run, own)
    spread = fairness(served.expected[own], unserved, weights)
    if scores.group is None or scores.single is None:
        return {"mean": number(spread.mean), "low": None, "high": None, "agents": plain(spread), "single_episodes": None}
    single = scores.single[own]
    every = fairness(single.ravel(), None, None if weights is None else np.repeat(weights, single.shape[1]))
    return {**with_interval(scores.group[j, j]), "agents": plain(spread), "single_episodes": _of_episodes(every)}


def _of_episodes(every: Fairness) -> dict[str, Any]:
    return {"number": every.agents, **{name: number(getattr(every, name)) for name in ("mean", "worst_tenth", "minimum")}}


def _describe_sureness(served: Served, own: np.ndarray) -> dict[str, Any] | None:
    """How many of the policy's agents are surely best served by it; None where nobody knows, or there is no other."""
    if served.verdict is None or served.margin is None or not own.any():
        return None
    found = served.verdict[own]
    counts = {
        name: int((found == value).sum()) for name, value in (("sure", SURE), ("open", OPEN), ("better_elsewhere", BETTER))
    }
    return {**counts, "least_margin": number(served.margin[own].min()), "mean_margin": number(served.margin[own].mean())}


def _compare(run: Run, scores: Scores, served: Served, j: int, other: int, own: np.ndarray) -> dict[str, Any]:
    """What the policy's agents would lose if `other` served them, on average and how many would gain."""
    if not own.any():
        return {"policy": other, "loss": None, "low": None, "high": None, "better_for": 0}
    gain = scores.utility[other, own] - served.expected[own]
    description = {
        "policy": other,
        "loss": number(-np.average(gain, weights=_weights(run, own))),
        "low": None,
        "high": None,
        "better_for": int((gain > 0).sum()),
    }
    if scores.group is None or scores.episodes < 2:
        return description
    mine, theirs = scores.group[j, j], scores.group[j, other]
    loss = mine.mean() - theirs.mean()
    width = half_width_of_difference(mine.std(ddof=1), theirs.std(ddof=1), scores.episodes)
    return {**description, "loss": number(loss), "low": number(loss - width), "high": number(loss + width)}


def _describe_loss(run: Run, served: Served, own: np.ndarray) -> dict[str, Any] | None:
    """What its agents would have if the policy were left out and each moved to the best of the others."""
    if served.margin is None or not own.any():
        return None
    left = (served.expected - served.margin)[own]
    spread = fairness(left, None, _weights(run, own))
    return {"mean": number(spread.mean), "minimum": number(spread.minimum)}


def _describe_parameters(run: Run, j: int) -> dict[str, Any]:
    model = make_model(run.env.spec, run.config.sizes, run.config.k, run.config.n)
    arrays = plain_arrays(model, jax.device_get(one_policy(run.policies, j)))
    return {"number": sum(array.size for array in arrays.values()), "sha256": hash_of(arrays)}


def _describe_training(run: Run) -> dict[str, Any]:
    """The running estimate of welfare, at most `MOST_LINES` of its lines, evenly spread."""
    lines = run.metrics
    some: list[int] = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), MOST_LINES)).round().astype(int)).tolist()
    return {
        "transitions_per_policy": [lines[i]["transitions_per_policy"] for i in some],
        "welfare": [lines[i]["welfare"] for i in some],
        "moves": sum(line["flips"] for line in lines),
        "faults": {name: run.result.get(name) for name in ("diverged", "recovered", "nonfinite_rewards")},
    }


def _describe_files(run: Run) -> dict[str, Any]:
    paths = [path for path in (run.folder.path / name for name in FILES) if path.exists()]
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}
