"""dossier.html and dossier.json: written whole, read without a network and without JavaScript."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from rmdp_jax import plots
from rmdp_jax.dossier.pictures import Pictures
from rmdp_jax.paths import local_path
from rmdp_jax.records.files import to_json, whole, writing

DASH = "\N{EN DASH}"  # where there is no figure
PAGE, DATA = "dossier.html", "dossier.json"
WAY_OUT = "make room or give rights, or choose another --out"
MOST_ROWS = 300  # of the table of agents in the page; the JSON has all


class Written(NamedTuple):
    """What `write_page` wrote."""

    page: Path
    data: Path
    bytes: int  # of the page


def write_page(dossier: dict[str, Any], pictures: Pictures, out: str | Path) -> Written:
    """Write the page and the JSON of `dossier` into the folder `out`, which is made if need be.

    Raises:
        ConfigError: they cannot be written.
    """
    folder = check_place(out)
    page, data = folder / PAGE, folder / DATA
    text = render(dossier, pictures)
    for path, content in ((data, to_json(dossier, indent=1) + "\n"), (page, text)):
        with writing(path, WAY_OUT), whole(path) as temporary:
            temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
    return Written(page, data, page.stat().st_size)


def check_place(out: str | Path) -> Path:
    """The folder `out`, made if need be, or ConfigError where nothing can be written there."""
    folder = local_path("out", out)
    with writing(folder, WAY_OUT):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write")
    return folder


def render(dossier: dict[str, Any], pictures: Pictures) -> str:
    """The page of a `dossier`; names of envs, agents and folders are text in it, whatever they hold."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rmdp_jax", "dossier"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, count=count, percent=percent, interval=interval, cells=cells)
    return environment.get_template("page.html").render(
        dossier=dossier,
        pictures=pictures,
        colors=plots.policy_colors(dossier["run"]["k"]),
        most_rows=MOST_ROWS,
        settings=settings(dossier["config"]),
    )


def figure(value: float | None, digits: int = 1) -> str:
    """A number with so many digits after the point; a dash where there is none."""
    return DASH if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"  # no -0.0


def count(value: float | None) -> str:
    """A number in at most four significant digits, whole ones in full; a dash where there is none."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def percent(value: float | None) -> str:
    """A share in percent."""
    return DASH if value is None else f"{100 * value:.1f}%"


def interval(one: dict[str, Any], digits: int = 1) -> str:
    """`91.3 (90.8 to 91.8)` of a mean with its interval, or the mean alone where that is not known or has no width."""
    mean, low, high = (one.get(name) for name in ("mean", "low", "high"))
    return figure(mean, digits) + ("" if low is None or low == high else f" ({figure(low, digits)} to {figure(high, digits)})")


def cells(agents: dict[str, Any], policy: int) -> list[int]:
    """Indices of the agents that a policy serves."""
    return np.flatnonzero(np.asarray(agents["policy"]) == policy).tolist()


def settings(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """config.json as pairs of a dotted name and a value."""
    found: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found += settings(value, f"{prefix}{name}.")
        else:
            shown: Sequence[Any] | Any = ", ".join(map(str, value)) if isinstance(value, list) else value
            found.append((prefix + name, DASH if shown in ({}, "", None) else str(shown)))
    return found
