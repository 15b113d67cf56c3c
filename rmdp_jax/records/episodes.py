"""episodes.npz: what the fresh episodes of a run brought, so that people who come later are scored without simulation.

Arrays, k policies by e episodes of each by L steps of an episode at most:

    outcome<path>   (k, e, L, ...)   a leaf of what the env's `step` reports as outcome: "outcome.speed", "outcome.pay", ...
    alive           (k, e, L) bool   steps up to the end of an episode; what follows is padding
    diverged        (k, e, L) bool   the physics broke: the step pays nothing
    iterations      ()               of training, after which the policies were as they acted here
    seed            ()               of the episodes
    deterministic   () bool          whether actions were the most likely ones instead of samples, as trained
    format          ()               1

The first episodes of the evaluation that a run ends with, at most `KEPT_BYTES` before they are compressed; written whole, and
before result.json, which says how many (`episodes_kept`). `rmdp-jax evaluate DIR --keep` makes it for older runs, or with more
episodes.
"""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.episodes import KEPT_BYTES, Episodes, bytes_per_episode, outcome_like
from rmdp_jax.records.files import UNREADABLE, reason_of, write_arrays

FORMAT = 1

_OUTCOME, _FLAGS = "outcome", ("alive", "diverged")


class KeptEpisodes(NamedTuple):
    """What episodes.npz holds."""

    episodes: Episodes
    iterations: int  # of training
    seed: int
    deterministic: bool


def write_episodes(path: Path, kept: KeptEpisodes) -> None:
    """Write episodes.npz, whole or not at all."""
    episodes = jax.device_get(kept.episodes)
    facts = {"iterations": kept.iterations, "seed": kept.seed, "deterministic": kept.deterministic, "format": FORMAT}
    leaves = {_name(at): leaf for at, leaf in jax.tree_util.tree_leaves_with_path(episodes.outcome)}
    flags = {name: getattr(episodes, name) for name in _FLAGS}
    write_arrays(path, {**leaves, **flags, **{name: np.asarray(fact) for name, fact in facts.items()}})


def read_episodes(path: Path, env: Env, config: TrainConfig, iterations: int) -> KeptEpisodes:
    """The episodes of a run that ended after so many iterations, as numpy arrays; see `rmdp_jax.records.loading.load_episodes`.

    Raises:
        ConfigError: there are none, as older runs have, or they are damaged, or of other policies than the run ended with.
    """
    again = f"make it by: rmdp-jax evaluate {shlex.quote(str(path.parent))} --keep"
    if not path.exists():
        if bytes_per_episode(env, config) > KEPT_BYTES:
            raise ConfigError(f"{path}: is not there, as one episode of each policy takes more than {KEPT_BYTES:,} bytes")
        raise ConfigError(f"{path}: is not there, as of older runs; {again}")
    kept = _read(path, env, again)
    if kept.episodes.alive.shape[0] != config.k:
        raise ConfigError(f"{path}: is of {kept.episodes.alive.shape[0]} policies, the run has {config.k}; {again}")
    if kept.iterations != iterations:
        raise ConfigError(f"{path}: is of iteration {kept.iterations}, the result of the run of {iterations}; {again}")
    return kept


def kept_number(path: Path, iterations: int) -> int | None:
    """How many episodes of each policy the file holds; None where it is not there, damaged, or of another iteration."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            same = int(arrays["format"]) == FORMAT and int(arrays["iterations"]) == iterations
            return int(arrays["alive"].shape[1]) if same else None
    except UNREADABLE:
        return None


def _read(path: Path, env: Env, again: str) -> KeptEpisodes:
    like = outcome_like(env)
    try:
        with np.load(path, allow_pickle=False) as arrays:  # pickled objects could run anything
            if int(arrays["format"]) != FORMAT:
                raise ValueError(f"it has format {int(arrays['format'])}, this version reads {FORMAT}")
            alive, diverged = (arrays[name] for name in _FLAGS)
            if alive.ndim != 3 or diverged.shape != alive.shape or not alive.dtype == diverged.dtype == bool or not alive.size:
                raise ValueError("its flags are not (k, e, L) bool")
            outcome = jax.tree_util.tree_map_with_path(lambda at, one: _leaf(arrays, at, one, alive.shape), like)
            facts = int(arrays["iterations"]), int(arrays["seed"]), bool(arrays["deterministic"])
    except UNREADABLE as error:
        raise ConfigError(f"{path}: cannot be read ({reason_of(error)}); {again}") from None
    return KeptEpisodes(Episodes(outcome, alive, diverged), *facts)


def _leaf(arrays: Any, at: Any, like: Any, shape: tuple[int, ...]) -> np.ndarray:
    leaf = arrays[_name(at)]
    if leaf.dtype.kind == "V" and leaf.dtype.itemsize == like.dtype.itemsize:  # numpy knows no bfloat16
        leaf = leaf.view(like.dtype)
    if leaf.shape != (*shape, *like.shape) or leaf.dtype != like.dtype:
        raise ValueError(f"its {_name(at)} is {leaf.dtype} {leaf.shape}, not {like.dtype} {(*shape, *like.shape)}")
    return leaf


def _name(at: Any) -> str:
    return _OUTCOME + jax.tree_util.keystr(at)
