"""`train`: the host loop over compiled chunks of iterations, with progress, metrics, checkpoints and a clean Ctrl-C."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assign import Assigner, em, harden
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.evaluate import Evaluation, evaluate
from rmdp_jax.info import Info
from rmdp_jax.model import Policies
from rmdp_jax.progress import Reporter, report_progress
from rmdp_jax.runs import RunFolder, describe_machine, dump_train_config, open_run
from rmdp_jax.trainer import Trainer, TrainState, make_trainer, policies
from rmdp_jax.types import Array

Sink = Callable[[dict[str, Any]], None]


class Result(NamedTuple):
    """What a run ends with."""

    state: TrainState
    policies: Policies  # what acts: parameters and statistics
    assignment: Array  # (n,) int32
    evaluation: Evaluation  # by fresh episodes, acting as trained
    summary: dict[str, Any]  # what result.json holds
    history: list[dict[str, Any]]  # what metrics.jsonl holds


class Timing(NamedTuple):
    """Of this process alone, when a run was resumed."""

    compile_s: float
    wall_s: float
    transitions: int  # of all policies


def train(
    env: Env,
    population: Population,
    config: TrainConfig,
    assigner: Assigner | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    on_metrics: Sink | None = None,
) -> Result:
    """Train k policies and their assignment to n agents, then judge them by fresh episodes.

    Args:
        env, population: from `rmdp_jax.envs.make`, or your own.
        config: sizes, rates and length of the run; `config.n` must be the population's.
        assigner: the algorithm, `em(config.k, config.n)` when not given.
        out: folder for config.json, metrics.jsonl, result.json and checkpoints/; nothing is written when not given.
        resume: go on from the latest checkpoint in `out`.
        progress: show a bar on stderr (lines where it is no terminal).
        on_metrics: called with every logged line; the place for other sinks.

    Returns:
        A `Result`. Ctrl-C ends training after the running chunk; what was learned so far is judged and returned.

    Raises:
        ConfigError: before anything is compiled.
    """
    assigner = em(config.k, config.n) if assigner is None else assigner
    trainer = make_trainer(env, population, config, assigner)
    folder = None if out is None else open_run(Path(out), describe_run(env, assigner, config), resume)
    history: list[dict[str, Any]] = []
    sinks = [history.append, *([folder.append_metrics] if folder else []), *([on_metrics] if on_metrics else [])]
    with report_progress(progress, config.iterations) as reporter:
        reporter.say("compiling")
        chunk, state, compile_s = _prepare(trainer, config, folder if resume else None)
        if folder and resume:
            history += _keep_metrics(folder, int(state.iteration))
        state, timing = _loop(chunk, state, config, folder, sinks, reporter)
        reporter.say("judging by fresh episodes")
        labels = harden(assigner.weights(state.assignment))
        results = judge(env, population, config, state, labels)
    timing = timing._replace(compile_s=compile_s)
    summary = summarize(env, population, config, assigner, int(state.iteration), *results, timing)
    if folder:
        folder.write_result(summary)
    return Result(state, policies(state), labels, results[0], summary, history)


def describe_run(env: Env, assigner: Assigner, config: TrainConfig) -> dict[str, Any]:
    """What config.json holds."""
    return {
        "env": env.spec.name,
        "env_options": dict(env.spec.options),
        "backend": env.spec.backend,
        "algorithm": assigner.name,
        "train": dump_train_config(config),
    }


def make_chunk(trainer: Trainer) -> Callable[[TrainState, Array], tuple[TrainState, Info]]:
    """`chunk(state, iterations)`: that many iterations in one program; counts of `Info` add up, the rest is the last one's."""

    def chunk(state: TrainState, iterations: Array) -> tuple[TrainState, Info]:
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(trainer.step, state)[1])

        def body(_: Array, carry: tuple[TrainState, Info]) -> tuple[TrainState, Info]:
            state, before = carry
            state, info = trainer.step(state)
            return state, info._replace(
                flips=before.flips + info.flips,
                episodes=before.episodes + info.episodes,
                diverged=before.diverged + info.diverged,
            )

        return jax.lax.fori_loop(0, iterations, body, (state, nothing))

    return chunk


def judge(
    env: Env, population: Population, config: TrainConfig, state: TrainState, labels: Array
) -> tuple[Evaluation, Evaluation]:
    """Fresh episodes, first acting as trained (by samples), then by the modes of the distributions."""
    seed = config.seed + 1  # not the stream that it was trained on
    sampled, modal = (
        evaluate(env, population, config, policies(state), labels, seed=seed, deterministic=deterministic)
        for deterministic in (False, True)
    )
    return sampled, modal


def summarize(
    env: Env,
    population: Population,
    config: TrainConfig,
    assigner: Assigner,
    iterations: int,
    sampled: Evaluation,
    modal: Evaluation,
    timing: Timing,
) -> dict[str, Any]:
    """What result.json holds; welfare, bound and utility in reference units (0..100)."""
    bound = population.upper_bound(config.k)
    bound = None if bound is None else round(env.spec.reference_scale * bound, 4)
    welfare = float(sampled.welfare)
    labels = np.asarray(sampled.assignment)
    return {
        "env": env.spec.name,
        "env_options": dict(env.spec.options),
        "backend": env.spec.backend,
        "algorithm": assigner.name,
        "k": config.k,
        "n": config.n,
        "seed": config.seed,
        "iterations": iterations,
        "finished": iterations >= config.iterations,
        "transitions_per_policy": iterations * config.sizes.transitions,
        "pretraining_transitions": assigner.pretraining,
        "total_transitions": config.k * iterations * config.sizes.transitions + assigner.pretraining,
        "welfare": round(welfare, 4),
        "welfare_standard_error": _number(sampled.standard_error),
        "welfare_deterministic": _number(modal.welfare),
        "upper_bound": bound,
        "share_of_bound": None if not bound else round(welfare / bound, 4),
        "policy_sizes": np.bincount(labels, minlength=config.k).tolist(),
        "episode_length": np.round(np.asarray(sampled.episode_length), 2).tolist(),
        "wall_s": round(timing.wall_s, 2),
        "compile_s": round(timing.compile_s, 2),
        "transitions_per_s": round(timing.transitions / max(timing.wall_s, 1e-9), 1),
        **describe_machine(),
        "assignment": labels.tolist(),
        "utility": np.round(np.asarray(sampled.utility), 4).tolist(),
    }


def _prepare(
    trainer: Trainer, config: TrainConfig, resumed: RunFolder | None
) -> tuple[Callable[..., tuple[TrainState, Info]], TrainState, float]:
    """Compiled chunk, first state, and seconds spent."""
    begun = time.perf_counter()
    key = jax.random.key(config.seed)
    like = jax.eval_shape(trainer.init, key)
    chunk = jax.jit(make_chunk(trainer), donate_argnums=0).lower(like, jax.ShapeDtypeStruct((), jnp.int32)).compile()
    if resumed:
        from rmdp_jax.checkpoint import restore_checkpoint

        state = restore_checkpoint(resumed.checkpoints, like)
    else:
        state = jax.jit(trainer.init)(key)
    jax.block_until_ready(state)
    return chunk, state, time.perf_counter() - begun


def _loop(
    chunk: Callable[..., tuple[TrainState, Info]],
    state: TrainState,
    config: TrainConfig,
    folder: RunFolder | None,
    sinks: list[Sink],
    reporter: Reporter,
) -> tuple[TrainState, Timing]:
    begun = time.perf_counter()
    first = done = saved = int(state.iteration)

    def transitions() -> int:
        return (done - first) * config.k * config.sizes.transitions

    with _interrupts() as interrupted:
        while done < config.iterations and not interrupted.is_set():
            state, info = chunk(state, jnp.int32(min(config.log_every, config.iterations - done)))
            done = int(state.iteration)  # waits for the device
            line = _line(info, done, config, time.perf_counter() - begun, transitions())
            for sink in sinks:
                sink(line)
            reporter.update(line)
            if folder and config.checkpoint_every and done - saved >= config.checkpoint_every:
                _save(folder, state)
                saved = done
    wall_s = time.perf_counter() - begun
    if folder and saved != done:
        _save(folder, state)
    return state, Timing(0.0, wall_s, transitions())


def _save(folder: RunFolder, state: TrainState) -> None:
    from rmdp_jax.checkpoint import save_checkpoint  # orbax takes half a second to import

    save_checkpoint(folder.checkpoints, state)


def _keep_metrics(folder: RunFolder, iteration: int) -> list[dict[str, Any]]:
    """Lines up to the checkpoint; later ones will be made again."""
    lines = [line for line in folder.read_metrics() if line["iteration"] <= iteration]
    folder.write_metrics(lines)
    return lines


def _line(info: Info, iteration: int, config: TrainConfig, wall_s: float, transitions: int) -> dict[str, Any]:
    """One line of metrics.jsonl; lists have one entry a policy."""
    info = jax.device_get(info)
    losses = {name: _list(value) for name, value in info.losses._asdict().items() if name != "loss"}
    return {
        "iteration": iteration,
        "transitions_per_policy": iteration * config.sizes.transitions,
        "wall_s": round(wall_s, 3),
        "transitions_per_s": round(transitions / wall_s, 1),
        "welfare": _number(info.welfare),
        "flips": int(info.flips),
        "softness": _number(info.softness),
        "policy_sizes": info.policy_sizes.tolist(),
        "policy_utility": _list(_mean_utility(info)),
        **losses,
        "episodes": info.episodes.tolist(),
        "diverged": info.diverged.tolist(),
        **_scalar_outcomes(info),
        **_new_assignment(info, first=iteration <= config.log_every),
    }


def _scalar_outcomes(info: Info) -> dict[str, list[float]]:
    """Mean outcome of each policy's steps, those that are one number: speed, pay."""
    leaves = jax.tree_util.tree_leaves_with_path(info.outcome)
    return {"mean" + jax.tree_util.keystr(path).replace(".", "_"): _list(x) for path, x in leaves if x.ndim == 1}


def _new_assignment(info: Info, first: bool) -> dict[str, list[int]]:
    """The assignment where it is news, and small enough for a line of text."""
    news = first or int(info.flips) > 0
    return {"assignment": info.assignment.tolist()} if news and len(info.assignment) <= 1000 else {}


def _mean_utility(info: Info) -> np.ndarray:
    """Mean utility of each policy's own agents (k,)."""
    agents = np.arange(len(info.assignment))
    total = np.bincount(info.assignment, info.utility[info.assignment, agents], minlength=len(info.policy_sizes))
    return total / np.maximum(info.policy_sizes, 1)


def _number(value: Any) -> float:
    return round(float(value), 4)


def _list(values: Any) -> list[float]:
    return [_number(value) for value in np.asarray(values)]


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C sets the event so that the running chunk can end; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals belong to the main thread
        return

    def handle(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
