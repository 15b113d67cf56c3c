"""The compilation cache: what commands switch on, what the user set before, and what a second process finds."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, sys
import jax
import jax.numpy as jnp
import rmdp_jax
before = jax.config.values["jax_compilation_cache_dir"]
from rmdp_jax.running.cache import use_cache
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
if os.environ.get("PREPARE") == "no_cache":
    from rmdp_jax.commands.compiling import Compiling

    Compiling(no_cache=True).prepare()
folder = use_cache(*sys.argv[1:])
from rmdp_jax.envs.host_call import host_call
double = host_call("test.double", lambda x: 2 * x, 3)
x = jnp.arange(3.0)
hits.clear()
compiled = jax.jit(lambda x: double(jnp.sin(x)) + x).lower(x).compile()
names = ("jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes")
print(json.dumps({
    "before": before,
    "folder": folder and str(folder),
    "settings": [jax.config.values[name] for name in names],
    "hits": len(hits),
    "result": compiled(x).tolist(),
}))
"""
OURS = ("JAX_COMPILATION_CACHE_", "JAX_ENABLE_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE_")  # what conftest.py, or a user, set
ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # this program compiles in no time


def start(tmp_path, *arguments, **changes):
    """What a process that uses the cache says; without a home of its own it would write to the user's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment = {**inherited, "HOME": str(tmp_path / "home"), **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_second_process_finds_what_the_first_compiled_also_with_calls_of_the_host(tmp_path):
    first, second = (start(tmp_path, str(tmp_path / "kept"), **ALL) for _ in range(2))
    assert first["before"] is None  # importing sets nothing
    assert (first["hits"], second["hits"]) == (0, 1)
    assert any("lambda" in path.name for path in (tmp_path / "kept").iterdir())
    assert first["result"] == second["result"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"XDG_CACHE_HOME": None}, "home/.cache/rmdp_jax"),
        ({"XDG_CACHE_HOME": "{tmp}/caches"}, "caches/rmdp_jax"),
        ({"JAX_COMPILATION_CACHE_DIR": "{tmp}/own"}, "own"),
    ],
)
def test_it_is_where_the_user_wants_caches(tmp_path, changes, place):
    changes = {name: value and value.format(tmp=tmp_path) for name, value in changes.items()}
    report = start(tmp_path, **changes)
    assert report["folder"].startswith(str(tmp_path / place))
    assert report["settings"] == ([1.0, 0] if place == "own" else [0.01, 0])


@pytest.mark.parametrize("changes", [{"JAX_ENABLE_COMPILATION_CACHE": "false"}, {"XDG_CACHE_HOME": "/dev/null"}])
def test_it_can_be_switched_off_and_does_without_where_it_cannot_write(tmp_path, changes):
    report = start(tmp_path, **changes)
    assert report["folder"] is None
    assert not (tmp_path / "home").exists()


def test_no_cache_compiles_anew_also_where_a_folder_was_set_from_outside(tmp_path):
    changes = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "kept"), **ALL}
    for _ in range(2):
        assert start(tmp_path, **changes, PREPARE="no_cache")["hits"] == 0
    assert start(tmp_path, **changes)["hits"] == 0
    assert start(tmp_path, **changes)["hits"] == 1
