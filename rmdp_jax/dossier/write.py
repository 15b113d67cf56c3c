"""From a finished run to its dossier, in one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.dossier.describe import dossier
from rmdp_jax.dossier.page import Written, check_place, write_page
from rmdp_jax.dossier.people import read_own
from rmdp_jax.dossier.pictures import draw
from rmdp_jax.dossier.scores import score_run
from rmdp_jax.dossier.stability import Beside
from rmdp_jax.records.loading import Run


class Dossier(NamedTuple):
    """A dossier that is written."""

    content: dict[str, Any]  # what dossier.json holds
    written: Written
    missing: str | None  # why there are no small movies, where they were asked for and could not be drawn


def write_dossier(
    run: Run,
    out: str | Path | None = None,
    *,
    beside: Sequence[Beside] = (),
    people: Path | None = None,
    animations: bool = True,
) -> Dossier:
    """Write dossier.html, one page for review that needs no network, and dossier.json of a finished run.

    Args:
        run: of `load_run`, a task of one's own too.
        out: folder for both; the run's own when not given.
        beside: of `read_beside`: runs of other seeds, whose groups are compared.
        people: table of the run's own agents in their order, whose columns id and group are shown.
        animations: small movies of bodies.

    Raises:
        ConfigError: nothing can be written there, the table is of others, or the run kept no episodes.
    """
    place = check_place(out or run.folder.path)
    table = None if people is None else read_own(people, run)
    scores = score_run(run)
    content = dossier(run, beside, table, scores)
    pictures = draw(run, content, scores, animations=animations)
    return Dossier(content, write_page(content, pictures, place), pictures.missing)
