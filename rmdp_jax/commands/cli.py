"""The command line: ``rmdp-jax train | sweep | compare | evaluate | report | render | envs | doctor``."""

import contextlib
import gc
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.doctor import Doctor
from rmdp_jax.commands.envs import Envs
from rmdp_jax.commands.finished import Evaluate, Render, Report
from rmdp_jax.commands.grids import Compare, Sweep
from rmdp_jax.commands.train import EnvOptions, Train
from rmdp_jax.commands.usage import Heard, wrap_usage
from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.errors import ConfigError
from rmdp_jax.terminal import visible

__all__ = ["COMMANDS", "EnvOptions", "main"]

DESCRIPTION = "k policies for n people: train, compare and look at them."
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
COMMANDS = {
    "train": Train,
    "sweep": Sweep,
    "compare": Compare,
    "evaluate": Evaluate,
    "report": Report,
    "render": Render,
    "envs": Envs,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is told in one line on stderr with exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    gc.freeze()  # the modules stay: collections while programs are traced need not go through them, which is a tenth of a start
    try:
        command = _parse(arguments)
        with plain_settings(say=_note) if isinstance(command, Compiling) else contextlib.nullcontext():
            if isinstance(command, Compiling):
                command.prepare()
            command.run()
    except ConfigError as error:
        print(f"rmdp-jax: error: {visible(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:  # while compiling, evaluating or pre-training; training itself ends by itself
        told = str(stop) or "interrupted; what was saved can be gone on with: --resume"
        print(f"rmdp-jax: {visible(told)}", file=sys.stderr)
        raise SystemExit(130) from None


def _note(told: str) -> None:
    print(f"rmdp-jax: note: {told}", file=sys.stderr)


def _parse(arguments: Sequence[str]) -> Any:
    from rmdp_jax.envs.presets import PRESETS

    guess = next((word for word in arguments if word in PRESETS["default"]), None)
    parsed = _parse_with(_preset_defaults(guess, arguments), arguments)
    if isinstance(parsed, Train) and parsed.env != guess and parsed.env in PRESETS["default"]:
        return _parse_with(_preset_defaults(parsed.env, arguments), arguments)  # another word was an env's name too
    return parsed


def _parse_with(train: Train, arguments: Sequence[str]) -> Any:
    command = (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Render, tyro.conf.subcommand("render")]
        | Annotated[Envs, tyro.conf.subcommand("envs")]
        | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    )
    heard, shown = io.StringIO(), Heard()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(shown):
            return tyro.cli(command, prog="rmdp-jax", args=arguments, config=CONFIG, description=DESCRIPTION)
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None and not isinstance(error, ConfigError):
            error = error.__cause__ or error.__context__
        if error is not None:
            raise error from None
        sys.stdout.write(wrap_usage(shown.getvalue()))
        sys.stderr.write(heard.getvalue())
        raise


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What follows `flag`; defaults depend on it, so it is looked for before the arguments are parsed."""
    for word, after in zip(arguments, [*arguments[1:], None], strict=True):
        if word == flag:
            return after
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None


def _preset_defaults(env: str | None, arguments: Sequence[str]) -> Train:
    """Defaults of `train`, those of the env's preset where one is named."""
    from rmdp_jax.envs.presets import preset

    blank = Train(env=tyro.MISSING)
    if env is None:
        return blank
    config = preset(env, _value_of("--preset", arguments) or blank.preset)
    names = ("transitions", "log_every", "checkpoint_every", "evaluation_episodes", "sizes", "rates")
    return replace(blank, **{name: getattr(config, name) for name in names})
