"""The command line: ``rmdp-jax train | evaluate | report | render | envs``."""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.errors import ConfigError, check

if TYPE_CHECKING:
    from rmdp_jax.reporting import Run

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
        plan = make_plan(self.algorithm, env, population, config)
        result = train(env, population, plan.config, plan.assigner, out=out, resume=self.resume, progress=not self.quiet)
        print_summary(result.summary)
        print_pictures(_draw(load_run(out, make)))


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


COMMANDS = {"train": Train, "evaluate": Evaluate, "report": Report, "render": Render, "envs": Envs}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is told in one line on stderr with exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _parse(arguments).run()
    except ConfigError as error:
        print(f"rmdp-jax: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # while compiling or judging; training itself ends by itself
        print("rmdp-jax: interrupted; what was saved can be gone on with: --resume", file=sys.stderr)
        raise SystemExit(130) from None


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
