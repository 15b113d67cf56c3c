import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import EStepInput, em
from rmdp_jax.assigners import sampled_agents
from rmdp_jax.assigners.relocation import Relocation, extend_to_all
from rmdp_jax.assigners.sampled_agents import SampledAgents, label_like_nearest
from rmdp_jax.learning.segments import scored_agents


@pytest.mark.parametrize("block", [7, 50, 1000])
def test_each_follows_the_sampled_agent_nearest_to_it(block, monkeypatch):
    monkeypatch.setattr(sampled_agents, "BLOCK", block)
    rng = np.random.default_rng(0)
    n, m = 50, 9
    table = rng.normal(size=(4, n)).astype(np.float32)
    sampled = np.sort(rng.permutation(n)[:m]).astype(np.int32)
    found, labels = rng.integers(0, 3, m).astype(np.int32), np.full(n, 3, np.int32)
    arrays = [jnp.asarray(x) for x in (found, labels, table)]
    follow = jax.jit(lambda moves: label_like_nearest(SampledAgents(sampled, n), *arrays, moves))
    nearest = np.square(table[:, :, None] - table[:, None, sampled]).sum(0).argmin(1)
    np.testing.assert_array_equal(follow(True), found[nearest])
    np.testing.assert_array_equal(follow(True)[sampled], found)
    np.testing.assert_array_equal(follow(False), labels)
    both = jax.vmap(follow)(jnp.array([False, True]))
    np.testing.assert_array_equal(both, [labels, found[nearest]])


def test_agents_that_cannot_be_told_apart_follow_the_first_and_the_sampled_go_their_own_way():
    found, labels = jnp.array([0, 1], jnp.int32), jnp.zeros(4, jnp.int32)
    sampled = SampledAgents(np.array([1, 2], np.int32), 4)
    np.testing.assert_array_equal(label_like_nearest(sampled, found, labels, jnp.zeros((2, 4)), jnp.bool_(True)), [0, 0, 1, 0])


def test_few_agents_are_all_scored_and_of_many_always_the_same():
    assert scored_agents(4096) is None
    sampled = scored_agents(10**6)
    assert (sampled.shape, len(set(sampled.tolist()))) == ((1024,), 1024)
    assert (np.diff(sampled) > 0).all()
    np.testing.assert_array_equal(sampled, scored_agents(10**6))


def test_em_sends_everybody_where_the_sampled_agents_like_them_go(monkeypatch):
    """Policy 1 was at 5 and is at 2 now, where policy 0 is enough: it goes on from what it was, with all who wish for 5."""
    monkeypatch.setattr("rmdp_jax.learning.segments.LARGEST_UNSAMPLED", 49)
    monkeypatch.setattr("rmdp_jax.learning.segments.SAMPLE_SIZE", 20)
    wishes = np.tile([0.0, 1.0, 2.0, 5.0, 5.2], 10)

    def at(*places):
        return jnp.asarray(np.clip(1.5 - np.abs(np.array(places)[:, None] - wishes), 0, 1), jnp.float32)

    assigner = em(
        2, 50, explore=0, anneal=1, relocate_every=2, starts=1, segment_environments=1, archive_size=2, archive_every=2
    )
    assert set(wishes[assigner.sampled_agents]) == set(wishes)
    state, reassign = assigner.init(jax.random.key(0)), jax.jit(assigner.reassign)
    for iteration, utility in enumerate([at(1, 5), at(1, 5), at(1, 2)]):
        returns = utility[:, None, assigner.sampled_agents]
        inputs = EStepInput(utility, jnp.int32(iteration), jnp.float32(0.0), returns, archived=jnp.tile(at(1, 5), (3, 1)))
        state, copies = reassign(jax.random.key(0), state, inputs)
    assert copies.sources[0] == 0
    assert copies.sources[1] >= 2, "from the archive"
    np.testing.assert_array_equal(state.labels, (wishes > 4).astype(int))


def test_nobody_moves_where_a_policy_would_be_left_to_nobody():
    sampled, labels = SampledAgents(np.array([0, 1], np.int32), 4), jnp.array([0, 1, 0, 1], jnp.int32)
    inputs = EStepInput(jnp.zeros((2, 4)), jnp.int32(0))
    for found, accepted in ([0, 0], False), ([1, 0], True):
        relocation = extend_to_all(
            sampled, Relocation(jnp.bool_(True), jnp.array(found, jnp.int32), jnp.arange(2)), labels, inputs
        )
        assert bool(relocation.accepted) == accepted
        assert relocation.labels.tolist() == ([1, 0, 1, 1] if accepted else labels.tolist())
