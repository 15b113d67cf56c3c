import json

import jax
import jax.numpy as jnp
import pytest

from rmdp_jax.commands import health
from rmdp_jax.commands.cli import main
from rmdp_jax.commands.health import Finding, run_check

QUICK = ["versions", "devices", "precision", "threads", "cache", "memory", "OpenGL", "ffmpeg"]


@pytest.fixture
def no_drawing(monkeypatch):
    """OpenGL is tried by processes that take their time."""
    monkeypatch.setattr("rmdp_jax.envs.rendering.working_opengl", lambda: ("egl", None))


def doctor(*arguments):
    """Its exit code."""
    try:
        main(["doctor", *arguments])
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.usefixtures("no_drawing")
def test_a_table_within_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert doctor("--quick") == 0
    out = capsys.readouterr().out
    table = out[: out.index("ffmpeg")]  # then advice, a line each, which rich wraps
    assert max(map(len, table.splitlines())) <= 80
    for name in QUICK:
        assert f" {name} " in out
    assert "all that is needed works" in out


@pytest.mark.usefixtures("no_drawing")
def test_json(capsys):
    assert doctor("--quick", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert [one["name"] for one in said["findings"]] == QUICK
    assert {one["status"] for one in said["findings"]} <= {"ok", "note"}


@pytest.mark.usefixtures("no_drawing")
def test_every_backend_and_the_self_test_are_looked_at(capsys, monkeypatch):
    looked = []

    def look(backend):
        looked.append(backend)
        if backend in ("spring", "native"):
            raise RuntimeError("it does not go\nat all")
        yield Finding(f"backend {backend}", "ok", "one step", 0.1)

    monkeypatch.setattr(health, "check_backend", look)
    monkeypatch.setattr(health, "check_training", lambda: iter([Finding("self-test", "ok", "welfare", 1.0)]))
    assert doctor("--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    found = {one["name"]: one for one in said["findings"]}
    assert looked == ["jax", "native", "mjx", "warp", "spring", "positional", "generalized"]
    assert found["backend native"]["status"] == "failed"  # what trains here by default
    assert found["backend spring"]["status"] == "note"
    assert found["backend spring"]["found"] == "RuntimeError: it does not go"
    assert found["self-test"]["status"] == "ok"


def test_a_failure_is_named_and_exits_with_1(capsys, monkeypatch):
    monkeypatch.setattr(health, "check_devices", lambda: iter([Finding("devices", "failed", "none[/b]", None, "buy one")]))
    assert doctor() == 1  # and what needs a device is not asked for
    out = capsys.readouterr().out
    assert "none[/b]" in out
    assert "devices: buy one" in out
    assert out.endswith("failed: devices\n")
    assert "self-test" not in out


def test_one_step_of_a_backend():
    (found,) = run_check("backend jax", lambda: health.check_backend("jax"))
    assert (found.name, found.status, found.found) == ("backend jax", "ok", "one step of resource_gathering")
    assert found.seconds > 0
    (found,) = run_check("backend warp", lambda: health.check_backend("warp"))
    assert found.status == "failed"
    assert "warp" in found.found


@pytest.mark.slow
def test_the_self_test_reaches_its_optimum_and_repeats_itself():
    solved, same = run_check("self-test", health.check_training)
    assert (solved.name, solved.status, same.name, same.status) == ("self-test", "ok", "determinism", "ok")
    assert health.SOLVED <= float(solved.found.split()[1]) <= 97.0


def test_the_optimum_of_the_self_test_by_hand():
    """Two policies: there and back (2 steps, which pay home and a neighbour 0.98), and once round (4 steps, 0.96)."""
    assert pytest.approx(97.0) == 100 * (2 * 0.98 + 2 * 0.96) / 4


def test_versions_against_those_that_were_tested(monkeypatch):
    (found,) = health.check_versions()
    assert found.status == "ok"
    assert f"jax {jax.__version__}" in found.found
    here = {"brax": "0.1.0", "optax": "0"}
    monkeypatch.setattr(health, "_version", lambda name: here.get(name) or health.version(name))
    wrong = {one.name: one for one in health.check_versions()}
    assert {name: one.status for name, one in wrong.items()} == {"brax": "note", "optax": "failed"}
    assert wrong["brax"].found.startswith("0.1.0 was not tested (tested: ")
    assert wrong["optax"].advice.startswith("pip install 'optax")


def test_what_is_set_for_jax_is_a_note():
    with jax.enable_x64(True):
        precision, x64 = health.check_precision()
    assert precision.found.startswith("float32")
    assert (x64.name, x64.status, x64.advice) == ("JAX_ENABLE_X64", "note", "unset JAX_ENABLE_X64")


def test_little_memory_and_no_cache_are_notes(monkeypatch):
    monkeypatch.setattr(health, "available_memory", lambda: 2**29)
    monkeypatch.setattr(health, "use_cache", lambda: None)
    for found in (*health.check_free_memory(), *health.check_cache()):
        assert found.status == "note"
        assert found.advice


def test_a_wrong_step_of_a_backend_is_a_failure(monkeypatch):
    monkeypatch.setattr(jnp, "isfinite", lambda x: jnp.zeros(x.shape, bool))
    (found,) = health.check_backend("jax")
    assert (found.status, found.found) == ("failed", "one step of resource_gathering: observations are not finite")
