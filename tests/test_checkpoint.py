from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, ITERATIONS, SIZES, K, N, assert_same, leaves, make_tiny

from rmdp_jax import ConfigError, em, make_trainer
from rmdp_jax.records.checkpoint import restore_checkpoint, save_checkpoint
from rmdp_jax.running.loop import make_chunk


def trainer_of(config):
    return make_trainer(*make_tiny(), config, em(config.k, config.n, anneal=5))


@pytest.fixture(scope="module")
def chunk():
    """`chunk(state, iterations) -> state, info`, compiled once."""
    return jax.jit(make_chunk(trainer_of(CONFIG)))


@pytest.fixture(scope="module")
def begun():
    return jax.jit(trainer_of(CONFIG).init)(jax.random.key(0))


def like(config=CONFIG):
    return jax.eval_shape(trainer_of(config).init, jax.random.key(0))


def test_a_restored_run_goes_on_bit_for_bit(tmp_path, chunk, begun):
    straight, straight_info = chunk(begun, jnp.int32(ITERATIONS))
    half, _ = chunk(begun, jnp.int32(ITERATIONS // 2))
    save_checkpoint(tmp_path, half)
    restored = restore_checkpoint(tmp_path, like())
    assert_same(restored, half)
    assert jax.tree.map(jax.typeof, restored) == jax.tree.map(jax.typeof, half)
    resumed, info = chunk(restored, jnp.int32(ITERATIONS - ITERATIONS // 2))
    assert int(resumed.iteration) == ITERATIONS
    assert_same(resumed, straight)
    assert_same(info.utility, straight_info.utility)
    assert any((a != b).any() for a, b in zip(leaves(resumed), leaves(half), strict=True))


def test_the_latest_of_the_kept_is_restored(tmp_path, begun):
    states = [begun._replace(iteration=jnp.int32(i), key=jax.random.key(i)) for i in (5, 10, 15)]
    for state in states:
        save_checkpoint(tmp_path, state, keep=2)
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [10, 15]
    assert_same(restore_checkpoint(tmp_path, like()), states[-1])
    save_checkpoint(tmp_path, states[-1]._replace(key=jax.random.key(0)))  # an iteration is written once
    assert_same(restore_checkpoint(tmp_path, like()), states[-1])


def test_a_part_can_be_restored(tmp_path, begun):
    save_checkpoint(tmp_path, begun)
    assert_same(restore_checkpoint(tmp_path, like().learner.params, ".learner.params"), begun.learner.params)
    assert_same(restore_checkpoint(tmp_path, like().keys, ".keys"), begun.keys)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        restore_checkpoint(tmp_path / "nowhere", like())
    with pytest.raises(ConfigError, match="holds no finished checkpoint"):
        restore_checkpoint(tmp_path, like())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 3}, r"has shape \(2, .*this run needs \(3, "),
        ({"sizes": replace(SIZES, hidden=(16,))}, r"has shape \(2, 8.* this run needs \(2, 16"),
        ({"sizes": replace(SIZES, environments=8, unroll=4)}, r"episodes.* has shape \(2, 4.* this run needs \(2, 8"),
        ({"sizes": replace(SIZES, trunk="shared")}, "holds no .*shared.* run of other settings"),
        ({"sizes": replace(SIZES, hidden=(8, 8))}, "holds no .*Dense_1.* run of other settings"),
    ],
)
def test_other_settings_are_named(tmp_path, begun, change, message):
    save_checkpoint(tmp_path, begun)
    assert np.shape(begun.utilities.reward_sum) == (K, N)
    with pytest.raises(ConfigError, match=message):
        restore_checkpoint(tmp_path, like(replace(CONFIG, **change)))
