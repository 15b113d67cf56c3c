"""Successive halving: its timetable; who goes on, with which policies, and after how many iterations of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, EStepInput, make_trainer
from rmdp_jax.assigners.halving_em import halving_em, make_schedule
from tests.probes import PROBES, make_probe, probe_config

K, N, STARTS = 2, 12, 4


def test_every_round_takes_as_long_and_has_half_as_many():
    turns = make_schedule(4)
    assert turns.round.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert turns.rank.tolist() == [0, 1, 2, 3, 0, 1, 0]
    np.testing.assert_allclose(turns.ends, np.array([1, 2, 3, 4, 6, 8, 12]) / 12, rtol=1e-6)


class Policies:
    """Stand-ins for what the trainer keeps: of each policy and slot of the archive, the start it is of and its iterations."""

    def __init__(self, assigner):
        self.own = np.zeros((K, 2), int)
        self.archive = np.full((assigner.archive_size, 2), -1)

    def learn(self, start):
        self.own[:, 0] = start
        self.own[:, 1] += 1

    def copy(self, copies):
        known = np.concatenate([self.own, self.archive])
        self.own, self.archive = known[np.asarray(copies.sources)].copy(), known[np.asarray(copies.archive_sources)]


ASSIGNER = halving_em(K, N, starts=STARTS, warmup=2)
REASSIGN = jax.jit(ASSIGNER.reassign)


def inputs_at(labels, quality, iteration, iterations):
    """All agents get `quality` from their policies, and less from the others."""
    utility = np.where(np.arange(K)[:, None] == np.asarray(labels), quality, -1.0).astype(np.float32)
    progress = jnp.float32((iteration + 1) / iterations)
    return EStepInput(jnp.asarray(utility), jnp.int32(iteration), progress, archived=jnp.zeros((ASSIGNER.archive_size, N)))


def race(qualities, iterations, stop=None):
    """A race whose starts are served as well as `qualities` say: whose turns, policies and state at its end."""
    state, policies, ran = ASSIGNER.init(jax.random.key(1)), Policies(ASSIGNER), []
    starts = [tuple(labels) for labels in np.asarray(state.saved_labels).tolist()]
    assert len(set(starts)) == STARTS
    for iteration in range(stop or iterations):
        ran.append(starts.index(tuple(state.labels.tolist())))
        policies.learn(ran[-1])
        inputs = inputs_at(state.labels, qualities[ran[-1]], iteration, iterations)
        state, copies = REASSIGN(jax.random.key(0), state, inputs)
        policies.copy(copies)
    return ran, policies, state


@pytest.mark.parametrize("qualities", [[1.0, 4.0, 2.0, 3.0], [4.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 2.0, 1.0]])
def test_the_better_half_goes_on_with_its_own_policies(qualities):
    ran, policies, _ = race(qualities, 48)
    best, second = np.argsort(qualities)[::-1][:2].tolist()
    assert ran == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [best] * 8 + [second] * 8 + [best] * 16
    # The first iteration is that of the first policies, from which all starts begin.
    assert policies.own.tolist() == [[best, 28 + (best > 0)]] * K


@pytest.mark.parametrize(("stop", "best"), [(3, 0), (4, 0), (7, 0), (8, 0), (10, 2), (16, 2), (20, 2), (28, 2), (40, 2)])
def test_a_run_that_is_stopped_is_judged_by_its_best_start(stop, best):
    qualities = [2.0, 1.0, 4.0, 3.0]
    _, policies, state = race(qualities, 48, stop)
    start, learned = policies.own[0]
    now = qualities[start] if learned > 1 else 0.0  # nobody is served well by the first policies
    labels, sources = ASSIGNER.conclude(state, inputs_at(state.labels, now, stop - 1, 48))
    known = np.concatenate([policies.own, policies.archive])[np.asarray(sources)]
    assert known[:, 0].tolist() == [best] * K
    assert labels.tolist() == state.saved_labels[best].tolist()


def test_runs_too_short_for_all_turns_still_end():
    for iterations in range(1, 14):
        _, policies, _ = race([1.0, 2.0, 3.0, 4.0], iterations)
        assert (policies.own[:, 1] > 0).all(), "nobody went on from an empty row"


def test_agents_wait_until_a_start_has_warmed_up():
    assigner = halving_em(K, N, starts=2, warmup=3)
    state, moved = assigner.init(jax.random.key(0)), []
    for iteration in range(8):
        before = state.labels
        utility = jax.nn.one_hot(1 - before, K, axis=0)  # everybody would rather be with the other
        progress = jnp.float32((iteration + 1) / 32)
        inputs = EStepInput(utility, jnp.int32(iteration), progress, archived=jnp.zeros((assigner.archive_size, N)))
        state, _ = assigner.reassign(jax.random.key(0), state, inputs)
        if (state.labels != before).any():
            moved.append(iteration + 1)
    assert moved == [3, 4, 5, 6, 7, 8]  # the turn of eight iterations ends with the eighth


@pytest.mark.slow
def test_one_program_trains_it():
    trainer = make_trainer(*make_probe(PROBES["action"], 4), probe_config(2, 4, 12), halving_em(2, 4, warmup=1))
    state = jax.jit(lambda key: jax.lax.fori_loop(0, 12, lambda _, s: trainer.step(s)[0], trainer.init(key)))(jax.random.key(0))
    assert int(state.assignment.turn) == 6
    assert np.isfinite(state.assignment.welfare).all(), "every start had its turn"
    assert int(state.assignment.order[0]) == int(state.assignment.welfare.argmax())


@pytest.mark.parametrize(("name", "value"), [("starts", 3), ("starts", 1), ("starts", 2.5), ("warmup", -1)])
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ConfigError, match=f"{name} = {value}"):
        halving_em(2, 5, **{name: value})


@pytest.mark.parametrize("k", [1, 4])
def test_starts_that_are_all_alike_are_one(k):
    assert halving_em(k, 4).archive_size == 0
