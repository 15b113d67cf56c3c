"""`rmdp-jax play`: what the viewer is shown, and what is refused where there is nothing to see, or no display."""

import contextlib
import re
import time
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import tiny
from tiny import make_tiny

from rmdp_jax import ConfigError, Sizes, TrainConfig, plain_em, train
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make, viewing
from rmdp_jax.envs.rendering import record_poses
from rmdp_jax.envs.speed import load_body
from rmdp_jax.envs.viewing import check_display, play_run
from rmdp_jax.records.loading import load_run

pytestmark = pytest.mark.slow

LENGTH = 12  # steps of an episode
SIZES = Sizes(environments=2, unroll=16, epochs=1, minibatches=1, hidden=(8,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cheetah that has learned nothing."""
    path = tmp_path_factory.mktemp("runs") / "cheetah"
    env, population = make("halfcheetah_speed", n=2, backend="native", episode_length=LENGTH)
    config = TrainConfig(k=2, n=2, transitions=2 * SIZES.transitions, evaluation_episodes=2, sizes=SIZES)
    train(env, population, config, plain_em(2, 2), out=path, progress=False)
    return load_run(path, make)


class FakeViewer:
    """Keeps what it is shown; its window is closed after so many frames."""

    def __init__(self, frames):
        self.frames, self.shown, self.heights, self.locked, self.closed = frames, [], [], False, False

    def __call__(self, model, data):
        assert isinstance(model, mujoco.MjModel)
        self.data = data
        return self

    def is_running(self):
        return len(self.shown) < self.frames

    @contextlib.contextmanager
    def lock(self):
        self.locked, before = True, self.data.qpos.copy()
        yield
        assert self.shown == [] or (self.data.qpos != before).any()
        self.locked = False

    def sync(self):
        assert not self.locked
        self.shown.append(self.data.qpos.copy())
        self.heights.append(self.data.xpos[1, 2])

    def close(self):
        self.closed = True


@pytest.fixture
def no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_it_shows_the_episodes_that_render_draws_one_after_the_other(run):
    viewer = FakeViewer(LENGTH + 3)
    play_run(run, 1, seed=4, launch=viewer, sleep=lambda seconds: None)
    assert viewer.closed
    body = load_body("halfcheetah", "native")
    episodes = [record_poses(run, body, 1, True, seed, 10.0).q for seed in (4, 5)]
    np.testing.assert_allclose(viewer.shown, np.concatenate([episodes[0], episodes[1][:3]]), atol=1e-3)
    assert np.abs(episodes[0][:3] - episodes[1][:3]).max() > 0.01  # one tells them apart
    assert len(set(viewer.heights)) > LENGTH / 2  # the bodies' places follow the positions


def test_other_policies_and_samples_show_other_episodes(run):
    shown = []
    for policy, deterministic in ((0, True), (1, True), (0, False)):
        viewer = FakeViewer(LENGTH)
        play_run(run, policy, deterministic=deterministic, launch=viewer, sleep=lambda seconds: None)
        shown.append(np.array(viewer.shown))
    assert np.abs(shown[0] - shown[1]).max() > 0.01
    assert np.abs(shown[0] - shown[2]).max() > 0.01


def test_frames_come_in_real_time_and_a_slow_one_is_not_made_up_for(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(viewing.time, "perf_counter", lambda: clock[0])
    model = load_body("halfcheetah", "native").sys.mj_model
    begun, viewer = [], FakeViewer(4)

    def poses():
        for number in range(9):
            clock[0] += 0.3 if number == 1 else 0.01  # what a step takes
            begun.append(clock[0])
            yield np.full(model.nq, 0.01 * number)

    def sleep(seconds):
        clock[0] += seconds

    data = mujoco.MjData(model)
    viewing.show(viewer(model, data), model, data, poses(), 0.05, sleep)
    # due at .05; the second comes at .35 and is due at .35 itself; then one every .05 again
    np.testing.assert_allclose(np.subtract(begun, 100.0), [0.01, 0.35, 0.36, 0.41, 0.46], atol=1e-6)
    assert len(viewer.shown) == 4


def test_the_window_is_closed_when_something_fails(run):
    class Failing(FakeViewer):
        def sync(self):
            raise KeyboardInterrupt

    viewer = Failing(9)
    with pytest.raises(KeyboardInterrupt):
        play_run(run, 0, launch=viewer)
    assert viewer.closed


def refused(arguments, capsys):
    """The one line that a refused command line prints."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1), err
    return err.removeprefix("rmdp-jax: error: ").strip()


def test_without_a_display_render_is_named_before_anything_is_loaded(run, no_display, capsys, monkeypatch):
    monkeypatch.setattr("rmdp_jax.records.loading.load_run", None)
    line = refused(["play", str(run.folder.path), "--policy", "1"], capsys)
    way_out = f"for a page and a movie: rmdp-jax render {run.folder.path} --policy 1"
    assert line == f"there is no display here to open a window on; {way_out}"


def test_the_real_viewer_is_not_launched_without_a_display(run, no_display):
    """It would wait for ever."""
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="there is no display here"):
        play_run(run, 0)
    assert time.perf_counter() - begun < 60


def test_a_display_is_seen(run, monkeypatch):
    monkeypatch.setattr(viewing, "_OPENS_WINDOW", "pass")
    check_display(run.folder.path, 0)


def test_a_viewer_that_does_not_open(run, monkeypatch):
    from mujoco import viewer

    def launch_passive(model, data, **options):
        raise RuntimeError("`launch_passive` requires that the Python script be run under `mjpython` on macOS")

    monkeypatch.setattr(viewing, "_OPENS_WINDOW", "pass")
    monkeypatch.setattr(viewer, "launch_passive", launch_passive)
    way_out = f"on macOS start it by mjpython -m rmdp_jax play {run.folder.path} --policy 0"
    with pytest.raises(ConfigError, match=f"the viewer does not open .*mjpython.*; {re.escape(way_out)}"):
        play_run(run, 0)


def test_a_grid_has_no_body(run, tmp_path, capsys):
    grid = tmp_path / "grid"
    train(*make_tiny(), replace(tiny.CONFIG, transitions=tiny.SIZES.transitions), plain_em(2, 4), out=grid, progress=False)
    message = f"resource_gathering has no body to show; `rmdp-jax report {grid}` draws the pictures it has"
    assert refused(["play", str(grid)], capsys) == message
    with pytest.raises(ConfigError, match="resource_gathering has no body to show"):
        play_run(run._replace(env=make_tiny()[0]), 0)


def test_bad_arguments_are_named(run, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"policy = 2: must be a whole number in 0\.\.1, as the run has k = 2 policies"):
        play_run(run, 2)
    assert refused(["play", str(run.folder.path), "--policy", "-1"], capsys).startswith("policy = -1: must be")
    assert refused(["play", str(run.folder.path), "--seed", "-1"], capsys).startswith("seed = -1: must be")
    assert "holds no config.json" in refused(["play", str(tmp_path)], capsys)
