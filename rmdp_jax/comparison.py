"""Runs side by side: find them, group those that can be compared, and say which algorithm is best in each group."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rmdp_jax.algorithms import ALGORITHMS
from rmdp_jax.errors import ConfigError
from rmdp_jax.plots import Bar, welfare_by_k
from rmdp_jax.plots.style import count_transitions
from rmdp_jax.runs import RunFolder
from rmdp_jax.runs import read_lines as read_json_lines
from rmdp_jax.statistics import best_of, paired_p, summarize_values

Line = dict[str, Any]  # of one run: what result.json holds, with `settings` where they are known

_NEEDED = ("env", "env_options", "backend", "algorithm", "k", "n", "seed", "welfare", "total_transitions")
_NO_OPTIONS = ("seed", "n", "backend")  # in `env_options` and beside them


class Found(NamedTuple):
    """What was found where one looked for runs."""

    lines: list[Line]  # finished runs, each once
    unfinished: int  # runs that were stopped or are going on
    repeated: int  # finished runs that were there more than once


class Row(NamedTuple):
    """One algorithm in one group of runs that differ in algorithm and seed only."""

    env: str
    options: str  # of the env, without seed and n: "size=4", or nothing
    backend: str
    n: int
    k: int
    transitions: int  # per policy, those of the whole budget: with what went into the groups beforehand
    algorithm: str  # with the settings in which runs of the same algorithm differ: "em epochs=4"
    seeds: int
    welfare: float  # mean over seeds
    standard_error: float | None
    low: float | None  # 95% bootstrap interval of the mean
    high: float | None
    bound: float | None  # mean over seeds, as speed tasks have other targets with each
    share: float | None  # mean of each seed's share of its own bound
    total_transitions: int  # environment steps of all policies together, mean over seeds
    best: bool  # the highest mean, or not told from it by a paired t-test
    p: float | None  # of that test against the highest mean; None for that one, and with fewer than two common seeds


def compare_runs(lines: Sequence[Line]) -> list[Row]:
    """One row for each algorithm in each group of comparable runs, sorted by env, budget, k and algorithm.

    Runs can be compared when env, its options, backend, n, k and budget are the same. The budget is
    `transitions_per_policy` + `pretraining_transitions`, as an algorithm that spends steps on its groups beforehand trains
    its policies for less; two budgets are the same when both come from one `--transitions`, rounded up to iterations.
    """
    groups: dict[tuple[Any, ...], dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    names = _labels(lines)
    for number, (line, budget) in enumerate(zip(lines, _common_budgets(lines), strict=True)):
        groups[(*_task(line), budget, line["k"])][names[number]].append(line)
    return [row for key in sorted(groups) for row in _rows_of_group(key, groups[key])]


def find_runs(paths: Iterable[Path]) -> Found:
    """Read finished runs from run folders, folders that hold some at any depth, and .jsonl files with a run a line.

    A run that is in a folder and in a file (a sweep's runs.jsonl) counts once, as does one that was made twice.

    Raises:
        ConfigError: a path does not exist or a file is no list of runs, or there is no finished run at all.
    """
    paths = list(paths)
    seen: dict[tuple[Any, ...], Line] = {}
    unfinished = repeated = 0
    for line, from_file in (found for path in paths for found in _read(path)):
        task, settings = _identity(line)
        if not line.get("finished", True):
            unfinished += 1
        elif (task, settings) in seen or ("settings" not in line and any(task == other for other, _ in seen)):
            repeated += not from_file
        else:
            seen[task, settings] = line
    if not seen:
        where = ", ".join(map(str, paths))
        more = f" ({unfinished} unfinished: go on with them by --resume)" if unfinished else ""
        raise ConfigError(f"runs = {where}: no finished run found{more}; give folders that `rmdp-jax train` wrote")
    return Found(list(seen.values()), unfinished, repeated)


def draw_comparison(rows: Sequence[Row], title: str = "Welfare by number of policies") -> Figure:
    """Bars of `compare_runs`' rows, a panel for each task, backend, number of agents and budget."""
    panels = {row: ", ".join(filter(None, _heading(row))) for row in rows}
    bars = [
        Bar(panel, row.k, row.algorithm, row.welfare, row.standard_error, row.best)
        for row, panel in sorted(panels.items(), key=lambda item: item[1])
    ]
    # of rows with other seeds, and so other agents, the one with the most
    bounds = {(panels[row], row.k): row.bound for row in sorted(rows, key=lambda row: row.seeds) if row.bound is not None}
    return welfare_by_k(bars, bounds, title=title)


def _heading(row: Row) -> list[str]:
    return [row.env, row.options, f"n = {row.n}", f"{count_transitions(float(f'{row.transitions:.2g}'))} per policy"]


def read_lines(path: Path) -> list[Line]:
    """Runs of a .jsonl file; a last line that was cut off in writing is left out.

    Raises:
        ConfigError: the file cannot be read, or a line is no run.
    """
    lines = read_json_lines(path)
    for number, line in enumerate(lines, 1):
        missing = [name for name in _NEEDED if name not in line] if isinstance(line, dict) else ["a run"]
        if missing:
            raise ConfigError(f"{path}: line {number} has no {missing[0]}, so it is no run; give files with a result a line")
    return lines


def flat_settings(train: dict[str, Any]) -> dict[str, Any]:
    """Sizes and rates of config.json's `train` in one dict; lists as they are there."""
    return {**train.get("sizes", {}), **train.get("rates", {})}


def budget_of(line: Line) -> int:
    """Transitions per policy with those that went into the groups beforehand."""
    return line.get("transitions_per_policy", 0) + line.get("pretraining_transitions", 0)


def order_of(algorithm: str) -> tuple[int, str]:
    """Sorts algorithms as `ALGORITHMS` lists them, unknown ones last."""
    known = list(ALGORITHMS)
    name = algorithm.split(" ")[0]
    return known.index(name) if name in known else len(known), algorithm


def _read(path: Path) -> Iterator[tuple[Line, bool]]:
    """Runs at `path`, finished or not, those in folders first, and whether each is from a file."""
    if not path.exists():
        raise ConfigError(f"runs = {path}: does not exist; give folders of runs or .jsonl files")
    if not path.is_dir():
        yield from ((line, True) for line in read_lines(path))
        return
    files = []
    for folder, below, names in os.walk(path):
        below.sort()
        if "config.json" in names or "result.json" in names:
            below.clear()  # checkpoints
            yield _read_folder(RunFolder(Path(folder))), False
        else:
            files += [Path(folder) / name for name in sorted(names) if name.endswith(".jsonl")]
    for file in files:
        if all(set(_NEEDED) <= line.keys() for line in read_json_lines(file)):  # others hold something else
            yield from ((line, True) for line in read_lines(file))


def _read_folder(folder: RunFolder) -> Line:
    config = folder.read_config()
    if not (folder.path / "result.json").exists():
        train = config["train"]
        return {**config, "k": train["k"], "n": train["n"], "seed": train["seed"], "finished": False}
    return {**folder.read_result(), "settings": flat_settings(config["train"])}


def _task(line: Line) -> tuple[str, str, str, int]:
    """Env, its options, backend and n."""
    options = {name: value for name, value in line["env_options"].items() if name not in _NO_OPTIONS}
    return line["env"], ", ".join(f"{name}={options[name]}" for name in sorted(options)), line["backend"], line["n"]


def _identity(line: Line) -> tuple[tuple[Any, ...], str]:
    """What two copies of the same run have in common: what was run, and its settings where they are known."""
    settings = json.dumps(_settings(line), sort_keys=True)
    return (*_task(line), line["algorithm"], line["k"], line["seed"], budget_of(line)), settings


def _settings(line: Line) -> dict[str, Any]:
    """Settings of a run and of its algorithm, as far as they are known."""
    return {**line.get("settings", {}), **line.get("algorithm_options", {})}


def _common_budgets(lines: Sequence[Line]) -> list[int]:
    """Budget of each run, the largest of those that one `--transitions` can have led to."""
    order = np.argsort([budget_of(line) for line in lines], kind="stable").tolist()
    groups: list[list[int]] = []
    for i in order:
        iteration = lines[i].get("transitions_per_policy", 0) // max(lines[i].get("iterations", 1), 1)
        if groups and budget_of(lines[i]) - budget_of(lines[groups[-1][0]]) < max(iteration, 1):
            groups[-1].append(i)
        else:
            groups.append([i])
    common = {i: budget_of(lines[group[-1]]) for group in groups for i in group}
    return [common[i] for i in range(len(lines))]


def _labels(lines: Sequence[Line]) -> list[str]:
    """Name of each run's algorithm, with the settings that differ between runs of the same env, k and algorithm."""
    values: dict[tuple[Any, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in lines:
        for name, value in _settings(line).items():
            values[line["env"], line["algorithm"], line["k"]][name].add(str(value))
    labels = []
    for line in lines:
        varied = values[line["env"], line["algorithm"], line["k"]]
        told = [f"{name}={value}" for name, value in _settings(line).items() if len(varied[name]) > 1]
        labels.append(" ".join([line["algorithm"], *told]))
    return labels


def _rows_of_group(key: tuple[Any, ...], runs: dict[str, list[Line]]) -> list[Row]:
    env, options, backend, n, budget, k = key
    welfare = {name: {line["seed"]: float(line["welfare"]) for line in lines} for name, lines in runs.items()}
    best = best_of(welfare)
    leader = max(welfare, key=lambda name: float(np.mean(list(welfare[name].values()))))
    rows = []
    for name in sorted(runs, key=order_of):
        summary = summarize_values(welfare[name].values())
        rows.append(
            Row(
                *(env, options, backend, n, k, budget, name),
                seeds=summary.number,
                welfare=float(np.mean(list(welfare[name].values()))),
                standard_error=summary.standard_error,
                low=summary.low,
                high=summary.high,
                bound=_mean_of(runs[name], "upper_bound"),
                share=_mean_of(runs[name], "share_of_bound"),
                total_transitions=round(np.mean([line["total_transitions"] for line in runs[name]])),
                best=name in best,
                p=None if name == leader else paired_p(welfare[leader], welfare[name]),
            )
        )
    return rows


def _mean_of(lines: list[Line], name: str) -> float | None:
    """Mean over runs that all have the number; None where one has not."""
    values = [float(line[name]) for line in lines if line.get(name) is not None]
    return float(np.mean(values)) if len(values) == len(lines) else None
