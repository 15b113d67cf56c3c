"""Welfare as a p-mean: numbers worked out by hand, and what training on other terms comes to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import EStepInput, end_to_end, plain_em
from rmdp_jax.assigners.exchange import best_within
from rmdp_jax.assigners.facility_location import choose_facilities
from rmdp_jax.limits import Limits, loads_of, search_within
from rmdp_jax.policies.critics import CRITICS
from rmdp_jax.welfare import FLOOR, make_welfare, marginal, p_mean, worth


@pytest.mark.parametrize(
    ("p", "weights", "expected"),
    [
        (1.0, None, 0.5),
        (1.0, (3.0, 1.0), (3 * 0.2 + 0.8) / 4),
        (0.0, None, 0.4),  # the root of 0.2 * 0.8
        (0.0, (3.0, 1.0), (0.2**3 * 0.8) ** 0.25),
        (-1.0, None, 0.32),  # 2 / (1 / 0.2 + 1 / 0.8)
        (0.5, None, (0.2**0.5 / 2 + 0.8**0.5 / 2) ** 2),
        (-np.inf, None, 0.2),
        (-np.inf, (1.0, 100.0), 0.2),
    ],
)
def test_p_means_by_hand(p, weights, expected):
    weights = None if weights is None else jnp.array(weights)
    assert float(p_mean(jnp.array([0.2, 0.8]), p, weights)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("p", [1.0, 0.5, 0.0, -1.0, -10.0, -np.inf])
def test_equal_returns_are_their_own_mean(p):
    assert float(p_mean(jnp.full(7, 0.3), p)) == pytest.approx(0.3, rel=1e-5)


def test_welfare_falls_with_p_and_is_never_above_the_mean():
    returns = jnp.array([0.05, 0.5, 0.9, 1.0])
    means = [float(p_mean(returns, p)) for p in (1.0, 0.5, 0.0, -1.0, -5.0, -np.inf)]
    assert means == sorted(means, reverse=True)
    assert float(p_mean(returns, -60.0)) == pytest.approx(0.05 * 4 ** (1 / 60), rel=1e-4), "near its limit, the least"


@pytest.mark.parametrize(("p", "expected"), [(0.5, 0.25), (0.0, 0.0), (-2.0, 0.0), (-np.inf, 0.0)])
def test_who_gets_nothing_or_less(p, expected):
    assert float(p_mean(jnp.array([0.0, 1.0]), p)) == pytest.approx(expected)
    assert float(p_mean(jnp.array([-1.0, 1.0]), p)) == pytest.approx(expected), "less than nothing counts as nothing"
    assert float(p_mean(jnp.zeros(3), p)) == 0.0


@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, -10.0, -np.inf])
def test_worth_rises_ever_less_and_marginal_is_its_slope(p):
    returns = jnp.linspace(0.0, 1.0, 11)
    assert (np.diff(worth(jnp.linspace(-1.0, 0.1, 11), p)) > 0).all(), "below 0 too"
    value, slope = worth(returns, p), jax.vmap(jax.grad(lambda u: worth(u, p)))(returns)
    assert (np.diff(value) > 0).all()
    assert (np.diff(slope)[1:] < 0).all()
    np.testing.assert_allclose(marginal(returns, p)[1:], slope[1:], rtol=2e-4)
    assert np.isfinite(np.asarray(value)).all()
    assert float(marginal(jnp.float32(1.0), p)) == 1.0


def test_the_gradient_of_welfare_is_proportional_to_what_counts():
    returns = jnp.array([20.0, 50.0, 90.0])
    weights = jnp.array([1.0, 2.0, 0.5])
    welfare = make_welfare(-1.0, 0.01, weights)
    lifted = (returns + 100 * FLOOR) / (1 + FLOOR)  # as in training
    slope = jax.grad(lambda u: 100 * p_mean(u / 100, -1.0, weights))(lifted)
    np.testing.assert_allclose(welfare.counts(returns), slope / slope.max(), rtol=1e-4)


def test_plain_welfare_is_the_mean():
    welfare, returns = make_welfare(1.0, 0.01), jnp.array([20.0, 50.0, 90.0])
    assert welfare.plain
    assert float(welfare.mean(returns)) == pytest.approx(160 / 3)
    np.testing.assert_allclose(welfare.worth(returns, None), returns)


def test_worth_of_some_agents_goes_by_their_own_weights():
    welfare = make_welfare(1.0, 0.01, jnp.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(welfare.worth(jnp.array([[10.0, 10.0]]), np.array([0, 2])), [[5.0, 15.0]])


def test_the_most_that_welfare_can_be_is_not_below_nothing():
    welfare = make_welfare(0.0, 0.01)
    assert float(welfare.most(welfare.worth(jnp.array([-50.0]), None)[0])) == pytest.approx(0.0, abs=1e-4)
    assert float(welfare.most(welfare.worth(jnp.array([50.0]), None)[0])) == pytest.approx(50.0, rel=1e-4)


@pytest.mark.parametrize("p", [1.0, -2.0, -np.inf])
def test_end_to_end_finds_the_best_policy_of_each_on_any_terms(p):
    returns = jnp.asarray(
        np.random.default_rng(0).permuted(np.repeat([[60.0], [30.0], [0.0]], 50, axis=1), axis=0), jnp.float32
    )
    assigner, value = end_to_end(3, 50), make_welfare(p, 0.01).worth(returns, None)
    inputs = EStepInput(value, jnp.int32(0), returns=returns if p < 1.0 else None)
    step = jax.jit(lambda soft: assigner.reassign(jax.random.key(0), soft, inputs)[0])
    soft = assigner.init(jax.random.key(1))
    for _ in range(100):
        soft = step(soft)
    np.testing.assert_array_equal(assigner.weights(soft).argmax(0), returns.argmax(0))


def test_a_warm_up_is_half_of_the_run_at_most():
    assigner = plain_em(2, 4)
    utility = jnp.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
    labels = assigner.init(jax.random.key(0))
    for iterations, moves in ((20, 10), (400, 50)):
        for now in (moves - 1, moves):
            inputs = EStepInput(utility, jnp.int32(now - 1), jnp.float32(now / iterations))
            after, _ = assigner.reassign(jax.random.key(0), labels, inputs)
            np.testing.assert_array_equal(after, [1, 0, 1, 0] if now == moves else [0, 1, 0, 1])


def test_who_counts_little_has_a_whole_reward():
    rewards, weights = jnp.array([[1.0, 3.0]]), jnp.array([1.0, 1.0])
    for size in (1.0, 1e-12, 1e-30):
        np.testing.assert_allclose(CRITICS["mixed"].columns(rewards, size * weights), [[2.0]], rtol=1e-6)
    np.testing.assert_allclose(CRITICS["mixed"].columns(rewards, 0.0 * weights), [[0.0]])


def test_a_return_of_nothing_hides_no_other():
    returns = np.random.RandomState(0).uniform(5.0, 95.0, (4, 40))
    returns[0, 0] = 0.0  # which nobody needs
    welfare, agents = make_welfare(-np.inf, 0.01), np.arange(40)
    value = np.asarray(welfare.worth(jnp.float32(returns), None))
    least = returns[search_within(value, Limits(at_most=10)).labels, agents].min()
    by_exchange = best_within(jnp.asarray(value), jnp.zeros(40, jnp.int32), loads_of(Limits(at_most=10), 4, 40))
    assert least > 50.0
    assert returns[np.asarray(by_exchange), agents].min() > 0.95 * least


def test_an_agent_whom_nobody_pays_leaves_the_choice_of_the_others():
    paid = [[80, 30, 30, 0], [90, 30, 30, 0], [30, 90, 30, 0], [30, 30, 90, 0], [30, 80, 30, 0]]
    value = make_welfare(-np.inf, 0.01).worth(jnp.float32(paid), None)
    chosen = choose_facilities(value, jnp.ones(5, bool), jnp.zeros(3, jnp.int32), jnp.int32(6))
    assert sorted(np.asarray(chosen).tolist()) == [1, 2, 3]
