"""Other generators of random numbers, such as `rbg`, which is usual on TPU."""

import json

import jax
import numpy as np
import pytest
from tiny import CONFIG, K, N, make_tiny

from rmdp_jax import ConfigError, random_even, train
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.lines import describe_run
from rmdp_jax.records.settings import check_same_run
from rmdp_jax.records.spec import RunSpec


@pytest.fixture
def described():
    env, population = make_tiny()
    return lambda: describe_run(env, RunSpec(population, CONFIG, random_even(K, N)))


def test_generator_and_precision_are_recorded_and_compared(described, tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_config(described())
    written = json.loads((tmp_path / "config.json").read_text())["numerics"]
    assert written == {"JAX_DEFAULT_PRNG_IMPL": "threefry2x32", "JAX_DEFAULT_MATMUL_PRECISION": "default"}
    check_same_run(folder, described(), extend=False)
    with (
        jax.default_prng_impl("rbg"),
        pytest.raises(
            ConfigError,
            match=r"resume: JAX_DEFAULT_PRNG_IMPL \(threefry2x32 there, rbg here\) differ .* give what it was made with",
        ),
    ):
        check_same_run(folder, described(), extend=False)
    with (
        jax.default_matmul_precision("highest"),
        pytest.raises(ConfigError, match=r"JAX_DEFAULT_MATMUL_PRECISION \(default there, highest here\)"),
    ):
        check_same_run(folder, described(), extend=False)


def test_runs_of_versions_that_recorded_neither_go_on_by_defaults(described, tmp_path):
    folder, content = RunFolder(tmp_path), described()
    del content["numerics"]
    folder.write_config(content)
    check_same_run(folder, described(), extend=False)
    with jax.default_prng_impl("rbg"), pytest.raises(ConfigError, match=r"JAX_DEFAULT_PRNG_IMPL \(threefry2x32 there"):
        check_same_run(folder, described(), extend=False)


def test_rbg_draws_by_the_first_key_of_a_batch():
    """Why several runs in one program are refused with it; if this fails, JAX has changed, and the refusal can go."""

    def draw(*seeds):
        keys = jax.vmap(lambda seed: jax.random.key(seed, impl="rbg"))(np.array(seeds))
        return np.asarray(jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys))

    together = draw(0, 1)
    assert not np.array_equal(together[1:], draw(1))
    np.testing.assert_array_equal(together[1:], draw(0, 2)[1:])  # whatever the second key is


def test_several_runs_in_one_program_are_refused(tmp_path):
    way_out = "draws by the key of the first of several runs .* take threefry2x32, or train one run at a time"
    for generator in ("rbg", "unsafe_rbg"):
        with (
            jax.default_prng_impl(generator),
            pytest.raises(ConfigError, match=f"JAX_DEFAULT_PRNG_IMPL = {generator}: {way_out}"),
        ):
            train(*make_tiny(), CONFIG, random_even(K, N), seeds=2, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
