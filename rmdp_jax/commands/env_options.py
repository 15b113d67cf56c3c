"""Flags for the arguments of an env: those of the built-in tasks, and those of the function of a user's own."""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

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

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}


PLAIN = (int, float, str, bool)  # types of arguments that are flags


def options_for(names: Iterable[str], taken: Iterable[str] = ()) -> EnvOptions:
    """`EnvOptions` of tasks, with a flag for every plain argument of the functions of those that are a user's own.

    Args:
        names: of tasks.
        taken: names of flags that mean something else.

    Raises:
        ConfigError: a function cannot be found, or has an argument that is `taken`.
    """
    from rmdp_jax.envs.own import find_maker, is_own, own_options

    found: dict[str, Any] = {}
    known = {of.name for of in fields(EnvOptions)}
    for name in filter(is_own, names):
        hints = _hints(find_maker(name))
        for option, parameter in own_options(name).items():
            kind = _kind(parameter, hints)
            if option in taken:
                flag = "--" + option.replace("_", "-")
                raise ConfigError(f"{option}: {name} has an argument of this name, but {flag} is a flag of its own; rename it")
            if kind is not None and option not in known:
                default = "has to be given" if parameter.default is parameter.empty else f"default {parameter.default}"
                told = tyro.conf.arg(help=f"Of {name}; {default}.")
                found[option] = Annotated[kind | None, told]
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


def _hints(maker: Any) -> dict[str, Any]:
    try:
        return get_type_hints(maker)
    except Exception:  # names that are known to a type checker alone; defaults tell the types then
        return {}


def _kind(parameter: inspect.Parameter, hints: dict[str, Any]) -> type | None:
    """The plain type of an argument, by its annotation or else its default; None of another."""
    hint = hints.get(parameter.name)
    options = [hint, *(kind for kind in PLAIN if hint == kind | None), type(parameter.default)]
    return next((kind for kind in options if kind in PLAIN), None)
