"""Errors that tell a person what to change, and the checks that raise them: every number, flag and name comes in by these.

Numbers are taken as Python, numpy, JAX and pandas hand them out (0-d arrays too), and come back as Python's own, so that
settings can be compared, hashed and written as JSON. 1e6 is a whole number, True is none.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

INT32 = 2**31 - 1  # the largest number that a clock or a counter on the device holds
MOST_ITERATIONS = 10**9  # of a run, and of what lasts some of them, so that sums of two are int32
FLOAT32 = np.finfo(np.float32)
SEEDS = 2**32  # how many there are
MOST_SEEDS = 10_000  # of a grid of runs; more is a slip of the pen
_LONGEST = 80  # characters of a value in a message

T = TypeVar("T")


class ConfigError(ValueError):
    """A bad setting, said in one line: the field, its value, the rule and the way out. The command line exits with 2."""

    def __init__(self, message: str = ""):
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))  # of a path, say


class UnknownName(ConfigError):
    """A name that is in no table."""


class TrainingError(RuntimeError):
    """Training cannot go on, said in one line; what was learned is saved. The command line exits with 1."""


def check(name: str, value: object, holds: bool, rule: str) -> None:
    """Raise `ConfigError` unless the field `name` with `value` holds its rule."""
    if not holds:
        raise ConfigError(f"{name} = {in_line(value)}: must be {rule}")


def whole_number(name: str, value: Any, low: int = 1, high: int = INT32, rule: str | None = None) -> int:
    """`value` as an int from `low` to `high`; `rule` says so in other words.

    Raises:
        ConfigError: it is no whole number, or out of range.
    """
    number = plain_number(value)
    whole = isinstance(number, int) or (number is not None and number.is_integer())
    least = {0: "a whole number from 0 up", 1: "a whole number of at least 1"}.get(low, f"a whole number from {low} up")
    _check_shown(name, value, whole and number >= low, rule or least)  # type: ignore[operator]
    check(name, number, number <= high, rule or f"at most {high:,}")  # type: ignore[operator]
    return int(number)  # type: ignore[arg-type]


def real_number(name: str, value: Any, holds: Callable[[float], bool], rule: str) -> float:
    """`value` as a float that holds the `rule`.

    Raises:
        ConfigError: it is no number, or does not.
    """
    number = plain_number(value)
    try:
        number = None if number is None else float(number)
    except OverflowError:  # a whole number beyond all floats
        number = None
    _check_shown(name, value, number is not None and bool(holds(number)), rule)
    return number  # type: ignore[return-value]


def positive_number(name: str, value: Any) -> float:
    """`value` as a float above 0, or ConfigError."""
    return real_number(name, value, is_positive, POSITIVE)


def is_positive(number: float) -> bool:
    """Whether a number is above 0 in float32 too, and finite there."""
    return float(FLOAT32.tiny) <= number <= float(FLOAT32.max)


POSITIVE = "a positive number, of those that float32 holds"


def number_between(name: str, value: Any, low: float, high: float, rule: str | None = None) -> float:
    """`value` as a float from `low` to `high`, or ConfigError."""
    return real_number(name, value, lambda number: low <= number <= high, rule or f"a number from {low:g} to {high:g}")


def share_of_run(name: str, value: Any) -> float:
    """`value` as a share, or ConfigError."""
    return number_between(name, value, 0.0, 1.0, "a share of the run, from 0 to 1")


def several(values: Any) -> tuple[Any, ...]:
    """The numbers of a tuple, a list or an array, nothing of what is none of these."""
    if isinstance(values, tuple | list):
        return tuple(values)
    if isinstance(values, jax.core.Tracer):
        return tuple(values) if values.ndim == 1 else ()
    array = np.asarray(values) if hasattr(values, "__array__") else np.zeros(())
    return tuple(array) if array.ndim == 1 else ()


def seed_number(name: str, value: Any) -> int:
    """`value` as a seed, or ConfigError."""
    return whole_number(name, value, 0, SEEDS - 1, "a whole number from 0 to 2^32 - 1")


def seed_range(first: Any, number: Any, name: str = "seeds", first_name: str = "seed") -> range:
    """`number` seeds from `first` on, or ConfigError."""
    first, number = seed_number(first_name, first), whole_number(name, number, 1, MOST_SEEDS)
    check(
        name, number, first + number <= SEEDS, f"at most {SEEDS - first} from {first_name} = {first} on, as seeds end at 2^32"
    )
    return range(first, first + number)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool, or ConfigError."""
    _check_shown(name, value, isinstance(value, bool | np.bool_), "True or False")
    return bool(value)


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    """`value`, which has to be one of a few words, or ConfigError."""
    words = list(known)
    _check_shown(name, value, isinstance(value, str) and value in words, " or ".join(map(repr, words)))
    return str(value)


def known_name(kind: str, name: Any, table: Mapping[str, T]) -> T:
    """What stands under `name` in `table`, or the error of `unknown_name`."""
    if not isinstance(name, str) or name not in table:
        raise unknown_name(kind, name, table)
    return table[name]


def instance_of(name: str, value: T, kind: type, example: str) -> T:
    """`value`, which has to be of a class, or ConfigError."""
    _check_shown(name, value, isinstance(value, kind), example)
    return value


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """The error for a name that is in no table, with the nearest name that is."""
    known = sorted(known)
    nearest = get_close_matches(str(name), known, n=1, cutoff=0.4) if isinstance(name, str) else []
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return UnknownName(f"{kind} = {shown(name)} is not known{hint} (known: {', '.join(known)})")


def not_installed(what: str, package: str, extra: str, otherwise: str = "") -> ConfigError:
    """The error for `what` takes a package of an extra that is not there; `otherwise` is another way out."""
    install = f"pip install 'rmdp-jax[{extra}]', or in a checkout pip install -e '.[{extra}]'"
    return ConfigError(f"{what}: takes {package}, which is not installed; {install}{otherwise}")


def plain_number(value: Any) -> int | float | None:
    """`value` as Python's own int or float; None of what is no single number, or not known yet because it is traced."""
    if isinstance(value, bool | np.bool_ | str | bytes | jax.core.Tracer):
        return None
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, Real):  # which numpy's scalars are
        value = np.asarray(value) if hasattr(value, "__array__") else None
        if value is None or value.ndim or not (jnp.issubdtype(value.dtype, jnp.integer) or _is_float(value.dtype)):
            return None
        return int(value) if jnp.issubdtype(value.dtype, jnp.integer) else float(value)
    try:
        return int(value) if isinstance(value, np.integer) else float(value)
    except (OverflowError, ValueError, TypeError):  # a fraction beyond all floats
        return None


def shown(value: object) -> str:
    """`value` as a message has it: short, in one line, words in quotes."""
    return in_line(repr(value) if isinstance(value, str) else value)


def _check_shown(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} = {shown(value)}: must be {rule}")


def in_line(value: object) -> str:
    """`value` as text, short and in one line."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 100:  # Python refuses to print long ones
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = " ".join(str(value).split())
    except Exception:  # whatever a stranger's __str__ does, or a tuple with too long a number in it
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def _is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)  # bfloat16 too
