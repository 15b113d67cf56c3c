"""Watch a policy live: episodes of a speed task in MuJoCo's own viewer, in real time, until its window is closed."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from rmdp_jax.env import guard
from rmdp_jax.envs.brax_adapter import from_brax, quiet
from rmdp_jax.envs.speed import TASKS, body_of, is_body
from rmdp_jax.errors import SEEDS, ConfigError, seed_number, whole_number
from rmdp_jax.policies.model import make_act
from rmdp_jax.records.files import reason_of
from rmdp_jax.records.loading import Run

with quiet():
    import mujoco

# In a process of its own, as a driver that fails may take it along. MuJoCo's viewer would wait for ever for its window.
_OPENS_WINDOW = """
import glfw, sys
if not glfw.init():
    sys.exit(1)
glfw.window_hint(glfw.VISIBLE, False)
sys.exit(not glfw.create_window(8, 8, "", None, None))
"""


class Viewer(Protocol):
    """What is used of MuJoCo's passive viewer."""

    def is_running(self) -> bool:
        """Whether its window is open."""

    def lock(self) -> AbstractContextManager:
        """Held while model or data change."""

    def sync(self) -> None:
        """Show the data as they are."""

    def close(self) -> None:
        """Close the window."""


Launch = Callable[[Any, Any], Viewer]  # mujoco.MjModel, mujoco.MjData


def check_task(name: str, folder: Path) -> None:
    """Raise `ConfigError` where the env of this name, of the run in `folder`, is no body that MuJoCo could show."""
    if name not in TASKS:
        raise _no_body(name, folder)


def _no_body(name: str, folder: Path) -> ConfigError:
    return ConfigError(f"{name} has no body to show; `rmdp-jax report {folder}` draws the pictures it has")


def check_display(folder: Path, policy: int) -> None:
    """Raise `ConfigError` where no window opens here; it says how to see the `policy` of the run in `folder` all the same."""
    done = subprocess.run([sys.executable, "-P", "-c", _OPENS_WINDOW], capture_output=True, check=False)
    if done.returncode:
        way_out = f"for a page and a movie: rmdp-jax render {shlex.quote(str(folder))} --policy {policy}"
        raise ConfigError(f"there is no display here to open a window on; {way_out}")


def play_run(
    run: Run,
    policy: int,
    *,
    deterministic: bool = True,
    seed: int = 0,
    launch: Launch | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a policy in MuJoCo's viewer, one fresh episode after the other, until the window is closed.

    Acting by the most likely action, the first episode is that of `render_run` with the same seed.

    Args:
        run: of a speed task.
        policy: 0..k-1.
        deterministic: act by the most likely action instead of a sample.
        seed: of the first episode; the next are those of the next seeds.
        launch: opens a viewer; MuJoCo's passive one when not given.
        sleep: waits for so many seconds.

    Raises:
        ConfigError: the task has no body, `policy` or `seed` is out of range, or the viewer does not open.
    """
    name, k = run.env.spec.name, run.config.k
    if not is_body(run.env.spec):
        raise _no_body(name, run.folder.path)
    if run.env.for_agent is not None:
        raise ConfigError(f"algorithm = {run.result['algorithm']!r}: play shows policies that are not told for whom they act")
    policy = whole_number("policy", policy, 0, k - 1, f"a whole number in 0..{k - 1}, as the run has k = {k} policies")
    seed = seed_number("seed", seed)
    brax_env = body_of(run.env.spec)
    model = brax_env.sys.mj_model
    data = mujoco.MjData(model)
    poses = make_poses(run, brax_env, policy, deterministic, seed)
    first = next(poses)  # compiled before there is a window, which would stand still meanwhile
    viewer = (launch or partial(open_viewer, run.folder.path, policy))(model, data)
    try:
        show(viewer, model, data, chain([first], poses), float(brax_env.dt), sleep)
    finally:
        viewer.close()


def make_poses(run: Run, brax_env: Any, policy: int, deterministic: bool, seed: int) -> Iterator[np.ndarray]:
    """Positions (nq,) before each step of one episode after the other, without end: those of `seed`, `seed` + 1, ..."""

    def position(before: Any, after: Any) -> jax.Array:
        del after  # it may have diverged
        return before.pipeline_state.q

    spec = run.env.spec
    length, discount = spec.episode_length, spec.discount
    env = guard(from_brax(brax_env, position, name=spec.name, episode_length=length, discount=discount, backend=spec.backend))
    reset, advance, act = jax.jit(env.reset), jax.jit(env.step), make_act(run.env, run.config)
    for episode in count(seed):
        key = jax.random.split(jax.random.key(episode % SEEDS), run.config.k)[policy]
        start_key, noise_key = jax.random.split(key)
        state, obs = reset(jax.random.split(start_key, 1)[0])
        for noise in repeat(None) if deterministic else jax.random.split(noise_key, length):
            state, step = advance(state, act(run.policies, policy, obs, noise))
            yield np.asarray(step.outcome)
            obs = step.obs
            if step.terminated | step.truncated:
                break


def show(
    viewer: Viewer, model: Any, data: Any, poses: Iterable[np.ndarray], seconds: float, sleep: Callable[[float], None]
) -> None:
    """Show each of the poses (nq,) for `seconds`, or longer where the next one takes longer, until the viewer is closed."""
    due = time.perf_counter()
    for q in poses:
        if not viewer.is_running():
            return
        with viewer.lock():
            data.qpos[:] = q
            mujoco.mj_forward(model, data)
        viewer.sync()
        due = max(due + seconds, time.perf_counter())
        sleep(due - time.perf_counter())


def open_viewer(folder: Path, policy: int, model: Any, data: Any) -> Viewer:
    """MuJoCo's passive viewer; `folder` and `policy` are named by the `ConfigError` of one that does not open."""
    from mujoco import viewer

    check_display(folder, policy)
    try:
        return viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
    except RuntimeError as error:
        way_out = f"on macOS start it by mjpython -m rmdp_jax play {shlex.quote(str(folder))} --policy {policy}"
        raise ConfigError(f"the viewer does not open ({reason_of(error)}); {way_out}") from error
