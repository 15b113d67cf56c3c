"""What bodies hold: one policy for one target speed, at several speeds, and the welfare that k such policies would have.

The proved bound of a speed task takes speeds that never ripple. Here one policy is trained for one target (k = n = 1); its
reward is wide at first, as far as any speed, and narrows to the task's own over the first half of training, so that fast
targets are found too: knowledge of the target that no algorithm has. The mean pay of such a policy for targets around its own
is what it holds; between two speeds it is interpolated. The best k places for the task's agents by these pays, by dynamic
programming, are the *reachable* welfare: an estimate for this learner and these transitions, no bound that is proved.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import clean_exit, emit, machine, read_arguments, show
from rmdp_jax import TrainConfig, em
from rmdp_jax.env import Env, Population
from rmdp_jax.envs import make, preset
from rmdp_jax.envs.speed import BODIES, Body, half_width_of, pay
from rmdp_jax.envs.speed_reachable import held_from, reachable_welfare, write_data
from rmdp_jax.errors import check, known_name
from rmdp_jax.evaluation.comparison import flat_settings
from rmdp_jax.evaluation.evaluate import make_evaluate
from rmdp_jax.records.files import read_lines, write_lines
from rmdp_jax.records.folder import dump_train_config
from rmdp_jax.running.loop import make_chunk
from rmdp_jax.running.progress import report_progress
from rmdp_jax.trainer import make_trainer, policies_of
from rmdp_jax.types import Array, Key, PyTree

RESULTS = Path("benchmarks/results/reachable.jsonl")
WIDE = 0.5  # share of training in which the reward narrows
GRID = 201  # targets, evenly spaced over the range, for which every policy's pay is measured


@dataclass(frozen=True, kw_only=True)
class Reachable:
    """Train all targets of one env in one program, and write its line anew."""

    env: str = "walker2d_speed"
    """Task, one of the target speeds."""
    targets: int = 6
    """Policies, for targets in the middle of as many equal parts of the range."""
    transitions: int = 2_000_000
    """Of each policy."""
    quick: bool = False
    """2 targets, 10,000 transitions; results go to runs/reachable."""
    results: Path | None = None
    """File of lines. Default: benchmarks/results/reachable.jsonl, from which the package's own data is written, too."""


def narrow(arguments: Reachable) -> Reachable:
    """`arguments` with the sizes of --quick, checked, and with a file."""
    known_name("env", arguments.env, {f"{body}_speed": None for body in BODIES})
    check("targets", arguments.targets, arguments.targets >= 1, "a whole number of at least 1")
    results = arguments.results or (Path("runs/reachable/reachable.jsonl") if arguments.quick else RESULTS)
    arguments = replace(arguments, results=results)
    return replace(arguments, targets=2, transitions=10_000) if arguments.quick else arguments


class Wanted(NamedTuple):
    """An agent of a speed task whose reward may be wider than the task's."""

    target: Array  # (n,) m/s
    half_width: Array  # (n,) m/s


def learn(env: Env, body: Body, config: TrainConfig, targets: np.ndarray) -> np.ndarray:
    """One policy for each of the `targets` (p,), m/s: its pay for the targets of the grid, (p, GRID) in 0..100."""
    narrow, wide = half_width_of(body), body.high - body.low
    keys = jax.random.split(jax.random.key(config.seed), len(targets))

    def population(wanted: PyTree) -> Population:
        return Population(wanted, lambda agent, outcome: pay(outcome.speed, agent.target, agent.half_width))

    def trainer(wanted: Wanted) -> Any:
        return make_trainer(env, population(wanted), config, em(1, 1))

    def agents(passed: float) -> Wanted:
        half_width = max(wide * (narrow / wide) ** min(passed / WIDE, 1.0), narrow)
        return Wanted(jnp.asarray(targets, jnp.float32)[:, None], jnp.full((len(targets), 1), half_width, jnp.float32))

    states = jax.jit(jax.vmap(lambda key, wanted: trainer(wanted).init(key)))(keys, agents(0.0))
    chunk = jax.jit(jax.vmap(lambda wanted, state, number: make_chunk(trainer(wanted))(state, number), (0, 0, None)))
    done, begun = 0, time.perf_counter()
    with report_progress(True, config.iterations) as reporter:
        while done < config.iterations:
            number = min(config.log_every, config.iterations - done)
            states, infos = chunk(agents(done / config.iterations), states, jnp.int32(number))
            done += number
            rate = done * config.sizes.transitions * len(targets) / (time.perf_counter() - begun)
            pays = np.asarray(infos.welfare)
            reporter.update([{"iteration": done, "welfare": float(pay), "transitions_per_s": rate} for pay in pays])
    grid = jnp.linspace(body.low, body.high, GRID, dtype=jnp.float32)
    measured = population(Wanted(grid, jnp.full(GRID, narrow, jnp.float32)))
    evaluation = make_evaluate(env, measured, replace(config, n=GRID))

    def evaluate(state: Any, key: Key) -> Array:
        return evaluation(policies_of(state), jnp.zeros(GRID, jnp.int32), key).utility[0]

    pays = jax.jit(jax.vmap(evaluate))(states, jax.random.split(jax.random.key(config.seed + 1), len(targets)))
    return np.asarray(pays)


def measure(arguments: Reachable) -> dict[str, Any]:
    """The line of one env: what is trained, and pays in 0..100."""
    body = BODIES[arguments.env.removesuffix("_speed")]
    env, _ = make(arguments.env, n=1)
    config = preset(arguments.env, k=1, n=1, transitions=arguments.transitions)
    targets = body.low + (np.arange(arguments.targets) + 0.5) / arguments.targets * (body.high - body.low)
    begun = time.perf_counter()
    pays = learn(env, body, config, targets)
    grid = np.linspace(body.low, body.high, GRID)
    own = [float(np.interp(target, grid, row)) for target, row in zip(targets, pays, strict=True)]
    return {
        "benchmark": "reachable",
        "env": arguments.env,
        "backend": env.spec.backend,
        "transitions": config.iterations * config.sizes.transitions,
        "range": [body.low, body.high],
        "targets": np.round(targets, 4).tolist(),
        "own_pay": np.round(own, 2).tolist(),
        "settings": flat_settings(dump_train_config(config)),
        "wall_s": round(time.perf_counter() - begun, 1),
        **machine(),
        "pays": np.round(pays, 2).tolist(),
    }


def write_tables(results: Path) -> list[list[Any]]:
    """The markdown beside the lines, and its rows: the proved bound and the reachable estimate of seeds 0 to 4, n = 100."""
    rows = []
    for line in read_lines(results):
        held, env = held_from(line), line["env"]
        for k in KS:
            made = [make(env, seed=seed)[1] for seed in range(SEEDS)]
            proved = float(np.mean([population.upper_bound(k) for population in made]))
            estimate = float(np.mean([reachable_welfare(held, np.asarray(population.agents), k) for population in made]))
            rows.append([env, k, proved, estimate, f"{estimate / proved:.1%}"])
    text = [f"# {TITLE}\n"]
    for line in read_lines(results):
        pays = ", ".join(f"{pay:.0f} at {target:.2f}" for target, pay in zip(line["targets"], line["own_pay"], strict=True))
        text.append(f"- {line['env']}, {line['transitions']:,} transitions: {pays} m/s ({line['wall_s']:,.0f} s).")
    text += ["", "| env | k | proved bound | reachable (estimate) | share |", "|---|---|---|---|---|"]
    text += ["| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |" for row in rows]
    text += [
        "\nPay of 100 of a policy alone with one target, by target, one training each; the bounds are means over targets of "
        f"seeds 0 to {SEEDS - 1}, n = 100. The estimate rests on this learner: a better one would reach more.\n",
        "Made by `python -m benchmarks.reachable --env ENV`, which also writes envs/data/reachable_speed.json.\n",
    ]
    results.with_suffix(".md").write_text("\n".join(text))
    return rows


TITLE = "What policies alone hold, and the best k places by that"
KS, SEEDS = (1, 2, 5, 10), 5


def main() -> None:
    """A line of the env on stdout, then the table of all envs measured so far."""
    with clean_exit("reachable", "the same command begins anew"):
        arguments = narrow(read_arguments(Reachable, __doc__))
        results = arguments.results
        assert results is not None  # `narrow` sees to it
        results.parent.mkdir(parents=True, exist_ok=True)
        line = measure(arguments)
        lines = [other for other in read_lines(results) if other["env"] != arguments.env]
        write_lines(results, sorted([*lines, line], key=lambda line: line["env"]))
        emit({name: value for name, value in line.items() if name not in ("pays", "settings")})
        if results == RESULTS:
            write_data(read_lines(results))
        rows = write_tables(results)
    show(TITLE, ["env", "k", "proved", "reachable", "share"], rows)


if __name__ == "__main__":
    main()
