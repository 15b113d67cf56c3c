"""Which policy goes where, by hand; and a local optimum of EM that a split and a merge leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, EStepInput, plain_em
from rmdp_jax.assigners.split_and_merge import propose_split_and_merge, split_and_merge


def test_a_move_by_hand():
    utility = jnp.array([[9.0, 8.0, 1.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0, 9.0, 4.0], [0.0, 0.0, 0.0, 0.0, 0.0, 5.0]])
    move = propose_split_and_merge(utility, jnp.array([0, 0, 0, 0, 1, 2], jnp.int32))
    assert move.sources.tolist() == [0, 1, 0]  # policy 2 costs 1, the others 18 and 9; policy 0 falls short by 18
    assert move.labels.tolist() == [0, 0, 2, 2, 1, 0]  # the two of four whom policy 0 serves worst go with the copy
    assert bool(move.worthwhile)


@pytest.mark.parametrize(
    "utility",
    [
        [[5.0, 5.0, 0.0], [0.0, 0.0, 5.0]],  # everybody is served as well as anybody: nothing to gain
        [[9.0, 8.0, 0.0], [0.0, 0.0, 9.0]],  # without policy 1 agent 2 loses 9, which no split of the others brings back
    ],
)
def test_a_merge_that_costs_more_than_a_split_can_bring_is_no_move(utility):
    assert not propose_split_and_merge(jnp.array(utility), jnp.array([0, 0, 1], jnp.int32)).worthwhile


AGENTS = np.array([0.0, 1.0, 10.0, 10.0, 11.0, 20.0], np.float32)


def follow_means(assigner, iterations=100):
    """Policies that go half of the way to the mean of their agents at every M-step; when they moved, and their total."""
    reassign = jax.jit(assigner.reassign)
    state, places, moved = assigner.init(jax.random.key(0)), np.array([0.0, 1.0, 13.0], np.float32), []
    for iteration in range(iterations):
        utility = -np.abs(places[:, None] - AGENTS)
        inputs = EStepInput(jnp.asarray(utility), jnp.int32(iteration), jnp.float32((iteration + 1) / iterations))
        state, copies = reassign(jax.random.key(0), state, inputs)
        weights = np.asarray(assigner.weights(state))
        moved += [iteration + 1] * (copies.sources.tolist() != [0, 1, 2])
        places = places[np.asarray(copies.sources)]
        places = (places + weights @ AGENTS / weights.sum(1)) / 2
    return moved, float((weights * -np.abs(places[:, None] - AGENTS)).sum())


def test_a_split_leaves_a_local_optimum_of_plain_em():
    _, stuck = follow_means(plain_em(3, 6, warmup=1))
    moved, welfare = follow_means(split_and_merge(3, 6, warmup=1, every=20))
    assert stuck < -10
    assert welfare == pytest.approx(-0.5 - 0.5 - 2 * 1 / 3 - 2 / 3, abs=1e-3)  # groups {0, 1}, {10, 10, 11}, {20}
    assert moved == [21], "and one move is enough"


def inputs_at(iteration, progress=0.1):
    """Policy 0 serves agents 1 and 2 badly, and policy 1 is as good as nothing for agent 3."""
    utility = jnp.array([[9.0, 1.0, 1.0, 4.0], [0.0, 0.0, 0.0, 5.0]])
    return EStepInput(utility, jnp.int32(iteration), jnp.float32(progress))


def test_moves_are_due_now_and_then_and_nobody_moves_after_one():
    assigner = split_and_merge(2, 4, warmup=3, every=4, until=0.5)
    reassign = jax.jit(assigner.reassign)
    state, sources, labels = assigner.init(jax.random.key(0)), [], []
    for iteration in range(10):
        state, copies = reassign(jax.random.key(0), state, inputs_at(iteration))
        sources.append(copies.sources.tolist())
        labels.append(state.labels.tolist())
    assert [i + 1 for i, some in enumerate(sources) if some != [0, 1]] == [7]  # warm-up and `every`
    assert labels[:2] == [[0, 1, 0, 1]] * 2
    assert labels[2:6] == [[0, 0, 0, 1]] * 4
    assert labels[6:8] == [[0, 1, 0, 0]] * 2, "held for half of `every`"
    assert labels[8] == [0, 0, 0, 1], "and free again"
    state = assigner.init(jax.random.key(0))
    for iteration in range(10):
        state, copies = reassign(jax.random.key(0), state, inputs_at(iteration, progress=0.6))
        assert copies.sources.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"), [({"warmup": -1}, "warmup = -1"), ({"every": 0}, "every = 0"), ({"until": 2.0}, "until = 2.0")]
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        split_and_merge(2, 5, **options)
