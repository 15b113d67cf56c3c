"""What every benchmark shares: honest timing, JSON lines, a table, and what machine it was."""

import fcntl
import itertools
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import fields
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any, TypeVar

import jax
import tyro
from rich.console import Console
from rich.table import Table

from rmdp_jax.commands.numbers import REGISTRY
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.folder import describe_machine
from rmdp_jax.running.cache import use_cache
from rmdp_jax.running.interrupts import Stopped, stops

Name = TypeVar("Name")
Arguments = TypeVar("Arguments")
TURNS = "RMDP_JAX_TURNS"  # variable with the folder in which processes that measure side by side wait for their turn


def machine() -> dict[str, Any]:
    """Device and its memory, precision, versions and commit of a measurement."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        **describe_machine(),
        "device_memory_gib": None if limit is None else round(limit / 2**30, 1),
        "commit": git.stdout.strip() or None,
    }


def compile_timed(function: Callable[..., Any], *arguments: Any, **jit_options: Any) -> tuple[Callable[..., Any], float]:
    """`function` compiled ahead of time for these arguments (never run), and the seconds it took."""
    begun = time.perf_counter()
    compiled = jax.jit(function, **jit_options).lower(*arguments).compile()
    return compiled, time.perf_counter() - begun


@contextmanager
def alone() -> Iterator[None]:
    """Be the one process that measures: those that `benchmarks.accelerator` starts say that they are ready, and wait."""
    folder = os.environ.get(TURNS)
    if folder is None:
        yield
        return
    Path(folder, f"{os.getpid()}.ready").touch()
    with Path(folder, "turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def seconds_per_call(call: Callable[[Any], Any], state: Any, repeats: int) -> tuple[float, Any]:
    """Median seconds of `state = call(state)` over `repeats`, after one call to warm up, and the last state."""
    state = jax.block_until_ready(call(state))
    times = []
    with alone():
        for _ in range(repeats):
            begun = time.perf_counter()
            state = jax.block_until_ready(call(state))
            times.append(time.perf_counter() - begun)
    return statistics.median(times), state


def medians_in_turn(calls: Mapping[Name, Callable[[Any], Any]], states: Mapping[Name, Any], repeats: int) -> dict[Name, float]:
    """Median seconds of each `state = call(state)`, already warm, all of them one after the other in each repeat.

    What slows the machine for a while slows all of them alike, so that their ratios hold.
    """
    states = dict(states)
    times: dict[Name, list[float]] = {name: [] for name in calls}
    with alone():
        for name in list(calls) * repeats:
            begun = time.perf_counter()
            states[name] = jax.block_until_ready(calls[name](states[name]))
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` of a fresh interpreter, whose peak memory and compilation are its own.

    Raises:
        BrokenProcessPool: it was killed, as happens to those that ask for more memory than there is.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, _ending_processes():
        return pool.submit(function, *arguments).result()


def on_cores(function: Callable[..., Any], calls: Sequence[Sequence[Any]], workers: int) -> Iterator[Any]:
    """Results of `function(*arguments)` as they come, `workers` at once, each in a fresh interpreter on a core of its own.

    One that fails lets those that have begun end, and then raises. A signal that asks for an end ends them.
    """
    cores: Queue[int] = Queue()
    known = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    for core in itertools.islice(itertools.cycle(known), workers):
        cores.put(core)

    def run(arguments: Sequence[Any]) -> Any:
        core = cores.get()
        try:
            if stopped.is_set():
                raise Stopped("stopped before it began")
            return in_own_process(_on_core, core, function, arguments)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(workers) as pool, _ending_processes() as stopped:
        left = {pool.submit(run, arguments) for arguments in calls}
        try:
            while left:
                done, left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED)  # without one a signal may not be seen
                for call in done:
                    yield call.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _ending_processes() -> Iterator[Event]:
    """A signal that asks for an end sets the event, and ends the processes of this one, once; those that train save first."""
    ended: set[BaseProcess] = set()
    with stops() as stopped:
        try:
            yield stopped
        finally:
            while stopped.is_set() and (running := set(active_children())):  # one may have begun just after it was set
                for process in running - ended:
                    process.terminate()
                ended |= running
                time.sleep(0.1)


def _on_core(core: int, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all in a terminal; the first process tells this one
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # before JAX counts the cores
    use_cache()  # what differs by seed alone is compiled once
    return function(*arguments)


def peak_memory_gib() -> float:
    """Most memory that this process had at once: of the accelerator, or of the process where there is none."""
    stats = jax.devices()[0].memory_stats() or {}
    return round(stats.get("peak_bytes_in_use", _peak_resident_bytes()) / 2**30, 3)


def _peak_resident_bytes() -> int:
    try:  # ru_maxrss of Linux begins with what the parent had
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def clean_exit(name: str, again: str = "the same command goes on") -> Iterator[None]:
    """What stops the script `name` in a line on stderr: refused input, or Ctrl-C and what comes of calling it `again`."""
    try:
        yield
    except ConfigError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {again}", file=sys.stderr)
        raise SystemExit(130) from None


def read_arguments(kind: type[Arguments], description: str | None) -> Arguments:
    """The command line as a `kind` of arguments; numbers as `rmdp-jax` takes them: 1e6 is a whole one.

    Raises:
        SystemExit: with 2, a whole number is none.
    """
    found = tyro.cli(kind, description=description, registry=REGISTRY)
    for field in fields(kind):  # type: ignore[arg-type]  # all are dataclasses
        whole, value = re.fullmatch(r"[^f]*\bint\b[^f]*", str(field.type)), getattr(found, field.name)
        for number in (value if isinstance(value, tuple) else (value,)) if whole else ():
            if isinstance(number, float) or (isinstance(number, str) and "str" not in str(field.type)):
                name = Path(sys.argv[0]).stem
                print(f"{name}: error: {field.name} = {number!r}: must be a whole number", file=sys.stderr)
                raise SystemExit(2)
    return found


def emit(line: dict[str, Any]) -> None:
    """Print one JSON line on stdout."""
    print(json.dumps(line), flush=True)


def show(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table for people, on stderr."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(file=sys.stderr, highlight=False).print(table)
