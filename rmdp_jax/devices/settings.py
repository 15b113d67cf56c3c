"""What people set for JAX from outside (JAX_*, XLA_FLAGS): what is taken as it is, switched off while we compute, or refused.

    JAX_PLATFORMS         refused where JAX finds no such device, with its reason
    XLA_FLAGS             refused where XLA does not know one, as it would end the process
    JAX_DISABLE_JIT       refused: an iteration is one compiled program
    JAX_ENABLE_X64        off, as everything is float32: the same results as without it
    JAX_DEBUG_NANS, _INFS off: NaN and infinity mark what is not there, and steps that break are counted
    JAX_TRANSFER_GUARD    off: what the host reads and writes, metrics and checkpoints, is meant
    JAX_DEFAULT_PRNG_IMPL as it is: other random numbers. config.json has it, and a run goes on with the same; several runs in
                          one program take threefry2x32, as others draw by the key of the first
    JAX_DEFAULT_MATMUL_.. as it is, of the networks; config.json has it, and a run goes on with the same. Physics, rewards and
                          utilities are in float32 always
    others                as they are: JAX_DEBUG_KEY_REUSE, JAX_CHECK_TRACER_LEAKS

Memory that runs out in XLA, while it compiles or while a program runs, is reported as a `ConfigError` with the ways out.
"""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

import jax

from rmdp_jax.errors import ConfigError

_EXTRAS = {"cuda": "cuda13", "gpu": "cuda13", "tpu": "tpu"}  # of this package, by platform


class _Unwanted(NamedTuple):
    is_set: Callable[[], bool]
    off: Callable[[], AbstractContextManager[Any]]
    reason: str


def _setting(name: str) -> Any:
    return getattr(jax.config, f"jax_{name}")  # as it is in this thread


_MARKS = "NaN and infinity mark what is not there; steps that break are counted in the metrics"
_GUARDS = ("host_to_device", "device_to_device", "device_to_host")
_UNWANTED = {
    "JAX_ENABLE_X64": _Unwanted(lambda: _setting("enable_x64"), lambda: jax.enable_x64(False), "it computes in float32"),
    "JAX_DEBUG_NANS": _Unwanted(lambda: _setting("debug_nans"), lambda: jax.debug_nans(False), _MARKS),
    "JAX_DEBUG_INFS": _Unwanted(lambda: _setting("debug_infs"), lambda: jax.debug_infs(False), _MARKS),
    "JAX_TRANSFER_GUARD": _Unwanted(
        lambda: any(_setting(f"transfer_guard_{way}") not in (None, "allow") for way in _GUARDS),
        lambda: jax.transfer_guard("allow"),
        "the host reads metrics and writes checkpoints",
    ),
}


def check_settings() -> None:
    """Raise `ConfigError` where a variable of the environment keeps JAX from starting or from compiling; starts JAX."""
    check_jit()
    _check_flags(os.environ.get("XLA_FLAGS", ""))
    try:
        jax.devices()
    except Exception as error:  # an AssertionError or a RuntimeError, by platform
        wanted = jax.config.values["jax_platforms"] or ""
        extra = next((_EXTRAS[name] for name in wanted.lower().split(",") if name in _EXTRAS), None)
        install = f", or install '.[{extra}]' where there is one" if extra else ""
        reason = (str(error).strip().splitlines() or ["no plugin for it is installed, or it found nothing"])[0]
        raise ConfigError(
            f"JAX_PLATFORMS = {wanted or '(not set)'}: JAX finds no such device "
            f"({reason.partition(' (set JAX_PLATFORMS')[0]}); unset it to take what there is{install}"
        ) from None


def check_jit() -> None:
    """Raise `ConfigError` where JAX is told not to compile."""
    if _setting("disable_jit"):
        raise ConfigError(
            "JAX_DISABLE_JIT = 1: an iteration is one compiled program; unset it (to step through an env of your own, call its "
            "reset and step yourself)"
        )


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)


@contextmanager
def plain_settings(say: Callable[[str], None] = _warn) -> Iterator[None]:
    """Inside, settings of JAX that our programs cannot run under are off, and memory that runs out is a `ConfigError`.

    Args:
        say: called with a sentence for each setting that was on; a warning when not given.

    Raises:
        ConfigError: JAX is told not to compile, or memory ran out.
    """
    check_jit()
    with ExitStack() as stack:
        for name, unwanted in _UNWANTED.items():
            if unwanted.is_set():
                say(f"{name} is off while rmdp_jax computes: {unwanted.reason}")
                stack.enter_context(unwanted.off())
        stack.enter_context(memory_in_words())
        yield


@contextmanager
def memory_in_words() -> Iterator[None]:
    """XLA's error about memory, and Python's, as a `ConfigError`; other errors as they are."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size = re.search(r"allocat\w*\D{0,20}(\d+) *bytes", str(error))
        needed = f" for {int(size[1]) / 2**30:.1f} GiB more" if size else ""
        raise ConfigError(
            f"memory: there was none{needed} on {jax.devices()[0].platform}; take fewer environments or evaluation episodes, a "
            "smaller unroll, hidden, n or k, or more devices; what was saved before is kept (--resume)"
        ) from None


@cache
def _check_flags(flags: str) -> None:
    """Raise `ConfigError` where XLA would end this process over its flags; asks another process, as it cannot be caught."""
    if not flags.strip():
        return
    program = "import jaxlib.xla_client as client; client.CompileOptions()"
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, errors="replace", check=False)
    reasons = re.findall(r"^[EF]\d{4} .*?\] (.*)", asked.stderr, re.M)
    if asked.returncode != 0 and reasons:
        raise ConfigError(f"XLA_FLAGS = {flags}: XLA refuses it ({reasons[0].rstrip('.')}); take that flag out")
