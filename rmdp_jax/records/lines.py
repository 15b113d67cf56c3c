"""What config.json, a line of metrics.jsonl and result.json hold."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jax.typing import ArrayLike

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env
from rmdp_jax.evaluation.episodes import outcome_names
from rmdp_jax.evaluation.evaluate import Evaluation, proved_bound
from rmdp_jax.evaluation.fairness import of_run, plain
from rmdp_jax.info import Info, recent_returns
from rmdp_jax.records.folder import describe_machine, describe_numerics, dump_train_config, listed
from rmdp_jax.records.given import describe_given
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.types import Array
from rmdp_jax.welfare import make_welfare

LARGEST_OUTCOME = 32  # numbers of one leaf of outcomes that are logged
LARGEST_LOGGED = 1000  # agents up to which a new assignment is part of its line


class Timing(NamedTuple):
    """Of the program that trained a run; of this process alone, when it was resumed."""

    compile_s: float
    wall_s: float
    transitions: int  # of all policies of all runs
    runs: int  # trained together
    devices: int = 1


def describe_run(env: Env, run: RunSpec) -> dict[str, Any]:
    """What config.json holds."""
    pretraining = run.assigner.pretraining
    return {
        **describe_task(env, run.assigner.name, run.env_options),
        "algorithm_options": dict(run.assigner.options),
        "train": dump_train_config(run.config),
        "numerics": describe_numerics(),
        **({"pretraining_transitions": pretraining} if pretraining else {}),  # depends on the budget, so resume keeps it
        **describe_given(run.given),
    }


def describe_task(env: Env, algorithm: str, env_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What config.json and result.json begin with; `env_options` where they are not those that made `env`."""
    return {
        "env": env.spec.name,
        **({} if env.spec.make is None else {"make": env.spec.make}),
        "env_options": dict(env.spec.options if env_options is None else env_options),
        "backend": env.spec.backend,
        "algorithm": algorithm,
    }


def metrics_line(
    info: Info, iteration: int, config: TrainConfig, wall_s: float, transitions: int, recent: float
) -> dict[str, Any]:
    """One line of metrics.jsonl; lists have one entry per policy. The clock is the program's, which may train more runs.

    Two welfares: of running utilities, whose memory is what agents choose by and which lag behind policies that get better,
    and `recent`, by the iterations since the last line alone, which is noisier.
    """
    info = jax.device_get(info)
    losses = {name: _list(value) for name, value in info.losses._asdict().items() if name != "loss"}
    return {
        "iteration": iteration,
        "transitions_per_policy": iteration * config.sizes.transitions,
        "wall_s": round(wall_s, 3),
        "transitions_per_s": round(transitions / wall_s, 1),
        "welfare": finite_number(info.welfare),
        "welfare_recent": finite_number(recent),
        "flips": int(info.flips),
        "copies": int(info.copies),
        "softness": finite_number(info.softness),
        "policy_sizes": info.policy_sizes.tolist(),
        "policy_utility": _list(_mean_utility(info)),
        **losses,
        "episodes": info.episodes.tolist(),
        "diverged": info.diverged.tolist(),
        "recovered": info.recovered.tolist(),
        **_nonfinite_rewards(info),
        **_mean_outcomes(info),
        **_new_assignment(info, first=iteration <= config.log_every),
    }


def recent_welfare(env: Env, run: RunSpec, info: Info) -> float:
    """Welfare by the steps that `info` is of alone, on the terms of the run, in reference units."""
    scale, weights = env.spec.reference_scale, run.population.weights
    returns = recent_returns(info, env.spec.episode_length)
    if run.config.welfare_p == 1.0:
        return scale * float(np.average(returns, weights=weights))
    return scale * float(make_welfare(run.config.welfare_p, scale / 100.0, weights).mean(jnp.asarray(returns, jnp.float32)))


def _mean_outcomes(info: Info) -> dict[str, list[float | None]]:
    """Mean outcome of each policy's steps, a column a number: mean_speed, or mean_pay_0, mean_pay_1 of a vector.

    An outcome without names is mean_outcome. Of more than `LARGEST_OUTCOME` numbers (an image) nothing is written.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(info.outcome)]  # (k, ...)
    names = outcome_names(jax.tree.map(lambda leaf: leaf[0], info.outcome))
    short = [(own, leaf) for own, leaf in zip(names, leaves, strict=True) if len(own) <= LARGEST_OUTCOME]
    columns = [(own, leaf.reshape(len(leaf), -1).T) for own, leaf in short]
    return {f"mean_{name}": _list(one) for own, rows in columns for name, one in zip(own, rows, strict=True)}


def _nonfinite_rewards(info: Info) -> dict[str, Any]:
    """Steps whose reward was not finite: of all agents, and of each who has some, up to `LARGEST_LOGGED` of them."""
    counts = info.nonfinite_rewards
    agents = np.flatnonzero(counts)[:LARGEST_LOGGED].tolist()
    by_agent = {"nonfinite_rewards_by_agent": {str(agent): int(counts[agent]) for agent in agents}} if agents else {}
    return {"nonfinite_rewards": int(counts.sum(dtype=np.int64)), **by_agent}


def fault_counts(history: Sequence[Mapping[str, Any]], k: int) -> dict[str, Any]:
    """What result.json says of the faults in lines of metrics: steps that diverged (k,), policies put back (k,), rewards."""
    lists = {name: np.array([line.get(name, [0] * k) for line in history] or [[0] * k]) for name in ("diverged", "recovered")}
    rewards = sum(line.get("nonfinite_rewards", 0) for line in history)
    return {**{name: rows.sum(0).tolist() for name, rows in lists.items()}, "nonfinite_rewards": rewards}


def _new_assignment(info: Info, first: bool) -> dict[str, list[int]]:
    """The assignment where it is news, and small enough for a line of text."""
    news = first or int(info.flips) > 0
    return {"assignment": info.assignment.tolist()} if news and len(info.assignment) <= LARGEST_LOGGED else {}


def _mean_utility(info: Info) -> np.ndarray:
    """Mean utility of each policy's own agents (k,)."""
    agents = np.arange(len(info.assignment))
    total = np.bincount(info.assignment, info.utility[info.assignment, agents], minlength=len(info.policy_sizes))
    return total / np.maximum(info.policy_sizes, 1)


def finite_number(value: Any) -> float | None:
    """Seven significant digits, whatever the agents' units; None where JSON has no number, as for NaN."""
    return float(f"{float(value):.7g}") if np.isfinite(value) else None


def _list(values: Any) -> list[float | None]:
    return [finite_number(value) for value in np.asarray(values)]


def summarize(
    env: Env,
    run: RunSpec,
    iterations: int,
    weights: Array,
    sources: Array,
    sampled: Evaluation,
    by_mode: Evaluation,
    timing: Timing,
    history: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What result.json holds; welfare, bound and utility in reference units (0..100); `listed` entries of each agent.

    Args:
        env, run: what was trained.
        iterations: how far it came.
        weights: (k, n) of the assigner at the end.
        sources: (k,) of a `Conclusion`; written as `policies_from` where they are not simply the last policies.
        sampled, by_mode: fresh episodes acting as trained, and by the modes of the distributions.
        timing: of the program.
        history: lines of metrics.
    """
    config, assigner = run.config, run.assigner
    bound = proved_bound(env, run.population, config.k)
    bound = None if bound is None else finite_number(bound)
    mean = run.population.weights is None and config.welfare_p == 1.0  # which is what is known
    reachable = run.population.reachable(config.k) if mean else None
    welfare = float(sampled.welfare)
    own = np.asarray(sampled.utility)[np.asarray(sampled.assignment), np.arange(config.n)]
    if config.welfare_p < 1.0 and (own < 0.0).any():
        bound = None  # a p-mean, in which returns below 0 count as 0, may pass that of the mean
    labels, chosen = np.asarray(sampled.assignment), np.asarray(sources).tolist()
    return {
        **describe_task(env, assigner.name, run.env_options),
        "algorithm_options": dict(assigner.options),
        "k": config.k,
        "n": config.n,
        "seed": config.seed,
        "iterations": iterations,
        "finished": iterations >= config.iterations,
        "transitions_per_policy": iterations * config.sizes.transitions,
        "pretraining_transitions": assigner.pretraining,
        "total_transitions": config.k * iterations * config.sizes.transitions + assigner.pretraining,
        "welfare": finite_number(welfare),
        **_terms(run),
        "welfare_standard_error": finite_number(sampled.standard_error),
        "welfare_deterministic": finite_number(by_mode.welfare),
        "upper_bound": bound,
        **({} if reachable is None else {"reachable": finite_number(env.spec.reference_scale * reachable)}),
        "share_of_bound": finite_number(welfare / bound) if bound is not None and bound > 0 else None,
        "softness": finite_number(entr(weights).sum(0).mean()),  # in nats
        **({} if chosen == list(range(config.k)) else {"policies_from": chosen}),
        "policy_sizes": np.bincount(labels, minlength=config.k).tolist(),
        "episode_length": np.round(np.asarray(sampled.episode_length, float), 2).tolist(),
        **({"evaluation_steps": config.evaluation_steps} if env.spec.episode_length > config.evaluation_steps else {}),
        "episodes_kept": 0 if sampled.episodes is None else sampled.episodes.number,
        **fault_counts(history, config.k),
        "runs_together": timing.runs,
        "devices": timing.devices,
        "wall_s": round(timing.wall_s, 2),
        "compile_s": round(timing.compile_s, 2),
        "transitions_per_s": round(timing.transitions / max(timing.wall_s, 1e-9), 1),
        **describe_machine(),
        "assignment": listed(compact(labels, config.k)),
        "utility": listed(significant(sampled.utility)),
    }


def _terms(run: RunSpec) -> dict[str, Any]:
    """On whose terms welfare is, where it is not the mean over agents, and within which limits."""
    p = run.config.welfare_p
    terms: dict[str, Any] = {} if p == 1.0 else {"welfare_p": p if np.isfinite(p) else str(p)}
    limits = run.config.limits
    terms |= {} if limits is None else {name: limit for name, limit in limits._asdict().items() if limit is not None}
    return terms if run.population.weights is None else {**terms, "weighted": True}


def significant(values: ArrayLike) -> np.ndarray:
    """Values with seven significant digits, float64."""
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values) & (values != 0.0)
    unit = 10.0 ** (np.floor(np.log10(np.abs(np.where(finite, values, 1.0)))) - 6)
    return np.where(finite, np.round(values / unit) * unit, values)


def compact(labels: np.ndarray, k: int) -> np.ndarray:
    """Labels (n,) of k policies in the smallest type that holds them."""
    return labels.astype(np.min_scalar_type(k - 1))


def describe_evaluation(evaluation: Evaluation, episodes: int, weights: ArrayLike | None = None) -> dict[str, Any]:
    """An `Evaluation` of agents with weights (n,) as JSON takes it, but for arrays of very many agents (`listed`)."""
    labels = np.asarray(evaluation.assignment)
    spread, threshold = of_run(evaluation.utility, labels, weights)
    return {
        "episodes": episodes,
        **({} if evaluation.episodes is None else {"episodes_kept": evaluation.episodes.number}),
        "welfare": finite_number(evaluation.welfare),
        "welfare_standard_error": finite_number(evaluation.standard_error),
        "best_welfare": finite_number(evaluation.best_welfare),
        "fairness": plain(spread),
        "unserved_below": threshold,
        "policy_sizes": np.bincount(labels, minlength=len(evaluation.utility)).tolist(),
        "episode_length": np.round(np.asarray(evaluation.episode_length, float), 2).tolist(),
        "assignment": listed(labels),
        "utility": listed(significant(evaluation.utility)),
    }
