"""Ways past the local optimum, or settings of PPO, at equal transitions; all seeds of a variant train in one program, or, by
--workers, each in a process on a core of its own, which is faster on a CPU. Rounding differs, so bodies take other ways.

A variant and k whose line is in the results with these very settings is not trained again, and more seeds are trained as more:
the same command goes on where it was.
"""

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.ablation_results import COLUMNS, current_lines, draw, table_rows, write_table
from benchmarks.common import clean_exit, emit, machine, on_cores, read_arguments, show
from benchmarks.runs import OF_RUNS, describe_served, summarize_runs
from benchmarks.variants import COMPARISONS, Cell, Line, of_cell, trained_as
from rmdp_jax import Result, RunSpec, train_batch
from rmdp_jax.errors import check, several, unknown_name
from rmdp_jax.records.files import read_lines, write_lines
from rmdp_jax.running.progress import announce


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Train what is missing, and write lines and table anew after every variant and k."""

    env: str = "resource_gathering"
    """Task."""
    of: Literal["assigners", "settings", "gpu"] = "assigners"
    """Compare assigners, each against plain_em, or changes of the preset under em, each against the preset
    (gpu: those that suit an accelerator)."""
    ks: tuple[int, ...] = (2, 3, 5)
    """Numbers of policies."""
    seeds: int = 5
    """Seeds from 0 up."""
    transitions: int = 1_000_000
    """Per policy."""
    backend: str | None = None
    """Physics of the task. Default: the task's own."""
    variants: tuple[str, ...] | None = None
    """Names of variants. Default: all, but for those that are the same here as one before."""
    workers: int = 0
    """Seeds that train at once, each in a process on a core of its own; 0: all in one program."""
    quick: bool = False
    """k = 2, 2 seeds, 10,000 transitions, and two variants where none are named; results go to runs/ablation."""
    results: Path | None = None
    """File of lines; the table is written beside it. Default: benchmarks/results/ablation_ENV.jsonl, or
    _ENV_OF, _ENV_OF_BACKEND."""


def narrow(arguments: Ablation) -> Ablation:
    """`arguments` with the sizes of --quick, and with a file."""
    named = (arguments.of if arguments.of != "assigners" else None, arguments.backend)
    stem = "_".join(["ablation", arguments.env, *filter(None, named)])
    folder = Path("runs/ablation" if arguments.quick else "benchmarks/results")
    results = arguments.results or folder / f"{stem}.jsonl"
    if not arguments.quick:
        return replace(arguments, results=results)
    variants = arguments.variants or tuple(COMPARISONS[arguments.of].variants)[:2]
    return replace(arguments, ks=(2,), seeds=2, transitions=10_000, variants=variants, results=results)


def make_cells(arguments: Ablation) -> list[Cell]:
    """Cells that are asked for, checked before anything is trained; all variants of a k before the next k."""
    known = COMPARISONS[arguments.of].variants
    check("seeds", arguments.seeds, arguments.seeds >= 1, "a whole number of at least 1")
    check("workers", arguments.workers, arguments.workers >= 0, "a whole number of at least 0")
    names = list(known) if arguments.variants is None else arguments.variants
    for name in names:
        if name not in known:
            raise unknown_name("variant", name, known)
    cells = [
        Cell(arguments.env, arguments.of, name, k, arguments.transitions, arguments.backend)
        for k in arguments.ks
        for name in names
    ]
    if arguments.variants is None:
        cells = _all_different(cells)
    for cell in cells:
        cell.describe()
    return cells


def _all_different(cells: Sequence[Cell]) -> list[Cell]:
    """`cells` without those that are the same as one before, as settings are that the preset has anyway."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(str(cell.describe() | {"variant": ""}), cell)
    return list(found.values())


def run_ablation(arguments: Ablation) -> list[Line]:
    """Lines of all that was asked for; those of what was missing are trained."""
    cells = make_cells(arguments)
    assert arguments.results is not None  # `narrow` sees to it
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for number, cell in enumerate(cells, 1):
        known = next((line for line in read_lines(arguments.results) if of_cell(line, cell)), None)
        enough = known is not None and {*known["seeds"]} >= {*range(arguments.seeds)}
        before = known if enough else same_training(cell, arguments)
        missing = [seed for seed in range(arguments.seeds) if before is None or seed not in before["seeds"]]
        status = f"seeds {missing}" if missing else "finished before"
        announce(True, f"cell {number}/{len(cells)}  {cell.env} k = {cell.k} {cell.variant}: {status}")
        for line in train_cell(cell, missing, before, arguments.workers) if missing else filter(None, [before]):
            if line is not known:
                others = [other for other in read_lines(arguments.results) if not of_cell(other, cell)]
                write_lines(arguments.results, [*others, line])
        emit({name: value for name, value in line.items() if name not in ("runs", "settings")})
        found.append(line)
        write_results(arguments)
    return found


def same_training(cell: Cell, arguments: Ablation) -> Line | None:
    """`cell` by runs that trained the very same, as far as they are asked for: of its line, of another comparison beside it, or
    of a figure of the paper."""
    assert arguments.results is not None
    folder, found = arguments.results.parent, dict[int, tuple[Line, float, Line]]()  # by seed: the run, its seconds, its line
    for path in sorted(folder.glob("figure_*.jsonl")):
        for line in read_lines(path):
            if "served" in line and trained_as(line, cell):
                run = {name: line.get(name) for name in OF_RUNS} | {"curve": [point[:2] for point in line["curve"]]}
                found[line["seed"]] = run, line["wall_s"] / line.get("runs_together", 1), line
    for path in sorted({*folder.glob(f"ablation_{cell.env}*.jsonl"), arguments.results}):
        for line in read_lines(path):
            if trained_as(line, cell):
                found |= {run["seed"]: (run, line["wall_s"] / len(line["runs"]), line) for run in line["runs"]}
    seeds = sorted(seed for seed in found if seed < arguments.seeds)
    if not seeds:
        return None
    runs, (_, _, last) = [found[seed][0] for seed in seeds], found[seeds[-1]]
    made = {name: last.get(name) for name in machine()}
    wall_s = round(sum(found[seed][1] for seed in seeds), 1)
    return cell.describe() | summarize_runs(runs) | {"wall_s": wall_s, "runs": runs, **made}


def write_results(arguments: Ablation) -> None:
    """Table and picture beside the lines."""
    assert arguments.results is not None
    lines = current_lines(arguments.results, arguments.env, arguments.of)
    write_table(arguments.results, lines, _command(arguments))
    draw(arguments.results, [line for line in lines if line["budget"] == arguments.transitions])


def train_cell(cell: Cell, seeds: Sequence[int], before: Line | None, workers: int) -> Iterator[Line]:
    """The line of `cell` whenever more of `seeds` are trained, with the runs of its line from `before`."""
    begun, runs = time.perf_counter(), [*before["runs"]] if before else []
    alone = [(cell, [seed], False) for seed in seeds]
    for new in on_cores(train_seeds, alone, workers) if workers else [train_seeds(cell, seeds, True)]:
        wall_s = time.perf_counter() - begun + (before["wall_s"] if before else 0.0)
        runs = sorted([*runs, *new], key=lambda run: run["seed"])
        yield cell.describe() | summarize_runs(runs) | {"wall_s": round(wall_s, 1), "runs": runs, **machine()}


def train_seeds(cell: Cell, seeds: Sequence[int], progress: bool) -> list[Line]:
    """Runs of `cell`, trained in one program."""
    config = cell.config()
    assigner = COMPARISONS[cell.of].variants[cell.variant].assigner(config.k, config.n)
    made = [cell.task(seed) for seed in seeds]
    entries = [
        RunSpec(population, replace(config, seed=seed), assigner, env_options=env.spec.options)
        for seed, (env, population) in zip(seeds, made, strict=True)
    ]
    results = train_batch(made[0][0], entries, progress=progress)
    if not all(result.summary["finished"] for result in results):
        raise KeyboardInterrupt  # a line of half the training would pass for one of all
    return [_describe_run(result) for result in results]


def _describe_run(result: Result) -> Line:
    """Results of a run, who is served, its welfare over training, and the commit, as its line may get seeds of another."""
    summary, labels = result.summary, np.asarray(result.summary["assignment"])
    pays = np.asarray(summary["utility"])[labels, np.arange(summary["n"])]
    targets = result.population.agents if summary["env"].endswith("_speed") else None
    curve = [[line["transitions_per_policy"], round(line["welfare"], 2)] for line in result.metrics]
    values = summary | describe_served(pays, labels, targets) | {"curve": curve, "commit": machine()["commit"]}
    return {name: values.get(name) for name in OF_RUNS}


def _command(arguments: Ablation) -> str:
    """The command that makes the lines of all variants."""
    names = ("env", "of", "backend", *(() if arguments.quick else ("ks", "seeds", "transitions")))
    values = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    flags = [part for name, value in values.items() for part in (f"--{name}", *map(str, several(value) or (value,)))]
    return shlex.join(["python", "-m", "benchmarks.ablation", *flags, *["--quick"] * arguments.quick])


def main() -> None:
    """A line for each variant and k on stdout, the table on stderr."""
    with clean_exit("ablation"):
        arguments = narrow(read_arguments(Ablation, __doc__))
        run_ablation(arguments)
    assert arguments.results is not None
    lines = current_lines(arguments.results, arguments.env, arguments.of)
    rows = table_rows([line for line in lines if line["budget"] == arguments.transitions], lines)
    title = f"{arguments.env}, {arguments.transitions:,} transitions per policy, p against {COMPARISONS[arguments.of].against}"
    show(title, list(COLUMNS[1:]), [row[1:] for row in rows])


if __name__ == "__main__":
    main()
