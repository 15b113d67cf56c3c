"""How `em` explores: as one policy, for those who were paid least, until nobody is paid any better; and what it splits into."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, SIZES, K, N, leaves, make_tiny

from rmdp_jax import EStepInput, TrainConfig, em, make_trainer
from rmdp_jax.assigners.annealing import Lengths, phase_of, weigh
from rmdp_jax.assigners.exploration import begin_exploration, explore_on, weigh_by_need
from rmdp_jax.envs import make
from rmdp_jax.learning.segments import NO_RETURN
from rmdp_jax.m_step import number_of_turns
from rmdp_jax.policies.normalize import NORMALIZERS
from rmdp_jax.policies.returns import RETURN_SCALERS

AGENTS = np.array([0.0, 1.0, 2.0, 5.0, 9.0])  # wishes
TURNS = [("at_once", 2, 2, 1), ("in_turn", 2, 2, 2), ("in_turn", 20, 5, 10)]
EM = {"starts": 2, "segment_environments": 2, "archive_size": 3, "anneal": 2, "relocate_every": 50}


def test_weights_by_hand():
    np.testing.assert_allclose(weigh_by_need(jnp.array([0.0, 2.0, 4.0])), [1 / 0.3, 1 / 0.8, 1 / 1.3], rtol=1e-6)
    np.testing.assert_allclose(weigh_by_need(jnp.array([-4.0, -2.0, 0.0])), [1 / 0.3, 1 / 0.8, 1 / 1.3], rtol=1e-6)
    for nothing in (0.0, NO_RETURN):
        assert len(set(weigh_by_need(jnp.full(3, nothing)).tolist())) == 1, "all alike while nothing is known"


def explore(covered, longest):
    """When an exploration ends in which agents are paid `covered(now)` in iteration `now`."""
    exploration, step = begin_exploration(3), jax.jit(explore_on)
    for now in range(1, 200):
        exploration = step(exploration, jnp.full((2, 3), covered(now), jnp.float32), jnp.int32(now), jnp.int32(longest))
        if not exploration.under_way:
            return now
    return None


def test_it_ends_when_nobody_is_paid_any_better():
    assert explore(lambda now: 1.05**now, 80) == 80, "at its longest"
    assert explore(lambda now: 1.05 ** min(now, 30), 80) == 69, "half of 80 after it was last a tenth higher, in iteration 29"
    assert explore(lambda now: 1.05 ** min(now, 30), 200) == 129, "half of 200 after that"
    assert explore(lambda now: -(0.9**now), 40) == 40, "costs that fall are a rise"
    assert explore(lambda now: 10.0 * (now % 2), 40) == 21, "of the best so far"


def test_beside_given_policies_it_goes_on_for_its_time():
    """What is given pays from the first iteration on, so nobody's best rises while the others still learn to walk."""
    exploration = begin_exploration(3)
    for now in range(1, 10):
        assert bool(exploration.under_way)
        exploration = explore_on(exploration, jnp.full((2, 3), 5.0), jnp.int32(now), jnp.int32(9), may_stall=False)
    assert not bool(exploration.under_way)
    assert int(exploration.ended_at) == 9


def test_who_was_ever_paid_is_remembered():
    exploration = begin_exploration(2)
    for now, utility in enumerate(([3.0, 0.0], [1.0, 2.0]), 1):
        exploration = explore_on(exploration, jnp.array([utility] * 2), jnp.int32(now), jnp.int32(9))
    assert exploration.best.tolist() == [3.0, 2.0]


def test_a_split_takes_the_members_that_serve_all():
    """The one policy was at 1, at 5 and ends at 2: of the archive and itself, 1 and 5 serve the agents at 0, 1, 2, 5 best."""
    assigner = em(2, 5, explore=3, **EM)
    state, archived = assigner.init(jax.random.key(0)), jnp.zeros((assigner.archive_size, 5))
    for iteration, place in enumerate([1, 5, 2]):
        utility = jnp.asarray(np.clip(1.5 - np.abs(place - AGENTS), 0, 1)[None].repeat(2, 0), jnp.float32)
        returns = jnp.broadcast_to(utility[:, None], (2, 2, 5))
        assert bool(assigner.together(state).now), "until the third iteration"
        assert np.asarray(assigner.weights(state)).tolist() == [[0.5] * 5] * 2
        inputs = EStepInput(utility, jnp.int32(iteration), jnp.float32((iteration + 1) / 15), returns, archived)
        state, copies = assigner.reassign(jax.random.key(iteration), state, inputs)
        known = jnp.concatenate([utility, archived])
        archived = known[copies.archive_sources]
    assert not bool(assigner.together(state).now)
    assert min(copies.sources.tolist()) >= 2, "both from the archive"
    labels = state.labels.tolist()
    assert labels[0] == labels[1] == labels[2] != labels[3] == labels[4]
    assert np.asarray(assigner.weights(state)).tolist() == [[0.5] * 5] * 2, "softly, by what they were until now"
    assert sorted(known[copies.sources].tolist()) == [[0.0, 0.0, 0.0, 1.0, 0.0], [0.5, 1.0, 0.5, 0.0, 0.0]], "at 5, and at 1"


def test_policies_that_have_split_get_time_to_rise():
    """Welfare does not rise after the split in iteration 10; no restart before annealing and a relocation would be over."""
    assigner = em(2, 5, explore=10, **EM | {"anneal": 15, "relocate_every": 5})
    state, reassign, restarted = assigner.init(jax.random.key(0)), jax.jit(assigner.reassign), []
    archived = jnp.zeros((assigner.archive_size, 5))
    for now in range(1, 60):
        utility = jnp.full((2, 5), float(now / 2 if now <= 10 else 10), jnp.float32)
        returns = jnp.broadcast_to(utility[:, None], (2, 2, 5))
        inputs = EStepInput(utility, jnp.int32(now - 1), jnp.float32(now / 100), returns, archived)
        state, _ = reassign(jax.random.key(now), state, inputs)
        restarted += [now] * (int(state.start.number) > 1 + len(restarted))
        assert bool(state.exploration.under_way) == (now < 10 or 30 <= now < 36), "a restart explores too, here in vain"
    assert restarted == [30]


def test_a_restart_splits_what_it_found_itself():
    """The second start finds less than the first, whose policies it knows; it splits its own, and has its time to rise."""
    assigner = em(2, 5, explore=10, **EM | {"anneal": 15, "relocate_every": 5})
    state, reassign = assigner.init(jax.random.key(0)), jax.jit(assigner.reassign)
    archived, split = jnp.zeros((assigner.archive_size, 5)), None
    for now in range(1, 60):
        found = 10.0 * np.ones(5) if int(state.start.number) == 1 else np.eye(5)[now % 5]  # one agent after another
        utility = jnp.tile(jnp.asarray(found, jnp.float32), (2, 1))
        returns = jnp.broadcast_to(utility[:, None], (2, 2, 5))
        inputs = EStepInput(utility, jnp.int32(now - 1), jnp.float32(now / 100), returns, archived)
        before = bool(state.exploration.under_way) and int(state.start.number) == 2
        state, copies = reassign(jax.random.key(now), state, inputs)
        known = jnp.concatenate([utility, archived])
        archived = known[copies.archive_sources]
        if before and not state.exploration.under_way:
            split = known[copies.sources]
    assert split is not None
    assert split.max() == 1.0
    assert (split > 0.0).any(0).sum() == 2, "two members, not the one policy twice"


@pytest.fixture(scope="module")
def exploring():
    """A trainer that explores for 3 of 15 iterations; init and step jitted."""
    config = TrainConfig(k=K, n=N, transitions=15 * SIZES.transitions, sizes=SIZES)
    trainer = make_trainer(*make_tiny(), config, em(K, N, **EM))
    return trainer._replace(init=jax.jit(trainer.init), step=jax.jit(trainer.step))


def test_all_policies_are_one_while_it_explores(exploring):
    state = exploring.init(jax.random.key(0))
    alike = []
    for iteration in range(1, 7):
        whole = bool(state.assignment.exploration.under_way)
        state, info = exploring.step(state)
        own = jax.tree.leaves((state.learner.params.own, state.statistics, state.returns, state.utilities))
        alike.append(all((leaf[0] == leaf[1]).all() for leaf in own))
        if whole and iteration < 3:  # the environments of both, one after the other
            updates = np.asarray(state.learner.opt_state.own[1].count)
            assert updates.tolist() == [iteration * K * SIZES.epochs * SIZES.minibatches] * K
            assert float(state.utilities.steps[0]) == pytest.approx(
                SIZES.transitions * sum(0.5**age for age in range(iteration * K)), rel=1e-5
            )
        assert np.asarray(info.losses.loss).shape == (K,)
    assert alike[:2] == [True, True]
    assert not any(alike[3:]), "apart from the split on"


def test_apart_policies_are_never_one():
    config = TrainConfig(k=K, n=N, transitions=15 * SIZES.transitions, sizes=replace(SIZES, explore="apart"))
    trainer = make_trainer(*make_tiny(), config, em(K, N, **EM))
    state, _ = jax.jit(trainer.step)(jax.jit(trainer.init)(jax.random.key(0)))
    assert not state.assignment.exploration.under_way
    assert state.learner.opt_state.own[1].count.tolist() == [SIZES.epochs * SIZES.minibatches] * K
    assert not any((leaf[0] == leaf[1]).all() for leaf in jax.tree.leaves(state.learner.params.own) if leaf.ndim > 2)


def test_apart_is_not_to_explore():
    """From the first iteration on, the archive too, whether the learner cannot or `em` shall not."""
    given = {"explore": 5, **EM, "archive_every": 3}
    states = []
    for explore, can_explore in ((5, False), (0, True)):
        assigner = em(K, N, **given | {"explore": explore})
        state = assigner.init(jax.random.key(0))

        @jax.jit
        def reassign(state, iteration, segments, assigner=assigner, can_explore=can_explore):
            inputs = EStepInput(segments.mean(1), iteration, 0.1 * (iteration + 1).astype(jnp.float32), segments)
            return assigner.reassign(jax.random.key(0), state, inputs._replace(can_explore=can_explore))

        for iteration in range(4):
            segments = jax.random.uniform(jax.random.key(iteration), (K, 2, N))
            state, copies = reassign(state, jnp.int32(iteration), segments)
            states.append((state._replace(exploration=None), copies))
    for several, one in zip(leaves(states[:4]), leaves(states[4:]), strict=True):
        np.testing.assert_array_equal(several, one)


@pytest.mark.slow
@pytest.mark.parametrize(("explore", "k", "size", "turns"), TURNS)
def test_environments_of_several_teach_in_a_turn(explore, k, size, turns):
    """As many updates a turn as after the split, from one batch of all whose turn it is, and statistics of all that was."""
    sizes = replace(SIZES, explore=explore, normalize_observations=True)
    config = TrainConfig(k=k, n=size**2, transitions=15 * sizes.transitions, sizes=sizes)
    trainer = make_trainer(*make("resource_gathering", size=size), config, em(k, size**2, **EM))
    state, step = jax.jit(trainer.init)(jax.random.key(0)), jax.jit(trainer.step)
    first = jax.tree.map(lambda x: x[0], state.learner.params.own)
    for iteration in (1, 2):
        state, info = step(state)
        own = jax.tree.leaves((state.learner.params.own, state.statistics, state.returns, state.utilities))
        assert all((leaf == leaf[:1]).all() for leaf in own)
        assert state.learner.opt_state.own[1].count.tolist() == [iteration * turns * sizes.epochs * sizes.minibatches] * k
        assert state.statistics.count.lo.tolist() == [iteration * k * sizes.transitions] * k
        assert float(state.returns.weight[0]) == pytest.approx(sum(0.95**age for age in range(iteration * turns)))
        group = k // turns
        seen = group * sizes.transitions * sum((1 - 1 / k) ** (group * age) for age in range(iteration * turns))
        assert float(state.utilities.steps[0]) == pytest.approx(seen, rel=1e-5)
        losses = info.losses.loss.reshape(group, turns)
        np.testing.assert_array_equal(losses, losses[:1].repeat(group, 0), "those that share a turn have the same")
        assert len(set(losses[0].tolist())) == turns
        assert info.episodes.shape == (k,)
    moved = jax.tree.map(lambda old, new: bool((old != new[0]).any()), first, state.learner.params.own)
    assert all(jax.tree.leaves(moved))


def test_exploring_is_no_deeper_however_many_policies():
    assert [number_of_turns(k) for k in range(1, 11)] == list(range(1, 11))
    assert {k: number_of_turns(k) for k in (12, 16, 20, 25, 50, 64, 100, 1000)} == {
        **{12: 12, 16: 8, 20: 10, 25: 5, 50: 10, 64: 8, 100: 10, 1000: 10},
    }
    assert [number_of_turns(k) for k in (23, 101)] == [23, 101], "a prime number cannot be shared out evenly"


def test_statistics_of_groups_add_up_to_those_of_all():
    normalizer, scaler = NORMALIZERS[True](3), RETURN_SCALERS[True]()
    obs = jnp.asarray(np.random.RandomState(0).normal(2.0, 3.0, (2, 5, 4, 3)), jnp.float32)  # groups, T, E, o
    known = normalizer.update(normalizer.init(), obs[0, :2], None)
    groups = jax.vmap(lambda obs: normalizer.update(known, obs, "groups"), axis_name="groups")(obs)
    whole = normalizer.update(known, obs.swapaxes(0, 1).reshape(5, 8, 3), None)
    for several, one in zip(leaves(groups), leaves(whole), strict=True):
        np.testing.assert_array_equal(several[0], several[1])
        np.testing.assert_allclose(several[0], one, rtol=1e-5)
    reward, done = obs[..., :1], jnp.zeros((2, 5, 4), bool)
    groups = jax.vmap(lambda reward, done: scaler.update(scaler.init(), reward, done, 0.9, "groups"), axis_name="groups")
    whole = scaler.update(scaler.init(), reward.swapaxes(0, 1).reshape(5, 8, 1), done.reshape(5, 8), 0.9, None)
    for several, one in zip(leaves(groups(reward, done)), leaves(whole), strict=True):
        np.testing.assert_allclose(several, np.full(2, one), rtol=1e-5)


@pytest.mark.slow
def test_exploring_alone_equals_exploring_with_other_seeds(exploring):
    """Of two seeds one has split already and the other has not."""
    states = [exploring.init(jax.random.key(seed)) for seed in (0, 1)]
    for _ in range(4):
        states[0] = exploring.step(states[0])[0]
    both = jax.jit(jax.vmap(exploring.step))(jax.tree.map(_stack, *states))[0]
    for seed, state in enumerate(states):
        for several, one in zip(leaves(both), leaves(exploring.step(state)[0]), strict=True):
            np.testing.assert_array_equal(several[seed], one)


def _stack(*leaves):
    stacked = jnp.stack(leaves)
    return jax.random.clone(stacked) if jnp.issubdtype(stacked.dtype, jax.dtypes.prng_key) else stacked


@pytest.mark.slow
def test_a_shared_trunk_does_not_explore():
    config = TrainConfig(k=K, n=N, transitions=CONFIG.transitions, sizes=replace(SIZES, trunk="shared"))
    trainer = make_trainer(*make_tiny(), config, em(K, N, **EM))
    state, _ = jax.jit(trainer.step)(trainer.init(jax.random.key(0)))
    assert not bool(state.assignment.exploration.under_way)
    heads = jax.tree.leaves(state.learner.params.own)
    assert not all((leaf[0] == leaf[1]).all() for leaf in heads)


def test_neither_need_nor_softness_goes_by_what_returns_are_worth():
    """Utilities of an E-step may be times weights, or worths; how far a policy is the better one is the agent's own."""
    utility, weights = jnp.array([[90.0, 90.0, 10.0], [10.0, 10.0, 50.0]]), jnp.array([0.02, 1.98, 1.0])
    plain = EStepInput(utility, jnp.int32(5))
    weighed = plain._replace(utility=utility * weights[None], returns=utility)
    lengths = Lengths(explore=3, anneal=8, settle=2)
    for age in (2, 6, 10):  # exploring, soft, colder
        ends = []
        for inputs in (plain, weighed):
            phase = phase_of(lengths, begin_exploration(3), jnp.int32(age), inputs, jnp.float32(100))
            ends.append((weigh_by_need(phase.exploration.best), weigh(phase, jnp.zeros(3, jnp.int32), inputs)))
        for one, other in zip(*ends, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
