import math

import pytest
from scipy import stats

from rmdp_jax.evaluation.statistics import best_of, paired_p, summarize_values


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


def test_best_are_the_highest_and_what_is_not_told_from_it():
    high = {0: 90.0, 1: 91.0, 2: 92.0, 3: 93.0}
    near = {0: 92.0, 1: 89.5, 2: 93.0, 3: 91.0}  # differences -2, 1.5, -1, 2
    low = {0: 80.0, 1: 81.1, 2: 81.9, 3: 83.0}  # differences near 10
    assert best_of({"near": near, "high": high, "low": low, "nothing": {}}) == {"high", "near"}
    assert best_of({}) == set()


def test_what_cannot_be_tested_is_not_called_best():
    assert best_of({"a": {0: 90.0}, "b": {0: 1.0}}) == {"a"}
