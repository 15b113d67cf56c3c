"""`train`: learn, evaluate, write down, for one run or several at once; with progress, checkpoints and a clean Ctrl-C."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import jax

from rmdp_jax.assigners.base import Assigner
from rmdp_jax.assigners.em import em
from rmdp_jax.config import TrainConfig
from rmdp_jax.devices.mesh import choose_mesh, describe_mesh
from rmdp_jax.devices.processes import is_first, wait_for_all
from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.evaluate import Evaluation
from rmdp_jax.paths import local_path
from rmdp_jax.policies.model import Policies
from rmdp_jax.records.folder import check_run, open_run
from rmdp_jax.records.lines import Timing, describe_run, summarize
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.records.writer import RunWriter, Sink
from rmdp_jax.running.batch import check_batch, conclude, evaluate_runs, over_runs, trainer_for, unstack
from rmdp_jax.running.loop import learn
from rmdp_jax.running.progress import announce, report_progress
from rmdp_jax.trainer import Conclusion, TrainState
from rmdp_jax.types import Array


class Result(NamedTuple):
    """What a run ends with."""

    state: TrainState
    policies: Policies  # what acts: parameters and statistics
    assignment: Array  # (n,) int32
    evaluation: Evaluation  # by fresh episodes, acting as trained
    summary: dict[str, Any]  # what result.json holds
    history: list[dict[str, Any]]  # what metrics.jsonl holds


@overload
def train(
    env: Env,
    population: Population,
    config: TrainConfig,
    assigner: Assigner | None = None,
    *,
    seeds: None = None,
    out: str | Path | None = None,
    devices: int | None = None,
    resume: bool = False,
    progress: bool = True,
    on_metrics: Sink | None = None,
) -> Result: ...


@overload
def train(
    env: Env,
    population: Population,
    config: TrainConfig,
    assigner: Assigner | None = None,
    *,
    seeds: int,
    out: str | Path | None = None,
    devices: int | None = None,
    resume: bool = False,
    progress: bool = True,
    on_metrics: Sink | None = None,
) -> list[Result]: ...


def train(
    env: Env,
    population: Population,
    config: TrainConfig,
    assigner: Assigner | None = None,
    *,
    seeds: int | None = None,
    out: str | Path | None = None,
    devices: int | None = None,
    resume: bool = False,
    progress: bool = True,
    on_metrics: Sink | None = None,
) -> Result | list[Result]:
    """Train k policies and their assignment to n agents, then evaluate them by fresh episodes.

    Args:
        env, population: from `rmdp_jax.envs.make`, or your own.
        config: sizes, rates and length of the run; `config.n` must be the population's.
        assigner: the algorithm, `em(config.k, config.n)` when not given.
        seeds: train this many runs in one program, with seeds config.seed, config.seed + 1, ...
        out: folder for config.json, metrics.jsonl, result.json and checkpoints/; nothing is written when not given.
            With `seeds`, each run has a folder seed-S in it. Several processes have to see the same folder.
        devices: how many to train on at most, see `rmdp_jax.devices.mesh.choose_mesh`; all that JAX finds when not given.
        resume: go on from the latest checkpoint in `out`, on whatever devices.
        progress: show a bar on stderr (lines where it is no terminal).
        on_metrics: called with every logged line; the place for other sinks. With `seeds`, the lines name their `seed`.

    Returns:
        A `Result`, or a list of one for each of `seeds`. Ctrl-C ends training after the running chunk; the best of what was
        learned so far is evaluated and returned.

    Raises:
        ConfigError: before anything is compiled.
    """
    assigner = em(config.k, config.n) if assigner is None else assigner
    if seeds is None:
        run = RunSpec(population, config, assigner, out, on_metrics)
        return train_batch(env, [run], devices=devices, resume=resume, progress=progress)[0]

    def run_of(seed: int) -> RunSpec:
        folder = None if out is None else Path(out) / f"seed-{seed}"
        sink = None if on_metrics is None else lambda line: on_metrics({"seed": seed, **line})
        return RunSpec(population, replace(config, seed=seed), assigner, folder, sink)

    runs = [run_of(config.seed + i) for i in range(seeds)]
    return train_batch(env, runs, devices=devices, resume=resume, progress=progress)


@plain_settings()
def train_batch(
    env: Env,
    runs: Sequence[RunSpec],
    *,
    devices: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> list[Result]:
    """Train several runs of one env in one compiled program; what each learns is what it would learn alone.

    Args:
        env: what all runs act in.
        runs: they may differ in `config.seed`, `config.rates`, `population.agents` and in how their assigners
            begin. Everything else must be alike; `population.reward` and the assigner's rules are taken from the first.
        devices: how many to train on at most, as in `train`. They share the policies and environments of every run.
        resume: go on from the latest checkpoints in the runs' folders, which must be of the same iteration.
        progress: show a bar on stderr (lines where it is no terminal), with the mean over the runs.

    Returns:
        One `Result` per run. Their `wall_s` and `transitions_per_s` are those of the whole program.

    Raises:
        ConfigError: before anything is compiled.
    """
    runs = [run if run.out is None else run._replace(out=local_path("out", run.out)) for run in runs]
    check_batch(runs)
    trainer_for(env, runs[0], runs[0].population.agents)  # raises ConfigError before there is any folder
    config, progress = runs[0].config, progress and is_first()
    mesh = choose_mesh(config.k, config.sizes.environments, env.spec.backend, devices)
    announce(progress and jax.device_count() > 1, describe_mesh(mesh))
    writers = _open_writers(env, runs, resume)
    with report_progress(progress, config.iterations) as reporter:
        states, timing = learn(env, runs, reporter, writers, mesh=mesh, resume=resume)
        reporter.say("evaluating by fresh episodes")
        weights = over_runs(runs[0].assigner.weights, len(runs))(states.assignment)
        conclusion = conclude(env, runs, states, mesh)
        sampled, by_mode = (
            evaluate_runs(env, runs, conclusion.policies, conclusion.labels, deterministic=deterministic, mesh=mesh)
            for deterministic in (False, True)
        )
    own = (*(unstack(tree, len(runs)) for tree in (states, weights, conclusion)), sampled, by_mode)
    results = [_finish(env, run, writer, timing, *of) for run, writer, *of in zip(runs, writers, *own, strict=True)]
    wait_for_all("written")
    return results


def _open_writers(env: Env, runs: Sequence[RunSpec], resume: bool) -> list[RunWriter]:
    if resume and any(run.out is None for run in runs):
        raise ConfigError("resume = True: there is no folder to go on from; give out")
    for run in runs:
        if run.out is not None:
            check_run(Path(run.out), resume)  # all of them before the first is written to
    wait_for_all("checked")
    return [_open_writer(env, run, resume) for run in runs]


def _open_writer(env: Env, run: RunSpec, resume: bool) -> RunWriter:
    writes = is_first()
    folder = None if run.out is None else open_run(Path(run.out), describe_run(env, run), resume, writes)
    return RunWriter(folder, run.on_metrics, writes=writes)


def _finish(
    env: Env,
    run: RunSpec,
    writer: RunWriter,
    timing: Timing,
    state: TrainState,
    weights: Array,
    conclusion: Conclusion,
    sampled: Evaluation,
    by_mode: Evaluation,
) -> Result:
    summary = summarize(env, run, int(state.iteration), weights, conclusion.sources, sampled, by_mode, timing)
    summary = writer.close(summary, trained=timing.transitions > 0)
    return Result(state, conclusion.policies, sampled.assignment, sampled, summary, writer.history)
