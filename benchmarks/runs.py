"""What lines of `benchmarks.ablation` and `benchmarks.paper` record of a run alike, so that the runs of one serve the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmdp_jax.evaluation.comparison import Line
from rmdp_jax.evaluation.fairness import served_above
from rmdp_jax.evaluation.statistics import summarize_values

POOR = 10.0  # of 100; who is paid less on average is a group that nobody serves
ANNEALED_EM = 2  # changes of the numbers of `em` that its options do not show: tests/test_revisions.py notices the next one
OF_RUNS = (
    *("seed", "backend", "welfare", "welfare_deterministic", "upper_bound", "reachable", "share_of_bound", "policy_sizes"),
    *("transitions_per_policy", "total_transitions", "served", "fastest_served", "largest_poor_group", "curve", "commit"),
)


def revision_of(algorithm: str, options: Mapping[str, Any]) -> int:
    """Which version of an algorithm's arithmetic it is by today's code; runs of an earlier one are not taken for the same."""
    return ANNEALED_EM if algorithm == "em" and "anneal" in options else 1


def describe_served(pays: ArrayLike, assignment: ArrayLike, targets: ArrayLike | None) -> Line:
    """Who is served, the fastest target served (None without targets), and the largest group that nobody serves.

    Args:
        pays: (n,) what each agent is paid by its own policy, of 100.
        assignment: (n,) the policy of each.
        targets: (n,) target speeds, where agents are such.
    """
    pays, labels = np.asarray(pays), np.asarray(assignment)
    threshold = served_above(float(pays.max()))
    served = pays > (np.inf if threshold is None else threshold)
    poor = [int((labels == policy).sum()) for policy in set(labels.tolist()) if pays[labels == policy].mean() < POOR]
    return {
        "served": int(served.sum()),
        "fastest_served": round(float(np.asarray(targets)[served].max()), 2) if targets is not None and served.any() else None,
        "largest_poor_group": max(poor, default=0),
    }


def summarize_runs(runs: Sequence[Line]) -> Line:
    """Welfare per seed and its mean, share of each seed's own bound, and transitions, which are the same for all."""
    welfare = [run["welfare"] for run in runs]
    summary = summarize_values(welfare)
    shares = [run["share_of_bound"] for run in runs]
    return {
        "seeds": [run["seed"] for run in runs],
        "transitions_per_policy": runs[0]["transitions_per_policy"],
        "total_transitions": runs[0]["total_transitions"],
        "welfare": welfare,
        "welfare_mean": summary.mean,
        "welfare_standard_error": summary.standard_error,
        "share_of_bound": None if None in shares else float(np.mean(shares)),
    }
