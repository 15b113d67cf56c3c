"""Greedy coverage of agents' parameters, by hand on a line and against the best of all choices."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from rmdp_jax import ConfigError, Population, cover
from rmdp_jax.assigners.cover import cover_greedily, smallest_radius

PLACES = [0.0, 1.0, 2.0, 8.0, 9.0, 16.0]  # a range of 16, so that scaled numbers are exact


def people(agents):
    return Population(agents, lambda agent, outcome: outcome)


def labels_of(agents, k, **options):
    return cover(people(agents), k, **options).init(jax.random.key(0)).tolist()


def on_a_line(places):
    return cdist(np.array(places)[:, None], np.array(places)[:, None])


@pytest.mark.parametrize(
    ("k", "options", "expected"),
    [
        (1, {"radius": 1 / 16}, [0, 0, 0, 0, 0, 0]),
        (2, {"radius": 1 / 16}, [0, 0, 0, 1, 1, 1]),  # balls about 1 and 8; 16 is in neither, and nearer to 8
        (3, {"radius": 1 / 16}, [0, 0, 0, 1, 1, 2]),
        (4, {"radius": 1 / 16}, [3, 0, 0, 1, 1, 2]),  # all are covered: 0 is the first of the farthest
        (2, {}, [0, 0, 0, 1, 1, 1]),  # all are covered by 7/16 about 2 and 9
        (3, {"share": 0.5}, [0, 1, 2, 2, 2, 2]),  # three are covered by radius 0, and balls of one are taken in order
        (3, {"share": 0.6}, [0, 0, 0, 1, 1, 2]),  # four are not
    ],
)
def test_places_on_a_line(k, options, expected):
    assert labels_of(jnp.array(PLACES), k, **options) == expected


@pytest.mark.parametrize(
    ("k", "share", "expected"), [(2, 1.0, 7.0), (2, 0.8, 1.0), (3, 1.0, 1.0), (6, 1.0, 0.0), (1, 1.0, 8.0), (1, 0.5, 1.0)]
)
def test_the_radius_that_covers_a_share(k, share, expected):
    assert smallest_radius(on_a_line(PLACES), k, share) == expected


def test_distances_are_the_largest_difference_in_any_parameter_scaled_by_its_range():
    agents = {"far": jnp.array([0, 100, 200, 400]), "near": jnp.array([[0.0], [0.004], [0.0], [0.004]])}
    # scaled: (0, 0), (1/4, 1), (1/2, 0), (1, 1): by the second parameter 0 and 2 are together, though 0 and 1 are nearer in sum
    assert labels_of(agents, 2, radius=0.8) == [0, 1, 0, 1]


@settings(max_examples=60)
@given(places=st.lists(st.integers(0, 30), min_size=4, max_size=9), k=st.integers(1, 3), radius=st.integers(0, 8))
def test_greedy_covers_at_least_its_share_of_the_best(places, k, radius):
    distance = on_a_line(places)
    centres = cover_greedily(distance, k, radius)
    assert len(set(centres.tolist())) == k
    covered = [(distance[:, list(some)].min(1) <= radius).sum() for some in combinations(range(len(places)), k)]
    assert (distance[:, centres].min(1) <= radius).sum() >= (1 - 1 / np.e) * max(covered)


def test_agents_that_are_all_alike_leave_no_policy_empty():
    assert sorted(set(labels_of(jnp.ones(5), 3))) == [0, 1, 2]


def test_of_very_many_agents_some_are_looked_at_and_all_are_served():
    agents = np.concatenate([np.linspace(0, 1, 300), np.linspace(10, 11, 300)])
    labels = np.array(labels_of(agents, 2, agents_exact=20))
    assert len(set(labels[:300])) == len(set(labels[300:])) == 1
    assert labels[0] != labels[-1]


@pytest.mark.parametrize(
    ("agents", "options", "message"),
    [
        (jax.random.split(jax.random.key(0), 3), {}, r"agents is key<fry>: cover and contextual go by agents' parameters"),
        ({"name": np.array(["a", "b", "c"])}, {}, r"agents\['name'\] is <U1: cover"),
        (jnp.ones(3, jnp.complex64), {}, "agents is complex64: cover"),
        (np.zeros((3, 0)), {}, "agents: hold no number"),
        (jnp.array([0.0, jnp.nan, 1.0]), {}, "agents holds numbers that are not finite"),
        (jnp.arange(3), {"radius": 0}, "radius = 0: must be a positive share of the parameters' ranges"),
        (jnp.arange(3), {"share": 1.5}, "share = 1.5: must be a share of the agents"),
        (jnp.arange(3), {"k": 4}, "k = 4: must be from 1 to n = 3"),
    ],
)
def test_what_cannot_be_covered_is_named(agents, options, message):
    with pytest.raises(ConfigError, match=message):
        cover(people(agents), **{"k": 2, **options})
