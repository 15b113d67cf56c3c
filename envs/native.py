"""One control step of a brax env in MuJoCo: in C on CPU threads ("native"), or in XLA ("mjx").

Both take the place of a brax pipeline and are the same MDP: the same model, positions and velocities (q, qd) as the whole
state, and body poses computed from (q, qd) *after* the step. brax's own mjx pipeline differs in two ways, on purpose not
kept: its poses are those of the start of the last substep, and it starts the contact solver from the forces of the step
before. Here every control step starts the solver cold, so that a state is (q, qd) and nothing else. That takes the solver
iterations of the XML: brax's Ant cuts them to one, which from a cold start leaves errors of 0.3 (median) to 12 in velocities.

In C the substeps of a whole batch are one call of `mujoco.rollout` behind `host_call`; the call never runs JAX.
A state that left the range of numbers MuJoCo accepts comes back as NaN, never reset behind the caller's back.
"""

import copy
import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.envs.brax_adapter import mujoco_quiet, quiet
from rmdp_jax.envs.host_call import host_call
from rmdp_jax.errors import ConfigError
from rmdp_jax.types import Array

with quiet():
    import mujoco
    from brax import base, kinematics
    from mujoco import mjx, rollout

# What a brax env may change after loading its XML (Ant does), and C has to know of.
_OPTIONS = ("timestep", "gravity", "solver", "disableflags", "iterations", "ls_iterations", "tolerance", "ls_tolerance")
# Rounds of MJX's line search. MJX goes through all that a model allows (50 of brax's bodies, 4 of Ant), needed or not: five
# launches in six of a step on a GPU. Two to three are needed (`python -m benchmarks.parity --line-search 50 8 4 2`). C ends by
# itself.
LINE_SEARCH = 8

Advance = Callable[[Array, Array, Array], tuple[Array, Array]]  # q (nq,), qd (nv,), action (nu,) -> q, qd a control step on


def native_env(env, threads: int | None = None):
    """A copy of `env`, a brax `PipelineEnv` made with backend "mjx", that C MuJoCo steps on CPU threads.

    Args:
        env: any brax env that reaches its physics by `pipeline_init` and `pipeline_step` and reads q, qd, x, xd only.
        threads: size of the thread pool; default the CPUs that this process may run on.

    Raises:
        ConfigError: the model has actuator states, which are not carried.
    """
    threads = threads or _usable_cpus()
    return with_advance(env, _c_advance(c_model(xml_iterations(env.sys)), env._n_frames, threads))


def _usable_cpus() -> int:
    """CPUs that this process may run on, where the system says (Linux), else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mjx_env(env):
    """A copy of `env`, a brax `PipelineEnv` made with backend "mjx", the same MDP as `native_env` but in XLA."""
    sys = xml_iterations(env.sys)
    most = min(int(sys.opt.ls_iterations), LINE_SEARCH)
    return with_advance(env, _mjx_advance(sys.tree_replace({"opt.ls_iterations": most}), env._n_frames))


def with_advance(env, advance: Advance):
    """A copy of `env` whose pipeline state is (q, qd) and the poses derived from them, stepped by `advance`."""
    if env.sys.na:
        raise ConfigError(f"backend: {type(env).__name__} has {env.sys.na} actuator states; take a brax backend for it")
    env = copy.copy(env)

    def observe(q: Array, qd: Array) -> base.State:
        return base.State(q, qd, *kinematics.forward(env.sys, _displacements(env.sys, q), qd), contact=None)

    def init(q: Array, qd: Array, act=None, ctrl=None) -> base.State:
        del act, ctrl
        return observe(q, qd)

    def step(state: base.State, action: Array) -> base.State:
        before = jnp.concatenate([state.q, state.qd, action])
        q, qd = advance(state.q, state.qd, action)
        # C replaces a NaN action by zero and mjx keeps it; a broken policy or state has to show, in both.
        broken = ~(jnp.abs(jnp.concatenate([before, q, qd])) < mujoco.mjMAXVAL).all()
        return observe(jnp.where(broken, jnp.nan, q), jnp.where(broken, jnp.nan, qd))

    env.pipeline_init, env.pipeline_step = init, step
    return env


def _displacements(sys, q: Array) -> Array:
    """`q` as brax's kinematics takes it.

    With unit quaternions: resets add noise to them, MuJoCo takes that, brax would stretch the body. And with joints that count
    from the pose of the XML, also where that is at another value (`ref`).
    """
    model = sys.mj_model
    straight = model.jnt_qposadr[np.isin(model.jnt_type, (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE))]
    if model.qpos0[straight].any():
        q = q.at[straight].add(jnp.asarray(-model.qpos0[straight], q.dtype))
    for start in model.jnt_qposadr[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE] + 3:
        rotation = q[start : start + 4]
        q = q.at[start : start + 4].set(rotation / jnp.linalg.norm(rotation))
    return q


def _mjx_advance(sys, frames: int) -> Advance:
    def advance(q: Array, qd: Array, action: Array) -> tuple[Array, Array]:
        data = mjx.make_data(sys)

        def substep(carry, _):
            qpos, qvel, warmstart = carry
            after = mjx.step(sys, data.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=action))
            return (after.qpos, after.qvel, after.qacc_warmstart), None

        (q, qd, _), _ = jax.lax.scan(substep, (q, qd, jnp.zeros_like(qd)), None, frames)
        return q, qd

    return advance


def _c_advance(model: mujoco.MjModel, frames: int, threads: int) -> Advance:
    name = f"rmdp_jax.mujoco.{_fingerprint(model)}.{frames}.{threads}"
    simulate = host_call(name, _simulator(model, frames, threads), model.nq + model.nv)

    def advance(q: Array, qd: Array, action: Array) -> tuple[Array, Array]:
        after = simulate(jnp.concatenate([q, qd, action]).astype(jnp.float32))
        return after[: model.nq], after[model.nq :]

    return advance


def _fingerprint(model: mujoco.MjModel) -> str:
    """Equal models have equal ones, in every process."""
    saved = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, saved)
    return hashlib.sha256(saved.tobytes()).hexdigest()[:16]


def xml_iterations(sys):
    """`sys` with at least the solver iterations that its XML asks for."""
    iterations = max(int(sys.opt.iterations), int(sys.mj_model.opt.iterations))
    return sys.tree_replace({"opt.iterations": iterations})


def c_model(sys, autoreset: bool = False) -> mujoco.MjModel:
    """The C model behind a brax system, with the options that the env set after loading it."""
    model = copy.copy(sys.mj_model)
    for name in _OPTIONS:
        value = np.asarray(getattr(sys.opt, name))
        setattr(model.opt, name, value if value.ndim else value.item())
    # Without this flag MuJoCo puts a diverged state back to the start and nobody would know.
    if not autoreset:
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def _simulator(model: mujoco.MjModel, frames: int, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Function (..., nq+nv+nu) -> (..., nq+nv), float32: `frames` substeps of every row, with rows spread over threads."""
    state_size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    width = model.nq + model.nv
    if state_size != 1 + width:
        raise ConfigError("backend = 'native': the model has states besides time, positions and velocities (plugins?)")
    data = [mujoco.MjData(model) for _ in range(threads)]

    def simulate(packed) -> np.ndarray:
        packed = np.asarray(packed)
        rows = packed.reshape(-1, packed.shape[-1])
        batch = rows.shape[0]
        start = np.zeros((batch, state_size))
        start[:, 1:] = rows[:, :width]
        control = np.repeat(rows[:, None, width:].astype(np.float64), frames, axis=1)
        states = np.empty((batch, frames, state_size))
        sensors = np.empty((batch, frames, model.nsensordata))
        pool, lock = _pool(threads)
        with lock, mujoco_quiet():  # XLA may run independent callbacks of one program at once, and `data` is shared
            pool.rollout(
                [model] * batch, data, start, control, state=states, sensordata=sensors, nstep=frames, skip_checks=True
            )
        with np.errstate(over="ignore"):  # a diverged state may not fit; infinity is reported as NaN like the rest
            after = states[:, -1, 1:].astype(np.float32)
        return after.reshape(*packed.shape[:-1], width)

    return simulate


@cache
def _pool(threads: int) -> tuple[rollout.Rollout, threading.Lock]:
    """One pool a process, however many envs are made; no extra thread where there is one CPU only."""
    return rollout.Rollout(nthread=threads if threads > 1 else 0), threading.Lock()
