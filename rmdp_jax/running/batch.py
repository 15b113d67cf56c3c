"""Several runs as a batch in one program: one more `vmap` outside everything; a single run has no extra axis."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.context import agents_in
from rmdp_jax.devices.mesh import everywhere, on_mesh, tracing_on
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.episodes import kept_episodes
from rmdp_jax.evaluation.evaluate import Evaluation, make_evaluate
from rmdp_jax.limits import PATIENCE, Loads, assign_within, check_weights, search_within, with_an_agent_each
from rmdp_jax.policies.model import Policies
from rmdp_jax.records.files import warn
from rmdp_jax.records.folder import NUMERICS, describe_numerics
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.interrupts import aside
from rmdp_jax.state import Member
from rmdp_jax.trainer import Conclusion, Trainer, TrainState, assigner_key, check_limits, make_trainer
from rmdp_jax.types import Array, Key, PyTree


def over_runs(function: Callable, number: int, in_axes: int | tuple[int | None, ...] = 0) -> Callable:
    """`function` of one run as a function of what `stack` makes of `number` runs."""
    return function if number == 1 else jax.vmap(function, in_axes)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees of several runs as one with leaves (runs, ...); the tree of a single run stays as it is."""
    return trees[0] if len(trees) == 1 else jax.tree.map(_stack, *trees)


def _stack(*leaves: Array) -> Array:
    stacked = jnp.stack(leaves)  # of keys that are new; JAX's check for reuse takes what is made of several for used
    return jax.random.clone(stacked) if jnp.issubdtype(stacked.dtype, jax.dtypes.prng_key) else stacked


def unstack(tree: PyTree, number: int) -> list[PyTree]:
    """The inverse of `stack`."""
    return [tree] if number == 1 else [_one_run(tree, jnp.int32(run)) for run in range(number)]


@jax.jit  # one program for all leaves and runs, where indexing would compile one for each
def _one_run(tree: PyTree, run: Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[run], tree)


def people_of(runs: Sequence[RunSpec]) -> PyTree:
    """The agents of all runs and their weights, stacked."""
    return stack([jax.tree.map(jnp.asarray, (run.population.agents, run.population.weights)) for run in runs])


def served(population: Population, people: PyTree) -> Population:
    """The population of other people, as `people_of` has them, which may be traced."""
    agents, weights = people
    return population._replace(agents=agents, weights=weights)


def trainer_for(env: Env, run: RunSpec, people: PyTree) -> Trainer:
    """The trainer of `run` for other people; where policies have limits, of the same weights."""
    population = served(run.population, people)
    if run.config.limits is not None:
        population = population._replace(weights=run.population.weights)  # which are not traced
    return make_trainer(env, population, run.config, run.assigner, run.given.given)


InitArguments = tuple[Key, Rates, PyTree, Member | None]  # of `Trainer.init`


def init_arguments(run: RunSpec, members: Member | None = None) -> InitArguments:
    """How a run begins, and with which `members`; its assignment is its own assigner's, though the trainer may be another's."""
    key = jax.random.key(run.config.seed)
    return key, jax.tree.map(jnp.float32, run.config.rates), run.assigner.init(assigner_key(key)), members


def make_init(trainer: Trainer) -> Callable[[InitArguments], TrainState]:
    """`trainer.init` of `InitArguments`, traced once for the shapes of its state and for all programs that it is in."""
    return jax.jit(lambda arguments: trainer.init(*arguments), inline=True)


def conclude(env: Env, runs: Sequence[RunSpec], states: TrainState, mesh: Mesh | None = None) -> Conclusion:
    """What every run is evaluated by, stacked: what it ends with, or the best that it knows where it was stopped.

    Where policies have limits, the assignment is the exact best within them, by running utilities; with weights of which no
    best was proved in time, the best that is known.
    """
    first, stopped = runs[0], int(states.iteration.max()) < runs[0].config.iterations
    limits = check_limits(first.config, first.population, first.assigner.name, first.assigner.takes_limits, first.given.given)
    assigner = first.assigner if stopped else first.assigner._replace(conclude=None)
    concluded = over_runs(make_trainer(env, first.population, first.config, assigner, first.given.given).conclude, len(runs))
    with tracing_on(mesh):
        found = (jax.jit(concluded) if assigner.conclude or limits else concluded)(states)
    if limits is None:
        return found
    known = jax.jit(lambda x: x, **on_mesh(mesh, out_shardings=everywhere(mesh)))(found.worth)
    kept = unstack(found.labels, len(runs))
    labels = [
        _best_within(run, jax.device_get(one), own, limits)
        for run, one, own in zip(runs, unstack(known, len(runs)), kept, strict=True)
    ]
    return found._replace(labels=stack(labels))


def _best_within(run: RunSpec, worth: Array, kept: Array, limits: Loads) -> Array:
    """The best labels (n,) for worth (k, n), which is times the agents' weights where they have some; or those `kept`."""
    if limits.weights is None:
        return jnp.asarray(assign_within(worth, limits))
    assert run.config.limits is not None
    weights = check_weights(run.population.weights, run.config.n)
    best = search_within(
        worth * weights.mean() / weights,
        with_an_agent_each(run.config.limits, run.config.k, weights, run.given.given.frozen),
        weights,
    )
    agents = np.arange(run.config.n)
    if best is None or not best.proved:
        warn(f"limits by weight: the best assignment was not proved in {PATIENCE:g} s, so the best known is taken")
    if best is None or worth[best.labels, agents].sum() < worth[np.asarray(kept), agents].sum():
        return kept
    return jnp.asarray(best.labels)


def evaluate_runs(
    env: Env,
    runs: Sequence[RunSpec],
    policies: Policies,
    labels: Array,
    *,
    deterministic: bool,
    keep: bool = False,
    mesh: Mesh | None = None,
) -> list[Evaluation]:
    """Every run by fresh episodes of its own.

    Args:
        env, runs: what was trained.
        policies: of all runs, stacked.
        labels: (n,) int32, stacked.
        deterministic: act by the modes of the distributions instead of by samples, as trained.
        keep: keep what the episodes bring, as many as `kept_episodes` says.
        mesh: that the policies are on.
    """
    first = runs[0]
    kept = kept_episodes(env, first.config, first.config.evaluation_episodes) if keep else 0

    def evaluate_run(people: PyTree, policies: Policies, labels: Array, key: Key) -> Evaluation:
        population = served(first.population, people)
        evaluate = make_evaluate(env, population, first.config, deterministic=deterministic, keep=kept)
        return evaluate(policies, labels, key)

    keys = stack([jax.random.key(evaluation_seed(run.config)) for run in runs])
    evaluate_all = jax.jit(over_runs(evaluate_run, len(runs)), **on_mesh(mesh, out_shardings=everywhere(mesh)))
    arguments = people_of(runs), policies, labels, keys
    with tracing_on(mesh):
        evaluations = aside(evaluate_all.lower(*arguments).compile)(*arguments)  # which hears signals while it compiles
    return unstack(evaluations, len(runs))


def evaluation_seed(config: TrainConfig) -> int:
    """Of the fresh episodes that a run ends with; not the stream that it was trained on."""
    return config.seed + 1


def check_batch(runs: Sequence[RunSpec]) -> None:
    """Raise `ConfigError` unless one program can train all `runs`."""
    if not runs:
        raise ConfigError("runs = []: there is nothing to train; give one `RunSpec` a run")
    folders = [Path(run.out).absolute() for run in runs if run.out is not None]
    if len(set(folders)) < len(folders):
        raise ConfigError("out: two of the runs would write to the same folder; give each its own")
    first = runs[0]
    if first.config.limits is not None and not all(_alike(run.population.weights, first.population.weights) for run in runs):
        raise ConfigError("weights: those of two runs differ, and policies have limits, which count them; train them apart")
    generator = describe_numerics()["JAX_DEFAULT_PRNG_IMPL"]
    if len(runs) > 1 and generator != NUMERICS["JAX_DEFAULT_PRNG_IMPL"]:
        raise ConfigError(
            f"JAX_DEFAULT_PRNG_IMPL = {generator}: draws by the key of the first of several runs in one program, so none is "
            f"what it is alone; take {NUMERICS['JAX_DEFAULT_PRNG_IMPL']}, or train one run at a time"
        )
    for name, fact in _SHARED.items():
        for run in runs[1:]:
            if fact(run) != fact(first):
                raise ConfigError(
                    f"{name} = {fact(run)}: another run that is trained with it has {fact(first)}; train them apart"
                )


def _alike(one: Array | None, other: Array | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


_SHARED: dict[str, Callable[[RunSpec], object]] = {
    "config": lambda run: replace(run.config, seed=0, rates=Rates()),
    "rates": lambda run: jax.tree.structure(run.config.rates),  # a discount that is given or not
    "agents": lambda run: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), run.population.agents),
    "weights": lambda run: "given" if run.population.weights is not None else "not given",
    "algorithm": lambda run: (run.assigner.name, run.assigner.k, run.assigner.n, run.assigner.pretraining),
    "algorithm options": lambda run: dict(run.assigner.options),
    "policies given": lambda run: (len(run.given.frozen), len(run.given.start)),
    "agents in context": lambda run: agents_in(run.population),
}
