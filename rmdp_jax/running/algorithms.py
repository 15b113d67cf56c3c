"""Algorithms by name: each plans what the one trainer is given. The only place where an algorithm's name means anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rmdp_jax.assigners.base import Assigner
from rmdp_jax.assigners.cover import cover
from rmdp_jax.assigners.em import em
from rmdp_jax.assigners.end_to_end import end_to_end
from rmdp_jax.assigners.fixed import fixed, oracle, random_even
from rmdp_jax.assigners.plain_em import plain_em
from rmdp_jax.config import TrainConfig
from rmdp_jax.context import InContext, with_context
from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError, check, known_name
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.running.affinity import affinity_batch
from rmdp_jax.running.cluster import after_pretraining, assigner_of, cluster_batch
from rmdp_jax.trainer import check_limits


class Plan(NamedTuple):
    """What to train with; the config may have another k, or less budget where some was spent on the assigner."""

    config: TrainConfig
    assigner: Assigner


class PlanRequest(NamedTuple):
    """A run that is to be planned."""

    population: Population
    config: TrainConfig
    checkpoints: Path | None = None  # of the run to resume; its assignment is restored, not trained for


class Resolved(NamedTuple):
    """A plan as far as it is known without training."""

    config: TrainConfig
    options: Mapping[str, Any]  # of the assigner
    takes_given: bool = False  # as of an `Assigner`
    takes_limits: bool = False  # likewise


class Algorithm(NamedTuple):
    """How runs are planned."""

    resolve: Callable[[Population, TrainConfig], Resolved]  # or the plan's `ConfigError`; trains nothing
    plan: Callable[..., list[Plan]]  # as `make_plans` without the name
    sets_k: bool = False  # it takes no k
    # what is trained in and for, made of the task as it is; everything else takes what this gives
    task: Callable[[Env, Population], tuple[Env, Population]] = lambda env, population: (env, population)


def _direct(
    make: Callable[[Population, TrainConfig], Assigner], change: Callable[[TrainConfig], TrainConfig] = lambda config: config
) -> Algorithm:
    """An algorithm whose assigner takes no training: `make` makes it for a config after `change`."""

    def plan(population: Population, config: TrainConfig) -> Plan:
        config = change(config)
        return Plan(config, make(population, config))

    def resolve_plan(population: Population, config: TrainConfig) -> Resolved:
        config, assigner = plan(population, config)
        return Resolved(config, assigner.options, assigner.takes_given, assigner.takes_limits)

    return Algorithm(
        resolve=resolve_plan,
        plan=lambda env, requests, **training_options: [plan(request.population, request.config) for request in requests],
    )


def _em(population: Population, config: TrainConfig) -> Assigner:
    return em(config.k, config.n)


def _per_agent_critic(config: TrainConfig) -> TrainConfig:
    return replace(config, sizes=replace(config.sizes, critic="per_agent"))


def _pretrained(name: str, batch: Callable[..., list[Assigner]]) -> Algorithm:
    """An algorithm whose groups take a policy for everybody first; `batch` makes the assigners of several runs."""

    def plan(env: Env, requests: Sequence[PlanRequest], **training_options: Any) -> list[Plan]:
        new = [request for request in requests if request.checkpoints is None]
        made = iter(batch(env, [r.population for r in new], [r.config for r in new], **training_options) if new else [])
        return [
            Plan(after_pretraining(request.config, name), next(made))
            if request.checkpoints is None
            else _saved_plan(request.config, request.checkpoints, name)
            for request in requests
        ]

    return Algorithm(lambda population, config: Resolved(after_pretraining(config, name), {}), plan)


def _saved_plan(config: TrainConfig, checkpoints: Path, name: str) -> Plan:
    """Of a run that goes on, perhaps for longer than it was made for: its groups, and what was spent on them at its start."""
    from rmdp_jax.records.checkpoint import restore_checkpoint  # orbax takes half a second to import

    spent = RunFolder(checkpoints.parent).read_config().get("pretraining_transitions")
    labels = restore_checkpoint(checkpoints, jnp.zeros(config.n, jnp.int32), ".assignment")
    return Plan(after_pretraining(config, name, spent), assigner_of(config, labels, name, spent))


def _cover(population: Population, config: TrainConfig) -> Assigner:
    return cover(population, config.k, agents_exact=config.sizes.agents_exact)


def _contextual(population: Population, config: TrainConfig) -> Assigner:
    if not isinstance(population.agents, InContext):
        raise ConfigError("algorithm = 'contextual': the task is one without context; take with_context(env, population)")
    exact = config.sizes.agents_exact
    rule = f"at most agents_exact = {exact}, as every agent is scored at every step; raise agents_exact"
    check("n", config.n, config.n <= exact, rule)
    return fixed(1, config.n, np.zeros(config.n, np.int32))


def _in_context(env: Env, population: Population) -> tuple[Env, Population]:
    return (env, population) if isinstance(population.agents, InContext) else with_context(env, population)


ALGORITHMS: dict[str, Algorithm] = {
    "em": _direct(_em),
    "plain_em": _direct(lambda population, config: plain_em(config.k, config.n)),
    "end_to_end": _direct(lambda population, config: end_to_end(config.k, config.n)),
    "end_to_end_surrogate": _direct(
        lambda population, config: end_to_end(config.k, config.n, gradient="surrogate"), _per_agent_critic
    ),
    "cluster": _pretrained("cluster", lambda *runs, **options: cluster_batch(*runs, **options)),
    "affinity": _pretrained("affinity", lambda *runs, **options: affinity_batch(*runs, **options)),
    "cover": _direct(_cover),
    "random": _direct(lambda population, config: random_even(config.k, config.n)),
    "oracle": _direct(lambda population, config: oracle(population, config.k)),
    "single": _direct(_em, lambda config: replace(config, k=1))._replace(sets_k=True),
    "individual": _direct(_em, lambda config: replace(config, k=config.n))._replace(sets_k=True),
    "contextual": _direct(_contextual, lambda config: replace(config, k=1))._replace(task=_in_context, sets_k=True),
}


def check_algorithm(name: str) -> None:
    """Raise `ConfigError` unless `name` is in `ALGORITHMS`."""
    known_name("algorithm", name, ALGORITHMS)


def task_of(name: str, env: Env, population: Population) -> tuple[Env, Population]:
    """The task as algorithm `name` takes it: as it is, but for `contextual`, whose policy is told for whom an episode is.

    Raises:
        ConfigError: the name is not in `ALGORITHMS`, or the agents are no numbers.
    """
    check_algorithm(name)
    return ALGORITHMS[name].task(env, population)


def resolve(name: str, population: Population, config: TrainConfig) -> Resolved:
    """The config and the assigner's options that `make_plan` would come to, without any training.

    Raises:
        ConfigError: whatever `make_plan` would raise.
    """
    check_algorithm(name)
    resolved = ALGORITHMS[name].resolve(population, config)
    check_limits(resolved.config, population, name, resolved.takes_limits)
    return resolved


def make_plan(
    name: str,
    env: Env,
    population: Population,
    config: TrainConfig,
    *,
    checkpoints: Path | None = None,
    devices: int | None = None,
    progress: bool = False,
) -> Plan:
    """The plan of algorithm `name`; `cluster` and `affinity` train a policy for it.

    Args:
        name: a key of `ALGORITHMS`.
        env, population, config: the task as `task_of` gives it, and settings with the whole budget.
        checkpoints: folder with a checkpoint of the run that is to go on, beside its config.json; nothing is trained for its
            plan then, and of the budget, which may be longer now, the plan took what it took at the run's start.
        devices: how many to train on at most, where a plan takes training; as in `train`.
        progress: show a bar on stderr where a plan takes training.

    Raises:
        ConfigError: the name is not in `ALGORITHMS`, or the algorithm cannot be planned for this config.
        KeyboardInterrupt: Ctrl-C while a plan is trained for.
    """
    return make_plans(name, env, [PlanRequest(population, config, checkpoints)], devices=devices, progress=progress)[0]


def make_plans(
    name: str, env: Env, requests: Sequence[PlanRequest], *, devices: int | None = None, progress: bool = False
) -> list[Plan]:
    """`make_plan` for several runs, which may differ in `config.seed`, `config.rates` and agents; all train in one program."""
    check_algorithm(name)
    plans = ALGORITHMS[name].plan(env, requests, devices=devices, progress=progress)
    return [plan._replace(assigner=plan.assigner._replace(name=name)) for plan in plans]
