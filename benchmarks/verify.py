"""Do the committed tables hold? Some of their runs, drawn at random, are made again, and compared with what the table says.

A run agrees when it is within the interval in which one more run of the cell would be, 99 times of 100, by the spread of the
cell's seeds. The same seed on the same kind of machine and versions has the same digits; elsewhere it is one more run.
"""

import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.ablation import train_seeds
from benchmarks.common import clean_exit, emit, machine, read_arguments, show
from benchmarks.paper import FIGURES, Paper, make_cells
from benchmarks.paper_lines import same_cell
from benchmarks.variants import COMPARISONS, Line, cell_of, of_cell
from benchmarks.variants import Cell as AblationCell
from rmdp_jax.envs import make
from rmdp_jax.errors import ConfigError, check
from rmdp_jax.records.files import read_lines
from rmdp_jax.running.cells import Cell
from rmdp_jax.running.progress import announce
from rmdp_jax.running.sweep import sweep

ALIKE = 0.99  # chance that one more run of a cell is within its interval
LEAST = 3  # seeds of a cell whose spread says anything
MARGIN = 1.5  # times the seconds that a run took may it take, with compilation


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Make runs of committed tables again until the time is up; ends with 1 where one disagrees."""

    minutes: float = 30.0
    """For all of them; what would take longer than is left is not begun."""
    seed: int = 0
    """Of the draw: another one picks other runs."""
    results: Path = Path("benchmarks/results")
    """Folder of lines (ablation_*.jsonl, figure_2*.jsonl, figure_3*.jsonl)."""
    quick: bool = False
    """Two minutes."""


class Claim(NamedTuple):
    """A cell of a table, and how one of its runs is made again."""

    file: str
    what: str
    welfare: dict[int, float]  # by seed
    seconds: float  # of one run, as it was
    again: Callable[[int], float]  # seed -> welfare


class Known(NamedTuple):
    """What a folder holds."""

    claims: list[Claim]
    older: int  # cells of settings that the presets have no more
    few: int  # cells of fewer than `LEAST` seeds


def claims_of(results: Path) -> Known:
    """All cells in a folder that can be made again."""
    found = [*_ablations(results), *_figures(results)]
    current = [claim for claim in found if claim is not None]
    enough = [claim for claim in current if len(claim.welfare) >= LEAST]
    return Known(enough, len(found) - len(current), len(current) - len(enough))


def _ablations(results: Path) -> Iterator[Claim | None]:
    for path in sorted(results.glob("ablation_*.jsonl")):
        for line in read_lines(path):
            cell = cell_of(line)
            if cell.variant not in COMPARISONS[cell.of].variants or not of_cell(line, cell):
                yield None
                continue
            welfare = {run["seed"]: run["welfare"] for run in line["runs"]}
            what = f"{cell.env} k = {cell.k} {cell.variant}, {cell.budget:,}"
            yield Claim(path.name, what, welfare, line["wall_s"] / len(welfare), partial(_train, cell))


def _figures(results: Path) -> Iterator[Claim | None]:
    for path in sorted(path for figure in (2, 3) for path in results.glob(f"figure_{figure}*.jsonl")):
        cells: dict[tuple[str, int, str, str], list[Line]] = defaultdict(list)
        for line in read_lines(path):  # of older settings too
            if "made_by" in line:  # known by the ablation
                continue
            settings = json.dumps(
                [line.get("settings"), line.get("algorithm_options"), line.get("revision", 1)], sort_keys=True
            )
            cells[line["env"], line["k"], line["algorithm"], settings].append(line)
        for (env, k, algorithm, _), lines in cells.items():
            cell = _cell_of(path.stem, env, k, algorithm, lines[0])
            if cell is None:
                yield None
                continue
            seconds = float(np.mean([line["wall_s"] for line in lines]))
            what = f"{env} k = {k} {algorithm}, {lines[0]['budget']:,}"
            yield Claim(path.name, what, {line["seed"]: line["welfare"] for line in lines}, seconds, partial(_sweep, cell))


def _cell_of(stem: str, env: str, k: int, algorithm: str, line: Line) -> Cell | None:
    """The cell of a figure that a line is a run of, as presets are now."""
    figure = int(stem.split("_")[1])
    if env not in FIGURES[figure].full.envs:
        return None
    size, budget = line["env_options"].get("size"), line.get("budget")
    asked = Paper(figure=figure, size=size, ks=(k,), envs=(env,), algorithms=(algorithm,), transitions=budget)
    cells = make_cells(asked)
    return next((cell for cell in cells if cell.config.k == k and same_cell(line, cell)), None)


def _train(cell: AblationCell, seed: int) -> float:
    return float(train_seeds(cell, [seed], False)[0]["welfare"])


def _sweep(cell: Cell, seed: int) -> float:
    with tempfile.TemporaryDirectory() as out:
        (line,) = sweep([cell], [seed], Path(out), make=make, progress=False)
    return float(line["welfare"])


def interval_of_one_more(values: list[float]) -> tuple[float, float]:
    """Where one more run is, with a chance of `ALIKE`, by Student's t; nothing narrower than the digits that tables show."""
    mean, deviation, number = float(np.mean(values)), float(np.std(values, ddof=1)), len(values)
    half = max(float(stats.t.ppf((1 + ALIKE) / 2, number - 1)) * deviation * (1 + 1 / number) ** 0.5, 0.005)
    return mean - half, mean + half


def verify(arguments: Verify) -> list[Line]:
    """Lines of what was made again."""
    check("minutes", arguments.minutes, arguments.minutes > 0, "more than 0")
    known = claims_of(arguments.results)
    if not known.claims:
        raise ConfigError(f"results = {arguments.results}: hold no cell of today's settings with {LEAST} seeds or more")
    left_out = f"{known.older} of older settings and {known.few} of fewer than {LEAST} seeds are left out"
    announce(True, f"{len(known.claims)} cells; {left_out}")
    draw = random.Random(arguments.seed)
    minutes = 2.0 if arguments.quick else arguments.minutes
    deadline = time.monotonic() + 60 * minutes
    lines = []
    for claim in draw.sample(known.claims, len(known.claims)):
        if time.monotonic() + MARGIN * claim.seconds > deadline:
            continue
        seed = draw.choice(sorted(claim.welfare))
        announce(True, f"{claim.file}: {claim.what}, seed {seed}")
        low, high = interval_of_one_more(list(claim.welfare.values()))
        welfare = claim.again(seed)
        labels = {"benchmark": "verify", "file": claim.file, "what": claim.what, "seed": seed}
        numbers = {"then": claim.welfare[seed], "now": welfare, "low": low, "high": high}
        lines.append(labels | numbers | {"agrees": low <= welfare <= high, **machine()})
        emit(lines[-1])
    if not lines:
        least = MARGIN * min(claim.seconds for claim in known.claims) / 60
        raise ConfigError(f"minutes = {minutes:g}: too few for any of the cells; the shortest takes {least:.1f}")
    return lines


def main() -> None:
    """Runs, then the table."""
    with clean_exit("verify", "the same command begins anew"):
        lines = verify(read_arguments(Verify, __doc__))
    columns = ["", "seed", "then", "now", "at least", "at most", ""]
    names = ("what", "seed", "then", "now", "low", "high")
    rows = [[*(line[name] for name in names), "agrees" if line["agrees"] else "DISAGREES"] for line in lines]
    show("runs of committed tables, made again", columns, rows)
    if not all(line["agrees"] for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
