"""How deep is an iteration, and what binds it on a GPU? Kernels, operations and bytes of the program that XLA makes for it.

No GPU is needed: XLA compiles for one that is not there, where JAX's CUDA plugin is installed (`pip install --no-deps
jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12` at JAX's version); `--targets cpu` takes this CPU's program in its
place. The forecast of a kernel is the longest of: a launch (3 us), its operations by the peak of float32, its bytes by the
bandwidth of the memory. Loops whose rounds depend on data (MuJoCo's solver, relocations) count `--rounds` times.
"""

import importlib.util
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.common import emit, machine, read_arguments, show
from benchmarks.hlo import Kernel, launches
from benchmarks.physics import physics_of
from benchmarks.throughput import Case, Throughput, resolve
from rmdp_jax import TrainConfig, em, make_trainer
from rmdp_jax.env import Env
from rmdp_jax.envs import native
from rmdp_jax.errors import ConfigError, known_name

LAUNCH_S = 3e-6  # of a kernel after another


class Device(NamedTuple):
    """What a GPU does at best, by its data sheet."""

    flop_per_s: float  # float32 without tensor cores
    bytes_per_s: float
    described: dict[str, Any]  # to XLA


def _described(name: str, capability: tuple[int, int], **own: Any) -> dict[str, Any]:
    common = {"threads_per_block_limit": 1024, "threads_per_warp": 32, "threads_per_core_limit": 2048}
    common |= {"block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65535, "block_dim_limit_z": 65535}
    common |= {"registers_per_core_limit": 65536, "registers_per_block_limit": 65536, "shared_memory_per_block": 49152}
    return {"name": name, "capability": capability, **common, **own}


DEVICES = {
    "h100": Device(
        66.9e12,
        3.35e12,
        _described(
            "NVIDIA H100 80GB HBM3", (9, 0), core_count=132, fpus_per_core=128, clock_rate_ghz=1.98, l2_cache_size=52428800,
            memory_bandwidth=3352320000000, device_memory_size=84942979072,
            shared_memory_per_core=233472, shared_memory_per_block_optin=232448,
        ),
    ),
    "a100": Device(
        19.5e12,
        2.04e12,
        _described(
            "NVIDIA A100-SXM4-80GB", (8, 0), core_count=108, fpus_per_core=64, clock_rate_ghz=1.41, l2_cache_size=41943040,
            memory_bandwidth=2039000000000, device_memory_size=84974239744,
            shared_memory_per_core=167936, shared_memory_per_block_optin=166912,
        ),
    ),
}  # fmt: skip
PARTS = {
    "physics": r"/physics|\(physics\)",
    "acting": r"/collect|\(collect\)",
    "update": r"m_step",
    "assignment": r"e_step|copy_members",
}


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A line for each target, of one iteration of `em` after its groups have formed."""

    env: str = "resource_gathering"
    backend: str | None = None
    k: int = 8
    n: int | None = None
    environments: int | None = None
    """Parallel environments of each policy; the preset's when not given."""
    unroll: int | None = None
    epochs: int | None = None
    minibatches: int | None = None
    targets: tuple[str, ...] = ("h100", "a100")
    """h100, a100, or cpu (what its program would take on an H100)."""
    rounds: int = 1
    """Of loops whose rounds depend on data; of MJX on HalfCheetah 3 fit what an H100 did."""
    line_search: int | None = None
    """Rounds of MJX's line search at most; what envs take when not given."""
    measured: Path = Path(__file__).parent / "results" / "accelerator.jsonl"
    """Lines of a GPU, to stand beside the forecast."""
    text: Path | None = None
    """Folder to keep the programs in."""
    quick: bool = False
    """A small iteration, of this CPU."""


def target_config(device: Device) -> str:
    """A GPU as it is described to XLA."""
    figures = {name: value for name, value in device.described.items() if name not in ("name", "capability")}
    major, minor = device.described["capability"]
    numbers = " ".join(f"{name}: {value}" for name, value in figures.items())
    return (
        f"gpu_device_info {{ {numbers} cuda_compute_capability {{ major: {major} minor: {minor} }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } runtime_version { major: 12 minor: 9 } '
        f'device_description_str: "{device.described["name"]}"'
    )


def optimised(function: Any, arguments: Any, target: str) -> tuple[str, Any]:
    """Text of the program that XLA makes of a function for a target, and its `memory_analysis`."""
    given = placed(target, arguments) if target in DEVICES else arguments
    compiled = jax.jit(function).lower(*given).compile()
    return compiled.as_text() or "", compiled.memory_analysis()


def placed(target: str, arguments: Any) -> Any:
    """Shapes of arguments on a device that is not there.

    Raises:
        ConfigError: the plugin that compiles for GPUs is not installed.
    """
    from jax.experimental import topologies

    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        raise ConfigError(
            f"target = {target}: takes JAX's CUDA plugin, which compiles for a GPU that is not there; install "
            f"jax-cuda12-plugin and jax-cuda12-pjrt {jax.__version__} and nvidia-cuda-nvcc-cu12 (pip --no-deps), or take cpu"
        )
    found = topologies.get_topology_desc(target, "cuda", target_config=target_config(DEVICES[target]), topology="1x1x1")
    place = NamedSharding(topologies.make_mesh(found, (1,), ("x",)), PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)


def part_of(kernel: Kernel) -> str:
    """Which part of an iteration it is in."""
    return next((name for name, pattern in PARTS.items() if re.search(pattern, kernel.path)), "rest")


def forecast(kernels: Sequence[Kernel], device: Device) -> dict[str, Any]:
    """Seconds that kernels take at best, and how much of it each limit binds."""
    bound = dict.fromkeys(("launches", "operations", "bytes"), 0.0)
    for kernel in kernels:
        limits = (LAUNCH_S, kernel.flops / device.flop_per_s, kernel.nbytes / device.bytes_per_s)
        longest = max(limits)
        bound[list(bound)[limits.index(longest)]] += kernel.times * longest
    return {
        "launches": sum(kernel.times for kernel in kernels),
        "gflop": round(sum(kernel.times * kernel.flops for kernel in kernels) / 1e9, 3),
        "gbyte": round(sum(kernel.times * kernel.nbytes for kernel in kernels) / 1e9, 3),
        "forecast_s": round(sum(bound.values()), 6),
        "bound_by": max(bound, key=lambda name: bound[name]),
    }


def measured_rate(path: Path, about: dict[str, Any], name: str) -> float | None:
    """Transitions a second that a GPU of this kind reached by the same settings, where a line records it."""
    lines = [{"line_search": 50, **json.loads(line)} for line in path.read_text().splitlines()] if path.exists() else []
    same = [line for line in lines if name in str(line.get("device", "")) and line.get("benchmark") == "throughput"]
    of_settings = [line for line in same if all(line.get(field) == value for field, value in about.items())]
    return of_settings[-1]["transitions_per_s"] if of_settings else None


def measure(arguments: Depth, target: str) -> dict[str, Any]:
    """One line."""
    asked = {name: getattr(arguments, name) for name in ("unroll", "epochs", "minibatches", "backend")}
    if arguments.line_search is not None:
        native.LINE_SEARCH = arguments.line_search
    case = Case(k=arguments.k, n=arguments.n, environments=arguments.environments)
    env, population, config = resolve(Throughput(env=arguments.env, **asked), case)
    trainer = make_trainer(env, population, config, em(config.k, config.n, explore=0, anneal=1))
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    text, memory = optimised(lambda state: trainer.step(state)[0], (state,), target)
    if arguments.text is not None:
        arguments.text.mkdir(parents=True, exist_ok=True)
        (arguments.text / f"{arguments.env}-{target}.hlo").write_text(text)
    return describe(arguments, target, env, config, text, memory.temp_size_in_bytes)


def describe(arguments: Depth, target: str, env: Env, config: TrainConfig, text: str, temporary: int) -> dict[str, Any]:
    """What a program says of an iteration."""
    found = launches(text, arguments.rounds)
    device = DEVICES["h100" if target == "cpu" else target]
    parts = {name: [kernel for kernel in found.kernels if part_of(kernel) == name] for name in (*PARTS, "rest")}
    whole, sizes = forecast(found.kernels, device), config.sizes
    about = {"env": arguments.env, "backend": env.spec.backend, "k": config.k, "n": config.n}
    about |= {name: getattr(sizes, name) for name in ("environments", "unroll", "epochs", "minibatches")}
    about |= physics_of(env.spec.backend)
    return {
        "benchmark": "depth",
        **about,
        "target": target,
        **whole,
        "forecast_per_s": round(config.k * sizes.transitions / whole["forecast_s"]),
        "measured_per_s": measured_rate(arguments.measured, about, target.upper()),
        "parts": {name: forecast(kernels, device) for name, kernels in parts.items()},
        "rounds": arguments.rounds,
        "loops_of_unknown_rounds": found.unknown_loops,
        "temporary_gib": round(temporary / 2**30, 3),
        "versions": machine()["versions"],
        "commit": machine()["commit"],
    }


def main() -> None:
    """Compile, count, print."""
    arguments = read_arguments(Depth, __doc__)
    if arguments.quick:
        arguments = Depth(k=2, environments=4, unroll=4, epochs=1, minibatches=2, targets=("cpu",))
    for target in arguments.targets:
        known_name("target", target, {**DEVICES, "cpu": None})
    jax.config.update("jax_platforms", "cpu")  # else the plugin asks for the driver of a GPU
    # XLA cannot try kernels out on a GPU that is not there
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    lines = []
    for target in arguments.targets:
        lines.append(measure(arguments, target))
        emit(lines[-1])
    names = ["launches", "gflop", "gbyte", "forecast_s", "bound_by"]
    rows = [
        [line["target"], part, *(of[name] for name in names)]
        for line in lines
        for part, of in [*line["parts"].items(), ("all", line)]
    ]
    show(f"{arguments.env}: one iteration", ["", "", *names], rows)


if __name__ == "__main__":
    main()
