"""Does a run that was stopped end bit for bit as one that was not, on this device? One seed trained twice, once in two parts.

On a GPU set XLA_FLAGS=--xla_gpu_deterministic_ops=true, as for any run that has to be repeated there.
"""

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import clean_exit, emit, machine, read_arguments, show
from rmdp_jax import em, random_even, train
from rmdp_jax.envs import make, preset
from rmdp_jax.errors import check
from rmdp_jax.records.loading import load_run


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Trains k = 3 policies for half of the iterations, stops as for Ctrl-C, and goes on."""

    env: str = "resource_gathering"
    backend: str | None = None
    environments: int = 64
    iterations: int = 60
    """A multiple of 4: lines come every 2, and the stop at half of them."""
    quick: bool = False
    """Two environments, four iterations, fixed groups."""


def trained(arguments: Resume, out: Path, on_metrics: Callable[[dict[str, Any]], None] | None, resume: bool) -> None:
    """One start of the run in folder `out`."""
    options: dict[str, Any] = {} if arguments.backend is None else {"backend": arguments.backend}
    env, population = make(arguments.env, n=25, **options)
    config = preset(arguments.env, k=3, n=25, evaluation_episodes=1, log_every=2)
    environments, iterations = (2, 4) if arguments.quick else (arguments.environments, arguments.iterations)
    sizes = replace(config.sizes, environments=environments, unroll=16, minibatches=4)
    config = replace(config, sizes=sizes, transitions=iterations * sizes.transitions)
    assigner = random_even(config.k, 25) if arguments.quick else em(config.k, 25)
    train(env, population, config, assigner, out=out, on_metrics=on_metrics, resume=resume, progress=False)


def stop_at_half(iterations: int) -> Callable[[dict[str, Any]], None]:
    """Ctrl-C, when the line of half of the iterations is logged."""

    def press(line: dict[str, Any]) -> None:
        if line["iteration"] * 2 == iterations:
            os.kill(os.getpid(), signal.SIGINT)

    return press


def outcome(folder: Path) -> list[np.ndarray]:
    """Policies and assignment of a finished run."""
    run = load_run(folder, make)
    return [np.asarray(leaf) for leaf in jax.tree.leaves((run.policies, run.assignment))]


def main() -> None:
    """Train, stop, go on, compare."""
    arguments = read_arguments(Resume, __doc__)
    with clean_exit("resume"):
        rule = "a multiple of 4 of at least 4"
        check("iterations", arguments.iterations, arguments.iterations >= 4 and arguments.iterations % 4 == 0, rule)
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        trained(arguments, whole, None, False)
        iterations = 4 if arguments.quick else arguments.iterations
        trained(arguments, parts, stop_at_half(iterations), False)
        trained(arguments, parts, None, True)
        equal = [np.array_equal(a, b, equal_nan=True) for a, b in zip(outcome(whole), outcome(parts), strict=True)]
    line = {
        **{"benchmark": "resume", "env": arguments.env, "iterations": iterations, "stopped_at": iterations // 2},
        **{"arrays": len(equal), "equal_arrays": sum(equal), "bit_for_bit": all(equal)},
        "flags": os.environ.get("XLA_FLAGS", ""),
        **machine(),
    }
    emit(line)
    names = ["env", "iterations", "stopped_at", "arrays", "equal_arrays"]
    show("a stopped run against one that was not", names, [[line[name] for name in names]])
    if not line["bit_for_bit"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
