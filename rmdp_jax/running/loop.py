"""The host loop over compiled chunks of iterations, of one run or of several in one program."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from rmdp_jax.devices.mesh import everywhere, on_mesh, tracing_on
from rmdp_jax.devices.processes import anyone, wait_for_all
from rmdp_jax.env import Env
from rmdp_jax.errors import ConfigError
from rmdp_jax.info import Info
from rmdp_jax.programs import find, keep, kept_program
from rmdp_jax.records.given import load_members
from rmdp_jax.records.lines import Timing, metrics_line, recent_welfare
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.records.writer import RunWriter, common_step
from rmdp_jax.running.batch import (
    alike,
    init_arguments,
    made_of,
    make_init,
    over_runs,
    people_of,
    stack,
    trainer_for,
    unstack,
)
from rmdp_jax.running.cache import seconds_saved
from rmdp_jax.running.faults import FaultWatch
from rmdp_jax.running.interrupts import BACKGROUND, aside, interrupts
from rmdp_jax.running.layout import laid_out, shardings_of
from rmdp_jax.running.memory import available_memory, check_memory, estimate_memory, kept_bytes
from rmdp_jax.running.progress import Reporter
from rmdp_jax.trainer import Trainer, TrainState
from rmdp_jax.types import Array, PyTree

# Of `Info`, that add up.
COUNTS = ("flips", "copies", "recovered", "episodes", "diverged", "nonfinite_rewards", "paid", "ended", "steps")

Chunk = Callable[[TrainState, Array], tuple[TrainState, Info]]  # states, iterations -> states, infos; runs stacked


def learn(
    env: Env,
    runs: Sequence[RunSpec],
    reporter: Reporter,
    writers: Sequence[RunWriter] = (),
    *,
    mesh: Mesh | None = None,
    resume: bool = False,
) -> tuple[TrainState, Timing]:
    """Train all runs, which `check_batch` approved, in one program.

    Args:
        env, runs: as of `train_batch`.
        reporter: shows progress.
        writers: where each run is written down; nowhere when not given.
        mesh: of `choose_mesh`; one device when not given.
        resume: go on from the latest checkpoints of the writers.

    Returns:
        The last states, stacked, and how long it took. Ctrl-C, and its like, leaves the states unfinished; in one of several
        processes it ends all of them after the same chunk. So does StopIteration from a writer's `on_metrics`; any other
        exception there is raised when the states are saved.

    Raises:
        ConfigError: the checkpoints do not fit, are damaged or have no iteration in common, or there is not enough memory.
    """
    writers = writers or [RunWriter() for _ in runs]
    begun, saved_before = time.perf_counter(), seconds_saved()
    chunk, states, first = _prepare(env, runs, mesh, writers if resume else None, reporter)
    compile_s, saved_s = time.perf_counter() - begun, seconds_saved() - saved_before
    reporter.say(f"compiled in {compile_s:.1f} s" + (f", {saved_s:.0f} s less by the cache" if saved_s else ""))
    watches = [FaultWatch(env.spec, run.config, reporter.warn, first, _name_of(run) if len(runs) > 1 else "") for run in runs]
    if first == 0 and any(run.given.sources for run in runs):
        _save(writers, states, first)  # so that going on does not take the folders of those runs
    states, timing = _loop(env, chunk, states, first, runs, writers, watches, reporter)
    return states, timing._replace(compile_s=compile_s, devices=1 if mesh is None else mesh.size)


def make_chunk(trainer: Trainer) -> Chunk:
    """`chunk(state, iterations)`: that many iterations in one program; counts of `Info` add up, the rest is the last one's."""

    step = jax.jit(trainer.step, inline=True)  # the same program, but traced once for its shapes and for the loop

    def chunk(state: TrainState, iterations: Array) -> tuple[TrainState, Info]:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, state)[1])

        def body(_: Array, carry: tuple[TrainState, Info]) -> tuple[TrainState, Info]:
            state, before = carry
            state, info = step(state)
            return state, info._replace(
                **{name: getattr(before, name) + getattr(info, name) for name in COUNTS},
            )

        return jax.lax.fori_loop(0, iterations, body, (state, zeros))

    return chunk


def compile_side_by_side(*programs: Lowered) -> list[Compiled]:
    """All of them in the time of the longest, where there are as many cores: XLA takes one for much of a program."""
    threads = ThreadPoolExecutor(max(len(programs), 1), thread_name_prefix=BACKGROUND + "compile")
    try:
        return list(threads.map(lambda program: program.compile(), programs))
    finally:
        threads.shutdown(wait=False)  # who is interrupted does not wait for XLA


def _prepare(
    env: Env, runs: Sequence[RunSpec], mesh: Mesh | None, resumed: Sequence[RunWriter] | None, reporter: Reporter
) -> tuple[Chunk, TrainState, int]:
    """Compiled chunk, states to go on from, and their iteration."""
    number, people, first = len(runs), people_of(runs), runs[0]
    trainer_for(env, first, people_of(runs[:1]))  # raises ConfigError
    parts, init, chunk = made_of(env, runs, mesh), make_init(env, first), _chunk_of_run(env, alike(first))
    like = kept_program(
        "state", parts, lambda: jax.eval_shape(init, people_of(runs[:1]), jax.eval_shape(lambda: init_arguments(first)))
    )
    kept_size = kept_bytes(env, first.config, first.config.evaluation_episodes)
    memory = estimate_memory(like, env.spec, first.population.agents, first.config, number, kept_size)
    reporter.note(check_memory(memory, available_memory(mesh), first.config, number))
    reporter.say("compiling")
    like = laid_out(mesh, like)
    states = _restore(resumed, like) if resumed else None  # before compiling, as it may be refused
    given = [load_members(env, run.config, run.given) if states is None else None for run in runs]
    all_states, whole = laid_out(mesh, like, number), everywhere(mesh)
    shardings = shardings_of(all_states)
    wanted: dict[str, Callable[[], Lowered]] = {}

    def lower_chunk() -> Lowered:
        placed = on_mesh(mesh, in_shardings=(whole, shardings, whole), out_shardings=(shardings, whole))
        chunks = jax.jit(over_runs(chunk, number, (0, 0, None)), donate_argnums=1, **placed)
        with tracing_on(mesh):
            return chunks.lower(people, all_states, jax.ShapeDtypeStruct((), jnp.int32))

    wanted["chunk"] = lower_chunk
    if states is None:
        arguments = stack([init_arguments(run, members) for run, members in zip(runs, given, strict=True)])
        inits = jax.jit(over_runs(init, number), **on_mesh(mesh, out_shardings=shardings))
        wanted["init"] = lambda: inits.lower(people, arguments)
    compiled = _compiled(wanted, parts)
    if states is None:
        states = compiled["init"](people, arguments)
    elif number > 1 and mesh is not None:  # stacking lost their shardings
        states = jax.jit(lambda states: states, out_shardings=shardings)(states)
    jax.block_until_ready(states)
    return partial(compiled["chunk"], people), states, int(states.iteration.max())


def _name_of(run: RunSpec) -> str:
    """What distinguishes a run from those that are trained with it."""
    return f"seed {run.config.seed}: " if run.out is None else f"{Path(run.out).name}: "


def _chunk_of_run(env: Env, run: RunSpec) -> Callable[[PyTree, TrainState, Array], tuple[TrainState, Info]]:
    def chunk(people: PyTree, state: TrainState, iterations: Array) -> tuple[TrainState, Info]:
        return make_chunk(trainer_for(env, run, people))(state, iterations)

    return chunk


def _compiled(wanted: Mapping[str, Callable[[], Lowered]], parts: Any) -> dict[str, Compiled]:
    """The `wanted` programs, made of these `parts`; those that are not kept are lowered and compiled."""
    known = {name: find(name, parts) for name in wanted}
    missing = {name: lower() for name, lower in wanted.items() if known[name] is None}
    for name, program in zip(missing, compile_side_by_side(*missing.values()), strict=True):
        known[name] = keep(name, parts, program)
    return known


def _restore(writers: Sequence[RunWriter], like: TrainState) -> TrainState | None:
    """The states of the latest iteration that all runs have, stacked, or nothing where they have to begin."""
    step = common_step(writers)
    states = [] if step is None else [writer.restore(like, step) for writer in writers]
    wait_for_all("restored")  # as later checkpoints are removed
    for writer in writers:
        writer.rewind_to(step or 0)
    return stack(states) if states else None


def _loop(
    env: Env,
    chunk: Chunk,
    states: TrainState,
    first: int,
    runs: Sequence[RunSpec],
    writers: Sequence[RunWriter],
    watches: Sequence[FaultWatch],
    reporter: Reporter,
) -> tuple[TrainState, Timing]:
    config, number = runs[0].config, len(runs)
    begun = time.perf_counter()
    done = saved = first

    def transitions() -> int:
        return (done - first) * config.k * config.sizes.transitions * number

    failure: Exception | None = None
    with interrupts() as interrupted:
        while done < config.iterations and not anyone(interrupted.is_set()):
            iterations = min(config.log_every, config.iterations - done)
            states, stacked = chunk(states, jnp.int32(iterations))
            aside(jax.block_until_ready, stacked)
            infos = unstack(jax.device_get(stacked), number)
            done += iterations
            wall_s = time.perf_counter() - begun
            lines = [
                metrics_line(info, done, config, wall_s, transitions(), recent_welfare(env, run, info))
                for run, info in zip(runs, infos, strict=True)
            ]
            failure = _hand_on(writers, watches, lines, interrupted)
            reporter.update(lines)
            if config.checkpoint_every and done - saved >= config.checkpoint_every:
                saved = _save(writers, states, done)
        wall_s = time.perf_counter() - begun
        if saved != done:
            _save(writers, states, done)
    if failure is not None:
        with suppress(ConfigError):  # which is the failure itself, most likely
            for writer in writers:
                writer.make_up()
        raise failure
    return states, Timing(0.0, wall_s, transitions(), number)


def _hand_on(
    writers: Sequence[RunWriter], watches: Sequence[FaultWatch], lines: Sequence[dict[str, Any]], interrupted: Event
) -> Exception | None:
    """Write and tell the lines. What fails ends training, and is raised when the state is saved; StopIteration just ends it."""
    try:
        for writer, line in zip(writers, lines, strict=True):
            writer.add(line)
        for writer, line in zip(writers, lines, strict=True):
            writer.tell(line)
        for watch, line in zip(watches, lines, strict=True):
            watch.read(line)
    except StopIteration:
        interrupted.set()
    except Exception as error:
        interrupted.set()
        return error
    return None


def _save(writers: Sequence[RunWriter], states: TrainState, done: int) -> int:
    for writer, state in zip(writers, unstack(states, len(writers)), strict=True):
        writer.save(state)
    return done
