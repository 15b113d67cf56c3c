"""When an start of `em` ends, by hand, and that what the best start found is not lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import EStepInput, em
from rmdp_jax.assigners.restarts import check_stopping_rule, first_start, next_start, reset_best

ITERATIONS, LIMITS = 100, {"max_starts": 3, "until": 0.8}

SETTLED = jnp.bool_(True)


def follow(welfare):
    """Verdicts (ends, again) by iteration of a run with this welfare, where there was one."""
    start, decisions = first_start(), {}
    judge = jax.jit(lambda *given, settled: check_stopping_rule(*given, settled=settled, **LIMITS))
    for now in range(1, ITERATIONS + 1):
        begun = int(start.began_at)
        start, decision = judge(
            start,
            jnp.float32(welfare(now - begun)),
            jnp.int32(now),
            jnp.float32(ITERATIONS),
            settled=jnp.bool_(now - begun >= 10),
        )
        if decision.stop:
            decisions[now] = bool(decision.restart)
        start = next_start(start, decision, jnp.int32(now))
    return decisions


def test_a_run_that_rises_has_one_attempt():
    assert follow(lambda age: 1.05**age) == {}


def test_attempts_follow_each_other_while_there_is_time():
    # Welfare stays from iteration 17 of an start on, so it is over after 23 (6 are a quarter of 23), twice again while another
    # 23 fit into the first 80; `most` is 3.
    assert follow(lambda age: 1.05 ** min(age, 17)) == {23: True, 46: True, 69: False}


def test_no_attempt_begins_that_would_not_be_over_in_time():
    assert follow(lambda age: 1.05 ** min(age, 29)) == {39: True, 78: False}
    assert follow(lambda age: 1.05 ** min(age, 33)) == {44: False}


def test_a_run_that_creeps_has_stopped_rising():
    """By a tenth in a quarter of its iterations it has to rise, or what stands and never learns to hop would go on for ever."""
    assert follow(lambda age: 1.2 ** min(age, 12) * 1.01 ** max(age - 12, 0)) == {16: True, 32: True, 48: False}


def test_a_later_start_ends_where_relocation_does():
    start = first_start()._replace(
        number=jnp.int32(2), began_at=jnp.int32(40), improved_at=jnp.int32(79), best=jnp.float32(1.0)
    )
    _, decision = check_stopping_rule(
        start, jnp.float32(1.0), jnp.int32(80), jnp.float32(ITERATIONS), settled=SETTLED, **LIMITS
    )
    assert (bool(decision.stop), bool(decision.restart)) == (True, False)
    first = start._replace(number=jnp.int32(1), began_at=jnp.int32(0))
    _, decision = check_stopping_rule(
        first, jnp.float32(1.0), jnp.int32(80), jnp.float32(ITERATIONS), settled=SETTLED, **LIMITS
    )
    assert not decision.stop, "the only start goes on"


def test_who_has_moved_gets_time_to_rise_again():
    start = first_start()._replace(best=jnp.float32(5.0), improved_at=jnp.int32(10))
    for moved, rises in ((False, 10), (True, 20)):
        after, _ = check_stopping_rule(
            reset_best(start, jnp.bool_(moved)),
            jnp.float32(1.0),
            jnp.int32(20),
            jnp.float32(ITERATIONS),
            settled=SETTLED,
            **LIMITS,
        )
        assert int(after.improved_at) == rises


@pytest.mark.parametrize("second", [1.0, 9.0])
def test_the_best_of_all_attempts_goes_on(second):
    """Two policies bring their agents 5 in a first start, and `second` in the next: the better ones stay."""
    k, n, iterations = 2, 3, 60
    assigner = em(k, n, explore=0, anneal=2, relocate_every=4, segment_environments=2, archive_size=4, archive_every=3)
    state = assigner.init(jax.random.key(0))
    reassign = jax.jit(assigner.reassign)
    held = np.zeros((assigner.archive_size, n))  # what the stored policies would bring
    served = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    own, first, starts, begun = 5.0 * served, 5.0 * served, 1, None
    held[-2 * k :] = np.tile(first, (2, 1))  # as the trainer's archive begins
    for iteration in range(iterations):
        utility = jnp.asarray(own, jnp.float32)
        returns = jnp.broadcast_to(utility[:, None], (k, 2, n))
        inputs = EStepInput(utility, jnp.int32(iteration), jnp.float32((iteration + 1) / iterations), returns)
        state, copies = reassign(jax.random.key(iteration), state, inputs)
        known = np.concatenate([own, held])
        own, held = known[np.asarray(copies.sources)], known[np.asarray(copies.archive_sources)]
        if int(state.start.number) > starts:
            starts = int(state.start.number)
            np.testing.assert_array_equal(own, first, "who begins anew begins as the first policies")
            own, begun = second * served, begun or iteration + 1
        if begun and iteration + 1 == begun + 2:
            assert own.max() == max(5.0, second), "the first relocation knows the start before"
    assert starts >= 2
    assert own[np.asarray(state.labels), np.arange(n)].tolist() == [max(5.0, second)] * n


def test_the_best_of_an_attempt_are_known_to_the_next_whenever_they_were_archived():
    """Policies that lose all in the very iteration in which their start ends: the archive has what they were."""
    k, n, size = 2, 3, 4
    assigner = em(k, n, explore=0, anneal=2, relocate_every=4, segment_environments=2, archive_size=size, archive_every=3)
    reassign, served = jax.jit(assigner.reassign), jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    def end_of_first(lost_at):
        state = assigner.init(jax.random.key(0))
        for iteration in range(60):
            utility = 5.0 * served * float(iteration < lost_at)
            returns = jnp.broadcast_to(utility[:, None], (k, 2, n))
            inputs = EStepInput(utility, jnp.int32(iteration), jnp.float32((iteration + 1) / 60), returns)
            state, copies = reassign(jax.random.key(iteration), state, inputs)
            if int(state.start.number) == 2:
                return iteration, state, np.asarray(copies.archive_sources)
        raise AssertionError("the first start has not ended")

    ended, _, best = end_of_first(60)
    assert best[size : size + k].tolist() == [0, 1], "the present ones"
    again, state, best = end_of_first(ended)
    assert again == ended
    assert (best[size : size + k] >= k).all(), "archived ones"
    np.testing.assert_array_equal(state.returns[size:, 0], 5.0 * served)
    assert state.archived_at[size:].tolist() == [ended + 1] * k == [int(state.start.began_at)] * k


def test_an_attempt_begins_with_all_alike_and_cools_to_the_best():
    assigner = em(2, 3, explore=0, anneal=10, segment_environments=2, archive_size=2)
    state, reassign = assigner.init(jax.random.key(0)), jax.jit(assigner.reassign)
    assert np.asarray(assigner.weights(state)).tolist() == [[0.5] * 3] * 2
    utility, sharpest = jnp.array([[4.0, 2.0, 0.0], [2.0, 3.0, 0.0]]), []
    for iteration in range(12):
        returns = jnp.broadcast_to(utility[:, None], (2, 2, 3))
        state, _ = reassign(jax.random.key(0), state, EStepInput(utility, jnp.int32(iteration), jnp.float32(0.0), returns))
        weights = np.asarray(assigner.weights(state))
        np.testing.assert_allclose(weights.sum(0), 1.0, rtol=1e-6)
        sharpest.append(weights[:, :2].max(0).min())
    assert np.all(np.diff(sharpest) >= 0)
    assert weights[:, :2].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    # Softmax over 0.3 (0.005 / 0.3)^(1/10) times the range 4 of the utilities, of the second agent, who gains 1:
    np.testing.assert_allclose(sharpest[0], 1.0 / (1.0 + np.exp(-1.0 / (4.0 * 0.3 * (0.005 / 0.3) ** 0.1))), rtol=1e-5)


def test_policies_learn_while_welfare_rises():
    """Iterations since the last rise by a fiftieth, of welfare that rises by 1% and by 0.1% an iteration."""
    waited = {}
    for rate in (1.01, 1.001):
        start, waits = first_start(), []
        for now in range(1, 41):
            welfare = jnp.float32(rate**now)
            start, _ = check_stopping_rule(start, welfare, jnp.int32(now), jnp.float32(1000), settled=SETTLED, **LIMITS)
            waits.append(now - int(start.learned_at))
        waited[rate] = max(waits)
    assert waited == {1.01: 1, 1.001: 19}
    assert int(reset_best(start, jnp.bool_(True)).learned) < 0
