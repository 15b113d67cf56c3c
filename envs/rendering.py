"""Watch a policy: one episode of a speed task as a brax HTML page, and as a movie drawn by MuJoCo where that works."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np

from rmdp_jax.envs import movie
from rmdp_jax.envs.brax_adapter import from_brax, quiet
from rmdp_jax.envs.speed import body_of, is_body
from rmdp_jax.errors import ConfigError, real_number, seed_number, whole_number
from rmdp_jax.evaluation.evaluate import make_record
from rmdp_jax.records.loading import Run

with quiet():
    import mujoco
    from brax import base
    from brax.io import html

FRAMES_PER_S = 30  # at most about; a frame is a whole number of steps
LONGEST = 60.0  # seconds, which bounds the size of all files

GET_FFMPEG = "there is no ffmpeg (Debian, Ubuntu: apt install ffmpeg)"
GET_OPENGL = (
    "MuJoCo found no OpenGL to draw with, tried MUJOCO_GL={tried} (Debian, Ubuntu: apt install libegl1 libgl1 libgl1-mesa-dri)"
)


class Rendered(NamedTuple):
    """What `render_run` wrote."""

    page: Path  # HTML; its viewer comes from the net, so that a browser has to be online
    movie: Path | None  # .mp4, or .gif without ffmpeg
    missing: str | None  # why there is no mp4 and how to get it, one line


class Poses(NamedTuple):
    """How a body stands, float32; F frames of it in a recording."""

    q: jax.Array  # (nq,), generalised position
    position: jax.Array  # (links, 3), m
    rotation: jax.Array  # (links, 4), unit quaternions


def render_run(
    run: Run, policy: int, *, deterministic: bool = True, seed: int = 0, seconds: float = 10.0, folder: Path | None = None
) -> Rendered:
    """Write policy_J.html and policy_J.mp4 (or .gif): one fresh episode, played back in real time.

    Args:
        run: of a speed task.
        policy: 0..k-1.
        deterministic: act by the most likely action instead of a sample.
        seed: of the episode.
        seconds: of the episode to show, unless it ends before.
        folder: to write into; the run's own when not given.

    Raises:
        ConfigError: the task has no body, or `policy` or `seconds` is out of range.
    """
    name, k = run.env.spec.name, run.config.k
    if not is_body(run.env.spec):
        raise ConfigError(f"{name} has no body to render; `rmdp-jax report {run.folder.path}` draws the pictures it has")
    if run.env.for_agent is not None:
        raise ConfigError(f"algorithm = {run.result['algorithm']!r}: render shows policies that are not told for whom they act")
    policy = whole_number("policy", policy, 0, k - 1, f"a whole number in 0..{k - 1}, as the run has k = {k} policies")
    rule = f"a number above 0, at most {LONGEST:g}"
    seconds, seed = real_number("seconds", seconds, lambda x: 0.0 < x <= LONGEST, rule), seed_number("seed", seed)
    brax_env = body_of(run.env.spec)
    stride = max(1, round(1.0 / (FRAMES_PER_S * float(brax_env.dt))))
    poses = record_poses(run, brax_env, policy, deterministic, seed, seconds)
    frames = jax.tree.map(lambda x: x[::stride], poses)
    seconds_per_frame = stride * float(brax_env.dt)

    folder = folder or run.folder.path
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"policy_{policy}.html"
    page.write_text(draw_page(brax_env.sys, frames, seconds_per_frame), encoding="utf-8")
    return Rendered(page, *write_movie(brax_env.sys.mj_model, frames.q, seconds_per_frame, page.with_suffix("")))


def record_poses(run: Run, brax_env: Any, policy: int, deterministic: bool, seed: int, seconds: float) -> Poses:
    """The poses before each step of one episode, leaves (F, ...) as numpy arrays; all finite."""
    return record_every(run, brax_env, deterministic, seed, seconds)[policy]


def record_every(run: Run, brax_env: Any, deterministic: bool, seed: int, seconds: float) -> list[Poses]:
    """`record_poses` of each of the k policies, by one program."""

    def pose(before: Any, after: Any) -> Poses:
        del after  # it may have diverged
        state = before.pipeline_state
        return Poses(state.q, state.x.pos, state.x.rot)

    spec = run.env.spec
    env = from_brax(
        brax_env,
        pose,
        name=spec.name,
        episode_length=min(spec.episode_length, max(1, round(seconds / float(brax_env.dt)))),
        discount=spec.discount,
        backend=spec.backend,
    )
    record = jax.jit(make_record(env, run.config, deterministic=deterministic))
    played = jax.device_get(record(run.policies, jax.random.key(seed)))
    return [jax.tree.map(lambda x, j=j: x[j][played.alive[j]], played.step.outcome) for j in range(run.config.k)]


def has_body(run: Run) -> bool:
    """Whether the policies of `run` move a body that can be drawn, and do so without being told for whom."""
    return is_body(run.env.spec) and run.env.for_agent is None


def animate_run(run: Run, seconds: float, frames_per_s: float) -> tuple[list[bytes], str | None]:
    """A small animated WebP of each policy of a run that `has_body`, acting by its most likely actions, in real time.

    Returns:
        One a policy, or none and why, where nothing can be drawn.
    """
    brax_env = body_of(run.env.spec)
    stride = max(1, round(1.0 / (frames_per_s * float(brax_env.dt))))
    films = []
    with TemporaryDirectory() as scratch:
        for j, poses in enumerate(record_every(run, brax_env, True, 0, seconds)):
            out = Path(scratch) / f"policy_{j}.webp"
            failure = _film(brax_env.sys.mj_model, np.asarray(poses.q[::stride]), stride * float(brax_env.dt), out)
            if failure:
                return [], failure
            films.append(out.read_bytes())
    return films, None


def draw_page(system: Any, frames: Poses, seconds_per_frame: float) -> str:
    """An HTML page with brax's viewer, in which the frames follow each other in `seconds_per_frame`."""
    plane = np.asarray(system.geom_type) == mujoco.mjtGeom.mjGEOM_PLANE
    shown = system.tree_replace({"opt.timestep": np.float32(seconds_per_frame)})
    # A plane of size 0 is endless, and a chequerboard on which one sees that the body moves.
    shown = shown.replace(geom_size=np.where(plane[:, None], 0.0, system.geom_size))
    position, rotation = (np.round(x.astype(np.float64), 4) for x in (frames.position, frames.rotation))  # shorter digits
    states = [base.State(None, None, base.Transform(*pose), None, None) for pose in zip(position, rotation, strict=True)]
    return html.render(shown, states, height="100vh", colab=False)


def write_movie(model: mujoco.MjModel, q: np.ndarray, seconds_per_frame: float, stem: Path) -> tuple[Path | None, str | None]:
    """Draw the poses q (F, nq); the movie's path, or None, and why there is no mp4, or None."""
    import mediapy

    for suffix in movie.WRITERS:
        stem.with_suffix(suffix).unlink(missing_ok=True)  # of an earlier call
    missing = None if mediapy.video_is_available() else GET_FFMPEG
    out = stem.with_suffix(".gif" if missing else ".mp4")
    failure = _film(model, q, seconds_per_frame, out)
    if failure and "Unknown encoder" in failure:
        missing = "ffmpeg has no H.264 encoder (Debian, Ubuntu: apt install ffmpeg)"
        out.unlink(missing_ok=True)
        out = stem.with_suffix(".gif")
        failure = _film(model, q, seconds_per_frame, out)
    if failure:
        out.unlink(missing_ok=True)  # half a movie
        return None, f"no mp4: {failure}"
    return out, missing and f"no mp4 but a gif: {missing}"


def _film(model: mujoco.MjModel, q: np.ndarray, seconds_per_frame: float, out: Path) -> str | None:
    """Draw the poses q (F, nq) into the file `out`; what went wrong, or None."""
    with TemporaryDirectory() as scratch:
        model_path, poses_path = (str(Path(scratch) / name) for name in ("model.mjb", "poses.npy"))
        mujoco.mj_saveModel(_plain_floor(model), model_path, None)
        np.save(poses_path, q)
        return _draw([model_path, poses_path, str(seconds_per_frame), str(out)])


def _draw(arguments: list[str]) -> str | None:
    """Run `movie.py` with the first OpenGL that works; what went wrong, or None."""
    tried = _opengl()
    for opengl in tried:
        command = [sys.executable, "-P", movie.__file__, *arguments]
        done = subprocess.run(command, env={**os.environ, "MUJOCO_GL": opengl}, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return None
        if done.returncode > 0 and done.returncode != movie.NO_OPENGL:  # below 0: a driver that crashed
            return f"drawing failed ({(done.stderr.strip().splitlines() or ['no reason given'])[-1]})"
    return GET_OPENGL.format(tried=", ".join(tried))


def working_opengl() -> tuple[str | None, str | None]:
    """The value of MUJOCO_GL by which MuJoCo draws here, or None and what to install; tries each in a process of its own."""
    tried = _opengl()
    program = "import mujoco as m; m.Renderer(m.MjModel.from_xml_string('<mujoco><worldbody/></mujoco>'), 8, 8).render()"
    for opengl in tried:
        environment = {**os.environ, "MUJOCO_GL": opengl}
        done = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, check=False)
        if done.returncode == 0:
            return opengl, None
    return None, GET_OPENGL.format(tried=", ".join(tried))


def _opengl() -> list[str]:
    """Values of MUJOCO_GL to try in turn: what the user set, else those that need no screen."""
    if given := os.environ.get("MUJOCO_GL"):
        return [given]
    return ["egl", "osmesa", "glfw"] if sys.platform == "linux" else ["glfw"]


def _plain_floor(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of `model` with an endless floor of half-metre squares in pale colours, without reflections, which are slow."""
    model = copy.copy(model)
    plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    model.geom_size[plane, :2] = 0.0
    model.geom_rgba[plane, :3] = 0.9
    model.mat_texuniform[:] = 1
    model.mat_texrepeat[:] = 1.0
    model.mat_reflectance[:] = 0.0
    model.tex_data[:] = 144 + model.tex_data // 4
    return model
