import jax
import jax.numpy as jnp
import pytest
from tiny import CONFIG, make_tiny

from rmdp_jax import ConfigError, train
from rmdp_jax.commands.cli import main
from rmdp_jax.devices.settings import check_settings, plain_settings

GUARDS = ("host_to_device", "device_to_device", "device_to_host")


def test_the_usual_settings_are_left_alone():
    said = []
    check_settings()
    with plain_settings(said.append):
        assert (jnp.arange(3.0) / 0).dtype == jnp.float32
    assert said == []


def test_what_disturbs_is_off_inside_and_on_again_outside():
    said = []
    with jax.enable_x64(True), jax.debug_nans(True), jax.debug_infs(True), jax.transfer_guard("disallow"):
        with plain_settings(said.append):
            assert jnp.asarray(1.0).dtype == jnp.float32
            assert jnp.isnan(jnp.float32(0.0) / jnp.float32(0.0))
        assert jax.config.jax_debug_nans
        assert jax.config.jax_debug_infs
        assert {getattr(jax.config, f"jax_transfer_guard_{way}") for way in GUARDS} == {"disallow"}
        assert jax.config.jax_enable_x64
    assert [note.split()[0] for note in said] == ["JAX_ENABLE_X64", "JAX_DEBUG_NANS", "JAX_DEBUG_INFS", "JAX_TRANSFER_GUARD"]


def test_python_is_warned_once_a_setting():
    with jax.debug_nans(True), pytest.warns(UserWarning, match="JAX_DEBUG_NANS is off while rmdp_jax computes: ") as seen:
        result = train(*make_tiny(), CONFIG, progress=False)
    assert len(seen) == 1
    assert result.summary["finished"]


def test_python_that_must_not_compile_is_refused():
    with jax.disable_jit(), pytest.raises(ConfigError, match=r"JAX_DISABLE_JIT = 1: .*unset it"):
        train(*make_tiny(), CONFIG, progress=False)


def test_memory_that_runs_out_is_told_with_the_ways_out():
    """XLA's own error, as a program asks for 32 TiB; and Python's."""
    message = r"memory: there was none for 32768.0 GiB more on .*; take fewer environments"
    with pytest.raises(ConfigError, match=message), plain_settings():
        jax.jit(lambda: jnp.zeros(2**43))()
    with pytest.raises(ConfigError, match=r"memory: there was none on .*what was saved before is kept"), plain_settings():
        raise MemoryError


def test_other_errors_of_xla_stay_as_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: something"), plain_settings():
        raise jax.errors.JaxRuntimeError("INTERNAL: something")


def test_a_command_tells_of_memory_in_one_line(monkeypatch, capsys, tmp_path):
    def learn(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2147483648 bytes.")

    monkeypatch.setattr("rmdp_jax.running.train.learn", learn)
    with pytest.raises(SystemExit) as stop:
        main(["train", "resource_gathering", "--size", "2", "--k", "2", "--quiet", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("rmdp-jax: error: memory: there was none for 2.0 GiB more on ")
    assert err.count("\n") == 1
