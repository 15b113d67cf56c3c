"""One run or several in one program: several are one more `vmap` outside everything, a single one has no extra axis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rmdp_jax.assigners.base import Assigner
from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.devices import everywhere, on_mesh, tracing_on
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluate import Evaluation, make_evaluate
from rmdp_jax.journal import Sink
from rmdp_jax.model import Policies
from rmdp_jax.trainer import Conclusion, Trainer, TrainState, assigner_key, make_trainer
from rmdp_jax.types import Array, Key, PyTree


class Entry(NamedTuple):
    """One run of those that are trained together."""

    population: Population
    config: TrainConfig
    assigner: Assigner
    out: str | Path | None = None  # its folder; nothing is written when not given
    on_metrics: Sink | None = None  # called with every logged line
    env_options: Mapping[str, Any] | None = None  # what made env and population, if not `env.spec.options` (other agents)


def over_runs(function: Callable, number: int, in_axes: int | tuple[int | None, ...] = 0) -> Callable:
    """`function` of one run as a function of what `stack` makes of `number` runs."""
    return function if number == 1 else jax.vmap(function, in_axes)


def stack(runs: Sequence[PyTree]) -> PyTree:
    """Trees of several runs as one with leaves (runs, ...); the tree of a single run stays as it is."""
    return runs[0] if len(runs) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)


def unstack(tree: PyTree, number: int) -> list[PyTree]:
    """The trees that `stack` made one of."""
    return [tree] if number == 1 else [_one_run(tree, jnp.int32(run)) for run in range(number)]


@jax.jit  # one program for all leaves and runs, where indexing would compile one for each
def _one_run(tree: PyTree, run: Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[run], tree)


def agents_of(entries: Sequence[Entry]) -> PyTree:
    """The agents of all runs, stacked."""
    return stack([jax.tree.map(jnp.asarray, entry.population.agents) for entry in entries])


def trainer_for(env: Env, entry: Entry, agents: PyTree) -> Trainer:
    """The trainer of `entry` with other agents, which may be traced."""
    return make_trainer(env, entry.population._replace(agents=agents), entry.config, entry.assigner)


Start = tuple[Key, Rates, PyTree]  # arguments of `Trainer.init`


def start_of(entry: Entry) -> Start:
    """How a run begins; its assignment in its own assigner's way, though the trainer may be another run's."""
    key = jax.random.key(entry.config.seed)
    return key, jax.tree.map(jnp.float32, entry.config.rates), entry.assigner.init(assigner_key(key))


def make_begin(trainer: Trainer) -> Callable[[Start], TrainState]:
    """`trainer.init` from a `Start`, traced once for the shapes of its state and for all programs that it is in."""
    return jax.jit(lambda start: trainer.init(*start), inline=True)


def conclude(env: Env, entries: Sequence[Entry], states: TrainState, mesh: Mesh | None = None) -> Conclusion:
    """What every run is judged by, stacked: what it ends with, or the best that it knows where it was stopped."""
    first, stopped = entries[0], int(states.iteration.max()) < entries[0].config.iterations
    assigner = first.assigner if stopped else first.assigner._replace(conclude=None)
    concluded = over_runs(make_trainer(env, first.population, first.config, assigner).conclude, len(entries))
    with tracing_on(mesh):
        return (jax.jit(concluded) if assigner.conclude else concluded)(states)


def judge(
    env: Env,
    entries: Sequence[Entry],
    policies: Policies,
    labels: Array,
    *,
    deterministic: bool,
    mesh: Mesh | None = None,
) -> list[Evaluation]:
    """Every run by fresh episodes of its own.

    Args:
        env, entries: what was trained.
        policies: of all runs, stacked.
        labels: (n,) int32, stacked.
        deterministic: act by the modes of the distributions instead of by samples, as trained.
        mesh: that the policies are on.
    """
    first = entries[0]

    def judge_run(agents: PyTree, policies: Policies, labels: Array, key: Key) -> Evaluation:
        population = first.population._replace(agents=agents)
        return make_evaluate(env, population, first.config, deterministic=deterministic)(policies, labels, key)

    keys = stack([jax.random.key(entry.config.seed + 1) for entry in entries])  # not the streams that they were trained on
    judge_all = jax.jit(over_runs(judge_run, len(entries)), **on_mesh(mesh, out_shardings=everywhere(mesh)))
    with tracing_on(mesh):
        judged = judge_all(agents_of(entries), policies, labels, keys)
    return unstack(judged, len(entries))


def check_together(entries: Sequence[Entry]) -> None:
    """Raise `ConfigError` unless one program can train all `entries`."""
    if not entries:
        raise ConfigError("entries = []: there is nothing to train; give one entry a run")
    folders = [Path(entry.out).absolute() for entry in entries if entry.out is not None]
    if len(set(folders)) < len(folders):
        raise ConfigError("out: two of the runs would write to the same folder; give each its own")
    first = entries[0]
    for name, fact in _SHARED.items():
        for entry in entries[1:]:
            if fact(entry) != fact(first):
                raise ConfigError(
                    f"{name} = {fact(entry)}: another run that is trained with it has {fact(first)}; train them apart"
                )


_SHARED: dict[str, Callable[[Entry], object]] = {
    "config": lambda entry: replace(entry.config, seed=0, rates=Rates()),
    "rates": lambda entry: jax.tree.structure(entry.config.rates),  # a discount that is given or not
    "agents": lambda entry: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), entry.population.agents),
    "algorithm": lambda entry: (entry.assigner.name, entry.assigner.k, entry.assigner.n, entry.assigner.pretraining),
    "algorithm options": lambda entry: dict(entry.assigner.options),
}
