"""A ladder: runs of several numbers of policies and seeds, beside what the one with the largest k predicts for the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.budget import Recommended, check_all_ks_within, check_ks, check_rule, recommend
from rmdp_jax.records.given import Named
from rmdp_jax.records.lock import Locked
from rmdp_jax.running.budget import Budget, budget
from rmdp_jax.running.cells import Cell, Make, run_folder
from rmdp_jax.running.sweep import sweep

if TYPE_CHECKING:
    from rmdp_jax.evaluation.statistics import Summary


class Ladder(NamedTuple):
    """Predicted and trained welfare of K numbers of policies; reference units, 0..100."""

    ks: tuple[int, ...]  # (K,)
    predicted: np.ndarray  # (K,) mean over seeds of what the run of the largest k of each seed predicts
    trained: "tuple[Summary, ...]"  # (K,) over seeds: mean, standard error, 95% bootstrap interval
    transitions: tuple[int, ...]  # (K,) environment steps of one seed, where it is warm with those of the ks before
    error: float  # mean over k of |predicted - mean trained|
    individual: float  # predicted, mean over seeds
    bound: np.ndarray | None  # (K,) mean over seeds, as speed tasks have other targets with each
    recommended: Recommended  # by what is predicted
    confirmed: Recommended  # by the same rule on the means that were trained
    seeds: tuple[int, ...]
    budgets: tuple[Budget, ...]  # of each seed
    warm: bool  # each k began with the policies of the one before
    terms: Mapping[str, Any] = MappingProxyType({})  # welfare_p and weighted, where welfare is not the mean over agents


def train_ladder(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    out: str | Path,
    *,
    make: Make,
    price: float | None = None,
    share: float | None = None,
    warm: bool = False,
    devices: int | None = None,
    progress: bool = True,
) -> Ladder:
    """Train whatever of the ladder is not there yet, one k after the other, and set what the last predicts beside it.

    Args:
        cells: of `sweep`, alike but for k, which rises.
        seeds: of every k.
        out: folder of the runs, as of `sweep`.
        make: `rmdp_jax.envs.make`.
        price, share: as of `budget`.
        warm: each k but the first begins with the policies of the one before, of the same seed, which go on learning. Takes an
            algorithm whose agents choose. Each begins anew when not given, as that was better for more k (docs/how_many.md).
        devices: how many to train on at most, as in `train`.
        progress: show on stderr what is going on.

    Raises:
        ConfigError: before anything is trained, as of `sweep`; fewer than two cells, or ks that do not rise.
        Locked: another process trains some of the runs; the same call later goes on.
        KeyboardInterrupt: Ctrl-C; the same call goes on where it was.
    """
    from rmdp_jax.evaluation.statistics import summarize_values  # scipy.stats takes long to import
    from rmdp_jax.records.loading import load_run

    rule, ks = check_rule(price, share), check_ks([cell.config.k for cell in cells], 2)
    last = cells[-1]
    if last.config.limits is not None:
        people = make(last.env, **last.env_options)[1]
        check_all_ks_within(ks, last.config.limits, people.n, people.weights)
    before = dict(zip(ks[1:], cells, strict=False))

    def start_of(cell: Cell, seed: int) -> list[Named]:
        rung = before.get(cell.config.k) if warm else None
        return [] if rung is None else [(run_folder(out, rung, rung.config.k, seed), j) for j in range(rung.config.k)]

    lines = sweep(cells, seeds, out, make=make, devices=devices, progress=progress, start_of=start_of)
    missing = len(cells) * len(seeds) - len(lines)
    if missing:
        raise Locked(f"out = {out}: {missing} of the runs are trained by another process; start the same command again")
    if any(line["welfare"] is None for line in lines):
        raise ConfigError(f"out = {out}: a run has no welfare, as it diverged; leave its k or its seed out")
    largest = [load_run(run_folder(out, cells[-1], ks[-1], seed), make) for seed in seeds]
    budgets = tuple(budget(run, ks=ks, price=price, share=share) for run in largest)
    trained = tuple(summarize_values(line["welfare"] for line in lines if line["k"] == k) for k in ks)
    predicted, means = np.mean([one.welfare for one in budgets], 0), np.array([of.mean for of in trained], float)
    spent = [next(int(line["total_transitions"]) for line in lines if line["k"] == k) for k in ks]
    individual = float(np.mean([one.individual for one in budgets]))
    bounds = [one.bound for one in budgets if one.bound is not None]
    return Ladder(
        ks=ks,
        predicted=predicted,
        trained=trained,
        transitions=tuple(np.cumsum(spent).tolist()) if warm else tuple(spent),
        error=float(np.abs(predicted - means).mean()),
        individual=individual,
        bound=np.mean(bounds, 0) if len(bounds) == len(budgets) else None,
        recommended=recommend(rule, ks, predicted, individual),
        confirmed=recommend(rule, ks, means, individual),
        seeds=tuple(seeds),
        budgets=budgets,
        warm=warm,
        terms={name: largest[0].result[name] for name in ("welfare_p", "weighted") if name in largest[0].result},
    )
