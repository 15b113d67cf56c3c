"""Every assigner keeps the same contract; hard E-steps serve everybody at least as well as before and empty no policy."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax import ConfigError, EStepInput, Population, cover, em, fixed, plain_em, random_even
from rmdp_jax.assigners.base import Given
from rmdp_jax.assigners.halving_em import halving_em
from rmdp_jax.assigners.plain_em import best_policies
from rmdp_jax.assigners.seeded_em import seeded_em
from rmdp_jax.assigners.split_and_merge import split_and_merge

SIZES = [(1, 1), (1, 4), (2, 5), (3, 7), (5, 5)]
ASSIGNERS = {
    "em": lambda k, n: em(k, n, anneal=2, relocate_every=2, segment_environments=3, archive_size=4),
    "plain_em": lambda k, n: plain_em(k, n, warmup=1),
    "split_and_merge": lambda k, n: split_and_merge(k, n, warmup=1, every=2),
    "seeded_em": lambda k, n: seeded_em(k, n, warmup=2, hold=2, tries=2, segment_environments=3),
    "halving_em": lambda k, n: halving_em(k, n, starts=2, warmup=1),
    "random": random_even,
    "cover": lambda k, n: cover(Population(jnp.arange(n) % 3, lambda agent, outcome: outcome), k),
    "fixed": lambda k, n: fixed(k, n, jnp.arange(n) % k),
}
CASES = [pytest.param(make, k, n, id=f"{name}-{k}-{n}") for (name, make), (k, n) in product(ASSIGNERS.items(), SIZES)]


def adversarial(k, n):
    """Utilities that would empty policies: one policy best for all, an agent everybody's favourite, no difference at all."""
    rng = np.random.default_rng(0)
    chain = np.eye(k, n, 1) + rng.random((k, n)) * 1e-3
    cases = [rng.normal(size=(k, n)) for _ in range(10)] + [np.zeros((k, n)), chain, -chain]
    cases += [np.eye(k)[j][:, None] + np.zeros(n) for j in range(k)]
    return [case.astype(np.float32) for case in cases]


def inputs_of(assigner, utility, iteration):
    """What an assigner sees; segment returns vary about the utility."""
    noise = jax.random.normal(jax.random.key(iteration), (assigner.segment_environments, assigner.n))
    archived = jnp.zeros((assigner.archive_size, assigner.n)) if assigner.archive_size else None
    return EStepInput(utility, jnp.int32(iteration), jnp.float32(0.0), jnp.asarray(utility)[:, None] + noise[None], archived)


def labels_of(weights):
    return np.asarray(weights).argmax(0)


def welfare(utility, labels):
    return utility[labels, np.arange(utility.shape[1])].mean(dtype=np.float64)


@pytest.mark.parametrize(("make", "k", "n"), CASES)
def test_contract(make, k, n):
    assigner = make(k, n)
    assert (assigner.k, assigner.n) == (k, n)
    reassign = jax.jit(assigner.reassign)
    state = assigner.init(jax.random.key(0))
    described = jax.tree.map(jax.typeof, state)
    for i, utility in enumerate(adversarial(k, n) + adversarial(k, n)[::-1]):
        before = np.asarray(assigner.weights(state))
        state, copies = reassign(jax.random.key(i), state, inputs_of(assigner, utility, i))
        weights = np.asarray(assigner.weights(state))
        assert (weights.shape, weights.dtype) == ((k, n), np.float32)
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(0), 1.0, atol=1e-6)
        if np.isin(weights, [0.0, 1.0]).all():
            assert set(labels_of(weights)) == set(range(k)), "a policy was left empty"
        assert jax.tree.map(jax.typeof, state) == described
        assert (copies.sources.shape, copies.sources.dtype) == ((k,), jnp.int32)
        assert set(copies.sources.tolist()) <= set(range(k + assigner.archive_size))
        assert (copies.archive_sources is None) == (assigner.archive_size == 0)
        if assigner.archive_size:
            assert (copies.archive_sources.shape, copies.archive_sources.dtype) == ((assigner.archive_size,), jnp.int32)
            assert set(copies.archive_sources.tolist()) <= set(range(k + assigner.archive_size))
        assert welfare(utility, labels_of(weights)) >= welfare(utility, labels_of(before)) or assigner.name != "plain_em"


@pytest.mark.parametrize(("make", "k", "n"), CASES)
def test_vmap_over_seeds_equals_single_seeds(make, k, n):
    assigner = make(k, n)
    keys = jax.random.split(jax.random.key(0), 4)
    utility = jax.random.normal(jax.random.key(1), (4, k, n))

    def run(key, utility):
        state, copies = assigner.reassign(key, assigner.init(key), inputs_of(assigner, utility, 9))
        return assigner.weights(assigner.descend(jnp.zeros((k, n)), state)), copies

    together, run_alone = jax.jit(jax.vmap(run))(jax.random.clone(keys), utility), jax.jit(run)
    for seed in range(4):
        alone = run_alone(keys[seed], utility[seed])
        jax.tree.map(lambda a, b, seed=seed: np.testing.assert_array_equal(a, b[seed]), alone, together)


GIVEN = [Given(frozen, number) for frozen, number in ((1, 1), (2, 2), (1, 2), (0, 2))]


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("name", [name for name, make in ASSIGNERS.items() if make(3, 7).takes_given])
def test_policies_that_are_given(name, given):
    """Frozen ones may be without agents; those that learn have some."""
    k, n = 3, 7
    assigner, emptied = ASSIGNERS[name](k, n), 0
    reassign = jax.jit(assigner.reassign)
    state = assigner.init(jax.random.key(0))
    for i, utility in enumerate(adversarial(k, n) + adversarial(k, n)[::-1]):
        inputs = inputs_of(assigner, utility, i)._replace(given=given)
        state, _ = reassign(jax.random.key(i), state, inputs)
        weights = np.asarray(assigner.weights(state))
        if np.isin(weights, [0.0, 1.0]).all():
            used = set(labels_of(weights).tolist())
            assert used >= set(range(given.frozen, k)), "a policy that learns was left empty"
            emptied += len(used) < k
    assert emptied > 0 or not given.frozen


def test_first_assignments():
    assert plain_em(2, 5).init(jax.random.key(0)).tolist() == [0, 1, 0, 1, 0]  # round robin
    assert fixed(2, 4, jnp.array([1, 1, 0, 1])).init(jax.random.key(0)).tolist() == [1, 1, 0, 1]
    drawn = [tuple(random_even(3, 11).init(jax.random.key(seed)).tolist()) for seed in range(5)]
    assert len(set(drawn)) == 5
    for labels in drawn:
        assert sorted(np.bincount(labels)) == [3, 4, 4]


def test_fixed_assignments_stay():
    for assigner in (random_even(2, 6), fixed(2, 6, jnp.array([0, 0, 0, 0, 0, 1]))):
        state = assigner.init(jax.random.key(0))
        utility = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)), jnp.float32)
        after, copies = assigner.reassign(jax.random.key(1), state, inputs_of(assigner, utility, 500))
        np.testing.assert_array_equal(after, state)
        assert copies.sources.tolist() == [0, 1]


def test_em_waits_for_its_warm_up():
    assigner = plain_em(2, 3, warmup=50)
    state = assigner.init(jax.random.key(0))
    utility = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])

    def reassign(iteration):
        return assigner.reassign(jax.random.key(0), state, inputs_of(assigner, utility, iteration))[0].tolist()

    moved = {i: reassign(i) for i in (0, 48, 49, 50)}
    assert moved == {0: [0, 1, 0], 48: [0, 1, 0], 49: [1, 0, 1], 50: [1, 0, 1]}  # the 50th M-step has iteration 49


@st.composite
def problems(draw):
    k = draw(st.integers(1, 4))
    n = draw(st.integers(k, 6))
    whole = st.integers(-3, 3)  # a few whole numbers make many ties
    utility = draw(st.lists(st.lists(whole, min_size=n, max_size=n), min_size=k, max_size=k))
    labels = draw(st.permutations([*range(k), *draw(st.lists(st.integers(0, k - 1), min_size=n - k, max_size=n - k))]))
    return np.array(utility, np.float32), np.array(labels, np.int32)


@settings(max_examples=150)
@given(problems())
def test_e_step(problem):
    utility, labels = problem
    k, n = utility.shape
    new = np.asarray(jax.jit(best_policies)(utility, labels))
    agents = np.arange(n)
    own, got, best = utility[labels, agents], utility[new, agents], utility.max(0)
    assert set(new) == set(range(k))
    assert (got >= own).all()  # nobody loses, so welfare never falls
    assert ((new == labels) | (got == best)).all()  # stay, or move to the best
    assert (new == labels)[own == best].all()  # ties stay put, an optimal partition is left alone
    wish = np.where(own == best, labels, utility.argmax(0))
    if set(wish) == set(range(k)):
        np.testing.assert_array_equal(new, wish)
        assert welfare(utility, new) == pytest.approx(max(welfare(utility, np.array(x)) for x in product(range(k), repeat=n)))


@pytest.mark.parametrize(
    ("utility", "labels", "expected"),
    [
        ([[1, 2, 3, 4], [9, 9, 9, 9]], [0, 0, 0, 1], [1, 1, 0, 1]),  # agent 2 loses least by staying with policy 0
        ([[9, 9, 9], [0, 8, 0], [0, 0, 7]], [0, 1, 2], [0, 1, 2]),  # k = n: nobody can go
        ([[0, 5, 5], [5, 0, 0], [1, 1, 1]], [0, 1, 2], [1, 0, 2]),  # a swap, while agent 2 must stay
        ([[5, 5], [5, 5]], [1, 0], [1, 0]),  # all the same
    ],
)
def test_e_step_by_hand(utility, labels, expected):
    assert best_policies(jnp.array(utility, jnp.float32), jnp.array(labels, jnp.int32)).tolist() == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: em(3, 2), "k = 3: must be from 1 to n = 2"),
        (lambda: random_even(0, 2), "k = 0: must be from 1 to n = 2"),
        (lambda: fixed(2, 3, jnp.array([0, 1])), r"labels of shape \(2,\), int32: must be \(n,\) = \(3,\) whole numbers"),
        (lambda: fixed(2, 2, jnp.array([0.0, 1.0])), "labels of shape .* float32: .* whole numbers"),
        (lambda: fixed(2, 3, jnp.array([0, 0, 0])), r"labels name policies \[0\]: each of 0..1 needs an agent"),
        (lambda: fixed(2, 3, jnp.array([0, 1, 2])), r"labels name policies \[0, 1, 2\]: each of 0..1 needs an agent"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_first_assignments_made_by_functions_are_checked_too():
    with pytest.raises(ConfigError, match=r"labels name policies \[0\]"):
        plain_em(2, 3, first=lambda key, k, n: jnp.zeros(n, jnp.int32))


def test_the_e_step_ends_even_where_a_policy_had_no_agent():
    labels = best_policies(jnp.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), jnp.zeros(3, jnp.int32))
    assert labels.tolist() == [0, 0, 0]  # nobody to call back
