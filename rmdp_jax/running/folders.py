"""Folders of runs that are to be trained: had by one process, and those of the same run where it goes on."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rmdp_jax.config import TrainConfig
from rmdp_jax.devices.processes import anyone, is_first, wait_for_all
from rmdp_jax.env import Env
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.folder import RunFolder, check_run
from rmdp_jax.records.lines import describe_run
from rmdp_jax.records.lock import Locked, locked
from rmdp_jax.records.people import check_people, write_people
from rmdp_jax.records.settings import check_same_run
from rmdp_jax.records.sinks import Sinks, check_sinks
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.records.writer import RunWriter
from rmdp_jax.running.progress import announce


@contextmanager
def hold_folders(runs: Sequence[RunSpec]) -> Iterator[None]:
    """Have the folders of all runs to oneself; of several processes the first has them for all.

    Raises:
        Locked: another process trains one of them.
    """
    busy: Locked | None = None
    with ExitStack() as held:
        try:
            for run in runs if is_first() else []:
                if run.out is not None:
                    held.enter_context(locked(Path(run.out)))
        except Locked as error:
            busy = error
        if anyone(busy is not None):
            raise busy or Locked("out: another process is at one of the runs; wait for its end, or choose another folder")
        yield


def check_folders(runs: Sequence[RunSpec], resume: bool) -> None:
    """Raise `ConfigError` unless every run can be begun or gone on with, before any of them is written to."""
    for run in runs:
        check_sinks(run.log, None if run.out is None else Path(run.out))
        if run.out is not None:
            check_run(Path(run.out), resume)
        elif resume:
            raise ConfigError("resume = True: there is no folder to go on from; give out")


def open_writer(env: Env, run: RunSpec, *, resume: bool, extend: bool, progress: bool) -> RunWriter:
    """The writer of a run, whose folder says from now on what it is; one that goes on, once its checkpoint is read."""
    described = describe_run(env, run)
    sinks = Sinks(run.log, None if run.out is None else Path(run.out), described) if run.log else None
    if run.out is None:
        return RunWriter(None, run.on_metrics, writes=is_first(), sinks=sinks)
    folder = RunFolder(Path(run.out))
    before = None
    goes_on = resume and folder.holds_run()
    if goes_on:
        before = check_same_run(folder, described, extend)
        check_people(folder.people, env, run.population)
    elif resume:
        announce(progress, f"no run in {folder.path} yet: it is begun")

    def describe() -> None:
        if before is not None:
            folder.reopen()
        folder.write_config(described)
        if not (goes_on and folder.people.exists()):
            write_people(folder.people, env, run.population)

    wait_for_all("compared")
    if is_first():
        if before is not None:
            announce(progress, describe_extension(before, run.config))
        if not goes_on:
            describe()
    return RunWriter(folder, run.on_metrics, writes=is_first(), describe=describe, sinks=sinks)


def describe_extension(before: int, config: TrainConfig) -> str:
    """What going on beyond the end of a run means for its schedules, in words."""
    done = min(before / config.transitions, 1.0)
    rates = [
        f"{name.replace('_', ' ')} {end:.3g} -> {start * (end / start) ** done:.3g}" if start > 0 < end else name
        for name, (start, end) in (("learning_rate", config.rates.learning_rate), ("entropy", config.rates.entropy))
    ]
    return (
        f"extended from {before:,} to {config.transitions:,} transitions per policy. Rates follow the schedule of the longer "
        f"run, so at the former end they jump: {', '.join(rates)}. So do the algorithm's own, such as the annealing, "
        "moves and restarts of em. It is not the run that the longer one would have been from its start."
    )
