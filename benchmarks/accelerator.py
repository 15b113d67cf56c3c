"""A short HalfCheetah training, then rates and memory of `mjx` and `spring` at growing numbers of environments.

Every row is a process of its own: its peak memory is its own, and one that does not fit harms no other. Rows come in the order
of what is wanted most; one for which the time left would not do is skipped, and says so.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks.common import emit, show


class Row(NamedTuple):
    """One line of the table."""

    backend: str  # of the env, or "warp", which is physics only
    k: int
    n: int
    environments: int  # of each policy


GRID = [
    Row("mjx", 5, 100, 512),
    Row("spring", 5, 100, 512),
    Row("warp", 5, 100, 512),
    Row("mjx", 50, 1000, 64),
    Row("mjx", 5, 100, 2048),
    Row("spring", 50, 1000, 64),
    Row("spring", 5, 100, 2048),
    Row("mjx", 5, 100, 64),
]
QUICK_GRID = [Row("auto", 2, 10, 2)]
FIRST_GUESS = 75.0  # seconds of a row while none of its backend has run


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A training, then a table of (env, backend, k, n, E)."""

    env: str = "halfcheetah_speed"
    minutes: float = 8.5
    """All of it; nothing goes on after this."""
    training_minutes: float = 4.5
    """Of these, for the training at most."""
    precision: str = "highest"
    """Of matrix products (jax_default_matmul_precision), of physics and networks alike."""
    quick: bool = False
    """A tiny training and one tiny row, for a CPU."""


def run_json(command: Sequence[str], seconds: float, read: Path | None = None) -> dict[str, Any]:
    """The JSON that a command prints last, or writes to `read`; or why there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1), check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end within {seconds:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1] if read is None else read.read_text())


def measure_row(env: str, row: Row, quick: bool, seconds: float) -> dict[str, Any]:
    """One configuration of `benchmarks.throughput`, or of `benchmarks.mjx_impl` for warp."""
    told = {"env": env, **row._asdict()}
    if row.backend == "warp":
        if importlib.util.find_spec("warp") is None:
            return {**told, "skipped": "warp-lang is not installed"}
        flags = ["--body", env.removesuffix("_speed"), "--environments", str(row.k * row.environments)]
        return told | run_json([sys.executable, "-m", "benchmarks.mjx_impl", *flags], seconds)
    flags = ["--backend", row.backend, "--k", str(row.k), "--n", str(row.n), "--environments", str(row.environments)]
    flags += ["--unroll", "16", "--minibatches", "4", "--epochs", "4", "--repeats", "3", "--no-parts"]
    command = [sys.executable, "-m", "benchmarks.throughput", "--env", env, *flags, *(["--quick"] if quick else [])]
    return told | run_json(command, seconds)


def train_short(env: str, quick: bool, seconds: float) -> dict[str, Any]:
    """A training by the command line; its welfare next to its bound."""
    flags = ["--k", "2", "--n", "10", "--transitions", "64", "--environments", "2", "--unroll", "16", "--minibatches", "2"]
    flags += ["--episode-length", "20", "--evaluation-episodes", "2"]
    if not quick:
        flags = ["--k", "50", "--n", "1000", "--transitions", "100000", "--environments", "64", "--unroll", "16"]
        flags += ["--minibatches", "8", "--epochs", "5", "--evaluation-episodes", "4"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "rmdp_jax", "train", env, *flags, "--quiet", "--no-cache", "--out", str(out)]
        result = run_json(command, seconds, out / "result.json")
    names = ["backend", "k", "n", "transitions_per_policy", "welfare", "upper_bound", "share_of_bound", "transitions_per_s"]
    names += ["compile_s", "wall_s", "device", "failed"]
    return {"training": env, **{name: result[name] for name in names if name in result}}


def measure_rows(arguments: Accelerator, deadline: float) -> list[dict[str, Any]]:
    """All rows that the time will do for; a row is taken to last as long as the longest of its backend so far."""
    lasted: dict[str, float] = {}
    rows = []
    for row in QUICK_GRID if arguments.quick else GRID:
        begun = time.monotonic()
        left, needed = deadline - begun, lasted.get(row.backend, FIRST_GUESS)
        if left < needed and not arguments.quick:
            told = {"env": arguments.env, **row._asdict(), "skipped": f"{left:.0f} s left, takes some {needed:.0f} s"}
        else:
            told = measure_row(arguments.env, row, arguments.quick, 600 if arguments.quick else left)
            lasted[row.backend] = max(lasted.get(row.backend, 0.0), time.monotonic() - begun)
        emit(told)
        rows.append(told)
    return rows


def _cells(row: dict[str, Any]) -> list[Any]:
    names = ["backend", "k", "n", "environments", "transitions_per_s", "physics_only_per_s", "ratio_to_physics"]
    without = "failed" if "failed" in row else "skipped" if "skipped" in row else ""
    return [row.get(name, without if name == "transitions_per_s" else "") for name in [*names, "compile_s", "peak_memory_gib"]]


def main() -> None:
    """Training, then rows, then the tables."""
    arguments = tyro.cli(Accelerator, description=__doc__)
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = arguments.precision  # of the processes that measure
    deadline = time.monotonic() + 60 * arguments.minutes
    training = train_short(arguments.env, arguments.quick, 60 * arguments.training_minutes)
    training["matmul_precision"] = arguments.precision
    emit(training)
    rows = measure_rows(arguments, deadline)
    columns = ["backend", "k", "n", "E", "learning/s", "physics/s", "ratio", "compile s", "GiB"]
    show(f"{arguments.env}: transitions of all policies", columns, [_cells(row) for row in rows])
    for row in rows:
        for why in ("failed", "skipped"):
            if why in row:
                print(f"{row['backend']}, k = {row['k']}, E = {row['environments']}: {why}: {row[why]}", file=sys.stderr)
    show("a short training", ["", ""], [list(pair) for pair in training.items()])
    if any("failed" in row for row in [*rows, training]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
