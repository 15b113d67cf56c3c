"""The figures of the paper (Ivanov & Ben-Porat, AAAI 2024), each with its runs, its table and its pictures.

Runs that are there are not made again: finished ones are known by their line in the results, others by their folder. Parts of
a figure can so be run one by one, and a figure that is half done can be drawn.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from benchmarks.common import clean_exit, emit, machine, on_cores, read_arguments, show
from benchmarks.paper_lines import complete_line, lines_of_ablations, same_cell
from benchmarks.paper_results import (
    Draw,
    against_em,
    compare,
    draw_bars,
    draw_speed,
    draw_targets,
    draw_walks,
    read_results,
    write_results,
)
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import preset
from rmdp_jax.errors import ConfigError, check
from rmdp_jax.evaluation.comparison import Line
from rmdp_jax.plots.style import count_transitions
from rmdp_jax.running.cells import Cell
from rmdp_jax.running.progress import announce
from rmdp_jax.running.sweep import sweep

ALGORITHMS = ("em", "plain_em", "end_to_end", "cluster", "random")


class Scale(NamedTuple):
    """How much is run."""

    envs: tuple[str, ...]
    ks: tuple[int, ...]
    transitions: int  # per policy
    seeds: int


class FigureSpec(NamedTuple):
    """What a figure shows."""

    full: Scale
    quick: Scale
    draw: Draw
    algorithms: tuple[str, ...] = ("em",)
    more: tuple[tuple[str, int], ...] = ()  # algorithms and k beside the product of all, in which no other has that k
    grids: Mapping[int, tuple[int, ...]] = MappingProxyType({})  # k of grids with another side
    seeds: Mapping[int, int] = MappingProxyType({})  # of a k that has another number of them
    needs: str | None = None  # what a line has to hold to be drawn


_GRID = ("resource_gathering",)
_BODIES = ("halfcheetah_speed", "walker2d_speed", "hopper_speed", "ant_speed")
FIGURES = {
    1: FigureSpec(Scale(_GRID, (5,), 1_000_000, 10), Scale(_GRID, (5,), 60_000, 2), draw_walks, needs="walks"),
    2: FigureSpec(
        Scale(_GRID, (1, 2, 3, 5, 10, 25), 1_000_000, 10),
        Scale(_GRID, (2, 5), 200_000, 2),
        draw_bars,
        ALGORITHMS,
        grids=MappingProxyType({4: (2, 3, 4, 6)}),
    ),
    3: FigureSpec(
        Scale(_BODIES, (2, 5, 10), 1_000_000, 5),
        Scale(_BODIES[:1], (2,), 40_000, 2),
        draw_speed,
        ALGORITHMS,
        more=(("em", 1),),  # with one policy there is nothing to assign, and only `cluster` is another
        seeds=MappingProxyType({10: 3}),
    ),
    4: FigureSpec(
        Scale(("halfcheetah_speed", "hopper_speed"), (5,), 1_000_000, 5),
        Scale(("halfcheetah_speed", "hopper_speed"), (2,), 30_000, 2),
        draw_targets,
        needs="targets",
    ),
    5: FigureSpec(
        Scale(("walker2d_speed", "ant_speed"), (5,), 1_000_000, 5),
        Scale(("walker2d_speed", "ant_speed"), (2,), 30_000, 2),
        draw_targets,
        needs="targets",
    ),
}
# With so many agents: a part of the figure, with as many policies to their number.
LARGE = {
    (3, 1000): FigureSpec(
        Scale(_BODIES[:1], (50,), 1_000_000, 1), Scale(_BODIES[:1], (2,), 40_000, 1), draw_targets, needs="targets"
    )
}


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Run what is missing of a figure, and write its lines, table and pictures anew whenever runs are done."""

    figure: int
    """Number of the figure: 1 (walks), 2 (Resource Gathering), 3 (target speed), 4 and 5 (who gets which speed)."""
    quick: bool = False
    """A small version: 2 seeds, few k, short training. Results go to --out."""
    seeds: int | None = None
    """Seeds from 0 up. Default: 10; 5 on the speed tasks, 3 where k is 10, 1 where n is 1000; 2 with --quick."""
    ks: tuple[int, ...] | None = None
    """Run these numbers of policies only."""
    envs: tuple[str, ...] | None = None
    """Run these tasks only."""
    algorithms: tuple[str, ...] | None = None
    """Run these algorithms only."""
    transitions: int | None = None
    """Per policy. Default: 1,000,000; with --quick 30,000 to 200,000."""
    size: int | None = None
    """Side of the grid of Resource Gathering. Default: 5."""
    n: int | None = None
    """Agents of the speed tasks. Default: 100; with 1000, figure 3 is HalfCheetah with 50 policies by em."""
    backend: Literal["native", "mjx", "warp"] | None = None
    """MuJoCo of the speed tasks. Default: native on a CPU, mjx elsewhere. Runs of all three are of one cell."""
    workers: int = 0
    """Runs that train at once, each in a process on a core of its own, which is faster on a CPU; 0: a cell's in one program."""
    draw_only: bool = False
    """Run nothing; draw what is in the results."""
    out: Path | None = None
    """Folder of the runs. Default: runs/paper/figure_N, with --quick runs/paper/figure_N_quick."""
    results: Path | None = None
    """Folder of lines, tables and pictures. Default: benchmarks/results, with --quick that of the runs."""

    @property
    def spec(self) -> FigureSpec:
        """What the figure shows, on the grid that is asked for."""
        spec = LARGE.get((self.figure, self.n or 0), FIGURES[self.figure])
        return spec._replace(full=spec.full._replace(ks=spec.grids.get(self.size or 0, spec.full.ks)))

    @property
    def whole(self) -> Scale:
        """How much is run without flags that say otherwise."""
        return self.spec.quick if self.quick else self.spec.full

    @property
    def scale(self) -> Scale:
        """How much is run, narrowed by the flags."""
        given = {name: getattr(self, name) for name in Scale._fields if getattr(self, name) is not None}
        return self.whole._replace(**given)

    def seeds_of(self, k: int) -> int:
        """How many seeds the cells with k policies have."""
        others = {} if self.quick or self.seeds is not None else self.spec.seeds
        return others.get(k, self.scale.seeds)


def make_cells(arguments: Paper, *, narrowed: bool = True) -> list[Cell]:
    """Cells of the figure; all of them, whatever --ks, --envs and --algorithms say, unless `narrowed`."""
    spec, scale = arguments.spec, arguments.scale
    algorithms = arguments.algorithms or spec.algorithms
    whole = arguments.whole
    more = () if arguments.quick else spec.more
    pairs = list(product(algorithms if narrowed else spec.algorithms, scale.ks if narrowed else whole.ks))
    pairs = [pair for pair in pairs if pair[1] not in {k for _, k in more}]
    pairs += [pair for pair in more if not narrowed or _asked(arguments, *pair)]
    cells = []
    for env, (algorithm, k) in product(scale.envs if narrowed else whole.envs, dict.fromkeys(pairs)):
        n, options = _people(arguments, env)
        if k <= n:
            config = preset(env, k=k, n=n, transitions=scale.transitions)
            cells.append(Cell(env=env, env_options=options, algorithm=algorithm, config=config))
    return cells


def _people(arguments: Paper, env: str) -> tuple[int, dict[str, Any]]:
    """Number of agents, and arguments of `make`."""
    if env in _GRID:
        return (arguments.size**2, {"size": arguments.size}) if arguments.size else (preset(env).n, {})
    n = arguments.n or preset(env).n
    return n, {"n": n} | ({"backend": arguments.backend} if arguments.backend else {})


def _asked(arguments: Paper, algorithm: str, k: int) -> bool:
    """Whether a cell that the figure has beside its grid is among those to run."""
    return (arguments.ks is None or k in arguments.ks) and (arguments.algorithms is None or algorithm in arguments.algorithms)


def run_figure(arguments: Paper) -> list[Line]:
    """Train what is missing, write the figure's files whenever runs are done, and return the lines that it shows."""
    _check(arguments)
    name = f"figure_{arguments.figure}"
    out = arguments.out or Path("runs/paper") / (name + "_quick" * arguments.quick)
    results = arguments.results or (out if arguments.quick else Path("benchmarks/results"))
    asked = make_cells(arguments)
    alone = ", ".join(f"k = {k} has {name} alone" for name, k in arguments.spec.more)
    check("cells", "none", bool(asked), "one or more; k is at most the number of agents" + f", and {alone}" * bool(alone))
    cells = asked + [cell for cell in make_cells(arguments, narrowed=False) if cell not in asked]
    known = [line for cell in cells for line in lines_of_ablations(cell, results)] + read_results(results)
    needed = arguments.spec.needs
    lines = [line for line in known if any(same_cell(line, cell) for cell in cells) and needed in (None, *line)]
    lines = list({_key(line): line for line in sorted(lines, key=len)}.values())  # what holds most is last
    stem = results / (name + file_suffix(arguments))
    missing = [(cell, _missing_seeds(arguments, cell, lines)) for cell in asked if not arguments.draw_only]
    for made in _train(missing, out, arguments.workers):
        lines += made
        _write(arguments, stem, lines, cells)
    if not lines:
        raise ConfigError(f"results = {results}: hold no run of {name} with these settings; run it without --draw-only")
    for path in _write(arguments, stem, lines, cells):
        print(f"picture  {path}", file=sys.stderr)
    return lines


def _missing_seeds(arguments: Paper, cell: Cell, lines: Sequence[Line]) -> list[int]:
    """Seeds of a cell that no line is a run of."""
    have = {line["seed"] for line in lines if same_cell(line, cell)}
    return [seed for seed in range(arguments.seeds_of(cell.config.k)) if seed not in have]


def _train(missing: Sequence[tuple[Cell, Sequence[int]]], out: Path, workers: int) -> Iterator[list[Line]]:
    """Lines of the runs of all cells as they are done: those of a cell together, or each alone."""
    if not workers:
        yield from (_train_seeds(cell, seeds, out, True) for cell, seeds in missing if seeds)
        return
    alone = [(cell, [seed], out, False) for cell, seeds in missing for seed in seeds]
    for number, lines in enumerate(on_cores(_train_seeds, alone, workers), 1):
        names = [f"{line['env']} {line['algorithm']} k = {line['k']} seed {line['seed']}" for line in lines]
        announce(True, f"run {number}/{len(alone)}: {', '.join(names)}")
        yield lines


def _train_seeds(cell: Cell, seeds: Sequence[int], out: Path, progress: bool) -> list[Line]:
    return [complete_line(line, cell, out) for line in sweep([cell], seeds, out, make=make, progress=progress)]


def _check(arguments: Paper) -> None:
    check("figure", arguments.figure, arguments.figure in FIGURES, f"one of {', '.join(map(str, FIGURES))}")
    check("seeds", arguments.scale.seeds, arguments.scale.seeds >= 1, "a whole number of at least 1")
    n, size, backend, grid = arguments.n, arguments.size, arguments.backend, arguments.spec.full.envs == _GRID
    people = "None, or a whole number of at least 1 for the speed tasks; the grid's agents are set by size"
    check("n", n, n is None or (n >= 1 and not grid), people)
    check("size", size, size is None or (size >= 2 and grid), "None, or a whole number of at least 2 for Resource Gathering")
    check("backend", backend, backend is None or not grid, "None: the grid has one")
    check("workers", arguments.workers, arguments.workers >= 0, "a whole number of at least 0")
    for name in ("ks", "envs", "algorithms"):
        check(name, getattr(arguments, name), getattr(arguments, name) != (), "one or more")
    known = arguments.spec.full.envs
    check("envs", arguments.envs, set(arguments.envs or ()) <= set(known), f"of figure {arguments.figure}: {', '.join(known)}")
    shown = arguments.spec.algorithms
    asked = set(arguments.algorithms or ())
    check("algorithms", arguments.algorithms, asked <= set(shown), f"of this figure: {', '.join(shown)}")


def file_suffix(arguments: Paper) -> str:
    """Other grids and budgets do not overwrite the figure."""
    whole = arguments.whole
    sized = "".join(f"_{name}{value}" for name, value in (("size", arguments.size), ("n", arguments.n)) if value is not None)
    return sized + (
        "" if arguments.scale.transitions == whole.transitions else f"_{count_transitions(arguments.scale.transitions)}"
    )


def _key(line: Line) -> tuple[Any, ...]:
    return line["env"], line["k"], line["algorithm"], line["seed"]


def _write(arguments: Paper, stem: Path, lines: Sequence[Line], cells: Sequence[Cell]) -> list[Path]:
    notes = _tell_progress(lines, [(cell, len(_missing_seeds(arguments, cell, lines))) for cell in cells])
    taken = sum(line.get("made_by") == "benchmarks.ablation" for line in lines)
    notes += [f"Of the {len(lines)} runs, {taken} are those of `benchmarks.ablation`, which trained the same.\n"] * bool(taken)
    notes.append(f"Made by `{_command(arguments, lines)}`, or in parts with `--ks`, `--envs` and `--algorithms`.")
    shown, made = sorted(lines, key=_key), {_key(line) for line in lines}
    others = [line for line in read_results(stem.parent, stem.name) if _key(line) not in made]  # of cells not in this figure
    return write_results(stem, sorted([*shown, *others], key=_key), shown, arguments.spec.draw, notes)


def _tell_progress(lines: Sequence[Line], missing: Sequence[tuple[Cell, int]]) -> list[str]:
    """How many runs are done, in how many hours, and a line for each task of how many are left."""
    left: dict[str, dict[str, list[str]]] = {}
    for cell, seeds in sorted(missing, key=lambda item: item[0].config.k):
        if seeds:
            left.setdefault(cell.env, {}).setdefault(cell.algorithm, []).append(f"{cell.config.k} ({seeds})")
    tasks = [
        f"- {env}: " + "; ".join(f"{name} k = {', '.join(found)}" for name, found in of.items()) for env, of in left.items()
    ]
    seconds = sum((line["wall_s"] + line.get("compile_s", 0.0)) / line.get("runs_together", 1) for line in lines)
    runs = "1 run is" if len(lines) == 1 else f"{len(lines)} runs are"
    done = f"{runs} done, in {seconds / 3600:.1f} hours of training and compiling"
    if not tasks:
        return [f"{done}; none is left.\n"]
    return [f"{done}; {sum(seeds for _, seeds in missing)} are left, seeds in brackets:\n", *tasks, ""]


def _command(arguments: Paper, lines: Sequence[Line]) -> str:
    """The command that makes all that is shown."""
    seeds = 1 + max(line["seed"] for line in lines)
    flags = ["--quick"] * arguments.quick + ["--seeds", str(seeds)] * (seeds != arguments.whole.seeds)
    for name in ("transitions", "size", "n", "backend"):
        if getattr(arguments, name) is not None:
            flags += [f"--{name}", str(getattr(arguments, name))]
    return shlex.join(["python", "-m", "benchmarks.paper", "--figure", str(arguments.figure), *flags])


def main() -> None:
    """Lines of the table on stdout, the table on stderr."""
    arguments = read_arguments(Paper, __doc__)
    with clean_exit("paper"):
        lines = run_figure(arguments)
    rows = compare(lines)
    p_values = against_em(rows, lines)
    for row, p in p_values.items():
        emit({"benchmark": "paper", "figure": arguments.figure, **row._asdict(), "p_against_em": p, **machine()})
    columns = ["env", "k", "algorithm", "seeds", "welfare", "error", "share", "*", "p (em)"]
    table: list[list[Any]] = []
    for row, p in p_values.items():
        deviation, share = row.standard_error, row.share
        cells = ["-" if deviation is None else deviation, "-" if share is None else f"{share:.1%}", "*" * row.best]
        name = row.env.removesuffix("_speed").replace("resource_gathering", "grid")
        table.append([name, row.k, row.algorithm, row.seeds, row.welfare, *cells, "" if p is None else f"{p:.0e}"])
    show(f"Figure {arguments.figure}", columns, table)


if __name__ == "__main__":
    main()
