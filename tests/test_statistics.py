import math

import numpy as np
import pytest
from scipy import stats

from rmdp_jax.evaluation.statistics import (
    interquartile_mean,
    paired_p,
    probability_of_improvement,
    smallest_difference,
    summarize_values,
)


def test_mean_and_standard_error_by_hand():
    summary = summarize_values([1.0, 2.0, 3.0, 6.0])
    assert summary.number == 4
    assert summary.mean == 3.0
    # deviations -2, -1, 0, 3: variance 14 / 3, divided by 4 runs
    assert summary.standard_error == pytest.approx(math.sqrt(14 / 3 / 4))


def test_the_interval_repeats_and_holds_the_mean():
    values = [70.0, 71.0, 72.5, 73.0, 75.0]
    summary = summarize_values(values)
    assert summary == summarize_values(values)
    assert 70.0 < summary.low < summary.mean < summary.high < 75.0


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = stats.norm(0, 1)
    hits = 0
    for seed in range(40):
        summary = summarize_values(rng.rvs(size=20, random_state=seed))
        hits += summary.low < 0 < summary.high
    assert 33 <= hits <= 40  # 95% of 40 is 38; fewer than 33 has a probability below 0.1% even at 92%


@pytest.mark.parametrize(("values", "mean"), [([], None), ([4.5], 4.5)])
def test_fewer_than_two_values_have_no_error(values, mean):
    assert summarize_values(values) == (len(values), mean, None, None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert summarize_values([89.6] * 5)[2:] == (pytest.approx(0.0, abs=1e-12), 89.6, 89.6)


def test_paired_p_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 2 sqrt(3) with 2 degrees of freedom
    p = paired_p({0: 2.0, 1: 4.0, 2: 6.0, 7: 100.0}, {0: 1.0, 1: 2.0, 2: 3.0, 8: 0.0})
    t = 2 * math.sqrt(3)
    assert p == pytest.approx(1 - t / math.sqrt(t * t + 2))  # the two-sided p of t with 2 degrees of freedom


def test_pairs_that_all_differ_alike():
    a = {0: 1.0, 1: 2.0, 2: 4.0}
    assert paired_p(a, a) == 1.0
    assert paired_p(a, {seed: value + 0.1 for seed, value in a.items()}) == 0.0


@pytest.mark.parametrize("other", [{}, {0: 1.0}, {5: 1.0, 6: 2.0}])
def test_fewer_than_two_pairs_have_no_p(other):
    assert paired_p({0: 1.0, 1: 3.0}, other) is None


def test_the_smallest_difference_by_hand():
    # differences -1, 0, 1: deviation 1, 2 degrees of freedom, quantiles 9.925 (99.5%) and 1.061 (80%)
    smallest = smallest_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 2.0, 2: 2.0, 3: 9.0})
    assert smallest == pytest.approx((9.9248 + 1.0607) / math.sqrt(3), rel=1e-4)
    assert smallest_difference({0: 1.0}, {0: 2.0}) is None


def test_a_difference_that_a_test_could_tell_is_told_about_as_often_as_it_says():
    draws = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        noise = draws.normal(0.0, 1.0, 10)
        difference = smallest_difference(dict(enumerate(noise)), dict.fromkeys(range(10), 0.0))
        shifted = draws.normal(difference, 1.0, 10)
        found += paired_p(dict(enumerate(shifted)), dict.fromkeys(range(10), 0.0)) < 0.01
    assert 0.7 < found / 300 < 0.9


def test_the_interquartile_mean_by_hand():
    summary = interquartile_mean({"a": [0.0, 1.0, 2.0, 100.0], "b": [1.0, 2.0, 3.0, 4.0]})
    assert summary.mean == 2.0  # of 1, 2, 2, 3
    assert summary.number == 8
    assert summary.low <= 2.0 <= summary.high
    assert summary == interquartile_mean({"a": [0.0, 1.0, 2.0, 100.0], "b": [1.0, 2.0, 3.0, 4.0]})
    assert interquartile_mean({"a": [5.0] * 3})[1:] == (5.0, 0.0, 5.0, 5.0)
    assert interquartile_mean({"a": [5.0]}).mean == 5.0
    assert interquartile_mean({}).mean is None


def test_runs_are_resampled_within_their_task():
    """Each task has equal scores, so no resample differs."""
    summary = interquartile_mean({"easy": [0.9] * 4, "hard": [0.1] * 4})
    assert summary.mean == summary.low == summary.high == pytest.approx(0.5)


def test_the_probability_of_improvement_by_hand():
    # a: 3 of 4 pairs are won and one is equal; b: none of 1; c is of one alone
    a, b = {"a": [2.0, 3.0], "b": [1.0], "c": [7.0]}, {"a": [1.0, 2.0], "b": [2.0]}
    assert probability_of_improvement(a, b).mean == pytest.approx((3.5 / 4 + 0.0) / 2)
    assert probability_of_improvement(a, b).number == 2
    assert probability_of_improvement(a, a).mean == 0.5
    assert probability_of_improvement(a, {}).mean is None
