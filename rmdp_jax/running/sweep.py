"""`sweep`: a grid of envs, algorithms, numbers of policies, rates and seeds; rates and seeds share a program."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.devices.mesh import check_devices
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import MOST_SEEDS, ConfigError, TrainingError, check, seed_number
from rmdp_jax.evaluation.comparison import flat_settings
from rmdp_jax.paths import folder_name, local_path
from rmdp_jax.records.files import append_line, read_lines, to_json
from rmdp_jax.records.folder import RunFolder, check_run, describe_numerics, dump_train_config, plain_result
from rmdp_jax.records.given import Named, describe_given, given_policies
from rmdp_jax.records.lines import describe_task
from rmdp_jax.records.lock import Locked, locked
from rmdp_jax.records.people import check_people
from rmdp_jax.records.settings import changed_settings, words_of
from rmdp_jax.records.sinks import sink_names
from rmdp_jax.records.spec import GivenPolicies, RunSpec, Source
from rmdp_jax.running.algorithms import PlanRequest, make_plans, resolve, task_of
from rmdp_jax.running.apart import programs_apart
from rmdp_jax.running.progress import announce
from rmdp_jax.running.train import train_held
from rmdp_jax.trainer import check_given

Line = dict[str, Any]
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
    start: tuple[Source, ...] = ()  # policies that it begins with


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
    found = [_new_only([_find(cell, seed, out, make, start_of) for seed in seeds], names) for cell in cells]
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


def run_folder(out: str | Path, cell: Cell, k: int, seed: int) -> Path:
    """Where `sweep` writes the run of `cell` with `seed`, whose algorithm comes to k policies."""
    options = [f"{name}{value}".replace("/", "_")[:80] for name, value in cell.env_options.items()]  # one folder's name
    parts = [folder_name(cell.env), *options, cell.algorithm, f"k{k}", *filter(None, [cell.label]), f"s{seed}"]
    return local_path("out", out) / "-".join(parts)


def _hold(runs: Sequence[_Run], held: ExitStack, number: int, progress: bool) -> list[_Run]:
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
        run = _as_it_is(run, exactly=True)
        if not run.iteration and (waits := [path for path in _starts(run) if not _is_finished(path)]):
            announce(progress, f"cell {number}  {run.folder.path.name}: begins with {waits[0].name}, which is not finished")
            continue
        free.append(run)
    return free


def _starts(run: _Run) -> list[Path]:
    """Folders of the runs that it begins with."""
    return list(dict.fromkeys(Path(source.run) for source in run.start))


def _is_finished(path: Path) -> bool:
    folder = RunFolder(path)
    return folder.has_result() and bool(folder.read_result()["finished"])


def _find(cell: Cell, seed: int, out: Path, make: Make, start_of: StartOf) -> _Run:
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
    return _as_it_is(_Run(cell, env, population, config, folder, description, None, None, start))


def _as_it_is(run: _Run, *, exactly: bool = False) -> _Run:
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
        check_run(run.folder.path, resume=run.folder.holds_run())


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
    settings = replace(run.config, seed=0, rates=Rates())
    return cell.env, dict(cell.env_options), cell.algorithm, settings, structure, len(run.start)


def _groups(runs: list[_Run]) -> list[list[_Run]]:
    """Runs that one program can train: those that begin, and those that go on from the same iteration; in one env."""
    groups: dict[tuple[int, int], list[_Run]] = {}
    for run, program in zip(runs, programs_apart([(run.env, run.population, run.config) for run in runs]), strict=True):
        groups.setdefault((-1 if run.iteration is None else run.iteration, program), []).append(run)
    return [groups[place] for place in sorted(groups)]


def _train(
    runs: list[_Run],
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


def _line_of(run: _Run, result: dict[str, Any]) -> Line:
    """A finished run in runs.jsonl, with its settings."""
    line = {name: value for name, value in plain_result(result).items() if name not in ("format", "utility")}
    return line | {"settings": flat_settings(run.description["train"])}


def _given(run: _Run) -> GivenPolicies:
    named = [] if run.folder.holds_run() else [source[:2] for source in run.start]
    return given_policies(run.env, run.config, start=named, goes_on=run.folder.path)


def _describe_program(runs: list[_Run], missing: list[_Run]) -> str:
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
