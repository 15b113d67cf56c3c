"""Flags for the arguments of an env: those of the built-in tasks, and those of the function of a user's own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, make_dataclass
from inspect import Parameter
from typing import Annotated, Any

import tyro

from rmdp_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """Arguments of the env; one that it does not take is refused. `rmdp-jax envs` lists who takes what."""

    size: int | None = None
    """Side of the grid (resource_gathering)."""
    episode_length: int | None = None
    """Steps after which an episode is cut."""
    backend: str | None = None
    """Physics of speed tasks: auto, native, mjx, warp, spring, positional, generalized."""
    model: str | None = None
    """Bodies of speed tasks: brax's, or gymnasium's v5 ones (an extra of that name; backend native)."""
    people_seed: int | None = None
    """Seed of the agents, where they are drawn (targets of speed tasks). Default: the run's."""

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}


def options_for(names: Iterable[str], taken: Iterable[str] = ()) -> EnvOptions:
    """`EnvOptions` of tasks, with a flag for every plain argument of the functions of those that are a user's own.

    Args:
        names: of tasks.
        taken: names of flags that mean something else.

    Raises:
        ConfigError: a function cannot be found, or has an argument that is `taken`.
    """
    from rmdp_jax.envs.own import is_own, own_options

    found: dict[str, Any] = {}
    for name in filter(is_own, names):
        for option, (kind, default) in own_options(name).items():
            if option in taken:
                flag = "--" + option.replace("_", "-")
                raise ConfigError(f"{option}: {name} has an argument of this name, but {flag} is a flag of its own; rename it")
            if kind is not None and option != "people_seed":  # else of the built-in tasks, which means something else here
                argument = tyro.conf.arg(
                    help=f"Of {name}; " + ("has to be given." if default is Parameter.empty else f"default {default}.")
                )
                found[option] = Annotated[kind | None, argument]
    if not found:
        return EnvOptions()
    own = [(option, kind, field(default=None, kw_only=True)) for option, kind in found.items()]
    made: EnvOptions = make_dataclass("EnvOptions", own, bases=(EnvOptions,), frozen=True, kw_only=True)()
    return made


def tasks_in(arguments: Sequence[str]) -> list[str]:
    """The words of a command line that are names of tasks: built-in ones; else those of a user's own that follow no flag."""
    from rmdp_jax.envs.own import is_own
    from rmdp_jax.envs.presets import PRESETS

    own = [(word, before.startswith("--")) for before, word in zip(["", *arguments], arguments, strict=False) if is_own(word)]
    plain = [word for word in arguments if word in PRESETS["default"]] + [word for word, follows in own if not follows]
    return plain or [word for word, _ in own]  # --quiet my_env:make
