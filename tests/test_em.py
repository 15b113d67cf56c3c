"""Facility location against brute force, segments by hand, and moves of `em` that plain EM cannot make."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax import ConfigError, EStepInput, em
from rmdp_jax.assigners.facility_location import choose_facilities, greedy, keep_diverse, swap_until_best, total
from rmdp_jax.assigners.relocation import propose_relocation
from rmdp_jax.learning.segments import NO_RETURN, add_step, expected_returns, no_segments
from rmdp_jax.learning.utility import Utilities

SHAPES = st.sampled_from([(6, 4, 1), (6, 4, 2), (9, 7, 3)])  # behaviours, agents, places


@st.composite
def problems(draw):
    rows, n, k = draw(SHAPES)
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    valid = rng.random(rows) < 0.8
    valid[:k] = True
    returns = rng.normal(size=(rows, n)).round(draw(st.sampled_from([0, 3])))  # rounded: full of ties
    return returns.astype(np.float32), valid, k


choose = jax.jit(choose_facilities)
swap = jax.jit(swap_until_best)


@settings(max_examples=60)
@given(problems())
def test_no_swap_improves_what_is_chosen(problem):
    returns, valid, k = problem
    start = np.arange(k, dtype=np.int32)
    chosen = np.asarray(choose(returns, valid, start, 100))
    value = returns[chosen].max(0).sum()
    assert valid[chosen].all()
    assert value >= returns[start].max(0).sum() - 1e-5
    for out in range(k):
        for into in np.flatnonzero(valid):
            swapped = chosen.copy()
            swapped[out] = into
            assert returns[swapped].max(0).sum() <= value + 1e-4
    best = max(returns[list(some)].max(0).sum() for some in combinations(np.flatnonzero(valid).tolist(), k))
    assert value <= best + 1e-4


choose_beside = jax.jit(choose_facilities, static_argnames="held")


@settings(max_examples=60)
@given(problems(), st.integers(0, 10_000), st.data())
def test_places_beside_held_ones_are_the_best_that_single_swaps_find(problem, seed, data):
    returns, valid, k = problem
    held = data.draw(st.integers(1, k))
    start = np.random.default_rng(seed).permutation(len(returns))[:k].astype(np.int32)  # held rows need not be valid
    start[held:] = np.flatnonzero(valid)[: k - held]
    chosen = np.asarray(choose_beside(returns, valid, start, 100, held=held))
    np.testing.assert_array_equal(chosen[:held], start[:held])
    assert valid[chosen[held:]].all()

    def value(rows):
        return returns[np.asarray(rows)].max(0).sum()

    free = [[*start[:held], *some] for some in combinations(np.flatnonzero(valid).tolist(), k - held)]
    best = max(map(value, free))
    assert value(start) - 1e-5 <= value(chosen) <= best + 1e-4
    if k - held <= 1:  # one place, or none: a single swap reaches the best
        assert value(chosen) >= best - 1e-4
    for out in range(held, k):
        for into in np.flatnonzero(valid):
            assert value([*chosen[:out], into, *chosen[out + 1 :]]) <= value(chosen) + 1e-4


def test_greedy_begins_with_what_is_held():
    returns = jnp.array([[9.0, 0.0, 0.0], [8.0, 1.0, 0.0], [0.0, 3.0, 3.0]])
    assert greedy(returns, jnp.array([True, True, True]), 2, 2).tolist() == [0, 2]
    assert greedy(returns, jnp.array([True, False, True]), 2, 2, jnp.array([1], jnp.int32)).tolist() == [1, 2]


def test_greedy_takes_the_best_addition_each_time():
    returns = jnp.array([[3.0, 3.0, 0.0], [4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0], [9.0, 9.0, 9.0]])
    valid = jnp.array([True, True, True, True, False])
    chosen = greedy(returns, valid, 2, 2)
    assert chosen.tolist() == [0, 1]  # 6, then 7; the first addition of 1 (agent 2) is no better, and ties go to the first
    assert swap(returns, valid, chosen, 10).tolist() == [2, 1]  # 8
    assert float(total(returns, jnp.array([2, 1]))) == 8.0


def test_a_traced_zero_of_rounds_changes_nothing():
    start = jnp.array([1, 0], jnp.int32)
    returns = jnp.array([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    assert swap(returns, jnp.ones(3, bool), start, 0).tolist() == [1, 0]


def test_the_store_keeps_what_differs():
    returns = jnp.array([[0.0, 0.0], [9.0, 0.0], [0.1, 0.0], [0.0, 9.0], [5.0, 5.0]])
    age = jnp.array([7.0, 3.0, 2.0, 1.0, -jnp.inf])
    assert keep_diverse(returns, age, 4, 1).tolist() == [0, 1, 2, 3]  # the empty row
    assert keep_diverse(returns, age, 3, 2).tolist() == [0, 1, 3]  # then the older of the two that are alike


def test_segment_returns_by_hand():
    segments = no_segments(2, 1)
    steps = [([1.0, 5.0], [False, False]), ([2.0, 6.0], [False, True]), ([3.0, 7.0], [False, False])]
    returns = []
    for rewards, done in steps:
        segments = add_step(segments, jnp.array(rewards)[:, None], jnp.array(done), segment_length=3, episode_length=12)
        returns.append(segments.returns[:, 0].tolist())
    assert returns == [
        [NO_RETURN, NO_RETURN],
        [NO_RETURN, 11.0],
        [24.0, 11.0],
    ]  # a whole episode as it is; (1 + 2 + 3) * 12 / 3
    assert (segments.reward_sum[:, 0].tolist(), segments.steps.tolist()) == ([0.0, 7.0], [0.0, 1.0])
    odd = add_step(no_segments(4, 1), jnp.array([[4.0], [5.0], [6.0]]), jnp.ones(3, bool), None, 12)
    assert odd.returns[:, 0].tolist() == [4.0, 5.0, 4.0, 5.0]  # every other row is of other environments
    whole = add_step(no_segments(3, 1), jnp.array([[4.0], [5.0]]), jnp.array([True, False]), None, 12)
    assert whole.returns[:, 0].tolist() == [4.0, NO_RETURN, 4.0]  # the third is the first environment again


def test_segments_promise_no_more_than_episodes_last():
    segments = no_segments(2, 1)._replace(returns=jnp.array([[24.0], [NO_RETURN]]))
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), segments)
    # the first policy's episodes end after 30 / 10 = 3 of 12 steps; the second has ended none in 30
    sums = Utilities(jnp.zeros((2, 1)), jnp.array([10.0, 0.0]), jnp.array([30.0, 30.0]))
    assert expected_returns(both, sums, 3, 12)[:, :, 0].tolist() == [[6.0, NO_RETURN], [24.0, NO_RETURN]]
    assert expected_returns(both, sums, None, 12) is both.returns, "whole episodes are what they are"


AGENTS = np.array([0.0, 1.0, 2.0, 5.0, 9.0])  # wishes


def at(*places):
    """Returns (k, 1, n) of policies that stay at these places, for agents within 1."""
    return jnp.asarray(np.clip(1.5 - np.abs(np.array(places)[:, None] - AGENTS), 0, 1)[:, None], jnp.float32)


def test_a_policy_goes_back_to_where_it_was_needed():
    """Policy 1 was at 5 and is at 2 now, where policy 0 is enough: it goes on from what it was."""
    assigner = em(
        2, 5, explore=0, anneal=1, relocate_every=2, starts=1, segment_environments=1, archive_size=2, archive_every=2
    )

    def reassign(state, iteration, returns):
        inputs = EStepInput(returns[:, 0], jnp.int32(iteration), jnp.float32(0.0), returns)
        return assigner.reassign(jax.random.key(0), state, inputs)

    state = assigner.init(jax.random.key(0))
    for iteration in (0, 1):
        state, copies = reassign(state, iteration, at(1, 5))
        assert copies.sources.tolist() == [0, 1]
    state, copies = reassign(state, 2, at(1, 2))
    stays, goes = copies.sources.tolist()
    assert stays == 0
    assert goes >= 2, "from the archive"
    assert state.labels.tolist()[:4] == [0, 0, 0, 1]
    held, _ = reassign(state, 3, at(9, 9))
    assert held.labels.tolist() == state.labels.tolist(), "nobody moves while copies learn"


def test_where_a_trunk_is_shared_nobody_goes_back():
    assigner = em(2, 5, explore=0, anneal=1, relocate_every=1, segment_environments=1, archive_size=2, archive_every=1)
    state = assigner.init(jax.random.key(0))
    for iteration, returns in enumerate([at(1, 5), at(1, 2), at(1, 2)]):
        inputs = EStepInput(returns[:, 0], jnp.int32(iteration), jnp.float32(0.1), returns, can_restore=False)
        state, copies = assigner.reassign(jax.random.key(0), state, inputs)
        assert max(copies.sources.tolist()) < 2
        assert max(assigner.conclude(state, inputs)[1].tolist()) < 2


@pytest.mark.parametrize("iterations", [30, 60, 95])
def test_places_are_chosen_when_annealing_is_over(iterations):
    """After a fifth of the run, which in float32 is now a little more and now a little less."""
    assigner = em(2, 5, explore=0, starts=1, segment_environments=1, archive_size=2, archive_every=1)

    @jax.jit
    def reassign(state, iteration, returns):
        progress = (iteration + 1).astype(jnp.float32) / iterations  # compiled along, as in training
        return assigner.reassign(jax.random.key(0), state, EStepInput(returns[:, 0], iteration, progress, returns))

    state, went_back = assigner.init(jax.random.key(0)), []
    for iteration in range(iterations // 2):
        returns = at(1, 5) if iteration < iterations // 5 - 1 else at(1, 2)
        state, copies = reassign(state, jnp.int32(iteration), returns)
        went_back += [iteration + 1] if max(copies.sources.tolist()) >= 2 else []
    assert went_back[0] == iterations // 5


def test_whoever_has_shown_nothing_yet_is_left_there():
    """Of two segments one is for the search, the other to judge by; policy 1, worth nothing, could go back to 5."""
    returns = jnp.concatenate([at(1, 2), at(1, 5)]).repeat(2, axis=1)
    labels, age, rounds = jnp.array([0, 0, 0, 1, 1]), jnp.array([9.0, 9.0, 1.0, 1.0]), jnp.int32(4)
    assert propose_relocation(2, returns, age, labels, rounds).accepted
    for row in (1, 3):
        assert not propose_relocation(2, returns.at[row, 1].set(NO_RETURN), age, labels, rounds).accepted


@pytest.mark.parametrize(("relocate_until", "moved"), [(0.5, False), (1.0, True)])
def test_policies_are_not_relocated_at_the_end_of_the_run(relocate_until, moved):
    assigner = em(
        2,
        5,
        explore=0,
        anneal=1,
        relocate_every=1,
        starts=1,
        segment_environments=1,
        archive_size=2,
        archive_every=1,
        relocate_until=relocate_until,
    )
    state, sources = assigner.init(jax.random.key(0)), [0, 1]
    for iteration, (progress, returns) in enumerate([(0.1, at(1, 5)), (0.9, at(1, 2))]):
        inputs = EStepInput(returns[:, 0], jnp.int32(iteration), jnp.float32(progress), returns)
        state, copies = assigner.reassign(jax.random.key(0), state, inputs)
        sources = copies.sources.tolist()
    assert (sources != [0, 1]) == moved


@pytest.mark.parametrize("over", [False, True])
def test_a_stopped_run_is_judged_by_the_best_it_knows(over):
    """Policy 1 was at 5 and is at 2; nothing is due, but whoever stops now is given what was at 5."""
    assigner = em(
        2, 5, explore=0, anneal=1, relocate_every=99, starts=1, segment_environments=1, archive_size=2, archive_every=2
    )
    state, archived = assigner.init(jax.random.key(0)), jnp.zeros((assigner.archive_size, 5))
    for iteration, returns in enumerate([at(1, 5), at(1, 5), at(1, 2)]):
        inputs = EStepInput(returns[:, 0], jnp.int32(iteration), jnp.float32(0.1), returns, archived)
        state, copies = assigner.reassign(jax.random.key(0), state, inputs)
        assert copies.sources.tolist() == [0, 1]
        archived = jnp.concatenate([returns[:, 0], archived])[copies.archive_sources]
    inputs = inputs._replace(archived=archived)
    if over:
        state = state._replace(start=state.start._replace(number=jnp.int32(0)))
    labels, sources = assigner.conclude(state, inputs)
    assert labels.tolist()[:4] == [0, 0, 0, 1]
    if over:  # no start is under way, so those that were best together
        assert sources.tolist() == [assigner.archive_size, assigner.archive_size + 1]
    else:
        assert sources.tolist()[0] == 0
        assert sources.tolist()[1] >= 2, "from the archive"


@pytest.mark.parametrize(("falls_at", "falls_to", "goes_back_at"), [(14, 2, [16]), (17, 2, [20]), (14, 4.9, []), (17, 4.9, [])])
def test_a_run_that_gets_worse_goes_back_to_what_it_had(falls_at, falls_to, goes_back_at):
    """When relocations, of which none is due, would be over, in iteration 16 of 20; or in the last one. Not for a little."""
    options = {"explore": 0, "anneal": 1, "relocate_every": 99, "starts": 1, "segment_environments": 1}
    assigner = em(2, 5, **options, archive_size=2, archive_every=1)

    @jax.jit
    def reassign(state, iteration, returns, archived):
        progress = (iteration + 1).astype(jnp.float32) / 20
        inputs = EStepInput(returns[:, 0], iteration, progress, returns, archived)
        return assigner.reassign(jax.random.key(0), state, inputs)

    state, archived, went_back = assigner.init(jax.random.key(0)), jnp.zeros((assigner.archive_size, 5)), []
    for iteration in range(20):
        returns = at(1, 5) if iteration + 1 < falls_at or went_back else at(1, falls_to)
        state, copies = reassign(state, jnp.int32(iteration), returns, archived)
        if copies.sources.tolist() != [0, 1]:
            went_back.append(iteration + 1)
            assert copies.sources.tolist() == [assigner.archive_size, assigner.archive_size + 1]
            assert state.labels.tolist()[:4] == [0, 0, 0, 1]
        archived = jnp.concatenate([returns[:, 0], archived])[copies.archive_sources]
    assert went_back == goes_back_at


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relocate_every": 0}, "relocate_every = 0"),
        ({"archive_size": 0}, "archive_size = 0"),
        ({"starts": 0}, "starts = 0"),
        ({"anneal": 0}, "anneal = 0"),
        ({"explore": -1}, "explore = -1"),
        ({"relocate_until": 1.5}, "relocate_until = 1.5"),
        ({"segment_environments": 0}, "segment_environments = 0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        em(2, 5, **options)


@pytest.mark.parametrize("k", [1, 5])
def test_where_there_is_nothing_to_choose_nothing_is_stored(k):
    assigner = em(k, 5)
    assert (assigner.name, assigner.archive_size, assigner.segment_environments) == ("em", 0, 0)
    assert set(assigner.init(jax.random.key(0)).tolist()) == set(range(k))
