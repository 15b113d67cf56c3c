"""``rmdp-jax budget``: how many policies, predicted from one run, or by a ladder of runs."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.env_options import EnvOptions
from rmdp_jax.commands.grids import Sweep
from rmdp_jax.config import LARGEST_EPISODES
from rmdp_jax.errors import ConfigError, seed_number, seed_range, shown, whole_number
from rmdp_jax.limits import Limits
from rmdp_jax.paths import check_new_file, folder_name, local_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rmdp_jax.running.budget import Budget as Predicted
    from rmdp_jax.running.ladder import Ladder

LADDER = (1, 2, 3, 5, 8)  # where no ks are given
_OF_LADDERS = ("seeds", "first_seed", "transitions", "n", "preset", "devices", "warm")
_OF_RUNS = ("episodes", "seed")


@dataclass(frozen=True, kw_only=True)
class Budget(Compiling):
    """Tell how many policies are worth having, by what one run knows (DIR).

    Of a task (ENV), train a ladder of ks to confirm it. Call it again to go on.
    """

    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR|ENV")]
    """Folder of a run; or a task, of those that `rmdp-jax envs` lists, or a function of your own as of `rmdp-jax train`."""
    ks: tuple[int, ...] | None = None
    """Numbers of policies, rising. Default: of a run 1, 2, ... up to the larger of 10 and twice its k; of a task 1 2 3 5 8."""
    price: float | None = None
    """Recommend the k with the largest welfare - PRICE k: one more policy has to add that much, of 100."""
    share: float | None = None
    """Recommend the least k that reaches this share of what the best policy for each agent brings. Default: 0.95, where no
    price is given."""
    out: Path | None = None
    """Folder for budget.json and budget.png. Default: that of the run. Of a task the runs too. Default: runs/ENV-budget."""
    episodes: int | None = None
    """Of a run: fresh episodes of each policy to choose by, and as many to tell by. Default: as it was evaluated."""
    seed: int | None = None
    """Of a run: seed of the episodes. Default: 0."""
    seeds: int | None = None
    """Of a task: number of seeds of every k. Default: 3."""
    first_seed: int | None = None
    """Of a task: the seeds are this one and those after it. Default: 0."""
    transitions: int | None = None
    """Of a task: environment steps of each policy. Default: the preset's."""
    preset: str | None = None
    """Of a task: settings to start from: default, gpu or reference. Default: default."""
    n: int | None = None
    """Of a task: agents. Default: its own."""
    warm: bool = False
    """Of a task: each k begins with the policies of the k before, which go on learning. Default: each begins anew."""
    at_most: float | None = None
    """Agents that a policy serves at most, or weight where they have weights. Default: that of the run or preset, if any."""
    at_least: float | None = None
    """Agents that a policy serves at least, or weight, likewise."""
    devices: int | None = None
    """Of a task: how many to train on at most. Default: all that JAX finds."""
    quiet: bool = False
    """Show no progress."""
    json: bool = False
    """Print what budget.json holds instead of a table."""
    env_options: EnvOptions = field(default_factory=EnvOptions)

    def run(self) -> None:
        """Check, predict or train, write, print."""
        from rmdp_jax.envs.presets import PRESETS, is_task
        from rmdp_jax.evaluation.budget import check_ks, check_rule
        from rmdp_jax.records.places import run_folder

        check_rule(self.price, self.share)
        if self.ks is not None:
            check_ks(self.ks)
        if is_task(self.target):
            self._refuse(_OF_RUNS, "for the folder of a run, not for a task")
            self._train()
            return
        tasks = ", ".join(sorted(PRESETS["default"]))
        if not os.path.exists(run_folder("target", self.target)):
            raise ConfigError(f"target = {shown(self.target)}: is neither the folder of a run nor a task (known: {tasks})")
        self._refuse((*_OF_LADDERS, *self.env_options.given()), "for a task to train, not for the folder of a run")
        self._predict()

    def _refuse(self, names: tuple[str, ...], what: str) -> None:
        values = vars(self) | self.env_options.given()
        for name in names:
            if values[name] is not None and values[name] is not False:
                raise ConfigError(f"{name} = {values[name]}: is {what}; leave it out")

    def _predict(self) -> None:
        from rmdp_jax.commands.budget_tables import describe_budget, print_budget
        from rmdp_jax.envs import make
        from rmdp_jax.records.loading import load_run
        from rmdp_jax.records.places import outputs_folder
        from rmdp_jax.running.budget import batch_size, budget
        from rmdp_jax.running.memory import available_memory, check_evaluation

        seed = seed_number("seed", 0 if self.seed is None else self.seed)
        if self.episodes is not None:
            whole_number("episodes", self.episodes, 1, LARGEST_EPISODES)
        run = load_run(self.target, make)
        out = self._folder(outputs_folder("target", self.target))
        episodes = run.config.evaluation_episodes if self.episodes is None else int(self.episodes)
        check_evaluation(run.env, run.config, batch_size(episodes), available_memory())
        limits = self._limits(run.config.limits)
        found = budget(run, ks=self.ks, price=self.price, share=self.share, episodes=episodes, seed=seed, limits=limits)
        terms: dict[str, Any] = {
            name: run.result[name] for name in ("algorithm", "welfare_p", "weighted") if name in run.result
        }
        terms["release"] = bool(run.folder.read_config().get("release"))
        content = {**terms, **describe_budget(found)}
        self._write(out, content, draw_budget(found, self.price), print_budget)

    def _train(self) -> None:
        from rmdp_jax.envs import make
        from rmdp_jax.evaluation.budget import check_ks
        from rmdp_jax.running.ladder import train_ladder

        seeds = seed_range(self.first_seed or 0, 3 if self.seeds is None else self.seeds, first_name="first_seed")
        out = self._folder(Path("runs") / f"{folder_name(self.target)}-budget")
        given = {name: getattr(self, name) for name in ("transitions", "n", "preset") if getattr(self, name) is not None}
        ks = check_ks(LADDER if self.ks is None else self.ks, 2)
        how = {"env_options": self.env_options, "quiet": self.quiet, **given}
        grid = Sweep(envs=(self.target,), out=out, ks=ks, first_seed=seeds[0], **how)
        limits: dict[str, Any] = {
            name: (getattr(self, name),) for name in ("at_most", "at_least") if getattr(self, name) is not None
        }
        cells = grid.cells()
        grid.tell_settings()
        ladder = train_ladder(
            [replace(cell, config=replace(cell.config, **limits)) for cell in cells],
            seeds,
            out,
            make=make,
            price=self.price,
            share=self.share,
            warm=self.warm,
            devices=self.devices,
            progress=not self.quiet,
        )
        self.write_ladder(ladder, out)

    def write_ladder(self, ladder: "Ladder", out: Path) -> None:
        """Write, draw and print a ladder of the task."""
        from rmdp_jax.commands.budget_tables import describe_ladder, print_ladder

        self._write(out, {"env": self.target, **describe_ladder(ladder)}, draw_ladder(ladder, self.price), print_ladder)

    def _limits(self, own: Limits | None) -> Limits | None:
        most, least = (None, None) if own is None else own
        most, least = most if self.at_most is None else self.at_most, least if self.at_least is None else self.at_least
        return None if most is None and least is None else Limits(most, least)

    def _folder(self, default: Path) -> Path:
        out = default if self.out is None else local_path("out", self.out)
        check_new_file("out", out / "budget.png", "budget.png")
        return out

    def _write(self, out: Path, content: dict[str, Any], figure: "Figure", show: Any) -> None:
        from rmdp_jax.commands.pictures import save_pictures
        from rmdp_jax.commands.tables import print_pictures
        from rmdp_jax.records.files import to_json, write_json, writing

        with writing(out, "choose another --out"):
            out.mkdir(parents=True, exist_ok=True)
        write_json(out / "budget.json", content)
        pictures = save_pictures(out, {"budget": figure})
        if self.json:
            print(to_json(content))
        else:
            show(content)
            print_pictures(pictures)


def draw_budget(found: "Predicted", price: float | None) -> "Figure":
    """The picture of a `Budget`."""
    from rmdp_jax.plots import Curve, welfare_by_budget

    curve = Curve("predicted from one run", found.welfare, found.standard_error)
    k = found.recommended.k
    return welfare_by_budget(found.ks, [curve], found.individual, bound=found.bound, recommended=k, price=price)


def draw_ladder(ladder: "Ladder", price: float | None) -> "Figure":
    """The picture of a `Ladder`."""
    import numpy as np

    from rmdp_jax.plots import Curve, welfare_by_budget

    means, errors = np.array([of.mean for of in ladder.trained], float), [of.standard_error for of in ladder.trained]
    curves = [
        Curve(f"predicted by the runs of k = {ladder.ks[-1]}", ladder.predicted),
        Curve(f"trained, {len(ladder.seeds)} seed" + "s" * (len(ladder.seeds) > 1), means, errors),
    ]
    k = ladder.recommended.k
    return welfare_by_budget(ladder.ks, curves, ladder.individual, bound=ladder.bound, recommended=k, price=price)
