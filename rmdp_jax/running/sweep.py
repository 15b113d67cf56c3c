"""`sweep`: a grid of envs, algorithms, numbers of policies, rates and seeds; rates and seeds share a program."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from rmdp_jax.config import Rates
from rmdp_jax.devices.mesh import check_devices
from rmdp_jax.errors import MOST_SEEDS, ConfigError, TrainingError, check, seed_number
from rmdp_jax.evaluation.comparison import flat_settings
from rmdp_jax.paths import local_path
from rmdp_jax.records.files import append_line, read_lines, to_json
from rmdp_jax.records.folder import check_run, plain_result
from rmdp_jax.records.given import given_policies
from rmdp_jax.records.lock import Locked, locked
from rmdp_jax.records.sinks import sink_names
from rmdp_jax.records.spec import GivenPolicies, RunSpec
from rmdp_jax.running.algorithms import PlanRequest, make_plans
from rmdp_jax.running.apart import programs_apart
from rmdp_jax.running.cells import Cell, CellRun, Make, StartOf, as_it_is, find_run, is_finished, starts_of
from rmdp_jax.running.progress import announce
from rmdp_jax.running.train import train_held

Line = dict[str, Any]


def sweep(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    out: str | Path,
    *,
    make: Make,
    devices: int | None = None,
    progress: bool = True,
    on_done: Callable[[Line], None] | None = None,
    log: Sequence[str] = (),
    start_of: StartOf = lambda cell, seed: (),
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
        log: sinks of every run, as in `train`.
        start_of: policies that a run begins with, `start` of `train`: of runs that are finished, or in cells before its own.

    Returns:
        The lines of all runs. Runs that were finished before are not trained again; unfinished ones go on. Several processes
        may make the same sweep at once, on one machine or many that see the folder: each run is trained by one of them, and
        left out here where that is another.

    Raises:
        ConfigError: before anything is trained: a cell cannot be, or `out` holds a run of other settings.
        TrainingError: a run lost more than its `max_fault_share`, and with it the runs that were trained in its program; when
            all others are trained.
        KeyboardInterrupt: Ctrl-C. The same call goes on where it was.
    """
    check_devices(devices)
    sinks = sink_names(log)
    check("seeds", f"{len(seeds)} of them", 0 < len(seeds) <= MOST_SEEDS, f"from 1 to {MOST_SEEDS:,} numbers")
    seeds = [seed_number("seeds", seed) for seed in seeds]
    out = local_path("out", out)
    names: dict[Path, dict[str, Any]] = {}
    found = [_new_only([find_run(cell, seed, out, make, start_of) for seed in seeds], names) for cell in cells]
    programs = _programs([runs for runs in found if runs])
    for runs in programs:
        for run in runs:
            _check_writable(run)
    done = _Lines(out / "runs.jsonl")
    lines: list[Line] = []
    failed: TrainingError | None = None
    for number, runs in enumerate(programs, 1):
        with ExitStack() as held:
            runs = _hold(runs, held, number, progress)  # and as they are now: others may have got on with them
            missing = [run for run in runs if run.result is None]
            announce(progress and bool(runs), f"cell {number}/{len(programs)}  {_describe_program(runs, missing)}")
            lines += [done.append_once(_line_of(run, run.result)) for run in runs if run.result is not None]
            for group in _groups(missing):
                try:
                    lines += _train(group, done, sinks, devices, progress, on_done)
                except TrainingError as error:  # of one program: the others are trained before it is raised
                    announce(progress, f"cell {number}  is left: {error}")
                    failed = failed or error
    if failed is not None:
        raise failed
    return lines


def _hold(runs: Sequence[CellRun], held: ExitStack, number: int, progress: bool) -> list[CellRun]:
    """Those of `runs` that no other process trains, as far as they have come; theirs are the folders until `held` is left."""
    free = []
    for run in runs:
        if run.result is not None:
            free.append(run)
            continue
        try:
            held.enter_context(locked(run.folder.path))
        except Locked:
            announce(progress, f"cell {number}  {run.folder.path.name}: is trained by another process, left to it")
            continue
        run = as_it_is(run, exactly=True)
        if not run.iteration and (waits := [path for path in starts_of(run) if not is_finished(path)]):
            announce(progress, f"cell {number}  {run.folder.path.name}: begins with {waits[0].name}, which is not finished")
            continue
        free.append(run)
    return free


def _new_only(runs: list[CellRun], seen: dict[Path, dict[str, Any]]) -> list[CellRun]:
    """Runs in no folder of those `seen`, which are added: `single` is the same whatever k was asked for."""
    for run in runs:
        if seen.get(run.folder.path, run.description) != run.description:
            raise ConfigError(f"cells: two of them would write {run.folder.path.name}; give each a sweep of its own")
    new = [run for run in runs if run.folder.path not in seen]
    seen |= {run.folder.path: run.description for run in new}
    return new


def _check_writable(run: CellRun) -> None:
    if run.result is None:
        check_run(run.folder.path, resume=run.folder.holds_run())


def _programs(found: Sequence[list[CellRun]]) -> list[list[CellRun]]:
    """Runs of cells that differ in their rates only, together."""
    programs: list[list[CellRun]] = []
    for runs in found:
        alike = (program for program in programs if _shared(program[0]) == _shared(runs[0]))
        if program := next(alike, None):
            program += runs
        else:
            programs.append(list(runs))
    return programs


def _shared(run: CellRun) -> tuple[Any, ...]:
    """What has to be the same for two runs to be trained by one program."""
    cell, structure = run.cell, jax.tree.structure(run.config.rates)  # a discount that is given or not
    settings = replace(run.config, seed=0, rates=Rates())
    return cell.env, dict(cell.env_options), cell.algorithm, settings, structure, len(run.start)


def _groups(runs: list[CellRun]) -> list[list[CellRun]]:
    """Runs that one program can train: those that begin, and those that go on from the same iteration; in one env."""
    groups: dict[tuple[int, int], list[CellRun]] = {}
    for run, program in zip(runs, programs_apart([(run.env, run.population, run.config) for run in runs]), strict=True):
        groups.setdefault((-1 if run.iteration is None else run.iteration, program), []).append(run)
    return [groups[place] for place in sorted(groups)]


def _train(
    runs: list[CellRun],
    done: "_Lines",
    sinks: tuple[str, ...],
    devices: int | None,
    progress: bool,
    on_done: Callable[[Line], None] | None,
) -> list[Line]:
    first = runs[0]
    requests = [PlanRequest(run.population, run.config, run.folder.checkpoints if first.iteration else None) for run in runs]
    plans = make_plans(first.cell.algorithm, first.env, requests, devices=devices, progress=progress)
    specs = [
        RunSpec(
            run.population,
            plan.config,
            plan.assigner,
            run.folder.path,
            given=_given(run),
            log=sinks,
            env_options=run.env.spec.options,
        )
        for run, plan in zip(runs, plans, strict=True)
    ]
    results = train_held(first.env, specs, devices=devices, resume=first.iteration is not None, progress=progress)
    if not all(result.summary["finished"] for result in results):
        raise KeyboardInterrupt("interrupted; the same command goes on with what was saved")
    lines = [done.append_once(_line_of(run, result.summary)) for run, result in zip(runs, results, strict=True)]
    for line in lines if on_done else []:
        on_done(line)  # type: ignore[misc]
    return lines


def _line_of(run: CellRun, result: dict[str, Any]) -> Line:
    """A finished run in runs.jsonl, with its settings."""
    line = {name: value for name, value in plain_result(result).items() if name not in ("format", "utility")}
    return line | {"settings": flat_settings(run.description["train"])}


def _given(run: CellRun) -> GivenPolicies:
    named = [] if run.folder.holds_run() else [source[:2] for source in run.start]
    return given_policies(run.env, run.config, start=named, goes_on=run.folder.path)


def _describe_program(runs: list[CellRun], missing: list[CellRun]) -> str:
    names = dict.fromkeys(run.folder.path.name.removesuffix(f"-s{run.config.seed}") for run in runs)
    seeds = dict.fromkeys(str(run.config.seed) for run in missing)
    return f"{', '.join(names)}: " + (f"seeds {', '.join(seeds)}" if missing else "finished before")


class _Lines:
    """runs.jsonl, each run once, whoever else appends to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with locked(path.parent, wait=True):
            read_lines(path)  # raises ConfigError

    def append_once(self, line: Line) -> Line:
        """Append `line` if it is missing, also as versions wrote it that left its settings out; return it as it is read."""
        line = json.loads(to_json(line))
        bare = {name: value for name, value in line.items() if name != "settings"}
        with locked(self.path.parent, wait=True):
            if not any(known in (line, bare) for known in read_lines(self.path)):
                append_line(self.path, line)
        return line
