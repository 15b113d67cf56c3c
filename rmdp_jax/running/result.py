"""What training ends with, in memory, and how it gets into a folder after all."""

from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.config import TrainConfig
from rmdp_jax.devices.processes import wait_for_all
from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.env import Env, Population
from rmdp_jax.evaluation.evaluate import Evaluation
from rmdp_jax.paths import local_path
from rmdp_jax.policies.model import Policies
from rmdp_jax.records.episodes import KeptEpisodes
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.records.trained import Several, Trained
from rmdp_jax.running.batch import evaluation_seed
from rmdp_jax.running.folders import check_folders, hold_folders, open_writer
from rmdp_jax.trainer import TrainState
from rmdp_jax.types import Array


class ResultFields(NamedTuple):
    """Fields of a `Result`."""

    state: TrainState
    policies: Policies  # what acts: parameters and statistics
    assignment: Array  # (n,) int32
    evaluation: Evaluation  # by fresh episodes, acting as trained, which it keeps; NaN where it was interrupted
    summary: dict[str, Any]  # what result.json holds
    metrics: list[dict[str, Any]]  # what metrics.jsonl holds
    env: Env
    spec: RunSpec  # what was trained, for whom and how


class Result(Trained, ResultFields):
    """What a run ends with; see `Trained` for its tables and pictures."""

    __slots__ = ()

    @property
    def population(self) -> Population:  # type: ignore[override]
        """The n people."""
        return self.spec.population

    @property
    def config(self) -> TrainConfig:  # type: ignore[override]
        """Its settings."""
        return self.spec.config

    def save(self, path: str | Path) -> Path:
        """Write the run to a folder that all commands read, as `train(out=path)` would have; returns the folder.

        Raises:
            ConfigError: there is a run already, or it cannot be written.
        """
        given, options = self.spec.given, self.spec.env_options
        run = RunSpec(*self.spec[:3], out=local_path("path", path), given=given, env_options=options)
        check_folders([run], False)
        with hold_folders([run]), plain_settings():
            writer = open_writer(self.env, run, resume=False, extend=False, progress=False)
            for line in self.metrics:
                writer.add(line)
            writer.close(self.summary, self.state, trained=True, kept=kept_of(run, self.state, self.evaluation))
            wait_for_all("written")
        return Path(str(run.out))


class Results(Several):
    """A list of `Result`s, one a seed; see `Several`."""

    def save(self, path: str | Path) -> Path:
        """Write each run to a folder seed-S in `path`, which is returned; see `Result.save`."""
        for result in self:
            result.save(Path(path) / f"seed-{result.config.seed}")
        return local_path("path", path)


def kept_of(run: RunSpec, state: TrainState, sampled: Evaluation) -> KeptEpisodes | None:
    """What episodes.npz holds of the run; nothing where no episodes are kept."""
    if sampled.episodes is None:
        return None
    return KeptEpisodes(sampled.episodes, int(state.iteration), evaluation_seed(run.config), deterministic=False)
