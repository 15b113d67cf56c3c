"""Draw a body's poses with MuJoCo into an .mp4, .gif or .webp; a program of its own, started by `rendering.py`.

MuJoCo chooses its OpenGL once, when it is imported, and a driver that fails may take the process along. Hence a child
process for every choice that is tried. It imports neither JAX nor anything else of this package.

Usage: python movie.py MODEL.mjb POSES.npy SECONDS_PER_FRAME OUT.mp4|OUT.gif|OUT.webp
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NO_OPENGL = 3  # exit code
HEIGHT, WIDTH = 360, 480
GIF_COLORS = 64
SMALL = 240, 180  # pixels to the right and down of a .webp

Frames = Iterator[np.ndarray]  # (HEIGHT, WIDTH, 3) uint8


def main(model_path: str, poses_path: str, seconds_per_frame: str, out: str) -> None:
    """Draw and write; exit with `NO_OPENGL` where nothing can be drawn."""
    try:
        import mujoco

        model = mujoco.MjModel.from_binary_path(model_path)
        renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
    except Exception as error:  # each kind of OpenGL fails in its own way, some while MuJoCo is imported
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(NO_OPENGL) from None
    with renderer:
        poses = np.load(poses_path)
        times = float(seconds_per_frame) * np.arange(len(poses) + 1)
        WRITERS[Path(out).suffix](out, draw(mujoco, renderer, poses), times)


def draw(mujoco: Any, renderer: Any, poses: np.ndarray) -> Frames:
    """A frame for each of the poses (F, nq), seen from the side by a camera that goes along at constant height."""
    model = renderer.model
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.distance, camera.azimuth, camera.elevation = 4.0, 90.0, -15.0
    height = None
    for pose in poses:
        data.qpos[:] = pose
        mujoco.mj_forward(model, data)
        centre = data.subtree_com[1]  # of the torso and all that hangs on it
        height = centre[2] if height is None else height
        camera.lookat[:] = centre[0], centre[1], height
        renderer.update_scene(data, camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False  # stray ones flicker across the floor
        yield renderer.render()


def write_mp4(out: str, frames: Frames, times: np.ndarray) -> None:
    """By ffmpeg, which has to be installed; `times` (F + 1,) in seconds, evenly spaced, is when each frame begins and ends."""
    import mediapy

    with mediapy.VideoWriter(out, (HEIGHT, WIDTH), fps=1.0 / times[1]) as video:
        for frame in frames:
            video.add_image(frame)


def write_gif(out: str, frames: Frames, times: np.ndarray) -> None:
    """By Pillow, as `write_mp4`. GIF counts in hundredths of a second: the times are rounded, not the durations."""
    from PIL import Image

    first = Image.fromarray(next(frames)).quantize(GIF_COLORS)
    rest = (Image.fromarray(frame).quantize(palette=first, dither=Image.Dither.NONE) for frame in frames)
    milliseconds = 10 * np.diff(np.round(100 * times).astype(int))
    first.save(out, save_all=True, append_images=rest, duration=milliseconds.tolist(), loop=0)


def write_webp(out: str, frames: Frames, times: np.ndarray) -> None:
    """By Pillow, `SMALL` and for ever, a few kB a frame; as `write_mp4`, in thousandths of a second."""
    from PIL import Image

    first, *rest = (Image.fromarray(frame).resize(SMALL, Image.Resampling.LANCZOS) for frame in frames)
    milliseconds = np.diff(np.round(1000 * times).astype(int))
    first.save(out, save_all=True, append_images=rest, duration=milliseconds.tolist(), loop=0, quality=50, method=4)


WRITERS: dict[str, Callable[[str, Frames, np.ndarray], None]] = {".mp4": write_mp4, ".gif": write_gif, ".webp": write_webp}


if __name__ == "__main__":
    main(*sys.argv[1:])
