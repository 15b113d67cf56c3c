"""The authors' own code beside ours, at equal transitions: their two runs as they were measured, and ours of the same task.

`benchmarks/results/authors.csv` holds theirs: their code, unchanged in its arithmetic, by one thread of a busy machine with
two cores, one seed each, whose 100 targets are those of our seed 0. Ours are trained here by the preset `reference`, which is
as near their runs as this design goes, and by `default`, with the algorithm of that run and with `em`. Welfares are running
estimates.
"""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import clean_exit, emit, machine, read_arguments, show
from rmdp_jax import train
from rmdp_jax.envs import make, preset
from rmdp_jax.errors import check, known_name
from rmdp_jax.evaluation.comparison import Line, flat_settings
from rmdp_jax.plots import save, welfare_of_variants
from rmdp_jax.records.files import read_lines, write_lines
from rmdp_jax.records.folder import dump_train_config
from rmdp_jax.running.algorithms import make_plan

THEIRS = Path("benchmarks/results/authors.csv")
MARKS = (100_000, 200_000, 400_000, 1_000_000, 2_000_000)  # transitions per policy at which welfare is reported


class Task(NamedTuple):
    """What the authors' code was run on."""

    algorithm: str
    k: int
    n: int
    transitions: int  # per policy


TASKS = {"resource_gathering": Task("end_to_end", 5, 25, 1_000_000), "halfcheetah_speed": Task("em", 5, 100, 2_000_000)}


@dataclass(frozen=True, kw_only=True)
class Authors:
    """Train ours of one task anew, and write their lines, the table and the picture."""

    env: str = "resource_gathering"
    """Task: resource_gathering or halfcheetah_speed."""
    presets: tuple[str, ...] = ("reference", "default")
    """Of ours, to train."""
    transitions: int | None = None
    """Per policy. Default: as many as the authors' run. The table is of the runs with most."""
    quick: bool = False
    """10,000 transitions; results go to runs/authors."""
    results: Path | None = None
    """File of lines; the table is written beside it. Default: benchmarks/results/authors.jsonl."""


def runs_of(env: str, presets: Sequence[str]) -> list[tuple[str, str]]:
    """Preset and algorithm of each of our runs: that of the authors' run, and `em` by the default preset."""
    own = TASKS[env].algorithm
    as_theirs = {"end_to_end": "end_to_end_surrogate"}.get(own, own)  # weights that learn by the gradient of PPO's loss
    runs = [(name, as_theirs if name == "reference" else own) for name in presets]
    return list(dict.fromkeys(runs + [("default", "em")] * ("default" in presets)))


def train_one(env: str, kind: str, algorithm: str, transitions: int) -> Line:
    """The line of one run of ours, with welfare and seconds over training; by seed 0, as theirs, which draws the targets."""
    task = TASKS[env]
    made, population = make(env, seed=0, n=task.n)
    config = preset(env, kind, k=task.k, n=task.n, seed=0, transitions=transitions)
    plan, begun = make_plan(algorithm, made, population, config), time.perf_counter()
    result = train(made, population, plan.config, plan.assigner, progress=False)
    summary = result.summary
    if not summary["finished"]:
        raise KeyboardInterrupt  # a line of half the training would pass for one of all
    return {
        "benchmark": "authors",
        **{"env": env, "preset": kind, "algorithm": algorithm, "k": task.k, "n": task.n, "seed": 0, "budget": transitions},
        "settings": flat_settings(dump_train_config(config)),
        **{
            name: summary[name]
            for name in ("transitions_per_policy", "welfare", "upper_bound", "compile_s", "transitions_per_s")
        },
        "wall_s": round(time.perf_counter() - begun, 1),
        "curve": [[line["transitions_per_policy"], round(line["welfare"], 2), line["wall_s"]] for line in result.metrics],
        **machine(),
    }


def theirs(env: str) -> list[tuple[int, float, float]]:
    """Transitions per policy, welfare and seconds of the authors' run."""
    with THEIRS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["env"] == env]
    return [(int(row["transitions_per_policy"]), float(row["welfare"]), float(row["wall_s"])) for row in rows]


def name_of(line: Line) -> str:
    """What a run of ours is called in table and picture."""
    return f"{line['algorithm']}, {line['preset']}"


def table_of(env: str, lines: Sequence[Line]) -> list[list[str]]:
    """A row for the authors' run and for each of ours: welfare at the marks, and seconds up to the last that it has."""
    curves = {f"the authors' {TASKS[env].algorithm}": theirs(env)} | {name_of(line): line["curve"] for line in lines}
    return [[name, *(_at(curve, mark) for mark in MARKS), f"{curve[-1][2]:,.0f}"] for name, curve in curves.items()]


def _at(curve: Sequence[Sequence[float]], mark: int) -> str:
    """Welfare at `mark` transitions, where the run went so far; of the nearest line that is within a tenth."""
    nearest = min(curve, key=lambda point: abs(point[0] - mark))
    return f"{nearest[1]:.1f}" if abs(nearest[0] - mark) <= mark / 10 else ""


def longest(lines: Sequence[Line]) -> list[Line]:
    """Lines of the runs with the most transitions, as others are nothing to compare."""
    return [line for line in lines if line["budget"] == max(line["budget"] for line in lines)]


def write(results: Path, lines: Sequence[Line]) -> None:
    """The markdown beside the lines, and a picture of each task."""
    text = ["# The authors' code beside ours\n"]
    for env in TASKS:
        of_env = longest([line for line in lines if line["env"] == env])
        if not of_env:
            continue
        known = {f"the authors' {TASKS[env].algorithm}": [np.array(theirs(env))[:, :2]]}
        known |= {name_of(line): [np.array(line["curve"])[:, :2]] for line in of_env}
        fresh = {name_of(line): line["welfare"] for line in of_env}
        title, bound = f"{env}, k = {TASKS[env].k}", of_env[0]["upper_bound"]
        picture = save(welfare_of_variants(title, known, fresh, upper_bound=bound), results.with_name(f"authors_{env}.png"))
        text += [f"## {env}\n", f"![{env}]({picture.name})\n", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        text += ["| " + " | ".join(row) + " |" for row in table_of(env, of_env)]
        text += [f"\nMade by `python -m benchmarks.authors --env {env} --transitions {of_env[0]['budget']}`.\n"]
    text.append(
        "Running estimates of welfare by transitions of each policy, one seed each, all policies scored on their own episodes; "
        "seconds are those up to the last figure, with physics and learning, theirs with one thread of a busy machine. The "
        "estimate of `em` falls where it restarts; the best of all starts goes on.\n"
    )
    results.with_suffix(".md").write_text("\n".join(text))


def _budget(arguments: Authors) -> int:
    return TASKS[arguments.env].transitions if arguments.transitions is None else arguments.transitions


COLUMNS = ("run", *(f"{mark / 1e6:g}M" for mark in MARKS), "seconds")


def main() -> None:
    """A line for each run of ours on stdout, the table of the task on stderr."""
    arguments = read_arguments(Authors, __doc__)
    with clean_exit("authors", "the same command begins anew"):
        known_name("env", arguments.env, TASKS)
        for kind in arguments.presets:
            known_name("preset", kind, {"reference": None, "default": None})
        check("presets", arguments.presets, arguments.presets != (), "one or more")
        results = arguments.results or Path("runs/authors" if arguments.quick else "benchmarks/results") / "authors.jsonl"
        results.parent.mkdir(parents=True, exist_ok=True)
        transitions = 10_000 if arguments.quick else _budget(arguments)
        for kind, algorithm in runs_of(arguments.env, arguments.presets):
            line = train_one(arguments.env, kind, algorithm, transitions)
            same = ("env", "preset", "algorithm", "budget")
            others = [other for other in read_lines(results) if any(other[name] != line[name] for name in same)]
            write_lines(results, [*others, line])
            emit({name: value for name, value in line.items() if name not in ("settings", "curve")})
        lines = read_lines(results)
        write(results, lines)
    own = longest([line for line in lines if line["env"] == arguments.env])
    rows: list[list[Any]] = list(table_of(arguments.env, own))
    show(f"{arguments.env}: the authors' code beside ours, by transitions of each policy", list(COLUMNS), rows)


if __name__ == "__main__":
    main()
