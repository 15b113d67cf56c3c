"""The agents of a run, and what they paid for made-up outcomes, in agents.npz: a run is not gone on with for other people."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.context import InContext
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.episodes import outcome_like
from rmdp_jax.programs import kept_program
from rmdp_jax.records.files import UNREADABLE, reason_of, write_arrays
from rmdp_jax.types import PyTree

PROBES = 64  # outcomes
LARGEST_PROBED = 256  # agents whose rewards are kept
_AGENTS, _REWARDS = "agents", "rewards"  # names in the file: leaves are "agents" and the path to them
_WEIGHTS = "weights"  # (n,), where some count more than others


def write_people(path: Path, env: Env, population: Population) -> None:
    """Write the agents, and rewards (`PROBES`, some of n) of outcomes that are the same for every run of this env."""
    write_arrays(path, _leaves(population.agents) | _weights(population) | {_REWARDS: probe_rewards(env, population)})


def check_people(path: Path, env: Env, population: Population) -> None:
    """Raise `ConfigError` where agents or rewards are not those of the file; where there is none, nothing is known."""
    if not path.exists():
        return
    kept, given = _read(path), _leaves(population.agents) | _weights(population)
    if _WEIGHTS in kept and _WEIGHTS not in given:
        raise ConfigError(f"{_WEIGHTS}: are there in {path}, not given here; give the people of that run")
    for name, leaf in given.items():
        if name not in kept or kept[name].shape != leaf.shape:
            there = f"of shape {kept[name].shape}" if name in kept else "not there"
            raise ConfigError(f"{name}: is {there} in {path}, of shape {leaf.shape} here; give the people of that run")
        other = _differ(kept[name], leaf)
        if other:
            raise ConfigError(f"{name}: {other} of {len(leaf)} agents are others than in {path}; give the people of that run")
    _check_rewards(path, kept[_REWARDS], env, population)


def with_people(path: Path, env: Env, population: Population) -> Population:
    """`population` with the agents of the file; what is known about its own agents is left out where they are others.

    Raises:
        ConfigError: the agents have another structure, or the rewards are others; or the agents are, and the env shows them.
    """
    if not path.exists():
        return population
    kept, own = _read(path), _leaves(population.agents)
    missing = sorted(set(own) - set(kept))
    if missing or any(kept[name].shape[1:] != leaf.shape[1:] for name, leaf in own.items()):
        name = missing[0] if missing else _AGENTS
        raise ConfigError(f"{path}: its {name} do not fit the agents that make gives; give the make of that run")
    same = all(kept[name].shape == leaf.shape and not _differ(kept[name], leaf) for name, leaf in own.items())
    if not same and isinstance(population.agents, InContext):
        raise ConfigError(f"{path}: its agents are others than make gives, whom the env shows to the policy; give their make")
    if not same:
        agents = jax.tree_util.tree_map_with_path(lambda at, like: _like(kept[_name(at)], like), population.agents)
        of_any = population.best_return, population.columns  # knowledge about others than its own agents
        population = Population(agents, population.reward)._replace(best_return=of_any[0], columns=of_any[1])
    _check_rewards(path, kept[_REWARDS], env, population)
    return population._replace(weights=jnp.asarray(kept[_WEIGHTS]) if _WEIGHTS in kept else None)


def read_people(path: Path) -> dict[str, np.ndarray]:
    """The agents' leaves (n, ...) and, where some count more, their weights (n,), by name in the file; or ConfigError."""
    return {name: array for name, array in _read(path).items() if name != _REWARDS}


def probe_rewards(env: Env, population: Population) -> np.ndarray:
    """Rewards (`PROBES`, some of n) float32 of made-up outcomes, numbers of any size, the same at every call."""
    random = np.random.RandomState(0)  # whose stream numpy keeps for ever
    outcomes = jax.tree.map(lambda leaf: _draw(random, leaf), outcome_like(env))
    some = np.linspace(0, population.n - 1, min(population.n, LARGEST_PROBED)).astype(np.int32)
    agents = jax.tree.map(lambda leaf: jnp.asarray(leaf)[some], population.agents)
    reward = population.reward
    rewards = kept_program("rewards", reward, lambda: jax.jit(jax.vmap(jax.vmap(reward, (0, None)), (None, 0))))
    return np.asarray(rewards(agents, outcomes), np.float32)


def _draw(random: np.random.RandomState, like: Any) -> np.ndarray:
    """Values (`PROBES`, ...) of a leaf of outcomes: flags, small whole numbers, or numbers of sizes from 0.1 to 10."""
    shape = (PROBES, *like.shape)
    if np.issubdtype(like.dtype, np.bool_):
        return random.uniform(size=shape) < 0.5
    if np.issubdtype(like.dtype, np.integer):
        return random.randint(0, 8, shape).astype(like.dtype)
    return (random.normal(size=shape) * 10.0 ** random.uniform(-1, 1, shape)).astype(like.dtype)


def _check_rewards(path: Path, kept: np.ndarray, env: Env, population: Population) -> None:
    here = probe_rewards(env, population)
    size = np.abs(kept[np.isfinite(kept)]).max(initial=0.0)  # the last digits depend on the machine
    if kept.shape != here.shape or not np.allclose(kept, here, rtol=1e-3, atol=1e-4 * size, equal_nan=True):
        raise ConfigError(f"reward: pays other than in the run of {path}; give the rewards that it was made with")


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:  # pickled objects could run anything
            kept = dict(arrays)
        if kept[_REWARDS].dtype != np.float32:
            raise ValueError("its rewards are no float32")
        return kept
    except UNREADABLE as error:
        raise ConfigError(f"{path}: cannot be read ({reason_of(error)}); bring it back, or train again") from None


def _weights(population: Population) -> dict[str, np.ndarray]:
    return {} if population.weights is None else {_WEIGHTS: np.asarray(population.weights)}


def _leaves(agents: PyTree) -> dict[str, np.ndarray]:
    return {_name(path): _array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(agents)}


def _name(path: Any) -> str:
    return _AGENTS + jax.tree_util.keystr(path)


def _array(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(array: np.ndarray, like: Any) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(like) else jnp.asarray(array, jnp.result_type(like))


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _differ(kept: np.ndarray, given: np.ndarray) -> int:
    """Agents that differ in a leaf (n, ...), by a bit; nothing that is not a number differs from the like."""
    same = (kept == given) | ((kept != kept) & (given != given))
    return int((~same.reshape(len(same), -1).all(1)).sum())
