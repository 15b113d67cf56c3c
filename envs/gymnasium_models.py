"""Gymnasium's v5 models in the place of brax's: `make("ant_speed", model="gymnasium")`.

Read from Gymnasium's own XML files, so they are its bodies to the last contact. Episodes start as there, and policies observe
what they observe there, of Ant without the contact forces; bodies fall by the rules of the task, which are Gymnasium's but for
Ant (below 0.4 m, there 0.2 m). Theirs differ from brax's by the integrator (Runge-Kutta, HalfCheetah Euler), by the iterations
of the solver, by what touches the floor and by the pose in which Ant starts (benchmarks/results/gymnasium.md). Here every
control step starts the solver cold and states are float32, as with brax's. Only C MuJoCo steps them: MJX is off in some states
of Ant (`python -m benchmarks.parity --body ant --model gymnasium`).

Gymnasium itself is not imported: `pip install -c constraints.txt -e '.[gymnasium]'` gets it.
"""

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rmdp_jax.envs.brax_adapter import quiet
from rmdp_jax.errors import ConfigError, not_installed

with quiet():
    import mujoco
    from brax.io import mjcf

FILES = {"halfcheetah": "half_cheetah.xml", "walker2d": "walker2d_v5.xml", "ant": "ant.xml", "hopper": "hopper.xml"}


def with_model(env: Any, body: str) -> Any:
    """A copy of `env`, a brax `PipelineEnv` of a body, with Gymnasium's model of it.

    Raises:
        ConfigError: Gymnasium is not installed, or has no such model.
    """
    found = find_spec("gymnasium")
    if found is None or found.origin is None:
        raise not_installed("model = 'gymnasium'", "gymnasium", "gymnasium", "; or take model = 'brax'")
    path = Path(found.origin).parent / "envs" / "mujoco" / "assets" / FILES[body]
    if not path.exists():
        raise ConfigError(f"model = 'gymnasium': the Gymnasium that is installed has no {FILES[body]}; install 1.2 or newer")
    model = mjcf.load_mjmodel(path)
    _share_anchors(model)
    env = copy.copy(env)
    env.sys = mjcf.load_model(model).replace(init_q=model.qpos0.copy())  # not the <custom> one that Ant's XML has for others
    return env


def _share_anchors(model: mujoco.MjModel) -> None:
    """Slides are put where the hinge of their body is: it moves nothing, and brax's poses know one place a body."""
    for slide in np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_SLIDE):
        beside = (model.jnt_bodyid == model.jnt_bodyid[slide]) & (model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE)
        if beside.any():
            model.jnt_pos[slide] = model.jnt_pos[beside][0]
