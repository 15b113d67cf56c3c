"""`tune`: a search over rates and sizes by Optuna; trials of equal sizes are trained together, in one program.

Trials come in rounds. Those of a round have the same sizes, and go through successive halving (Jamieson & Talwalkar 2016): all
are trained to a rung, a share of the run, evaluated by fresh episodes, and the best 1/reduction of them go on to the next. What
is found is trained again with seeds that the search has not seen, beside the settings that it began with.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmdp_jax.config import TrainConfig
from rmdp_jax.devices.mesh import check_devices
from rmdp_jax.errors import ConfigError, real_number, seed_range, whole_number
from rmdp_jax.paths import local_path
from rmdp_jax.records.files import read_json, to_json, write_json
from rmdp_jax.records.folder import RunFolder, dump_train_config
from rmdp_jax.records.lock import locked
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.algorithms import PlanRequest, make_plans, resolve, task_of
from rmdp_jax.running.progress import announce
from rmdp_jax.running.search import Setting, values_of, with_values
from rmdp_jax.running.sweep import Cell, Make, run_folder, sweep
from rmdp_jax.running.train import train_batch

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

STUDY, BEST = "study.journal", "best.json"  # files
_ROUND = "round"  # attribute of a trial: with whom it is trained
MOST_TRIALS = 100_000


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to search."""

    settings: tuple[Setting, ...]
    """What is searched."""
    trials: int = 24
    """In all, those of earlier calls included."""
    batch: int = 8
    """Trials of a round, trained together."""
    seeds: int = 1
    """Runs of a trial, whose mean welfare counts."""
    rungs: int = 2
    """How often a round is cut before its end."""
    reduction: float = 2.0
    """By which factor."""
    final_seeds: int = 5
    """Seeds that the search has not seen, by which the best settings are told from those that it began with."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("trials", 1, MOST_TRIALS),
            ("batch", 1, 1000),
            ("seeds", 1, 1000),
            ("rungs", 0, 20),
            ("final_seeds", 1, 1000),
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), low, high))
        rule = "a number above 1, at most 1000"
        object.__setattr__(self, "reduction", real_number("reduction", self.reduction, lambda x: 1 < x <= 1000, rule))


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
        raise ConfigError(
            "tune: takes optuna, which is not installed; pip install 'rmdp-jax[tune]', or in a checkout "
            "pip install -c constraints.txt -e '.[tune]'"
        )


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
    resolve(cell.algorithm, task_of(cell.algorithm, *make(cell.env, seed=first_seed, **cell.env_options))[1], cell.config)
    with locked(out):
        study = _open(out, cell, search, first_seed)
        trainer = _Trainer(cell, seeds[: search.seeds], out, make, devices, progress)
        while (number := _unfinished_round(study, search, cell.config)) is not None:
            announce(progress, f"round {number + 1}: {len(_of_round(study, number))} trials, {_told(study, search)}")
            _run_round(study, number, search, trainer)
        best = _best(study)
        config = with_values(cell.config, best.params)
    write_json(out / BEST, describe_best(cell, config))
    final = _compare(cell, config, seeds[search.seeds :], out / "final", make, devices, progress)
    return Tuned(config, best.params, float(best.value or 0.0), final, study.get_trials(), _importance(study))


def rungs_of(config: TrainConfig, rungs: int, reduction: float) -> list[int]:
    """Iterations at which a round is cut, and its end: whole multiples of log_every, rising."""
    shares = (reduction ** (rung - rungs) for rung in range(rungs))
    stops = {math.ceil(config.iterations * share / config.log_every) * config.log_every for share in shares}
    return [*sorted(stop for stop in stops if stop < config.iterations), config.iterations]


def describe_best(cell: Cell, config: TrainConfig) -> dict[str, Any]:
    """Settings as `rmdp-jax train --config` reads them; seed and number of agents are left to the caller and the task."""
    train = {name: value for name, value in dump_train_config(config).items() if name not in ("seed", "n")}
    options = {name: value for name, value in cell.env_options.items() if name != "n"}
    train |= {"n": cell.env_options["n"]} if "n" in cell.env_options else {}
    return {"format": 1, "env": cell.env, "env_options": options, "algorithm": cell.algorithm, "train": train}


class _Trainer(NamedTuple):
    """Trains trials to an iteration."""

    cell: Cell
    seeds: Sequence[int]
    out: Path
    make: Make
    devices: int | None
    progress: bool

    def folder(self, trial: int, seed: int) -> Path:
        return self.out / "trials" / f"{trial:04}-s{seed}"

    def welfare(self, trials: "Sequence[FrozenTrial]", iteration: int) -> list[float]:
        """Mean welfare of each trial, over its seeds, by fresh episodes at that iteration; NaN where it diverged."""
        cell, runs = self.cell, []
        for trial in trials:
            config = replace(with_values(cell.config, trial.params), max_fault_share=1.0)  # one that diverges stops no other
            runs += [self._request(trial.number, replace(config, seed=seed)) for seed in self.seeds]
        begun = all((request.checkpoints or Path("none")).exists() for _, _, request in runs)
        env = runs[0][1]
        requests = [request if begun else request._replace(checkpoints=None) for _, _, request in runs]
        plans = make_plans(cell.algorithm, env, requests, devices=self.devices, progress=self.progress)
        specs = [
            RunSpec(request.population, plan.config, plan.assigner, path, _stop_at(iteration))
            for (path, _, request), plan in zip(runs, plans, strict=True)
        ]
        results = train_batch(env, specs, devices=self.devices, resume=True, progress=self.progress)
        if any(result.summary["iterations"] < iteration or not result.summary.get("evaluated", True) for result in results):
            raise KeyboardInterrupt("interrupted; the same command goes on with what was saved")
        found = [result.summary["welfare"] for result in results]
        values = [math.nan if value is None else value for value in found]
        each = len(self.seeds)
        return [sum(values[at : at + each]) / each for at in range(0, len(values), each)]

    def _request(self, trial: int, config: TrainConfig) -> tuple[Path, Any, PlanRequest]:
        cell, path = self.cell, self.folder(trial, config.seed)
        env, population = task_of(cell.algorithm, *self.make(cell.env, seed=config.seed, **cell.env_options))
        config = replace(config, n=population.n)
        return path, env, PlanRequest(population, config, RunFolder(path).checkpoints)

    def forget(self, trial: int) -> None:
        """Remove the checkpoints of a trial that has ended, which are most of what it takes."""
        for seed in self.seeds:
            shutil.rmtree(RunFolder(self.folder(trial, seed)).checkpoints, ignore_errors=True)


def _stop_at(iteration: int) -> Callable[[dict[str, Any]], None]:
    def stop(line: dict[str, Any]) -> None:
        if line["iteration"] >= iteration:
            raise StopIteration

    return stop


def _open(out: Path, cell: Cell, search: Search, first_seed: int) -> "Study":
    """The study in `out`, which is made; ConfigError where it is of something else."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    about = out / "tune.json"
    told = {**describe_best(cell, cell.config), "first_seed": first_seed, "seeds": search.seeds, "rungs": search.rungs}
    told |= {"reduction": search.reduction, "batch": search.batch}
    told["search"] = {setting.name: list(setting.choices or (setting.low, setting.high)) for setting in search.settings}
    told = json.loads(to_json(told))
    if about.exists():
        there = read_json(about)
        changed = [name for name, value in told.items() if not isinstance(there, dict) or there.get(name) != value]
        if changed:
            raise ConfigError(f"out = {out}: holds a search with other {', '.join(changed)}; choose another --out")
    else:
        write_json(about, told)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(out / STUDY)))
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    seed = first_seed + len(study.get_trials(deepcopy=False))  # a search that goes on draws what it has not drawn
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.batch, constant_liar=True)
    return study


def _unfinished_round(study: "Study", search: Search, config: TrainConfig) -> int | None:
    """The number of the round that has running trials; of a new one, which is drawn; None where all trials were made."""
    from optuna.trial import TrialState

    names = {setting.name for setting in search.settings}
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for trial in running:
        if set(trial.params) != names:  # it was being drawn when the process ended
            study.tell(trial.number, state=TrialState.FAIL)
    running = [trial for trial in running if set(trial.params) == names]
    if running:
        return int(running[0].user_attrs[_ROUND])
    drawn = sum(set(trial.params) == names for trial in trials)
    if drawn >= search.trials:
        return None
    number = 1 + max((trial.user_attrs.get(_ROUND, -1) for trial in trials), default=-1)
    _draw(study, search, number, min(search.batch, search.trials - drawn), config)
    return number


def _draw(study: "Study", search: Search, number: int, size: int, config: TrainConfig) -> None:
    """A round of `size` trials with the same sizes; the first one of all has the settings that the search begins with."""
    distributions = {setting.name: setting.distribution() for setting in search.settings}
    shapes = [setting.name for setting in search.settings if setting.fixes_shapes]
    known = values_of(config, search.settings)
    fixed = {setting.name: known[setting.name] for setting in search.settings if setting.holds(known[setting.name])}
    fixed = fixed if number == 0 else {}
    for _ in range(size):
        study.enqueue_trial(fixed, user_attrs={_ROUND: number})
        trial = study.ask(distributions)
        fixed = {name: trial.params[name] for name in shapes}


def _of_round(study: "Study", number: int) -> "list[FrozenTrial]":
    return [trial for trial in study.get_trials() if trial.user_attrs.get(_ROUND) == number]


def _run_round(study: "Study", number: int, search: Search, trainer: _Trainer) -> None:
    """Train the running trials of a round from rung to rung; what was told before is not told again."""
    from optuna.trial import Trial, TrialState

    running = [trial for trial in _of_round(study, number) if trial.state == TrialState.RUNNING]
    stops = rungs_of(with_values(trainer.cell.config, running[0].params), search.rungs, search.reduction)
    for stop in stops:
        running = [trial for trial in _of_round(study, number) if trial.state == TrialState.RUNNING]
        if any(stop not in trial.intermediate_values for trial in running):
            for trial, value in zip(running, trainer.welfare(running, stop), strict=True):
                if stop not in trial.intermediate_values:
                    Trial(study, trial._trial_id).report(value, stop)
        reached = [trial for trial in _of_round(study, number) if stop in trial.intermediate_values]
        ranked = sorted(reached, key=lambda trial: _or_least(trial.intermediate_values[stop]), reverse=True)
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


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _told(study: "Study", search: Search) -> str:
    """How far the search is, in words."""
    made = len(study.get_trials(deepcopy=False))
    with suppress(ValueError):
        return f"{made} of {search.trials} drawn, best welfare so far {study.best_value:.2f}"
    return f"{made} of {search.trials} drawn"


def _best(study: "Study") -> "FrozenTrial":
    try:
        return study.best_trial
    except ValueError:
        raise ConfigError("search: no trial came to its end with a welfare; search a smaller range") from None


def _importance(study: "Study") -> dict[str, float]:
    """Share of the variance of welfare that each setting explains among trials that came to their end (fANOVA)."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(ended) < 8 or len(ended[0].params) < 2 or len({trial.value for trial in ended}) < 2:
        return {}
    with suppress(ValueError, RuntimeError):
        return dict(get_param_importances(study))
    return {}


def _compare(
    cell: Cell, best: TrainConfig, seeds: Sequence[int], out: Path, make: Make, devices: int | None, progress: bool
) -> dict[str, dict[int, float]]:
    """Welfare by seed of the best settings and of those that the search began with."""
    cells = {"preset": replace(cell, label="preset")}
    if best != cell.config:
        cells["best"] = replace(cell, config=best, label="best")
    sweep(list(cells.values()), seeds, out, make=make, devices=devices, progress=progress)

    def welfare(cell: Cell, seed: int) -> float | None:
        population = task_of(cell.algorithm, *make(cell.env, seed=seed, **cell.env_options))[1]
        k = resolve(cell.algorithm, population, cell.config).config.k
        return RunFolder(run_folder(out, cell, k, seed)).read_result()["welfare"]

    found = {name: {seed: welfare(cell, seed) for seed in seeds} for name, cell in cells.items()}
    return {name: {seed: value for seed, value in of.items() if value is not None} for name, of in found.items()}
