import base64
import json
import re
import zlib

import jax
import jax.numpy as jnp
import mediapy
import numpy as np
import pytest
from PIL import Image
from tiny import make_tiny

from rmdp_jax import ConfigError, Sizes, TrainConfig, em, make_trainer, train
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make, movie, rendering
from rmdp_jax.envs.rendering import record_poses, render_run, write_movie
from rmdp_jax.envs.speed import load_body
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import load_run, record_run
from rmdp_jax.trainer import policies_of

pytestmark = pytest.mark.slow

LENGTH, DT = 20, 0.05  # steps of an episode; seconds of a step of HalfCheetah
LINKS = ["torso", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
SIZES = Sizes(environments=2, unroll=16, epochs=1, minibatches=1, hidden=(8,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cheetah that has learned nothing."""
    path = tmp_path_factory.mktemp("runs") / "cheetah"
    env, population = make("halfcheetah_speed", n=2, backend="native", episode_length=LENGTH)
    config = TrainConfig(k=2, n=2, transitions=2 * SIZES.transitions, evaluation_episodes=2, sizes=SIZES)
    train(env, population, config, em(2, 2), out=path, progress=False)
    return path


@pytest.fixture(scope="module")
def run(folder):
    return load_run(folder, make)


@pytest.fixture
def no_opengl(monkeypatch):
    """Pages without movies, which take long to draw where there is no GPU."""
    monkeypatch.setenv("MUJOCO_GL", "off")


def read_page(path):
    """What the viewer is given."""
    packed = re.search(r'system = "([^"]+)"', path.read_text())[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_page_shows_the_recorded_episode(run, no_opengl):
    rendered = render_run(run, 1, seed=4)
    assert rendered.page == run.folder.path / "policy_1.html"
    assert rendered.page.stat().st_size < 100_000
    shown = read_page(rendered.page)
    assert shown["link_names"] == LINKS
    assert set(shown["geoms"]) == {*LINKS, "world"}
    assert [len(shown["geoms"][name]) for name in ("world", "torso", "ffoot")] == [1, 2, 1]
    assert shown["geoms"]["world"][0]["size"] == [0, 0, 0]  # an endless floor
    assert shown["opt"]["timestep"] == pytest.approx(DT)
    frames = shown["states"]["x"]
    assert len(frames) == LENGTH
    assert all(np.shape(frame["pos"]) == (len(LINKS), 3) and np.shape(frame["rot"]) == (len(LINKS), 4) for frame in frames)
    forward = np.array([frame["pos"][0][0] for frame in frames])
    speed = record_run(run, seed=4).step.outcome.speed[1]
    np.testing.assert_allclose(np.diff(forward) / DT, speed[:-1], atol=0.005)  # the page rounds to 0.1 mm


def test_a_page_holds_nothing_that_was_typed_as_markup(run, tmp_path, no_opengl):
    """Neither the folder's name nor those in the body's model, which a page packs."""
    typed = "<script>alert(1)<"
    brax_env = load_body("halfcheetah", "native")
    poses = record_poses(run, brax_env, 0, True, 0, 0.1)
    system = brax_env.sys.replace(link_names=[typed, *brax_env.sys.link_names[1:]])
    (tmp_path / "page.html").write_text(rendering.draw_page(system, poses, DT))
    assert typed in read_page(tmp_path / "page.html")["link_names"]
    elsewhere = run._replace(folder=RunFolder(tmp_path / typed))
    elsewhere.folder.path.mkdir()
    for page in (tmp_path / "page.html", render_run(elsewhere, 0, seconds=0.1).page):
        assert "alert(1)" not in page.read_text()


def test_options_choose_the_episode(run, no_opengl):
    def shown(policy, **options):
        return read_page(render_run(run, policy, **options).page)["states"]["x"]

    first = shown(0)
    assert shown(0, seconds=0.5) == first[:10]
    for options in ({"policy": 1}, {"seed": 1}, {"deterministic": False}):
        assert shown(**{"policy": 0, **options}) != first


def test_an_episode_is_cut_where_it_ends(run):
    brax_env = load_body("halfcheetah", "native")
    whole = record_poses(run, brax_env, 1, True, 0, 10.0)
    assert whole.q.shape == (LENGTH, 9)
    assert whole.position.shape == (LENGTH, len(LINKS), 3)
    step = brax_env.step

    def fall(state, action):
        """Done, with a pose that is not a number, on the way to the eighth pose."""
        after = step(state, action)
        broken = jnp.abs(after.pipeline_state.q - whole.q[7]).max() < 1e-4
        q = jnp.where(broken, jnp.nan, after.pipeline_state.q)
        return after.replace(pipeline_state=after.pipeline_state.replace(q=q), done=broken.astype(jnp.float32))

    brax_env.step = fall
    cut = record_poses(run, brax_env, 1, True, 0, 10.0)
    np.testing.assert_allclose(cut.q, whole.q[:7], atol=1e-4)
    assert len(cut.position) == len(cut.rotation) == 7


def test_frames_are_thinned_to_about_30_a_second(run, tmp_path, no_opengl):
    env, population = make("hopper_speed", n=2, backend="native", episode_length=30)
    trainer = make_trainer(env, population, run.config, em(2, 2))
    hopper = run._replace(env=env, policies=policies_of(jax.jit(trainer.init)(jax.random.key(0))), folder=RunFolder(tmp_path))
    shown = read_page(render_run(hopper, 0).page)
    assert shown["opt"]["timestep"] == pytest.approx(4 * 0.008)  # a hopper's step is 8 ms
    assert len(shown["states"]["x"]) == 8


def test_movie(run):
    rendered = render_run(run, 0, seconds=0.25)
    if rendered.movie is None:
        assert re.fullmatch(r"no mp4: MuJoCo found no OpenGL.*apt install.*", rendered.missing)
        pytest.skip(rendered.missing)
    if mediapy.video_is_available():
        assert (rendered.movie.name, rendered.missing) == ("policy_0.mp4", None)
        frames = mediapy.read_video(rendered.movie)
        seconds = len(frames) / frames.metadata.fps
    else:
        assert rendered.movie.name == "policy_0.gif"
        assert re.fullmatch("no mp4 but a gif: there is no ffmpeg .*apt install ffmpeg.*", rendered.missing)
        frames, seconds = read_gif(rendered.movie)
    assert np.shape(frames) == (5, 360, 480, 3)
    assert seconds == pytest.approx(0.25)
    assert np.std(frames[0]) > 10  # not an empty picture
    assert np.abs(np.subtract(frames[4], frames[0], dtype=float)).mean() > 0.5  # and something moves


def test_small_movies_keep_time_and_are_small(tmp_path):
    shades = [40, 120, 200]
    frames = (np.full((movie.HEIGHT, movie.WIDTH, 3), shade, np.uint8) for shade in shades)
    movie.write_webp(str(tmp_path / "film.webp"), frames, 0.08 * np.arange(4))
    found, seconds = read_gif(tmp_path / "film.webp")
    assert np.shape(found) == (3, *movie.SMALL[::-1], 3)
    assert seconds == pytest.approx(0.24)
    np.testing.assert_allclose(np.mean(found, (1, 2, 3)), shades, atol=4)
    assert (tmp_path / "film.webp").stat().st_size < 10_000


def read_gif(path):
    """Frames, and how long they last in all."""
    frames, duration = [], 0
    with Image.open(path) as film:
        for number in range(film.n_frames):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB")))
            duration += film.info["duration"]
    return np.array(frames), duration / 1000


def test_without_opengl_the_page_is_written_and_one_line_tells(run, no_opengl, capsys):
    stale = run.folder.path / "policy_1.gif"
    stale.write_bytes(b"of an earlier call")
    main(["render", str(run.folder.path), "--policy", "1", "--seconds", "0.1"])
    page, missing = capsys.readouterr().out.splitlines()
    assert page.split() == ["page", str(run.folder.path / "policy_1.html")]
    assert missing.startswith("no mp4: MuJoCo found no OpenGL to draw with, tried MUJOCO_GL=off")
    assert "apt install libegl1" in missing
    assert not stale.exists()


def test_a_driver_that_crashes_and_a_failure_in_drawing(monkeypatch, tmp_path):
    model = load_body("halfcheetah", "native").sys.mj_model
    monkeypatch.setattr(rendering, "_opengl", lambda: ["egl", "osmesa"])
    script = tmp_path / "movie.py"
    monkeypatch.setattr(rendering.movie, "__file__", str(script))

    def missing(program):
        script.write_text(program)
        path, reason = write_movie(model, np.zeros((2, model.nq)), DT, tmp_path / "policy_0")
        assert path is None
        return reason

    assert "tried MUJOCO_GL=egl, osmesa (" in missing("import os; os.abort()")
    program = "import os, sys; sys.exit('disk full' if os.environ['MUJOCO_GL'] == 'osmesa' else 3)"
    assert missing(program) == "no mp4: drawing failed (disk full)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "2"], r"policy = 2: must be a whole number in 0\.\.1, as the run has k = 2 policies"),
        (["--policy", "-1"], "policy = -1"),
        (["--seconds", "0"], "seconds = 0: must be a number above 0, at most 60"),
        (["--seconds", "61"], "seconds = 61: must be"),
    ],
)
def test_bad_arguments_are_named(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["render", str(folder), *arguments])
    assert stop.value.code == 2
    assert re.match(f"rmdp-jax: error: {message}", capsys.readouterr().err)


def test_a_grid_has_no_body(run):
    grid = run._replace(env=make_tiny()[0])
    with pytest.raises(ConfigError, match=r"resource_gathering has no body to render; `rmdp-jax report .*cheetah` draws"):
        render_run(grid, 0)
