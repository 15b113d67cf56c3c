"""Do all programs lower for CUDA and TPU, on a machine that has neither? For every task and algorithm, and what they call.

`init`, `step`, `conclude` and `evaluate` of small runs are lowered to StableHLO. What no accelerator takes well is refused: a
callback to the host, float64, a shape that is not known. What libraries they call there (Cholesky, QR) is kept in
tests/contracts/custom_calls.json, by version of JAX, so that a new one is noticed.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.stages import Traced

import rmdp_jax
from benchmarks.common import clean_exit, emit, read_arguments, show
from rmdp_jax import make_evaluate, make_trainer
from rmdp_jax.assigners.base import Assigner
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.envs import ENVS, make, options_of, preset
from rmdp_jax.errors import check
from rmdp_jax.running.algorithms import ALGORITHMS, make_plan, task_of
from rmdp_jax.running.cluster import after_pretraining, assigner_of
from rmdp_jax.trainer import Trainer

PACKAGE = Path(rmdp_jax.__file__).parent
GOLDEN = Path(__file__).parents[1] / "tests" / "contracts" / "custom_calls.json"
PLATFORMS = ("cuda", "tpu")
NETWORKS = "policies/networks.py"
LISTED = ("cluster", "affinity")  # their groups take training, so here they are any
# Settings of `em` under which other code runs; of so many agents rewards and utilities are estimated.
SETTINGS: dict[str, dict[str, Any]] = {
    "5000 agents": {"n": 5000},
    "limits": {"at_most": (20.0,), "at_least": (1.0,), "n": 25},
    "p = 0": {"welfare_p": 0.0},
}

_FAULTS = {
    "a callback to the host": r"custom_call @\S*callback|stablehlo\.(?:infeed|outfeed|send|recv)\b",
    "float64": r"tensor<(?:[0-9?]+x)*(?:f64|complex<f64>)[,>]",
    "a shape that is not known": r"tensor<(?:\w+x)*\?|stablehlo\.(?:real_dynamic|[gs]et_dimension|dynamic_(?!slice|update))",
}


class Program(NamedTuple):
    """Something that runs on the device."""

    name: str
    traced: Traced


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """A line for each task, algorithm and program."""

    envs: tuple[str, ...] = tuple(ENVS)
    algorithms: tuple[str, ...] = (*ALGORITHMS, *SETTINGS)
    """Algorithms, and settings of em."""
    write: bool = False
    """Write the custom calls of this version of JAX into tests/contracts/custom_calls.json."""
    quick: bool = False
    """The first task with two algorithms."""


def smaller(name: str, n: int | None = None, **changes: Any) -> tuple[Env, Population, TrainConfig]:
    """Task `name` as an accelerator takes it, and its preset with few environments and short loops."""
    options: dict[str, Any] = {"backend": "mjx"} if "backend" in options_of(name) else {}
    env, population = make(name, n=n, **options)
    config = preset(name, k=2, n=population.n, evaluation_episodes=2, **changes)
    return env, population, replace(config, sizes=replace(config.sizes, environments=4, unroll=4, epochs=2, minibatches=2))


def plan_of(algorithm: str, env: Env, population: Population, config: TrainConfig) -> tuple[TrainConfig, Assigner]:
    """Config and assigner of an algorithm, without any training."""
    if algorithm not in LISTED:
        return make_plan(algorithm, env, population, config)
    labels = np.arange(config.n, dtype=np.int32) % config.k
    return after_pretraining(config, algorithm), assigner_of(config, labels, algorithm)


def programs(env: Env, population: Population, config: TrainConfig, assigner: Assigner) -> Iterator[Program]:
    """All that runs on the device in a run."""
    trainer: Trainer = make_trainer(env, population, config, assigner)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(trainer.init, key)
    end = jax.eval_shape(trainer.conclude, state)
    known: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "init": (trainer.init, (key,)),
        "step": (trainer.step, (state,)),
        "conclude": (trainer.conclude, (state,)),
        "evaluate": (make_evaluate(env, population, config), (end.policies, end.labels, key)),
    }
    for name, (function, arguments) in known.items():
        yield Program(name, jax.jit(function).trace(*arguments))


def faults_of(text: str) -> list[str]:
    """What of a StableHLO program no accelerator takes well."""
    return [name for name, pattern in _FAULTS.items() if re.search(pattern, text)]


def custom_calls_of(text: str) -> list[str]:
    """Names of the functions of libraries that a StableHLO program calls, each once."""
    return sorted(set(re.findall(r"stablehlo\.custom_call @(\w+)", text)))


def products_of(traced: Traced, platform: str) -> Counter[tuple[str, str]]:
    """Products of matrices of a lowered program: (file of rmdp_jax that takes it, precision) and how many."""
    text = traced.lower(lowering_platforms=(platform,)).as_text(debug_info=True)
    known = dict(re.findall(r"^(#loc\d+) = loc\((.*)\)$", text, re.M))

    @cache
    def file_of(place: str) -> str:
        """The innermost file of rmdp_jax; callers come after who is called."""
        location = known[place]
        own = re.match(rf'"{re.escape(str(PACKAGE))}/([^"]+)"', location)
        return own[1] if own else next(filter(None, map(file_of, re.findall(r"#loc\d+", location))), "")

    found: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        if "stablehlo.dot_general" in line:
            precision, place = re.search(r"precision = \[(\w+)", line), re.search(r"loc\((#loc\d+)\)$", line)
            assert precision
            assert place
            # A network's layer is known by its name, as a program that is inlined may tell the place of its caller.
            file = NETWORKS if "/Dense_" in known[place[1]] else file_of(place[1])
            found[file, precision[1]] += 1
    return found


def lower(traced: Traced, platform: str) -> str:
    """StableHLO of a program for another platform."""
    return traced.lower(lowering_platforms=(platform,)).as_text()


def measure(name: str, algorithm: str) -> Iterator[dict[str, Any]]:
    """A line for each program of one task and algorithm."""
    env, population, config = smaller(name, **SETTINGS.get(algorithm, {}))
    of = "em" if algorithm in SETTINGS else algorithm
    env, population = task_of(of, env, population)
    for program in programs(env, population, *plan_of(of, env, population, config)):
        texts = {platform: lower(program.traced, platform) for platform in PLATFORMS}
        yield {
            "benchmark": "lowering",
            **{"env": name, "algorithm": algorithm, "program": program.name, "jax": jax.__version__},
            "faults": {platform: faults_of(text) for platform, text in texts.items()},
            "custom_calls": {platform: custom_calls_of(text) for platform, text in texts.items()},
        }


def golden_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Custom calls by platform, program and task, of any algorithm."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for line in lines:
        for platform, calls in line["custom_calls"].items():
            tasks = found.setdefault(platform, {}).setdefault(line["program"], {})
            tasks[line["env"]] = sorted({*tasks.get(line["env"], []), *calls})
    return found


def unknown_calls(found: dict[str, Any], golden: dict[str, Any]) -> list[dict[str, Any]]:
    """Calls that are not in custom_calls.json."""
    return [
        {"platform": platform, "program": program, "env": name, "new": new}
        for platform, of in found.items()
        for program, tasks in of.items()
        for name, calls in tasks.items()
        if (new := sorted({*calls} - {*golden.get(platform, {}).get(program, {}).get(name, [])}))
    ]


def version() -> str:
    """Of JAX, as custom_calls.json has it: its names of calls change from one to the next."""
    return ".".join(jax.__version__.split(".")[:2])


def read_golden() -> dict[str, Any]:
    """Custom calls by version of JAX."""
    golden: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    return golden


def main() -> None:
    """Lower, print; fail where something does not lower well, or calls what is not known."""
    arguments = read_arguments(Lowering, __doc__)
    names, algorithms = arguments.envs, arguments.algorithms
    if arguments.quick:
        names, algorithms = names[:1], algorithms[:2]
    whole = (set(names), set(algorithms)) == (set(Lowering().envs), set(Lowering().algorithms))
    with clean_exit("lowering"):
        check(
            "write", arguments.write, whole or not arguments.write, "with all envs and algorithms, as the file is written anew"
        )
    lines = []
    for name in names:
        for algorithm in algorithms:
            for line in measure(name, algorithm):
                emit(line)
                lines.append(line)
    found = golden_of(lines)
    if arguments.write:
        GOLDEN.write_text(json.dumps(read_golden() | {version(): found}, indent=1, sort_keys=True) + "\n")
    of_programs = [(platform, program, tasks) for platform, of in found.items() for program, tasks in of.items()]
    rows = [[*where, name, " ".join(calls)] for *where, tasks in of_programs for name, calls in tasks.items()]
    show("custom calls", ["", "", "", ""], rows)
    faults = [line for line in lines if any(line["faults"].values())]
    new = unknown_calls(found, read_golden().get(version(), {}))
    if faults or new:
        raise SystemExit("\n".join(map(json.dumps, [*faults, *new])))


if __name__ == "__main__":
    main()
