from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax import ConfigError
from rmdp_jax.env import Step
from rmdp_jax.envs import make
from rmdp_jax.envs.speed import BODIES, Outcome, make_population, make_speed, speed_upper_bound


def payoff(speeds, targets, half_width):
    return np.clip(1 - np.abs(np.subtract.outer(speeds, targets)) / half_width, 0, 1)


def brute_force(targets, half_width, k):
    candidates = np.concatenate([targets, targets - half_width, targets + half_width])
    pays = payoff(candidates, targets, half_width)
    return max(pays[list(chosen)].max(0).mean() for chosen in combinations(range(len(candidates)), k)) * 100


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=3, max_size=7), st.integers(1, 3), st.sampled_from([0.1, 0.35, 1.0, 9.0]))
def test_bound_equals_brute_force(tenths, k, half_width):
    targets = np.array(tenths) / 10.0  # a coarse grid gives ties and targets exactly L apart
    np.testing.assert_allclose(speed_upper_bound(targets, half_width, k), brute_force(targets, half_width, k), atol=1e-9)


def test_bound_by_hand():
    assert speed_upper_bound(np.array([1.0, 1.1, 3.0]), 0.2, 1) == pytest.approx(100 * 1.5 / 3)
    assert speed_upper_bound(np.array([1.0, 1.1, 3.0]), 0.2, 2) == pytest.approx(100 * 2.5 / 3)
    assert speed_upper_bound(np.array([1.0, 1.1, 3.0]), 0.2, 7) == pytest.approx(100)


def test_bound_is_not_beaten_by_a_fine_grid_of_speeds():
    targets = np.random.default_rng(0).uniform(0, 4, 12)
    pays = payoff(np.linspace(-0.5, 4.5, 2501), targets, 0.2)
    assert 100 * pays.mean(1).max() <= speed_upper_bound(targets, 0.2, 1) + 1e-9
    pair = max(np.maximum(pays[a], pays[a:]).mean(1).max() for a in range(0, 2501, 10))
    assert 100 * pair <= speed_upper_bound(targets, 0.2, 2) + 1e-9


def quadratic(targets, half_width, k):
    """The same chains with a table of all pairs of neighbours."""
    t = np.sort(targets)
    pays = payoff(t, t, half_width)
    table = np.full((t.size, t.size), -np.inf)
    for a, b in combinations(range(t.size), 2):
        table[a, b] = np.maximum(pays[a, a + 1 : b + 1], pays[b, a + 1 : b + 1]).sum()
    best = np.array([pays[b, : b + 1].sum() for b in range(t.size)])
    for _ in range(k - 1):
        best = (best[:, None] + table).max(0)
    return 100 * max(best[b] + pays[b, b + 1 :].sum() for b in range(t.size)) / t.size


@pytest.mark.parametrize("k", [2, 3, 7, 20])
def test_bound_equals_the_quadratic_search(k):
    for seed, half_width in enumerate((0.05, 0.2, 3.0)):
        targets = np.random.default_rng(seed).uniform(0, 4, 61) ** 2 / 4
        assert speed_upper_bound(targets, half_width, k) == pytest.approx(quadratic(targets, half_width, k), abs=1e-9)


def test_bound_of_grouped_targets_is_a_bound_and_a_near_one(monkeypatch):
    targets = np.random.default_rng(0).uniform(0, 4, 1000)
    exact = speed_upper_bound(targets, 0.2, 5)
    monkeypatch.setattr("rmdp_jax.envs.speed_bound.LARGEST_EXACT", 100)
    assert exact <= speed_upper_bound(targets, 0.2, 5) <= exact + 2 * 100 * (0.04 / 4) / 0.2
    assert speed_upper_bound(np.repeat(targets[:90], 20), 0.2, 5) == pytest.approx(
        speed_upper_bound(targets[:90], 0.2, 5), abs=1e-9
    )


def test_bound_of_a_million_agents_takes_seconds():
    assert make_population(BODIES["halfcheetah"], 10**6, 0).upper_bound(3) == pytest.approx(15.0, abs=0.3)  # k L / range


def test_bound_of_the_targets_of_the_authors_run():
    # Seed 0, n = 100, k = 5 of HalfCheetah: 36.5, as noted beside the reference run.
    assert make_population(BODIES["halfcheetah"], 100, 0).upper_bound(5) == pytest.approx(36.5, abs=0.05)


def test_bound_of_many_agents_is_quick_and_grows_with_k():
    population = make_population(BODIES["walker2d"], 1000, 3)
    bounds = [population.upper_bound(k) for k in (1, 5, 20, 50, 1000)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(100)


@pytest.mark.parametrize(("speed", "expected"), [(1.0, 0.1), (1.1, 0.05), (0.9, 0.05), (1.2, 0.0), (5.0, 0.0), (-3.0, 0.0)])
def test_reward_of_a_step(speed, expected):
    population = make_population(BODIES["halfcheetah"], 3, 0)
    reward = population.reward(np.float32(1.0), Outcome(np.float32(speed)))
    assert reward == pytest.approx(expected, abs=1e-6)


def test_targets_and_oracle_bands():
    body = BODIES["ant"]
    population = make_population(body, 200, 7)
    targets = np.asarray(population.agents)
    assert targets.dtype == np.float32
    assert population.n == 200
    assert targets.min() >= body.low
    assert targets.max() <= body.high
    assert (targets == np.asarray(make_population(body, 200, 7).agents)).all()
    assert (targets != np.asarray(make_population(body, 200, 8).agents)).any()
    groups = population.oracle_groups(3)
    assert groups.dtype == np.int32
    np.testing.assert_array_equal(groups, np.searchsorted([1.0, 2.0], targets, "right"))


def test_people_of_a_seed_of_their_own():
    kinds = ({"seed": 2, "people_seed": 1}, {"seed": 1}, {"seed": 2})
    apart, one, two = (make("halfcheetah_speed", n=3, **seeds) for seeds in kinds)
    np.testing.assert_array_equal(apart[1].agents, one[1].agents)
    assert (np.asarray(apart[1].agents) != np.asarray(two[1].agents)).all()
    assert apart[0].spec.options["seed"] == 1
    with pytest.raises(ConfigError, match="people_seed = -1: must be a whole number from 0"):
        make("resource_gathering", people_seed=-1)


def test_a_diverged_step_pays_nothing():
    population = make_population(BODIES["hopper"], 5, 0)
    step = Step(np.zeros(3, np.float32), Outcome(np.float32(np.nan)), np.True_, np.False_, np.True_)
    np.testing.assert_array_equal(population.rewards(step), np.zeros(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"body": "halfcheeta"}, "body = 'halfcheeta' is not known; did you mean 'halfcheetah'"),
        ({"body": "ant", "backend": "mjxx"}, "backend = 'mjxx' is not known; did you mean 'mjx'"),
        ({"body": "ant", "n": 0}, "n = 0"),
        ({"body": "ant", "episode_length": 0}, "episode_length = 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_speed(**arguments)
