"""Errors that tell a person what to change."""

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """A bad setting, told in one line: the field, its value, the rule and the way out. The command line exits with 2."""


class TrainingError(RuntimeError):
    """Training cannot go on, told in one line; what was learned is saved. The command line exits with 1."""


def check(name: str, value: object, holds: bool, rule: str) -> None:
    """Raise `ConfigError` unless the field `name` with `value` holds its rule."""
    if not holds:
        raise ConfigError(f"{name} = {value}: must be {rule}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is in no table, with the nearest name that is."""
    known = sorted(known)
    nearest = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return ConfigError(f"{kind} = {name!r} is not known{hint} (known: {', '.join(known)})")
