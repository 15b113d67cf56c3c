"""The theorem for p-means: welfare falls at no half step, and one policy ends at the optimum of the concave problem."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from rmdp_jax.evaluation.occupancy import balance, best_actions, line_search, p_slope, p_welfare, solve_mixed, visits
from rmdp_jax.evaluation.tabular import TabularMDP

pytestmark = pytest.mark.slow

PS = [1.0, 0.0, -5.0, -np.inf]


def random_mdp(seed, states=4, actions=3, n=5, discount=0.8):
    """Rewards above 0.05, as p-means ask for returns above 0."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.3), (states, actions))
    reward = 0.05 + rng.random((n, states, actions)) ** 4
    return TabularMDP(transition, reward, rng.dirichlet(np.ones(states)), discount)


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("seed", range(5))
def test_welfare_falls_at_no_half_step(p, seed):
    mdp = random_mdp(seed, n=6)
    found = solve_mixed(mdp, 2, np.arange(6) % 2, p)
    assert np.diff(found.welfare).min() >= -1e-12
    own = found.utility[found.labels, np.arange(6)]
    assert (own == found.utility.max(0)).all(), "nobody would rather be elsewhere"
    flow, start = balance(mdp)
    for measure in found.occupancy:
        assert measure.min() >= -1e-9
        np.testing.assert_allclose(flow @ measure.ravel(), start, atol=1e-9)


def optimum(mdp, p):
    """The best welfare of one policy, by scipy's SLSQP on the occupancy polytope; p > -inf."""
    flow, start = balance(mdp)
    reward = np.asarray(mdp.reward).reshape(len(mdp.reward), -1)

    def loss(d):
        return -p_welfare(np.maximum(reward @ d, 1e-9), p)

    begun = visits(mdp, best_actions(mdp, np.asarray(mdp.reward).sum(0))).ravel()
    found = minimize(
        loss,
        begun,
        method="SLSQP",
        bounds=[(0, None)] * len(begun),
        constraints=LinearConstraint(flow, start, start),
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return -found.fun


@pytest.mark.parametrize("p", PS[:3])
@pytest.mark.parametrize("seed", range(4))
def test_one_policy_reaches_the_optimum_of_the_concave_problem(p, seed):
    mdp = random_mdp(seed)
    found = solve_mixed(mdp, 1, np.zeros(5, int), p, rounds=20, steps=50)
    best = optimum(mdp, p)
    assert found.welfare[-1] == pytest.approx(best, rel=1e-3)
    assert found.welfare[-1] <= best * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_for_the_least_it_is_what_p_means_tend_to(seed):
    mdp = random_mdp(seed)
    least = solve_mixed(mdp, 1, np.zeros(5, int), -np.inf).welfare[-1]
    for p in (-20.0, -80.0):  # W_p is from the least to n^(-1/p) times it, so both optima are
        assert least * (1 - 1e-6) <= optimum(mdp, p) <= least * 5 ** (-1 / p) * (1 + 1e-6)


def test_a_best_policy_for_the_gradient_alone_can_lower_welfare():
    # one state, two actions, two agents who want opposites: the gradient at any unequal mixture asks for one action alone
    mdp = TabularMDP(np.ones((1, 2, 1)), np.array([[[1.0, 0.01]], [[0.01, 1.0]]]), np.ones(1), 0.0)
    own = np.array([0.7, 0.31])
    measure = visits(mdp, best_actions(mdp, np.tensordot(p_slope(own, 0.0), mdp.reward, 1)))
    new = np.einsum("sa,nsa->n", measure, mdp.reward)
    assert p_welfare(new, 0.0) < p_welfare(own, 0.0)
    share = line_search(own, new - own, 0.0)
    assert 0.0 < share < 1.0
    assert p_welfare(own + share * (new - own), 0.0) > p_welfare(own, 0.0)
    found = solve_mixed(mdp, 1, np.zeros(2, int), 0.0)
    np.testing.assert_allclose(found.utility[0], [0.505, 0.505], rtol=1e-6)
