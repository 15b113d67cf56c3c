"""``rmdp-jax train``: one run, evaluated and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.commands.env_options import EnvOptions, options_for
from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.devices.processes import is_first, join
from rmdp_jax.errors import check
from rmdp_jax.paths import folder_name, local_path

if TYPE_CHECKING:
    from rmdp_jax.env import Env, Population

SETTINGS = tuple(field.name for field in fields(TrainConfig) if field.name != "n")  # that are flags; n is the task's own
UNFINISHED = 75  # exit code of a run that a signal stopped: start the same command again (EX_TEMPFAIL of sysexits.h)


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Several processes as one run, each started with the same command. All of them have to see the folder --out."""

    distributed: bool = False
    """This is one of several processes. SLURM, Open MPI and cloud TPU say which; elsewhere the next three do."""
    coordinator: str | None = None
    """HOST:PORT of the first process, with a port that is free there."""
    processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        for name in ("coordinator", "processes", "process_id"):
            value = getattr(self, name)
            check(name, value, value is None or self.distributed, "given together with --distributed")

    def join(self) -> None:
        """Meet the others."""
        if self.distributed:
            join(self.coordinator, self.processes, self.process_id)


@dataclass(frozen=True, kw_only=True)
class Train(Compiling):
    """Learn k policies for n agents, and who gets which. `rmdp-jax train ENV --help` shows that task's defaults.

    Exit code 0: finished; 75: stopped by a signal, --resume goes on.
    """

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """A task that `rmdp-jax envs` lists; your own function, package.module:make or my_env.py:make; or the folder of a run."""
    out: Path | None = None
    """Folder to write to. Default: runs/ENV-ALGORITHM-kK-sSEED."""
    config: Path | None = None
    """Settings from a config.json, of a run or by hand (env, env_options, algorithm, train). Flags beside it win."""
    algorithm: str = "em"
    """em, plain_em, end_to_end, end_to_end_surrogate, cluster, affinity, cover, random, oracle, single (k = 1),
    individual (k = n), contextual (k = 1, a policy that is told for whom it acts)."""
    preset: str = "default"
    """Settings to start from: default, gpu (for an accelerator), or reference (as near the authors' runs as it goes)."""
    k: int = 5
    """Policies."""
    n: int | None = None
    """Agents. Default: the task's own."""
    seed: int = 0
    """Seed of everything random, the agents' targets too where --people-seed is not given."""
    transitions: int = TrainConfig.transitions
    """Environment steps of each policy, rounded up to whole iterations."""
    log_every: int = TrainConfig.log_every
    """Iterations between two lines of metrics, run as one compiled loop."""
    checkpoint_every: int = TrainConfig.checkpoint_every
    """Iterations between two checkpoints, rounded up to a multiple of log_every; 0 saves at the end only."""
    evaluation_episodes: int = TrainConfig.evaluation_episodes
    """Fresh episodes of each policy by which the result is evaluated."""
    evaluation_steps: int = TrainConfig.evaluation_steps
    """Steps of an episode after which evaluation stops; result.json says so where it does."""
    welfare_p: float = TrainConfig.welfare_p
    """Welfare is the p-mean of returns: 1 their mean (utilitarian), 0 their geometric mean (Nash), -inf the least of them."""
    at_most: tuple[float, ...] | None = None
    """Agents that a policy serves at most, in every hard E-step (em, plain_em): one number for all, or k."""
    at_least: tuple[float, ...] | None = None
    """Agents that a policy serves at least: one number for all, or k."""
    max_fault_share: float = TrainConfig.max_fault_share
    """Share of the steps between two lines of metrics in which physics may diverge, or an agent's reward not be finite."""
    resume: bool = False
    """Go on with the run in --out bit for bit, with its settings where none are given; begin it where there is none."""
    extend: int | None = None
    """Go on beyond the end of the run, to this many --transitions; its schedules become those of the longer run."""
    freeze: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR:J,J ...")] = ()
    """Policies of finished runs that stay as they are; --k counts them, agents may choose them, the others learn."""
    start_from: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR:J,J ...")] = ()
    """Policies of finished runs that come next among the k, and go on learning once groups have formed."""
    log: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SINK ...")] = ()
    """Log to these too: tensorboard, wandb, trackio (each an extra of that name). One that fails does not end the run."""
    devices: int | None = None
    """How many to train on at most. Default: all that JAX finds."""
    quiet: bool = False
    """Show no progress."""
    machines: Machines = field(default_factory=Machines)
    env_options: EnvOptions = field(default_factory=EnvOptions)
    sizes: Sizes = field(default_factory=Sizes)
    rates: Rates = field(default_factory=Rates)

    @property
    def goes_on(self) -> bool:
        """Whether a run that is there may be gone on with."""
        return self.resume or self.extend is not None

    def folder(self) -> Path:
        """Where the run is written to."""
        if self.out is not None:
            return local_path("out", self.out)
        from rmdp_jax.running.algorithms import resolve

        _, population, config = self.task()
        k = resolve(self.algorithm, population, config).config.k
        return Path("runs") / f"{folder_name(self.env)}-{self.algorithm}-k{k}-s{self.seed}"

    @property
    def starts_jax(self) -> bool:
        """Not before the other processes are met."""
        return not self.machines.distributed

    def run(self) -> None:
        """Train, evaluate, and print the table."""
        from rmdp_jax.envs.own import is_own, own_preset

        self.train(own_preset(self.env)[1] if is_own(self.env) and not self.goes_on else None)

    def train(self, note: str | None = None) -> None:
        """What `run` does; `note` is printed when all is checked."""
        self.machines.join()  # before anything else wakes JAX up
        from rmdp_jax.assigners.base import Given
        from rmdp_jax.commands.pictures import draw_run
        from rmdp_jax.commands.tables import print_pictures, print_summary
        from rmdp_jax.devices.mesh import check_devices
        from rmdp_jax.envs import make
        from rmdp_jax.records.folder import check_run
        from rmdp_jax.records.given import given_policies
        from rmdp_jax.records.loading import load_run
        from rmdp_jax.records.settings import check_algorithm_options
        from rmdp_jax.records.sinks import sink_names
        from rmdp_jax.running.algorithms import make_plan, resolve
        from rmdp_jax.running.progress import announce
        from rmdp_jax.running.train import train
        from rmdp_jax.trainer import check_given

        env, population, config = self.task()
        check_devices(self.devices)
        sink_names(self.log)
        frozen, start = read_policies("freeze", self.freeze), read_policies("start_from", self.start_from)
        resolved = resolve(self.algorithm, population, config)
        if self.config is not None:
            check_algorithm_options(local_path("config", self.config), resolved.options)
        given = Given(len(frozen), len(frozen) + len(start))
        check_given(resolved.config, self.algorithm, resolved.takes_given, given)
        out = self.folder()
        given_policies(env, resolved.config, frozen, start, out if self.goes_on else None)  # or ConfigError, before a folder
        check_run(out, self.goes_on)
        announce(note is not None and not self.quiet, note or "")
        plan = make_plan(
            self.algorithm,
            env,
            population,
            config,
            checkpoints=_saved_checkpoints(out) if self.goes_on else None,
            devices=self.devices,
            progress=not self.quiet,
        )
        result = train(
            env,
            population,
            plan.config,
            plan.assigner,
            out=out,
            devices=self.devices,
            resume=self.resume,
            extend=self.extend is not None,
            frozen=frozen,
            start=start,
            progress=not self.quiet,
            log=self.log,
        )
        if not result.summary.get("evaluated", True):
            raise KeyboardInterrupt(f"stopped before it was evaluated; what was learned is in {out}, --resume goes on")
        run = load_run(out, make)  # by all processes, as they read checkpoints together
        if is_first():
            pictures = draw_run(run)
            print_summary(result.summary)
            print_pictures(pictures)
        if not result.summary["finished"]:
            raise SystemExit(UNFINISHED)

    def task(self) -> "tuple[Env, Population, TrainConfig]":
        """What is trained in, for whom, and how."""
        from rmdp_jax.envs import make
        from rmdp_jax.running.algorithms import ALGORITHMS, task_of

        env, population = task_of(self.algorithm, *make(self.env, n=self.n, seed=self.seed, **self.env_options.given()))
        settings = {name: getattr(self, name) for name in SETTINGS}
        if self.extend is not None:
            settings["transitions"] = self.extend
        if ALGORITHMS[self.algorithm].sets_k:
            settings["k"] = min(self.k, population.n)  # the default of k may be more than there are people
        return env, population, TrainConfig(n=population.n, **settings)


def settings_of(folder: Path) -> dict[str, Any]:
    """Fields of `Train` as config.json in `folder` has them, to go on with what was not given otherwise.

    Raises:
        ConfigError: the file is damaged.
    """
    from rmdp_jax.records.folder import RunFolder
    from rmdp_jax.records.settings import load_train_config, words_of
    from rmdp_jax.records.sinks import sinks_of

    described = RunFolder(folder).read_config()
    config, options = load_train_config(described), described["env_options"]
    known = options_for([RunFolder(folder).read_task()])
    people = {} if options.get("seed", config.seed) == config.seed else {"people_seed": options["seed"]}
    return {
        **{name: getattr(config, name) for name in SETTINGS},
        "n": config.n,
        "transitions": config.transitions + described.get("pretraining_transitions", 0),  # the budget that was given
        "algorithm": described["algorithm"],
        "out": folder,
        "log": sinks_of(folder),
        **{flag: words_of(described.get(name, [])) for flag, name in (("freeze", "frozen"), ("start_from", "start"))},
        "env_options": replace(known, **{name: value for name, value in options.items() if name in vars(known)}, **people),
    }


def read_policies(flag: str, words: Sequence[str]) -> list[tuple[str, int]]:
    """Policies (run, j) of words ``DIR:J,J``.

    Raises:
        ConfigError: a word is none of those.
    """
    found = []
    for word in words:
        run, _, policies = word.rpartition(":")
        holds = bool(run) and all(map(str.isdecimal, policies.split(",")))
        check(flag, word, holds, "DIR:J,J, the folder of a run and numbers of its policies")
        found += [(run, int(policy)) for policy in policies.split(",")]
    return found


def _saved_checkpoints(run_dir: Path) -> Path | None:
    """Where the checkpoints of a run are, if it has come to its first."""
    from rmdp_jax.records.checkpoint import has_checkpoint
    from rmdp_jax.records.folder import RunFolder

    folder = RunFolder(run_dir).checkpoints
    return folder if has_checkpoint(folder) else None
