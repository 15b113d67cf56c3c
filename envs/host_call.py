"""A numpy function as an operation of a compiled program on CPUs, known to XLA by a name of its own.

`jax.pure_callback` would do, at a price: jax 0.10 never keeps a program with Python callbacks in its compilation cache (0.11
does), and every call takes its arguments through JAX arrays. Here XLA calls the function through its foreign function interface
(FFI), on the memory of its buffers. A program on several devices makes the whole call on each of them.

Source of the structures: xla/ffi/api/c_api.h, which comes with jaxlib (`jax.ffi.include_dir()`), versions 0.3 and 0.4. Each
gives its size, which is compared before the first call.
"""

import atexit
import contextlib
import ctypes
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.types import Array

Function = Callable[[np.ndarray], np.ndarray]  # (..., a) -> (..., b), float32, any leading axes; calls no JAX

_Pointer = ctypes.c_void_p
_INTERNAL = 13  # XLA_FFI_Error_Code_INTERNAL
_MAJOR = 0  # XLA_FFI_API_MAJOR
_known: dict[str, Any] = {}  # handlers by name, which must outlive all programs
_leaving = False  # Python ends


def host_call(name: str, function: Function, width: int) -> Callable[[Array], Array]:
    """`function` as a JAX function (a,) -> (width,), float32, to jit, vmap and scan; not to differentiate.

    Args:
        name: stands for what the function computes, in this process and in all that share a compilation cache. A second
            function of a known name is not looked at.
        function: must be pure and, where programs run at once, safe to call from several threads.
        width: b.

    Where programs do not run on CPUs, or XLA's interface is another, it is `jax.pure_callback`.
    """
    shape = jax.ShapeDtypeStruct((width,), jnp.float32)
    if jax.default_backend() == "cpu" and _register(name, function):
        return lambda x: jax.ffi.ffi_call(name, shape, vmap_method="broadcast_all")(x)
    return lambda x: jax.pure_callback(function, shape, x, vmap_method="broadcast_all")


def _register(name: str, function: Function) -> bool:
    """Make `name` known to XLA; false where XLA refuses it."""
    if name not in _known:
        handler = _Handler(_handle_by(function))
        try:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.cast(handler, _Pointer)), platform="cpu")
        except Exception:  # whatever jaxlib raises of a handler that names no version
            return False
        if not _known:
            atexit.register(_end_programs)
        _known[name] = handler
    return True


def _end_programs() -> None:
    """Programs under way end at their next call: one into a Python that is gone would be a crash, or wait for ever."""
    global _leaving
    _leaving = True
    for array in jax.live_arrays():
        with contextlib.suppress(Exception):
            array.block_until_ready()


def _handle_by(function: Function) -> Callable[[Any], int | None]:
    """What XLA calls: once to ask for a version, then for every operation, with addresses of its memory."""

    def handle(pointer: Any) -> int | None:
        frame = pointer.contents
        if frame.extension:
            _answer(frame)
            return None
        try:
            if _leaving:
                raise RuntimeError("Python is about to end")
            _array_at(frame.results.items[0])[...] = function(_array_at(frame.arguments.items[0]))
        except BaseException as error:  # nothing may leave: C would go on as if all were well
            details = _Error(ctypes.sizeof(_Error), None, f"{type(error).__name__}: {error}".encode(), _INTERNAL)
            return frame.api.contents.create_error(ctypes.byref(details))
        return None

    return handle


def _answer(frame: Any) -> None:
    """Name the version of XLA's interface, if it is one whose structures are those below; else none, which XLA refuses."""
    sizes = [(frame, _Frame), (frame.arguments, _Items), (frame.results, _Items)]
    version = frame.api.contents.version
    if version.major == _MAJOR and all(found.size_of == ctypes.sizeof(known) for found, known in sizes):
        asked = ctypes.cast(frame.extension, ctypes.POINTER(_Question)).contents.metadata.contents
        asked.version.major, asked.version.minor = version.major, version.minor


def _array_at(address: int) -> np.ndarray:
    """The float32 array of a buffer, in place.

    By address: what `ctypes.cast` returns refers to itself and would wait for the garbage collector, 0.8 kB a call.
    """
    buffer = _Buffer.from_address(address)
    shape = buffer.axes[: buffer.rank]
    return np.ctypeslib.as_array((ctypes.c_float * math.prod(shape)).from_address(buffer.data)).reshape(shape)


_HEAD = (("size_of", ctypes.c_size_t), ("extension", _Pointer))  # of every structure: its size in bytes, extensions


class _Version(ctypes.Structure):
    _fields_ = (*_HEAD, ("major", ctypes.c_int), ("minor", ctypes.c_int))


class _Metadata(ctypes.Structure):
    _fields_ = (("size_of", ctypes.c_size_t), ("version", _Version))  # and more that stays as it is


class _Question(ctypes.Structure):
    _fields_ = (
        ("size_of", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", _Pointer),
        ("metadata", ctypes.POINTER(_Metadata)),
    )


class _Items(ctypes.Structure):
    _fields_ = (*_HEAD, ("number", ctypes.c_int64), ("types", _Pointer), ("items", ctypes.POINTER(_Pointer)))


class _Attributes(ctypes.Structure):
    _fields_ = (*_HEAD, ("number", ctypes.c_int64), ("types", _Pointer), ("names", _Pointer), ("items", _Pointer))


class _Buffer(ctypes.Structure):
    _fields_ = (
        *_HEAD,
        ("dtype", ctypes.c_int),
        ("data", _Pointer),
        ("rank", ctypes.c_int64),
        ("axes", ctypes.POINTER(ctypes.c_int64)),
    )


class _Error(ctypes.Structure):
    _fields_ = (*_HEAD, ("message", ctypes.c_char_p), ("code", ctypes.c_int))


class _Api(ctypes.Structure):
    _fields_ = (
        *_HEAD,
        ("version", _Version),
        ("internal", _Pointer),
        ("create_error", ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_Error))),
    )


class _Frame(ctypes.Structure):
    _fields_ = (
        *_HEAD,
        ("api", ctypes.POINTER(_Api)),
        ("context", _Pointer),
        ("stage", ctypes.c_int),
        ("arguments", _Items),
        ("results", _Items),
        ("attributes", _Attributes),
    )


_Handler = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_Frame))
