import pytest

from rmdp_jax import ConfigError
from rmdp_jax.envs import ENVS, make, preset
from rmdp_jax.envs.presets import PRESETS


@pytest.mark.parametrize("kind", PRESETS)
def test_every_env_has_a_preset_that_fits_it(kind):
    assert set(PRESETS[kind]) == set(ENVS)
    for name in ENVS:
        config = preset(name, kind, k=3, seed=7)
        assert (config.k, config.seed, config.n) == (3, 7, PRESETS[kind][name].n)
        assert config.iterations * config.sizes.transitions >= config.transitions


def test_the_default_number_of_agents_is_the_envs_own():
    for name, config in PRESETS["default"].items():
        assert make(name)[1].n == config.n


def test_unknown_presets_suggest_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'reference'"):
        preset("resource_gathering", "referense")
    with pytest.raises(ConfigError, match="did you mean 'ant_speed'"):
        preset("ant_sped")
    with pytest.raises(ConfigError, match="k = 26"):
        preset("resource_gathering", k=26)


def test_that_of_an_accelerator_learns_as_often_from_as_much():
    for name, config in PRESETS["default"].items():
        gpu = preset(name, "gpu")
        assert gpu.iterations == config.iterations
        assert gpu.sizes.transitions == config.sizes.transitions
        assert (gpu.sizes.epochs, gpu.sizes.minibatches, gpu.rates) == (
            config.sizes.epochs,
            config.sizes.minibatches,
            config.rates,
        )
        assert gpu.sizes.unroll <= config.sizes.unroll
