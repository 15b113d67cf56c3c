"""The pictures of a run and of a comparison, from what was recorded."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from rmdp_jax import plots
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.comparison import Row
from rmdp_jax.plots import Bar, welfare_by_k
from rmdp_jax.plots.style import count_transitions
from rmdp_jax.records.files import reason_of
from rmdp_jax.records.loading import Run
from rmdp_jax.records.pictures import general_pictures, task_pictures


def draw_run(run: Run, folder: Path | None = None) -> list[Path]:
    """Save all pictures of `run` in `folder`, its own when not given; returns their paths.

    Raises:
        ConfigError: one cannot be written. The run itself is whole all the same.
    """
    way_out = f"the run is whole; draw it elsewhere: rmdp-jax report {shlex.quote(str(run.folder.path))} --pictures FOLDER"
    return save_pictures(folder or run.folder.path, {**task_pictures(run), **general_pictures(run)}, way_out)


def save_pictures(folder: Path, pictures: dict[str, Figure], way_out: str = "choose another folder") -> list[Path]:
    """Write each as a PNG into the folder; `way_out` is what to do where one cannot be written."""
    paths = []
    for name, figure in pictures.items():
        paths.append(folder / f"{name}.png")
        try:
            plots.save(figure, paths[-1])
        except OSError as error:
            raise ConfigError(f"{paths[-1]}: cannot be written ({reason_of(error)}); {way_out}") from error
    return paths


def draw_comparison(rows: Sequence[Row], title: str = "Welfare by number of policies") -> Figure:
    """Bars of `compare_runs`' rows, a panel for each task, backend, number of agents and budget."""
    panels = _headings(rows)
    bars = [
        Bar(panel, row.k, row.algorithm, row.welfare, row.standard_error, row.best, row.too_few)
        for row, panel in sorted(panels.items(), key=lambda item: item[1])
    ]
    # of rows with other seeds, and so other agents, the one with the most; that of `contextual`, of n policies, if it is alone
    bounded = sorted(rows, key=lambda row: (not row.algorithm.startswith("contextual"), row.seeds))
    bounds = {(panels[row], row.k): row.bound for row in bounded if row.bound is not None}
    return welfare_by_k(bars, bounds, title=title)


def _headings(rows: Sequence[Row]) -> dict[Row, str]:
    """Titles of the panels; those that would be the same tell the budget to the step, and the backend."""
    short = {row: ", ".join(filter(None, _heading(row))) for row in rows}
    kinds = {heading: {(row.backend, row.transitions) for row in rows if short[row] == heading} for heading in short.values()}
    return {
        row: heading if len(kinds[heading]) == 1 else f"{heading} ({row.transitions:,}, {row.backend})"
        for row, heading in short.items()
    }


def _heading(row: Row) -> list[str]:
    return [row.env, row.options, f"n = {row.n}", f"{count_transitions(float(f'{row.transitions:.2g}'))} per policy"]
