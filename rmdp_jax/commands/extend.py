"""``rmdp-jax extend``: more policies for the people of a finished run, beside those that it has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.train import Train, read_policies, settings_of
from rmdp_jax.errors import whole_number
from rmdp_jax.paths import local_path

_AS_IT_WAS = ("transitions", "at_most", "at_least")  # of the run in --out, where it is gone on with


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
    """Folder to write to. Default: DIR-kK, of a run from the hub runs/USER--NAME-kK."""
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
        if settings["algorithm"] in ("single", "individual"):
            settings["algorithm"] = "em"  # which they are, with k = 1 and k = n
        home = outputs_folder("run", self.run_dir).absolute()
        out = home.with_name(f"{home.name}-k{k}") if self.out is None else local_path("out", self.out)
        own = f"{source}:" + ",".join(map(str, range(settings["k"])))
        given = {"freeze": (), "start_from": (), ("start_from" if self.keep_learning else "freeze"): (own,)}
        if self.resume and RunFolder(out).holds_run():
            there = settings_of(out)
            settings |= {name: there[name] for name in _AS_IT_WAS}
            begun_with = there["freeze"] + there["start_from"]
            if _places(begun_with) == _places((own,)) and not (self.keep_learning and there["freeze"]):
                given = {name: there[name] for name in given}  # however DIR was spelled
        for name in _AS_IT_WAS:
            if getattr(self, name) is not None:
                settings[name] = getattr(self, name)
        settings["out"] = out
        how = {"resume": self.resume, "devices": self.devices, "quiet": self.quiet, "no_cache": self.no_cache}
        env = RunFolder(source).read_task()
        command = replace(Train(env=env), **{**settings, **given, **how, "k": k})
        env_and_people = command.task()[:2]
        check_people(RunFolder(source).people, *env_and_people)
        command.train()


def _places(words: Sequence[str]) -> list[tuple[Path, int]]:
    """The policies that words ``DIR:J,J`` mean."""
    return [(Path(run).resolve(), policy) for run, policy in read_policies("freeze", words)]
