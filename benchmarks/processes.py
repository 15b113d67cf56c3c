"""Does every algorithm train on two processes with two devices each, forced on a CPU, and go on there as if never stopped?

Each is stopped halfway and gone on with by both processes; the result stands beside that of one process with one device.
And what devices with different policies send each other in an iteration, by the compiled program: where in the code, and what.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import emit, read_arguments, show
from rmdp_jax.errors import known_name

ITERATIONS, TIME_S = 12, 1800.0
ALONE = 2  # number of the process that trains for itself, beside 0 and 1
READS = 3  # of the one that reads programs
COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast|reduce-scatter|ragged-all-to-all"
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
    """Used inside: number of this process, port, folder."""


def task(algorithm: str) -> tuple[Any, Any, Any]:
    """A small task, its people and settings, as an algorithm takes them."""
    from rmdp_jax.envs import make, preset
    from rmdp_jax.running.algorithms import task_of
    from rmdp_jax.running.cluster import CLUSTER_TRANSITIONS

    config = preset("resource_gathering", k=2, n=4, evaluation_episodes=4, log_every=ITERATIONS // 2)
    sizes = replace(config.sizes, environments=4, unroll=8, epochs=1, minibatches=2, hidden=(8,), explore="in_turn")
    transitions = ITERATIONS * sizes.transitions
    if algorithm in ("cluster", "affinity"):  # half goes to the one policy before, and what it is observed in
        transitions = 2 * (transitions + CLUSTER_TRANSITIONS)
    env, population = make("resource_gathering", size=2)
    population = population._replace(oracle_groups=lambda k: np.arange(population.n) % k)  # so small a grid comes with none
    return *task_of(algorithm, env, population), replace(config, sizes=sizes, transitions=transitions)


def train_all(algorithms: tuple[str, ...], number: int, port: str, folder: Path) -> None:
    """One of two processes, or one that is alone: each algorithm, stopped halfway where it is one of two, and gone on with."""
    from rmdp_jax import train
    from rmdp_jax.devices.processes import join
    from rmdp_jax.running.algorithms import make_plan

    if number < ALONE:
        join(f"127.0.0.1:{port}", 2, number)

    def stop(line: dict[str, Any]) -> None:
        if number < ALONE and line["iteration"] == ITERATIONS // 2:
            raise StopIteration

    for name in algorithms:
        env, population, config = task(name)
        out = folder / name
        plan = make_plan(name, env, population, config)
        train(env, population, plan.config, plan.assigner, out=out, progress=False, on_metrics=stop)
        if number < ALONE:
            plan = make_plan(name, env, population, config, checkpoints=out / "checkpoints")
            train(env, population, plan.config, plan.assigner, out=out, progress=False, resume=True)


def groups_of(line: str) -> list[list[int]]:
    """Devices that send each other something in a line of HLO: listed, made of a range, or along axes of a mesh."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
    if mesh is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        along = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", mesh[2])]
        devices = np.moveaxis(np.arange(np.prod([*sizes.values()])).reshape([*sizes.values()]), along, range(-len(along), 0))
        found: list[list[int]] = devices.reshape(-1, np.prod([[*sizes.values()][axis] for axis in along])).tolist()
        return found
    made = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if made is None:
        listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(.*?)\}\}", line)
        return [[int(i) for i in group.split(",")] for group in re.findall(r"\{([\d,]+)", listed[1])] if listed else []
    shape, dims, order = ([int(i) for i in part.split(",")] if part else [] for part in made.groups())
    devices = np.arange(np.prod(dims)).reshape(dims)
    groups: list[list[int]] = devices.transpose(order or range(len(dims))).reshape(shape).tolist()
    return groups


def across_policies(text: str, envs: int) -> list[str]:
    """What devices of different policies, `envs` to a policy, send each other in a compiled program: scope and shape."""
    found = set()
    for line in text.splitlines():
        match = re.search(rf" = (.*?) (?:{COLLECTIVES})(?:-start)?\(", line)
        groups = groups_of(line) if match else []
        if match and (not groups or any(len({device // envs for device in group}) > 1 for group in groups)):
            scope = re.search(r'op_name="([^"]*)"', line)
            found.add(f"{scope[1] if scope else ''} {re.sub(chr(123) + '[^}]*}', '', match[1])}")
    return sorted(found)


def read_all(algorithms: tuple[str, ...], folder: Path) -> None:
    """The program of an iteration of each algorithm on four devices of this process, two policies on two each."""
    import jax

    from rmdp_jax import make_trainer
    from rmdp_jax.devices.mesh import choose_mesh, everywhere, on_mesh, tracing_on
    from rmdp_jax.running.algorithms import make_plan
    from rmdp_jax.running.layout import laid_out, shardings_of

    for name in algorithms:
        env, population, config = task(name)
        plan = make_plan(name, env, population, config)
        trainer = make_trainer(env, population, plan.config, plan.assigner)
        mesh = choose_mesh(plan.config.k, plan.config.sizes.environments, "jax")
        state = laid_out(mesh, jax.eval_shape(trainer.init, jax.random.key(0)))
        placed = shardings_of(state)
        step = jax.jit(trainer.step, **on_mesh(mesh, in_shardings=(placed,), out_shardings=(placed, everywhere(mesh))))
        with tracing_on(mesh):
            text = step.lower(state).compile().as_text() or ""
        envs = 1 if mesh is None else mesh.devices.shape[1]
        (folder / f"{name}.txt").write_text("\n".join(across_policies(text, envs)))


def start(algorithms: tuple[str, ...], number: int, port: int, folder: Path) -> subprocess.Popen[str]:
    """A process that trains all."""
    devices = {ALONE: 1, READS: 4}.get(number, 2)
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {os.environ.get('XLA_FLAGS', '')}"}
    words = ["--algorithms", *algorithms, "--worker", f"{number}", f"{port}", f"{folder}"]
    command = [sys.executable, "-m", "benchmarks.processes", *words]
    return subprocess.Popen(command, env=environment, stdout=sys.stderr, text=True)


def compare(algorithm: str, one: Path, four: Path, exchanged: Path) -> dict[str, Any]:
    """A line: what a run on four devices came to beside that on one, and what devices sent each other."""
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
        "across_policies": exchanged.read_text().splitlines(),
    }


def main() -> None:
    """Train, compare, print."""
    arguments = read_arguments(Processes, __doc__)
    algorithms = ("em",) if arguments.quick else arguments.algorithms
    for name in algorithms:
        known_name("algorithm", name, dict.fromkeys(ALGORITHMS))
    if arguments.worker:
        number, port, folder = arguments.worker
        if int(number) == READS:
            read_all(algorithms, Path(folder))
        else:
            train_all(algorithms, int(number), port, Path(folder))
        return
    with tempfile.TemporaryDirectory() as temporary:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        one, four = Path(temporary, "one"), Path(temporary, "four")
        folders = {0: four, 1: four, ALONE: one, READS: Path(temporary)}
        running = [start(algorithms, number, port, folder) for number, folder in folders.items()]
        ended = [process.wait(TIME_S) for process in running]
        if any(ended):
            raise SystemExit(f"exit codes {ended} of the first, the second, the one that is alone, and the one that reads")
        lines = [compare(name, one, four, Path(temporary, f"{name}.txt")) for name in algorithms]
    for line in lines:
        emit(line)
    names = ["algorithm", "finished", "devices", "iterations", "same_assignment", "welfare", "welfare_alone"]
    show("two processes with two devices each", names, [[line[name] for name in names] for line in lines])
    if not all(line["finished"] and line["devices"] == 4 and line["same_assignment"] for line in lines):
        raise SystemExit("not as on one device")


if __name__ == "__main__":
    main()
