"""The best assignment within limits, against all assignments there are; and how returns are spread, by hand."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax import ConfigError
from rmdp_jax.evaluation.fairness import fairness, fairness_by_group, of_run
from rmdp_jax.limits import Limits, assign_within, loads_of


def best_by_trying(utility, low, high, weights):
    """The largest weighted sum within the limits, of all k^n assignments; None where none holds them."""
    k, n = utility.shape
    values = []
    for labels in itertools.product(range(k), repeat=n):
        load = np.bincount(labels, weights, minlength=k)
        if (load >= np.asarray(low) - 1e-9).all() and (load <= np.asarray(high) + 1e-9).all():
            values.append(float(weights @ utility[labels, np.arange(n)]))
    return max(values, default=None)


@st.composite
def problems(draw):
    k, n = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    numbers = st.lists(st.integers(-3, 9), min_size=k * n, max_size=k * n)  # small ones, so that there are ties
    utility = np.array(draw(numbers), float).reshape(k, n)
    weights = np.array(draw(st.one_of(st.just([1] * n), st.just([2] * n), st.lists(st.integers(1, 4), min_size=n, max_size=n))))
    limit = st.lists(st.integers(0, 8), min_size=k, max_size=k)
    return utility, draw(limit), draw(limit), weights.astype(float)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_it_is_the_best_of_all_there_are(problem):
    utility, low, high, weights = problem
    best = best_by_trying(utility, low, high, weights)
    if best is None:
        with pytest.raises(ConfigError, match=r"^(at_least|at_most|limits)"):
            assign_within(utility, Limits(high, low), weights)
        return
    labels = assign_within(utility, Limits(high, low), weights)
    load = np.bincount(labels, weights, minlength=len(utility))
    assert (load >= low).all()
    assert (load <= high).all()
    assert weights @ utility[labels, np.arange(len(labels))] == pytest.approx(best, abs=1e-6)


def test_without_need_everybody_has_their_best():
    utility = np.array([[1.0, 5.0, 0.0], [2.0, 3.0, 0.0]])
    for limits in (Limits(), Limits(at_most=3), Limits(at_least=1), Limits(np.inf, 0)):
        assert assign_within(utility, limits).tolist() == [1, 0, 0]
    assert assign_within(utility, Limits(at_most=[1, 2])).tolist() == [1, 0, 1]


@pytest.mark.slow
def test_ten_thousand_agents_of_ten_policies_take_seconds():
    random = np.random.RandomState(0)
    utility = random.uniform(size=(10, 10_000))
    begun = time.process_time()
    labels = assign_within(utility, Limits(at_most=1050, at_least=950))
    assert time.process_time() - begun < 30  # some 3 s of an idle machine
    counts = np.bincount(labels, minlength=10)
    assert counts.min() >= 950
    assert counts.max() <= 1050
    assert utility[labels, np.arange(10_000)].mean() > 0.9


@pytest.mark.parametrize(
    ("limits", "weights", "message"),
    [
        (Limits(at_most=1), None, "at_most: the 2 policies have room for 2 agents together, and there are 3; give at least 2"),
        (Limits(at_least=2), None, "at_least: the 2 policies ask for 4 agents together, and there are 3; give at most 1 each"),
        (Limits(1, [2, 0]), None, "at_least = 2, at_most = 1 for policy 0: at_least must not be more agents than at_most"),
        (Limits([2, 0.5]), None, "at_most: the 2 policies have room for 2 agents together, and there are 3; give at least 2"),
        (Limits(at_most=-1), None, "at_most = -1: must be a number from 0 up, or k = 2 of them"),
        (Limits(at_most=[3, np.nan]), None, r"at_most = \[3, nan\]: must be a number from 0 up, or k = 2 of them"),
        (Limits(at_most=[1, 2, 3]), None, r"at_most = \[1, 2, 3\]: must be a number from 0 up, or k = 2 of them"),
        (Limits(at_least="many"), None, "at_least = 'many': must be a number from 0 up, or k = 2 of them"),
        (Limits(at_most="3"), None, "at_most = '3': must be a number from 0 up, or k = 2 of them"),
        (Limits(at_most=True), None, "at_most = True: must be a number from 0 up, or k = 2 of them"),
        (Limits(3), ["1", "2", "3"], r"weights = \['1', '2', '3'\]: must be"),
        (Limits(3), [1, 2], r"weights = \[1, 2\]: must be \(3,\) finite numbers above 0, one an agent"),
        (Limits(3), [1, 2, 0], r"weights = \[1, 2, 0\]: must be \(3,\) finite numbers above 0"),
        (Limits(2), [1, 2, 3], "at_most: the 2 policies have room for 4 of weight together, and there are 6; give at least 3"),
        (Limits(0.1), [0.1, 0.2, 0.3], "have room for 0.2 of weight together, and there are 0.6; give at least 0.3 each"),
        (Limits(at_least=0.7), [0.1, 0.2, 1], "ask for 1.4 of weight together, and there are 1.3; give at most 0.65 each"),
    ],
)
def test_what_cannot_be_held_is_refused_with_the_numbers(limits, weights, message):
    with pytest.raises(ConfigError, match=message):
        assign_within([[1.0, 5.0, 0.0], [2.0, 3.0, 9.0]], limits, weights)


@pytest.mark.parametrize("unit", [1.0, 1e-7, 1e7])
def test_limits_by_weight_hold_in_any_unit(unit):
    weights = unit * np.array([1.0, 2.0, 3.0, 4.0])
    labels = assign_within([[1.0] * 4, [0.0] * 4], Limits(at_most=6 * unit), weights)
    assert np.bincount(labels, weights).max() <= 6 * unit * (1 + 1e-9)


def test_who_weighs_next_to_nothing_is_refused_or_an_agent():
    rest = [1.0] * 199
    with pytest.raises(ConfigError, match=r"weights: the least, 1e-09, must be at least 1e-05 of their mean, 0.995"):
        loads_of(Limits(at_most=200), 2, 200, weights=[1e-9, *rest])
    loads = loads_of(Limits(at_most=200), 2, 200, weights=[1e-5, *rest])
    assert loads.at_least == (1, 1)  # though its part is less than rounding may take
    assert set(loads.start) == {0, 1}


def test_nobody_is_divided():
    with pytest.raises(ConfigError, match=r"no assignment of 2 agents, of weights 2 to 3, .* as nobody is divided"):
        assign_within([[1.0, 5.0], [2.0, 3.0]], Limits(at_most=[2.5, 2.9]), [2.0, 3.0])


def test_a_table_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"utility of shape \(3,\): must be \(k, n\) finite numbers"):
        assign_within([1.0, 2.0, 3.0], Limits())
    with pytest.raises(ConfigError, match=r"must be \(k, n\) finite numbers"):
        assign_within([[np.nan, 2.0]], Limits())


def test_fairness_by_hand():
    spread = fairness([4.0, 0.0, 1.0, 3.0], [False, True, False, False])
    assert spread.mean == 2.0
    assert (spread.agents, spread.minimum, spread.worst_tenth, spread.unserved) == (4, 0.0, 0.0, 0.25)
    pairs = [abs(a - b) for a in (4, 0, 1, 3) for b in (4, 0, 1, 3)]
    assert spread.gini == pytest.approx(sum(pairs) / (2 * 16 * 2.0))
    twenty = fairness(np.arange(20.0))
    assert twenty.worst_tenth == 0.5  # of two agents
    assert fairness(np.arange(25.0)).worst_tenth == pytest.approx((0 + 1 + 0.5 * 2) / 2.5)  # and half of a third
    assert fairness([7.0, 7.0]).gini == pytest.approx(0.0)
    assert fairness([0.0] * 99 + [5.0]).gini == pytest.approx(0.99)


def test_a_weight_of_two_counts_as_two():
    random = np.random.RandomState(1)
    returns, weights, lost = random.uniform(size=30), random.randint(1, 4, 30), random.uniform(size=30) < 0.3
    weighed = fairness(returns, lost, weights)
    repeated = fairness(np.repeat(returns, weights), np.repeat(lost, weights))
    np.testing.assert_allclose(weighed[1:], repeated[1:], rtol=1e-9)


def test_gini_is_left_out_where_it_says_nothing():
    assert fairness([-1.0, 3.0]).gini is None
    assert fairness([0.0, 0.0]).gini is None
    assert of_run([[-2.0, -1.0]], [0, 0])[1] is None
    assert of_run([[-2.0, -1.0]], [0, 0])[0].unserved is None


def test_groups_are_told_apart():
    groups = fairness_by_group([1.0, 2.0, 10.0], ["b", "b", "a"], [True, False, False], [1.0, 3.0, 1.0])
    assert list(groups) == ["a", "b"]
    assert groups["a"] == fairness([10.0], [False])
    assert (groups["b"].mean, groups["b"].unserved) == (1.75, 0.25)


def test_unserved_are_those_with_a_tenth_of_the_best_or_less():
    spread, threshold = of_run([[80.0, 8.0, 1.0, 9.0], [0.0, 90.0, 0.0, 0.0]], [0, 0, 0, 0])
    assert threshold == pytest.approx(8.0)
    assert spread.unserved == 0.5
    weighted, _ = of_run([[10.0, 90.0]], [0, 0], [9.0, 1.0])
    assert weighted.mean == 18.0
