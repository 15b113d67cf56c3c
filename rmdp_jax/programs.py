"""Compiled programs that this process keeps, so that a second call of the same shapes compiles nothing.

A program is found by what it is made of: the env's and the rewards' functions, settings that fix shapes or loops, the algorithm
with its options, shapes and dtypes of what it takes as arguments, devices, and the settings of JAX. Seeds, rates and agents are
arguments, so they may be others. See `rmdp_jax.fingerprint` for when two functions are the same.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

import jax

from rmdp_jax.fingerprint import Untraceable, fingerprint
from rmdp_jax.types import PyTree

T = TypeVar("T")

MOST = 32  # programs that are kept, those that were used last; a training takes about five
# Settings of JAX that leave programs as they are.
_NO_MATTER = ("jax_compilation_cache", "jax_enable_compilation_cache", "jax_persistent_cache", "jax_log", "jax_explain")

_kept: OrderedDict[Hashable, Any] = OrderedDict()
_lock = Lock()


def kept_program(kind: str, made_of: Any, make: Callable[[], T]) -> T:
    """The program of this `kind` that is made of the same, or what `make()` gives, which is kept for the next one who asks.

    `made_of` has to name all that `make` builds into it. Where that is traced, nothing is kept.
    """
    known = find(kind, made_of)
    return keep(kind, made_of, make()) if known is None else known


def find(kind: str, made_of: Any) -> Any:
    """What is kept of this `kind` and made of the same; None where nothing is."""
    key = _key(kind, made_of)
    with _lock:
        if key not in _kept:
            return None
        _kept.move_to_end(key)
        return _kept[key]


def keep(kind: str, made_of: Any, program: T) -> T:
    """Keep the `program`, and no more than `MOST`."""
    key = _key(kind, made_of)
    with _lock:
        if key is not None:
            _kept[key] = program
        while len(_kept) > MOST:
            _kept.popitem(last=False)
    return program


def _key(kind: str, made_of: Any) -> Hashable:
    try:
        return kind, fingerprint(made_of), _settings()
    except Untraceable:
        return None


def shaped_like(tree: PyTree) -> tuple[Any, ...]:
    """Structure, shapes and dtypes of the arguments that a program takes."""
    return jax.tree.structure(tree), *((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree))


def clear_programs() -> None:
    """Forget all compiled programs that this process keeps, and free their memory; the next call of each compiles anew.

    The last 32 that were used are kept, for `train`, `train_batch`, `evaluate`, `make_evaluate`, `make_act`, `assign` and what
    builds on them. What `use_cache` keeps on disk stays there.
    """
    with _lock:
        _kept.clear()


def kept_programs() -> int:
    """How many programs are kept."""
    return len(_kept)


def _settings() -> Hashable:
    """JAX's settings as they are in this thread."""
    names = sorted(name for name in jax.config.values if not name.startswith(_NO_MATTER))
    return tuple((name, str(getattr(jax.config, name, None))) for name in names)
