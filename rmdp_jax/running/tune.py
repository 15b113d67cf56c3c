"""`tune`: a search over rates and sizes by Optuna; trials of equal sizes are trained together, in one program.

Trials come in rounds. Those of a round have the same sizes, and go through successive halving (Jamieson & Talwalkar 2016): all
are trained to a rung, a share of the run, evaluated by fresh episodes, and the best 1/reduction of them go on to the next. What
is found is trained again with seeds that the search has not seen, beside the settings that it began with.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmdp_jax.config import TrainConfig
from rmdp_jax.devices.mesh import check_devices
from rmdp_jax.errors import ConfigError, not_installed, seed_range
from rmdp_jax.paths import local_path
from rmdp_jax.records.files import write_json
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.lock import locked
from rmdp_jax.running.algorithms import resolve, task_of
from rmdp_jax.running.cells import Cell, Make, run_folder
from rmdp_jax.running.progress import announce
from rmdp_jax.running.search import with_values
from rmdp_jax.running.study import (
    Search,
    best_of,
    describe_best,
    importance_of,
    of_round,
    open_study,
    progress_of,
    unfinished_round,
)
from rmdp_jax.running.sweep import sweep
from rmdp_jax.running.trials import Trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

BEST = "best.json"


class Tuned(NamedTuple):
    """What a search found."""

    best: TrainConfig
    values: dict[str, Any]  # of the settings that were searched
    found: float  # welfare in the search, which flatters: it is the best of many
    final: dict[str, dict[int, float]]  # welfare by unseen seed, of "best" and "preset"; of one where both are the same
    trials: "list[FrozenTrial]"
    importance: dict[str, float]  # of each setting, sum 1; empty where there are too few trials to tell


def check_tune() -> None:
    """Raise `ConfigError` where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise not_installed("tune", "optuna", "tune")


def tune(
    cell: Cell,
    search: Search,
    out: str | Path,
    *,
    make: Make,
    first_seed: int = 0,
    devices: int | None = None,
    progress: bool = True,
) -> Tuned:
    """Search for settings, or go on with the search in `out`.

    Args:
        cell: task, algorithm and the settings to begin with, which are the first trial.
        search: how to search.
        out: folder of the study (study.journal, of Optuna), of the runs of each trial and of the last runs.
        make: `rmdp_jax.envs.make`.
        first_seed: the seeds of trials are this one and those after it; unseen ones follow.
        devices: how many to train on at most, as in `train`.
        progress: show on stderr what is going on.

    Raises:
        ConfigError: Optuna is missing, a setting cannot be, `out` holds a search of other settings, or no trial has a welfare.
        Locked: another process is at it.
        KeyboardInterrupt: Ctrl-C. The same call goes on where it was.
    """
    check_tune()
    check_devices(devices)
    out = local_path("out", out)
    seeds = seed_range(first_seed, search.seeds + search.final_seeds, first_name="first_seed")
    _, population = task_of(cell.algorithm, *make(cell.env, seed=first_seed, **cell.env_options))
    trainer = Trials(cell, population, seeds[: search.seeds], out, make, devices, progress)
    *stops, last = trainer.rungs({}, search)
    few = f"{len(stops)} of {search.rungs} rungs: the run has {last} iterations, {cell.config.log_every} a line"
    announce(progress and len(stops) < search.rungs, f"{few}; a smaller log_every makes room")
    with locked(out):
        study = open_study(out, cell, search, first_seed)
        while (number := unfinished_round(study, search, cell.config)) is not None:
            announce(progress, f"round {number + 1}: {len(of_round(study, number))} trials, {progress_of(study, search)}")
            _run_round(study, number, search, trainer)
        best = best_of(study)
        config = with_values(cell.config, best.params)
        write_json(out / BEST, describe_best(cell, config))
        found = replace(cell, config=config, label=f"best-trial{best.number}")  # a search that goes on may find another
        final = _compare(cell, found, seeds[search.seeds :], out / "final", make, devices, progress)
    return Tuned(config, best.params, float(best.value or 0.0), final, study.get_trials(), importance_of(study))


def _run_round(study: "Study", number: int, search: Search, trainer: Trials) -> None:
    """Train the running trials of a round from rung to rung; what was reported before is not reported again."""
    from optuna.trial import Trial, TrialState

    running = [trial for trial in of_round(study, number) if trial.state == TrialState.RUNNING]
    try:
        stops = trainer.rungs(running[0].params, search)
    except ConfigError:  # or the next call would end here, too
        for trial in running:
            study.tell(trial.number, state=TrialState.FAIL)
        raise
    for stop in stops:
        running = [trial for trial in of_round(study, number) if trial.state == TrialState.RUNNING]
        if any(stop not in trial.intermediate_values for trial in running):
            for trial, value in zip(running, trainer.welfare(running, stop), strict=True):
                if stop not in trial.intermediate_values:
                    Trial(study, trial._trial_id).report(value, stop)
        reached = [trial for trial in of_round(study, number) if stop in trial.intermediate_values]
        ranked = sorted(reached, key=lambda trial: or_least(trial.intermediate_values[stop]), reverse=True)
        going = {trial.number for trial in ranked[: math.ceil(len(ranked) / search.reduction)]}
        for trial in (trial for trial in ranked if trial.state == TrialState.RUNNING):
            value = trial.intermediate_values[stop]
            if math.isnan(value):
                study.tell(trial.number, state=TrialState.FAIL)
            elif stop == stops[-1]:
                study.tell(trial.number, value)
            elif trial.number not in going:
                study.tell(trial.number, state=TrialState.PRUNED)
            else:
                continue
            trainer.forget(trial.number)


def or_least(value: float) -> float:
    """What sorts a welfare; that of a trial that diverged is the least."""
    return -math.inf if math.isnan(value) else value


def _compare(
    cell: Cell, best: Cell, seeds: Sequence[int], out: Path, make: Make, devices: int | None, progress: bool
) -> dict[str, dict[int, float]]:
    """Welfare by seed of the best settings and of those that the search began with."""
    cells = {"preset": replace(cell, label="preset")}
    if best.config != cell.config:
        cells["best"] = best
    sweep(list(cells.values()), seeds, out, make=make, devices=devices, progress=progress)

    def welfare(cell: Cell, seed: int) -> float | None:
        population = task_of(cell.algorithm, *make(cell.env, seed=seed, **cell.env_options))[1]
        k = resolve(cell.algorithm, population, cell.config).config.k
        return RunFolder(run_folder(out, cell, k, seed)).read_result()["welfare"]

    found = {name: {seed: welfare(cell, seed) for seed in seeds} for name, cell in cells.items()}
    return {name: {seed: value for seed, value in of.items() if value is not None} for name, of in found.items()}
