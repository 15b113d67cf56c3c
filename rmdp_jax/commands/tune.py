"""``rmdp-jax tune``: a search for settings of a task."""

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.env_options import EnvOptions
from rmdp_jax.errors import seed_number
from rmdp_jax.paths import folder_name, local_path

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from rmdp_jax.running.cells import Cell
    from rmdp_jax.running.tune import Tuned

SHOWN = 10  # trials in the table


@dataclass(frozen=True, kw_only=True)
class Tune(Compiling):
    """Search for rates and sizes with Optuna (extra [tune]). Call it again to go on.

    Trials of equal sizes are trained in one program; the worse half ends at each rung. What is found is trained again
    with seeds that the search has not seen, beside the preset.
    """

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Task, one of those that `rmdp-jax envs` lists, or a function of your own as of `rmdp-jax train`."""
    search: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=LOW..HIGH|NAME=A,B ...")] = ()
    """Settings to search: ranges of rates, choices of rates and sizes, such as learning_rate=1e-4..1e-2 epochs=4,10
    hidden=64x64,128x128. Default: learning_rate, entropy, clip and gae_lambda about the preset's."""
    out: Path | None = None
    """Folder of the search. Default: runs/ENV-tune-kK."""
    trials: int = 24
    """Trials in all; more than before goes on with the search."""
    batch: int = 8
    """Trials that are trained together."""
    seeds: int = 1
    """Runs of a trial, whose mean welfare counts."""
    first_seed: int = 0
    """The seeds are this one and those after it."""
    rungs: int = 2
    """How often those that are trained together are cut before their end; 0: never."""
    reduction: float = 2.0
    """By which factor they are cut."""
    final_seeds: int = 5
    """Seeds after those of the search, by which the best settings are compared with the preset."""
    algorithm: str = "em"
    """Algorithm, as of `rmdp-jax train`."""
    preset: str = "default"
    """Settings to begin with: default, gpu or reference. The first trial, as far as they are among what is searched."""
    k: int = 5
    """Policies."""
    n: int | None = None
    """Agents. Default: the task's own."""
    transitions: int | None = None
    """Environment steps of each policy. Default: the preset's, as for the next two."""
    evaluation_episodes: int | None = None
    """Fresh episodes of each policy by which a trial is evaluated."""
    log_every: int | None = None
    """Iterations between two lines of metrics; rungs are multiples of it."""
    devices: int | None = None
    """How many to train on at most. Default: all that JAX finds."""
    quiet: bool = False
    """Show no progress."""
    env_options: EnvOptions = field(default_factory=EnvOptions)

    def run(self) -> None:
        """Search, compare, write, print."""
        from rmdp_jax.envs import make
        from rmdp_jax.records.agents_csv import write_table
        from rmdp_jax.records.files import GO_ON
        from rmdp_jax.running.search import read_search
        from rmdp_jax.running.study import Search
        from rmdp_jax.running.tune import BEST, check_tune, tune

        check_tune()
        seed_number("first_seed", self.first_seed)
        cell = self.cell()
        names = ("trials", "batch", "seeds", "rungs", "reduction", "final_seeds")
        search = Search(settings=read_search(self.search, cell.config), **{name: getattr(self, name) for name in names})
        out = Path("runs") / f"{folder_name(self.env)}-tune-k{self.k}" if self.out is None else local_path("out", self.out)
        how: dict[str, Any] = {"devices": self.devices, "progress": not self.quiet}
        found = tune(cell, search, out, make=make, first_seed=self.first_seed, **how)
        write_table(out / "trials.csv", *_table(found.trials, [setting.name for setting in search.settings]), GO_ON)
        print_tuned(found, out / BEST, out / "trials.csv")

    def cell(self) -> "Cell":
        """What the search begins with."""
        from rmdp_jax.envs import make
        from rmdp_jax.envs.presets import preset
        from rmdp_jax.running.cells import Cell

        options = self.env_options.given() | ({} if self.n is None else {"n": self.n})
        n = make(self.env, seed=self.first_seed, **options)[1].n
        names = ("transitions", "evaluation_episodes", "log_every")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        config = preset(self.env, self.preset, k=self.k, n=n, **changes)
        return Cell(env=self.env, env_options=options, algorithm=self.algorithm, config=config)


def _table(trials: "list[FrozenTrial]", names: list[str]) -> tuple[list[str], list[list[Any]]]:
    """Header and a row for each trial; welfare is that at its last rung."""
    rows = [
        [one.number, one.state.name.lower(), one.last_step, _last(one), *(one.params.get(name) for name in names)]
        for one in trials
    ]
    return ["trial", "state", "iteration", "welfare", *names], rows


def _last(trial: "FrozenTrial") -> float | None:
    return None if trial.last_step is None else trial.intermediate_values[trial.last_step]


def print_tuned(found: "Tuned", best: Path, table: Path) -> None:
    """The best trials, what was found beside the preset, and where it is."""
    from rich.table import Table

    from rmdp_jax.running.tune import or_least
    from rmdp_jax.terminal import PlainConsole, visible

    console, names = PlainConsole(), list(found.values)
    shown = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("trial", "welfare", "iteration", *names):
        shown.add_column(name, justify="right", overflow="fold")
    ended = [one for one in found.trials if one.last_step is not None and one.params]
    ended.sort(key=lambda one: (one.last_step or 0, or_least(_last(one) or 0.0)), reverse=True)
    for one in ended[:SHOWN]:
        values = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in (one.params[name] for name in names)]
        shown.add_row(str(one.number), f"{_last(one):.2f}", str(one.last_step), *values)
    console.print(shown)
    if found.importance:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.importance.items())
        console.print(f"of the variance of welfare among finished trials: {shares}")
    for line in describe_final(found):
        console.print(line)
    wide = PlainConsole(soft_wrap=True)
    wide.print(f"trials   {visible(str(table))}")
    wide.print(f"best     {visible(str(best))}: rmdp-jax train --config {visible(quote(str(best)))}")


def describe_final(found: "Tuned") -> list[str]:
    """What seeds that the search has not seen say, in lines."""
    from rmdp_jax.evaluation.statistics import LEVEL, paired_p, summarize_values
    from rmdp_jax.terminal import plus_minus

    lines = [f"best of the search: {found.found:.2f}, which flatters, as it is the best of many. Seeds that it has not seen:"]
    for name, values in reversed(found.final.items()):
        of = summarize_values(values.values())
        error = "" if of.standard_error is None else f" {plus_minus()} {of.standard_error:.2f}"
        mean = "-" if of.mean is None else f"{of.mean:.2f}"
        lines.append(f"  {name:<7} {mean}{error}  ({of.number} seed{'' if of.number == 1 else 's'})")
    if "best" not in found.final:
        return [*lines, "nothing better than the preset was found"]
    both = sorted(found.final["best"].keys() & found.final["preset"].keys())
    if not both:
        return [*lines, "no seed has a welfare of both"]
    gain = sum(found.final["best"][seed] - found.final["preset"][seed] for seed in both) / len(both)
    p = paired_p(found.final["best"], found.final["preset"])
    sure = "too few seeds for a test" if p is None else f"paired t-test p = {p:.3f}"
    verdict = "not significantly different from the preset"
    if p is not None and p < LEVEL:
        verdict = "better than the preset" if gain > 0 else "worse than the preset"
    return [*lines, f"  {verdict}: {gain:+.2f} a seed, {sure}"]
