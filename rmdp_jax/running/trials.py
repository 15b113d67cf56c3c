"""Trials of a search as runs: trained to a rung, side by side in one program."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.algorithms import PlanRequest, make_plans, resolve, task_of
from rmdp_jax.running.apart import programs_apart
from rmdp_jax.running.cells import Cell, Make
from rmdp_jax.running.search import with_values
from rmdp_jax.running.study import Search
from rmdp_jax.running.train import train_batch

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def rungs_of(config: TrainConfig, rungs: int, reduction: float) -> list[int]:
    """Iterations at which a round is cut, and its end: whole multiples of log_every, rising."""
    shares = (reduction ** (rung - rungs) for rung in range(rungs))
    stops = {math.ceil(config.iterations * share / config.log_every) * config.log_every for share in shares}
    return [*sorted(stop for stop in stops if stop < config.iterations), config.iterations]


class Trials(NamedTuple):
    """Trains trials to an iteration."""

    cell: Cell
    population: Population  # of any seed
    seeds: Sequence[int]
    out: Path
    make: Make
    devices: int | None
    progress: bool

    def rungs(self, values: dict[str, Any], search: Search) -> list[int]:
        """`rungs_of` a trial, of the iterations that its algorithm leaves to the policies."""
        config = resolve(self.cell.algorithm, self.population, with_values(self.cell.config, values)).config
        return rungs_of(config, search.rungs, search.reduction)

    def folder(self, trial: int, seed: int) -> Path:
        """Of one run of a trial."""
        return self.out / "trials" / f"{trial:04}-s{seed}"

    def welfare(self, trials: "Sequence[FrozenTrial]", iteration: int) -> list[float]:
        """Mean welfare of each trial, over its seeds, by fresh episodes at that iteration; NaN where it diverged."""
        cell, runs = self.cell, []
        tasks = {seed: task_of(cell.algorithm, *self.make(cell.env, seed=seed, **cell.env_options)) for seed in self.seeds}
        for trial in trials:
            config = replace(with_values(cell.config, trial.params), max_fault_share=1.0)  # one that diverges stops no other
            for seed, (env, population) in tasks.items():
                path, own = self.folder(trial.number, seed), replace(config, seed=seed, n=population.n)
                runs.append((path, env, PlanRequest(population, own, RunFolder(path).checkpoints)))
        programs = programs_apart([(env, request.population, request.config) for _, env, request in runs])
        found: dict[Path, float] = {}
        for program in dict.fromkeys(programs):
            found |= self._train([run for run, of in zip(runs, programs, strict=True) if of == program], iteration)
        values, each = [found[path] for path, *_ in runs], len(self.seeds)
        return [sum(values[at : at + each]) / each for at in range(0, len(values), each)]

    def _train(self, runs: Sequence[tuple[Path, Env, PlanRequest]], iteration: int) -> dict[Path, float]:
        """Welfare by folder of runs that one program trains."""
        begun, env = all((request.checkpoints or Path("none")).exists() for _, _, request in runs), runs[0][1]
        requests = [request if begun else request._replace(checkpoints=None) for _, _, request in runs]
        plans = make_plans(self.cell.algorithm, env, requests, devices=self.devices, progress=self.progress)
        specs = [
            RunSpec(request.population, plan.config, plan.assigner, path, _stop_at(iteration))
            for (path, _, request), plan in zip(runs, plans, strict=True)
        ]
        there = any(RunFolder(path).holds_run() for path, *_ in runs)
        results = train_batch(env, specs, devices=self.devices, resume=there, progress=self.progress)
        if any(result.summary["iterations"] < iteration or not result.summary.get("evaluated", True) for result in results):
            raise KeyboardInterrupt("interrupted; the same command goes on with what was saved")
        welfare = [result.summary["welfare"] for result in results]
        return {path: math.nan if value is None else value for (path, *_), value in zip(runs, welfare, strict=True)}

    def forget(self, trial: int) -> None:
        """Remove the checkpoints of a trial that has ended, which are most of what it takes."""
        for seed in self.seeds:
            shutil.rmtree(RunFolder(self.folder(trial, seed)).checkpoints, ignore_errors=True)


def _stop_at(iteration: int) -> Callable[[dict[str, Any]], None]:
    def stop(line: dict[str, Any]) -> None:
        if line["iteration"] >= iteration:
            raise StopIteration

    return stop
