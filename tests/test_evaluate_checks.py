"""What `evaluate` is given has to fit: labels out of range gave a welfare, once even a higher one than the right one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, K, N, make_tiny

from rmdp_jax import ConfigError, evaluate, make_evaluate, make_record
from rmdp_jax.policies.model import describe_policies

LABELS = [0, 1, 0, 1]


@pytest.fixture(scope="module")
def task():
    """Env, people, and policies that do the same everywhere."""
    env, population = make_tiny()
    like = describe_policies(env.spec, CONFIG.sizes, K, N)
    return env, population, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ([0, 1, 2, 1], r"assignment names policies 0..2: must be of the k = 2, 0..1"),
        ([0, -1, 0, 1], r"assignment names policies -1..1: must be of the k = 2"),
        ([0, 1, 0], r"assignment of shape \(3,\), int64: must be \(n,\) = \(4,\) whole numbers"),
        ([[0, 1, 0, 1]], r"assignment of shape \(1, 4\)"),
        ([0.0, 1.0, 0.0, 1.0], r"assignment of shape \(4,\), float64: must be"),
        ([True, False, True, False], r"assignment of shape \(4,\), bool"),
        ([10**12, 0, 0, 0], "assignment names policies 0..1000000000000"),
        ("0101", r"assignment of shape \(\)"),
        ([[0], [1, 2]], "assignment = "),
        (None, r"assignment of shape \(\), object"),
    ],
)
def test_labels_that_are_none_are_refused(task, assignment, message):
    env, population, policies = task
    with pytest.raises(ConfigError, match=f"^{message}"):
        evaluate(env, population, CONFIG, policies, assignment)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "episodes = 0: must be a whole number of at least 1"),
        ({"episodes": 10**8}, "episodes = 100000000: must be at most 1,000,000"),
        ({"episodes": "many"}, "episodes = 'many'"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 10**12}, "seed = 1000000000000"),
        ({"deterministic": "yes"}, "deterministic = 'yes': must be True or False"),
    ],
)
def test_bad_arguments_are_named(task, changes, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        evaluate(*task[:2], CONFIG, task[2], LABELS, **changes)


def test_what_is_of_another_run_is_named(task):
    env, population, policies = task
    three = jax.tree.map(lambda x: jnp.concatenate([x, x[:1]]) if x.ndim else x, policies)
    fewer = population._replace(agents=jax.tree.map(lambda x: x[:3], population.agents))
    for given, message in [
        ((env, population, CONFIG, three, LABELS), "policies: are 3, but the config has k = 2"),
        ((env, fewer, CONFIG, policies, LABELS), r"assignment of shape \(4,\), int64: must be \(n,\) = \(3,\)"),
        ((env, population, None, policies, LABELS), "config = None: must be the TrainConfig"),
        ((population, env, CONFIG, policies, LABELS), "env = Population"),
        ((env, env, CONFIG, policies, LABELS), "population = Env"),
    ]:
        with pytest.raises(ConfigError, match=f"^{message}"):
            evaluate(*given)
    with pytest.raises(ConfigError, match=r"^deterministic = None"):
        make_record(env, CONFIG, deterministic=None)


def test_other_people_than_those_of_the_run_are_evaluated_also_fewer_than_policies(task):
    env, population, policies = task
    every = evaluate(env, population, CONFIG, policies, LABELS)
    for chosen in ([2], [0, 1, 2, 3, 3, 0]):
        some = population._replace(agents=jax.tree.map(lambda x, chosen=chosen: x[np.array(chosen)], population.agents))
        found = evaluate(env, some, CONFIG, policies, [LABELS[i] for i in chosen])
        np.testing.assert_allclose(found.utility, every.utility[:, np.array(chosen)], rtol=1e-6)
        own = every.utility[np.array(LABELS)[chosen], np.array(chosen)]
        assert found.welfare == pytest.approx(float(own.mean()), rel=1e-5)


def test_traced_labels_of_other_people_are_named(task):
    env, population, policies = task
    with pytest.raises(ConfigError, match=r"^assignment of shape \(3,\): must be \(n,\) = \(4,\), of these agents"):
        jax.jit(make_evaluate(env, population, CONFIG, episodes=2))(policies, jnp.array([0, 1, 0]), jax.random.key(0))


def test_the_welfare_of_labels_that_nobody_could_check_is_nan(task):
    env, population, policies = task
    evaluation_of = jax.jit(make_evaluate(env, population, CONFIG, episodes=2))
    sound, *broken = (
        evaluation_of(policies, jnp.array(labels, jnp.int32), jax.random.key(0))
        for labels in (LABELS, [0, 1, 2, 1], [0, 1, -1, 1])
    )
    assert np.isfinite(sound.welfare)
    for evaluation in broken:
        assert np.isnan(evaluation.welfare)
        np.testing.assert_array_equal(evaluation.utility, sound.utility)
