"""From a run's folder back to policies, to act, to evaluate them again, to record an episode."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.evaluate import Evaluation, Played, evaluate, make_record
from rmdp_jax.paths import local_path
from rmdp_jax.policies.model import Policies, describe_policies, make_model
from rmdp_jax.records.checkpoint import restore_checkpoint, saved_shape
from rmdp_jax.records.folder import RunFolder, load_train_config
from rmdp_jax.types import PyTree


class Run(NamedTuple):
    """A finished run, ready to act."""

    folder: RunFolder
    env: Env
    population: Population
    config: TrainConfig
    policies: Policies
    assignment: np.ndarray  # (n,) int32
    result: dict[str, Any]  # what result.json holds, with its assignment and utility as arrays
    metrics: list[dict[str, Any]]


def load_run(path: str | Path, make: Callable[..., tuple[Env, Population]]) -> Run:
    """The run in folder `path`; `make` is `rmdp_jax.envs.make`, or a user's own with the same arguments.

    Raises:
        ConfigError: the folder holds no finished run, or one of another version, or one that went on and did not end.
    """
    folder = RunFolder(local_path("run", path))
    described, result = folder.read_config(), folder.read_result() | folder.read_arrays()
    config = load_train_config(described)
    saved = int(restore_checkpoint(folder.checkpoints, jnp.int32(0), ".iteration"))
    if saved != result["iterations"]:
        raise ConfigError(
            f"out = {path}: its result is of iteration {result['iterations']}, its checkpoint of {saved}, as it went on and "
            "did not end; end it with --resume"
        )
    env, population = make(described["env"], **described["env_options"])
    return Run(
        folder=folder,
        env=env,
        population=population,
        config=config,
        policies=_load_policies(folder.checkpoints, env, config, result.get("policies_from")),
        assignment=result["assignment"],
        result=result,
        metrics=folder.read_metrics(),
    )


def _load_policies(checkpoints: Path, env: Env, config: TrainConfig, sources: list[int] | None) -> Policies:
    """The policies of the latest checkpoint, or where `sources` are given those members of its policies and archive."""
    like = describe_policies(make_model(env.spec, config.sizes, config.k, config.n), config.k)
    params = restore_checkpoint(checkpoints, like.params, ".learner.params")
    statistics = restore_checkpoint(checkpoints, like.statistics, ".statistics")
    clip = restore_checkpoint(checkpoints, like.observation_clip, ".rates.observation_clip")
    if sources is None:
        return Policies(params, statistics, clip)

    def choose(known: PyTree, prefix: str) -> PyTree:
        if max(sources) >= config.k:
            size = saved_shape(checkpoints, ".archive.utilities.steps")[0]
            rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), known)
            archived = restore_checkpoint(checkpoints, rows, prefix)
            known = jax.tree.map(lambda now, archived: jnp.concatenate([now, archived]), known, archived)
        return jax.tree.map(lambda x: x[jnp.asarray(sources)], known)

    own = choose(params.own, ".archive.params")
    return Policies(params._replace(own=own), choose(statistics, ".archive.statistics"), clip)


def evaluate_run(run: Run, episodes: int, seed: int, deterministic: bool) -> Evaluation:
    """Fresh full episodes of the run's policies under its assignment."""
    return evaluate(
        run.env,
        run.population,
        run.config,
        run.policies,
        run.assignment,
        seed=seed,
        episodes=episodes,
        deterministic=deterministic,
    )


def record_run(run: Run, seed: int = 0, deterministic: bool = True) -> Played:
    """One full episode of each policy, leaves (k, T, ...) as numpy arrays."""
    record = jax.jit(make_record(run.env, run.config, deterministic=deterministic))
    return jax.device_get(record(run.policies, jax.random.key(seed)))
