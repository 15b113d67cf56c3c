"""Does every algorithm train on two processes with two devices each, forced on a CPU, and go on there as if never stopped?

Each is stopped halfway and gone on with by both processes; the result stands beside that of one process with one device.
"""

import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.common import emit, show
from rmdp_jax.errors import known_name

ITERATIONS, TIME_S = 12, 1800.0
ALONE = 2  # number of the process that trains for itself, beside 0 and 1
ALGORITHMS = (
    *("em", "plain_em", "end_to_end", "end_to_end_surrogate", "cluster", "affinity", "cover", "random", "oracle"),
    *("single", "individual", "contextual"),
)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """A line for each algorithm."""

    algorithms: tuple[str, ...] = ALGORITHMS
    quick: bool = False
    """em alone."""
    worker: tuple[str, ...] = ()
    """Used inside: number of this process (2: it is alone), port, folder."""


def train_all(algorithms: tuple[str, ...], number: int, port: str, folder: Path) -> None:
    """One of two processes, or one that is alone: each algorithm, stopped halfway where it is one of two, and gone on with."""
    from dataclasses import replace

    from rmdp_jax import train
    from rmdp_jax.devices.processes import join
    from rmdp_jax.envs import make, preset
    from rmdp_jax.running.algorithms import make_plan, task_of

    if number < ALONE:
        join(f"127.0.0.1:{port}", 2, number)
    config = preset("resource_gathering", k=2, n=4, evaluation_episodes=4, log_every=ITERATIONS // 2)
    sizes = replace(config.sizes, environments=4, unroll=8, epochs=1, minibatches=2, hidden=(8,))
    config = replace(config, sizes=sizes, transitions=ITERATIONS * sizes.transitions)

    def stop(line: dict[str, Any]) -> None:
        if number < ALONE and line["iteration"] == ITERATIONS // 2:
            raise StopIteration

    for name in algorithms:
        env, population = task_of(name, *make("resource_gathering", size=2))
        out = folder / name
        plan = make_plan(name, env, population, config)
        train(env, population, plan.config, plan.assigner, out=out, progress=False, on_metrics=stop)
        if number < ALONE:
            plan = make_plan(name, env, population, config, checkpoints=out / "checkpoints")
            train(env, population, plan.config, plan.assigner, out=out, progress=False, resume=True)


def start(algorithms: tuple[str, ...], number: int, port: int, folder: Path) -> subprocess.Popen[str]:
    """A process that trains all."""
    flags = "--xla_force_host_platform_device_count=2" if number < ALONE else ""
    told = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {os.environ.get('XLA_FLAGS', '')}"}
    words = ["--algorithms", *algorithms, "--worker", f"{number}", f"{port}", f"{folder}"]
    command = [sys.executable, "-m", "benchmarks.processes", *words]
    return subprocess.Popen(command, env=told, stdout=sys.stderr, text=True)


def compare(algorithm: str, one: Path, four: Path) -> dict[str, Any]:
    """A line: what a run on four devices came to beside that on one."""
    from rmdp_jax.records.folder import RunFolder

    alone, spread = (RunFolder(folder / algorithm).read_result() for folder in (one, four))
    return {
        "benchmark": "processes",
        "algorithm": algorithm,
        "finished": spread["finished"],
        "devices": spread["devices"],
        "iterations": spread["iterations"],
        "same_assignment": spread["assignment"] == alone["assignment"],
        "welfare": spread["welfare"],
        "welfare_alone": alone["welfare"],
    }


def main() -> None:
    """Train, compare, print."""
    arguments = tyro.cli(Processes, description=__doc__)
    algorithms = ("em",) if arguments.quick else arguments.algorithms
    for name in algorithms:
        known_name("algorithm", name, dict.fromkeys(ALGORITHMS))
    if arguments.worker:
        number, port, folder = arguments.worker
        train_all(algorithms, int(number), port, Path(folder))
        return
    with tempfile.TemporaryDirectory() as temporary:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        one, four = Path(temporary, "one"), Path(temporary, "four")
        running = [start(algorithms, 0, port, four), start(algorithms, 1, port, four), start(algorithms, ALONE, port, one)]
        ended = [process.wait(TIME_S) for process in running]
        if any(ended):
            raise SystemExit(f"exit codes {ended} of the first, the second, and the one that is alone")
        lines = [compare(name, one, four) for name in algorithms]
    for line in lines:
        emit(line)
    names = ["algorithm", "finished", "devices", "iterations", "same_assignment", "welfare", "welfare_alone"]
    show("two processes with two devices each", names, [[line[name] for name in names] for line in lines])
    if not all(line["finished"] and line["devices"] == 4 and line["same_assignment"] for line in lines):
        raise SystemExit("not as on one device")


if __name__ == "__main__":
    main()
