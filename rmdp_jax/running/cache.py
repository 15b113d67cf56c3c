"""Compiled programs kept on disk for the next start: JAX's persistent compilation cache, which commands switch on.

Importing this package changes no setting of JAX. Notebooks and scripts call `use_cache()` before they compile anything.
"""

import os
import platform
from functools import cache
from hashlib import sha256
from pathlib import Path

import jax

from rmdp_jax.paths import local_path

SETTINGS = {
    # A start compiles dozens of small programs, which together are worth half a second.
    "jax_persistent_cache_min_compile_time_secs": 0.01,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}

_saved: list[float] = []  # seconds of compiling that each program from the cache spared this process


def use_cache(folder: str | Path | None = None) -> Path | None:
    """Keep the programs that this process compiles from now on, and take those that an earlier one kept.

    Programs are found by what they compute, shapes, versions of JAX and XLA, flags and device; results are the same bit
    for bit, as it is the same machine code. Nothing is ever removed: delete the folder at any time.

    Args:
        folder: where to; default `default_folder()`. What the user set for JAX wins: JAX_COMPILATION_CACHE_DIR, and the
            variables of `SETTINGS`. Do not share it with people you do not trust, as what is in it is run.

    Returns:
        The folder in use. None, and nothing is kept, where JAX_ENABLE_COMPILATION_CACHE is false or the folder cannot be
        written.

    Raises:
        ConfigError: `folder` is no path on this machine.
    """
    folder = None if folder is None else local_path("folder", folder).absolute()
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    used = jax.config.values["jax_compilation_cache_dir"]
    if used is None:
        used = _writable(folder)
        if used is None:
            return None
        jax.config.update("jax_compilation_cache_dir", str(used))
        for name, value in SETTINGS.items():
            if name.upper() not in os.environ:
                jax.config.update(name, value)
    _count_hits()
    return Path(used) if used else None


def default_folder() -> Path:
    """rmdp_jax/CPU in $XDG_CACHE_HOME, or in ~/.cache; CPU stands for the kind of processor that programs are made for."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rmdp_jax" / _cpu()


def seconds_saved() -> float:
    """Seconds of compiling that the cache has spared this process since `use_cache`."""
    return sum(_saved)


def _writable(folder: Path | None) -> Path | None:
    """The folder, made where missing, or None where that is not possible: a cache is no reason to fail."""
    try:
        path = default_folder() if folder is None else folder
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return path if os.access(path, os.W_OK) else None


def _cpu() -> str:
    """Kind of processor: homes are shared by machines, and XLA does not refuse a program of instructions that are missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{sha256(features.encode()).hexdigest()[:8]}"


@cache  # one listener per process
def _count_hits() -> None:
    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/compilation_cache/compile_time_saved_sec":
            _saved.append(max(duration_secs, 0.0))

    jax.monitoring.register_event_duration_secs_listener(listen)
