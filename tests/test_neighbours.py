import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import neighbours
from rmdp_jax.neighbours import Crowd, follow_nearest


@pytest.mark.parametrize("block", [7, 50, 1000])
def test_each_follows_the_watched_agent_nearest_to_it(block, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    rng = np.random.default_rng(0)
    n, m = 50, 9
    table = rng.normal(size=(4, n)).astype(np.float32)
    watched = np.sort(rng.permutation(n)[:m]).astype(np.int32)
    found, labels = rng.integers(0, 3, m).astype(np.int32), np.full(n, 3, np.int32)
    arrays = [jnp.asarray(x) for x in (found, labels, table)]
    follow = jax.jit(lambda moves: follow_nearest(Crowd(watched, n), *arrays, moves))
    nearest = np.square(table[:, :, None] - table[:, None, watched]).sum(0).argmin(1)
    np.testing.assert_array_equal(follow(True), found[nearest])
    np.testing.assert_array_equal(follow(True)[watched], found)
    np.testing.assert_array_equal(follow(False), labels)
    both = jax.vmap(follow)(jnp.array([False, True]))
    np.testing.assert_array_equal(both, [labels, found[nearest]])


def test_agents_that_cannot_be_told_apart_follow_the_first_and_the_watched_go_their_own_way():
    found, labels = jnp.array([0, 1], jnp.int32), jnp.zeros(4, jnp.int32)
    crowd = Crowd(np.array([1, 2], np.int32), 4)
    np.testing.assert_array_equal(follow_nearest(crowd, found, labels, jnp.zeros((2, 4)), jnp.bool_(True)), [0, 0, 1, 0])
