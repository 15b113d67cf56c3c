"""What `rmdp_jax` offers, imported when the first of its names is asked for; `rmdp_jax.__all__` lists them."""

# ruff: noqa: F401

from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

from rmdp_jax.assigners.base import Assigner, Copies, EStepInput, Together
from rmdp_jax.assigners.cover import cover
from rmdp_jax.assigners.em import em
from rmdp_jax.assigners.end_to_end import end_to_end
from rmdp_jax.assigners.fixed import fixed, oracle, random_even
from rmdp_jax.assigners.plain_em import plain_em
from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.context import with_context
from rmdp_jax.env import Column, Env, EnvSpec, Population, Step
from rmdp_jax.errors import ConfigError, TrainingError
from rmdp_jax.evaluation.evaluate import Evaluation, evaluate, make_evaluate, make_record
from rmdp_jax.info import Info
from rmdp_jax.limits import Limits
from rmdp_jax.policies.model import make_act
from rmdp_jax.programs import clear_programs
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.affinity import affinity
from rmdp_jax.running.assign import assign
from rmdp_jax.running.budget import budget
from rmdp_jax.running.cache import use_cache
from rmdp_jax.running.cluster import cluster
from rmdp_jax.running.result import Result, Results
from rmdp_jax.running.train import train, train_batch
from rmdp_jax.trainer import Trainer, TrainState, make_trainer

if _TYPE_CHECKING:
    from rmdp_jax.records.loading import Run as _Run


def load_run(path: str | _Path, make: _Callable[..., tuple[Env, Population]] | None = None) -> "_Run":
    """The run in folder `path`, with its tables and pictures; see `rmdp_jax.records.loading.load_run`.

    Args:
        path: of `Result.save`, or of `train(..., out=path)`.
        make: what made its env and people; `rmdp_jax.envs.make` when not given.
    """
    from rmdp_jax.records.loading import load_run

    return load_run(path, make)
