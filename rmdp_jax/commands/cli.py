"""The command line: ``rmdp-jax train | extend | sweep | tune | compare | evaluate | assign | budget | report | ...``."""

import contextlib
import gc
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from rmdp_jax.commands.assign import Assign
from rmdp_jax.commands.budget import Budget
from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.config_file import read_config_file, task_in, with_settings
from rmdp_jax.commands.doctor import Doctor
from rmdp_jax.commands.dossier import Dossier
from rmdp_jax.commands.env_options import EnvOptions, options_for, tasks_in
from rmdp_jax.commands.envs import Envs
from rmdp_jax.commands.extend import Extend
from rmdp_jax.commands.finished import Evaluate, Export, Play, Release, Render, Report
from rmdp_jax.commands.grids import Compare, Sweep
from rmdp_jax.commands.numbers import REGISTRY
from rmdp_jax.commands.train import SETTINGS, UNFINISHED, Machines, Train, settings_of
from rmdp_jax.commands.tune import Tune
from rmdp_jax.commands.usage import Heard, wrap_usage
from rmdp_jax.config import Rates, Sizes
from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.errors import ConfigError, TrainingError
from rmdp_jax.records.files import RunWarning
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.lock import Locked
from rmdp_jax.records.places import RUNS
from rmdp_jax.running.interrupts import BACKGROUND, stops, watched
from rmdp_jax.terminal import visible

__all__ = ["COMMANDS", "EnvOptions", "main"]

DESCRIPTION = "k policies for n people: train, compare and look at them. --version alone prints the version."
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
# Flags that mean something else than an argument of a user's own task.
TAKEN = {of.name for kind in (Train, Sweep, Tune, Budget, Machines, Sizes, Rates) for of in fields(kind)}
COMMANDS = {
    "train": Train,
    "extend": Extend,
    "sweep": Sweep,
    "tune": Tune,
    "compare": Compare,
    "evaluate": Evaluate,
    "assign": Assign,
    "budget": Budget,
    "report": Report,
    "dossier": Dossier,
    "render": Render,
    "play": Play,
    "export": Export,
    "release": Release,
    "envs": Envs,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0 done; 1 training ended by `TrainingError`; 2 something that a person has to change; each said in one line; 75
    a run or a sweep that a signal stopped before it was finished, or a run that another process is at, so that the same command
    is to be started again; 130 another command that was stopped.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    goes_on = _goes_on(arguments)
    gc.freeze()  # the modules stay: collections while programs are traced need not go through them, which is a tenth of a start
    try:
        with _warnings_in_a_line(), watched(lambda number: _give_up(number, goes_on)), stops():
            command = _parse(arguments)
            with plain_settings(say=_note) if isinstance(command, Compiling) else contextlib.nullcontext():
                if isinstance(command, Compiling):
                    command.prepare()
                command.run()
    except ConfigError as error:
        print(f"rmdp-jax: error: {visible(str(error))}", file=sys.stderr)
        raise SystemExit(UNFINISHED if isinstance(error, Locked) else 2) from None
    except TrainingError as error:
        print(f"rmdp-jax: error: {visible(str(error))}; what was learned is in checkpoints/", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:  # not of a file of the user's
            raise
        print(f"rmdp-jax: error: {visible(str(error.filename))}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:  # while compiling, evaluating or pre-training; training itself ends by itself
        print(_stopped(str(stop), goes_on), file=sys.stderr, flush=True)
        if any(thread.name.startswith(BACKGROUND) for thread in threading.enumerate()):
            os._exit(UNFINISHED if goes_on else 130)  # XLA would be waited for
        raise SystemExit(UNFINISHED if goes_on else 130) from None


def _goes_on(arguments: Sequence[str]) -> str:
    """How a stopped command is gone on with; nothing where it is none to start again."""
    command = arguments[0] if arguments else ""
    if command == "budget":
        command = "ladder" if tasks_in(arguments) else "budget of a run"
    resumes, again = "what was saved can be gone on with: --resume", "the same command goes on with what was saved"
    return {"train": resumes, "extend": resumes, "sweep": again, "tune": again, "ladder": again}.get(command, "")


def _stopped(what: str, goes_on: str) -> str:
    """The line that a command ends with when it was stopped."""
    if "stopped by" in what or not what:
        what = "; ".join(filter(None, [what or "interrupted", goes_on]))
    return f"rmdp-jax: {what}"


def _give_up(number: int, goes_on: str) -> None:
    """End at once, as the main thread is in compiled code for long; there is nothing to be saved there."""
    os.write(2, (_stopped(f"stopped by {signal.Signals(number).name}", goes_on) + "\n").encode())
    os._exit(UNFINISHED if goes_on else 130)


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Warnings about runs as one line each, without the place in the code; others as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RunWarning)
        ever = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **options: Any) -> None:
            if issubclass(category, RunWarning):
                print(f"rmdp-jax: warning: {visible(str(message))}", file=sys.stderr)
            else:
                ever(message, category, *place, **options)

        warnings.showwarning = show
        yield


def _note(text: str) -> None:
    print(f"rmdp-jax: note: {text}", file=sys.stderr)


def _parse(arguments: Sequence[str]) -> Any:
    from rmdp_jax.envs.own import full_name
    from rmdp_jax.envs.presets import is_task

    named, configure = _configured(arguments)
    guess = next(iter(tasks_in(arguments)), named)
    parsed = _parse_with(configure(_preset_defaults(guess, arguments)), arguments)
    if not isinstance(parsed, Train):
        return parsed
    folder = next((path for path in (Path(parsed.env), RUNS / parsed.env) if path.is_dir()), None)
    if not is_task(parsed.env) and folder is not None:  # of a run
        found = _parse_with(replace(Train(env=tyro.MISSING), **settings_of(folder)), arguments)
        env = RunFolder(folder).read_task()
        if found.config is not None:
            raise ConfigError(f"config = {found.config}: settings are those of the run in {parsed.env}; leave it out")
        _refuse_preset(arguments, folder)
        return replace(found, env=env, resume=True)
    if parsed.env != guess and is_task(parsed.env):
        parsed = _parse_with(configure(_preset_defaults(parsed.env, arguments)), arguments)  # another word was an env, too
    known = is_task(parsed.env) and (parsed.out is not None or not parsed.machines.distributed)
    if parsed.goes_on and known:  # a folder without a name takes JAX to know, which several processes wake together
        out = parsed.folder()
        if RunFolder(out).holds_run():
            env = RunFolder(out).read_task()
            if env != full_name(parsed.env):
                raise ConfigError(
                    f"resume: env ({env} there, {parsed.env} here) differs from the run in {out}; give another --out"
                )
            _refuse_preset(arguments, out)
            return _parse_with(configure(replace(Train(env=tyro.MISSING), **settings_of(out))), arguments)
    return parsed


def _refuse_preset(arguments: Sequence[str], folder: Path) -> None:
    """Raise `ConfigError` where a preset is named for a run that is gone on with."""
    preset = _value_of("--preset", arguments)
    if preset is not None:
        raise ConfigError(f"preset = {preset}: settings are those of the run in {folder}; leave it out")


def _parse_with(train: Train, arguments: Sequence[str]) -> Any:
    options, sweep, tune, budget = train.env_options, {}, {}, {}
    if type(options) is not EnvOptions:  # with flags of a task of one's own
        sweep = {"default": Sweep(envs=tyro.MISSING, out=tyro.MISSING, env_options=options)}
        tune = {"default": Tune(env=tyro.MISSING, env_options=options)}
        budget = {"default": Budget(target=tyro.MISSING, env_options=options)}
    command = (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Extend, tyro.conf.subcommand("extend")]
        | Annotated[Sweep, tyro.conf.subcommand("sweep", **sweep)]
        | Annotated[Tune, tyro.conf.subcommand("tune", **tune)]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Assign, tyro.conf.subcommand("assign")]
        | Annotated[Budget, tyro.conf.subcommand("budget", **budget)]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Dossier, tyro.conf.subcommand("dossier")]
        | Annotated[Render, tyro.conf.subcommand("render")]
        | Annotated[Play, tyro.conf.subcommand("play")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Release, tyro.conf.subcommand("release")]
        | Annotated[Envs, tyro.conf.subcommand("envs")]
        | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    )
    heard, shown = io.StringIO(), Heard()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(shown):
            return tyro.cli(command, prog="rmdp-jax", args=arguments, config=CONFIG, description=DESCRIPTION, registry=REGISTRY)
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None and not isinstance(error, ConfigError):
            error = error.__cause__ or error.__context__
        if error is not None:
            raise error from None
        sys.stdout.write(wrap_usage(shown.getvalue()))
        sys.stderr.write(heard.getvalue())
        raise


def _configured(arguments: Sequence[str]) -> tuple[str | None, Callable[[Train], Train]]:
    """The env that --config names, and defaults of `train` with its settings; as they are where none is given."""
    path = _value_of("--config", arguments) if arguments[:1] == ["train"] else None
    if path is None:
        return None, lambda train: train
    content = read_config_file(Path(path))
    return task_in(content), lambda train: with_settings(train, Path(path), content)


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What follows `flag`, of several the last; defaults depend on it, so it is looked for before the arguments are parsed."""
    for word, after in reversed(list(zip(arguments, [*arguments[1:], None], strict=True))):
        if word == flag:
            return after
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None


def _preset_defaults(env: str | None, arguments: Sequence[str]) -> Train:
    """Defaults of `train`, those of the env's preset where one is named."""
    from rmdp_jax.envs.presets import preset

    blank = Train(env=tyro.MISSING, env_options=options_for({*tasks_in(arguments), *filter(None, [env])}, TAKEN))
    if env is None:
        return blank
    config = preset(env, _value_of("--preset", arguments) or blank.preset)
    return replace(blank, **{name: getattr(config, name) for name in SETTINGS if name != "seed"})
