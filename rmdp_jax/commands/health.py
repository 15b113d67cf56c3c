"""What `rmdp-jax doctor` looks at: each check finds a few facts, or raises, and never ends the others."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rmdp_jax.devices.settings import check_settings, plain_settings
from rmdp_jax.running.cache import use_cache
from rmdp_jax.running.memory import available_memory

PACKAGE = "rmdp-jax"
ENOUGH_MEMORY = 2 * 2**30  # bytes; HalfCheetah and its compiler take 1.7 GiB
SOLVED = 95.0  # welfare; the self-test's grid has the optimum 97 (worked out by hand), and six seeds came to 96.6 and more


class Finding(NamedTuple):
    """What a check found."""

    name: str
    status: str  # "ok"; "note": something is missing that not everybody needs; "failed"
    found: str
    seconds: float | None = None
    advice: str | None = None


Check = Callable[[], Iterator[Finding]]


def run_check(name: str, check: Check, needed: bool = True) -> list[Finding]:
    """The findings of `check`; one that says what was raised where it could not be made, failed if `needed`."""
    found: list[Finding] = []
    begun = time.perf_counter()
    try:
        found.extend(check())
    except Exception as error:  # whatever is broken is what we are here to tell
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        reason = first if isinstance(error, ValueError) else f"{type(error).__name__}: {first}"
        found.append(Finding(name, "failed" if needed else "note", reason, time.perf_counter() - begun))
    return found


def check_versions() -> Iterator[Finding]:
    """Python, and what is installed against the ranges that this version was tested with, which its metadata holds."""
    from packaging.requirements import Requirement

    try:
        python, needed = metadata(PACKAGE)["Requires-Python"], [Requirement(text) for text in requires(PACKAGE) or []]
    except PackageNotFoundError:
        yield Finding("versions", "note", "not installed, so ranges are not known", advice="make install, or pip install -e .")
        return
    own = Requirement(f"python{python}")
    here = {"python": platform.python_version()}
    wanted = [own, *(one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""}))]
    here |= {one.name: _version(one.name) for one in wanted[1:]}
    wrong = [one for one in wanted if not one.specifier.contains(here[one.name], prereleases=True)]
    packages = ", ".join(f"{name} {here[name]}" for name in ("python", "jax", "flax", "brax", "mujoco"))
    if not wrong:
        yield Finding("versions", "ok", f"{PACKAGE} {version(PACKAGE)}; {packages}; all {len(wanted)} within the tested ranges")
    for one in wrong:
        missing = here[one.name] == "0"
        what = "is not installed" if missing else f"{here[one.name]} was not tested"
        way_out = f"pip install '{one.name}{one.specifier}'" if one is not own else f"take Python {one.specifier}"
        yield Finding(
            one.name, "failed" if missing or one is own else "note", f"{what} (tested: {one.specifier})", None, way_out
        )


def check_devices() -> Iterator[Finding]:
    """What JAX runs on."""
    check_settings()
    devices = jax.devices()
    kinds = ", ".join(dict.fromkeys(f"{device.platform}: {device.device_kind}" for device in devices))
    idle = jax.default_backend() == "cpu" and Path("/dev/nvidia0").exists()
    advice = "there is an NVIDIA GPU that JAX does not see: pip install 'jax[cuda13]', or [cuda12]" if idle else None
    yield Finding("devices", "note" if idle else "ok", f"{len(devices)} ({kinds})", advice=advice)


def check_precision() -> Iterator[Finding]:
    """Precision, and what people set for JAX."""
    said: list[str] = []
    with plain_settings(said.append):
        product = (jax.numpy.ones(2) @ jax.numpy.ones(2)).dtype
    matmul = jax.config.values["jax_default_matmul_precision"] or "default"
    yield Finding("precision", "ok", f"{product}, matrix products {matmul} (of GPU and TPU: below float32 by default)")
    for sentence in said:
        name, _, why = sentence.partition(" is off ")
        yield Finding(name, "note", f"is off {why}", advice=f"unset {name}")


def check_threads() -> Iterator[Finding]:
    """Cores of this machine and of this process."""
    cores = os.cpu_count() or 1
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    limits = [f"{name} = {os.environ[name]}" for name in ("OMP_NUM_THREADS", "XLA_FLAGS", "NPROC") if os.environ.get(name)]
    yield Finding("threads", "ok", ", ".join([f"{ours} of {cores} cores", *limits]))


def check_cache() -> Iterator[Finding]:
    """Where compiled programs are kept."""
    folder = use_cache()
    if folder is None:
        way_out = "every start compiles anew; set XDG_CACHE_HOME to a folder that can be written, or switch it on"
        yield Finding("cache", "note", "nothing is kept: switched off, or its folder cannot be written", advice=way_out)
        return
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    advice = f"delete {folder} at any time" if sum(files) > 5 * 2**30 else None
    yield Finding("cache", "ok", f"{folder}: {len(files)} files, {sum(files) / 2**20:.0f} MiB", advice=advice)


def check_free_memory() -> Iterator[Finding]:
    """Memory that training would be allowed."""
    available = available_memory()
    if available is None:
        yield Finding("memory", "note", "not known")
        return
    few = available < ENOUGH_MEMORY
    advice = "take few environments and small n" if few else None
    yield Finding("memory", "note" if few else "ok", f"{available / 2**30:.1f} GiB on {jax.default_backend()}", advice=advice)


def backends() -> list[tuple[str, bool]]:
    """Names of all backends, and whether what trains by default needs it here."""
    from rmdp_jax.envs.speed import BACKENDS

    default = "native" if jax.default_backend() == "cpu" else "mjx"
    return [("jax", True), *((name, name == default) for name in BACKENDS)]


def check_backend(backend: str) -> Iterator[Finding]:
    """One step of HalfCheetah, or of the grid for "jax"; slow, as it is compiled."""
    from rmdp_jax.envs import make

    begun = time.perf_counter()
    options: dict[str, Any] = {} if backend == "jax" else {"backend": backend}
    env, _ = make("resource_gathering" if backend == "jax" else "halfcheetah_speed", **options)

    def one_step(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state, obs = env.reset(key)
        action = jax.numpy.int32(0) if env.spec.discrete else jax.numpy.zeros(env.spec.action_size, jax.numpy.float32)
        return obs, env.step(state, action)[1].obs

    with plain_settings(lambda sentence: None):
        key = jax.random.key(0)
        compiled = jax.jit(one_step).lower(key).compile({"xla_backend_optimization_level": "0"})  # in a sixth of the time
        sound = all(bool(jax.numpy.isfinite(obs).all()) for obs in compiled(key))
    found = f"one step of {env.spec.name}" + ("" if sound else ": observations are not finite")
    yield Finding(f"backend {backend}", "ok" if sound else "failed", found, time.perf_counter() - begun)


def check_drawing() -> Iterator[Finding]:
    """What movies of `rmdp-jax render` need."""
    from rmdp_jax.envs.rendering import GET_FFMPEG, working_opengl

    opengl, missing = working_opengl()
    yield Finding(
        "OpenGL",
        "ok" if opengl else "note",
        f"MUJOCO_GL={opengl}" if opengl else "none: render writes no movies",
        None,
        missing,
    )
    ffmpeg = shutil.which("ffmpeg")
    yield Finding("ffmpeg", "ok" if ffmpeg else "note", ffmpeg or "none: movies are gifs", None, None if ffmpeg else GET_FFMPEG)


def check_training() -> Iterator[Finding]:
    """A 2x2 grid with two policies is learned, twice from one seed: to its optimum, and bit for bit the same."""
    from rmdp_jax.assigners.plain_em import plain_em
    from rmdp_jax.config import Rates, Sizes, TrainConfig
    from rmdp_jax.envs import make
    from rmdp_jax.evaluation.evaluate import make_evaluate
    from rmdp_jax.trainer import make_trainer

    begun = time.perf_counter()
    env, population = make("resource_gathering", size=2)
    sizes = Sizes(environments=16, unroll=16, epochs=4, minibatches=4, hidden=(16,))
    rates = Rates(learning_rate=(5e-3, 1e-3), entropy=(0.2, 4e-3), gae_lambda=1.0)
    config = TrainConfig(k=2, n=4, transitions=60 * sizes.transitions, sizes=sizes, rates=rates)
    trainer, evaluate = make_trainer(env, population, config, plain_em(2, 4)), make_evaluate(env, population, config)

    @jax.jit
    def learn(key: jax.Array, evaluation_key: jax.Array) -> tuple[jax.Array, Any]:
        state = jax.lax.fori_loop(0, config.iterations, lambda _, state: trainer.step(state)[0], trainer.init(key))
        learned = trainer.conclude(state)
        return evaluate(learned.policies, learned.labels, evaluation_key).welfare, learned.policies

    with plain_settings(lambda sentence: None):
        (welfare, policies), (_, again) = (jax.device_get(learn(jax.random.key(0), jax.random.key(1))) for _ in range(2))
    seconds = time.perf_counter() - begun
    solved = float(welfare) >= SOLVED
    advice = None if solved else "the arithmetic of this device or the versions above are at fault: report it with this output"
    found = f"welfare {float(welfare):.1f} of 97.0 on a 2x2 grid"
    yield Finding("self-test", "ok" if solved else "failed", found, seconds, advice)
    same = all((a == b).all() for a, b in zip(jax.tree.leaves(policies), jax.tree.leaves(again), strict=True))
    advice = None if same else "on a GPU set XLA_FLAGS=--xla_gpu_deterministic_ops=true"
    yield Finding(
        "determinism", "ok" if same else "note", f"two runs are {'equal bit for bit' if same else 'not equal'}", None, advice
    )


def _version(name: str) -> str:
    """ "0" where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "0"
