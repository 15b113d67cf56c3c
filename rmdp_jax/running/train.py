"""`train`: learn, evaluate, write down, for one run or several at once; with progress, checkpoints and a clean Ctrl-C."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rmdp_jax.assigners.base import Assigner, Given
from rmdp_jax.assigners.em import em
from rmdp_jax.checks import check_knowledge
from rmdp_jax.config import TrainConfig
from rmdp_jax.devices.mesh import choose_mesh, describe_mesh
from rmdp_jax.devices.processes import anyone, is_first, wait_for_all
from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import check, seed_range
from rmdp_jax.evaluation.episodes import evaluated_steps
from rmdp_jax.evaluation.evaluate import Evaluation
from rmdp_jax.paths import local_path
from rmdp_jax.records.given import Named, describe_given, given_policies
from rmdp_jax.records.lines import Timing, summarize
from rmdp_jax.records.sinks import sink_names
from rmdp_jax.records.spec import GivenPolicies, RunSpec
from rmdp_jax.records.writer import RunWriter, Sink
from rmdp_jax.running.apart import programs_apart
from rmdp_jax.running.batch import (
    check_batch,
    conclude,
    evaluate_runs,
    over_runs,
    people_of,
    trainer_for,
    unstack,
)
from rmdp_jax.running.folders import check_folders, hold_folders, open_writer
from rmdp_jax.running.interrupts import WRITING, Ending, aside, ending, stops
from rmdp_jax.running.late_pay import notes_on
from rmdp_jax.running.loop import learn
from rmdp_jax.running.progress import Reporter, announce, report_progress
from rmdp_jax.running.result import Result, Results, kept_of
from rmdp_jax.trainer import Conclusion, TrainState, check_given
from rmdp_jax.types import Array


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
    extend: bool = False,
    frozen: Sequence[Named] = (),
    start: Sequence[Named] = (),
    progress: bool = True,
    on_metrics: Sink | None = None,
    log: Sequence[str] = (),
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
    extend: bool = False,
    frozen: Sequence[Named] = (),
    start: Sequence[Named] = (),
    progress: bool = True,
    on_metrics: Sink | None = None,
    log: Sequence[str] = (),
) -> Results: ...


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
    extend: bool = False,
    frozen: Sequence[Named] = (),
    start: Sequence[Named] = (),
    progress: bool = True,
    on_metrics: Sink | None = None,
    log: Sequence[str] = (),
) -> Result | Results:
    """Train k policies and their assignment to n agents, then evaluate them by fresh episodes.

    Args:
        env, population: from `rmdp_jax.envs.make`, or your own.
        config: sizes, rates and length of the run; `config.n` must be the population's.
        assigner: the algorithm, `em(config.k, config.n)` when not given.
        seeds: train this many runs in one program, with seeds config.seed, config.seed + 1, ...
        out: folder for config.json, metrics.jsonl, result.json, episodes.npz and checkpoints/; nothing is written when not
            given. With `seeds`, each run has a folder seed-S in it. Several processes have to see the same folder.
        devices: how many to train on at most, see `rmdp_jax.devices.mesh.choose_mesh`; all that JAX finds when not given.
        resume: go on with the run in `out`, bit for bit as if it had never stopped (up to rounding on another number of
            devices); begin it where there is none. Settings, agents and rewards have to be those of that run.
        extend: go on, where `config.transitions` are more than the run in `out` was made for; schedules are then those of the
            longer run. Without it a run ends where it was to end.
        frozen: policies (run, j) of finished runs, in folders, that stay bit for bit as they are: the first of the k. Agents
            may choose them, and the others learn for the rest. Env, networks and normalisation have to be the same, agents
            not.
        start: policies (run, j) that come next among the k, and go on learning once groups have formed. Both take an
            algorithm whose agents choose (`Assigner.takes_given`), and k above their number. A run that is gone on with has
            them in its own checkpoints; give the same again, or none.
        progress: show a bar on stderr (lines where it is no terminal).
        on_metrics: called with every logged line; the place for other sinks. With `seeds`, the lines name their `seed`. When
            it raises StopIteration the run ends as by Ctrl-C; what else it raises comes out when the state is saved.
        log: sinks of other packages: "tensorboard", "wandb", "trackio"; see `rmdp_jax.records.sinks`. One that fails is
            reported once, and the run goes on without it.

    Returns:
        A `Result`, or a list (`Results`) of one for each of `seeds`. Ctrl-C (the stop button of a notebook), or SIGTERM,
        SIGHUP, SIGUSR1, SIGUSR2, ends training after the running chunk; the best of what was learned so far is evaluated and
        returned. Another one ends the evaluation too, or leaves it out: its numbers are NaN then, and `summary` says
        `evaluated: False`. A third one drops it all, but for what is in `out`.

    Raises:
        ConfigError: before anything is compiled; or, later, where a file cannot be written.
        KeyboardInterrupt: Ctrl-C and its like before training has begun, or for the third time.
    """
    assigner = em(config.k, config.n) if assigner is None else assigner
    sinks = sink_names(log)
    check_given(config, assigner.name, assigner.takes_given, Given(len(frozen), len(frozen) + len(start)))

    def given_to(folder: str | Path | None) -> GivenPolicies:
        goes_on = local_path("out", folder) if folder is not None and (resume or extend) else None
        with plain_settings(lambda sentence: None):  # `train_batch` reports them
            return given_policies(env, config, frozen, start, goes_on)

    if seeds is None:
        run = RunSpec(population, config, assigner, out, on_metrics, given_to(out), sinks)
        return train_batch(env, [run], devices=devices, resume=resume, extend=extend, progress=progress)[0]

    def run_of(seed: int) -> RunSpec:
        folder = None if out is None else Path(out) / f"seed-{seed}"
        sink = None if on_metrics is None else lambda line: on_metrics({"seed": seed, **line})
        return RunSpec(population, replace(config, seed=seed), assigner, folder, sink, given_to(folder), sinks)

    runs = [run_of(seed) for seed in seed_range(config.seed, seeds)]
    return train_batch(env, runs, devices=devices, resume=resume, extend=extend, progress=progress)


@plain_settings()
def train_batch(
    env: Env,
    runs: Sequence[RunSpec],
    *,
    devices: int | None = None,
    resume: bool = False,
    extend: bool = False,
    progress: bool = True,
) -> Results:
    """Train several runs of one env in one compiled program; what each learns is what it would learn alone.

    Args:
        env: what all runs act in.
        runs: they may differ in `config.seed`, `config.rates`, `population.agents` and in how their assigners
            begin. Everything else must be alike, also what `population.reward` computes; the assigner's rules are taken from
            the first.
        devices: how many to train on at most, as in `train`. They share the policies and environments of every run.
        resume, extend: as in `train`; from the latest iteration that all runs have a checkpoint of.
        progress: show a bar on stderr (lines where it is no terminal), with the mean over the runs.

    Returns:
        One `Result` per run. Their `wall_s` and `transitions_per_s` are those of the whole program.

    Raises:
        ConfigError: before anything is compiled.
    """
    runs = [run if run.out is None else run._replace(out=local_path("out", run.out)) for run in runs]
    check_batch(runs)
    if any(run.population.reward is not runs[0].population.reward for run in runs):
        apart = programs_apart([(env, run.population, run.config) for run in runs])
        check("reward", "functions that differ between runs", len(set(apart)) == 1, "one that all share; train them apart")
    for run in runs:
        check_knowledge(run.population, run.config.k)  # it is looked at after training
    trainer_for(env, runs[0], people_of(runs[:1]))  # raises ConfigError before there is any folder
    check_folders(runs, resume or extend)
    with hold_folders(runs):
        return train_held(env, runs, devices=devices, resume=resume, extend=extend, progress=progress)


def train_held(
    env: Env,
    runs: Sequence[RunSpec],
    *,
    devices: int | None = None,
    resume: bool = False,
    extend: bool = False,
    progress: bool = True,
) -> Results:
    """`train_batch` for who has the folders already, by `hold_folders`."""
    config, progress = runs[0].config, progress and is_first()
    given = runs[0].given.given
    mesh = choose_mesh(math.gcd(config.k, given.frozen, given.number), config.sizes.environments, env.spec.backend, devices)
    announce(progress and jax.device_count() > 1, describe_mesh(mesh))
    check_folders(runs, resume or extend)
    for note in notes_on(env, runs[0].population, config) if progress and not resume and not extend else ():
        announce(progress, note)
    wait_for_all("checked")
    with stops():
        writers = [open_writer(env, run, resume=resume or extend, extend=extend, progress=progress) for run in runs]
    with report_progress(progress, config.iterations) as reporter, ending(reporter.note) as end:
        states, timing = learn(env, runs, reporter, writers, mesh=mesh, resume=resume or extend)
        end.keep()
        weights = over_runs(runs[0].assigner.weights, len(runs))(states.assignment)
        conclusion, sampled, by_mode = _evaluate(env, runs, states, mesh, reporter, end)
        end.keep(WRITING)
        own = (*(unstack(tree, len(runs)) for tree in (states, weights, conclusion)), sampled, by_mode)
        results = Results(_finish(env, run, writer, timing, *of) for run, writer, *of in zip(runs, writers, *own, strict=True))
        wait_for_all("written")
    return results


def _evaluate(
    env: Env, runs: Sequence[RunSpec], states: TrainState, mesh: Mesh | None, reporter: Reporter, end: Ending
) -> tuple[Conclusion, list[Evaluation], list[Evaluation]]:
    """What every run ends with, evaluated as trained and by mode; NaN where a signal ended the evaluation before that."""
    config = runs[0].config
    conclusion = conclude(env, runs, states, mesh)
    nothing = [_not_evaluated(run.config, of.labels) for run, of in zip(runs, unstack(conclusion, len(runs)), strict=True)]
    known: list[list[Evaluation]] = []
    if not anyone(end.hurried):
        reporter.say("evaluating by fresh episodes")
        if evaluated_steps(env, config) < env.spec.episode_length:
            steps = f"the first {config.evaluation_steps:,} of {env.spec.episode_length:,} steps of an episode"
            reporter.warn(f"evaluation takes {steps}: raise evaluation_steps for more")
        try:
            with end.dropping():
                for deterministic in (False, True):
                    of = (env, runs, conclusion.policies, conclusion.labels)
                    kind = evaluate_runs(*of, deterministic=deterministic, keep=not deterministic, mesh=mesh)
                    known.append(aside(jax.block_until_ready, kind))
        except (KeyboardInterrupt, jax.errors.JaxRuntimeError) as error:  # the latter where it hit a call from compiled code
            if jax.process_count() > 1 or not (end.event.is_set() or isinstance(error, KeyboardInterrupt)):
                raise  # others wait for this process
            reporter.note("interrupted: the evaluation is left out; what was learned is kept")
    sampled, by_mode = [*known, nothing, nothing][:2]
    return conclusion, sampled, by_mode


def _not_evaluated(config: TrainConfig, labels: Array) -> Evaluation:
    nan = jnp.float32(jnp.nan)
    return Evaluation(nan, nan, jnp.full((config.k, config.n), nan), labels, nan, jnp.full(config.k, nan))


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
    summary = summarize(env, run, int(state.iteration), weights, conclusion.sources, sampled, by_mode, timing, writer.history)
    summary |= describe_given(run.given, conclusion.policies)
    if np.isnan(np.asarray(sampled.episode_length)).all():  # it was stopped; --resume makes up for it
        summary |= {"finished": False, "evaluated": False}
    summary = writer.close(summary, state, trained=timing.transitions > 0, kept=kept_of(run, state, sampled))
    writer.tell_result(summary)
    return Result(state, conclusion.policies, sampled.assignment, sampled, summary, writer.history, env, run)
