"""The study of a search, by Optuna: what was drawn, in which rounds, and what came of it."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmdp_jax.config import TrainConfig
from rmdp_jax.errors import ConfigError, real_number, whole_number
from rmdp_jax.records.files import read_json, to_json, write_json
from rmdp_jax.records.folder import dump_train_config
from rmdp_jax.running.cells import Cell
from rmdp_jax.running.search import Setting, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

STUDY, ABOUT = "study.journal", "tune.json"  # files
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
    """Seeds that the search has not seen, by which the best settings are compared with those that it began with."""

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


def describe_best(cell: Cell, config: TrainConfig) -> dict[str, Any]:
    """Settings as `rmdp-jax train --config` reads them; seed and number of agents are left to the caller and the task."""
    train = {name: value for name, value in dump_train_config(config).items() if name not in ("seed", "n")}
    options = {name: value for name, value in cell.env_options.items() if name != "n"}
    train |= {"n": cell.env_options["n"]} if "n" in cell.env_options else {}
    return {"format": 1, "env": cell.env, "env_options": options, "algorithm": cell.algorithm, "train": train}


def open_study(out: Path, cell: Cell, search: Search, first_seed: int) -> "Study":
    """The study in `out`, which is made; ConfigError where it is of something else."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    about = out / ABOUT
    content = {**describe_best(cell, cell.config), "first_seed": first_seed, "seeds": search.seeds, "rungs": search.rungs}
    content |= {"reduction": search.reduction, "batch": search.batch}
    content["search"] = {setting.name: list(setting.choices or (setting.low, setting.high)) for setting in search.settings}
    content = json.loads(to_json(content))
    if about.exists():
        there = read_json(about)
        changed = [name for name, value in content.items() if not isinstance(there, dict) or there.get(name) != value]
        if changed:
            raise ConfigError(f"out = {out}: holds a search with other {', '.join(changed)}; choose another --out")
    else:
        write_json(about, content)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(out / STUDY)))
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    seed = first_seed + len(study.get_trials(deepcopy=False))  # a search that goes on draws what it has not drawn
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.batch, constant_liar=True)
    return study


def unfinished_round(study: "Study", search: Search, config: TrainConfig) -> int | None:
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
    drawn = [trial.params for trial in trials if set(trial.params) == names]
    left = _undrawn(search, drawn)
    if len(drawn) >= search.trials or left == []:
        return None
    number = 1 + max((trial.user_attrs.get(_ROUND, -1) for trial in trials), default=-1)
    _draw(study, search, number, min(search.batch, search.trials - len(drawn)), config, left)
    return number


def _undrawn(search: Search, drawn: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """The combinations that were not drawn, where there are so few in all that each is a trial; else None."""
    choices = [setting.choices for setting in search.settings]
    if not all(choices) or prod(map(len, choices)) > search.trials:  # type: ignore[arg-type]
        return None
    names = [setting.name for setting in search.settings]
    every = [dict(zip(names, values, strict=True)) for values in product(*choices)]  # type: ignore[arg-type]
    return [values for values in every if values not in drawn]


def _draw(
    study: "Study",
    search: Search,
    number: int,
    size: int,
    config: TrainConfig,
    left: list[dict[str, Any]] | None,
) -> None:
    """A round of `size` trials with the same sizes; the first one of all has the settings that the search begins with.

    Of one trial where sizes alone are searched: others with the same would be the same run. Likewise each combination once
    where they are few: those `left` in turn.
    """
    distributions = {setting.name: setting.distribution() for setting in search.settings}
    shapes = [setting.name for setting in search.settings if setting.fixes_shapes]
    known = values_of(config, search.settings)
    fixed = {setting.name: known[setting.name] for setting in search.settings if setting.holds(known[setting.name])}
    fixed = fixed if number == 0 else {}
    if left is not None:
        first = fixed if fixed in left else left[0]
        alike = [values for values in left if values != first and all(values[name] == first[name] for name in shapes)]
        for values in [first, *alike][:size]:
            study.enqueue_trial(values, user_attrs={_ROUND: number})
            study.ask(distributions)
        return
    for _ in range(size if len(shapes) < len(search.settings) else 1):
        study.enqueue_trial(fixed, user_attrs={_ROUND: number})
        trial = study.ask(distributions)
        fixed = {name: trial.params[name] for name in shapes}


def of_round(study: "Study", number: int) -> "list[FrozenTrial]":
    """The trials of a round."""
    return [trial for trial in study.get_trials() if trial.user_attrs.get(_ROUND) == number]


def progress_of(study: "Study", search: Search) -> str:
    """How far the search is, in words."""
    made = len(study.get_trials(deepcopy=False))
    with suppress(ValueError):
        return f"{made} of {search.trials} drawn, best welfare so far {study.best_value:.2f}"
    return f"{made} of {search.trials} drawn"


def best_of(study: "Study") -> "FrozenTrial":
    """The best trial that came to its end, or ConfigError."""
    try:
        return study.best_trial
    except ValueError:
        raise ConfigError("search: no trial came to its end with a welfare; search a smaller range") from None


def importance_of(study: "Study") -> dict[str, float]:
    """Share of the variance of welfare that each setting explains among trials that came to their end (fANOVA)."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(ended) < 8 or len(ended[0].params) < 2 or len({trial.value for trial in ended}) < 2:
        return {}
    with suppress(ValueError, RuntimeError):
        return dict(get_param_importances(study))
    return {}
