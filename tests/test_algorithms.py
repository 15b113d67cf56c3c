"""Every algorithm by name, on a 3x3 grid; what they learn is a matter of benchmarks."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from rmdp_jax import ConfigError, Population, Sizes, TrainConfig, cluster, make_trainer, oracle
from rmdp_jax.assigners.base import harden
from rmdp_jax.envs import make
from rmdp_jax.envs.resource_gathering import optimum
from rmdp_jax.running.algorithms import ALGORITHMS, make_plan, task_of

SIZES = Sizes(environments=4, unroll=8, epochs=1, minibatches=2, hidden=(8,))
CONFIG = TrainConfig(k=2, n=9, transitions=4 * SIZES.transitions, sizes=SIZES)
EXPECTED_K = {"single": 1, "individual": 9, "contextual": 1}
PRETRAINED = ("cluster", "affinity")


@pytest.fixture
def task(monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.cluster.CLUSTER_TRANSITIONS", 32)
    return make("resource_gathering", size=3)


SLOW = ("cluster", "affinity", "contextual", "single", "individual")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ALGORITHMS])
def test_plans_are_trained_as_they_are(task, name):
    task = task_of(name, *task)
    config, assigner = make_plan(name, *task, CONFIG)
    assert assigner.name == name
    assert config.k == assigner.k == EXPECTED_K.get(name, 2)
    assert config.transitions + assigner.pretraining == CONFIG.transitions
    assert (assigner.pretraining > 0) == (name in PRETRAINED)
    trainer = make_trainer(*task, config, assigner)
    state, info = jax.jit(trainer.step)(jax.jit(trainer.init)(jax.random.key(0)))
    assert int(info.policy_sizes.sum()) == 9
    assert np.isfinite(info.losses.loss).all()
    assert (float(info.softness) > 0) == (name.startswith("end_to_end") or name == "em")  # which has just split
    assert harden(assigner.weights(state.assignment)).tolist() == info.assignment.tolist()


def test_cluster_finds_agents_with_equal_rewards(task):
    env, _ = task
    wishes = np.array([0, 8, 0, 8, 8, 0, 0, 8, 8])  # two kinds of people

    def reward(cell, outcome):  # whoever wants cell 8 is paid where it was visited, the others where it was not
        return jax.numpy.where(outcome.visited[8] == (cell == 8), 1.0, 0.0)

    labels = cluster(env, Population(jax.numpy.asarray(wishes), reward), CONFIG).init(jax.random.key(0))
    same = np.asarray(labels)[:, None] == np.asarray(labels)[None]
    np.testing.assert_array_equal(same, wishes[:, None] == wishes[None])


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_policy_for_everybody_needs_a_budget(name):
    with pytest.raises(ConfigError, match=f"transitions = 128: must be above the 10064 that {name} spends"):
        make_plan(name, *make("resource_gathering", size=3), CONFIG)


def test_contextual_needs_a_task_in_context_and_few_enough_agents():
    task = make("resource_gathering", size=3)
    with pytest.raises(ConfigError, match=r"one without context; take with_context\(env, population\)"):
        make_plan("contextual", *task, CONFIG)
    few = replace(CONFIG, sizes=replace(SIZES, agents_exact=8))
    with pytest.raises(ConfigError, match="n = 9: must be at most agents_exact = 8"):
        make_plan("contextual", *task_of("contextual", *task), few)


def test_oracle_draws_the_groups_of_the_proved_optimum(task):
    _, population = task
    labels = np.asarray(oracle(population, 2).init(jax.random.key(0)))
    assert set(labels.tolist()) == {0, 1}
    assert optimum(2, 3)["welfare"] == pytest.approx(0.94)
    with pytest.raises(ConfigError, match="no groups known beforehand"):
        oracle(make("resource_gathering", size=6)[1], 2)
