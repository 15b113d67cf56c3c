"""Functions called by XLA itself: the same numbers as by a callback, errors reported, and a fallback."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax.envs import host_call as module
from rmdp_jax.envs.host_call import host_call


def first_and_sum(x):
    return np.stack([x[..., 0], x.sum(-1)], -1)


def uses_callback(call):
    return "pure_callback" in str(jax.make_jaxpr(call)(jnp.zeros(3)))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_any_batch_gives_what_numpy_gives(batch):
    call = host_call("test.first_and_sum", first_and_sum, 2)
    assert not uses_callback(call)
    for _ in batch:
        call = jax.vmap(call)
    x = jax.random.normal(jax.random.key(0), (*batch, 3))
    np.testing.assert_array_equal(jax.jit(call)(x), first_and_sum(np.asarray(x)))


def test_every_step_of_a_loop_sees_the_last_one():
    call = host_call("test.plus_one", lambda x: x + 1, 3)
    after, seen = jax.jit(lambda x: jax.lax.scan(lambda x, _: (call(x), x[0]), x, None, 50))(jnp.zeros(3))
    np.testing.assert_array_equal(after, np.full(3, 50.0))
    np.testing.assert_array_equal(seen, np.arange(50.0))


def test_an_error_ends_the_program_with_its_words():
    def broken(x):
        raise RuntimeError("no such body")

    call = host_call("test.broken", broken, 3)
    with pytest.raises(Exception, match="RuntimeError: no such body"):
        jax.block_until_ready(jax.jit(call)(jnp.zeros(3)))


def test_a_result_of_another_shape_is_an_error():
    call = host_call("test.too_wide", lambda x: np.zeros(5, np.float32), 3)
    with pytest.raises(Exception, match="ValueError: could not broadcast"):
        jax.block_until_ready(jax.jit(call)(jnp.zeros(3)))


def test_an_interface_of_another_version_is_left_for_a_callback(monkeypatch):
    monkeypatch.setattr(module, "_MAJOR", 99)
    call = host_call("test.of_another_version", first_and_sum, 2)
    assert uses_callback(call)
    np.testing.assert_array_equal(jax.jit(call)(jnp.arange(3.0)), [0.0, 3.0])


def test_structures_of_another_size_are_left_for_a_callback(monkeypatch):
    monkeypatch.setattr(module, "_Items", module._Attributes)
    assert uses_callback(host_call("test.of_another_size", first_and_sum, 2))


LEAVES_WHILE_A_PROGRAM_RUNS = """
import sys, time
import jax, jax.numpy as jnp
from rmdp_jax.envs.host_call import host_call

def slowly(x):
    time.sleep(0.02)
    return x + 1

call = host_call("test.slowly", slowly, 3)

@jax.jit
def program(x):
    x = jax.lax.scan(lambda x, _: (call(x), None), x, None, 5000)[0]
    return x.sum() + jnp.ones((500, 500)) @ jnp.full((500, 500), x[0])  # enough for XLA to work beside Python

after = program(jnp.zeros(3))
time.sleep(0.1)
print(after.is_ready())
sys.exit(3)
"""


def test_python_ends_cleanly_while_a_program_runs():
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_WHILE_A_PROGRAM_RUNS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (3, "False\n"), done.stderr  # long before its 100 s are over
    assert not done.stderr
