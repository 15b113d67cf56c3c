"""The command line: ``rmdp-jax train | sweep | compare | evaluate | report | render | envs``."""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.errors import ConfigError, check

if TYPE_CHECKING:
    from rmdp_jax.reporting import Run
    from rmdp_jax.sweep import Cell

CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """Arguments of the env; one that it does not take is refused. `rmdp-jax envs` lists who takes what."""

    size: int | None = None
    """Side of the grid (resource_gathering)."""
    episode_length: int | None = None
    """Steps after which an episode is cut."""
    backend: str | None = None
    """Physics of speed tasks: auto, native, mjx, spring, positional, generalized."""

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Train:
    """Learn k policies for n agents, and who gets which. (ENV --help: its preset.)"""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Task, one of those that `rmdp-jax envs` lists."""
    out: Path | None = None
    """Folder to write to. Default: runs/ENV-ALGORITHM-kK-sSEED."""
    algorithm: str = "em"
    """em, end_to_end, end_to_end_surrogate, cluster, random, oracle, single (k = 1), individual (k = n)."""
    preset: str = "default"
    """Settings to start from: default, or reference (as near the authors' runs as it goes)."""
    k: int = 5
    """Policies."""
    n: int | None = None
    """Agents. Default: the task's own."""
    seed: int = 0
    """Seed of everything random, the agents' targets too."""
    transitions: int = TrainConfig.transitions
    """Environment steps of each policy, rounded up to whole iterations."""
    log_every: int = TrainConfig.log_every
    """Iterations between two lines of metrics, run as one compiled loop."""
    checkpoint_every: int = TrainConfig.checkpoint_every
    """Iterations between two checkpoints; 0 saves at the end only."""
    evaluation_episodes: int = TrainConfig.evaluation_episodes
    """Fresh episodes of each policy by which the result is judged."""
    resume: bool = False
    """Go on with the run in --out, bit for bit as if it had never stopped."""
    quiet: bool = False
    """Show no progress."""
    env_options: EnvOptions = field(default_factory=EnvOptions)
    sizes: Sizes = field(default_factory=Sizes)
    rates: Rates = field(default_factory=Rates)

    def run(self) -> None:
        """Train, judge, and print the table."""
        from rmdp_jax.algorithms import check_algorithm, make_plan
        from rmdp_jax.envs import make
        from rmdp_jax.reporting import load_run
        from rmdp_jax.runs import check_run
        from rmdp_jax.terminal import print_pictures, print_summary
        from rmdp_jax.training import train

        env, population = make(self.env, n=self.n, seed=self.seed, **self.env_options.given())
        config = TrainConfig(
            k=self.k,
            n=population.n,
            seed=self.seed,
            transitions=self.transitions,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            evaluation_episodes=self.evaluation_episodes,
            sizes=self.sizes,
            rates=self.rates,
        )
        check_algorithm(self.algorithm)
        out = self.out or Path("runs") / f"{self.env}-{self.algorithm}-k{self.k}-s{self.seed}"
        check_run(out, self.resume)
        plan = make_plan(
            self.algorithm,
            env,
            population,
            config,
            checkpoints=_saved_checkpoints(out) if self.resume else None,
            progress=not self.quiet,
        )
        result = train(env, population, plan.config, plan.assigner, out=out, resume=self.resume, progress=not self.quiet)
        print_summary(result.summary)
        print_pictures(_draw(load_run(out, make)))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Train a grid of tasks, algorithms, k and seeds. Call it again to go on."""

    envs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="ENV [ENV ...]", help_behavior_hint="(one or more)")
    ]
    """Tasks, of those that `rmdp-jax envs` lists."""
    out: Path
    """Folder of the runs, and of runs.jsonl with a line for each finished run."""
    algorithms: tuple[str, ...] = ("em",)
    """Algorithms, as of `rmdp-jax train`."""
    ks: tuple[int, ...] = (5,)
    """Numbers of policies."""
    seeds: int = 5
    """Number of seeds; each draws its own agents, where agents are drawn."""
    first_seed: int = 0
    """The seeds are this one and those after it."""
    preset: str = "default"
    """Settings of each task: default, or reference (as near the authors' runs as it goes)."""
    n: int | None = None
    """Agents. Default: each task's own."""
    transitions: int | None = None
    """Environment steps of each policy. Default: the preset's, as for the next two."""
    evaluation_episodes: int | None = None
    """Fresh episodes of each policy by which a result is judged."""
    log_every: int | None = None
    """Iterations between two lines of metrics."""
    quiet: bool = False
    """Show no progress."""
    env_options: EnvOptions = field(default_factory=EnvOptions)

    def run(self) -> None:
        """Train what is missing."""
        from rmdp_jax.envs import make
        from rmdp_jax.sweep import sweep

        check("seeds", self.seeds, self.seeds >= 1, "a whole number of at least 1")
        for name in ("envs", "algorithms", "ks"):
            check(name, getattr(self, name), len(getattr(self, name)) > 0, "one or more")
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        sweep(self._cells(), seeds, self.out, make=make, progress=not self.quiet)
        print(f"lines    {self.out / 'runs.jsonl'}\ncompare  rmdp-jax compare {self.out}")

    def _cells(self) -> "list[Cell]":
        from rmdp_jax.envs import make
        from rmdp_jax.envs.presets import preset
        from rmdp_jax.sweep import Cell

        names = ("transitions", "evaluation_episodes", "log_every")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        options = self.env_options.given() | ({} if self.n is None else {"n": self.n})
        cells = []
        for env in self.envs:
            n = make(env, seed=self.first_seed, **options)[1].n
            for algorithm, k in product(self.algorithms, self.ks):
                config = preset(env, self.preset, k=k, n=n, **changes)
                cells.append(Cell(env=env, env_options=options, algorithm=algorithm, config=config))
        return cells


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
        from rmdp_jax.comparison import compare_runs, draw_comparison, find_runs
        from rmdp_jax.plots import save
        from rmdp_jax.terminal import print_comparison, print_pictures

        found = find_runs(self.runs)
        rows = compare_runs(found.lines)
        if self.json:
            for row in rows:
                print(json.dumps(row._asdict()))
        else:
            print_comparison(rows, found)
        if self.picture is not None:
            path = save(draw_comparison(rows), self.picture)
            if not self.json:
                print_pictures([path])


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge a trained run by fresh episodes: who gets how much from which policy."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run."""
    episodes: int = 64
    """Fresh episodes of each policy."""
    seed: int = 0
    """Seed of the episodes."""
    deterministic: bool = False
    """Act by the most likely action instead of a sample."""
    json: bool = False
    """Print JSON with the k x n matrix of returns instead of a table."""

    def run(self) -> None:
        """Restore, play, print."""
        from rmdp_jax.envs import make
        from rmdp_jax.reporting import describe_evaluation, evaluate_run, load_run
        from rmdp_jax.terminal import print_evaluation

        check("episodes", self.episodes, self.episodes >= 1, "a whole number of at least 1")
        run = load_run(self.run_dir, make)
        judged = describe_evaluation(evaluate_run(run, self.episodes, self.seed, self.deterministic), self.episodes)
        if self.json:
            print(json.dumps(judged))
        else:
            print_evaluation(judged)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Print a run's table and draw its pictures anew into its folder."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run."""

    def run(self) -> None:
        """Draw and print."""
        from rmdp_jax.envs import make
        from rmdp_jax.reporting import load_run
        from rmdp_jax.terminal import print_pictures, print_summary

        run = load_run(self.run_dir, make)
        print_summary(run.result)
        print_pictures(_draw(run))


@dataclass(frozen=True, kw_only=True)
class Render:
    """Show a policy of a speed task at work: policy_J.html and policy_J.mp4."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run."""
    policy: int = 0
    """Which of the k policies, from 0."""
    seconds: float = 10.0
    """How much of the episode, at most 60."""
    seed: int = 0
    """Seed of the episode."""
    sampled: bool = False
    """Act by samples, as in training, instead of the most likely action."""

    def run(self) -> None:
        """Restore, play, draw."""
        from rmdp_jax.envs import make
        from rmdp_jax.envs.rendering import render_run
        from rmdp_jax.reporting import load_run
        from rmdp_jax.terminal import print_rendered

        run = load_run(self.run_dir, make)
        rendered = render_run(run, self.policy, deterministic=not self.sampled, seed=self.seed, seconds=self.seconds)
        print_rendered(*rendered)


@dataclass(frozen=True, kw_only=True)
class Envs:
    """List the tasks, their options and what steps them here."""

    def run(self) -> None:
        """Print the table."""
        from rmdp_jax.envs import describe_envs
        from rmdp_jax.terminal import print_envs

        print_envs(describe_envs())


COMMANDS = {
    "train": Train,
    "sweep": Sweep,
    "compare": Compare,
    "evaluate": Evaluate,
    "report": Report,
    "render": Render,
    "envs": Envs,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is told in one line on stderr with exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _parse(arguments).run()
    except ConfigError as error:
        print(f"rmdp-jax: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:  # while compiling, judging or pre-training; training itself ends by itself
        told = str(stop) or "interrupted; what was saved can be gone on with: --resume"
        print(f"rmdp-jax: {told}", file=sys.stderr)
        raise SystemExit(130) from None


def _saved_checkpoints(run_dir: Path) -> Path | None:
    """Where the checkpoints of a run are, if it has come to its first."""
    from rmdp_jax.checkpoint import has_checkpoint
    from rmdp_jax.runs import RunFolder

    folder = RunFolder(run_dir).checkpoints
    return folder if has_checkpoint(folder) else None


def _draw(run: "Run") -> list[Path]:
    from rmdp_jax.envs.pictures import task_pictures
    from rmdp_jax.reporting import general_pictures, save_pictures

    return save_pictures(run, {**task_pictures(run), **general_pictures(run)})


def _parse(arguments: Sequence[str]) -> Any:
    from rmdp_jax.envs.presets import PRESETS

    guess = next((word for word in arguments if word in PRESETS["default"]), None)
    parsed = _parse_with(_preset_defaults(guess, arguments), arguments)
    if isinstance(parsed, Train) and parsed.env != guess and parsed.env in PRESETS["default"]:
        return _parse_with(_preset_defaults(parsed.env, arguments), arguments)  # another word was an env's name too
    return parsed


def _parse_with(train: "Train", arguments: Sequence[str]) -> Any:
    command = (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Render, tyro.conf.subcommand("render")]
        | Annotated[Envs, tyro.conf.subcommand("envs")]
    )
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(command, prog="rmdp-jax", args=arguments, config=CONFIG, description=__doc__)
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None and not isinstance(error, ConfigError):
            error = error.__cause__ or error.__context__
        if error is not None:
            raise error from None
        sys.stderr.write(heard.getvalue())
        raise


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What follows `flag`; defaults depend on it, so it is looked for before the arguments are parsed."""
    for word, after in zip(arguments, [*arguments[1:], None], strict=True):
        if word == flag:
            return after
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None


def _preset_defaults(env: str | None, arguments: Sequence[str]) -> Train:
    """Defaults of `train`, those of the env's preset where one is named."""
    from rmdp_jax.envs.presets import preset

    blank = Train(env=tyro.MISSING)
    if env is None:
        return blank
    config = preset(env, _value_of("--preset", arguments) or blank.preset)
    names = ("transitions", "log_every", "checkpoint_every", "evaluation_episodes", "sizes", "rates")
    return replace(blank, **{name: getattr(config, name) for name in names})
