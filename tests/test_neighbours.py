import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import Seen, em
from rmdp_jax.assigners import neighbours
from rmdp_jax.assigners.moves import Move, move_all
from rmdp_jax.assigners.neighbours import Crowd, follow_nearest
from rmdp_jax.glimpse import watched_agents


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


def test_few_agents_are_all_watched_and_of_many_always_the_same():
    assert watched_agents(4096) is None
    watched = watched_agents(10**6)
    assert (watched.shape, len(set(watched.tolist()))) == ((1024,), 1024)
    assert (np.diff(watched) > 0).all()
    np.testing.assert_array_equal(watched, watched_agents(10**6))


def test_em_sends_everybody_where_the_watched_agents_like_them_go(monkeypatch):
    """Policy 1 was at 5 and is at 2 now, where policy 0 is enough: it goes on from what it was, with all who wish for 5."""
    monkeypatch.setattr("rmdp_jax.glimpse.LARGEST_WATCHED", 49)
    monkeypatch.setattr("rmdp_jax.glimpse.WATCHED", 20)
    wishes = np.tile([0.0, 1.0, 2.0, 5.0, 5.2], 10)

    def at(*places):
        return jnp.asarray(np.clip(1.5 - np.abs(np.array(places)[:, None] - wishes), 0, 1), jnp.float32)

    assigner = em(2, 50, anneal=1, every=2, attempts=1, glimpses=1, slots=2, store_every=2)
    assert set(wishes[assigner.watched]) == set(wishes)
    state, reassign = assigner.init(jax.random.key(0)), jax.jit(assigner.reassign)
    for iteration, returns in enumerate([at(1, 5), at(1, 5), at(1, 2)]):
        shown = returns[:, None, assigner.watched]
        seen = Seen(returns, jnp.int32(iteration), jnp.float32(0.0), shown, stored=at(1, 5))
        state, succession = reassign(jax.random.key(0), state, seen)
    assert succession.parents[0] == 0
    assert succession.parents[1] >= 2, "from the store"
    np.testing.assert_array_equal(state.labels, (wishes > 4).astype(int))


def test_nobody_moves_where_a_policy_would_be_left_to_nobody():
    crowd, labels = Crowd(np.array([0, 1], np.int32), 4), jnp.array([0, 1, 0, 1], jnp.int32)
    seen = Seen(jnp.zeros((2, 4)), jnp.int32(0))
    for found, gains in ([0, 0], False), ([1, 0], True):
        move = move_all(crowd, Move(jnp.bool_(True), jnp.array(found, jnp.int32), jnp.arange(2)), labels, seen)
        assert bool(move.gains) == gains
        assert move.labels.tolist() == ([1, 0, 1, 1] if gains else labels.tolist())
