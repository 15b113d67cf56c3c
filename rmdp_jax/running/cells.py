"""Cells of a grid: what their runs have in common, where each run is, and how far it has come."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.paths import folder_name, local_path
from rmdp_jax.records.folder import RunFolder, describe_numerics, dump_train_config
from rmdp_jax.records.given import Named, describe_given
from rmdp_jax.records.lines import describe_task
from rmdp_jax.records.people import check_people
from rmdp_jax.records.settings import changed_settings, words_of
from rmdp_jax.records.spec import GivenPolicies, Source
from rmdp_jax.running.algorithms import resolve, task_of
from rmdp_jax.trainer import check_given

Make = Callable[..., tuple[Env, Population]]  # `rmdp_jax.envs.make`, or a user's own with the same arguments
StartOf = Callable[["Cell", int], Sequence[Named]]  # cell, seed -> policies of other runs that its run begins with

_MAY_DIFFER = ("log_every", "checkpoint_every")  # what leaves the result of a run as it is


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What the runs of one cell have in common."""

    env: str
    """Name of the task, or of a user's own, as `make` takes it."""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `make`, n too where it is not the task's own, but no seed: the agents' is the run's."""
    algorithm: str = "em"
    """A key of `rmdp_jax.running.algorithms.ALGORITHMS`."""
    config: TrainConfig
    """Settings with the whole budget; its seed is not read."""
    label: str = ""
    """What distinguishes its folders from those of a cell with other rates."""


class CellRun(NamedTuple):
    """One run as it was found."""

    cell: Cell
    env: Env
    population: Population
    config: TrainConfig  # as asked for, with the run's seed
    folder: RunFolder
    description: dict[str, Any]  # of the settings, as config.json holds them
    iteration: int | None  # of its latest checkpoint, 0 where it has none yet; None: it has to begin
    result: dict[str, Any] | None  # where it is finished
    start: tuple[Source, ...] = ()  # policies that it begins with


def run_folder(out: str | Path, cell: Cell, k: int, seed: int) -> Path:
    """Where `sweep` writes the run of `cell` with `seed`, whose algorithm comes to k policies."""
    options = [f"{name}{value}".replace("/", "_")[:80] for name, value in cell.env_options.items()]  # one folder's name
    parts = [folder_name(cell.env), *options, cell.algorithm, f"k{k}", *filter(None, [cell.label]), f"s{seed}"]
    return local_path("out", out) / "-".join(parts)


def find_run(cell: Cell, seed: int, out: Path, make: Make, start_of: StartOf) -> CellRun:
    """The run of `cell` with `seed`, as far as it has come."""
    env, population = task_of(cell.algorithm, *make(cell.env, seed=seed, **cell.env_options))
    config = replace(cell.config, n=population.n, seed=seed)
    resolved, algorithm_options, takes_given, _ = resolve(cell.algorithm, population, config)
    start = tuple(Source(str(run), policy, "") for run, policy in start_of(cell, seed))
    check_given(resolved, cell.algorithm, takes_given, GivenPolicies(start=start).given)
    folder = RunFolder(run_folder(out, cell, resolved.k, seed))
    task = json.loads(json.dumps(describe_task(env, cell.algorithm)))  # as config.json gives it back
    description = {
        **task,
        "algorithm_options": dict(algorithm_options),
        "train": dump_train_config(resolved),
        "numerics": describe_numerics(),
        **describe_given(GivenPolicies(start=start)),
    }
    return as_it_is(CellRun(cell, env, population, config, folder, description, None, None, start))


def as_it_is(run: CellRun, *, exactly: bool = False) -> CellRun:
    """`run` as far as it has come; `exactly` takes the lock of its folder, as checkpoints are looked at.

    Raises:
        ConfigError: its folder holds a run of other settings.
    """
    folder = run.folder
    if not folder.holds_run():
        return run
    changed = changed_settings(folder, run.description, (*_MAY_DIFFER, "start"))
    there, here = (_start_words(described) for described in (folder.read_config(), run.description))
    if there != here:
        changed.append(f"start ({there or 'none'} there, {here or 'none'} here)")
    if changed:
        out, name = folder.path.parent, folder.path.name
        raise ConfigError(f"out = {out}: {name} was made with other {', '.join(changed)}; choose another --out")
    if folder.has_result():
        result = folder.read_result()
        wanted = -(-run.description["train"]["transitions"] // run.config.sizes.transitions)
        if result["finished"] and result["iterations"] >= wanted:  # a longer run may have been begun from it
            if run.env.spec.make is not None:  # code that may be another by now
                check_people(folder.people, run.env, run.population)
            return run._replace(result=result)
    return run._replace(iteration=_saved_iteration(folder) if exactly else 0)


def _start_words(described: dict[str, Any]) -> str:
    """The policies that a run begins with, without the place of their folders, which may be moved."""
    return " ".join(words_of([{**source, "run": Path(source["run"]).name} for source in described.get("start", [])]))


def _saved_iteration(folder: RunFolder) -> int:
    from rmdp_jax.records.checkpoint import latest_step  # orbax takes half a second to import

    return latest_step(folder.checkpoints) or 0


def starts_of(run: CellRun) -> list[Path]:
    """Folders of the runs that it begins with."""
    return list(dict.fromkeys(Path(source.run) for source in run.start))


def is_finished(path: Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    folder = RunFolder(path)
    return folder.has_result() and bool(folder.read_result()["finished"])
