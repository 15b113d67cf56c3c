"""What runs on an accelerator lowers for it here: no callback, no float64, no unknown shape, known calls, exact products.

All tasks and algorithms: `python -m benchmarks.lowering`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.lowering import (
    NETWORKS,
    PLATFORMS,
    custom_calls_of,
    faults_of,
    lower,
    plan_of,
    products_of,
    programs,
    read_golden,
    smaller,
    unknown_calls,
    version,
)
from rmdp_jax import make_trainer

pytestmark = pytest.mark.slow

GOLDEN = read_golden()
SMALL = {"hidden": (8,), "unroll": 2, "epochs": 1}


def small(name, algorithm, **sizes):
    env, population, config = smaller(name)
    config = replace(config, sizes=replace(config.sizes, **SMALL, **sizes))
    return env, population, *plan_of(algorithm, env, population, config)


@pytest.fixture(scope="module")
def gathering():
    """All programs of `em` on Resource Gathering, by name."""
    return dict(programs(*small("resource_gathering", "em")))


@pytest.fixture(scope="module")
def step_of_a_body():
    trainer = make_trainer(*small("hopper_speed", "plain_em"))
    return jax.jit(trainer.step).trace(jax.eval_shape(trainer.init, jax.random.key(0)))


def test_every_program_lowers_for_every_platform(gathering):
    assert set(gathering) == {"init", "step", "conclude", "evaluate"}
    for name, traced in gathering.items():
        for platform in PLATFORMS:
            text = lower(traced, platform)
            assert faults_of(text) == []
            if version() in GOLDEN:
                assert custom_calls_of(text) == GOLDEN[version()][platform][name]["resource_gathering"]


def test_a_body_calls_cholesky_and_nothing_else(step_of_a_body):
    for platform in PLATFORMS:
        text = lower(step_of_a_body, platform)
        assert faults_of(text) == []
        if version() in GOLDEN:
            assert custom_calls_of(text) == GOLDEN[version()][platform]["step"]["hopper_speed"]


def test_only_networks_take_products_that_are_not_in_float32(gathering, step_of_a_body):
    surrogate = make_trainer(*small("resource_gathering", "end_to_end_surrogate"))
    learning = jax.jit(surrogate.step).trace(jax.eval_shape(surrogate.init, jax.random.key(0)))
    by_room = {}
    for traced in (*gathering.values(), step_of_a_body, learning):
        for file, precision in products_of(traced, "cuda"):
            by_room.setdefault(file, set()).add(precision)
    assert by_room.pop(NETWORKS) == {"DEFAULT"}
    rooms = {"policies/critics.py", "learning/ppo.py", "assigners/relocation.py", "envs/native.py", "evaluation/evaluate.py"}
    assert rooms <= set(by_room)
    assert by_room == {file: {"HIGHEST"} for file in by_room}


def test_networks_take_the_precision_that_is_set():
    trainer = make_trainer(*small("resource_gathering", "plain_em"))
    with jax.default_matmul_precision("highest"):
        collect = jax.jit(trainer.collect).trace(jax.eval_shape(trainer.init, jax.random.key(0)))
    assert {precision for _, precision in products_of(collect, "cuda")} == {"HIGHEST"}


def test_golden_calls_are_of_both_versions_of_jax():
    assert set(GOLDEN) == {"0.10", "0.11"}
    for calls in GOLDEN.values():
        assert set(calls) == set(PLATFORMS)
        for programs_of in calls.values():
            assert set(programs_of["step"]) == set(calls["tpu"]["init"])


def test_calls_that_are_new_are_told():
    golden = {"cuda": {"step": {"a": ["old"]}}}
    assert unknown_calls({"cuda": {"step": {"a": ["old"]}}}, golden) == []
    assert unknown_calls({"cuda": {"step": {"a": ["new", "old"]}}}, golden) == [
        {"platform": "cuda", "program": "step", "env": "a", "new": ["new"]}
    ]


def test_what_no_accelerator_takes_is_found():
    def called(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), jnp.float32), x)

    def printed(x):
        jax.debug.print("{}", x)
        return x

    one = jnp.float32(1)
    for function in (called, printed):
        assert faults_of(lower(jax.jit(function).trace(one), "cpu")) == ["a callback to the host"]
    with jax.enable_x64(True):
        assert faults_of(lower(jax.jit(jnp.sin).trace(np.float64(1)), "tpu")) == ["float64"]
        assert faults_of(lower(jax.jit(jnp.sin).trace(np.zeros((2, 3))), "tpu")) == ["float64"]
    (size,) = jax.export.symbolic_shape("n")
    unknown = jax.jit(lambda x: jnp.concatenate([x, x])).trace(jax.ShapeDtypeStruct((size, 2), jnp.float32))
    assert faults_of(unknown.lower(lowering_platforms=("cuda",)).as_text()) == ["a shape that is not known"]
    assert custom_calls_of(lower(jax.jit(jnp.linalg.cholesky).trace(jnp.eye(3)), "cuda")) == ["cusolver_potrf_ffi"]
