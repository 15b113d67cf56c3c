"""Importing the package is quick: neither brax nor mujoco, and little on top of jax and flax."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

import rmdp_jax
from rmdp_jax import __main__, api

PROGRAM = """
import json, sys, time
import jax, flax, flax.linen
begun = time.perf_counter()
import rmdp_jax
rmdp_jax.train
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


def test_all_names_are_there_and_no_others():
    assert set(rmdp_jax.__all__) <= set(dir(rmdp_jax))
    assert all(hasattr(rmdp_jax, name) for name in rmdp_jax.__all__)
    assert set(rmdp_jax.__all__) == {name for name in vars(api) if not name.startswith("_")}
    with pytest.raises(AttributeError, match="module 'rmdp_jax' has no attribute 'trian'"):
        rmdp_jax.trian  # noqa: B018


def test_the_package_alone_imports_nothing():
    program = "import sys, rmdp_jax; print('jax' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False False\n"


def test_physics_needs_no_opengl():
    """Whatever MUJOCO_GL names: only drawing needs it, in a process of its own."""
    program = (
        "from rmdp_jax.envs.brax_adapter import import_mujoco, quiet\n"
        "with quiet():\n    from mujoco import mjx, rollout\n"
        "import os; print(import_mujoco().mj_name2id.__name__, os.environ['MUJOCO_GL'])"
    )
    for opengl in ("nonsense", "osmesa"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "MUJOCO_GL": opengl},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"mj_name2id {opengl}\n", done.stderr


def test_the_version_is_told_without_jax(monkeypatch, capsys):
    assert rmdp_jax.__version__ == version("rmdp-jax")
    monkeypatch.setattr(sys, "argv", ["rmdp-jax", "--version"])
    monkeypatch.setitem(sys.modules, "rmdp_jax.commands.program", None)  # an import of it would be an error
    __main__.main()
    assert capsys.readouterr().out == f"rmdp-jax {rmdp_jax.__version__}\n"
