"""How fast is learning beside brax's own PPO on the same body, backend, batch and network?

Equal: the brax env object that is stepped, environments, unroll, transitions and updates of an iteration, transitions of a
minibatch (of all policies), hidden layers and their activation, Gaussian actions with a deviation that does not depend on the
state, observation normalisation, clipping of gradients, iterations, no evaluation. Each run has a process of its own; both load
the body before the clock starts, and both trace, compile and initialise after it.

Not equal: rewards (n agents' by us, brax's one); k policies or one; fresh first states in every iteration by us, the first one
again and again by brax; we look past cut episodes, score true successors, keep utilities and relocate. Minibatches are of
whole unrolls in brax, of shuffled transitions here.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import emit, in_own_process, machine, read_arguments, show
from rmdp_jax import Sizes, em, make_trainer
from rmdp_jax.envs import make, preset
from rmdp_jax.envs.speed import BODIES, load_body
from rmdp_jax.running.loop import compile_side_by_side, make_chunk


@dataclass(frozen=True, kw_only=True)
class VsBrax:
    """k policies for n agents against one brax policy of k x E environments, and against k brax runs of E, one by one."""

    env: str = "halfcheetah"
    """Body."""
    backend: str = "spring"
    k: int = 8
    n: int = 100
    """Agents, at least k."""
    environments: int = 32
    """Of each policy (E); a multiple of `minibatches`."""
    iterations: int = 2
    """In one compiled loop."""
    repeats: int = 5
    """Loops that are timed, after one that is not."""
    runs: int = 2
    """brax runs of E environments that are timed; k of them are taken to last k times their mean."""
    quick: bool = False
    """Two policies of 4 environments, 8 steps each, two updates, one timed loop, one brax run."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What both do; every field that fixes work."""

    body: str
    backend: str
    k: int
    n: int
    sizes: Sizes
    iterations: int
    repeats: int


def ours(work: Work) -> dict[str, float]:
    """Transitions per second, and seconds with compilation, of k policies learned together."""
    env, population = make(f"{work.body}_speed", backend=work.backend, n=work.n)
    config = preset(f"{work.body}_speed", k=work.k, n=work.n)
    config = replace(config, sizes=work.sizes)
    begun = time.perf_counter()
    trainer = make_trainer(env, population, config, em(work.k, work.n))
    key, number = jax.random.key(0), jnp.int32(work.iterations)
    init, learn = jax.jit(trainer.init), jax.jit(make_chunk(trainer), donate_argnums=0)
    like = jax.eval_shape(trainer.init, key)
    start, chunk = compile_side_by_side(init.lower(key), learn.lower(like, number))
    state = start(key)
    times = []
    for _ in range(1 + work.repeats):
        loop_begun = time.perf_counter()
        state, _ = jax.block_until_ready(chunk(state, number))
        times.append(time.perf_counter() - loop_begun)
    wall_s = time.perf_counter() - begun
    loop = work.iterations * work.k * work.sizes.transitions
    return {"transitions_per_s": loop / statistics.median(times[1:]), "wall_s": wall_s}


def brax_ppo(work: Work, environments: int) -> dict[str, float]:
    """The same of one policy by `brax.training.agents.ppo`, with this many environments."""
    sizes, rates = work.sizes, preset(f"{work.body}_speed").rates
    body = load_body(work.body, work.backend)
    speeds: list[float] = []
    with _brax_ppo() as (train, networks, tanh):
        begun = time.perf_counter()
        train(
            body,
            num_timesteps=(1 + work.repeats) * work.iterations * environments * sizes.unroll,
            num_evals=2 + work.repeats,  # a loop between two of them
            run_evals=False,
            episode_length=1000,
            num_envs=environments,
            unroll_length=sizes.unroll,
            num_minibatches=sizes.minibatches,
            batch_size=environments // sizes.minibatches,
            num_updates_per_batch=sizes.epochs,
            learning_rate=rates.learning_rate[0],
            entropy_cost=rates.entropy[0],
            discounting=0.99,
            gae_lambda=rates.gae_lambda,
            clipping_epsilon=rates.clip,
            max_grad_norm=rates.max_gradient_norm,
            normalize_observations=sizes.normalize_observations,
            network_factory=partial(
                networks.make_ppo_networks,
                policy_hidden_layer_sizes=sizes.hidden,
                value_hidden_layer_sizes=sizes.hidden,
                activation=tanh,
                distribution_type="normal",
                noise_std_type="log",
            ),
            progress_fn=lambda _, metrics: speeds.append(float(metrics["training/sps"])),
        )
        wall_s = time.perf_counter() - begun
    return {"transitions_per_s": statistics.median(speeds[1:]), "wall_s": wall_s}


@contextmanager
def _brax_ppo() -> Iterator[tuple[Any, Any, Any]]:
    """brax's PPO, its networks and tanh: without its prints, and with a function that it needs and JAX removed."""
    from rmdp_jax.envs.brax_adapter import quiet

    with quiet():
        from brax.training.agents.ppo import networks
        from brax.training.agents.ppo import train as ppo
        from flax.linen import tanh

        def replicated(tree: Any, devices: list[Any]) -> Any:
            mesh = jax.sharding.Mesh(np.array(devices), (ppo._PMAP_AXIS_NAME,))
            sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(ppo._PMAP_AXIS_NAME))
            return jax.tree.map(lambda x: jax.device_put(jnp.stack([x] * len(devices)), sharding), tree)

        jax.device_put_replicated = replicated  # type: ignore[attr-defined,assignment]
        yield ppo.train, networks, tanh


def compare(work: Work, runs: int) -> list[dict[str, Any]]:
    """A line for each of three, ratios to ours in the others."""
    own = in_own_process(ours, work)
    together = in_own_process(brax_ppo, work, work.k * work.sizes.environments)
    alone = [in_own_process(brax_ppo, work, work.sizes.environments) for _ in range(runs)]
    one_by_one = {
        "transitions_per_s": statistics.median(run["transitions_per_s"] for run in alone),
        "wall_s": work.k * statistics.fmean(run["wall_s"] for run in alone),
        "runs_timed": runs,
    }
    transitions = (1 + work.repeats) * work.iterations * work.k * work.sizes.transitions
    learners = {"rmdp_jax": own, "brax, one policy": together, f"brax, {work.k} runs in turn": one_by_one}
    return [
        {
            "benchmark": "vs_brax",
            "learner": learner,
            **{name: getattr(work, name) for name in ("body", "backend", "k", "n", "iterations", "repeats")},
            **{name: getattr(work.sizes, name) for name in ("environments", "unroll", "epochs", "minibatches", "hidden")},
            "transitions": transitions,
            **{name: round(value, 2) for name, value in rates.items()},
            "ours_per_its_transitions_per_s": round(own["transitions_per_s"] / rates["transitions_per_s"], 3),
            "its_per_our_wall_s": round(rates["wall_s"] / own["wall_s"], 3),
            **machine(),
        }
        for learner, rates in learners.items()
    ]


def main() -> None:
    """Three lines, then the table."""
    arguments = read_arguments(VsBrax, __doc__)
    if arguments.env not in BODIES:
        raise SystemExit(f"env = {arguments.env}: must be one of {', '.join(BODIES)}")
    sizes = replace(preset(f"{arguments.env}_speed").sizes, environments=arguments.environments)
    names = ("backend", "k", "n", "iterations", "repeats")
    work = Work(body=arguments.env, sizes=sizes, **{name: getattr(arguments, name) for name in names})
    if arguments.quick:
        sizes = replace(sizes, environments=4, unroll=8, epochs=1, minibatches=2, hidden=(8,))
        work = replace(work, k=2, n=4, sizes=sizes, iterations=1, repeats=1)
    if work.sizes.environments % work.sizes.minibatches:
        raise SystemExit(f"environments = {sizes.environments}: must be a multiple of minibatches = {sizes.minibatches}")
    lines = compare(work, 1 if arguments.quick else arguments.runs)
    for line in lines:
        emit(line)
    columns = ["", "transitions/s", "ours / its", "seconds", "its / ours"]
    names = ("learner", "transitions_per_s", "ours_per_its_transitions_per_s", "wall_s", "its_per_our_wall_s")
    title = f"{work.body} ({work.backend}), k = {work.k} x E = {sizes.environments}: in steady state, and all with compilation"
    show(title, columns, [[line[name] for name in names] for line in lines])


if __name__ == "__main__":
    main()
