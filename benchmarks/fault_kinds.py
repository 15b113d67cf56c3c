"""Faults within one process: envs and rewards that are no numbers, spoiled states, damaged checkpoints, drawn input."""

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax import ConfigError, Env, Population, Sizes, TrainConfig, TrainingError, fixed, make_trainer, plain_em, train
from rmdp_jax.envs import make
from rmdp_jax.records.loading import load_run
from rmdp_jax.running.faults import FaultWatch
from rmdp_jax.types import PyTree

K, N = 2, 4
SIZES = Sizes(environments=4, unroll=8, epochs=1, minibatches=2, hidden=(8,))
CONFIG = TrainConfig(
    k=K, n=N, transitions=20 * SIZES.transitions, log_every=5, checkpoint_every=5, evaluation_episodes=4, sizes=SIZES
)
BROKEN = {"NaN": jnp.nan, "infinity": jnp.inf, "-infinity": -jnp.inf}


class Tried(NamedTuple):
    """One fault, once."""

    fault: str
    survived: bool
    lost: int | None = None  # iterations that had to be done again
    told: str = ""  # what was seen where it did not survive


def spoiled_envs(folder: Path, quick: bool) -> Iterator[Tried]:
    """Each output of env and reward is broken in a twentieth of the steps: survived if policies are finite and it is said."""
    del folder
    for place in ("reset's obs", "step's obs", "outcome", "reward"):
        for name, value in list(BROKEN.items())[: 1 if quick else None]:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                result = train(*spoil(place, value), CONFIG, plain_em(K, N), progress=False)
            said = any("diverged" in str(one.message) or "not finite" in str(one.message) for one in heard)
            counted = sum(result.summary["diverged"]) + result.summary["nonfinite_rewards"] > 0
            fine = all_finite(result.policies) and result.summary["welfare"] is not None
            yield Tried(f"{name} in {place}", fine and said and counted, told=f"finite {fine}, said {said}, counted {counted}")


def spoil(place: str, value: Any, share: float = 0.05) -> tuple[Env, Population]:
    """Resource Gathering on 2x2 cells with `value` at a `place` in that share of the steps."""
    env, population = make("resource_gathering", size=2)

    def broken(hit: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(hit, value, x) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def reset(key: jax.Array) -> tuple[PyTree, jax.Array]:
        key, hit_key, own_key = jax.random.split(key, 3)
        state, obs = env.reset(own_key)
        hit = jax.random.bernoulli(hit_key, share) & (place == "reset's obs")
        return (state, jax.random.key_data(key)), broken(hit, obs)

    def step(state: PyTree, action: jax.Array) -> tuple[PyTree, Any]:
        inner, data = state
        key, hit_key = jax.random.split(jax.random.wrap_key_data(data))
        inner, result = env.step(inner, action)
        hit = jax.random.bernoulli(hit_key, share)
        obs = broken(hit & (place == "step's obs"), result.obs)
        outcome = jax.tree.map(lambda x: broken(hit & (place == "outcome"), x), result.outcome)
        return (inner, jax.random.key_data(key)), result._replace(obs=obs, outcome=(outcome, hit))

    def reward(agent: PyTree, outcome: PyTree) -> jax.Array:
        own, hit = outcome
        return broken(hit & (agent == 1) & (place == "reward"), population.reward(agent, own))

    return Env(env.spec, reset, step), population._replace(reward=reward)


def spoiled_states(folder: Path, quick: bool) -> Iterator[Tried]:
    """NaN or infinity in policy 0's part of each leaf of the state: survived if all is finite two iterations later.

    And if policy 1's parameters are those of a run without the fault, bit for bit.
    """
    del folder
    env, population = make("resource_gathering", size=2)
    trainer = make_trainer(env, population, CONFIG, fixed(K, N, np.arange(N) % K))
    step = jax.jit(trainer.step)
    state, _ = step(jax.jit(trainer.init)(jax.random.key(0)))
    good = step(step(state)[0])[0]
    leaves, structure = jax.tree.flatten(state)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating) and ".rates" not in paths[i]]
    for i in floats[:: 5 if quick else 1]:
        for name, value in list(BROKEN.items())[: 1 if quick else 2]:
            spoiled = [leaf.at[(0,) * leaf.ndim].set(value) if i == at else leaf for at, leaf in enumerate(leaves)]
            after, first = step(jax.tree.unflatten(structure, spoiled))
            after, second = step(after)
            said = int(first.recovered.sum() + second.recovered.sum()) > 0
            healed, alike = all_finite(after), _policy(after, 1) == _policy(good, 1)
            seen = f"{paths[i]}: finite {healed}, said {said}, the other policy alike {alike}"
            yield Tried(f"{name} in a leaf of the state", healed and alike, told=seen)
    with contextlib.suppress(TrainingError):
        watch = FaultWatch(env.spec, CONFIG, lambda what: None)
        for iteration in range(5, 100, 5):
            watch.read({"iteration": iteration, "diverged": [0, 0], "recovered": [5, 0]})
        yield Tried("a policy that never recovers", False, told="training goes on for ever")
        return
    yield Tried("a policy that never recovers", True)


def _policy(state: Any, j: int) -> list[bytes]:
    return [np.asarray(leaf[j]).tobytes() for leaf in jax.tree.leaves(state.learner.params.own)]


def damaged_checkpoints(folder: Path, quick: bool) -> Iterator[Tried]:
    """Each file of the newest checkpoint is cut, removed or has a bit flipped: survived if the older one is taken, and said.

    Also where all that is said is a `ConfigError`. Never: policies that are those of neither checkpoint.
    """
    env, population = make("resource_gathering", size=2)
    train(env, population, CONFIG, plain_em(K, N), out=folder / "run", progress=False)
    sound = _acting(folder / "run")
    newest = max((folder / "run" / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    files = sorted(path.relative_to(folder / "run") for path in newest.rglob("*") if path.is_file())
    rng = np.random.RandomState(0)
    for file in files[:: 4 if quick else 1]:
        for how, damage in DAMAGES.items():
            for _ in range(1 if quick or how != "a bit flipped" else 5):
                shutil.rmtree(folder / "bad", ignore_errors=True)
                shutil.copytree(folder / "run", folder / "bad")
                if not damage(folder / "bad" / file, rng):
                    continue
                yield _try_damaged(folder / "bad", f"{how} in a file of a checkpoint", str(file), sound)


def _try_damaged(folder: Path, fault: str, file: str, sound: list[bytes]) -> Tried:
    config = CONFIG.transitions // SIZES.transitions
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            found = _acting(folder)
    except ConfigError as error:
        return Tried(fault, True, config, str(error))
    except Exception as error:
        return Tried(fault, False, told=f"{file}: {type(error).__name__}: {error}"[:300])
    fell_back = bool(heard)
    return Tried(fault, found == sound or fell_back, CONFIG.checkpoint_every if fell_back else 0, f"{file}: other policies")


def _acting(folder: Path) -> list[bytes]:
    """Bytes of the policies that a run's folder gives."""
    run = load_run(folder, make)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run.policies)]


def _cut(path: Path, rng: np.random.RandomState) -> bool:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return len(content) > 0


def _remove(path: Path, rng: np.random.RandomState) -> bool:
    path.unlink()
    return True


def _flip(path: Path, rng: np.random.RandomState) -> bool:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randint(len(content))] ^= 1 << rng.randint(8)
        path.write_bytes(bytes(content))
    return bool(content)


DAMAGES: dict[str, Callable[[Path, np.random.RandomState], bool]] = {"cut": _cut, "removed": _remove, "a bit flipped": _flip}


def all_finite(tree: PyTree) -> bool:
    """Whether all floating leaves are."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
