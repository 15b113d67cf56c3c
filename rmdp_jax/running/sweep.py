"""`sweep`: a grid of envs, algorithms, numbers of policies, rates and seeds; rates and seeds share a program."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.devices.mesh import check_devices
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.paths import local_path
from rmdp_jax.records.folder import (
    RunFolder,
    append_line,
    changed_settings,
    check_run,
    dump_train_config,
    plain_result,
    read_lines,
    write_lines,
)
from rmdp_jax.records.lines import describe_task
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.algorithms import PlanRequest, make_plans, resolve
from rmdp_jax.running.progress import announce
from rmdp_jax.running.train import train_batch

Line = dict[str, Any]
Make = Callable[..., tuple[Env, Population]]  # `rmdp_jax.envs.make`, or a user's own with the same arguments

_MAY_DIFFER = ("log_every", "checkpoint_every")  # what leaves the result of a run as it is


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What the runs of one cell have in common."""

    env: str
    """Name of the task."""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `make`, n too where it is not the task's own, but no seed: the agents' is the run's."""
    algorithm: str = "em"
    """A key of `rmdp_jax.running.algorithms.ALGORITHMS`."""
    config: TrainConfig
    """Settings with the whole budget; its seed is not read."""
    label: str = ""
    """What tells its folders from those of a cell with other rates."""


class _Run(NamedTuple):
    """One run as it was found."""

    cell: Cell
    env: Env
    population: Population
    config: TrainConfig  # as asked for, with the run's seed
    folder: RunFolder
    description: dict[str, Any]  # of the settings, as config.json holds them
    iteration: int | None  # of its latest checkpoint, 0 where it has none yet; None: it has to begin
    result: dict[str, Any] | None  # where it is finished


def sweep(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    out: str | Path,
    *,
    make: Make,
    devices: int | None = None,
    progress: bool = True,
    on_done: Callable[[Line], None] | None = None,
) -> list[Line]:
    """Train whatever of the grid is not there yet.

    Args:
        cells: what to train.
        seeds: of every cell.
        out: folder of the runs, each in one of its own, ENV[-OPTIONS]-ALGORITHM-kK[-LABEL]-sSEED, and of runs.jsonl, which
            gets a line for each finished run: its result.json without the k x n utilities.
        make: `rmdp_jax.envs.make`.
        devices: how many to train on at most, as in `train`.
        progress: show on stderr what is going on.
        on_done: called with the line of every run that was trained.

    Returns:
        The lines of all runs. Runs that were finished before are not trained again; unfinished ones go on.

    Raises:
        ConfigError: before anything is trained: a cell cannot be, or `out` holds a run of other settings.
        KeyboardInterrupt: Ctrl-C. The same call goes on where it was.
    """
    check_devices(devices)
    out = local_path("out", out)
    names: dict[Path, dict[str, Any]] = {}
    found = [_new_only([_find(cell, seed, out, make) for seed in seeds], names) for cell in cells]
    programs = _programs([runs for runs in found if runs])
    for runs in programs:
        for run in runs:
            _check_writable(run)
    log = _Lines(out / "runs.jsonl")
    lines: list[Line] = []
    for number, runs in enumerate(programs, 1):
        missing = [run for run in runs if run.result is None]
        announce(progress, f"cell {number}/{len(programs)}  {_describe_program(runs, missing)}")
        lines += [log.append_once(run.result) for run in runs if run.result is not None]
        for group in _groups(missing):
            lines += _train(group, log, devices, progress, on_done)
    return lines


def _find(cell: Cell, seed: int, out: Path, make: Make) -> _Run:
    """The run of `cell` with `seed`, as far as it has come."""
    env, population = make(cell.env, seed=seed, **cell.env_options)
    config = replace(cell.config, n=population.n, seed=seed)
    resolved, algorithm_options = resolve(cell.algorithm, population, config)
    options = [f"{name}{value}" for name, value in cell.env_options.items()]
    parts = [cell.env, *options, cell.algorithm, f"k{resolved.k}", *filter(None, [cell.label]), f"s{seed}"]
    folder = RunFolder(out / "-".join(parts))
    task = json.loads(json.dumps(describe_task(env, cell.algorithm)))  # as config.json gives it back
    description = {**task, "algorithm_options": dict(algorithm_options), "train": dump_train_config(resolved)}
    run = _Run(cell, env, population, config, folder, description, None, None)
    if not (folder.path / "config.json").exists():
        return run
    changed = changed_settings(folder, description, _MAY_DIFFER)
    if changed:
        raise ConfigError(f"out = {out}: {folder.path.name} was made with other {', '.join(changed)}; choose another --out")
    result = folder.read_result() if (folder.path / "result.json").exists() else {"finished": False}
    ended = result["finished"] and result["iterations"] >= resolved.iterations  # a longer run may have been begun from it
    return run._replace(result=result) if ended else run._replace(iteration=_saved_iteration(folder))


def _saved_iteration(folder: RunFolder) -> int:
    from rmdp_jax.records.checkpoint import has_checkpoint, restore_checkpoint  # orbax takes half a second to import

    if not has_checkpoint(folder.checkpoints):
        return 0
    return int(restore_checkpoint(folder.checkpoints, jnp.int32(0), ".iteration"))


def _new_only(runs: list[_Run], seen: dict[Path, dict[str, Any]]) -> list[_Run]:
    """Runs in no folder of those `seen`, which are added: `single` is the same whatever k was asked for."""
    for run in runs:
        if seen.get(run.folder.path, run.description) != run.description:
            raise ConfigError(f"cells: two of them would write {run.folder.path.name}; give each a sweep of its own")
    new = [run for run in runs if run.folder.path not in seen]
    seen |= {run.folder.path: run.description for run in new}
    return new


def _check_writable(run: _Run) -> None:
    if run.result is None:
        check_run(run.folder.path, resume=run.iteration is not None)


def _programs(found: Sequence[list[_Run]]) -> list[list[_Run]]:
    """Runs of cells that differ in their rates only, together."""
    programs: list[list[_Run]] = []
    for runs in found:
        alike = (program for program in programs if _shared(program[0]) == _shared(runs[0]))
        if program := next(alike, None):
            program += runs
        else:
            programs.append(list(runs))
    return programs


def _shared(run: _Run) -> tuple[Any, ...]:
    """What has to be the same for two runs to be trained by one program."""
    cell, structure = run.cell, jax.tree.structure(run.config.rates)  # a discount that is given or not
    return cell.env, dict(cell.env_options), cell.algorithm, replace(run.config, seed=0, rates=Rates()), structure


def _groups(runs: list[_Run]) -> list[list[_Run]]:
    """Runs that one program can train: those that begin, and those that go on from the same iteration."""

    def place(run: _Run) -> int:
        return -1 if run.iteration is None else run.iteration

    return [list(group) for _, group in groupby(sorted(runs, key=place), key=place)]


def _train(
    runs: list[_Run], log: "_Lines", devices: int | None, progress: bool, on_done: Callable[[Line], None] | None
) -> list[Line]:
    first = runs[0]
    requests = [PlanRequest(run.population, run.config, run.folder.checkpoints if first.iteration else None) for run in runs]
    plans = make_plans(first.cell.algorithm, first.env, requests, devices=devices, progress=progress)
    specs = [
        RunSpec(run.population, plan.config, plan.assigner, run.folder.path, env_options=run.env.spec.options)
        for run, plan in zip(runs, plans, strict=True)
    ]
    results = train_batch(first.env, specs, devices=devices, resume=first.iteration is not None, progress=progress)
    if not all(result.summary["finished"] for result in results):
        raise KeyboardInterrupt("interrupted; the same command goes on with what was saved")
    lines = [log.append_once(result.summary) for result in results]
    for line in lines if on_done else []:
        on_done(line)  # type: ignore[misc]
    return lines


def _describe_program(runs: list[_Run], missing: list[_Run]) -> str:
    names = dict.fromkeys(run.folder.path.name.removesuffix(f"-s{run.config.seed}") for run in runs)
    seeds = dict.fromkeys(str(run.config.seed) for run in missing)
    return f"{', '.join(names)}: " + (f"seeds {', '.join(seeds)}" if missing else "finished before")


class _Lines:
    """runs.jsonl, each run once."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, read_lines(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, self.lines)  # without a last line that was cut off in writing

    def append_once(self, result: dict[str, Any]) -> Line:
        """Append the line of a finished run if it is missing; return it."""
        line = {name: value for name, value in plain_result(result).items() if name not in ("format", "utility")}
        if line not in self.lines:
            self.lines.append(line)
            append_line(self.path, line)
        return line
