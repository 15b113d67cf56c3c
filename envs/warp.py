"""One control step of a brax env in MuJoCo Warp, through MJX: the same MDP as `native.py`, by CUDA kernels written for batches.

All environments of all policies are one batch of worlds, whatever the number of `vmap`s around a step. Room for contacts and
constraints is what MJX in XLA reserves for every contact that a model can have, so it does not run out; a step with more
constraints would be reported as diverged.
"""

from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from rmdp_jax.envs.brax_adapter import quiet
from rmdp_jax.envs.native import Advance, c_model, with_advance, xml_iterations
from rmdp_jax.errors import ConfigError, not_installed
from rmdp_jax.types import Array

with quiet():
    from mujoco import mjx


def warp_env(env: Any) -> Any:
    """A copy of `env`, a brax `PipelineEnv` made with backend "mjx", that MuJoCo Warp steps.

    Raises:
        ConfigError: warp-lang is not installed, JAX runs on neither a CUDA device nor a CPU, or the model has actuator states.
    """
    if find_spec("warp") is None:
        raise not_installed("backend = 'warp'", "warp-lang", "warp", "; or take backend = 'mjx'")
    if jax.default_backend() not in ("cpu", "gpu"):
        raise ConfigError(f"backend = 'warp': runs on CUDA devices, not on {jax.default_backend()}; take backend = 'mjx'")
    return with_advance(env, _warp_advance(xml_iterations(env.sys), env._n_frames))


def _warp_advance(sys: Any, frames: int) -> Advance:
    model = c_model(sys, autoreset=True)  # warp knows no autoreset, and MJX refuses the flag against it
    room = mjx.make_data(sys, impl="jax")._impl
    contacts, constraints = room.contact.dist.shape[0], room.efc_J.shape[0]
    stepped = _silent(mjx.put_model(model, impl="warp", graph_mode=_graph_mode()))
    nq, nv = model.nq, model.nv

    def advance_worlds(packed: Array) -> Array:
        """(B, nq + nv + nu) -> (B, nq + nv)."""
        blank = mjx.make_data(model, impl="warp", naconmax=max(contacts, 1) * len(packed), njmax=max(constraints, 1))
        begin = lambda row: blank.replace(qpos=row[:nq], qvel=row[nq : nq + nv], ctrl=row[nq + nv :])  # noqa: E731
        worlds = jax.vmap(begin)(packed)

        def substep(worlds: Any, _: None) -> tuple[Any, Array]:
            worlds = jax.vmap(mjx.step, in_axes=(None, 0))(stepped, worlds)
            return worlds, worlds._impl.nefc.reshape(len(packed)) > constraints

        worlds, full = jax.lax.scan(substep, worlds, None, frames)
        after = jnp.concatenate([worlds.qpos, worlds.qvel], 1)
        return jnp.where(full.any(0)[:, None], jnp.nan, after)

    @custom_vmap
    def advance_all(packed: Array) -> Array:
        """(..., nq + nv + nu) -> (..., nq + nv)."""
        return advance_worlds(packed.reshape(-1, packed.shape[-1])).reshape(*packed.shape[:-1], nq + nv)

    @advance_all.def_vmap
    def _(axis_size: int, in_batched: Any, packed: Array) -> tuple[Array, bool]:
        del axis_size, in_batched  # there is one argument, its mapped axis is the first
        return advance_all(packed), True

    def advance(q: Array, qd: Array, action: Array) -> tuple[Array, Array]:
        after = advance_all(jnp.concatenate([q, qd, action]))
        return after[:nq], after[nq:]

    return advance


def _graph_mode() -> Any:
    """Warp replays its CUDA graph whatever buffers XLA hands it; captured anew for each, steps take three times as long."""
    from mujoco.mjx.warp.types import GraphMode

    return GraphMode.WARP_STAGED_EX if jax.default_backend() == "gpu" else GraphMode.NONE


def _silent(model: Any) -> Any:
    """`model` without a line printed by every world whose solver takes all its iterations, which is most of them."""
    options = model.opt
    return model.replace(opt=options.replace(_impl=options._impl.replace(warn_overflow=0)))
