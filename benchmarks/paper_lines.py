"""A line of each run of a figure of the paper: what it was asked for, what came out, and what pictures draw from."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import machine
from benchmarks.runs import describe_served, revision_of
from rmdp_jax.config import TrainConfig
from rmdp_jax.envs import make
from rmdp_jax.envs.pictures import policy_speeds
from rmdp_jax.evaluation.comparison import Line, flat_settings
from rmdp_jax.records.files import read_lines
from rmdp_jax.records.folder import RunFolder, dump_train_config
from rmdp_jax.records.loading import load_run, record_run
from rmdp_jax.running.algorithms import resolve
from rmdp_jax.running.cells import Cell

POINTS = 50  # of the welfare over training that a line keeps


def same_cell(line: Line, cell: Cell) -> bool:
    """Whether `line` is a run of `cell`, as the cell is now: budget and settings too."""
    options = {name: value for name, value in _people_of(line["env_options"]).items() if name not in ("seed", "n")}
    asked = {name: value for name, value in _people_of(cell.env_options).items() if name != "n"}
    return (line["env"], options, line["n"], line["algorithm"], line["k"]) == (
        *(cell.env, asked, cell.config.n, cell.algorithm, cell.config.k),
    ) and {"revision": 1, **line}.items() >= _training_of(cell).items()


def complete_line(line: Line, cell: Cell, out: Path) -> Line:
    """The line of a run with what it was asked for, who is served, its welfare over training, and, of `em`, what figures 1, 4
    and 5 draw from."""
    line = {**line, **_training_of(cell)}
    folder = next(
        path.parent
        for path in sorted(out.glob(f"{cell.env}*-{cell.algorithm}-k{line['k']}-s{line['seed']}/result.json"))
        if RunFolder(path.parent).read_result()["env_options"] == line["env_options"]
    )
    run = RunFolder(folder)
    _, population = make(line["env"], **_people_of(line["env_options"]))
    paid = np.asarray(run.read_result()["utility"])[line["assignment"], np.arange(population.n)]
    targets = population.agents if line["env"].endswith("_speed") else None
    curve = over_training(run.read_metrics(), timed=line["runs_together"] == 1)
    line = {**line, **describe_served(paid, line["assignment"], targets), "curve": curve, "commit": machine()["commit"]}
    if line["algorithm"] != "em":
        return line
    details = _speed_details(folder, targets) if targets is not None else _walk_details(folder, line)
    return {**line, "own_return": np.round(paid, 2).tolist(), **details}


def _people_of(env_options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `make` for the same people on any machine, whichever MuJoCo the run was made with."""
    return {name: value for name, value in env_options.items() if name != "backend"}


def over_training(metrics: list[Line], *, timed: bool) -> list[list[float]]:
    """About `POINTS` of transitions per policy and running welfare, with the last; and seconds, where they are of one run.

    A run that was stopped counts its seconds from the start of the process that went on with it: they are added up.
    """
    seconds, before, last = [], 0.0, 0.0
    for line in metrics:
        before, last = before + last * (line["wall_s"] < last), line["wall_s"]
        seconds.append(round(before + last, 3))
    pairs = [[line["transitions_per_policy"], round(line["welfare"], 2)] for line in metrics]
    points = [[*point, at] if timed else point for point, at in zip(pairs, seconds, strict=True)]
    step = -(-len(points) // POINTS)
    return points[::step] + ([] if (len(points) - 1) % step == 0 else points[-1:])


def lines_of_ablations(cell: Cell, results: Path) -> list[Line]:
    """Runs of `cell` that `benchmarks.ablation` made, as lines of a figure; their curves have no seconds."""
    if set(_people_of(cell.env_options)) - {"n"}:  # ablations are of the task as it is
        return []
    asked = {
        **{"env": cell.env, "n": cell.config.n, "k": cell.config.k, "algorithm": cell.algorithm},
        **{"segment": None, "backend": None, **_training_of(cell)},
    }
    found = [line for path in sorted(results.glob(f"ablation_{cell.env}*.jsonl")) for line in read_lines(path)]
    unsaid = {"segment": None, "backend": None, "revision": 1}
    alike = [line for line in found if (unsaid | line).items() >= asked.items()]
    return [_line_of_ablation(line, run, cell) for line in alike for run in line["runs"]]


def _line_of_ablation(line: Line, run: Line, cell: Cell) -> Line:
    names = ("env", "algorithm", "algorithm_options", "k", "n", "budget", "settings", "device", "versions", "commit")
    revision = {"revision": line["revision"]} if "revision" in line else {}
    sizes = cell.config.sizes
    return {
        **{name: line[name] for name in names},
        **revision,
        **run,
        "env_options": {"n": line["n"], "seed": run["seed"]},
        "iterations": run["transitions_per_policy"] // (sizes.environments * sizes.unroll),
        "pretraining_transitions": 0,
        "wall_s": round(line["wall_s"] / len(line["runs"]), 1),
        "made_by": "benchmarks.ablation",
    }


def _training_of(cell: Cell) -> Line:
    """What distinguishes the runs of a cell from those of other settings, or of an earlier version of its algorithm."""
    options = _algorithm_options(cell)
    return {
        **{"budget": cell.config.transitions, "settings": _settings(cell), "algorithm_options": options},
        "revision": revision_of(cell.algorithm, options),
    }


def _algorithm_options(cell: Cell) -> dict[str, Any]:
    return _options_of(cell.env, tuple(_people_of(cell.env_options).items()), cell.algorithm, cell.config)


@cache  # bodies take a second to load
def _options_of(env: str, env_options: tuple[tuple[str, Any], ...], algorithm: str, config: TrainConfig) -> dict[str, Any]:
    return dict(resolve(algorithm, make(env, **dict(env_options))[1], config).options)


def _settings(cell: Cell) -> dict[str, Any]:
    return flat_settings(dump_train_config(cell.config))


def _walk_details(folder: Path, line: Line) -> dict[str, Any]:
    """Cells stood on after each step of one episode by the most likely actions, in row-major order."""
    run = load_run(folder, make)
    played = record_run(run)
    size = _size(run.population.n if "size" not in line["env_options"] else line["env_options"]["size"] ** 2)
    cells = np.asarray(played.state.position) @ np.array([size, 1])
    return {"size": size, "walks": [walk[alive].tolist() for walk, alive in zip(cells, np.asarray(played.alive), strict=True)]}


def _speed_details(folder: Path, targets: Any) -> dict[str, Any]:
    """Target of each agent, and mean speed of each policy over one episode."""
    return {
        "targets": np.round(np.asarray(targets, float), 3).tolist(),
        "policy_speeds": [round(float(speed), 6) for speed in policy_speeds(load_run(folder, make))],
    }


def _size(cells: int) -> int:
    return round(cells**0.5)
