"""Every way in which an assigner can break its word is one clear line, before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, make_tiny

from rmdp_jax import ConfigError, Copies, end_to_end, fixed, make_trainer, oracle, plain_em
from rmdp_jax.assigners.base import Together, no_copies
from rmdp_jax.assigners.checks import check_assigner
from rmdp_jax.assigners.halving_em import halving_em

K, N = 2, 4
LABELS = np.arange(N) % K


def stays(key, labels, inputs):
    return labels, no_copies(K)


def raises(*arguments):
    raise RuntimeError("no\nsuch thing")


BROKEN = {
    "no function": ({"weights": None}, "weights is a NoneType, must be a function"),
    "init raises": ({"init": raises}, r"init raised RuntimeError \(no such thing\)"),
    "weights raise": ({"weights": raises}, r"weights raised RuntimeError"),
    "weights of another shape": (
        {"weights": lambda labels: jnp.zeros((N, K))},
        r"weights is float32 \(4, 2\), must be float32 \(2, 4\)",
    ),
    "weights of another dtype": (
        {"weights": lambda labels: jnp.zeros((K, N), jnp.int32)},
        r"weights is int32 \(2, 4\), must be",
    ),
    "columns that sum to 2": (
        {"weights": lambda labels: jnp.ones((K, N))},
        "the first weights of agent 0 sum to 2, must to 1 over",
    ),
    "labels out of range": ({"init": lambda key: jnp.array([0, 1, 5, 0])}, r"the first weights of agent 2 sum to 0, must to 1"),
    "weights below 0": (
        {"weights": lambda labels: jnp.array([[2.0] * N, [-1.0] * N])},
        "the first weights are from -1 to 2, must be shares",
    ),
    "weights that are NaN": ({"weights": lambda labels: jnp.full((K, N), jnp.nan)}, "the first weights are from nan to nan"),
    "descend to another shape": (
        {"descend": lambda gradient, labels: labels[:2]},
        r"the state is int32 \(2,\) after descend, int32 \(4,\) after init; init, descend and reassign must give the same",
    ),
    "reassign to another structure": (
        {"reassign": lambda key, labels, inputs: ((labels, labels), no_copies(K))},
        "the state of reassign has the structure",
    ),
    "reassign to another dtype": (
        {"reassign": lambda key, labels, inputs: (labels.astype(jnp.float32), no_copies(K))},
        r"the state is float32 \(4,\) after reassign, int32 \(4,\) after init",
    ),
    "reassign without copies": (
        {"reassign": lambda key, labels, inputs: labels},
        "reassign returns a ShapeDtypeStruct, must be",
    ),
    "copies of other policies": (
        {"reassign": lambda key, labels, inputs: (labels, no_copies(3))},
        r"sources of reassign is int32 \(3,\), must be int32 \(2,\)",
    ),
    "no sources of an archive": (
        {"reassign": stays, "archive_size": 3},
        r"archive_sources of reassign is a NoneType, must be int32 \(3,\)",
    ),
    "sources of another archive": (
        {"reassign": lambda key, labels, inputs: (labels, Copies(jnp.arange(K), jnp.arange(2))), "archive_size": 3},
        r"archive_sources of reassign is int32 \(2,\)",
    ),
    "conclude without sources": ({"conclude": lambda labels, inputs: labels}, "conclude returns a ShapeDtypeStruct, must be"),
    "conclude with weights": (
        {"conclude": lambda labels, inputs: (jnp.zeros((K, N)), jnp.arange(K))},
        r"labels of conclude is float32 \(2, 4\), must be int32 \(4,\)",
    ),
    "together without weights": (
        {"together": lambda labels: labels[0] > 0},
        "together returns a ShapeDtypeStruct, must be Together",
    ),
    "together by a number": (
        {"together": lambda labels: Together(labels[0], jnp.ones(N))},
        r"now of together is int32 \(\), must be bool \(\)",
    ),
    "together for policies": (
        {"together": lambda labels: Together(labels[0] > 0, jnp.ones(K))},
        r"weights of together is float32 \(2,\), must be float32 \(4,\)",
    ),
    "sampled agents that are none": ({"sampled_agents": np.array([0, 7])}, r"sampled_agents are 0..7, must be of 0..3"),
    "sampled agents in words": ({"sampled_agents": "all"}, "sampled_agents is"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_word_is_named_with_the_way_out(name):
    changes, message = BROKEN[name]
    with pytest.raises(ConfigError, match=f"^assigner = fixed: {message}") as error:
        make_trainer(*make_tiny(), CONFIG, fixed(K, N, LABELS)._replace(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("name", 3), ("options", None), ("needs_per_agent_critic", "no"), ("pretraining", -1)],
        *[("segment_environments", 10**12), ("archive_size", 2.5)],
    ],
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ConfigError, match=f"^assigner.{field} = "):
        check_assigner(fixed(K, N, LABELS)._replace(**{field: value}), can_restore=True)


def test_sound_assigners_pass():
    check_assigner(fixed(K, N, LABELS)._replace(reassign=stays), can_restore=True)
    seen = []

    def reassign(key, labels, inputs):
        seen.append(jax.tree.map(jnp.shape, inputs))
        return labels, Copies(jnp.arange(K), jnp.arange(6))

    own = fixed(K, N, LABELS)._replace(reassign=reassign, archive_size=6, segment_environments=3)
    check_assigner(own, can_restore=True)
    check_assigner(own, can_restore=False)
    assert [(x.utility, x.segments, x.archived) for x in seen] == [((2, 4), (2, 3, 4), (6, 4)), ((2, 4), (2, 3, 4), None)]
    soft = end_to_end(K, N)
    check_assigner(soft._replace(weights=lambda state: soft.weights(state)), can_restore=True)


def test_the_rules_of_an_own_first_assignment():
    for first, message in [
        (raises, r"first: raised RuntimeError \(no such thing\)"),
        (lambda key, k, n: None, r"labels of shape \(\), object"),
        (lambda key, k, n: jnp.arange(n) % 3, r"labels name policies \[0, 1, 2\]: each of 0..1 needs an agent"),
        ("all", r"labels of shape \(\)"),
        ([[0], [1, 2]], "labels = "),
    ]:
        with pytest.raises(ConfigError, match=f"^{message}"):
            plain_em(K, N, first=first)
    assert fixed(K, N, [0, 1, 0, 1]).init(jax.random.key(0)).dtype == jnp.int32


def test_groups_known_beforehand_that_are_none():
    _, population = make_tiny()
    for groups, message in [
        (raises, r"oracle_groups\(2\): raised RuntimeError"),
        (lambda k: [0.5, 1.0, 0.2, 1.0], r"labels of shape \(4,\), float64"),
        (lambda k: [0, 0, 0, 0], r"labels name policies \[0\]"),
        (lambda k: None, r"labels of shape \(\)"),
    ]:
        with pytest.raises(ConfigError, match=f"^{message}"):
            oracle(population._replace(oracle_groups=groups), K)


def test_a_shared_trunk_refuses_halving_before_anything_is_compiled():
    halving = halving_em(K, N)
    own = halving._replace(weights=lambda state: halving.weights(state))  # so that it is traced
    with pytest.raises(ConfigError, match="trunk = 'shared': halving_em puts policies aside"):
        check_assigner(own, can_restore=False)
