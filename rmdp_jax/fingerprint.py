"""What a value is, as something hashable that finds a compiled program again: equal where two values make the same program.

Values are taken by content: numbers, words, arrays, containers, and functions of this package and of optax, which are the same
where their code and what they close over are. So an env that is made anew with equal options has the fingerprint of the first.

All else is itself and nothing else, above all functions of others, whatever their code says. Such a function is taken for pure,
as JAX takes it; still it counts as another one once something changed that it closes over, or a global that it names (also
where functions of its own package name it), or a number, word or array among the attributes of an object that it is a method
of. What lies deeper, changed in place, is not noticed.
"""

import functools
import re
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

LARGEST = 2**26  # bytes of an array that is taken by content
_BY_CONTENT = ("rmdp_jax.", "optax.")  # where functions read no globals that change
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, type, np.dtype, types.EllipsisType)


class Untraceable(Exception):
    """There is no fingerprint of what has no value yet, as the caller is being traced."""


def fingerprint(value: Any) -> Hashable:
    """The fingerprint of any value; it holds what is only itself, so keep few of them.

    Raises:
        Untraceable: something in it is traced.
    """
    return _of(value, set())


def fingerprint_of_program(function: Callable, *like: Any) -> Hashable:
    """Equal where two functions, whoever wrote them, have the same operations and constants for arguments of these shapes.

    It traces the function, which `fingerprint` does not.
    """
    program = jax.make_jaxpr(function)(*like)
    text = str(program.jaxpr)
    if "callback" not in text:  # else two addresses are two functions of Python
        text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return text, fingerprint(list(_constants(program)))


def _constants(part: Any) -> Iterator[Any]:
    """Arrays of a program and of the programs in it."""
    if isinstance(part, ClosedJaxpr):
        yield from part.consts
        yield from _constants(part.jaxpr)
    elif isinstance(part, Jaxpr):
        for equation in part.eqns:
            yield from (atom.val for atom in equation.invars if isinstance(atom, Literal))
            for inner in jax.tree.leaves(list(equation.params.values())):
                yield from _constants(inner)
    elif isinstance(part, np.ndarray | jax.Array):
        yield part


class _Itself:
    """Equal to itself alone, by identity, also where the value has no hash."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _of(value: Any, seen: set[int]) -> Hashable:
    """`seen` are the functions that were looked at, each once, as one may close over itself."""
    if isinstance(value, jax.core.Tracer):
        raise Untraceable
    if isinstance(value, _PLAIN):
        return type(value), repr(value) if isinstance(value, float | complex) else value  # 0.0 is not -0.0, NaN is NaN
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _array(value)
    if isinstance(value, Mapping):
        return _kind(value), tuple((_of(name, seen), _of(part, seen)) for name, part in value.items())
    if isinstance(value, tuple | list):
        return _kind(value), tuple(_of(part, seen) for part in value)
    if is_dataclass(type(value)) and type(value).__module__.startswith(_BY_CONTENT):
        return _kind(value), tuple(_of(getattr(value, field.name), seen) for field in fields(value))
    if isinstance(value, functools.partial):
        return _kind(value), _of((value.func, value.args, value.keywords), seen)
    if isinstance(value, types.MethodType):
        return _kind(value), _of(value.__func__, seen), _Itself(value.__self__), _attributes(value.__self__)
    if isinstance(value, types.FunctionType):
        return _function(value, seen)
    if isinstance(value, jax.sharding.Mesh | jax.tree_util.PyTreeDef):
        return value
    return _Itself(value), _attributes(value)


def _kind(value: Any) -> Hashable:
    return type(value).__module__, type(value).__qualname__


def _array(value: Any) -> Hashable:
    if isinstance(value, jax.Array):
        if value.is_deleted() or not value.is_fully_addressable:
            return _Itself(value)
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            with jax.ensure_compile_time_eval():  # the caller may be traced
                return str(value.dtype), _array(jax.random.key_data(value))
    if value.dtype == object or value.nbytes > LARGEST:
        return _Itself(value)
    content = np.ascontiguousarray(jax.device_get(value)).tobytes()
    return _kind(value), value.shape, str(value.dtype), getattr(value, "weak_type", False), sha256(content).digest()


def _function(function: types.FunctionType, seen: set[int]) -> Hashable:
    by_content = (function.__module__ or "").startswith(_BY_CONTENT)
    name = (function.__module__, function.__qualname__, function.__code__) if by_content else _Itself(function)
    if id(function) in seen:
        return name
    seen.add(id(function))
    read = [function.__defaults__, function.__kwdefaults__, [_cell(cell) for cell in function.__closure__ or ()]]
    named = () if by_content else tuple((global_, _of(value, seen)) for global_, value in _globals_read(function))
    return name, _of(read, seen), named


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _globals_read(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What the code of a function names, but for modules and functions of other packages."""
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        foreign = isinstance(value, types.FunctionType) and _package(value) != _package(function)
        if value is not None and not isinstance(value, types.ModuleType) and not foreign:
            yield name, value


def _package(function: types.FunctionType) -> str:
    return (function.__module__ or "").partition(".")[0]


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def _attributes(value: Any) -> Hashable:
    """The numbers, words and arrays among the attributes of an object."""
    found = [] if isinstance(value, type) else sorted(getattr(value, "__dict__", {}).items(), key=lambda item: str(item[0]))
    return tuple((name, _of(part, set())) for name, part in found if isinstance(part, (*_PLAIN, np.ndarray, jax.Array)))
