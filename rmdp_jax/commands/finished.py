"""``rmdp-jax evaluate | report | render | play | export | release``: what a finished run learned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rmdp_jax.commands.compiling import Compiling
from rmdp_jax.config import LARGEST_EPISODES
from rmdp_jax.errors import real_number, seed_number, whole_number


@dataclass(frozen=True, kw_only=True)
class Evaluate(Compiling):
    """Evaluate a run by fresh episodes: who gets how much from which policy.

    Says whether that agrees with what the run recorded; exit code 1 if it does not.
    """

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run, or hf://USER/NAME."""
    episodes: int = 64
    """Fresh episodes of each policy."""
    seed: int = 0
    """Seed of the episodes."""
    deterministic: bool = False
    """Act by the most likely action instead of a sample."""
    keep: bool = False
    """Keep what these episodes brought in the folder, for `rmdp-jax assign`."""
    json: bool = False
    """Print JSON with the k x n matrix of returns (up to 10,000 agents) instead of a table."""

    def run(self) -> None:
        """Restore, play, print."""
        import numpy as np

        from rmdp_jax.commands.tables import print_evaluation
        from rmdp_jax.envs import make
        from rmdp_jax.records.files import to_json
        from rmdp_jax.records.lines import describe_evaluation
        from rmdp_jax.records.loading import evaluate_run, load_run
        from rmdp_jax.records.verification import verify
        from rmdp_jax.running.memory import available_memory, check_evaluation

        whole_number("episodes", self.episodes, 1, LARGEST_EPISODES)
        seed_number("seed", self.seed)
        run = load_run(self.run_dir, make)
        check_evaluation(run.env, run.config, self.episodes, available_memory(), self.keep)
        evaluated = evaluate_run(run, self.episodes, self.seed, self.deterministic, self.keep)
        terms = {name: run.result[name] for name in ("welfare_p", "weighted") if name in run.result}
        evaluation = terms | describe_evaluation(evaluated, self.episodes, run.population.weights)
        numbers = {"recorded_by": run.config.evaluation_episodes, "episodes": self.episodes}
        verified = verify(run.result, evaluated, deterministic=self.deterministic, **numbers)
        evaluation |= {} if verified is None else {"verified": verified._asdict()}
        if self.json:
            print(to_json({name: value for name, value in evaluation.items() if not isinstance(value, np.ndarray)}))
        else:
            print_evaluation(evaluation)
        if verified is not None and verified.agrees is False:
            raise SystemExit(1)


@dataclass(frozen=True, kw_only=True)
class Report(Compiling):
    """Print a run's table and draw its pictures anew into its folder."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run, or hf://USER/NAME."""
    pictures: Path | None = None
    """Folder for the pictures. Default: the run's own, if you may write there, of a run from the hub runs/USER--NAME."""

    def run(self) -> None:
        """Draw and print."""
        from rmdp_jax.commands.pictures import draw_run
        from rmdp_jax.commands.tables import print_pictures, print_summary
        from rmdp_jax.envs import make
        from rmdp_jax.paths import local_path
        from rmdp_jax.records.loading import load_run
        from rmdp_jax.records.places import outputs_folder

        run = load_run(self.run_dir, make)
        print_summary(run.result)
        given = None if self.pictures is None else local_path("pictures", self.pictures)
        print_pictures(draw_run(run, given or outputs_folder("run", self.run_dir)))


@dataclass(frozen=True, kw_only=True)
class Render(Compiling):
    """Show a policy of a speed task at work: policy_J.html and policy_J.mp4 in the run's folder (hub: runs/USER--NAME)."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run, or hf://USER/NAME."""
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
        from rmdp_jax.commands.tables import print_rendered
        from rmdp_jax.envs import make
        from rmdp_jax.envs.rendering import LONGEST, render_run
        from rmdp_jax.records.loading import load_run
        from rmdp_jax.records.places import outputs_folder

        seed_number("seed", self.seed)
        whole_number("policy", self.policy, 0)
        real_number("seconds", self.seconds, lambda x: 0.0 < x <= LONGEST, f"a number above 0, at most {LONGEST:g}")
        run = load_run(self.run_dir, make)
        how: dict[str, Any] = {"deterministic": not self.sampled, "seed": self.seed, "seconds": self.seconds}
        print_rendered(*render_run(run, self.policy, **how, folder=outputs_folder("run", self.run_dir)))


@dataclass(frozen=True, kw_only=True)
class Play(Compiling):
    """Watch a policy of a speed task live, in MuJoCo's viewer (takes a display)."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run, or hf://USER/NAME."""
    policy: int = 0
    """Which of the k policies, from 0."""
    seed: int = 0
    """Seed of the first episode; others follow until the window is closed."""
    sampled: bool = False
    """Act by samples, as in training, instead of the most likely action."""

    def run(self) -> None:
        """Restore and show."""
        from rmdp_jax.envs import make
        from rmdp_jax.envs.viewing import check_display, check_task, play_run
        from rmdp_jax.records.folder import RunFolder
        from rmdp_jax.records.loading import load_run
        from rmdp_jax.records.places import run_folder

        seed_number("seed", self.seed)
        whole_number("policy", self.policy, 0)
        folder = run_folder("run", self.run_dir)
        check_task(RunFolder(folder).read_task(), folder)
        check_display(folder, self.policy)
        play_run(load_run(self.run_dir, make), self.policy, deterministic=not self.sampled, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Export(Compiling):
    """Write the policies of a finished run as files that act without rmdp_jax."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a run, or hf://USER/NAME."""
    out: Path | None = None
    """Folder to write. Default: export in the run's own, of a run from the hub in runs/USER--NAME."""
    formats: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FORMAT ...")] = ("onnx", "jax", "safetensors")
    """onnx (for its runtimes), jax (for jax.export on cpu, cuda, tpu), safetensors (with run_policy.py, which takes numpy)."""

    def run(self) -> None:
        """Check, restore, write."""
        from rmdp_jax.commands.tables import print_exported
        from rmdp_jax.deploy.export import check_folder, export_run
        from rmdp_jax.deploy.formats import check_formats
        from rmdp_jax.envs import make
        from rmdp_jax.records.loading import load_run
        from rmdp_jax.records.places import outputs_folder

        out = outputs_folder("run", self.run_dir) / "export" if self.out is None else self.out
        check_formats(self.formats)
        check_folder(out)
        print_exported(*export_run(load_run(self.run_dir, make), out, self.formats))


@dataclass(frozen=True, kw_only=True)
class Release(Compiling):
    """Write a finished run as a small folder to hand on, with a model card.

    DIR of all commands may be such a folder, or hf://USER/NAME where it was uploaded.
    """

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a finished run."""
    out: Path
    """Folder to write, new or empty."""
    episodes: bool = False
    """With what the run's fresh episodes brought, for `rmdp-jax assign`; up to 64 MiB."""

    def run(self) -> None:
        """Check, restore, write."""
        from rmdp_jax.commands.tables import print_released
        from rmdp_jax.deploy.release import check_place, write_release
        from rmdp_jax.envs import make
        from rmdp_jax.records.loading import load_run

        check_place(self.out)
        print_released(*write_release(load_run(self.run_dir, make), self.out, episodes=self.episodes))
