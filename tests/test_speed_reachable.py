"""The estimate of what policies reach, against the proved bound where nothing ripples, and against every choice by hand."""

from itertools import combinations

import numpy as np
import pytest

from rmdp_jax.envs import make
from rmdp_jax.envs.speed import BODIES, make_population
from rmdp_jax.envs.speed_bound import speed_upper_bound
from rmdp_jax.envs.speed_reachable import MOST_TARGETS, PLACES, held_from, pays_at, reachable_welfare

LOW, HIGH, HALF_WIDTH = 0.0, 2.5, 0.125
GRID = np.linspace(LOW, HIGH, 201)


def held(*own, targets=(0.5, 1.5, 2.0), ripple=0.0):
    """What policies were paid that hold their targets with a speed that is now `ripple` below them and now above."""
    rows = [
        pay * np.mean([np.clip(1 - np.abs(GRID - target - side * ripple) / HALF_WIDTH, 0, 1) for side in (-1, 1)], axis=0)
        for target, pay in zip(targets, own, strict=True)
    ]
    return held_from({"targets": list(targets), "range": [LOW, HIGH], "pays": np.array(rows).tolist(), "transitions": 7})


def test_pays_move_with_the_speed_and_lie_between_those_measured():
    known = held(80.0, 40.0, 40.0)
    assert pays_at(known, np.array([0.5, 1.0, 1.5, 2.4]), np.array([0.5, 1.0, 1.5, 2.4])).diagonal() == pytest.approx(
        [80.0, 60.0, 40.0, 40.0]
    )
    beside = pays_at(known, np.array([0.2]), np.array([0.2 + HALF_WIDTH / 2, 0.2 - HALF_WIDTH, 2.0]))
    assert beside[0] == pytest.approx([40.0, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_without_ripple_it_is_the_proved_bound_on_a_grid_of_speeds(k):
    targets = np.random.RandomState(0).choice(np.linspace(LOW, HIGH, PLACES), 60)
    perfect = held(100.0, 100.0, 100.0)
    assert reachable_welfare(perfect, targets, k) == pytest.approx(speed_upper_bound(targets, HALF_WIDTH, k), abs=1e-6)
    rippled = reachable_welfare(held(100.0, 100.0, 100.0, ripple=0.08), targets, k)
    assert rippled < reachable_welfare(perfect, targets, k)


def test_against_every_choice():
    known, targets = held(90.0, 70.0, 20.0, ripple=0.05), np.random.RandomState(1).uniform(LOW, HIGH, 40)
    pays = pays_at(known, np.linspace(LOW, HIGH, PLACES), targets)
    for k in (1, 2):
        best = max(pays[list(some)].max(0).mean() for some in combinations(range(PLACES), k))
        assert reachable_welfare(known, targets, k) == pytest.approx(best, abs=1e-6)


def test_of_very_many_targets_quantiles_are_enough():
    known, targets = held(90.0, 70.0, 20.0), np.random.RandomState(2).uniform(LOW, HIGH, 5 * MOST_TARGETS)
    few = np.sort(targets)[2::5]
    assert reachable_welfare(known, targets, 5) == pytest.approx(reachable_welfare(known, few, 5), abs=0.05)


def test_it_is_in_the_units_of_the_task_and_only_where_it_was_measured():
    known = held(90.0, 70.0, 20.0)
    short, whole = (make_population(BODIES["hopper"], 50, 0, length, known).reachable(3) for length in (100, 1000))
    assert whole == pytest.approx(10 * short)
    assert 0.0 < whole < make_population(BODIES["hopper"], 50, 0).upper_bound(3)
    assert make_population(BODIES["hopper"], 50, 0).reachable(3) is None
    assert make("resource_gathering")[1].reachable(3) is None
    assert make("hopper_speed", n=5)[1].reachable(3) is not None
    assert make("hopper_speed", n=5, episode_length=50)[1].reachable(3) is None  # it was measured from rest over 1000 steps
