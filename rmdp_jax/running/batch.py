"""Several runs as a batch in one program: one more `vmap` outside everything; a single run has no extra axis."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rmdp_jax.config import Rates, TrainConfig, settings_of
from rmdp_jax.context import agents_in
from rmdp_jax.devices.mesh import everywhere, on_mesh, tracing_on
from rmdp_jax.env import Env, functions_of, served
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.episodes import kept_episodes
from rmdp_jax.evaluation.evaluate import Evaluation, evaluation_made_of, evaluation_of
from rmdp_jax.limits import PATIENCE, Loads, assign_within, check_weights, search_within, with_an_agent_each
from rmdp_jax.policies.model import Policies
from rmdp_jax.programs import kept_program, shaped_like
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


def trainer_for(env: Env, run: RunSpec, people: PyTree) -> Trainer:
    """The trainer of `run` for other people; where policies have limits, of the same weights."""
    population = served(run.population, people)
    if run.config.limits is not None:
        population = population._replace(weights=_limited_weights(run))  # which are not traced
    return make_trainer(env, population, run.config, run.assigner, run.given.given)


InitArguments = tuple[Key, Rates, PyTree, Member | None]  # of `Trainer.init`


def init_arguments(run: RunSpec, members: Member | None = None) -> InitArguments:
    """How a run begins, and with which `members`; its assignment is its own assigner's, though the trainer may be another's."""
    key = jax.random.key(run.config.seed)
    return key, jax.tree.map(jnp.float32, run.config.rates), run.assigner.init(assigner_key(key)), members


def make_init(env: Env, run: RunSpec) -> Callable[[PyTree, InitArguments], TrainState]:
    """`Trainer.init` for any people, traced once for the shapes of its state and for all programs that it is in."""
    of_run = alike(run)
    return jax.jit(lambda people, arguments: trainer_for(env, of_run, people).init(*arguments), inline=True)


LARGEST_PROGRAM = 10**7  # pairs of a policy and an agent; the best assignment within limits of more takes hours
NOT_LEARNED_BY = ("seed", "log_every", "checkpoint_every", "evaluation_episodes", "evaluation_steps", "max_fault_share")


def made_of(env: Env, runs: Sequence[RunSpec], mesh: Mesh | None) -> tuple[Any, ...]:
    """What programs that train all `runs` are made of; their arguments are seeds, rates, first assignments and people."""
    run, people = runs[0], shaped_like(people_of(runs))
    rules = run.assigner._replace(name="", pretraining=0, init=_no_init, options={})
    settings = settings_of(run.config, NOT_LEARNED_BY)
    begun = shaped_like(jax.eval_shape(lambda: run.assigner.init(jax.random.key(0))))
    given, weights = run.given.given, _limited_weights(run)
    return functions_of(env), run.population.reward, settings, rules, given, weights, len(runs), people, begun, mesh


def _limited_weights(run: RunSpec) -> Any:
    """The weights of the agents where policies have limits: these count them, so a program is made for them."""
    return None if run.config.limits is None else run.population.weights


def _no_init(key: Key) -> PyTree:
    """In the place of `Assigner.init`: a first assignment is an argument."""
    raise NotImplementedError


def alike(run: RunSpec) -> RunSpec:
    """`run` without its people and without where it goes, for programs that take any; limits count weights, which stay."""
    population = run.population._replace(agents=None, weights=_limited_weights(run))
    return RunSpec(population, run.config, run.assigner, given=run.given)


def conclude(env: Env, runs: Sequence[RunSpec], states: TrainState, mesh: Mesh | None = None) -> Conclusion:
    """What every run is evaluated by, stacked: what it ends with, or the best that it knows where it was stopped.

    Where policies have limits, the assignment is the exact best within them, by running utilities; with weights of which no
    best was proved in time, the best that is known.
    """
    first, stopped = runs[0], int(states.iteration.max()) < runs[0].config.iterations
    limits = check_limits(first.config, first.population, first.assigner.name, first.assigner.takes_limits, first.given.given)
    assigner = first.assigner if stopped else first.assigner._replace(conclude=None)
    of_run = alike(first)._replace(assigner=assigner)

    def one(people: PyTree, state: TrainState) -> Conclusion:
        return trainer_for(env, of_run, people).conclude(state)

    def compiled() -> Callable[[PyTree, TrainState], Conclusion]:
        return jax.jit(over_runs(one, len(runs)))

    with tracing_on(mesh):
        found = kept_program("conclude", (made_of(env, runs, mesh), stopped), compiled)(people_of(runs), states)
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
    if worth.size > LARGEST_PROGRAM:
        warn(f"limits: the best of {worth.size:,} pairs is not looked for, so agents stay where the last E-step has them")
        return kept
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
    number, population = first.config.evaluation_episodes, alike(first).population
    kept_number = kept_episodes(env, first.config, number) if keep else 0

    def evaluate_run(people: PyTree, policies: Policies, labels: Array, key: Key) -> Evaluation:
        evaluate = evaluation_of(env, served(population, people), first.config, number, deterministic, kept_number)
        return evaluate(policies, labels, key)

    people, keys = people_of(runs), stack([jax.random.key(evaluation_seed(run.config)) for run in runs])
    arguments = people, policies, labels, keys
    parts = evaluation_made_of(env, population, first.config), shaped_like(arguments), number, deterministic, kept_number

    def compiled() -> Callable[..., Evaluation]:
        program = jax.jit(over_runs(evaluate_run, len(runs)), **on_mesh(mesh, out_shardings=everywhere(mesh)))
        return aside(program.lower(*arguments).compile)  # which hears signals while it compiles

    with tracing_on(mesh):
        evaluations = kept_program("evaluation of runs", (parts, len(runs), mesh), compiled)(*arguments)
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
