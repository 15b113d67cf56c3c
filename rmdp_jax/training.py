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

from rmdp_jax.assign import Assigner, em, harden
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, Population
from rmdp_jax.evaluate import Evaluation, evaluate
from rmdp_jax.info import Info
from rmdp_jax.model import Policies
from rmdp_jax.progress import Reporter, report_progress
from rmdp_jax.records import Timing, describe_run, metrics_line, summarize
from rmdp_jax.runs import RunFolder, open_run
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
        if not timing.transitions:  # a finished run was resumed: judged anew, nothing trained
            summary |= folder.previous_timing()
        folder.write_result(summary)
    return Result(state, policies(state), labels, results[0], summary, history)


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


def _prepare(
    trainer: Trainer, config: TrainConfig, resumed: RunFolder | None
) -> tuple[Callable[..., tuple[TrainState, Info]], TrainState, float]:
    """Compiled chunk, first state, and seconds spent."""
    begun = time.perf_counter()
    key = jax.random.key(config.seed)
    like = jax.eval_shape(trainer.init, key)
    state = _restore(resumed, like) if resumed else None  # before compiling, as it may be refused
    chunk = jax.jit(make_chunk(trainer), donate_argnums=0).lower(like, jax.ShapeDtypeStruct((), jnp.int32)).compile()
    if state is None:
        state = jax.jit(trainer.init)(key)
    jax.block_until_ready(state)
    return chunk, state, time.perf_counter() - begun


def _restore(folder: RunFolder, like: TrainState) -> TrainState | None:
    """The latest state, or nothing where the run ended before its first checkpoint."""
    from rmdp_jax.checkpoint import has_checkpoint, restore_checkpoint

    return restore_checkpoint(folder.checkpoints, like) if has_checkpoint(folder.checkpoints) else None


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
            line = metrics_line(info, done, config, time.perf_counter() - begun, transitions())
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


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C, a closed terminal or a scheduler's SIGTERM set the event, so that the running chunk can end; a second kills."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals belong to the main thread
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:
        event.set()
        restore()

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]  # nohup ignores some
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield event
    finally:
        restore()
