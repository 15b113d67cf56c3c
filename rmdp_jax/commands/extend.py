"""``rmdp-jax extend``: more policies for the people of a finished run, beside those that it has."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.train import Train, settings_of
from rmdp_jax.errors import whole_number


@dataclass(frozen=True, kw_only=True)
class Extend(Compiling):
    """Add policies to a finished run: DIR's stay as they are, the others learn.

    It is a new run, of DIR's people and settings. Exit codes as of train.
    """

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a finished run. It is read, never changed."""
    k: int
    """Policies, those of DIR included."""
    transitions: int | None = None
    """Environment steps of each policy. Default: as many as DIR had."""
    keep_learning: bool = False
    """DIR's policies are only the start: they go on learning once groups have formed."""
    at_most: tuple[float, ...] | None = None
    """Agents that a policy serves at most: one number for all, or k. Default: as DIR has it."""
    at_least: tuple[float, ...] | None = None
    """Agents that a policy serves at least, likewise."""
    out: Path | None = None
    """Folder to write to. Default: DIR-kK, of a run from the hub runs/NAME-kK."""
    resume: bool = False
    """Go on with the run in --out; begin it where there is none. What is not given is as it was."""
    devices: int | None = None
    """How many to train on at most. Default: all that JAX finds."""
    quiet: bool = False
    """Show no progress."""

    def run(self) -> None:
        """Train as `train` does."""
        from rmdp_jax.records.folder import RunFolder
        from rmdp_jax.records.people import check_people
        from rmdp_jax.records.places import outputs_folder, run_folder

        source = run_folder("run", self.run_dir)
        settings, k = settings_of(source), whole_number("k", self.k)
        own = f"{source}:" + ",".join(map(str, range(settings["k"])))
        given = {"freeze": (), "start_from": (), ("start_from" if self.keep_learning else "freeze"): (own,)}
        for name in ("transitions", "at_most", "at_least"):
            if getattr(self, name) is not None:
                settings[name] = getattr(self, name)
        home = outputs_folder("run", self.run_dir).absolute()
        settings["out"] = self.out or home.with_name(f"{home.name}-k{k}")
        how = {"resume": self.resume, "devices": self.devices, "quiet": self.quiet, "no_cache": self.no_cache}
        env = RunFolder(source).read_task()
        command = replace(Train(env=env), **{**settings, **given, **how, "k": k})
        env_and_people = command.task()[:2]
        check_people(RunFolder(source).people, *env_and_people)
        command.train()
