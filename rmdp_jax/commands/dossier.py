"""``rmdp-jax dossier``: what a reviewer reads before a budget of policies goes into use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rmdp_jax.commands.compiling import Compiling


@dataclass(frozen=True, kw_only=True)
class Dossier(Compiling):
    """Write dossier.html, one page for review that needs no network, and dossier.json."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a finished run."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for the two files. Default: the run's own, of a run from the hub runs/USER--NAME."""
    beside: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Finished runs of the same task and people, from other seeds: do they put the same people together?"""
    people: Annotated[Path | None, tyro.conf.arg(metavar="AGENTS.csv")] = None
    """Table of the run's own agents in their order, as for `assign`, whose columns id and group are shown."""
    no_animations: bool = False
    """Leave out the small movies of bodies."""

    def run(self) -> None:
        """Check, restore, describe, draw, write."""
        from rmdp_jax.commands.tables import print_dossier
        from rmdp_jax.dossier.page import check_place
        from rmdp_jax.dossier.stability import read_beside
        from rmdp_jax.dossier.write import write_dossier
        from rmdp_jax.envs import make
        from rmdp_jax.paths import local_path
        from rmdp_jax.records.folder import RunFolder, check_finished
        from rmdp_jax.records.loading import load_run
        from rmdp_jax.records.places import outputs_folder, run_folder

        folder = run_folder("run", self.run_dir)
        check_finished(folder, RunFolder(folder).read_result())
        beside = read_beside(folder, self.beside)
        out = check_place(self.out or outputs_folder("run", self.run_dir))
        people = None if self.people is None else local_path("people", self.people)
        run = load_run(folder, make)
        made = write_dossier(run, out, beside=beside, people=people, animations=not self.no_animations)
        print_dossier(made.content, *made.written, made.missing)
