"""Rates and memory of `mjx` and `spring` at growing numbers of environments, then a short HalfCheetah training.

Every row is a process of its own: its peak memory is its own, and one that does not fit harms no other.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.common import emit, show

GRID = [
    ("spring", 5, 256),
    ("mjx", 5, 64),
    ("spring", 5, 2048),
    ("mjx", 5, 512),
    ("spring", 50, 512),
    ("mjx", 5, 2048),
]
QUICK_GRID = [("auto", 2, 2)]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A table of (env, backend, k, n, E), then a training."""

    env: str = "halfcheetah_speed"
    minutes: float = 8.5
    """No row is begun or goes on after this, but for what the training needs."""
    quick: bool = False
    """One tiny row and a tiny training, for a CPU."""


def measure_row(env: str, backend: str, k: int, environments: int, quick: bool, seconds: float) -> dict[str, Any]:
    """One configuration of `benchmarks.throughput` in a process of its own, or why there is no figure."""
    row = {"env": env, "backend": backend, "k": k, "environments": environments}
    flags = ["--backend", backend, "--k", str(k), "--environments", str(environments), "--unroll", "16"]
    flags += ["--minibatches", "4", "--epochs", "4", "--repeats", "3"] + (["--quick", "--n", "10"] if quick else [])
    command = [sys.executable, "-m", "benchmarks.throughput", "--env", env, *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1), check=False)
    except subprocess.TimeoutExpired:
        return {**row, "failed": f"no figure within {seconds:.0f} s"}
    if done.returncode:
        return {**row, "failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def train_short(env: str, quick: bool, seconds: float) -> dict[str, Any]:
    """A training by the command line; its welfare next to its bound."""
    flags = ["--k", "2", "--n", "10", "--transitions", "64", "--environments", "2", "--unroll", "16", "--minibatches", "2"]
    flags += ["--episode-length", "20", "--evaluation-episodes", "2"]
    if not quick:
        flags = ["--k", "5", "--n", "100", "--transitions", "1000000", "--environments", "256", "--unroll", "16"]
        flags += ["--minibatches", "16", "--epochs", "5", "--evaluation-episodes", "8"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "rmdp_jax", "train", env, *flags, "--quiet", "--out", str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1), check=False)
        except subprocess.TimeoutExpired:
            return {"training": env, "failed": f"did not end within {seconds:.0f} s"}
        if done.returncode:
            return {"training": env, "failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
        result = json.loads((out / "result.json").read_text())
    names = ["backend", "k", "n", "transitions_per_policy", "welfare", "upper_bound", "share_of_bound", "transitions_per_s"]
    return {"training": env, **{name: result[name] for name in [*names, "compile_s", "wall_s", "device"]}}


def _cells(row: dict[str, Any]) -> list[Any]:
    names = ["backend", "k", "n", "environments", "transitions_per_s", "physics_only_per_s", "ratio_to_physics"]
    return [row.get(name, "failed" if name == "n" else "") for name in [*names, "compile_s", "peak_memory_gib"]]


def main() -> None:
    """Rows, then the training, then the tables."""
    arguments = tyro.cli(Accelerator, description=__doc__)
    deadline = time.monotonic() + 60 * arguments.minutes
    for_training = 60.0 if arguments.quick else 150.0
    rows = []
    for backend, k, environments in QUICK_GRID if arguments.quick else GRID:
        left = deadline - for_training - time.monotonic()
        if left < 20:
            break
        row = measure_row(arguments.env, backend, k, environments, arguments.quick, left)
        emit(row)
        rows.append(row)
    columns = ["backend", "k", "n", "E", "learning/s", "physics/s", "ratio", "compile s", "GiB"]
    show(f"{arguments.env}: transitions of all policies", columns, [_cells(row) for row in rows])
    training = train_short(arguments.env, arguments.quick, deadline - time.monotonic())
    emit(training)
    show("a short training", ["", ""], [list(pair) for pair in training.items()])
    if any("failed" in row for row in [*rows, training]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
