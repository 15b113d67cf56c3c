"""From a run's folder back to policies, to act, to evaluate them again, to record an episode."""

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import TrainConfig, settings_of
from rmdp_jax.env import Env, Population, functions_of
from rmdp_jax.errors import ConfigError, UnknownName
from rmdp_jax.evaluation.episodes import KEPT_BYTES, kept_episodes
from rmdp_jax.evaluation.evaluate import NOT_EVALUATED, Evaluation, Played, evaluate, make_record
from rmdp_jax.paths import local_path
from rmdp_jax.policies.model import Policies, describe_policies
from rmdp_jax.programs import kept_program
from rmdp_jax.records.checkpoint import latest_step, restore_checkpoint, saved_shape, saved_steps
from rmdp_jax.records.checksums import damage_of
from rmdp_jax.records.episodes import KeptEpisodes, read_episodes, write_episodes
from rmdp_jax.records.files import reason_of, warn, writing
from rmdp_jax.records.folder import RunFolder, check_run
from rmdp_jax.records.lock import locked
from rmdp_jax.records.people import with_people
from rmdp_jax.records.places import run_folder
from rmdp_jax.records.settings import load_train_config
from rmdp_jax.records.trained import Trained
from rmdp_jax.types import PyTree


class RunFields(NamedTuple):
    """Fields of a `Run`."""

    folder: RunFolder
    env: Env
    population: Population
    config: TrainConfig
    policies: Policies
    assignment: np.ndarray  # (n,) int32, of the result, or of an older checkpoint where the latest is damaged
    result: dict[str, Any]  # what result.json holds, with its assignment and utility as arrays
    metrics: list[dict[str, Any]]
    iteration: int  # of the policies: that of the result, or of the older checkpoint


class Run(Trained, RunFields):
    """A finished run, ready to act; see `Trained` for its tables and pictures."""

    __slots__ = ()

    @property
    def summary(self) -> dict[str, Any]:  # type: ignore[override]
        """`result`, by the name that a `Result` has for it."""
        return self.result

    def save(self, path: str | Path) -> Path:
        """Copy the folder of the run to `path`, which is returned.

        Raises:
            ConfigError: there is a run already, or it cannot be written.
        """
        path = local_path("path", path)
        check_run(path, resume=False)
        with writing(path, "make room, or choose another folder"):
            copytree(self.folder.path, path, dirs_exist_ok=True, ignore=ignore_patterns(".*"))
        return path


Make = Callable[..., tuple[Env, Population]]  # `rmdp_jax.envs.make`, or a user's own with the same arguments


def load_run(path: str | Path, make: Make | None = None) -> Run:
    """The run at `path`, whose env and rewards `make` gives; `rmdp_jax.envs.make` when not given.

    That makes the built-in tasks, and those of a user's own that were made by it or on the command line: it imports the module
    that config.json names and calls its function, so load folders of those you trust. For another task give a `make` that
    takes its name and options, such as ``lambda name, **options: (env, population)``.

    `path` is a folder, the name of one under runs/, or a release on the hub, hf://USER/NAME: `rmdp_jax.records.places`.
    The agents are those that the run was made with, whatever agents `make` gives.

    Warns:
        RunWarning: the latest checkpoint is damaged, so that policies and assignment are those of an older one.

    Raises:
        ConfigError: the folder holds no finished run, or one of another version, or one that went on and did not end, or a
            damaged one, or `make` gives other rewards.
    """
    folder = RunFolder(run_folder("run", path))
    described = folder.read_config()
    if described.get("release") and (damage := damage_of(folder.path)):
        raise ConfigError(f"{damage}; bring it back, or download the release again")
    result = folder.read_result() | folder.read_arrays()
    result["episode_length"] = np.array(result["episode_length"], float).tolist()  # NaN instead of null, for tables
    _check_agreement(folder, described, result)
    config = load_train_config(described)
    metrics = folder.read_metrics(config.k, config.n)
    step = last_step(folder, result["iterations"])
    env, population = _remake(folder, described, make)
    older = step != result["iterations"]
    return Run(
        folder=folder,
        env=env,
        population=with_people(folder.people, env, population),
        config=config,
        policies=_load_policies(folder.checkpoints, step, env, config, None if older else result.get("policies_from")),
        assignment=_assignment_at(folder.metrics, step, metrics, result["assignment"]) if older else result["assignment"],
        result=result,
        metrics=metrics,
        iteration=step,
    )


def last_step(folder: RunFolder, ended: int) -> int:
    """The checkpoint of a run whose result is of iteration `ended`; an older one where that is lost or damaged.

    Warns:
        RunWarning: it is an older one.

    Raises:
        ConfigError: there is none, or the run went on and did not end.
    """
    newest = max(saved_steps(folder.checkpoints), default=None)
    step = latest_step(folder.checkpoints)
    if step is None or newest is None:
        raise ConfigError(f"checkpoints = {folder.checkpoints}: holds no checkpoint, so the policies are lost; bring it back")
    if newest > ended:
        raise ConfigError(
            f"out = {folder.path}: its result is of iteration {ended}, its checkpoint of {newest}, as it went on and "
            "did not end; end it with --resume"
        )
    if newest < ended:
        warn(f"{folder.checkpoints / str(ended)}: is missing; the older checkpoint of iteration {step} is taken")
    return step


def _check_agreement(folder: RunFolder, described: dict[str, Any], result: dict[str, Any]) -> None:
    for name in ("k", "n", "seed"):
        if described["train"][name] != result[name]:
            there, here = described["train"][name], result[name]
            raise ConfigError(
                f"{folder.path}: {name} = {there} in config.json, but {here} in result.json; bring back what was there"
            )


def _remake(folder: RunFolder, described: dict[str, Any], make: Make | None) -> tuple[Env, Population]:
    make = import_module("rmdp_jax.envs").make if make is None else make  # a room above, which nothing here needs otherwise
    if not described["env_options"] and not folder.people.exists():
        warn(f"{folder.path}: holds no agents.npz, as older runs do, so the agents are those that make gives")
    try:
        return make(folder.read_task(), **described["env_options"])
    except ConfigError as error:
        if "make" in described or isinstance(error, UnknownName):  # a task of a user's own
            way_out = "bring back what makes it, or give load_run(folder, make) in Python"
            raise ConfigError(f"{folder.path / 'config.json'}: {error}; {way_out}") from error
        raise
    except TypeError as error:  # of options that somebody changed
        raise ConfigError(f"{folder.path / 'config.json'}: env_options: {reason_of(error)}") from error


def _assignment_at(path: Path, step: int, metrics: list[dict[str, Any]], last: np.ndarray) -> np.ndarray:
    """The assignment (n,) at an older checkpoint: the last one that was logged until then, or `last` where none is logged."""
    logged = [line["assignment"] for line in metrics if line["iteration"] <= step and "assignment" in line]
    if logged:
        return np.asarray(logged[-1], np.int32)
    warn(f"{path}: records no assignment until iteration {step}, so that of the end is taken, which may not suit its policies")
    return last


def _load_policies(checkpoints: Path, step: int, env: Env, config: TrainConfig, sources: list[int] | None) -> Policies:
    """The policies of a checkpoint, or where `sources` are given those members of its policies and archive."""
    like = describe_policies(env.spec, config.sizes, config.k, config.n)
    params = restore_checkpoint(checkpoints, like.params, ".learner.params", step)
    statistics = restore_checkpoint(checkpoints, like.statistics, ".statistics", step)
    clip = restore_checkpoint(checkpoints, like.observation_clip, ".rates.observation_clip", step)
    if sources is None:
        return Policies(params, statistics, clip)
    own = choose_members(checkpoints, step, params.own, ".archive.params", sources)
    return Policies(
        params._replace(own=own), choose_members(checkpoints, step, statistics, ".archive.statistics", sources), clip
    )


def choose_members(checkpoints: Path, step: int, known: PyTree, prefix: str, sources: list[int]) -> PyTree:
    """Rows `sources` of a part of all members: of the k policies, `known` (k, ...), and of the archive at `prefix`."""
    k = next((len(leaf) for leaf in jax.tree.leaves(known)), 0)
    if k and max(sources) >= k:
        size = _archive_size(checkpoints, step)
        if max(sources) >= k + size:
            raise ConfigError(f"policies_from = {sources}: the checkpoint has {k} policies and {size} earlier ones")
        rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), known)
        archived = restore_checkpoint(checkpoints, rows, prefix, step)
        known = jax.tree.map(lambda now, archived: jnp.concatenate([now, archived]), known, archived)
    return jax.tree.map(lambda x: x[jnp.asarray(sources)], known)


def _archive_size(checkpoints: Path, step: int) -> int:
    """Earlier policies in a checkpoint; 0 of an algorithm, or a shared trunk, that keeps none."""
    shape = saved_shape(checkpoints, ".archive.utilities.steps", step)
    return 0 if shape is None else shape[0]


class Members(NamedTuple):
    """Policies that a run can act with."""

    policies: Policies  # own leaves (M, ...), as numpy arrays
    number: int  # M
    archived: bool  # whether the run keeps earlier policies


def load_members(run: Run) -> Members:
    """All policies that a run knows: its k, and the earlier ones in its archive where it keeps one. Each is there once.

    Raises:
        ConfigError: the checkpoint cannot be read.
    """
    size = _archive_size(run.folder.checkpoints, run.iteration)
    known = list(range(run.config.k + size))
    of_run, saved = run.policies, _load_policies(run.folder.checkpoints, run.iteration, run.env, run.config, known)
    own, statistics = jax.tree.map(
        lambda *x: np.concatenate(x), (of_run.params.own, of_run.statistics), (saved.params.own, saved.statistics)
    )
    rows = [np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves((own, statistics))]
    first = np.sort(np.unique(np.concatenate(rows, 1), axis=0, return_index=True)[1])
    own, statistics = jax.tree.map(lambda x: x[first], (own, statistics))
    return Members(of_run._replace(params=of_run.params._replace(own=own), statistics=statistics), len(first), size > 0)


def evaluate_run(run: Run, episodes: int, seed: int, deterministic: bool, keep: bool = False) -> Evaluation:
    """Fresh full episodes of the run's policies under its assignment; with `keep` they go into its episodes.npz.

    Raises:
        ConfigError: they are to be kept, and are of an older checkpoint than the result, or too large, or cannot be written.
    """
    if keep:
        check_tells_of_all(run)
    kept = kept_episodes(run.env, run.config, episodes) if keep else 0
    if keep and run.iteration != run.result["iterations"]:
        raise ConfigError(
            f"keep: the policies are those of the older checkpoint {run.iteration}; end the run by --resume first"
        )
    if keep and not kept:
        raise ConfigError(f"keep: one episode of each policy takes more than {KEPT_BYTES:,} bytes; give smaller outcomes")
    with locked(run.folder.path) if keep else nullcontext():  # and found out before anything is played
        evaluation = evaluate(
            run.env,
            run.population,
            run.config,
            run.policies,
            run.assignment,
            seed=seed,
            episodes=episodes,
            deterministic=deterministic,
            keep=kept,
        )
        if evaluation.episodes is not None:
            write_episodes(run.folder.episodes, KeptEpisodes(evaluation.episodes, run.iteration, int(seed), deterministic))
    return evaluation


def check_tells_of_all(run: Run) -> None:
    """Raise `ConfigError` where an episode of the run is for one agent alone, so that no other is scored on it."""
    if run.env.for_agent is not None:
        raise ConfigError(
            f"run = {run.folder.path}: one policy is told for whom it acts, so no episode shows what others would get: none is "
            "kept, and nobody new is assigned; rmdp-jax evaluate plays episodes for each of its agents"
        )


def load_episodes(run: Run) -> KeptEpisodes:
    """What the fresh episodes of the run brought, as numpy arrays; see `rmdp_jax.records.episodes` for the format.

    Raises:
        ConfigError: there are none, as older runs have, or they are damaged, or of other policies than the run ended with.
    """
    check_tells_of_all(run)
    return read_episodes(run.folder.episodes, run.env, run.config, run.result["iterations"])


def record_run(run: Trained, seed: int = 0, deterministic: bool = True) -> Played:
    """One full episode of each policy, leaves (k, T, ...) as numpy arrays."""
    made_of = functions_of(run.env), settings_of(run.config, NOT_EVALUATED), deterministic
    record = kept_program("record", made_of, lambda: jax.jit(make_record(run.env, run.config, deterministic=deterministic)))
    return jax.device_get(record(run.policies, jax.random.key(seed)))
