"""The figures of speed in README and docs/results.md, of this machine: their benchmarks, one after another, and the lines kept.

On an idle machine. Lines of a benchmark that is run again take the place of its own.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import clean_exit, emit, read_arguments, show
from rmdp_jax.errors import ConfigError, known_name
from rmdp_jax.records.files import read_lines, write_lines
from rmdp_jax.running.progress import announce

Line = dict[str, Any]
RUNS = {
    "grid": "throughput --env resource_gathering --k 5",
    "body": "throughput --env halfcheetah_speed --k 5",
    "policies": "throughput --env halfcheetah_speed --k 5 50 --n 1000 --total-environments 1600 --iterations 2 --repeats 3",
    "agents": "scaling_n --env halfcheetah_speed --k 10",
    "brax": "vs_brax --env halfcheetah --backend spring --k 8",
    "startup": "startup",
}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measure, and write the file of lines anew after each benchmark."""

    only: tuple[str, ...] | None = None
    """grid, body, policies, agents, brax, startup. Default: all."""
    quick: bool = False
    """Small sizes; lines go to runs/speed.jsonl."""
    results: Path | None = None
    """File of lines. Default: benchmarks/results/speed.jsonl."""


def measure(name: str, quick: bool) -> list[Line]:
    """Lines of one of `RUNS`, each with the command that printed it.

    Raises:
        ConfigError: it ended with an error.
    """
    command = f"python -m benchmarks.{RUNS[name]}{' --quick' * quick}"
    announce(True, command)
    done = subprocess.run([sys.executable, *command.split()[1:]], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"only = {name}: `{command}` ended with {done.returncode}; see above")
    return [{"run": name, "command": command, **json.loads(line)} for line in done.stdout.splitlines()]


def run_all(arguments: Speed) -> list[Line]:
    """Lines of all that was asked for."""
    results = arguments.results or Path("runs" if arguments.quick else "benchmarks/results") / "speed.jsonl"
    names = [*RUNS] if arguments.only is None else arguments.only
    for name in names:
        known_name("only", name, RUNS)
    results.parent.mkdir(parents=True, exist_ok=True)
    order, found = [*RUNS], []
    for name in names:
        lines = measure(name, arguments.quick)
        for line in lines:
            emit(line)
        found += lines
        others = [line for line in read_lines(results) if line["run"] != name]
        write_lines(results, sorted([*others, *lines], key=lambda line: order.index(line["run"])))
    return found


def throughput_rows(lines: list[Line]) -> list[list[Any]]:
    """Learning beside its limits, a row a task."""
    return [
        [
            f"`{line['env']}` (`{line['backend']}`)",
            f"E = {line['environments']}, T = {line['unroll']}, {line['epochs']} epochs x {line['minibatches']} minibatches",
            *(f"{line[name]:,}" for name in ("transitions_per_s", "physics_only_per_s")),
            *(f"{line[name]:.0%}" for name in ("ratio_to_physics", "share_update")),
            f"{line['update_gflop_per_s']:.0f} of {line['matmul_gflop_per_s']:.0f} GFLOP/s",
        ]
        for line in lines
        if line["run"] in ("grid", "body")
    ]


THROUGHPUT = (
    *("env", "settings", "with learning", "env alone, random actions", "learning / env", "update's share", "its arithmetic"),
)


RATIOS = ("what", "figure")


def ratio_rows(lines: list[Line]) -> list[list[str]]:
    """What more policies and agents cost, how brax's PPO does, and how long a second start takes: what, and the figure."""
    rows, first = [], next((line for line in lines if line["run"] == "policies"), None)
    for line in lines:
        name, body = line["run"], "HalfCheetah"
        if "failed" in line:
            rows.append([f"`{line['command']}`", line["failed"]])
            continue
        if name == "policies" and line is not first:
            what = f"{body}, 1,600 environments in all: transitions a second of k = {line['k']} policies by those of k = 5"
            rows.append([what, f"{line['ratio_to_first']:.2f}"])
        if name == "agents" and line["n"] >= 100_000:
            what = f"{body}, k = {line['k']}: time of an iteration for {line['n']:,} agents by that for 100"
            rows.append([what, f"{line['iteration_s_ratio']:.2f}, in {line['peak_memory_gib']:.1f} GiB"])
        if name == "brax" and line["learner"] == "brax, one policy":
            what = f"{body} (`spring`), k = {line['k']}: our transitions a second by those of brax's PPO, as many environments"
            rows.append([what, f"{line['ours_per_its_transitions_per_s']:.2f}"])
        if name == "brax" and line["learner"].endswith("in turn"):
            what = f"the same: seconds of {line['learner']} by ours, compilation included"
            rows.append([what, f"{line['its_per_our_wall_s']:.2f}"])
        if name == "startup" and line["start"] == 2:
            what = f"`{line['env']}`: seconds from imports to the first iteration of a second start"
            rows.append([what, f"{line['beyond_imports_s']:.1f}"])
    return rows


def main() -> None:
    """Lines on stdout, the two tables on stderr."""
    with clean_exit("speed"):
        lines = run_all(read_arguments(Speed, __doc__))
    show("transitions of all policies a second", list(THROUGHPUT), throughput_rows(lines))
    show("ratios", list(RATIOS), ratio_rows(lines))


if __name__ == "__main__":
    main()
