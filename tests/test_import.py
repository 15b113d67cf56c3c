"""Importing the package is quick: neither brax nor mujoco, and little on top of jax and flax."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, time
import jax, flax, flax.linen
begun = time.perf_counter()
import rmdp_jax
taken = time.perf_counter() - begun
heavy = [name for name in ("brax", "mujoco", "matplotlib", "orbax", "sklearn", "scipy.stats") if name in sys.modules]
print(json.dumps({"taken": taken, "heavy": heavy, "envs": "rmdp_jax.envs" in sys.modules}))
"""


@pytest.fixture(scope="module")
def imports():
    def once():
        return json.loads(subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout)

    return [once() for _ in range(3)]


def test_neither_brax_nor_mujoco_is_imported(imports):
    for seen in imports:
        assert not {"brax", "mujoco"} & set(seen["heavy"])
        assert not seen["envs"]


def test_import_takes_half_a_second_at_most(imports):
    assert min(seen["taken"] for seen in imports) <= 0.5
