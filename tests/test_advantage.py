import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax.learning.advantage import gae

T, E, C = 6, 3, 2


def plain_gae(reward, value, next_value, terminated, done, discount, gae_lambda):
    """The definition, in float64: A_t = sum_l (gamma lambda)^l delta_{t+l}, up to the end of the episode."""
    advantage = np.zeros(reward.shape, np.float64)
    for t, e, c in np.ndindex(reward.shape):
        for later in range(t, len(reward)):
            bootstrap = 0.0 if terminated[later, e] else discount * next_value[later, e, c]
            delta = reward[later, e, c] + bootstrap - value[later, e, c]
            advantage[t, e, c] += (discount * gae_lambda) ** (later - t) * delta
            if done[later, e]:
                break
    return advantage


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([0.0, 0.95, 1.0]))
def test_gae_is_the_double_loop(seed, discount, gae_lambda):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, T, E, C)).astype(np.float32)
    terminated, truncated = rng.random((2, T, E)) < 0.25
    arguments = reward, value, next_value, terminated, terminated | truncated, discount, gae_lambda
    advantage, target = jax.jit(gae)(*arguments)
    expected = plain_gae(*arguments)
    np.testing.assert_allclose(advantage, expected, atol=1e-5)
    np.testing.assert_allclose(target, expected + value, atol=1e-5)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [  # gamma = lambda = 1/2, rewards 1 2 4, values 2 4 8, values of successors 4 6 16
        ([0, 0, 0], [0, 0, 0], [1.5, 2.0, 4.0]),  # deltas 1, 1, 4; 1 + 2/4, 1 + 4/4, 4
        ([0, 1, 0], [0, 0, 0], [0.5, -2.0, 4.0]),  # an end: delta 2 - 4, and nothing of the next episode
        ([0, 0, 0], [0, 1, 0], [1.25, 1.0, 4.0]),  # a cut: delta 2 + 6/2 - 4, and nothing of the next episode
    ],
)
def test_by_hand(terminated, truncated, expected):
    reward, value, next_value = (np.array(x, np.float32)[:, None, None] for x in ([1, 2, 4], [2, 4, 8], [4, 6, 16]))
    terminated, truncated = (np.array(x, bool)[:, None] for x in (terminated, truncated))
    advantage, target = gae(reward, value, next_value, terminated, terminated | truncated, 0.5, 0.5)
    np.testing.assert_allclose(advantage[:, 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(target[:, 0, 0], np.add(expected, [2, 4, 8]), atol=1e-6)
