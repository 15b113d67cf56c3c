"""``rmdp-jax sweep | compare``: grids of runs."""

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.env_options import EnvOptions
from rmdp_jax.config import Rates
from rmdp_jax.errors import check, real_number, seed_range
from rmdp_jax.paths import check_new_file, local_path
from rmdp_jax.terminal import visible

if TYPE_CHECKING:
    from rmdp_jax.running.cells import Cell


@dataclass(frozen=True, kw_only=True)
class Sweep(Compiling):
    """Train a grid of tasks, algorithms, k, rates and seeds. Call it again to go on."""

    envs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="ENV [ENV ...]", help_behavior_hint="(one or more)")
    ]
    """Tasks, of those that `rmdp-jax envs` lists, or functions of your own as of `rmdp-jax train`."""
    out: Path
    """Folder of the runs, and of runs.jsonl with a line for each finished run."""
    algorithms: tuple[str, ...] = ("em",)
    """Algorithms, as of `rmdp-jax train`."""
    ks: tuple[int, ...] = (5,)
    """Numbers of policies."""
    learning_rates: tuple[float, ...] = ()
    """Step sizes at the start of training; the end is in the preset's proportion. Default: the preset's."""
    entropies: tuple[float, ...] = ()
    """Weights of the entropy bonus, in the same way. All rates and seeds are trained in one program."""
    seeds: int = 5
    """Number of seeds; each draws its own agents, where agents are drawn and --people-seed is not given."""
    first_seed: int = 0
    """The seeds are this one and those after it."""
    preset: str = "default"
    """Settings of each task: default, gpu (for an accelerator), or reference (as near the authors' runs as it goes)."""
    n: int | None = None
    """Agents. Default: each task's own."""
    transitions: int | None = None
    """Environment steps of each policy. Default: the preset's, as for the next two."""
    evaluation_episodes: int | None = None
    """Fresh episodes of each policy by which a result is evaluated."""
    log_every: int | None = None
    """Iterations between two lines of metrics."""
    log: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SINK ...")] = ()
    """Log every run to these too, as `rmdp-jax train` does."""
    devices: int | None = None
    """How many to train on at most. Default: all that JAX finds."""
    quiet: bool = False
    """Show no progress."""
    env_options: EnvOptions = field(default_factory=EnvOptions)

    def run(self) -> None:
        """Train what is missing."""
        from rmdp_jax.envs import make
        from rmdp_jax.running.sweep import sweep

        seeds = seed_range(self.first_seed, self.seeds, first_name="first_seed")
        for name in ("envs", "algorithms", "ks"):
            check(name, getattr(self, name), len(getattr(self, name)) > 0, "one or more")
        out = local_path("out", self.out)
        cells = self.cells()
        self.tell_settings()
        lines = sweep(cells, seeds, out, make=make, devices=self.devices, progress=not self.quiet, log=self.log)
        if lines:
            print(f"lines    {visible(str(out / 'runs.jsonl'))}\ncompare  rmdp-jax compare {visible(quote(str(out)))}")
        else:
            print("other processes train all that is left; the same command says what came out when they are done")

    def tell_settings(self) -> None:
        """Say where the settings of tasks of one's own come from."""
        from rmdp_jax.envs.own import is_own, own_preset
        from rmdp_jax.running.progress import announce

        for env in filter(is_own, self.envs):
            announce(not self.quiet, f"{env}: {own_preset(env)[1]}")

    def cells(self) -> "list[Cell]":
        """What is to be trained, in the order of the ks."""
        from rmdp_jax.envs import make
        from rmdp_jax.envs.presets import preset
        from rmdp_jax.running.cells import Cell

        names = ("transitions", "evaluation_episodes", "log_every")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        options = self.env_options.given() | ({} if self.n is None else {"n": self.n})
        cells = []
        for env in self.envs:
            n = make(env, seed=self.first_seed, **options)[1].n
            for algorithm, k in product(self.algorithms, self.ks):
                config = preset(env, self.preset, k=k, n=n, **changes)
                for label, rates in self._rates(config.rates):
                    rated = replace(config, rates=rates)
                    cells.append(Cell(env=env, env_options=options, algorithm=algorithm, config=rated, label=label))
        return cells

    def _rates(self, rates: Rates) -> list[tuple[str, Rates]]:
        """All rates that were asked for, each with what names it."""
        found = [("", rates)]
        for name, short, starts in (("learning_rate", "lr", self.learning_rates), ("entropy", "entropy", self.entropies)):
            first, last = getattr(rates, name)
            share = last / first if first else 1.0  # a preset that begins at 0 has no proportion
            starts = tuple(real_number(name, start, lambda x: 0.0 <= x <= 1e30, "a number from 0 up") for start in starts)
            changes: list[tuple[str, dict[str, Any]]] = [
                (f"{short}{start:g}", {name: (start, start * share)}) for start in starts
            ]
            found = [
                ("-".join(filter(None, [label, suffix])), replace(known, **change))
                for (label, known), (suffix, change) in product(found, changes or [("", {})])
            ]
        return found


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Set runs side by side: means over seeds, and which algorithm is best at every k."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DIR [DIR ...]", help_behavior_hint="(one or more)")
    ]
    """Folders of runs, folders that hold some at any depth, or .jsonl files with a result a line."""
    json: bool = False
    """Print a JSON line for each row instead of tables."""
    picture: Path | None = None
    """Draw welfare by k to this PNG."""

    def run(self) -> None:
        """Find, group, print."""
        from rmdp_jax.commands.pictures import draw_comparison
        from rmdp_jax.commands.tables import print_comparison, print_pictures
        from rmdp_jax.evaluation.comparison import compare_runs
        from rmdp_jax.plots import save
        from rmdp_jax.records.files import to_json
        from rmdp_jax.records.finished import find_runs

        picture = None if self.picture is None else local_path("picture", self.picture)
        if picture is not None:
            check_new_file("picture", picture, "welfare.png")
            check("picture", picture, picture.suffix.lower() == ".png", "a file whose name ends with .png")
        found = find_runs(self.runs)
        rows = compare_runs(found.lines)
        if self.json:
            for row in rows:
                print(to_json(row._asdict()))
        else:
            print_comparison(rows, found)
        if picture is not None:
            path = save(draw_comparison(rows), picture)
            if not self.json:
                print_pictures([path])
