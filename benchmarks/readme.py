"""Tables of README.md, docs/results.md and benchmarks/README.md, written from the committed lines: no cell is made by hand.

A table stands between `<!-- benchmarks.readme NAME -->` and `<!-- end -->`. Only runs of today's settings are in it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation_results import current_lines
from benchmarks.accelerator import RATES, rate_rows
from benchmarks.common import clean_exit, emit, read_arguments, show
from benchmarks.gymnasium_results import COLUMNS as GYMNASIUM
from benchmarks.gymnasium_results import table_rows as gymnasium_rows
from benchmarks.paper import Paper, file_suffix, make_cells
from benchmarks.paper_lines import same_cell
from benchmarks.paper_results import against_em, compare
from benchmarks.speed import RATIOS, THROUGHPUT, ratio_rows, throughput_rows
from benchmarks.variants import SEGMENTS
from rmdp_jax.envs.presets import PRESETS
from rmdp_jax.errors import ConfigError, check
from rmdp_jax.evaluation.comparison import Line, Row
from rmdp_jax.evaluation.statistics import LEVEL
from rmdp_jax.records.files import read_lines

RESULTS = Path("benchmarks/results")
FILES = tuple(map(Path, ("README.md", "docs/results.md", "benchmarks/README.md")))
_BLOCK = re.compile(r"(<!-- benchmarks\.readme (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Readme:
    """Write the tables anew."""

    files: tuple[Path, ...] = FILES
    """The files with the tables."""
    check: bool = False
    """Write nothing; an error where a table is not that of the lines."""
    quick: bool = False
    """As --check."""


def figure_table(figure: int, **people: int) -> list[str]:
    """A row for each env and k of a figure, on grids of another size or with n agents too, a column for each algorithm."""
    asked = Paper(figure=figure, **people)  # type: ignore[arg-type]
    cells = make_cells(asked, narrowed=False)
    results = RESULTS / f"figure_{figure}{file_suffix(asked)}.jsonl"
    lines = [line for line in read_lines(results) if any(same_cell(line, cell) for cell in cells)]
    rows = compare(lines)
    p = against_em(rows, lines)
    algorithms = [name for name in asked.spec.algorithms if any(row.algorithm == name for row in rows)]
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.env, row.k), {})[row.algorithm] = row
    table = []
    for (env, k), by_algorithm in sorted(found.items()):
        bound = next(iter(by_algorithm.values())).bound
        found_rows = map(by_algorithm.get, algorithms)
        cells_of_row = ["" if row is None else _cell(row, p[row]) for row in found_rows]
        table.append([f"`{env}`", k, *cells_of_row, "" if bound is None else f"{bound:.2f}"])
    return _markdown(["env", "k", *(f"`{name}`" for name in algorithms), "bound"], table)


def _cell(row: Row, p: float | None) -> str:
    """Welfare with its share of the bound and the number of seeds; a star where it differs from that of `em`."""
    share = "" if row.share is None else f"{row.share:.1%}, "
    star = "\\*" if p is not None and p < LEVEL else ""
    return f"{_with_error(row.welfare, row.standard_error)}{star} ({share}{row.seeds})"


def _with_error(mean: float, error: float | None) -> str:
    return f"{mean:.2f}" + ("" if error is None else f" ± {error:.2f}")


def speed_table(budget: int) -> list[str]:
    """`em` on the bodies with k = 5 after so many transitions of each policy, beside what is proved and what is reachable."""
    table = []
    for env in sorted(name for name in PRESETS["default"] if name.endswith("_speed")):
        lines = current_lines(RESULTS / f"ablation_{env}.jsonl", env, "assigners")
        for line in lines:
            if (line["budget"], line["k"], line["variant"]) == (budget, 5, "em"):
                table.append(_speed_row(line))
    columns = [
        "env",
        "seeds",
        "`em`",
        "share of the bound",
        "upper bound",
        "reachable, estimated (share)",
        "served",
        "largest unserved group",
    ]
    return _markdown(columns, table)


def _speed_row(line: Line) -> list[Any]:
    runs = line["runs"]
    bound, reachable, served = (_mean(runs, name) for name in ("upper_bound", "reachable", "served"))
    fastest = [run["fastest_served"] for run in runs if run["fastest_served"] is not None]
    return [
        *(f"`{line['env']}`", len(runs), _with_error(line["welfare_mean"], line["welfare_standard_error"])),
        *(f"{line['share_of_bound']:.1%}", f"{bound:.2f}", f"{reachable:.2f} ({line['welfare_mean'] / reachable:.0%})"),
        f"{served:.0f} of {line['n']}" + (f", to {np.mean(fastest):.1f} m/s" if fastest else ""),
        max(run["largest_poor_group"] for run in runs),
    ]


def variants_table(of: str, budget: int, columns: dict[str, int], variants: Sequence[str]) -> list[str]:
    """A row for each variant, a column for each env with its k: welfare, share of the bound and seeds."""
    lines = {
        env: {
            line["variant"]: line
            for line in current_lines(_ablation_file(env, of), env, of)
            if (line["budget"], line["k"]) == (budget, k)
        }
        for env, k in columns.items()
    }
    table = [[variant, *(_line_cell(lines[env].get(variant)) for env in columns)] for variant in variants]
    return _markdown(["", *(f"`{env}`, k = {k}" for env, k in columns.items())], table)


def _ablation_file(env: str, of: str) -> Path:
    return RESULTS / f"ablation_{env}{'' if of == 'assigners' else f'_{of}'}.jsonl"


def _line_cell(line: Line | None) -> str:
    if line is None:
        return ""
    welfare = _with_error(line["welfare_mean"], line["welfare_standard_error"])
    return f"{welfare} ({line['share_of_bound']:.1%}, {len(line['seeds'])})"


def _mean(runs: Sequence[Line], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in cells]


_BODIES = {"halfcheetah_speed": 5, "hopper_speed": 5}
_WALKING = {"halfcheetah_speed": 5, "walker2d_speed": 5}
_PARTS = ("plain_em", "annealing alone", "annealing with relocation and restarts", "exploration alone", "em")
TABLES: dict[str, Callable[[], list[str]]] = {
    "figure_2": lambda: figure_table(2),
    "figure_2_of_4x4": lambda: figure_table(2, size=4),
    "figure_3": lambda: figure_table(3),
    "figure_3_n1000": lambda: figure_table(3, n=1000),
    "speed_1M": lambda: speed_table(1_000_000),
    "speed_300k": lambda: speed_table(300_000),
    "parts_of_em": lambda: variants_table("assigners", 1_000_000, _BODIES | {"resource_gathering": 3}, _PARTS),
    "throughput": lambda: _markdown(THROUGHPUT, throughput_rows(read_lines(RESULTS / "speed.jsonl"))),
    "ratios": lambda: _markdown(RATIOS, ratio_rows(read_lines(RESULTS / "speed.jsonl"))),
    "accelerator": lambda: _markdown(RATES, rate_rows(read_lines(RESULTS / "accelerator.jsonl"))),
    "gymnasium": lambda: _markdown(GYMNASIUM, gymnasium_rows(read_lines(RESULTS / "gymnasium.jsonl"))),
    "gpu_preset": lambda: variants_table("gpu", 1_000_000, _WALKING, ["preset", "gpu"]),
    "segments": lambda: variants_table(
        "settings", 300_000, _BODIES, ["preset", *(f"segments of {steps}" for steps in SEGMENTS)]
    ),
}


def written(text: str) -> str:
    """`text` with all its tables as the lines have them.

    Raises:
        ConfigError: it has a table that is not known.
    """

    def table(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in TABLES:
            raise ConfigError(f"table = {name}: must be one of {', '.join(TABLES)}")
        return begin + "\n".join(TABLES[name]()) + "\n" + end

    return _BLOCK.sub(table, text)


def main() -> None:
    """A line for each table on stdout."""
    arguments = read_arguments(Readme, __doc__)
    rows: list[list[Any]] = []
    with clean_exit("readme"):
        for file in arguments.files:
            check("files", file, file.is_file(), "a file that is there")
            text = file.read_text()
            new = written(text)
            if new != text and (arguments.check or arguments.quick):
                raise ConfigError(f"files = {file}: its tables are not those of the lines; run python -m benchmarks.readme")
            file.write_text(new)
            rows += [[file, name, body.count("\n") - 2] for _, name, body in _blocks(new)]
    for file, name, number in rows:
        emit({"benchmark": "readme", "file": str(file), "table": name, "rows": number})
    show("Tables", ["file", "table", "rows"], rows)


def _blocks(text: str) -> list[tuple[str, str, str]]:
    return [(match[1], match[2], match[0][len(match[1]) : -len(match[3])]) for match in _BLOCK.finditer(text)]


if __name__ == "__main__":
    main()
